"""The server's hold on the keeper's process: how it is found, and what is never signalled."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from descartes_fast.errors import CommunicationError
from descartes_fast.server import keeper_joining
from descartes_fast.server.keeper_joining import Wanted, join_keeper
from descartes_fast.server.keeper_process import KeeperPlace, KeeperProcess
from descartes_fast.server.locks import lock_file
from descartes_fast.server.runtime_dir import LOCK_NAME


@pytest.fixture
def place() -> Iterator[KeeperPlace]:
    """A place whose lock is held, as by a keeper."""
    with tempfile.TemporaryDirectory(prefix="dfast-") as folder:
        lock = lock_file(Path(folder) / LOCK_NAME)
        yield KeeperPlace(Path(folder))
        os.close(lock)


def test_peer_of_another_pid_namespace_is_not_signalled(
    place: KeeperPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *words: sent.append(words))
    keeper = KeeperProcess(place, 0)
    keeper.kill()
    keeper.wake()
    assert sent == [], "0 is the group of whoever asks"


def test_keeper_whose_queue_is_full_is_waited_for(place: KeeperPlace) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place.socket_path))
        listener.listen(0)
        waiting = [unblocking()]
        while waiting[-1].connect_ex(str(place.socket_path)) == 0:
            waiting.append(unblocking())

        def accept() -> None:
            for _ in waiting:
                listener.accept()[0].close()

        accepting = threading.Timer(0.1, accept)
        accepting.start()
        found = place.find()
        accepting.join()
        for connection in waiting:
            connection.close()
    assert found is not None
    assert found[0].pid == os.getpid()
    found[0].close()
    found[1].close()


def unblocking() -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.setblocking(False)
    return made


async def test_keeper_whose_socket_is_gone_is_named(
    place: KeeperPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_joining, "_ENDING_SECS", 0.1)
    with pytest.raises(CommunicationError, match=f"process {os.getpid()} .*does not listen"):
        await join_keeper(
            place,
            Wanted(instance="0" * 16, keep=True),
            hold=None,  # type: ignore[arg-type]
            on_event=lambda _: None,
            on_lost=lambda *_: None,
        )


def test_stopped_keeper_is_continued(place: KeeperPlace) -> None:
    child = subprocess.Popen(["sleep", "60"])
    keeper = KeeperProcess(place, child.pid)
    try:
        child.send_signal(signal.SIGSTOP)
        os.waitpid(child.pid, os.WUNTRACED)
        keeper.wake()
        assert os.WIFCONTINUED(os.waitpid(child.pid, os.WCONTINUED)[1])
    finally:
        keeper.close()
        child.kill()
        child.wait()
