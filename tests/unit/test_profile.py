"""What a health check says about a server."""

from __future__ import annotations

import pytest

from descartes_fast import CommunicationError, HealthCheckResponse, ProtocolError
from descartes_fast.profile import ServerProfile, publishing_endpoint, refusal


def health(version: str = "1.0.0", **metadata: str) -> HealthCheckResponse:
    return HealthCheckResponse(
        request_id="r", healthy=True, protocol_version=version, metadata=metadata or None
    )


@pytest.mark.parametrize(
    ("announced", "command", "expected"),
    [
        ("tcp://0.0.0.0:5556", "tcp://10.1.2.3:5555", "tcp://10.1.2.3:5556"),
        ("tcp://*:5556", "tcp://host.example:5555", "tcp://host.example:5556"),
        ("tcp://[::]:5556", "tcp://[fe80::1]:5555", "tcp://[fe80::1]:5556"),
        ("tcp://:::5556", "tcp://10.1.2.3:5555", "tcp://10.1.2.3:5556"),
        ("tcp://0.0.0.0:5556", "ipc:///run/agents", "tcp://127.0.0.1:5556"),
        ("tcp://10.9.9.9:5556", "tcp://10.1.2.3:5555", "tcp://10.9.9.9:5556"),
        ("ipc:///run/events", "ipc:///run/agents", "ipc:///run/events"),
    ],
)
def test_wildcard_host_stands_for_the_host_of_the_commands(
    announced: str, command: str, expected: str
) -> None:
    assert publishing_endpoint(announced, command) == expected


def test_server_without_features_promises_nothing() -> None:
    profile = ServerProfile.from_health(health(), endpoint="tcp://h:1", pub_endpoint=None)
    assert (profile.idempotent, profile.offsets, profile.snapshot) == (False, False, False)
    assert profile.pub_endpoint is None
    assert profile.server_id is None


def test_features_are_words_with_any_spacing() -> None:
    answer = health(features="idempotent, offsets,,x", server_id="s")
    profile = ServerProfile.from_health(answer, endpoint="tcp://h:1", pub_endpoint=None)
    assert profile.idempotent
    assert profile.offsets
    assert not profile.snapshot


def test_configured_publishing_endpoint_overrides_the_announced() -> None:
    answer = health(pub_endpoint="tcp://0.0.0.0:5556")
    profile = ServerProfile.from_health(
        answer, endpoint="tcp://h:1", pub_endpoint="tcp://127.0.0.1:9"
    )
    assert profile.pub_endpoint == "tcp://127.0.0.1:9"


@pytest.mark.parametrize("version", ["2.0.0", "1.1.0", "", "one"])
def test_unknown_protocol_version_is_refused_by_name(version: str) -> None:
    error = refusal(health(version), endpoint="tcp://h:1", expected_server_id=None)
    assert isinstance(error, ProtocolError)
    assert repr(version) in str(error)


def test_another_server_than_the_expected_is_refused() -> None:
    error = refusal(health(server_id="b"), endpoint="tcp://h:1", expected_server_id="a")
    assert isinstance(error, CommunicationError)
    assert "'a'" in str(error)
    assert "'b'" in str(error)
    assert refusal(health(server_id="a"), endpoint="tcp://h:1", expected_server_id="a") is None


def test_server_that_does_not_say_its_id_is_not_the_expected_one() -> None:
    error = refusal(health(), endpoint="tcp://h:1", expected_server_id="a")
    assert isinstance(error, CommunicationError)
