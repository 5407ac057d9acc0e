"""The processes of running agents, for a signal to many of them in one step: all of it in C.

A thousand signals are a thousand system calls of a third of a microsecond each; what Python does
for one call takes as long again, and so does a look into memory that no cache has: one look finds
a process here.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy
from posix.signal cimport kill
from posix.types cimport pid_t

import uuid

cdef enum:
    ID_SIZE = 16
    FEWEST_PLACES = 1024

cdef struct Place:
    uint64_t id[2]
    pid_t pid       # 0: nobody


cdef class Targets:
    """Process ids by the agent's id, of leaders that nobody has reaped: they are nobody else's.

    A table in which who finds its place taken goes to the next: at least half of them are free.
    """

    cdef Place* _places
    cdef size_t _mask
    cdef size_t _count

    def __cinit__(self):
        self._open(FEWEST_PLACES)

    def __dealloc__(self):
        free(self._places)

    def __len__(self):
        return self._count

    def add(self, str agent_id not None, pid_t pid):
        """Let signals to an agent reach ``pid``. Raises ``MemoryError``.

        An id that is no UUID's is not kept: :meth:`signal` could not name it.
        """
        cdef Place new
        cdef Place* place
        if pid <= 1:
            raise ValueError(f"no agent has process {pid}")
        if not read_id(agent_id, &new):
            return
        if self._count * 2 > self._mask:
            self._grow()
        new.pid = pid
        place = self._find(new.id)
        self._count += place.pid == 0
        place[0] = new

    def discard(self, str agent_id not None):
        """Let signals to an agent reach nobody; one that is not there is fine."""
        cdef Place old
        cdef Place* gap
        cdef Place* place
        cdef size_t at
        if not read_id(agent_id, &old):
            return
        gap = self._find(old.id)
        if gap.pid == 0:
            return
        gap.pid = 0
        self._count -= 1
        # Whoever had to go on because of it, and would now be missed, comes back.
        at = <size_t>(gap - self._places)
        while True:
            at = (at + 1) & self._mask
            place = &self._places[at]
            if place.pid == 0:
                return
            old = place[0]
            place.pid = 0
            self._find(old.id)[0] = old

    def signal(self, bytes agent_ids not None, int signum):
        """Signal the agents whose ids, 16 bytes each, are given.

        Return the positions of those that were not: nobody is known under the id, or the system
        refused.
        """
        cdef const char* ids = PyBytes_AS_STRING(agent_ids)
        cdef size_t count = <size_t>PyBytes_GET_SIZE(agent_ids) // ID_SIZE
        cdef size_t position
        cdef uint64_t wanted[2]
        cdef pid_t pid
        cdef list left = []
        for position in range(count):
            memcpy(wanted, ids + position * ID_SIZE, ID_SIZE)
            pid = self._find(wanted).pid
            if pid == 0 or kill(pid, signum) != 0:
                left.append(position)
        return left

    cdef Place* _find(self, const uint64_t* wanted) noexcept:
        """Return the place of an id, or the free one where it belongs."""
        cdef uint64_t sum = (wanted[0] ^ wanted[1]) * <uint64_t>0x9E3779B97F4A7C15
        cdef size_t at = <size_t>(sum >> 32) & self._mask
        cdef Place* place = &self._places[at]
        while place.pid and (place.id[0] != wanted[0] or place.id[1] != wanted[1]):
            at = (at + 1) & self._mask
            place = &self._places[at]
        return place

    cdef int _open(self, size_t places) except -1:
        cdef Place* opened = <Place*>calloc(places, sizeof(Place))
        if opened == NULL:
            raise MemoryError
        self._places = opened
        self._mask = places - 1
        return 0

    cdef int _grow(self) except -1:
        cdef Place* old = self._places
        cdef size_t places = self._mask + 1
        cdef size_t at
        self._open(places * 2)
        for at in range(places):
            if old[at].pid:
                self._find(old[at].id)[0] = old[at]
        free(old)
        return 0


cdef bint read_id(str agent_id, Place* out):
    """Read an id from its text. Returns whether it is one."""
    try:
        data = uuid.UUID(agent_id).bytes
    except ValueError:
        return False
    memcpy(out.id, PyBytes_AS_STRING(data), ID_SIZE)
    return True
