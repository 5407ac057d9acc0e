"""Starting one agent's process: its directory, its pipes, its session, and why it did not start."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import resource
import shutil
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .fork_exec import ChildFailed, fork_exec
from .output_pipe import START_SUFFIX
from .passing import close_all
from .proc import boot_clock_ns

__all__ = ["StartFailed", "Started", "remove_output", "start"]

_AGENT_UMASK = 0o022

_REASONS = {
    errno.E2BIG: "its arguments and environment are longer than this system allows",
    errno.ENOEXEC: "it is not in a format that this system can run",
    errno.EAGAIN: "this user may have no more processes",
    errno.ENOMEM: "there is not enough memory",
    errno.EMFILE: "the keeper has no file descriptors left",
    errno.ENFILE: "this system has no file descriptors left",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "it is not executable, or not allowed to be",
    errno.ETXTBSY: "it is being written to",
    errno.ELOOP: "there are too many symbolic links on the way to it",
    errno.ENAMETOOLONG: "the name is too long",
}


class StartFailed(Exception):
    """The process could not be started; the text says why. Nothing of it is left."""


@dataclass(frozen=True, slots=True)
class Started:
    """A process after its exec, and our ends of its pipes."""

    pid: int
    made_between_ns: tuple[int, int]
    """By the clock since boot."""
    started_at_ns: int
    stdin_fd: int | None
    stdout_fd: int
    stderr_fd: int


def start(request: Mapping[str, Any], null_fd: int) -> Started:
    """Start the process of a ``launch`` request; return after its exec. Raises ``StartFailed``."""
    made: list[str] = []
    ours: list[int] = []
    theirs: list[int] = []
    try:
        # The mark, too, by which a later server sees that the program may have run.
        _make_directories(request, made)
        try:
            stdin_fd, stdin_end = None, null_fd
            if request["stdin"] != "null":
                stdin_fd, stdin_end = _pipe(ours, theirs, write=True)
            stdout_fd, stdout_end = _pipe(ours, theirs, write=False)
            stderr_fd, stderr_end = _pipe(ours, theirs, write=False)
        except OSError as error:
            raise StartFailed(f"no pipe: {_why(error)}") from None
        not_before_ns = boot_clock_ns()
        pid = _spawn(request, stdin_end, stdout_end, stderr_end)
        between_ns = not_before_ns, boot_clock_ns()
    except BaseException:
        close_all(ours)
        for directory in made:
            with contextlib.suppress(OSError):
                os.rmdir(directory)
        raise
    finally:
        close_all(theirs)
    return Started(pid, between_ns, time.time_ns(), stdin_fd, stdout_fd, stderr_fd)


def _make_directories(request: Mapping[str, Any], made: list[str]) -> None:
    files = request["stdout_path"], request["stderr_path"]
    try:
        for directory in {os.path.dirname(file) for file in files}:
            if _make_directory(directory, request.get("spare_directory"), files):
                made.append(directory)
    except OSError as error:
        raise StartFailed(f"no file for the output: {_why(error)}") from None


def _make_directory(directory: str, spare: str | None, files: Iterable[str]) -> bool:
    """Make a directory for output; return whether there was none.

    One that is there must have no such files in it. A ``spare`` one gets its name if it can be.
    Raises ``OSError``.
    """
    try:
        if spare is None or not _renamed(spare, directory):
            os.mkdir(directory, 0o700)
    except FileNotFoundError:
        os.makedirs(directory, mode=0o700)
    except FileExistsError:
        if not os.path.isdir(directory) or any(map(os.path.lexists, files)):
            raise
        return False
    return True


def _pipe(ours: list[int], theirs: list[int], *, write: bool) -> tuple[int, int]:
    """Return our end, which does not block, and theirs; ``write``: ours is the write end."""
    ends = os.pipe()
    mine, other = ends if not write else ends[::-1]
    ours.append(mine)
    theirs.append(other)
    os.set_blocking(mine, False)
    return mine, other


def _renamed(spare: str, directory: str) -> bool:
    try:
        os.rename(spare, directory)
    except OSError:
        return False
    return True


def remove_output(path: str) -> None:
    """Remove an output file and what belongs to it; what is not there is fine."""
    for name in (path, path + START_SUFFIX):
        with contextlib.suppress(OSError):
            os.unlink(name)


def _spawn(request: Mapping[str, Any], stdin: int, stdout: int, stderr: int) -> int:
    """Return the process id of the program. Raises ``StartFailed``."""
    argv, cwd, environment = request["argv"], request["cwd"], request["environment"]
    try:
        return fork_exec(
            _executables(argv[0], environment.get("PATH", os.defpath)),
            _all_passed(argv),
            _environment(environment),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            directory=None if cwd is None else _passed(cwd),
            umask=_AGENT_UMASK,
            limits=_limits(request["limits"]),
        )
    except OSError as error:
        raise StartFailed(_words(argv[0], cwd, environment, error)) from None
    except (ValueError, IndexError, OverflowError) as error:
        raise StartFailed(f"the arguments or the environment cannot be passed: {error}") from None
    except MemoryError:
        raise StartFailed(_REASONS[errno.ENOMEM]) from None


def _executables(program: str, path: str) -> list[bytes]:
    """Return where a program may be: where it is said to be, or in the folders of ``path``."""
    name = _passed(program)
    return [name] if b"/" in name else [folder + name for folder in _folders(path)]


@functools.lru_cache(maxsize=16)
def _folders(path: str) -> list[bytes]:
    return [_passed(os.path.join(folder, "")) for folder in path.split(os.pathsep)]


def _passed(text: str) -> bytes:
    data = os.fsencode(text)
    if b"\0" in data:
        raise ValueError("embedded null byte")
    return data


def _all_passed(texts: Collection[str]) -> list[bytes]:
    """Return texts as the system takes them: encoded together, which costs a fifth."""
    together = os.fsencode("\0".join(texts)).split(b"\0") if texts else []
    if len(together) != len(texts):
        raise ValueError("embedded null byte")
    return together


def _environment(environment: Mapping[str, str]) -> list[bytes]:
    if "=" in "".join(environment):
        raise ValueError("illegal environment variable name")
    return _all_passed([f"{name}={value}" for name, value in environment.items()])


def _limits(limits: Mapping[str, int]) -> list[tuple[int, int]]:
    pairs = []
    for name, value in limits.items():
        number = getattr(resource, f"RLIMIT_{name.upper()}", None)
        if number is None:
            raise StartFailed(f"there is no resource limit {name!r}")
        hard = resource.getrlimit(number)[1]
        if os.geteuid() != 0 and hard != resource.RLIM_INFINITY and value > hard:
            raise StartFailed(f"the limit {name} of {value} is above this server's {hard}")
        pairs.append((number, value))
    return pairs


def _words(program: str, cwd: str | None, env: Mapping[str, str], error: OSError) -> str:
    stage = error.stage if isinstance(error, ChildFailed) else None
    if stage == "limits":
        return "its resource limits could not be set"
    if stage == "directory":
        return f"the working directory {cwd!r} cannot be entered: {error.strerror}"
    if stage == "exec" and error.errno in (errno.ENOENT, errno.ENOTDIR):
        if shutil.which(program, path=env.get("PATH", os.defpath)):
            return f"the program {program!r} needs an interpreter that is not there"
        return f"the program {program!r} was not found"
    return f"the program {program!r} could not be started: {_why(error)}"


def _why(error: OSError) -> str:
    return _REASONS.get(error.errno or 0) or error.strerror or str(error)
