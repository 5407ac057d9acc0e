"""What a server binds without keys, and who owns an ipc path."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from descartes_fast.errors import UsageError
from descartes_fast.server.endpoints import IpcClaim, checked_endpoint


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="dfast-") as path:
        yield Path(path)


@pytest.mark.parametrize(
    ("endpoint", "bound"),
    [
        ("tcp://127.0.0.1:5555", "tcp://127.0.0.1:5555"),
        ("tcp://127.8.9.1:0", "tcp://127.8.9.1:0"),
        ("tcp://[::1]:5555", "tcp://[::1]:5555"),
        ("tcp://127.0.0.1:*", "tcp://127.0.0.1:*"),
        ("tcp://[::ffff:127.0.0.1]:5555", "tcp://127.0.0.1:5555"),
        ("ipc:///tmp/x.sock", "ipc:///tmp/x.sock"),
    ],
)
def test_loopback_and_ipc_may_be_bound(endpoint: str, bound: str) -> None:
    assert checked_endpoint(endpoint, insecure=False) == bound


def test_name_that_resolves_to_loopback_becomes_its_address() -> None:
    assert checked_endpoint("tcp://localhost:1", insecure=False) in (
        "tcp://127.0.0.1:1",
        "tcp://[::1]:1",
    )


@pytest.mark.parametrize(
    "endpoint", ["tcp://0.0.0.0:5555", "tcp://*:5555", "tcp://192.0.2.1:5555", "tcp://[::]:5555"]
)
def test_endpoint_beyond_this_machine_is_refused_unless_insecure(endpoint: str) -> None:
    with pytest.raises(UsageError, match="--insecure"):
        checked_endpoint(endpoint, insecure=False)
    assert checked_endpoint(endpoint, insecure=True)


@pytest.mark.parametrize(
    "endpoint",
    [
        "inproc://x",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:port",
        "tcp://127.0.0.1:70000",
        "tcp://no-such-host.invalid:1",
        "tcp://127.0.0.1;eth0:1",
        "tcp://:1",
        "ipc:///tmp/a\0b",
        "ipc://@abstract",
        "ipc://*",
        "ipc:///tmp/" + "x" * 120,
    ],
)
def test_endpoint_that_cannot_be_a_servers_is_refused(endpoint: str) -> None:
    with pytest.raises(UsageError):
        checked_endpoint(endpoint, insecure=False)


def test_refusal_says_which_part_is_missing() -> None:
    with pytest.raises(UsageError, match="no host in"):
        checked_endpoint("tcp://:1", insecure=False)
    with pytest.raises(UsageError, match="no port in"):
        checked_endpoint("tcp://127.0.0.1", insecure=False)


def test_claim_makes_the_directory_private_and_leaves_nothing(folder: Path) -> None:
    path = folder / "made" / "commands"
    claim = IpcClaim(f"ipc://{path}")
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    claim.release()
    claim.release()
    assert list(path.parent.iterdir()) == []


def test_second_claim_on_a_path_is_refused_until_the_first_is_released(folder: Path) -> None:
    endpoint = f"ipc://{folder}/commands"
    first = IpcClaim(endpoint)
    with pytest.raises(UsageError, match="another running server"):
        IpcClaim(endpoint)
    first.release()
    IpcClaim(endpoint).release()


def test_claim_refuses_a_path_where_a_foreign_program_listens(folder: Path) -> None:
    path = folder / "commands"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(UsageError, match="another running server"):
            IpcClaim(f"ipc://{path}")
        assert path.exists()
    assert os.listdir(folder) == ["commands"]


def test_claim_removes_a_socket_file_that_nobody_listens_on(folder: Path) -> None:
    path = folder / "commands"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    claim = IpcClaim(f"ipc://{path}")
    assert not path.exists()
    claim.release()


def test_claim_never_removes_what_is_not_a_socket(folder: Path) -> None:
    path = folder / "commands"
    path.write_text("precious")
    with pytest.raises(UsageError, match="not a socket"):
        IpcClaim(f"ipc://{path}")
    assert path.read_text() == "precious"
    assert os.listdir(folder) == ["commands"]
