"""Starting one agent's process: its directory, what it is to begin with, and why it did not."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import resource
import shutil
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from .launcher import Launch, LaunchFailed
from .output_pipe import START_SUFFIX
from .own_limits import OwnLimits

__all__ = ["Start", "StartFailed", "remove_output"]

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


class Start:
    """The start of the process that a ``launch`` request asks for.

    :attr:`launch` is to be begun; when it is done :meth:`check` says whether the process is there.
    """

    def __init__(self, request: Mapping[str, Any], own_limits: OwnLimits) -> None:
        """Make the directory for the output. Raises ``StartFailed``."""
        self._request = request
        self._made: list[str] = []
        """The mark, too, by which a later server sees that the program may have run."""
        try:
            _make_directories(request, self._made)
            self.launch = _launch(request, own_limits)
        except BaseException:
            self._remove_directories()
            raise

    def check(self) -> None:
        """Raise ``StartFailed`` if there is no process; nothing of it is left then."""
        try:
            self.launch.check()
        except LaunchFailed as error:
            self._remove_directories()
            raise StartFailed(_words(self._request, error)) from None

    def _remove_directories(self) -> None:
        for directory in self._made:
            with contextlib.suppress(OSError):
                os.rmdir(directory)


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


def _launch(request: Mapping[str, Any], own_limits: OwnLimits) -> Launch:
    """Return what is to be begun. Raises ``StartFailed``."""
    argv, cwd, environment = request["argv"], request["cwd"], request["environment"]
    limits = request["limits"]
    try:
        return Launch(
            _executables(argv[0], environment),
            _all_passed(argv),
            _passed_each(environment) if environment else [],
            has_stdin=request["stdin"] != "null",
            directory=None if cwd is None else _passed(cwd),
            umask=_AGENT_UMASK,
            limits=_limits(limits) + own_limits.to_take_back(limits),
            oom_score=own_limits.oom_score_to_take_back,
        )
    except (ValueError, IndexError, OverflowError) as error:
        raise StartFailed(f"the arguments or the environment cannot be passed: {error}") from None
    except MemoryError:
        raise StartFailed(_REASONS[errno.ENOMEM]) from None


def _executables(program: str, environment: str) -> list[bytes]:
    """Return where a program may be: where it is said to be, or in the folders of ``PATH``."""
    name = _passed(program)
    return [name] if b"/" in name else [folder + name for folder in _folders(_path(environment))]


def _path(environment: str) -> str:
    """Return the ``PATH`` in the text of an environment, or the usual one."""
    pairs = (pair.partition("=") for pair in environment.split("\0"))
    return next((value for name, _, value in pairs if name == "PATH"), os.defpath)


@functools.lru_cache(maxsize=16)
def _folders(path: str) -> list[bytes]:
    return [_passed(os.path.join(folder, "")) for folder in path.split(os.pathsep)]


def _passed(text: str) -> bytes:
    data = os.fsencode(text)
    if b"\0" in data:
        raise ValueError("embedded null byte")
    return data


def _all_passed(texts: Collection[str]) -> list[bytes]:
    together = _passed_each("\0".join(texts)) if texts else []
    if len(together) != len(texts):
        raise ValueError("embedded null byte")
    return together


def _passed_each(texts: str) -> list[bytes]:
    """Return texts with a NUL between them as the system takes them.

    They are encoded together, which costs a fifth.
    """
    return os.fsencode(texts).split(b"\0")


def _limits(limits: Mapping[str, int]) -> list[tuple[int, int, int]]:
    found = []
    for name, value in limits.items():
        number = getattr(resource, f"RLIMIT_{name.upper()}", None)
        if number is None:
            raise StartFailed(f"there is no resource limit {name!r}")
        hard = resource.getrlimit(number)[1]
        if os.geteuid() != 0 and hard != resource.RLIM_INFINITY and value > hard:
            raise StartFailed(f"the limit {name} of {value} is above this server's {hard}")
        found.append((number, value, value))
    return found


def _words(request: Mapping[str, Any], error: LaunchFailed) -> str:
    program = request["argv"][0]
    if error.stage == "pipes":
        return f"no pipe: {_why(error)}"
    if error.stage == "limits":
        return "its resource limits could not be set"
    if error.stage == "directory":
        return f"the working directory {request['cwd']!r} cannot be entered: {error.strerror}"
    if error.stage == "exec" and error.errno in (errno.ENOENT, errno.ENOTDIR):
        if shutil.which(program, path=_path(request["environment"])):
            return f"the program {program!r} needs an interpreter that is not there"
        return f"the program {program!r} was not found"
    return f"the program {program!r} could not be started: {_why(error)}"


def _why(error: OSError) -> str:
    return _REASONS.get(error.errno or 0) or error.strerror or str(error)
