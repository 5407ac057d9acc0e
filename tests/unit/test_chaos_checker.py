"""The checker of chaos runs says nothing of a good history, and what is wrong with a broken one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace

import pytest

from chaos.agents import AgentPlan
from chaos.checker import unknown_ends, violations
from chaos.history import ABANDONED, IN_DOUBT, OK, REFUSED, Call, FinalAgent, History, text
from chaos.schedule import schedule

_WRITER = AgentPlan(tag="writer", kind="writer", code=3, lines=3, width=2)
_ECHO = AgentPlan(tag="echo", kind="echo", code=4)
_WRITTEN = b"0 ..\n1 ..\n2 ..\n"
_ECHOED = b"got w0\ngot b1\ngot w2\n"


def call(
    operation: str, at: float, outcome: str = OK, *, result: object = None, **more: object
) -> Call:
    made = Call(f"{operation}-{at}", operation, more, at)  # type: ignore[arg-type]
    made.outcomes.append((outcome, result or {}, at + 0.5))  # type: ignore[arg-type]
    return made


def good_history() -> History:
    """Two agents, every kind of call, a server and a client that were killed."""
    return History(
        calls=[
            call("spawn", 1, agent="writer", plan=asdict(_WRITER)),
            call("spawn", 2, agent="echo", plan=asdict(_ECHO)),
            call(
                "spawn",
                3,
                REFUSED,
                result={"code": "busy"},
                agent="late",
                plan=asdict(replace(_ECHO, tag="late")),
            ),
            call("write", 4, agent="echo", line="w0\n"),
            call(
                "batch",
                5,
                result={"done": ["echo"], "refused": [], "doubtful": []},
                agents=["echo"],
                line="b1\n",
            ),
            call("write", 6, REFUSED, result={"code": "would_block"}, agent="echo", line="w1\n"),
            call("write", 7, agent="echo", line="w2\n"),
            call("list", 8, result={"tags": ["writer", "echo"]}),
            call("read", 9, result={"data": text(_WRITTEN[:4])}, agent="writer"),
            call("read", 10, result={"data": text(_WRITTEN[4:7])}, agent="writer"),
            call(
                "follow",
                11,
                result={"stdout": text(_WRITTEN), "stderr": text(_WRITTEN), "complete": True},
                agent="writer",
            ),
            call("query", 12, ABANDONED, agent="writer"),
            call("wait", 13, result={"exit_code": 3, "signal": None}, agent="writer"),
        ],
        births=["writer", "echo"],
        agents=[
            FinalAgent(
                tag="writer",
                status="failed",
                exit_code=3,
                signal=None,
                stdout=_WRITTEN,
                stderr=_WRITTEN,
            ),
            FinalAgent(
                tag="echo",
                status="failed",
                exit_code=4,
                signal=None,
                stdout=_ECHOED + b"end 3\n",
                stderr=_ECHOED,
            ),
        ],
        faults=[(4.2, "server"), (12.0, "client")],
    )


def find(history: History, operation: str) -> Call:
    return next(found for found in history.calls if found.operation == operation)


def change_agent(history: History, tag: str, **changes: object) -> None:
    history.agents = [
        replace(agent, **changes) if agent.tag == tag else agent for agent in history.agents
    ]


def test_good_history_has_no_violations() -> None:
    assert violations(good_history()) == []


def lost_outcome(history: History) -> None:
    find(history, "write").outcomes.clear()


def second_outcome(history: History) -> None:
    find(history, "write").outcomes *= 2


def strange_refusal(history: History) -> None:
    find(history, "read").outcomes[:] = [(REFUSED, {"code": "not_found"}, 9.5)]


def doubt_without_reason(history: History) -> None:
    find(history, "write").outcomes[:] = [(IN_DOUBT, {}, 4.5)]


def doubled_spawn(history: History) -> None:
    history.births.append("writer")


def doubled_agent(history: History) -> None:
    history.agents.append(history.agents[0])


def unasked_agent(history: History) -> None:
    history.births.append("nobody's")


def lost_agent(history: History) -> None:
    del history.agents[0]


def agent_that_never_ran(history: History) -> None:
    history.births.remove("writer")


def refused_agent_that_ran(history: History) -> None:
    history.births.append("late")


def lost_from_the_list(history: History) -> None:
    find(history, "list").result["tags"].remove("echo")


def wrong_exit_code(history: History) -> None:
    change_agent(history, "writer", exit_code=0)


def signal_from_nowhere(history: History) -> None:
    change_agent(history, "writer", exit_code=None, signal=9)


def end_that_nobody_saw(history: History) -> None:
    change_agent(history, "writer", exit_code=None)


def end_that_changed(history: History) -> None:
    find(history, "wait").result["exit_code"] = 5


def missing_byte(history: History) -> None:
    change_agent(history, "writer", stdout=_WRITTEN[:5] + _WRITTEN[6:])


def missing_end(history: History) -> None:
    change_agent(history, "writer", stdout=_WRITTEN[:-1])


def doubled_line(history: History) -> None:
    change_agent(history, "writer", stderr=_WRITTEN[:5] + _WRITTEN)


def lines_out_of_order(history: History) -> None:
    change_agent(history, "echo", stderr=b"got w2\ngot b1\ngot w0\n")


def lost_write(history: History) -> None:
    change_agent(history, "echo", stdout=b"got w0\ngot b1\nend 2\n")


def doubled_write(history: History) -> None:
    change_agent(history, "echo", stdout=b"got w0\ngot w0\ngot b1\ngot w2\nend 4\n")


def refused_write_that_was_done(history: History) -> None:
    change_agent(history, "echo", stdout=b"got w0\ngot b1\ngot w1\ngot w2\nend 4\n")


def lost_line_of_a_batch(history: History) -> None:
    change_agent(history, "echo", stdout=b"got w0\ngot w2\nend 2\n")


def doubled_line_of_a_batch(history: History) -> None:
    change_agent(history, "echo", stdout=b"got w0\ngot b1\ngot b1\ngot w2\nend 4\n")


def echo_without_its_end(history: History) -> None:
    change_agent(history, "echo", stdout=_ECHOED)


def follower_without_the_last_byte(history: History) -> None:
    find(history, "follow").result["stdout"] = text(_WRITTEN[:-1])


def follower_of_something_else(history: History) -> None:
    find(history, "follow").result.update(stdout=text(b"else"), complete=False)


def read_that_came_twice(history: History) -> None:
    history.calls += [replace_read(history)]


def replace_read(history: History) -> Call:
    return call("read", 20, result=find(history, "read").result, agent="writer")


def something_left(history: History) -> None:
    history.leftovers.append("process 1 (Z)")


@pytest.mark.parametrize(
    "breaks",
    [
        lost_outcome, second_outcome, strange_refusal, doubt_without_reason, doubled_spawn,
        doubled_agent, unasked_agent, lost_agent, agent_that_never_ran, refused_agent_that_ran,
        lost_from_the_list, wrong_exit_code, signal_from_nowhere, end_that_nobody_saw,
        end_that_changed, missing_byte, missing_end, doubled_line, lines_out_of_order, lost_write,
        doubled_write, refused_write_that_was_done, lost_line_of_a_batch, doubled_line_of_a_batch,
        echo_without_its_end, follower_without_the_last_byte, follower_of_something_else,
        read_that_came_twice, something_left,
    ],
    ids=lambda breaks: breaks.__name__,
)  # fmt: skip
def test_broken_history_has_violations(breaks: Callable[[History], None]) -> None:
    history = good_history()
    breaks(history)
    assert violations(history)


def test_killed_keeper_excuses_an_end_that_nobody_saw_and_a_write_in_doubt() -> None:
    history = good_history()
    end_that_nobody_saw(history)
    history.calls = [made for made in history.calls if made.operation != "wait"]
    doubt_without_reason(history)
    history.faults.append((4.3, "keeper"))
    assert violations(history) == []
    assert unknown_ends(history) == 1


def test_stopped_agent_may_end_by_the_signal_and_with_less_output() -> None:
    history = good_history()
    history.calls = [made for made in history.calls if made.operation not in ("wait", "follow")]
    history.calls.append(call("stop", 14, agent="writer"))
    change_agent(history, "writer", exit_code=None, signal=15, stdout=_WRITTEN[:8])
    assert violations(history) == []
    change_agent(history, "writer", stdout=_WRITTEN[1:8])
    assert violations(history)


def test_same_seed_draws_the_same_faults_with_and_without_a_disk() -> None:
    faults = schedule(7, 60, 3)
    assert faults == schedule(7, 60, 3)
    assert faults != schedule(8, 60, 3)
    assert {fault.kind for fault in faults} > {"server", "keeper", "client", "full disk"}
    without = [fault for fault in faults if fault.kind != "full disk"]
    assert without == schedule(7, 60, 3, full_disk=False)
