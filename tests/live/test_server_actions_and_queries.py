"""Actions and output queries on real agents, asked by plain messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

from descartes_fast import (
    AgentInfo,
    AgentTimeout,
    CustomActionRequest,
    ExecutionError,
    InvalidState,
    OutputQueryRequest,
    ZmqOutputStream,
)
from raw_peers import Peer, new_id, peer

if TYPE_CHECKING:
    from descartes_fast.server import ZmqAgentServer


@pytest.fixture
async def asking(server: ZmqAgentServer) -> AsyncIterator[Peer]:
    async with peer(server.endpoint) as connected:
        yield connected


async def test_built_in_actions_answer_and_never_show_the_environment(asking: Peer) -> None:
    agent = await asking.spawn("exec sleep 60", name="known")
    echoed = await asking.data(agent, "custom_action", {"action": "echo", "params": {"a": [1]}})
    assert echoed == {"a": [1]}
    assert (await asking.data(agent, "custom_action", {"action": "ping"}))["pong"] is True
    environment = await asking.data(agent, "custom_action", {"action": "get_env"})
    assert (environment["name"], environment["status"]) == ("known", "running")
    assert "PATH" not in str(environment)
    unknown = await asking.control(agent, "custom_action", {"action": "dance"})
    assert (unknown.error or "").startswith("invalid: ")


async def test_action_with_a_long_name_in_any_script_is_looked_up(asking: Peer) -> None:
    agent = await asking.spawn("sleep 60")
    request = CustomActionRequest(request_id=new_id(), agent_id=agent.id, action="\u00e9" * 70_000)
    response = await asking.ask(request)
    assert (response.error or "").startswith("invalid: unknown action")
    assert len(response.error) < 1000


async def test_registered_action_answers_both_kinds_of_request(
    server: ZmqAgentServer, asking: Peer
) -> None:
    async def greet(agent: AgentInfo, params: Any) -> Any:
        match params:
            case "refuse":
                raise InvalidState("not in the mood")
            case "fail":
                raise ExecutionError("broken inside")
            case "bug":
                raise KeyError("secret")
            case "unsendable":
                return object()
            case "slow":
                await asyncio.sleep(60)
        return {"hello": agent.name}

    server.register_action("greet", greet)
    agent = await asking.spawn("exec sleep 60", name="friend")

    async def act(params: Any, timeout_secs: int | None = None) -> Any:
        return await asking.ask(
            CustomActionRequest(
                request_id=new_id(),
                agent_id=agent.id,
                action="greet",
                params=params,
                timeout_secs=timeout_secs,
            )
        )

    assert (await act(None)).data == {"hello": "friend"}
    assert (await asking.data(agent, "custom_action", {"action": "greet"})) == {"hello": "friend"}
    assert (await act("refuse")).error == "state: not in the mood"
    assert (await act("fail")).error == "internal: broken inside"
    assert (await act("bug")).error == "internal: unexpected KeyError"
    assert (await act("unsendable")).error.startswith("internal: ")
    assert (await act("slow", timeout_secs=0)).error.startswith("timeout: ")


async def test_query_filters_pages_and_counts(asking: Peer) -> None:
    agent = await asking.spawn("for n in 1 2 3 4 5; do echo out $n; echo err $n >&2; done")
    await asking.end(agent)

    async def query(stream: str, **fields: Any) -> Any:
        response = await asking.ask(
            OutputQueryRequest(
                request_id=new_id(),
                agent_id=agent.id,
                stream=ZmqOutputStream(stream),
                **fields,
            )
        )
        assert response.success, response.error
        return response.lines, response.total_lines, response.has_more

    assert await query("stdout") == (tuple(f"out {n}" for n in range(1, 6)), 5, False)
    assert await query("stderr", filter="[24]$") == (("err 2", "err 4"), 2, False)
    assert await query("both", limit=2, offset=4) == (("out 5", "err 1"), 10, True)
    tail = await asking.data(agent, "query_output", {"max_lines": 2, "stderr": False})
    assert tail == {
        "stdout": ["out 4", "out 5"],
        "stdout_lines": 5,
        "stdout_start": 0,
        "stderr": [],
        "stderr_lines": 0,
        "stderr_start": 0,
    }


async def test_query_with_a_broken_filter_is_invalid(asking: Peer) -> None:
    agent = await asking.spawn("true")
    response = await asking.ask(
        OutputQueryRequest(
            request_id=new_id(), agent_id=agent.id, stream=ZmqOutputStream.BOTH, filter="("
        )
    )
    assert response.error.startswith("invalid: ")


async def test_query_that_gives_up_says_so_in_its_own_words(
    asking: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gives_up(*_: Any) -> None:
        raise AgentTimeout("the query took more than 10 s")

    agent = await asking.spawn("exec sleep 60")
    monkeypatch.setattr("descartes_fast.server.queries.Queries.query", gives_up)
    response = await asking.ask(
        OutputQueryRequest(request_id=new_id(), agent_id=agent.id, stream=ZmqOutputStream.BOTH)
    )
    assert response.error == "timeout: the query took more than 10 s"
