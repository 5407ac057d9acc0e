"""Where the keeper of a state directory has its socket, its lock and its log.

That is ``run`` in the state directory. If its path is too long for a socket, ``run`` is a
symbolic link to a short directory elsewhere, chosen once: whatever the environment of the
next server says, it finds the keeper where it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from ..errors import UsageError
from .locks import lock_file
from .private_files import make_private

__all__ = [
    "ENDS_NAME",
    "LOCK_NAME",
    "MAX_SOCKET_PATH_BYTES",
    "SOCKET_NAME",
    "identity_of",
    "remove_runtime",
    "runtime_directory",
    "settled_runtime",
]

SOCKET_NAME = "keeper.sock"
LOCK_NAME = "keeper.lock"
ENDS_NAME = "ends.json"
MAX_SOCKET_PATH_BYTES = 103
"""Of ``sun_path`` on macOS; Linux takes 107."""

_NAME = "run"
_ELSEWHERE = re.compile(r"descartes-fast-\d+-[0-9a-f]{16}")


def identity_of(path: Path) -> str:
    """Return what tells a directory from its copies, wherever it is moved in its file system."""
    found = path.stat()
    return f"{found.st_dev}:{found.st_ino}"


def runtime_directory(path: Path) -> Path:
    """Return where the keeper of the state directory ``path`` is; makes nothing."""
    runtime = path.resolve() / _NAME
    return Path(os.readlink(runtime)) if runtime.is_symlink() else runtime


def settled_runtime(path: Path) -> Path:
    """Make the runtime directory of the state directory ``path``, or find it; return it.

    Raises ``UsageError`` if something else is in its place, and ``OSError``.
    """
    runtime = path.resolve() / _NAME
    if runtime.is_symlink():
        target = Path(os.readlink(runtime))
        if not _ELSEWHERE.fullmatch(target.name) or runtime.lstat().st_uid != os.geteuid():
            raise UsageError(f"{runtime} is not a directory of this user")
        if target.is_absolute() and target.name == _name(path) and _has_room(target):
            with contextlib.suppress(FileNotFoundError):  # the directory above it is gone
                make_private(target)
                return target
        runtime.unlink()  # that of the directory of which this one is a copy
    elif runtime.exists() and not _has_room(runtime):
        _remove_unused(runtime)
    if _has_room(runtime):
        make_private(runtime)
        return runtime
    target = _chosen(_name(path))
    make_private(target)
    runtime.symlink_to(target)
    return target


def remove_runtime(path: Path, runtime: Path) -> None:
    """Remove a runtime directory that is not in its state directory, unless it is needed.

    That is if a keeper is there, or ends that nobody has taken in.
    """
    if runtime.parent == path.resolve():
        return
    with contextlib.suppress(OSError):
        lock = lock_file(runtime / LOCK_NAME)
        try:
            if not _is_needed(runtime):
                shutil.rmtree(runtime, ignore_errors=True)
        finally:
            os.close(lock)


def _name(path: Path) -> str:
    digest = hashlib.blake2b(identity_of(path).encode(), digest_size=8).hexdigest()
    return f"descartes-fast-{os.geteuid()}-{digest}"


def _chosen(name: str) -> Path:
    for base in (os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/tmp"):
        runtime = Path(base) / name
        if runtime.is_absolute() and _has_room(runtime) and os.access(base, os.W_OK | os.X_OK):
            return runtime
    raise UsageError("there is no directory for the keeper's socket: XDG_RUNTIME_DIR, TMPDIR, /tmp")


def _remove_unused(runtime: Path) -> None:
    if _is_needed(runtime):
        raise UsageError(
            f"{runtime} has a keeper or its last words, and its path is too long for a socket: "
            "move the state directory back to where it was"
        )
    shutil.rmtree(runtime)


def _is_needed(runtime: Path) -> bool:
    return any(os.path.lexists(runtime / name) for name in (SOCKET_NAME, ENDS_NAME))


def _has_room(runtime: Path) -> bool:
    return len(os.fsencode(runtime / SOCKET_NAME)) <= MAX_SOCKET_PATH_BYTES
