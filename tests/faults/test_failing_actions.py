"""Handlers of custom actions that are cancelled, hang, or return what cannot be sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

from descartes_fast import (
    MAX_MESSAGE_SIZE,
    AgentInfo,
    BatchControlCommand,
    ControlCommandType,
    CustomActionRequest,
)
from raw_peers import Peer, new_id, peer

if TYPE_CHECKING:
    from descartes_fast.server import ZmqAgentServer


async def _cancelled(agent: AgentInfo, params: Any) -> Any:
    raise asyncio.CancelledError


async def _cancelled_inside(agent: AgentInfo, params: Any) -> Any:
    inner = asyncio.ensure_future(asyncio.sleep(60))
    inner.cancel()
    return await inner


async def _hanging(agent: AgentInfo, params: Any) -> Any:
    await asyncio.sleep(60)


async def _impatient(agent: AgentInfo, params: Any) -> Any:
    raise TimeoutError("the database is slow")


async def _large(agent: AgentInfo, params: Any) -> Any:
    return "x" * MAX_MESSAGE_SIZE


@pytest.fixture
async def asking(server: ZmqAgentServer) -> AsyncIterator[Peer]:
    for handler in (_cancelled, _cancelled_inside, _hanging, _impatient, _large):
        server.register_action(handler.__name__, handler)
    async with peer(server.endpoint) as connected:
        yield connected


@pytest.mark.parametrize(
    ("action", "error"),
    [
        ("_cancelled", "internal: the handler of the action '_cancelled' was cancelled"),
        ("_cancelled_inside", "internal: the handler of the action"),
        ("_hanging", "timeout: the action '_hanging' took over 1 s"),
        ("_impatient", "timeout: the database is slow"),
        ("_large", "internal: it was done, but the answer cannot be sent"),
    ],
)
async def test_action_that_fails_is_answered_with_the_reason(
    asking: Peer, action: str, error: str
) -> None:
    agent = await asking.spawn("exec sleep 60")
    response = await asking.ask(
        CustomActionRequest(request_id=new_id(), agent_id=agent.id, action=action, timeout_secs=1)
    )
    assert not response.success
    assert response.error.startswith(error)


async def test_cancelled_handler_in_a_batch_fails_for_its_agent_alone(asking: Peer) -> None:
    agents = [(await asking.spawn("exec sleep 60")).id for _ in range(2)]
    response = await asking.ask(
        BatchControlCommand(
            request_id=new_id(),
            agent_ids=agents,
            command_type=ControlCommandType.CUSTOM_ACTION,
            payload={"action": "_cancelled"},
        )
    )
    assert [result.agent_id for result in response.results] == agents
    assert all("was cancelled" in result.error for result in response.results)
