"""Starting one agent's process: its directory, its pipes, its session, and why it did not start."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .output_pipe import START_SUFFIX

__all__ = ["StartFailed", "Started", "remove_output", "start"]

_AGENT_UMASK = 0o022
_LAST_LIMITS = ("as", "data")  # set last: under them Python may have no memory for the others

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
    started_at_ns: int
    stdin_fd: int | None
    stdout_fd: int
    stderr_fd: int


class _Opened(contextlib.ExitStack):
    """Descriptors and files that are given back unless all goes well."""

    def directory(self, directory: str, spare: str | None, *files: str) -> None:
        """Make a directory for output, in which there must be no such files. Raises ``OSError``.

        A ``spare`` one gets its name if it can be.
        """
        try:
            if spare is None or not _renamed(spare, directory):
                os.mkdir(directory, 0o700)
        except FileNotFoundError:
            os.makedirs(directory, mode=0o700)
        except FileExistsError:
            if not os.path.isdir(directory) or any(map(os.path.lexists, files)):
                raise
            return
        self.callback(os.rmdir, directory)

    def pipe(self, theirs: _Opened, *, write: bool) -> tuple[int, int]:
        """Return our end, which does not block, and theirs; ``write``: ours is the write end."""
        ends = os.pipe()
        ours, other = ends if not write else ends[::-1]
        self.callback(os.close, ours)
        theirs.callback(os.close, other)
        os.set_blocking(ours, False)
        return ours, other


def start(request: Mapping[str, Any], null_fd: int) -> Started:
    """Start the process of a ``launch`` request; return after its exec. Raises ``StartFailed``."""
    argv = request["argv"]
    limits = request["limits"]
    with _Opened() as ours, _Opened() as theirs:
        try:
            # The mark, too, by which a later server sees that the program may have run.
            files = request["stdout_path"], request["stderr_path"]
            for directory in {os.path.dirname(file) for file in files}:
                ours.directory(directory, request.get("spare_directory"), *files)
        except OSError as error:
            raise StartFailed(f"no file for the output: {_why(error)}") from None
        try:
            stdin_fd, stdin_end = None, null_fd
            if request["stdin"] != "null":
                stdin_fd, stdin_end = ours.pipe(theirs, write=True)
            stdout_fd, stdout_end = ours.pipe(theirs, write=False)
            stderr_fd, stderr_end = ours.pipe(theirs, write=False)
        except OSError as error:
            raise StartFailed(f"no pipe: {_why(error)}") from None
        pid = _spawn(
            argv,
            stdin=stdin_end,
            stdout=stdout_end,
            stderr=stderr_end,
            cwd=request["cwd"],
            env=request["environment"],
            limits=limits,
        )
        started = Started(pid, time.time_ns(), stdin_fd, stdout_fd, stderr_fd)
        ours.pop_all()
    return started


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


def _spawn(
    argv: list[str],
    *,
    stdin: int,
    stdout: int,
    stderr: int,
    cwd: str | None,
    env: Mapping[str, str],
    limits: Mapping[str, int],
) -> int:
    try:
        process = subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            env=env,
            umask=_AGENT_UMASK,
            start_new_session=True,
            # Every descriptor of the keeper is closed on exec, so there is nothing to look for.
            close_fds=False,
            # Costs vfork (700 instead of 1,700 a second). The keeper has one thread, so
            # Python code may run in the child; the limits hold from the first instruction.
            preexec_fn=_limiter(limits) if limits else None,
        )
    except OSError as error:
        raise StartFailed(_words(argv[0], cwd, env, error)) from None
    except (ValueError, IndexError) as error:
        raise StartFailed(f"the arguments or the environment cannot be passed: {error}") from None
    except MemoryError:
        raise StartFailed(_REASONS[errno.ENOMEM]) from None
    except subprocess.SubprocessError:
        raise StartFailed("its resource limits could not be set") from None
    # The exit status is ours to read: Popen would reap the process when it is collected.
    process.returncode = 0
    return process.pid


def _limiter(limits: Mapping[str, int]) -> Callable[[], None]:
    pairs = []
    for name in sorted(limits, key=lambda name: name in _LAST_LIMITS):
        number = getattr(resource, f"RLIMIT_{name.upper()}", None)
        if number is None:
            raise StartFailed(f"there is no resource limit {name!r}")
        hard = resource.getrlimit(number)[1]
        if os.geteuid() != 0 and hard != resource.RLIM_INFINITY and limits[name] > hard:
            raise StartFailed(f"the limit {name} of {limits[name]} is above this server's {hard}")
        pairs.append((number, limits[name]))

    def set_limits() -> None:
        for number, value in pairs:
            resource.setrlimit(number, (value, value))

    return set_limits


def _words(program: str, cwd: str | None, env: Mapping[str, str], error: OSError) -> str:
    if cwd is not None and error.filename == cwd:
        return f"the working directory {cwd!r} cannot be entered: {error.strerror}"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        if shutil.which(program, path=env.get("PATH", os.defpath)):
            return f"the program {program!r} needs an interpreter that is not there"
        return f"the program {program!r} was not found"
    return f"the program {program!r} could not be started: {_why(error)}"


def _why(error: OSError) -> str:
    return _REASONS.get(error.errno or 0) or error.strerror or str(error)
