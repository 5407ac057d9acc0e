"""The system calls that the standard library lacks, and what to do where they are missing."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import select
import struct
import sys
import termios

__all__ = [
    "adopted_children",
    "become_subreaper",
    "has_exited",
    "holds_bytes",
    "is_dead",
    "is_hung_up",
    "is_readable",
    "open_descriptors",
    "parent_and_start",
    "parent_of",
    "punch_hole",
    "start_ticks",
    "status_by_pidfd",
    "status_of_zombie",
]

# Where _stat has the parent, and the time of the start, which tells a process from a later one.
_PPID_FIELD = 1
_START_FIELD = 19
_EXIT_CODE_FIELD = 49
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37
_CHILDREN_BYTES = 64 * 1024
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

_libc = ctypes.CDLL(None, use_errno=True)
# musl has only the second name, with offsets of 64 bits; 32-bit glibc needs the first.
_fallocate = getattr(_libc, "fallocate64", None) or getattr(_libc, "fallocate", None)


def become_subreaper() -> bool:
    """Adopt what the agents leave behind. False where the system has no such thing."""
    if sys.platform != "linux":
        return False
    return bool(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def adopted_children() -> set[int] | None:
    """Return the children of this thread, if those of its children's that end become its own.

    ``None`` where that is not so, or cannot be known. Nothing is left out as long as this thread
    reaps nobody meanwhile (``fs/proc/array.c``, ``get_children_pid``).
    """
    is_subreaper = ctypes.c_int()
    if sys.platform != "linux" or _libc.prctl(
        _PR_GET_CHILD_SUBREAPER, ctypes.byref(is_subreaper), 0, 0, 0
    ):
        return None
    if not is_subreaper.value:
        return None
    try:
        fd = os.open("/proc/thread-self/children", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = b""
        while piece := os.read(fd, _CHILDREN_BYTES):
            data += piece
    except OSError:
        return None
    finally:
        os.close(fd)
    return set(map(int, data.split()))


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


def _stat(pid: int) -> list[bytes]:
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
    return parent_and_start(pid)[1]


def parent_and_start(pid: int) -> tuple[int, int]:
    """Return a process's parent and the ticks of its start; zeros where there is none."""
    fields = _stat(pid)
    return (int(fields[_PPID_FIELD]), int(fields[_START_FIELD])) if fields else (0, 0)


def is_dead(pid: int) -> bool:
    """Whether there is no such process, or only its exit status is left of it."""
    fields = _stat(pid)
    return not fields or fields[0] in (b"Z", b"X")


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


def parent_of(pid: int) -> int | None:
    """Return the parent of a process; ``None`` where there is no such process, or no /proc."""
    fields = _stat(pid)
    return int(fields[_PPID_FIELD]) if fields else None


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


def status_of_zombie(pid: int, ticks: int) -> int | None:
    """Return the wait status of a process that has exited and was not reaped, else ``None``.

    ``ticks`` is its start.
    The kernel says 0 to whoever may not know, so a 0 counts from a process of this very
    user only.
    """
    fields = _stat(pid)
    if not fields or fields[0] not in (b"Z", b"X") or len(fields) <= _EXIT_CODE_FIELD:
        return None
    if int(fields[_START_FIELD]) != ticks:
        return None
    status = int(fields[_EXIT_CODE_FIELD])
    if status != 0:
        return status
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            lines = dict(line.split(b":", 1) for line in file if b":" in line)
    except OSError:
        return None
    own = {b"Uid": os.geteuid(), b"Gid": os.getegid()}
    same = all({int(word) for word in lines[name].split()} == {own[name]} for name in own)
    return 0 if same else None


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
