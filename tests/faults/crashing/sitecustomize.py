"""Makes a server kill itself at one point of its work, the first time it gets there.

On the path of a server that is to crash: ``CRASH_AT`` names the point, ``CRASHED`` the file that
says that it was reached. There is an action more, too: ``note`` appends a line to a file.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def crash_once() -> None:
    crashed = Path(os.environ["CRASHED"])
    if not crashed.exists():
        crashed.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def crash_before(owner: type, name: str, *, stored: str = "") -> None:
    """Let the method ``name`` of a class end the process before it does anything.

    Only if the journal has an agent for which ``stored`` holds: else it goes on.
    """
    original: Callable[..., Any] = getattr(owner, name)

    def crashing(*arguments: Any, **named: Any) -> Any:
        if not stored or is_stored(stored):
            crash_once()
        return original(*arguments, **named)

    setattr(owner, name, crashing)


def crash_with_keeper_after_launch() -> None:
    """End the process and its keeper when an agent was started, and nobody knows it yet."""
    from descartes_fast.server.keeper_link import KeeperLink

    launch = KeeperLink.launch

    async def crashing(self: KeeperLink, *arguments: Any) -> Any:
        started = await launch(self, *arguments)
        if not os.path.exists(os.environ["CRASHED"]):  # noqa: ASYNC240
            os.kill(self.pid, signal.SIGKILL)
        crash_once()
        return started

    KeeperLink.launch = crashing  # type: ignore[method-assign]


def is_stored(condition: str) -> bool:
    with contextlib.closing(sqlite3.connect(os.environ["JOURNAL"])) as looking:
        (count,) = looking.execute(f"SELECT count(*) FROM agents WHERE {condition}").fetchone()
    return bool(count)


def crash_around_commit(*, after: bool) -> None:
    """End the process when a reply is committed, or when it is about to be."""
    from descartes_fast.server.journal_store import JournalStore

    write = JournalStore.write

    def crashing(self: JournalStore, changes: Any) -> None:
        if after:
            write(self, changes)
        if changes.replies:
            crash_once()
        if not after:
            write(self, changes)

    JournalStore.write = crashing  # type: ignore[method-assign]


def append(path: str, text: str) -> None:
    with open(path, "a") as file:
        file.write(text)


def add_action() -> None:
    from descartes_fast.server.actions import Actions

    prepare = Actions.__init__

    async def note(_: Any, params: Any) -> Any:
        append(params, "done\n")
        return "noted"

    def prepared(self: Actions, *arguments: Any) -> None:
        prepare(self, *arguments)
        self.register("note", note)

    Actions.__init__ = prepared  # type: ignore[method-assign]


if "serve" in sys.orig_argv and "CRASHED" in os.environ:
    from descartes_fast.server.journal import Journal
    from descartes_fast.server.keeper_link import KeeperLink

    add_action()
    match os.environ.get("CRASH_AT"):
        case "launch":  # what is wanted is stored, the keeper has not heard of it
            crash_before(KeeperLink, "launch", stored="status = 'initializing'")
        case "stop":  # that it was asked for is stored
            crash_before(KeeperLink, "stop", stored="stop_by_ns IS NOT NULL")
        case "pause":  # that it is to be paused is stored
            crash_before(KeeperLink, "signal", stored="pause_begun")
        case "launched":  # the program runs, and the keeper is gone, too
            crash_with_keeper_after_launch()
        case "take over":  # there is a new keeper, and it knows of nothing
            crash_before(KeeperLink, "known_agents")
        case "reply":  # it was done, and nothing says so
            crash_before(Journal, "save_reply")
        case "store":  # it was done, and the reply is not stored
            crash_around_commit(after=False)
        case "answer":  # the reply is stored, and most are not sent yet
            crash_around_commit(after=True)
