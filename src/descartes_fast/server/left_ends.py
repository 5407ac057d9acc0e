"""Ends that a keeper wrote down when it ended with nobody there to tell."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any
from uuid import UUID

from .keeper_messages import Ended, ended_of

__all__ = ["read_ends"]

_log = logging.getLogger(__name__)

_SET_ASIDE = ".broken"


def read_ends(path: Path) -> dict[UUID, Ended]:
    """Return the ends in a file, by agent; none if there is no such file.

    What cannot be read is said and costs nothing else: an entry is left out, and a file that
    is none of a keeper's is set aside by another name. Blocks on the disk.
    """
    try:
        entries = json.loads(path.read_bytes())["ends"]
        if not isinstance(entries, list):
            raise TypeError("the ends are no list")
    except FileNotFoundError:
        return {}
    except OSError as error:
        _log.error("the ends in %s cannot be read: %s", path, error)
        return {}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        _log.error("%s is not what a keeper writes, and is set aside: %s", path, error)
        _set_aside(path)
        return {}
    found = (_end_of(entry, path) for entry in entries)
    return {end.agent_id: end for end in found if end is not None}


def _end_of(entry: Any, path: Path) -> Ended | None:
    try:
        return ended_of(entry)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        _log.error("an end in %s cannot be read: %r", path, error)
        return None


def _set_aside(path: Path) -> None:
    try:
        os.replace(path, path.with_name(path.name + _SET_ASIDE))
    except OSError as error:
        _log.error("%s cannot be set aside: %s", path, error)
