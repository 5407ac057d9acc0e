"""The error tree: misuse, broken bytes, and what a server or an agent answers.

    DescartesError
    ├── UsageError               the caller's mistake; nothing was sent
    │   └── FieldError           a field of a message got a value it cannot hold
    ├── ProtocolError            bytes that are not a message of this protocol
    │   └── MessageTooLarge      more bytes than a message may have
    └── AgentError               an operation on an agent or a server failed
        ├── NotFound             not_found
        ├── SpawnFailed          spawn_failed
        ├── ServerBusy           busy
        ├── InvalidContext       invalid
        ├── InvalidState         state
        ├── WouldBlock           would_block
        ├── AgentTimeout         timeout (also a TimeoutError)
        ├── AccessDenied         denied
        ├── Unsupported          unsupported
        ├── ShuttingDown         shutting_down
        ├── ExecutionError       internal, and every text without a known code
        ├── CommunicationError   no connection; never on the wire
        └── OutputGone           output that was trimmed away; never on the wire

On the wire an error is one string, ``code: words``. The words after the classes
above are the closed list of codes; :func:`to_wire` and :func:`from_wire` are the
only two places that know the form.
"""

from __future__ import annotations

__all__ = [
    "AccessDenied",
    "AgentError",
    "AgentTimeout",
    "CommunicationError",
    "DescartesError",
    "ExecutionError",
    "FieldError",
    "InvalidContext",
    "InvalidState",
    "MessageTooLarge",
    "NotFound",
    "OutputGone",
    "ProtocolError",
    "ServerBusy",
    "ShuttingDown",
    "SpawnFailed",
    "Unsupported",
    "UsageError",
    "WouldBlock",
    "from_wire",
    "to_wire",
]


class DescartesError(Exception):
    """Everything this package raises on purpose."""


class UsageError(DescartesError):
    """The caller's mistake: a call out of order, a bad setting. Nothing was sent."""


class FieldError(UsageError, TypeError):
    """A field of a message was given a value it cannot hold.

    ``path`` names the field, dotted from the message down:
    ``spawn_request.config.environment``.
    """

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


class ProtocolError(DescartesError, ValueError):
    """Bytes that are not a message of this protocol.

    ``offset`` is the byte at which reading failed, ``path`` the field being read
    (``spawn_request.config.environment``), empty where no field was reached.
    """

    def __init__(self, message: str, *, offset: int = 0, path: str = "") -> None:
        super().__init__(message)
        self.offset = offset
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


class MessageTooLarge(ProtocolError):
    """A message of ``size`` bytes where ``limit`` bytes are the most."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"message of {size} bytes is over the limit of {limit} bytes")
        self.size = size
        self.limit = limit


class AgentError(DescartesError):
    """An operation on an agent or a server failed.

    ``code`` is the word that stands for the class on the wire, ``words`` the text
    without it, ``agent_id`` the agent's id as text where one is known.
    """

    code = "internal"

    def __init__(self, words: str, *, agent_id: str | None = None) -> None:
        super().__init__(words)
        self.words = words
        self.agent_id = agent_id

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


class NotFound(AgentError):
    """The server has no agent of that id, or no longer."""

    code = "not_found"


class SpawnFailed(AgentError):
    """The agent's program could not be started; the words say why."""

    code = "spawn_failed"


class ServerBusy(AgentError):
    """A limit of the server is reached: try another server, or later."""

    code = "busy"


class InvalidContext(AgentError):
    """The server refuses the arguments of the request."""

    code = "invalid"


class InvalidState(AgentError):
    """Not possible in the agent's present state."""

    code = "state"


class WouldBlock(AgentError):
    """The agent does not read its stdin and the bounded buffer before it is full.

    ``bytes_written`` is how much of the data the agent was given before that: more than
    nothing only where one write had to go as several messages.
    """

    code = "would_block"
    bytes_written = 0


class AgentTimeout(AgentError, TimeoutError):
    """No answer, or no result, in the time that was given."""

    code = "timeout"


class AccessDenied(AgentError):
    """The caller may not do this."""

    code = "denied"


class Unsupported(AgentError):
    """This server or this platform cannot do it."""

    code = "unsupported"


class ShuttingDown(AgentError):
    """The server is ending and takes no new work."""

    code = "shutting_down"


class ExecutionError(AgentError):
    """The server tried and failed; the words are the server's own."""

    code = "internal"


class CommunicationError(AgentError):
    """There is no connection to the server, or it broke before the answer came."""

    code = "communication"


class OutputGone(AgentError):
    """Output bytes ``start`` to ``end`` (exclusive) were trimmed away before they were read.

    ``stream`` is ``"stdout"`` or ``"stderr"`` where that is not what was asked for anyway.
    """

    code = "output_gone"

    def __init__(
        self,
        words: str,
        *,
        start: int,
        end: int,
        agent_id: str | None = None,
        stream: str | None = None,
    ) -> None:
        super().__init__(words, agent_id=agent_id)
        self.start = start
        self.end = end
        self.stream = stream


_BY_CODE: dict[str, type[AgentError]] = {
    kind.code: kind
    for kind in (
        NotFound,
        SpawnFailed,
        ServerBusy,
        InvalidContext,
        InvalidState,
        WouldBlock,
        AgentTimeout,
        AccessDenied,
        Unsupported,
        ShuttingDown,
        ExecutionError,
    )
}


def to_wire(error: AgentError) -> str:
    """Return the string that carries ``error`` on the wire: ``code: words``."""
    code = error.code if error.code in _BY_CODE else ExecutionError.code
    return f"{code}: {error.words}"


def from_wire(text: str | None, *, agent_id: str | None = None) -> AgentError:
    """Return the error that a server's ``text`` stands for.

    A text without a known code (Rust's server sends none) is an
    :class:`ExecutionError` with the whole text.
    """
    if not text:
        return ExecutionError("the server refused and gave no reason", agent_id=agent_id)
    code, separator, words = text.partition(": ")
    kind = _BY_CODE.get(code) if separator else None
    if kind is None:
        return ExecutionError(text, agent_id=agent_id)
    return kind(words, agent_id=agent_id)


def _rebuild(
    kind: type[DescartesError], args: tuple[object, ...], state: dict[str, object]
) -> DescartesError:
    """Make an error again from a pickle; keyword-only arguments rule out the default way."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error
