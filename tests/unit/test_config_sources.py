"""Where a configuration's values come from, and what is said of wrong ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from descartes_fast import BackendConfig, UsageError, ZmqRunnerConfig, ZmqServerConfig


def test_arguments_are_over_the_environment_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[zmq_runner]\nrequest_timeout_secs = 1\nserver_id = "file"\n')
    environ = {"DESCARTES_FAST_REQUEST_TIMEOUT_SECS": "2", "DESCARTES_FAST_AUTO_RECONNECT": "no"}
    loaded = ZmqRunnerConfig.load(path, environ=environ)
    assert (loaded.request_timeout_secs, loaded.auto_reconnect) == (2.0, False)
    assert loaded.server_id == "file"
    loaded = ZmqRunnerConfig.load(path, environ=environ, request_timeout_secs=3)
    assert loaded.request_timeout_secs == 3


def test_what_tells_a_client_where_the_server_is_does_not_move_a_server() -> None:
    environ = {
        "DESCARTES_FAST_ENDPOINT": "tcp://127.0.0.1:7001",
        "DESCARTES_FAST_PUB_ENDPOINT": "tcp://127.0.0.1:7002",
        "DESCARTES_FAST_SERVER_ID": "theirs",
    }
    assert ZmqRunnerConfig.load(environ=environ).server_id == "theirs"
    assert ZmqServerConfig.load(environ=environ) == ZmqServerConfig()


def test_a_server_is_set_by_names_of_its_own() -> None:
    environ = {
        "DESCARTES_FAST_SERVE_ENDPOINT": "tcp://127.0.0.1:7001",
        "DESCARTES_FAST_SERVE_SERVER_ID": "ours",
        "DESCARTES_FAST_SERVE_MAX_AGENTS": "5",
        "DESCARTES_FAST_SERVE_OUTPUT_POLICY": "wait",
        "DESCARTES_FAST_SERVE_ENABLE_STATUS_UPDATES": "false",
    }
    loaded = ZmqServerConfig.load(environ=environ)
    assert (loaded.endpoint, loaded.server_id) == ("tcp://127.0.0.1:7001", "ours")
    assert (loaded.max_agents, loaded.output_policy) == (5, "wait")
    assert loaded.enable_status_updates is False
    assert ZmqRunnerConfig.load(environ=environ) == ZmqRunnerConfig()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("REQUEST_TIMEOUT_SECS", "abc", "must be a number, not 'abc'"),
        ("MAX_RECONNECT_ATTEMPTS", "1.5", "must be a whole number, not '1.5'"),
        ("AUTO_RECONNECT", "maybe", "must be true or false, not 'maybe'"),
    ],
)
def test_a_variable_that_does_not_fit_is_told_what_does(name: str, value: str, words: str) -> None:
    variable = f"DESCARTES_FAST_{name}"
    with pytest.raises(UsageError) as caught:
        ZmqRunnerConfig.load(environ={variable: value})
    assert str(caught.value) == f"{variable} {words}"


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        (ZmqServerConfig, {"max_agents": "5"}, "max_agents must be a whole number, not '5'"),
        (ZmqServerConfig, {"output_policy": "x"}, """must be "trim" or "wait", not 'x'"""),
        (ZmqServerConfig, {"backends": 1}, "backends must be a table, not 1"),
        (ZmqRunnerConfig, {"server_id": 5}, "server_id must be text, not 5"),
        (BackendConfig, {"command": "ls"}, "command must be an array, not 'ls'"),
        (BackendConfig, {"enabled": 1}, "enabled must be true or false, not 1"),
    ],
)
def test_a_value_that_does_not_fit_is_told_what_does(
    kind: type, values: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        kind(**values)
    assert words in str(caught.value)
