"""A program in a process of its own: vfork, and all that the child does before its exec, in C.

Between a vfork and the exec the child runs in its parent's memory, so no Python may run there; and
without Python there the limits of a program cost no fork of the whole keeper. What CPython's
``subprocess`` does beside that takes as long as the fork.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.errno cimport EINTR, errno
from libc.stdlib cimport calloc, free
from posix.types cimport pid_t
from posix.unistd cimport close, read

import os

__all__ = ["ChildFailed", "fork_exec"]

cdef extern from *:
    """
    #include <errno.h>
    #include <pthread.h>
    #include <signal.h>
    #include <sys/resource.h>
    #include <sys/stat.h>
    #include <sys/types.h>
    #include <unistd.h>

    #ifndef NSIG
    #define NSIG 65
    #endif

    enum { DESCARTES_FAST_PREPARING, DESCARTES_FAST_DIRECTORY, DESCARTES_FAST_LIMITS,
           DESCARTES_FAST_EXEC };

    typedef struct {
        char **executables;     /* where the program may be; tried in turn */
        char **argv;
        char **environment;
        int ends[3];            /* what becomes its stdin, stdout and stderr: none is below 3 */
        const char *directory;  /* NULL: where we are */
        int umask;
        int limits;             /* how many */
        int *kinds;
        struct rlimit *values;
        int report_fd;          /* gets the stage and the errno; closed on exec */
    } descartes_fast_program;

    static void descartes_fast_fail(int fd, int stage, int error)
    {
        int report[2] = {stage, error};
        while (write(fd, report, sizeof report) < 0 && errno == EINTR)
            ;
        _exit(255);
    }

    static void descartes_fast_child(const descartes_fast_program *program, const sigset_t *mask)
    {
        struct sigaction action;
        int i, error = 0;
        if (setsid() < 0)
            descartes_fast_fail(program->report_fd, DESCARTES_FAST_PREPARING, errno);
        for (i = 0; i < 3; i++)
            if (dup2(program->ends[i], i) < 0)
                descartes_fast_fail(program->report_fd, DESCARTES_FAST_PREPARING, errno);
        if (program->directory && chdir(program->directory) < 0)
            descartes_fast_fail(program->report_fd, DESCARTES_FAST_DIRECTORY, errno);
        umask((mode_t)program->umask);
        for (i = 0; i < program->limits; i++)
            if (setrlimit(program->kinds[i], &program->values[i]) < 0)
                descartes_fast_fail(program->report_fd, DESCARTES_FAST_LIMITS, errno);
        /* Our handlers must not run here, in the memory of the parent. */
        for (i = 1; i < NSIG; i++)
            if (sigaction(i, NULL, &action) == 0 && action.sa_handler != SIG_IGN
                && action.sa_handler != SIG_DFL) {
                action.sa_handler = SIG_DFL;
                action.sa_flags = 0;
                sigaction(i, &action, NULL);
            }
        pthread_sigmask(SIG_SETMASK, mask, NULL);
        for (i = 0; program->executables[i]; i++) {
            execve(program->executables[i], program->argv, program->environment);
            if (!error && errno != ENOENT && errno != ENOTDIR)
                error = errno;
        }
        descartes_fast_fail(program->report_fd, DESCARTES_FAST_EXEC, error ? error : errno);
    }

    /* By itself, so that nothing of ours is in the registers that both return with. */
    #if defined(__GNUC__)
    __attribute__((noinline))
    #endif
    static pid_t descartes_fast_fork_exec(const descartes_fast_program *program)
    {
        sigset_t all, before;
        pid_t pid;
        int error;
        sigfillset(&all);
        pthread_sigmask(SIG_BLOCK, &all, &before);
    #ifdef __linux__
        pid = vfork();
    #else
        pid = fork();
    #endif
        if (pid == 0)
            descartes_fast_child(program, &before);
        error = errno;
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        errno = error;
        return pid;
    }
    """
    enum:
        PREPARING "DESCARTES_FAST_PREPARING"
        DIRECTORY "DESCARTES_FAST_DIRECTORY"
        LIMITS "DESCARTES_FAST_LIMITS"
        EXEC "DESCARTES_FAST_EXEC"

    struct rlimit:
        unsigned long long rlim_cur
        unsigned long long rlim_max

    ctypedef struct Program "descartes_fast_program":
        char** executables
        char** argv
        char** environment
        int ends[3]
        const char* directory
        int umask
        int limits
        int* kinds
        rlimit* values
        int report_fd

    pid_t run "descartes_fast_fork_exec"(const Program* program) nogil


class ChildFailed(OSError):
    """The process was there, but did not come to be the program; it is reaped.

    ``stage`` says what failed in it: ``"preparing"``, ``"directory"``, ``"limits"`` or ``"exec"``.
    """

    def __init__(self, error: int, stage: str) -> None:
        super().__init__(error, os.strerror(error))
        self.stage = stage


def fork_exec(
    list executables not None,
    list argv not None,
    list environment not None,
    *,
    int stdin,
    int stdout,
    int stderr,
    bytes directory,
    int umask,
    list limits not None,
):
    """Start a program in a session of its own; return its process id after its exec.

    All texts are bytes without a NUL: ``executables`` are the paths where it may be, ``environment``
    has ``NAME=value``. The descriptors are above 2; what else is to be closed must be closed on
    exec. ``limits`` are pairs of a resource and a value for both of its limits. Signals have their
    defaults in the program, but those that are ignored here. Other threads may not use Python
    meanwhile. Raises ``ChildFailed``, and ``OSError`` where there is no process to be had.
    """
    cdef Program program
    cdef pid_t pid
    cdef int error
    cdef Py_ssize_t i
    if min(stdin, stdout, stderr) < 3:
        raise ValueError("the ends of the pipes must not be among those that they become")
    report_in, report_out = os.pipe()
    program.executables = program.argv = program.environment = NULL
    program.kinds = NULL
    program.values = NULL
    try:
        program.executables = pointers_to(executables)
        program.argv = pointers_to(argv)
        program.environment = pointers_to(environment)
        program.ends[0], program.ends[1], program.ends[2] = stdin, stdout, stderr
        program.directory = NULL
        if directory is not None:
            program.directory = PyBytes_AS_STRING(directory)
        program.umask = umask
        program.limits = <int>len(limits)
        program.kinds = <int*>calloc(len(limits) + 1, sizeof(int))
        program.values = <rlimit*>calloc(len(limits) + 1, sizeof(rlimit))
        if program.kinds == NULL or program.values == NULL:
            raise MemoryError
        for i in range(len(limits)):
            program.kinds[i], value = limits[i]
            program.values[i].rlim_cur = program.values[i].rlim_max = value
        program.report_fd = report_out
        pid = run(&program)
        error = errno
        if pid < 0:
            raise OSError(error, os.strerror(error))
    except BaseException:
        os.close(report_in)
        raise
    finally:
        os.close(report_out)
        free(program.executables)
        free(program.argv)
        free(program.environment)
        free(program.kinds)
        free(program.values)
    raise_reported(report_in, pid)
    return pid


cdef int raise_reported(int report_in, pid_t pid) except -1:
    """Wait until the exec has closed the other end; raise what the child has written before that."""
    cdef int report[2]
    cdef Py_ssize_t size = -1
    while size < 0:
        size = read(report_in, report, sizeof(report))
        if size < 0 and errno != EINTR:
            break
    close(report_in)
    if size == sizeof(report):
        os.waitpid(pid, 0)
        stages = {PREPARING: "preparing", DIRECTORY: "directory", LIMITS: "limits", EXEC: "exec"}
        raise ChildFailed(report[1], stages[report[0]])
    return 0


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
