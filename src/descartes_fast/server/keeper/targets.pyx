"""The processes of running agents, for a signal to many of them in one step: all of it in C.

A thousand signals are a thousand system calls of a third of a microsecond each; what Python does
for one call takes as long again.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memchr, memcpy
from posix.signal cimport kill
from posix.types cimport pid_t

from descartes_fast._core.keyed cimport (
    Keyed,
    close_keyed,
    find_value,
    open_keyed,
    put_value,
    remove_key,
)

cdef enum:
    BUCKETS = 8192


cdef class Targets:
    """Process ids by the agent's id, of leaders that nobody has reaped: they are nobody else's."""

    cdef Keyed _pids

    def __cinit__(self):
        if open_keyed(&self._pids, BUCKETS) < 0:
            raise MemoryError

    def __dealloc__(self):
        close_keyed(&self._pids)

    def __len__(self):
        return self._pids.count

    def add(self, str agent_id not None, pid_t pid):
        """Let signals to an agent reach ``pid``. Raises ``MemoryError``."""
        cdef bytes key = agent_id.encode()
        if pid <= 1:
            raise ValueError(f"no agent has process {pid}")
        if put_value(
            &self._pids, chars_of(key), PyBytes_GET_SIZE(key), <const uint8_t*>&pid, sizeof(pid)
        ) < 0:
            raise MemoryError

    def discard(self, str agent_id not None):
        """Let signals to an agent reach nobody; one that is not there is fine."""
        cdef bytes key = agent_id.encode()
        remove_key(&self._pids, chars_of(key), PyBytes_GET_SIZE(key))

    def signal(self, bytes agent_ids not None, int signum):
        """Signal the agents whose ids are given, with one space between two.

        Return the positions of those that were not: nobody is known under the id, or the system
        refused.
        """
        cdef const uint8_t* start = chars_of(agent_ids)
        cdef const uint8_t* end = start + PyBytes_GET_SIZE(agent_ids)
        cdef const uint8_t* stop
        cdef const uint8_t* value
        cdef size_t size
        cdef size_t position = 0
        cdef pid_t pid
        cdef list left = []
        while start < end:
            stop = <const uint8_t*>memchr(start, c" ", end - start)
            if stop == NULL:
                stop = end
            value = find_value(&self._pids, start, stop - start, &size)
            if value == NULL:
                left.append(position)
            else:
                memcpy(&pid, value, sizeof(pid))
                if kill(pid, signum) != 0:
                    left.append(position)
            position += 1
            start = stop + 1
        return left


cdef inline const uint8_t* chars_of(bytes text) noexcept:
    return <const uint8_t*>PyBytes_AS_STRING(text)
