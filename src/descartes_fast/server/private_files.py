"""Directories and small files that are this user's alone."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from ..errors import UsageError

__all__ = ["make_private", "read_private", "write_private"]

_LONGEST = 2048


def make_private(directory: Path) -> None:
    """Make a directory that only its user can read, or see to it that it is one.

    What is there may have been put there by others while the directory above was open to them.
    Raises ``UsageError`` then, and ``OSError``.
    """
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise UsageError(f"{directory} is not a directory of this user")
    directory.chmod(0o700)


def read_private(file: Path) -> str:
    """Return a file's text, stripped; none if it is not there, is a link, or is no text of ours."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as stream:
            found = os.fstat(descriptor)
            if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
                return stream.read(_LONGEST).decode().strip()
    except (OSError, UnicodeDecodeError):
        pass
    return ""


def write_private(file: Path, text: str) -> None:
    """Put a file with a line of text in place of what is there, whole or not at all.

    Raises ``OSError``.
    """
    new = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text + "\n")
        os.replace(new, file)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
