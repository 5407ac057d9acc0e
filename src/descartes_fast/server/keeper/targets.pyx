"""The processes of running agents, for a signal to many of them in one step: all of it in C.

A thousand signals are a thousand system calls of a third of a microsecond each; what Python does
for one call takes as long again. Of many a second thread sends some, on another processor: it is
there for this step only, knows nothing but process ids, and is waited for if it has begun
something.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, uint8_t
from libc.stdlib cimport calloc

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

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <pthread.h>
    #include <sched.h>
    #include <signal.h>
    #include <stdlib.h>
    #include <sys/types.h>

    #define DESCARTES_FAST_AT_ONCE 32

    typedef struct {
        pthread_mutex_t lock;
        pthread_cond_t all_done;
        int users;              /* the last one frees it */
        size_t count, begun, done;
        int signum;
        pid_t pids[];           /* becomes 0 where it was signalled */
    } descartes_fast_signals;

    static void descartes_fast_leave(descartes_fast_signals *signals)
    {
        int users;
        pthread_mutex_lock(&signals->lock);
        users = --signals->users;
        pthread_mutex_unlock(&signals->lock);
        if (users == 0) {
            pthread_mutex_destroy(&signals->lock);
            pthread_cond_destroy(&signals->all_done);
            free(signals);
        }
    }

    static void descartes_fast_send(descartes_fast_signals *signals)
    {
        size_t at, end;
        pthread_mutex_lock(&signals->lock);
        while (signals->begun < signals->count) {
            at = signals->begun;
            end = at + DESCARTES_FAST_AT_ONCE < signals->count ? at + DESCARTES_FAST_AT_ONCE
                                                               : signals->count;
            signals->begun = end;
            pthread_mutex_unlock(&signals->lock);
            for (size_t i = at; i < end; i++)
                if (signals->pids[i] > 1 && kill(signals->pids[i], signals->signum) == 0)
                    signals->pids[i] = 0;
            pthread_mutex_lock(&signals->lock);
            signals->done += end - at;
        }
        if (signals->done == signals->count)
            pthread_cond_signal(&signals->all_done);
        pthread_mutex_unlock(&signals->lock);
    }

    static void *descartes_fast_help(void *signals)
    {
        descartes_fast_send(signals);
        descartes_fast_leave(signals);
        return NULL;
    }

    /* Where it cannot be placed there is none: the kernel leaves a new thread for some hundred
       microseconds where its maker runs, and does not look for another processor. */
    #if defined(__linux__) && defined(__GLIBC__)
    static int descartes_fast_place_elsewhere(pthread_attr_t *attributes)
    {
        cpu_set_t others;
        int here = sched_getcpu();
        if (here < 0 || here >= CPU_SETSIZE || sched_getaffinity(0, sizeof others, &others) != 0)
            return -1;
        CPU_CLR(here, &others);
        if (CPU_COUNT(&others) == 0)
            return -1;
        return pthread_attr_setaffinity_np(attributes, sizeof others, &others) == 0 ? 0 : -1;
    }
    #else
    static int descartes_fast_place_elsewhere(pthread_attr_t *attributes)
    {
        (void)attributes;
        return -1;
    }
    #endif

    static void descartes_fast_start_helper(descartes_fast_signals *signals)
    {
        pthread_attr_t attributes;
        pthread_t thread;
        sigset_t all, before;
        pthread_attr_init(&attributes);
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        pthread_attr_setstacksize(&attributes, 64 * 1024);
        if (descartes_fast_place_elsewhere(&attributes) == 0) {
            sigfillset(&all);
            pthread_sigmask(SIG_BLOCK, &all, &before);
            signals->users = 2;
            if (pthread_create(&thread, &attributes, descartes_fast_help, signals) != 0)
                signals->users = 1;
            pthread_sigmask(SIG_SETMASK, &before, NULL);
        }
        pthread_attr_destroy(&attributes);
    }

    static void descartes_fast_send_all(descartes_fast_signals *signals, int with_helper)
    {
        pthread_mutex_init(&signals->lock, NULL);
        pthread_cond_init(&signals->all_done, NULL);
        signals->users = 1;
        if (with_helper)
            descartes_fast_start_helper(signals);
        descartes_fast_send(signals);
        pthread_mutex_lock(&signals->lock);
        while (signals->done < signals->count)
            pthread_cond_wait(&signals->all_done, &signals->lock);
        pthread_mutex_unlock(&signals->lock);
    }
    """
    ctypedef struct Signals "descartes_fast_signals":
        size_t count
        int signum
        int32_t* pids

    void send_all "descartes_fast_send_all"(Signals* signals, int with_helper)
    void leave "descartes_fast_leave"(Signals* signals)

cdef size_t _FEWEST_FOR_HELPER = 256  # to begin it takes as long as a hundred signals


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
        cdef Signals* signals = <Signals*>calloc(1, sizeof(Signals) + count * sizeof(int32_t))
        if signals == NULL:
            raise MemoryError
        signals.count = count
        signals.signum = signum
        for position in range(count):
            signals.pids[position] = number_of(&self._pids, ids + position * ID_SIZE)
            if signals.pids[position] == 0:
                signals.pids[position] = -1
        send_all(signals, count >= _FEWEST_FOR_HELPER)
        left = [position for position in range(count) if signals.pids[position]]
        leave(signals)
        return left


cdef bytes bytes_of(str agent_id):
    """Return an id's 16 bytes, None if it is no UUID's."""
    try:
        return uuid.UUID(agent_id).bytes
    except ValueError:
        return None


cdef inline const uint8_t* chars_of(bytes data) noexcept:
    return <const uint8_t*>PyBytes_AS_STRING(data)
