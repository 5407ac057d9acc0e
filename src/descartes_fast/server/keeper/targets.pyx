"""The processes of running agents, for a signal to many of them in one step: all of it in C.

A thousand signals are a thousand system calls of a third of a microsecond each; what Python does
for one call takes as long again.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, uint8_t
from posix.signal cimport kill

from descartes_fast._core.id_table cimport (
    FEWEST_PLACES,
    ID_SIZE,
    IdTable,
    close_id_table,
    drop_number,
    number_of,
    open_id_table,
    set_number,
)

import uuid

cdef class Targets:
    """Process ids by the agent's id, of leaders that nobody has reaped: they are nobody else's."""

    cdef IdTable _pids

    def __cinit__(self):
        if open_id_table(&self._pids, FEWEST_PLACES) < 0:
            raise MemoryError

    def __dealloc__(self):
        close_id_table(&self._pids)

    def __len__(self):
        return self._pids.count

    def add(self, str agent_id not None, int32_t pid):
        """Let signals to an agent reach ``pid``. Raises ``MemoryError``.

        An id that is no UUID's is not kept: :meth:`signal` could not name it.
        """
        key = bytes_of(agent_id)
        if pid <= 1:
            raise ValueError(f"no agent has process {pid}")
        if key is not None and set_number(&self._pids, chars_of(key), pid) < 0:
            raise MemoryError

    def discard(self, str agent_id not None):
        """Let signals to an agent reach nobody; one that is not there is fine."""
        key = bytes_of(agent_id)
        if key is not None:
            drop_number(&self._pids, chars_of(key))

    def signal(self, bytes agent_ids not None, int signum):
        """Signal the agents whose ids, 16 bytes each, are given.

        Return the positions of those that were not: nobody is known under the id, or the system
        refused.
        """
        cdef const uint8_t* ids = chars_of(agent_ids)
        cdef size_t count = <size_t>PyBytes_GET_SIZE(agent_ids) // ID_SIZE
        cdef size_t position
        cdef int32_t pid
        cdef list left = []
        for position in range(count):
            pid = number_of(&self._pids, ids + position * ID_SIZE)
            if pid == 0 or kill(pid, signum) != 0:
                left.append(position)
        return left


cdef bytes bytes_of(str agent_id):
    """Return an id's 16 bytes, None if it is no UUID's."""
    try:
        return uuid.UUID(agent_id).bytes
    except ValueError:
        return None


cdef inline const uint8_t* chars_of(bytes data) noexcept:
    return <const uint8_t*>PyBytes_AS_STRING(data)
