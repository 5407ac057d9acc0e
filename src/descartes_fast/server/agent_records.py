"""An agent as the journal keeps it, and an agent that comes back from there."""

from __future__ import annotations

import json
from operator import attrgetter
from typing import cast

from .._core import AgentConfig, AgentStatus, LogStreamType, PauseMode
from ..config import OutputPolicy, PausePolicy
from .agent import Agent, AgentObserver
from .backends import LaunchPlan
from .journal_records import AgentRecord
from .output import OutputFile

__all__ = ["record_of", "restored_agent"]

_SEQ_EPOCH = 0xFFFFF


# In the order of the record's fields, in one step: a spawn is recorded three times.
_facts = attrgetter(
    "id",
    "metadata",
    "name",
    "model_backend",
    "task",
    "pause_policy",
    "status.value",
    "seq",
    "started_at_ns",
    "output_limit_bytes",
    "output_policy",
    "stored_config",
    "request_key",
    "stop_grace_secs",
    "pid",
    "start_ticks",
    "ended_at_ns",
    "exit_code",
    "signal",
    "message",
    "paused_at_ns",
    "pause_noticed",
    "pause_begun",
    "stop_by_ns",
    "stdout.start",
    "stdout.end",
    "stderr.start",
    "stderr.end",
    "user_secs",
    "system_secs",
    "max_rss_bytes",
)


def record_of(agent: Agent) -> AgentRecord:
    """Return all that is known of an agent now."""
    cursors = agent.cursors
    return AgentRecord._make(
        (
            *_facts(agent),
            None if agent.pause_mode is None else agent.pause_mode.value,
            json.dumps(agent.signals_asked_ns) if agent.signals_asked_ns else "",
            cursors[LogStreamType.STDOUT],
            cursors[LogStreamType.STDERR],
        )
    )


def restored_agent(record: AgentRecord, directory: str, observer: AgentObserver) -> Agent:
    """Return the agent of a record; its output is in ``directory``.

    One that had not ended goes on in an epoch of its own: its next ``seq`` is above all that were
    published before, also those that the journal has not seen.
    """
    agent = Agent(
        record.id,
        AgentConfig(name=record.name, model_backend=record.model_backend, task=record.task),
        LaunchPlan(
            argv=(),
            environment={},
            limits={},
            pause=cast(PausePolicy, record.pause_policy),
            stop_grace_secs=record.stop_grace_secs,
        ),
        metadata=record.metadata,
        stdout=OutputFile(f"{directory}/stdout", record.stdout_start, record.stdout_end),
        stderr=OutputFile(f"{directory}/stderr", record.stderr_start, record.stderr_end),
        observer=observer,
        output_limit_bytes=record.output_limit_bytes,
        output_policy=cast(OutputPolicy, record.output_policy),
        request_key=record.request_key,
        stored_config=record.config,
    )
    agent.status = AgentStatus(record.status)
    agent.seq = record.seq if agent.has_ended else (record.seq | _SEQ_EPOCH) + 1
    agent.pid = record.pid
    agent.start_ticks = record.start_ticks
    agent.started_at_ns = record.started_at_ns
    agent.ended_at_ns = record.ended_at_ns
    agent.exit_code = record.exit_code
    agent.signal = record.signal
    agent.message = record.message
    agent.paused_at_ns = record.paused_at_ns
    agent.pause_mode = None if record.pause_mode is None else PauseMode(record.pause_mode)
    agent.pause_noticed = record.pause_noticed
    agent.cursors[LogStreamType.STDOUT] = record.stdout_cursor
    agent.cursors[LogStreamType.STDERR] = record.stderr_cursor
    agent.user_secs = record.user_secs
    agent.system_secs = record.system_secs
    agent.max_rss_bytes = record.max_rss_bytes
    agent.pause_begun = record.pause_begun
    agent.stop_by_ns = record.stop_by_ns
    if record.signals_asked:
        asked = json.loads(record.signals_asked)
        agent.signals_asked_ns = {int(number): asked_ns for number, asked_ns in asked.items()}
    return agent
