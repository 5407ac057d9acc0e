"""Arguments no honest client sends: each a typed error, and the server none the worse for it."""

from __future__ import annotations

from typing import Any

import pytest

from descartes_fast import (
    AccessDenied,
    AgentConfig,
    AgentStatus,
    InvalidContext,
    MessageTooLarge,
    ZmqClient,
)

MIB = 1024 * 1024

HOSTILE: dict[str, tuple[dict[str, Any], type[Exception]]] = {
    "nul-in-name": ({"name": "a\0b"}, InvalidContext),
    "nul-in-task": ({"task": "echo a\0b"}, InvalidContext),
    "nul-in-context": ({"context": "\0"}, InvalidContext),
    "nul-in-variable": ({"environment": {"AGENT_X": "a\0b"}}, InvalidContext),
    "nul-in-variables-name": ({"environment": {"AGENT\0X": "a"}}, InvalidContext),
    "parent-in-name": ({"name": "../../etc/cron.d/x"}, InvalidContext),
    "terminal-escape-in-name": ({"name": "\x1b]0;owned\x07"}, InvalidContext),
    "preload": ({"environment": {"LD_PRELOAD": "/tmp/x.so"}}, AccessDenied),
    "path": ({"environment": {"PATH": "/tmp"}}, AccessDenied),
    "equals-in-variables-name": ({"environment": {"A=B": "c"}}, InvalidContext),
    "huge-argument": ({"task": "x" * MIB}, InvalidContext),
    "huge-variable": ({"environment": {"AGENT_X": "x" * MIB}}, InvalidContext),
    "huge-environment": (
        {"environment": {f"AGENT_{number}": "x" * 100_000 for number in range(80)}},
        InvalidContext,
    ),
    "many-variables": (
        {"environment": {f"AGENT_{number}": "" for number in range(300_000)}},
        InvalidContext,
    ),
    "huge-name": ({"name": "x" * MIB}, InvalidContext),
    "unknown-backend": ({"model_backend": "nope"}, InvalidContext),
    "parent-as-backend": ({"model_backend": "../sh"}, InvalidContext),
    "huge-backend": ({"model_backend": "x" * MIB}, InvalidContext),
    "no-backend": ({"model_backend": ""}, InvalidContext),
    "disabled-backend": ({"model_backend": "argv", "task": "id"}, InvalidContext),
}


def config(**fields: Any) -> AgentConfig:
    return AgentConfig(**{"name": "w", "model_backend": "sh", "task": "true"} | fields)


async def assert_unharmed(client: ZmqClient) -> None:
    """Check that no agent was made, and that the next one runs as if nothing had been."""
    assert await client.list_remote_agents() == []
    assert (await client.health_check()).healthy
    agent = await client.spawn_remote(config())
    assert (await client.wait_agent(agent, timeout_secs=10)).status == AgentStatus.COMPLETED


@pytest.mark.parametrize("name", HOSTILE)
async def test_spawn_with_hostile_arguments_is_refused(client: ZmqClient, name: str) -> None:
    fields, error = HOSTILE[name]
    with pytest.raises(error) as caught:
        await client.spawn_remote(config(**fields))
    assert len(str(caught.value)) < 500
    await assert_unharmed(client)


async def test_spawn_refusal_names_the_backends_there_are(client: ZmqClient) -> None:
    with pytest.raises(InvalidContext, match=r"enabled: claude, .*, sh"):
        await client.spawn_remote(config(model_backend="nope"))


async def test_spawn_of_more_than_a_message_holds_is_refused(client: ZmqClient) -> None:
    with pytest.raises(MessageTooLarge):
        await client.spawn_remote(config(task="x" * 11 * MIB))
    await assert_unharmed(client)


@pytest.mark.parametrize(
    "metadata",
    [{"working_dir": "../../etc"}, {"working_dir": "/etc"}, {"working_dir": "a\0b"}],
)
async def test_spawn_in_a_directory_of_the_clients_is_refused(
    client: ZmqClient, metadata: dict[str, str]
) -> None:
    with pytest.raises((InvalidContext, AccessDenied)):
        await client.spawn_remote(config(), metadata=metadata)
    await assert_unharmed(client)


@pytest.mark.parametrize(
    "payload",
    [
        None,
        {},
        [],
        "SIGTERM",
        {"signal": None},
        {"signal": "SIGNOPE"},
        {"signal": ""},
        {"signal": "KILL; reboot"},
        {"signal": 0},
        {"signal": -9},
        {"signal": 65},
        {"signal": 2**63},
        {"signal": True},
        {"signal": 15.0},
        {"signal": ["SIGTERM"]},
    ],
    ids=repr,
)
async def test_signal_nobody_knows_is_refused(client: ZmqClient, payload: Any) -> None:
    agent = await client.spawn_remote(config(task="sleep 60"))
    # In a batch, because signal_agent does not let such a thing out.
    response = await client.batch_control([agent.id], "signal", payload)
    (result,) = response.results
    assert not result.success
    assert result.error is not None
    assert result.error.startswith("invalid: ")
    assert await client.get_agent_status(agent) == AgentStatus.RUNNING
