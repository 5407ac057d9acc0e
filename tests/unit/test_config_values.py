"""Values that no client, server or backend could work with are refused, by name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from descartes_fast import BackendConfig, UsageError, ZmqRunnerConfig, ZmqServerConfig

SERVER_SECS = [
    "status_update_interval_secs",
    "request_timeout_secs",
    "stop_grace_secs",
    "retain_secs",
    "replay_secs",
]
CLIENT_SECS = ["reconnect_delay_secs", "heartbeat_interval_secs"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, 1e300])
@pytest.mark.parametrize(
    ("kind", "name"),
    [(ZmqServerConfig, name) for name in SERVER_SECS]
    + [(ZmqRunnerConfig, name) for name in CLIENT_SECS]
    + [(BackendConfig, "stop_grace_secs")],
)
def test_seconds_that_no_timer_takes_are_refused(kind: Any, name: str, value: float) -> None:
    with pytest.raises(UsageError, match=name):
        kind(**{name: value})


@pytest.mark.parametrize("name", ["request_timeout_secs", "connection_timeout_secs"])
def test_a_client_may_wait_without_end_but_not_for_no_number(name: str) -> None:
    assert getattr(ZmqRunnerConfig(**{name: math.inf}), name) == math.inf
    with pytest.raises(UsageError, match=name):
        ZmqRunnerConfig(**{name: math.nan})


def test_number_that_overflows_is_refused() -> None:
    with pytest.raises(UsageError, match="output_limit_bytes"):
        ZmqServerConfig(output_limit_bytes=2**64)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (ZmqServerConfig, "state_dir", ""),
        (ZmqServerConfig, "state_dir", "/tmp/a\0b"),
        (ZmqServerConfig, "server_id", ""),
        (ZmqServerConfig, "server_id", "two\nlines"),
        (ZmqServerConfig, "server_id", "x" * 1000),
        (ZmqServerConfig, "endpoint", "tcp://127.0.0.1"),
        (ZmqServerConfig, "endpoint", "tcp://127.0.0.1:"),
        (ZmqServerConfig, "pub_endpoint", "tcp://127.0.0.1:70000"),
        (ZmqServerConfig, "advertise_pub", "tcp://:1"),
        (ZmqServerConfig, "endpoint", "ipc:///tmp/a\0b"),
        (ZmqRunnerConfig, "endpoint", "tcp://localhost"),
        (ZmqRunnerConfig, "server_id", ""),
        (BackendConfig, "working_dir", ""),
    ],
)
def test_text_that_names_nothing_is_refused(kind: Any, name: str, value: str) -> None:
    with pytest.raises(UsageError, match=name):
        kind(**{name: value})


@pytest.mark.parametrize(
    "text",
    ["[zmq_servr]\nmax_agents = 1", "[backend.sh]\ncommand = ['sh']", "max_agents = 1"],
)
def test_file_with_a_table_that_nobody_reads_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    for kind in (ZmqServerConfig, ZmqRunnerConfig):
        with pytest.raises(UsageError, match="has no use for"):
            kind.load(path, environ={})


@pytest.mark.parametrize("name", ["zmq_server", "zmq_runner", "backends"])
def test_setting_where_a_table_belongs_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f"{name} = 5")
    kind: Any = ZmqRunnerConfig if name == "zmq_runner" else ZmqServerConfig
    with pytest.raises(UsageError, match="table"):
        kind.load(path, environ={})


def test_file_may_hold_both_sides(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[zmq_server]\nmax_agents = 7\n[zmq_runner]\nserver_id = 'it'\n")
    assert ZmqServerConfig.load(path, environ={}).max_agents == 7
    assert ZmqRunnerConfig.load(path, environ={}).server_id == "it"
