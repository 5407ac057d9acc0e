"""The system calls that the standard library lacks, and what to do where they are missing."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
import sys

__all__ = [
    "START_FIELD",
    "become_subreaper",
    "has_exited",
    "process_stat",
    "punch_hole",
    "start_ticks",
]

START_FIELD = 19
"""Where :func:`process_stat` has the time of the start, which tells a process from a later one."""


_PR_SET_CHILD_SUBREAPER = 36
_FALLOC_FL_KEEP_SIZE = 0x01
_FALLOC_FL_PUNCH_HOLE = 0x02
_F_PUNCHHOLE = 99  # Darwin, <sys/fcntl.h>
_BLOCK = 4096
_P_PID = 1
_WNOHANG = 1
_WEXITED = 4
_WNOWAIT = 0x20 if sys.platform == "darwin" else 0x01000000

_libc = ctypes.CDLL(None, use_errno=True)
# musl has only the second name, with offsets of 64 bits; 32-bit glibc needs the first.
_fallocate = getattr(_libc, "fallocate64", None) or getattr(_libc, "fallocate", None)


def become_subreaper() -> bool:
    """Adopt what the agents leave behind. False where the system has no such thing."""
    if sys.platform != "linux":
        return False
    return bool(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def punch_hole(fd: int, start: int, end: int) -> None:
    """Give the disk space of whole blocks in ``start`` to ``end`` back; offsets stay.

    Raises ``OSError``: ``EOPNOTSUPP`` where the system or the file system cannot.
    """
    start -= start % _BLOCK
    end -= end % _BLOCK
    if end <= start:
        return
    if sys.platform == "darwin":
        fcntl.fcntl(fd, _F_PUNCHHOLE, struct.pack("=IIqq", 0, 0, start, end - start))
        return
    if _fallocate is None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    mode = _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE
    offset, length = ctypes.c_int64(start), ctypes.c_int64(end - start)
    if _fallocate(fd, mode, offset, length) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def process_stat(pid: int) -> list[bytes]:
    """Return the fields of /proc/PID/stat after the program's name, the state first.

    Empty where there is no such process, or no /proc. See proc(5); ``open`` costs twice as much.
    """
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        return os.read(fd, 4096).rpartition(b")")[2].split()
    except OSError:
        return []
    finally:
        os.close(fd)


def start_ticks(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 where that is not known."""
    fields = process_stat(pid)
    return int(fields[START_FIELD]) if fields else 0


def has_exited(pid: int) -> bool:
    """Whether a child has exited, leaving its exit status where it is."""
    # os.waitid exists on macOS from Python 3.13 only. The first field of siginfo_t is the
    # signal's number everywhere, and zero where no child has exited.
    info = ctypes.create_string_buffer(256)
    options = _WEXITED | _WNOHANG | _WNOWAIT
    with contextlib.suppress(OSError):
        if _libc.waitid(_P_PID, pid, info, options) == 0:
            return bool(struct.unpack_from("=i", info)[0])
    return False
