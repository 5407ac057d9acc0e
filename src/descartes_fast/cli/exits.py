"""Exit codes: what each means, and which error gives which."""

from __future__ import annotations

import signal as signals

from ..errors import AgentTimeout, CommunicationError, DescartesError, UsageError

OK = 0
FAILED = 1
USAGE = 2
TIMEOUT = 124
UNREACHABLE = 125
INTERRUPTED = 130
BROKEN_PIPE = 141

HELP = """\
exit codes:
  0    done
  1    refused or failed; the reason is one line on stderr
  2    wrong usage
  124  no answer, or no end, in the time given
  125  no connection to the server
  130  ended by Ctrl-C
  spawn --wait, spawn --follow, attach and wait exit as the agent did: its own
  code, or 128 and the number of the signal that ended it; for several agents
  1 if one of them failed
"""


def code_of(error: BaseException) -> int:
    """Return the exit code that stands for an error."""
    if isinstance(error, UsageError):
        return USAGE
    if isinstance(error, AgentTimeout):
        return TIMEOUT
    if isinstance(error, CommunicationError):
        return UNREACHABLE
    return FAILED


def of_agent(exit_code: int | None, signal: int | None) -> int:
    """Return the exit code that repeats an agent's, as a shell does."""
    if signal is not None:
        return 128 + signal
    return FAILED if exit_code is None else exit_code


def outcome(exit_code: int | None, signal: int | None) -> str:
    """Return how an agent ended in a word or two: ``exit 3``, ``SIGKILL``."""
    if signal is not None:
        try:
            return signals.Signals(signal).name
        except ValueError:
            return f"signal {signal}"
    return "unknown" if exit_code is None else f"exit {exit_code}"


def words_of(error: DescartesError | OSError) -> str:
    """Return the one line that tells a person about an error."""
    if isinstance(error, OSError) and error.strerror is not None:
        name = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{name}"
    return str(error)
