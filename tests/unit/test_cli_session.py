"""Agents found by the beginnings of their ids."""

from __future__ import annotations

from typing import cast
from uuid import UUID

import pytest

from descartes_fast import AgentInfo, AgentStatus, NotFound, UsageError, ZmqClient
from descartes_fast.cli.session import find, find_all

IDS = [UUID(f"12{number}45678-9abc-4000-8000-000000000000") for number in range(5)]


class _Lister:
    """A client that knows these agents."""

    def __init__(self, *ids: UUID) -> None:
        self.asked = 0
        self._infos = [
            AgentInfo(
                id=agent_id,
                name="",
                status=AgentStatus.RUNNING,
                model_backend="sh",
                started_at=0,
                task="",
            )
            for agent_id in ids
        ]

    async def list_remote_agents(self) -> list[AgentInfo]:
        self.asked += 1
        return self._infos


def _client(*ids: UUID) -> ZmqClient:
    return cast(ZmqClient, _Lister(*ids))


async def test_a_unique_beginning_is_enough() -> None:
    assert await find(_client(*IDS), "123") == IDS[3]
    assert await find(_client(*IDS), "12345678-9AB") == IDS[3]


async def test_whole_ids_are_not_looked_up_and_others_once() -> None:
    lister = _Lister(*IDS)
    client = cast(ZmqClient, lister)
    assert await find_all(client, [str(IDS[0]), IDS[1].hex]) == IDS[:2]
    assert lister.asked == 0
    assert await find_all(client, ["121", "122"]) == IDS[1:3]
    assert lister.asked == 1


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (2, "2 agents: 12045678-9abc, 12145678-9abc"),
        (3, "3 agents: 12045678-9abc, 12145678-9abc, 12245678-9abc"),
        (4, "4 agents: 12045678-9abc, 12145678-9abc, 12245678-9abc, ..."),
    ],
)
async def test_an_ambiguous_beginning_names_what_it_may_mean(count: int, told: str) -> None:
    with pytest.raises(NotFound) as caught:
        await find(_client(*IDS[:count]), "12")
    assert str(caught.value) == f"12 begins the ids of {told}"


async def test_what_begins_no_id_is_not_found_and_what_cannot_is_wrong_usage() -> None:
    with pytest.raises(NotFound):
        await find(_client(*IDS), "99")
    for text in ("", "xyz", "0" * 33):
        with pytest.raises(UsageError):
            await find(_client(*IDS), text)
