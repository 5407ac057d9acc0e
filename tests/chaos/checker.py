"""Tells what is wrong with the history of a chaos run."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from .agents import AgentPlan, echoed
from .history import ABANDONED, IN_DOUBT, OK, REFUSED, Call, FinalAgent, History, untext

__all__ = ["lost_starts", "unknown_ends", "violations"]

_SIGTERM, _SIGKILL = 15, 9
_ALLOWED_REFUSALS = {"busy", "state", "would_block", "shutting_down"}
_KEEPER_KILLED = ("keeper", "both")
_FULL_DISK_SECS = 3.0
"""A disk is full, and what waits for it is written, for no longer than this."""
_NOTICED_SECS = 1.0
"""Within this time everybody has noticed that something was killed."""


def violations(history: History) -> list[str]:
    """Return what must not have happened, a line each; an empty list is a good run."""
    return [
        *_outcomes(history),
        *_births(history),
        *_listings(history),
        *_ends(history),
        *_outputs(history),
        *_reads(history),
        *history.leftovers,
    ]


def unknown_ends(history: History) -> int:
    """Return how many agents ended in a way that nobody saw."""
    return sum(_is_unknown(agent) for agent in history.agents)


def lost_starts(history: History) -> int:
    """Return how many agents may have run or not, as a keeper was killed at their start."""
    return sum(call.operation == "spawn" and call.outcome == IN_DOUBT for call in history.calls)


def _is_unknown(agent: FinalAgent) -> bool:
    return agent.exit_code is None and agent.signal is None


# Every call has exactly one outcome


def _outcomes(history: History) -> Iterator[str]:
    for call in history.calls:
        name = f"{call.operation} {call.id} of {call.agent}"
        if len(call.outcomes) != 1:
            yield f"{name} has {len(call.outcomes)} outcomes"
        elif call.outcome not in (OK, REFUSED, IN_DOUBT, ABANDONED):
            yield f"{name}: {call.outcome} is no outcome"
        elif call.outcome == REFUSED and call.result["code"] not in _ALLOWED_REFUSALS:
            yield f"{name} was refused: {call.result}"
        elif (
            call.outcome == IN_DOUBT
            and call.operation != "batch"  # nobody can ask for it again under its id
            and not _happened(history, _KEEPER_KILLED, call.began, call.ended)
        ):
            yield f"{name} is in doubt, and no keeper was killed: {call.result}"


def _happened(history: History, kinds: tuple[str, ...], start: float, end: float) -> bool:
    start -= _NOTICED_SECS
    return any(start <= at <= end for at, kind in history.faults if kind in kinds)


# No agent is spawned twice, and none is lost


def _births(history: History) -> Iterator[str]:
    listed = Counter(agent.tag for agent in history.agents)
    born = Counter(history.births)
    for tag, count in born.items():
        if count > 1:
            yield f"agent {tag} was started {count} times"
    for tag, count in listed.items():
        if count > 1:
            yield f"agent {tag} is listed {count} times"
    plans = history.plans()
    for tag in born.keys() - plans.keys():
        yield f"agent {tag} was started and nobody asked for it"
    for call in history.calls:
        if call.operation != "spawn":
            continue
        tag = call.arguments["plan"]["tag"]
        if call.outcome == OK and not listed[tag]:
            yield f"agent {tag} was started, and the server does not know it any more"
        if call.outcome == OK and not born[tag] and not _cut_short(history, tag):
            yield f"agent {tag} is said to have been started, and has not run"
        if call.outcome == REFUSED and listed[tag]:
            yield f"agent {tag} was refused, and is listed"
        if call.outcome == REFUSED and born[tag]:
            yield f"agent {tag} was refused, and has run"


def _may_have_been_lost_at_start(history: History, agent: FinalAgent) -> bool:
    """Tell whether a keeper was killed while it was asked for the agent, and its end not seen.

    What it had started is killed then, and said to have failed.
    """
    return _is_unknown(agent) and any(
        _happened(history, _KEEPER_KILLED, call.began, call.ended)
        for call in history.calls
        if call.operation == "spawn" and call.arguments["plan"]["tag"] == agent.tag
    )


def _listings(history: History) -> Iterator[str]:
    spawned = [
        (call.ended, call.arguments["plan"]["tag"])
        for call in history.calls
        if call.operation == "spawn" and call.outcome == OK
    ]
    for call in history.calls:
        if call.operation == "list" and call.outcome == OK:
            seen = set(call.result["tags"])
            for tag in (tag for ended, tag in spawned if ended < call.began and tag not in seen):
                yield f"{call.id} does not list agent {tag}"


# No exit code is wrong


def _ends(history: History) -> Iterator[str]:
    plans = history.plans()
    asked = history.asked_to_end
    for agent in history.agents:
        plan = plans.get(agent.tag)
        if plan is None:
            continue  # told above
        end = f"agent {agent.tag} is {agent.status}, exit {agent.exit_code}, signal {agent.signal}"
        if _is_unknown(agent):
            if not _lost_sight(history, agent.tag):
                yield f"{end}, and its keeper was not killed"
        elif (agent.exit_code, agent.signal) != (plan.code, None):
            by_us = agent.tag in asked and agent.signal in (_SIGTERM, _SIGKILL)
            if not by_us and not _both_killed(history, agent.tag):
                yield f"{end}; exit {plan.code} was to be expected"
    told = {agent.tag: (agent.exit_code, agent.signal) for agent in history.agents}
    for call in history.calls:
        if call.operation == "wait" and call.outcome == OK and call.agent in told:
            waited = (call.result["exit_code"], call.result["signal"])
            forgotten = told[call.agent] == (None, None) and _told_on_a_full_disk(history, call)
            if waited != told[call.agent] and not forgotten:
                yield f"{call.id}: agent {call.agent} ended {waited}, later {told[call.agent]}"


def _told_on_a_full_disk(history: History, call: Call) -> bool:
    """Tell whether all who knew an end were killed before it could be written down."""
    start, end = call.ended - _FULL_DISK_SECS, call.ended + _FULL_DISK_SECS
    return _happened(history, ("full disk",), start, call.ended) and all(
        _happened(history, (kind, "both"), start, end) for kind in ("server", "keeper")
    )


def _lost_sight(history: History, tag: str) -> bool:
    """Tell whether a keeper was killed in the agent's time."""
    return _happened(history, _KEEPER_KILLED, history.spawned_at[tag], float("inf"))


def _both_killed(history: History, tag: str) -> bool:
    """Tell whether the agent's pipes may have been broken: server and keeper killed at once."""
    return _happened(history, ("both",), history.spawned_at[tag], float("inf"))


def _cut_short(history: History, tag: str) -> bool:
    return tag in history.asked_to_end or _both_killed(history, tag)


# No byte of output is missing or out of order


def _outputs(history: History) -> Iterator[str]:
    plans = history.plans()
    writes = defaultdict(list)
    for call in history.calls:
        if call.operation == "write" and call.agent is not None:
            writes[call.agent].append(call)
    batches = [call for call in history.calls if call.operation == "batch"]
    for agent in history.agents:
        plan = plans.get(agent.tag)
        if plan is None:
            continue
        whole = not (_cut_short(history, agent.tag) or _may_have_been_lost_at_start(history, agent))
        for stream, output in (("stdout", agent.stdout), ("stderr", agent.stderr)):
            name = f"{stream} of agent {agent.tag}"
            if plan.kind == "writer":
                yield from _written(name, output, plan, whole)
            else:
                yield from _echo(name, output, stream, whole, writes[agent.tag], batches, history)


def _written(name: str, output: bytes, plan: AgentPlan, whole: bool) -> Iterator[str]:
    expected = plan.written()
    if output == expected:
        return
    if not expected.startswith(output):
        same = next(
            (at for at, (a, b) in enumerate(zip(output, expected, strict=False)) if a != b),
            min(len(output), len(expected)),
        )
        yield f"{name} is wrong from byte {same}: {output[same : same + 40]!r}"
    elif whole:
        yield f"{name} ends at byte {len(output)} of {len(expected)}"


def _echo(
    name: str,
    output: bytes,
    stream: str,
    whole: bool,
    writes: list[Call],
    batches: list[Call],
    history: History,
) -> Iterator[str]:
    lines, rest = echoed(output)
    end = b"end %d\n" % len(lines) if stream == "stdout" else b""
    if whole and rest != end:
        yield f"{name} ends with {rest[-80:]!r}"
    own = [line for line in lines if line.startswith(b"w")]
    yield from _in_order(name, own, writes, whole, history)
    counts = Counter(line for line in lines if line.startswith(b"b"))
    tag = name.rpartition(" ")[2]
    for call in batches:
        if tag not in call.arguments["agents"]:
            continue
        word = call.arguments["line"].encode()
        if counts[word] > 1 and not _memory_lost(history, call):
            yield f"{name} has the batch's line {word!r} {counts[word]} times"
        done = call.outcome == OK and tag in call.result["done"]
        refused = call.outcome == REFUSED or (call.outcome == OK and tag in call.result["refused"])
        if done and whole and word not in lines:
            yield f"{name} lacks the batch's line {word!r}"
        if refused and word in lines and not _memory_lost(history, call):
            yield f"{name} has the line {word!r} of a batch that was refused"


def _in_order(
    name: str, lines: list[bytes], writes: list[Call], whole: bool, history: History
) -> Iterator[str]:
    """Check lines against the writes, which were made one after the other."""
    left = list(lines)
    for call in writes:
        word = call.arguments["line"].encode()
        if left and left[0] == word:
            left.pop(0)
            memory_lost = _memory_lost(history, call)
            if call.outcome == REFUSED and not memory_lost:
                yield f"{name} has {word!r}, which was refused"
            while memory_lost and left and left[0] == word:
                left.pop(0)
        elif call.outcome == OK and (whole or left):
            yield f"{name} lacks {word!r} where it was due; next is {left[:1]}"
    if left:
        yield f"{name} has {len(left)} lines more than were written: {left[:3]}"


def _memory_lost(history: History, call: Call) -> bool:
    """Tell whether server and keeper were both killed in a call's time.

    The keeper had the write done and the server had not stored the reply: a repeat is new to both.
    """
    return all(
        _happened(history, (kind, "both"), call.began, call.ended) for kind in ("server", "keeper")
    )


# Whoever reads gets what is there


def _reads(history: History) -> Iterator[str]:
    outputs = {agent.tag: agent for agent in history.agents}
    consumed: dict[str, bytes] = defaultdict(bytes)
    in_doubt = set()
    for call in history.calls:
        agent = outputs.get(call.agent or "")
        if agent is None:
            continue
        if call.operation == "follow" and call.outcome == OK:
            for stream, output in (("stdout", agent.stdout), ("stderr", agent.stderr)):
                seen = untext(call.result[stream])
                if seen != output if call.result["complete"] else not output.startswith(seen):
                    yield (
                        f"{call.id} followed {len(seen)} bytes of {stream} of agent {agent.tag}, "
                        f"which has {len(output)}, and they are not the same"
                    )
        elif call.operation == "read":
            if call.outcome == OK:
                consumed[agent.tag] += untext(call.result["data"])
            elif call.outcome != REFUSED:
                in_doubt.add(agent.tag)
    for tag, data in consumed.items():
        if tag not in in_doubt and not outputs[tag].stdout.startswith(data):
            yield f"the reads of agent {tag} brought {data[-60:]!r} at the end, which is not there"
