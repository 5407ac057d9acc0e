"""Which status updates are news, and which agents have not ended as far as those tell.

Keyed by the numbers of the agents' ids: to hash a ``uuid.UUID`` is a call into Python, and here
every update passes.
"""

from libc.stdint cimport uint8_t

import uuid

from .build cimport uuid_number
from .classes cimport as_message, read_field
from .enums import AgentStatus
from .layout cimport Message, Record, record_of
from .scan cimport find_field
from .table cimport find_tag

cdef enum:
    NO_WORD = 0xFF

cdef Record* UPDATE = find_tag(b"status_update", 13)
cdef int AGENT = find_field(UPDATE, b"agent_id", 8)
cdef int STATUS = find_field(UPDATE, b"status", 6)
cdef bint[16] ENDED
for _index, _status in enumerate(AgentStatus):
    ENDED[<int>_index] = _status.is_terminal


def seq_of(update):
    """Return the number of the change of state that an update tells, if it tells one."""
    data = update.data
    seq = data.get("seq") if isinstance(data, dict) else None
    return seq if isinstance(seq, int) and not isinstance(seq, bool) else None


cdef class Told:
    """What a subscriber to status updates has been told."""

    cdef set _active
    cdef dict _known

    def __init__(self):
        self._active = set()
        self._known = {}

    def begin(self, dict known not None):
        """A snapshot was taken that has the changes up to these, by the agents' ids."""
        self._known = {agent_id.int: seq for agent_id, seq in known.items()}

    def active(self):
        """Return the ids of the agents that have not ended, as far as has been told."""
        return {uuid.UUID(int=key) for key in self._active}

    def tell(self, update):
        """Note an update that is told in any case."""
        key = key_of(update)
        if key is None:
            raise TypeError(f"expected a StatusUpdate, not {type(update).__name__}")
        note(self, key, update)

    def news(self, list messages not None):
        """Return the updates among ``messages`` that are not in the snapshot, and note them.

        What follows an agent's first that is not, is not either.
        """
        cdef list found = []
        for message in messages:
            key = key_of(message)
            if key is None:
                continue
            if self._known and not is_news(self, key, message):
                continue
            note(self, key, message)
            found.append(message)
        return found


cdef object key_of(object value):
    """Return the number of the id of an update's agent; None for what is no update."""
    cdef Message* message = as_message(value)
    if message == NULL or record_of(message).base != UPDATE:
        return None
    return uuid_number(read_field(message, &record_of(message).fields[AGENT]))


cdef int note(Told self, object key, object update) except -1:
    cdef Message* message = as_message(update)
    cdef uint8_t word = message.words[record_of(message).fields[STATUS].raw]
    if word == NO_WORD:
        return 0
    if ENDED[word]:
        self._active.discard(key)
    else:
        self._active.add(key)
    return 0


cdef bint is_news(Told self, object key, object update) except -1:
    known = self._known.get(key)
    if known is None:
        return True
    seq = seq_of(update)
    if seq is None:
        return True
    if seq <= known:
        return False
    del self._known[key]
    return True
