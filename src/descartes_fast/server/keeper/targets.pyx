"""The processes of running agents, for a signal to many of them in one step: all of it in C.

A thousand signals are a thousand system calls of a third of a microsecond each; what Python does
for one call takes as long again. Of many a second thread sends some, on another processor. It does
nothing else, knows no Python, and ends when it was not wanted for a second.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, uint8_t
from libc.stdlib cimport free, malloc

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


cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <pthread.h>
    #include <sched.h>
    #include <signal.h>
    #include <sys/types.h>
    #include <time.h>

    enum { DESCARTES_FAST_AT_ONCE = 32, DESCARTES_FAST_IDLE_SECS = 1 };

    /* One step: who takes some positions sends their signals and notes those that were sent. */
    static struct {
        pthread_mutex_t lock;
        pthread_cond_t is_wanted, is_done;
        pthread_t helper;
        int has_helper;
        size_t count, taken, done;
        pid_t *pids;            /* becomes 0 where it was signalled */
        int signum;
    } descartes_fast_step = {
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .is_done = PTHREAD_COND_INITIALIZER,
    };

    /* With the lock held, but not while signals are sent. */
    static void descartes_fast_take_part(void)
    {
        size_t at, end;
        while (descartes_fast_step.taken < descartes_fast_step.count) {
            at = descartes_fast_step.taken;
            end = at + DESCARTES_FAST_AT_ONCE;
            if (end > descartes_fast_step.count)
                end = descartes_fast_step.count;
            descartes_fast_step.taken = end;
            pthread_mutex_unlock(&descartes_fast_step.lock);
            for (size_t i = at; i < end; i++) {
                pid_t pid = descartes_fast_step.pids[i];
                if (pid > 1 && kill(pid, descartes_fast_step.signum) == 0)
                    descartes_fast_step.pids[i] = 0;
            }
            pthread_mutex_lock(&descartes_fast_step.lock);
            descartes_fast_step.done += end - at;
            if (descartes_fast_step.done == descartes_fast_step.count)
                pthread_cond_signal(&descartes_fast_step.is_done);
        }
    }

    #if defined(__linux__) && defined(__GLIBC__)
    static void *descartes_fast_help(void *unused)
    {
        struct timespec until;
        (void)unused;
        pthread_setname_np(pthread_self(), "targets-helper");
        pthread_mutex_lock(&descartes_fast_step.lock);
        do {
            descartes_fast_take_part();
            clock_gettime(CLOCK_MONOTONIC, &until);
            until.tv_sec += DESCARTES_FAST_IDLE_SECS;
        } while (pthread_cond_timedwait(&descartes_fast_step.is_wanted,
                                        &descartes_fast_step.lock, &until) == 0
                 || descartes_fast_step.taken < descartes_fast_step.count);
        descartes_fast_step.has_helper = 0;
        pthread_mutex_unlock(&descartes_fast_step.lock);
        return NULL;
    }

    static void descartes_fast_prepare(void)
    {
        pthread_condattr_t attributes;
        pthread_condattr_init(&attributes);
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        pthread_cond_init(&descartes_fast_step.is_wanted, &attributes);
        pthread_condattr_destroy(&attributes);
    }

    static void descartes_fast_start_helper(void)
    {
        pthread_attr_t attributes;
        sigset_t all, before;
        pthread_attr_init(&attributes);
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        pthread_attr_setstacksize(&attributes, 64 * 1024);
        sigfillset(&all);
        pthread_sigmask(SIG_BLOCK, &all, &before);
        descartes_fast_step.has_helper = pthread_create(&descartes_fast_step.helper, &attributes,
                                                        descartes_fast_help, NULL) == 0;
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        pthread_attr_destroy(&attributes);
    }

    /* With the lock held. The kernel would leave the helper where it was woken, for longer than
       all of this takes: it is to run on any processor but this one. */
    static void descartes_fast_call_helper(void)
    {
        cpu_set_t others;
        int here = sched_getcpu();
        if (here < 0 || here >= CPU_SETSIZE || sched_getaffinity(0, sizeof others, &others) != 0)
            return;
        CPU_CLR(here, &others);
        if (CPU_COUNT(&others) == 0)
            return;
        if (!descartes_fast_step.has_helper)
            descartes_fast_start_helper();
        if (descartes_fast_step.has_helper) {
            pthread_setaffinity_np(descartes_fast_step.helper, sizeof others, &others);
            pthread_cond_signal(&descartes_fast_step.is_wanted);
        }
    }
    #else
    static void descartes_fast_prepare(void)
    {
    }

    static void descartes_fast_call_helper(void)
    {
    }
    #endif

    static void descartes_fast_signal(pid_t *pids, size_t count, int signum, int with_helper)
    {
        pthread_mutex_lock(&descartes_fast_step.lock);
        descartes_fast_step.pids = pids;
        descartes_fast_step.signum = signum;
        descartes_fast_step.taken = descartes_fast_step.done = 0;
        descartes_fast_step.count = count;
        if (with_helper)
            descartes_fast_call_helper();
        descartes_fast_take_part();
        while (descartes_fast_step.done < count)
            pthread_cond_wait(&descartes_fast_step.is_done, &descartes_fast_step.lock);
        pthread_mutex_unlock(&descartes_fast_step.lock);
    }
    """
    void prepare "descartes_fast_prepare"()
    void signal_all "descartes_fast_signal"(int32_t* pids, size_t count, int signum, int helped)

prepare()

cdef size_t _FEWEST_FOR_HELPER = 256  # to call for it takes as long as some fifty signals


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
        cdef int32_t* pids = <int32_t*>malloc((count + 1) * sizeof(int32_t))
        if pids == NULL:
            raise MemoryError
        for position in range(count):
            pids[position] = number_of(&self._pids, ids + position * ID_SIZE)
            if pids[position] == 0:
                pids[position] = -1
        signal_all(pids, count, signum, count >= _FEWEST_FOR_HELPER)
        left = [position for position in range(count) if pids[position]]
        free(pids)
        return left


cdef bytes bytes_of(str agent_id):
    """Return an id's 16 bytes, None if it is no UUID's. ``uuid`` would take two microseconds."""
    try:
        found = bytes.fromhex(agent_id.replace("-", ""))
    except ValueError:
        return None
    return found if len(found) == ID_SIZE else None


cdef inline const uint8_t* chars_of(bytes data) noexcept:
    return <const uint8_t*>PyBytes_AS_STRING(data)
