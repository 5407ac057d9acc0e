"""Programs in processes of their own: pipes, vfork, and what the child does before its exec, in C.

Between a vfork and the exec the child runs in its parent's memory, so no Python may run there; and
without Python there the limits of a program cost no fork of the whole keeper. The thread that
has called vfork waits until the exec, half a millisecond: the keeper goes on in another thread
meanwhile. For the system a process is the child of the thread that has made it, and what asked for
a signal at its parent's end (``PR_SET_PDEATHSIG``, as sandboxes do) gets it at that thread's: so it
is the process's first thread that starts programs, which lives as long as the process does, through
an exec too if it is the one that calls it (:meth:`Launcher.call`).

A child has a copy of its parent's table of descriptors, most of which its exec closes: with five
thousand agents these are twenty thousand, and a millisecond and a half. So it shares the table, and
takes only the beginning of it with it, up to three places where it finds its own ends.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from libc.errno cimport errno
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free
from posix.types cimport pid_t
from posix.unistd cimport close

import os
from collections import deque

__all__ = ["Launch", "LaunchFailed", "Launcher"]

cdef extern from "descartes_fast/server/keeper/launcher.h":
    enum:
        PIPES "DESCARTES_FAST_PIPES"
        FORK "DESCARTES_FAST_FORK"
        PREPARING "DESCARTES_FAST_PREPARING"
        DIRECTORY "DESCARTES_FAST_DIRECTORY"
        LIMITS "DESCARTES_FAST_LIMITS"
        EXEC "DESCARTES_FAST_EXEC"

    struct rlimit:
        unsigned long long rlim_cur
        unsigned long long rlim_max

    ctypedef struct CLaunch "descartes_fast_launch":
        char** executables
        char** argv
        char** environment
        const char* directory
        const char* oom_score
        int umask
        int limits
        int* kinds
        rlimit* values
        int has_stdin
        pid_t pid
        int fds[3]
        int64_t made_between_ns[2]
        int64_t started_at_ns
        int stage
        int error

    ctypedef struct CNursery "descartes_fast_nursery":
        int shares_memory

    ctypedef struct CLauncher "descartes_fast_launcher":
        CNursery nursery
        int tells[2]

    int open_launcher "descartes_fast_open_launcher"(CLauncher* launcher)
    int work "descartes_fast_work"(CLauncher* launcher) nogil
    void begin_launch "descartes_fast_begin"(CLauncher* launcher, CLaunch* launch)
    int has_exited "descartes_fast_has_exited"(pid_t pid)
    void close_silent "descartes_fast_close_silent"(CLaunch* launch)
    int is_done "descartes_fast_is_done"(CLauncher* launcher, CLaunch* launch, double secs) nogil
    void kill_launch "descartes_fast_kill"(CLauncher* launcher, CLaunch* launch)
    void cancel "descartes_fast_cancel"(CLauncher* launcher)
    void hear "descartes_fast_hear"(CLauncher* launcher)
    void want_call "descartes_fast_want_call"(CLauncher* launcher) nogil
    void end_call "descartes_fast_end_call"(CLauncher* launcher)
    void close_launcher "descartes_fast_close_launcher"(CLauncher* launcher)
    void close_nursery "descartes_fast_close_nursery"(CNursery* nursery)


cdef dict _STAGES = {
    PIPES: "pipes",
    FORK: "fork",
    PREPARING: "preparing",
    DIRECTORY: "directory",
    LIMITS: "limits",
    EXEC: "exec",
}


class LaunchFailed(OSError):
    """There is no process: it could not be made, or did not come to be the program and is reaped.

    ``stage`` says what failed: ``"pipes"``, ``"fork"``, and in the child ``"preparing"``,
    ``"directory"``, ``"limits"`` or ``"exec"``.
    """

    def __init__(self, error: int, stage: str) -> None:
        super().__init__(error, os.strerror(error))
        self.stage = stage


@cython.no_gc_clear  # another thread may be using what it holds
cdef class Launch:
    """A program to be started in a session of its own, with pipes; then what came of it.

    All texts are bytes without a NUL: ``executables`` are the paths where it may be, ``environment``
    has ``NAME=value``. ``limits`` are resources, each with its soft and its hard limit;
    ``oom_score`` is what the child gives itself if it may. Without a pipe for stdin that is
    ``/dev/null``. Signals have their defaults in the program, but those that are ignored here, and
    those are held back that whoever begins it holds back, except SIGCHLD. What
    else is open here must be closed on exec, and 0, 1 and 2 must be open. The descriptors are those
    of whoever asks for them, who closes them.
    """

    cdef CLaunch _launch
    cdef tuple _texts  # what the launch points to

    def __init__(
        self,
        list executables not None,
        list argv not None,
        list environment not None,
        *,
        bint has_stdin,
        bytes directory,
        int umask,
        list limits not None,
        bytes oom_score,
    ):
        cdef Py_ssize_t i
        if self._texts is not None:
            raise ValueError("a launch is described once")
        self._texts = executables, argv, environment, directory, oom_score
        self._launch.executables = pointers_to(executables)
        self._launch.argv = pointers_to(argv)
        self._launch.environment = pointers_to(environment)
        if directory is not None:
            self._launch.directory = PyBytes_AS_STRING(directory)
        if oom_score is not None:
            self._launch.oom_score = PyBytes_AS_STRING(oom_score)
        self._launch.umask = umask
        self._launch.limits = <int>len(limits)
        self._launch.kinds = <int*>calloc(len(limits) + 1, sizeof(int))
        self._launch.values = <rlimit*>calloc(len(limits) + 1, sizeof(rlimit))
        if self._launch.kinds == NULL or self._launch.values == NULL:
            raise MemoryError
        for i in range(len(limits)):
            self._launch.kinds[i], soft, hard = limits[i]
            # Without a limit is -1 in Python, and the largest number in C.
            self._launch.values[i].rlim_cur = <unsigned long long><long long>soft
            self._launch.values[i].rlim_max = <unsigned long long><long long>hard
        self._launch.has_stdin = has_stdin

    def __dealloc__(self):
        free(self._launch.executables)
        free(self._launch.argv)
        free(self._launch.environment)
        free(self._launch.kinds)
        free(self._launch.values)

    def check(self):
        """Raise ``LaunchFailed`` if there is no process; for a launch that is done, as the rest."""
        if self._launch.stage:
            raise LaunchFailed(self._launch.error, _STAGES[self._launch.stage])

    @property
    def pid(self):
        return self._launch.pid

    @property
    def stdin_fd(self):
        """Our end of its stdin, which does not block; -1 without a pipe."""
        return self._launch.fds[0]

    @property
    def stdout_fd(self):
        return self._launch.fds[1]

    @property
    def stderr_fd(self):
        return self._launch.fds[2]

    @property
    def made_between_ns(self):
        """When the process was made, by the clock since boot: not before, not after."""
        return self._launch.made_between_ns[0], self._launch.made_between_ns[1]

    @property
    def has_exited(self):
        """Whether the process has exited by now; it is still to be reaped."""
        return bool(has_exited(self._launch.pid))

    def close_silent_ends(self):
        """Close the ends of its output that hold nothing, and of which nobody has the other.

        :attr:`stdout_fd` and :attr:`stderr_fd` are -1 then.
        """
        close_silent(&self._launch)

    @property
    def started_at_ns(self):
        """When it had executed its program, by the clock of the day."""
        return self._launch.started_at_ns


@cython.no_gc_clear
cdef class Launcher:
    """Starts programs one after another, in the thread that calls :meth:`work`."""

    cdef CLauncher _launcher
    cdef object _begun  # in their order; the other thread uses what they hold
    cdef object _call
    cdef object _failure

    def __cinit__(self):
        self._begun = deque()
        if open_launcher(&self._launcher) < 0:
            raise OSError(errno, os.strerror(errno))

    def __dealloc__(self):
        for i in range(2):
            if self._launcher.tells[i] >= 0:
                close(self._launcher.tells[i])
        close_nursery(&self._launcher.nursery)

    def fileno(self):
        """Return a descriptor that is readable when launches are done.

        It may be so only when several are, or there are no more.
        """
        return self._launcher.tells[0]

    def work(self):
        """Start what is begun, and do what others :meth:`call` for, until :meth:`close`."""
        cdef int is_called = True
        while is_called:
            with nogil:
                is_called = work(&self._launcher)
            if is_called:
                try:
                    self._call()
                except BaseException as error:
                    self._failure = error
                end_call(&self._launcher)

    def call(self, function):
        """Have the other thread call ``function``; return when it has, or raise what that did."""
        self._call, self._failure = function, None
        with nogil:
            want_call(&self._launcher)
        failure, self._call, self._failure = self._failure, None, None
        if failure is not None:
            raise failure

    def begin(self, Launch launch not None):
        """Start a program, after those begun before."""
        self._begun.append(launch)
        begin_launch(&self._launcher, &launch._launch)

    def hear(self):
        """Let the descriptor be readable again only when more are done."""
        hear(&self._launcher)

    def take(self, double secs=0.0):
        """Let go of the first launch if it is done, or is within some seconds; tell whether."""
        cdef Launch launch
        cdef int done
        if not self._begun:
            return False
        launch = self._begun[0]
        if secs > 0:
            with nogil:
                done = is_done(&self._launcher, &launch._launch, secs)
        else:
            done = is_done(&self._launcher, &launch._launch, 0)
        if done:
            self._begun.popleft()
        return bool(done)

    def is_starting(self, pid_t pid):
        """Whether a process is, or may be, that of a launch which was not taken yet."""
        cdef Launch launch
        for launch in self._begun:
            if launch._launch.pid == pid or not (launch._launch.pid or self._launcher.nursery.shares_memory):
                return True
        return False

    def kill(self, Launch launch not None):
        """Kill the process of a launch that was not taken yet: its exec hangs, or it has to go."""
        kill_launch(&self._launcher, &launch._launch)

    def cancel(self):
        """Begin no more of what was begun here, and kill what is; all of it will be done soon.

        ``LaunchFailed`` with ``ECANCELED`` is what came of the former.
        """
        cdef Launch launch
        cancel(&self._launcher)
        for launch in self._begun:
            kill_launch(&self._launcher, &launch._launch)

    def close(self):
        """Let the other thread go on with its own when it has started what is begun."""
        close_launcher(&self._launcher)


cdef char** pointers_to(list texts) except NULL:
    """Return an array of the texts' bytes, which ends with NULL; they must outlive it."""
    cdef char** pointers = <char**>calloc(len(texts) + 1, sizeof(char*))
    cdef Py_ssize_t i
    cdef bytes text
    if pointers == NULL:
        raise MemoryError
    for i in range(len(texts)):
        text = texts[i]
        pointers[i] = PyBytes_AS_STRING(text)
    return pointers
