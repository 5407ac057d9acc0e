"""The system calls that the standard library lacks, and what to do where they are missing."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import select
import signal
import struct
import sys
import termios

__all__ = [
    "SHORTAGES",
    "become_subreaper",
    "child_signals",
    "has_exited",
    "holds_bytes",
    "is_hung_up",
    "is_readable",
    "is_subreaper",
    "open_descriptors",
    "punch_hole",
    "status_by_pidfd",
]

SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""The errors of opening that say that there is nothing left to open with, for now."""

_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37
_PIDFD_GET_INFO = 0xC040FF0B  # _IOWR(0xFF, 11, struct pidfd_info of 64 bytes)
_PIDFD_INFO_EXIT = 1 << 3
_PIDFD_INFO = struct.Struct("=QQ11Ii")
_FALLOC_FL_KEEP_SIZE = 0x01
_FALLOC_FL_PUNCH_HOLE = 0x02
_F_PUNCHHOLE = 99  # Darwin, <sys/fcntl.h>
_BLOCK = 4096
_P_PID = 1
_WNOHANG = 1
_WEXITED = 4
_WNOWAIT = 0x20 if sys.platform == "darwin" else 0x01000000

_NO_BYTES = bytes(4)
_SIGSET_BYTES = 128  # an array of longs, with glibc and musl

_libc = ctypes.CDLL(None, use_errno=True)
# musl has only the second name, with offsets of 64 bits; 32-bit glibc needs the first.
_fallocate = getattr(_libc, "fallocate64", None) or getattr(_libc, "fallocate", None)


def become_subreaper() -> bool:
    """Adopt what the agents leave behind. False where the system has no such thing."""
    if sys.platform != "linux":
        return False
    return bool(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def is_subreaper() -> bool:
    """Whether what this process's children leave behind becomes its own children."""
    if sys.platform != "linux":
        return False
    answer = ctypes.c_int()
    _libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0)
    return bool(answer.value)


def child_signals() -> int:
    """Hold SIGCHLD back in this thread; return a descriptor that is readable when one waits.

    Its contents are to be read. -1 where the system has none: the signal comes as ever then.
    """
    if sys.platform != "linux" or not hasattr(_libc, "signalfd"):
        return -1
    first = (1 << signal.SIGCHLD - 1).to_bytes(ctypes.sizeof(ctypes.c_long), sys.byteorder)
    wanted = first.ljust(_SIGSET_BYTES, b"\0")
    fd: int = _libc.signalfd(-1, wanted, os.O_NONBLOCK | os.O_CLOEXEC)
    if fd >= 0:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    return fd


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


def is_readable(fd: int) -> bool:
    """Whether ``fd`` has something to read now, for a pidfd: whether the process has exited."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def open_descriptors() -> int:
    """Return how many descriptors this process has open. Raises ``OSError``.

    Linux 6.2 and later say it at once; else the directory is listed, which takes a descriptor, and
    some milliseconds where there are ten thousand.
    """
    directory = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    return os.stat(directory).st_size if _counts_descriptors() else len(os.listdir(directory)) - 1


@functools.cache
def _counts_descriptors() -> bool:
    """Whether the size of the directory of descriptors is their number."""
    try:
        before = os.stat("/proc/self/fd").st_size
        fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return 0 < before < os.stat("/proc/self/fd").st_size
    finally:
        os.close(fd)


def holds_bytes(pipe: int) -> bool:
    """Whether a pipe has something to be read."""
    return fcntl.ioctl(pipe, termios.FIONREAD, _NO_BYTES) != _NO_BYTES


def is_hung_up(pipe: int) -> bool:
    """Whether nobody has a pipe's other end."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    return any(events & select.POLLHUP for _, events in poll.poll(0))


def status_by_pidfd(pidfd: int) -> int | None:
    """Return the wait status of a process that somebody has reaped (Linux 6.15), else ``None``."""
    info = bytearray(_PIDFD_INFO.size)
    _PIDFD_INFO.pack_into(info, 0, _PIDFD_INFO_EXIT, *[0] * 13)
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, info)
    except OSError:
        return None
    mask, *_, status = _PIDFD_INFO.unpack(info)
    return int(status) if mask & _PIDFD_INFO_EXIT else None


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
