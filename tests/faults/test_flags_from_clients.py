"""A task, model or name that looks like a flag, and variables that would turn an agent around."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from descartes_fast import AccessDenied, AgentConfig, BackendConfig, InvalidContext, connect

if TYPE_CHECKING:
    from conftest import StartServer

SAY = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ), sys.stdin.read()]))"

BACKENDS = {
    "dashes": BackendConfig(
        command=(sys.executable, "-c", SAY, ("--model={model}",), "--name={name}", "--", "{task}")
    ),
    "stdin": BackendConfig(command=(sys.executable, "-c", SAY), task="stdin"),
    "plain": BackendConfig(command=(sys.executable, "-c", SAY, ("{model}",), "{task}")),
    "generous": BackendConfig(
        command=(sys.executable, "-c", SAY),
        environment=("ANTHROPIC_*",),
        client_environment=("ANTHROPIC_BASE_URL", "PATH"),
    ),
}


async def said_by_agent(start_server: StartServer, **fields: Any) -> tuple[Any, Any, Any]:
    """Return the arguments, the environment and the stdin that an agent found."""
    server = await start_server(backends=BACKENDS)
    async with connect(server.endpoint) as client:
        agent = await client.spawn_remote(AgentConfig(**{"name": "w"} | fields))
        ended = await client.wait_agent(agent, timeout_secs=20)
        assert ended.exit_code == 0
        output = b""
        while more := await client.read_agent_stdout(agent):
            output += more
    arguments, environment, stdin = json.loads(output)
    return arguments, environment, stdin


async def test_task_that_begins_with_a_dash_arrives_behind_two_dashes(
    start_server: StartServer,
) -> None:
    arguments, _, stdin = await said_by_agent(
        start_server, model_backend="dashes", task="--help", model="-m", name="-n"
    )
    assert arguments == ["--model=-m", "--name=-n", "--", "--help"]
    assert stdin == ""


async def test_task_that_begins_with_a_dash_arrives_by_stdin(start_server: StartServer) -> None:
    task = "--dangerously-skip-permissions\n" * 10_000  # more than an argument may have
    arguments, _, stdin = await said_by_agent(start_server, model_backend="stdin", task=task)
    assert arguments == []
    assert stdin == task


@pytest.mark.parametrize("fields", [{"task": "-x"}, {"task": "x", "model": "--config=x"}])
async def test_word_that_would_be_a_flag_is_refused(
    start_server: StartServer, fields: dict[str, Any]
) -> None:
    server = await start_server(backends=BACKENDS)
    async with connect(server.endpoint) as client:
        with pytest.raises(InvalidContext, match="read as a flag"):
            await client.spawn_remote(AgentConfig(model_backend="plain", **fields))
        assert await client.list_remote_agents() == []


@pytest.mark.parametrize("name", ["ANTHROPIC_BASE_URL", "PATH", "NODE_OPTIONS", "HTTPS_PROXY"])
async def test_variable_the_backend_does_not_list_is_refused(
    start_server: StartServer, name: str
) -> None:
    server = await start_server(backends=BACKENDS)
    async with connect(server.endpoint) as client:
        with pytest.raises(AccessDenied, match=name):
            await client.spawn_remote(
                AgentConfig(model_backend="stdin", task="x", environment={name: "http://evil"})
            )
        assert await client.list_remote_agents() == []


async def test_variable_the_backend_lists_is_the_clients(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://operator")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-operator")
    _, environment, _ = await said_by_agent(
        start_server,
        model_backend="generous",
        environment={"ANTHROPIC_BASE_URL": "http://client"},
    )
    assert environment["ANTHROPIC_BASE_URL"] == "http://client"
    assert environment["ANTHROPIC_API_KEY"] == "sk-operator"


async def test_variables_of_the_server_stay_with_the_server(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-operator")
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")
    _, environment, _ = await said_by_agent(
        start_server,
        model_backend="stdin",
        name="worker",
        task="x",
        context="the context",
        environment={"AGENT_COLOR": "blue"},
    )
    assert "DATABASE_PASSWORD" not in environment
    assert "ANTHROPIC_API_KEY" not in environment
    assert environment["AGENT_COLOR"] == "blue"
    assert environment["AGENT_CONTEXT"] == "the context"
    assert environment["DESCARTES_AGENT_NAME"] == "worker"
