/* Programs in processes of their own, in C; see launcher.pyx, which is all that includes this. */

#ifndef DESCARTES_FAST_LAUNCHER_H
#define DESCARTES_FAST_LAUNCHER_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sched.h>
#include <sys/syscall.h>
#ifndef SYS_close_range
#define SYS_close_range 436     /* of all architectures but Alpha; older headers do not say it */
#endif
#endif

#ifndef NSIG
#define NSIG 65
#endif

enum { DESCARTES_FAST_TOGETHER = 32 };  /* launches that are told at once, if more follow */
enum { DESCARTES_FAST_LAST = 8 };       /* descriptors that are for others */
enum { DESCARTES_FAST_STACK = 64 * 1024 };
enum { DESCARTES_FAST_UNSHARE = 1 << 1 };   /* CLOSE_RANGE_UNSHARE */

enum { DESCARTES_FAST_PIPES = 1, DESCARTES_FAST_FORK, DESCARTES_FAST_PREPARING,
       DESCARTES_FAST_DIRECTORY, DESCARTES_FAST_LIMITS, DESCARTES_FAST_EXEC };

typedef struct descartes_fast_launch {
    struct descartes_fast_launch *next;
    /* What is asked for. */
    char **executables;     /* where the program may be; tried in turn */
    char **argv;
    char **environment;
    const char *directory;  /* NULL: where we are */
    const char *oom_score;  /* NULL: ours */
    int umask;
    int limits;             /* how many */
    int *kinds;
    struct rlimit *values;
    int has_stdin;
    sigset_t mask;
    volatile int is_unwanted;   /* it is to be killed, also if it is only being made */
    /* What came of it. */
    volatile pid_t pid;     /* the child writes it, so it is here before its program can end;
                               a child with memory of its own does not */
    int fds[3];             /* our ends of stdin, stdout and stderr; -1: none */
    int64_t made_between_ns[2], started_at_ns;
    volatile int stage, error;
    int is_done;            /* with the launcher's lock */
} descartes_fast_launch;

static int64_t descartes_fast_now(clockid_t clock)
{
    struct timespec now;
    return clock_gettime(clock, &now) < 0 ? 0 : (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

#ifdef CLOCK_BOOTTIME
#define DESCARTES_FAST_BOOT_NS() descartes_fast_now(CLOCK_BOOTTIME)
#else
#define DESCARTES_FAST_BOOT_NS() 0
#endif

/* Whoever gives a spare descriptor way for a moment must find it free. */
static int descartes_fast_is_one_of_the_last(int fd)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY
           && (rlim_t)fd + DESCARTES_FAST_LAST >= limit.rlim_cur;
}

static int descartes_fast_pipe(int ends[2])
{
#ifdef __linux__
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -1;
#else
    if (pipe(ends) < 0)
        return -1;
    fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    fcntl(ends[1], F_SETFD, FD_CLOEXEC);
#endif
    return 0;
}

/* A pipe for a child, which must not close one end with the other. */
static int descartes_fast_pipe_for_child(int ends[2])
{
    if (descartes_fast_pipe(ends) < 0)
        return -1;
    errno = ends[0] > 2 && ends[1] > 2 ? 0 : EBADF;
    if (!errno && descartes_fast_is_one_of_the_last(ends[0] > ends[1] ? ends[0] : ends[1]))
        errno = EMFILE;
    if (!errno)
        return 0;
    int error = errno;
    close(ends[0]);
    close(ends[1]);
    errno = error;
    return -1;
}

static void descartes_fast_close(const int fds[3])
{
    for (int i = 0; i < 3; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

/* Make the pipes; ours do not block. */
static int descartes_fast_open_ends(descartes_fast_launch *launch, int theirs[3])
{
    int ends[2], error;
    for (int i = 0; i < 3; i++) {
        if (i == 0 && !launch->has_stdin)
            continue;
        if (descartes_fast_pipe_for_child(ends) < 0)
            goto failed;
        launch->fds[i] = ends[i == 0];
        theirs[i] = ends[i != 0];
        if (fcntl(launch->fds[i], F_SETFL, O_NONBLOCK) < 0)
            goto failed;
    }
    return 0;
failed:
    error = errno;
    descartes_fast_close(theirs);
    errno = error;
    return -1;
}

#if defined(__GNUC__)
__attribute__((noreturn))
#endif
static void descartes_fast_fail(descartes_fast_launch *launch, int report_fd, int stage)
{
    int report[2] = {stage, errno};
    launch->stage = report[0];      /* after a vfork this is the parent's memory */
    launch->error = report[1];
    while (report_fd >= 0 && write(report_fd, report, sizeof report) < 0 && errno == EINTR)
        ;
    _exit(255);
}

static void descartes_fast_set_oom_score(const char *score)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t unused = write(fd, score, strlen(score));
        (void)unused;       /* refused: it keeps ours */
        close(fd);
    }
}

static void descartes_fast_child(descartes_fast_launch *launch, const int theirs[3],
                                 int report_fd)
{
    struct sigaction action;
    int i, error = 0;
    launch->pid = getpid();
    __sync_synchronize();       /* either we see that it is unwanted, or who says so sees the pid */
    if (launch->is_unwanted)
        kill(launch->pid, SIGKILL);
    launch->made_between_ns[1] = DESCARTES_FAST_BOOT_NS();
    if (setsid() < 0)
        descartes_fast_fail(launch, report_fd, DESCARTES_FAST_PREPARING);
    for (i = 0; i < 3; i++)
        if (dup2(theirs[i], i) < 0)
            descartes_fast_fail(launch, report_fd, DESCARTES_FAST_PREPARING);
    descartes_fast_close(theirs);   /* what follows opens a file */
    if (launch->oom_score)
        descartes_fast_set_oom_score(launch->oom_score);
    if (launch->directory && chdir(launch->directory) < 0)
        descartes_fast_fail(launch, report_fd, DESCARTES_FAST_DIRECTORY);
    umask((mode_t)launch->umask);
    for (i = 0; i < launch->limits; i++)
        if (setrlimit(launch->kinds[i], &launch->values[i]) < 0)
            descartes_fast_fail(launch, report_fd, DESCARTES_FAST_LIMITS);
#ifndef __linux__
    /* Another thread may have opened them without, as it cannot do both in one step. */
    for (i = getdtablesize(); i > 2; i--)
        fcntl(i, F_SETFD, FD_CLOEXEC);
#endif
    /* Our handlers must not run here, in the memory of the parent. */
    for (i = 1; i < NSIG; i++)
        if (sigaction(i, NULL, &action) == 0 && action.sa_handler != SIG_IGN
            && action.sa_handler != SIG_DFL) {
            action.sa_handler = SIG_DFL;
            action.sa_flags = 0;
            sigaction(i, &action, NULL);
        }
    pthread_sigmask(SIG_SETMASK, &launch->mask, NULL);
    for (i = 0; launch->executables[i]; i++) {
        execve(launch->executables[i], launch->argv, launch->environment);
        if (!error && errno != ENOENT && errno != ENOTDIR)
            error = errno;
    }
    if (error)
        errno = error;
    descartes_fast_fail(launch, report_fd, DESCARTES_FAST_EXEC);
}

typedef struct {
    int shares_memory, shares_table;    /* whether a child can */
    int null_fd;
    int places[3];      /* where a child that shares our table finds its ends; else null */
    char *stack;        /* of a child that shares our memory */
} descartes_fast_nursery;

/* Wait for the end of a child, if there is one. */
static void descartes_fast_reap(pid_t pid)
{
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

/* Whether a vforked child runs in our memory: not everywhere, nor in every emulation. */
static int descartes_fast_shares_memory(void)
{
#ifdef __linux__
    static volatile int is_written;
    pid_t pid = vfork();
    if (pid == 0) {
        is_written = 1;
        _exit(0);
    }
    descartes_fast_reap(pid);
    return is_written;
#else
    return 0;
#endif
}

#ifdef __linux__
/* Leave the table of descriptors to the parent, but for its beginning. */
static int descartes_fast_leave_table(const int places[3])
{
    int i, last = 2;
    for (i = 0; i < 3; i++)
        if (places[i] > last)
            last = places[i];
    if (syscall(SYS_close_range, last + 1, ~0U, DESCARTES_FAST_UNSHARE) == 0)
        return 0;
    return unshare(CLONE_FILES);    /* all of it: before Linux 5.9 */
}

static int descartes_fast_try_to_leave_table(void *argument)
{
    descartes_fast_nursery *nursery = argument;
    nursery->shares_table = descartes_fast_leave_table(nursery->places) == 0;
    _exit(0);
}

/* Have a function called in a child in our memory, as after vfork(2), with a stack of its own. */
static pid_t descartes_fast_in_child(descartes_fast_nursery *nursery, int (*function)(void *),
                                     void *argument, int shares_table)
{
    return clone(function, nursery->stack + DESCARTES_FAST_STACK,
                 CLONE_VM | CLONE_VFORK | (shares_table ? CLONE_FILES : 0) | SIGCHLD, argument);
}
#endif

static int descartes_fast_open_nursery(descartes_fast_nursery *nursery)
{
    nursery->shares_memory = descartes_fast_shares_memory();
    nursery->null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (nursery->null_fd < 0 || !nursery->shares_memory)
        return nursery->null_fd;
    nursery->stack = malloc(DESCARTES_FAST_STACK);
    if (!nursery->stack)
        return -1;
    for (int i = 0; i < 3; i++) {
        nursery->places[i] = fcntl(nursery->null_fd, F_DUPFD_CLOEXEC, 3);
        if (nursery->places[i] < 0)
            return -1;
    }
#ifdef __linux__
    /* In a container it may be allowed neither way; it is a copy of the table then. */
    pid_t pid = descartes_fast_in_child(nursery, descartes_fast_try_to_leave_table, nursery, 1);
    descartes_fast_reap(pid);
#endif
    return 0;
}

static void descartes_fast_close_nursery(descartes_fast_nursery *nursery)
{
    descartes_fast_close(nursery->places);
    if (nursery->null_fd >= 0)
        close(nursery->null_fd);
    free(nursery->stack);
}

#ifdef __linux__
typedef struct {
    descartes_fast_launch *launch;
    const int *theirs;
    int shares_table;
} descartes_fast_newborn;

static int descartes_fast_begin_life(void *argument)
{
    descartes_fast_newborn *newborn = argument;
    if (newborn->shares_table && descartes_fast_leave_table(newborn->theirs) < 0)
        descartes_fast_fail(newborn->launch, -1, DESCARTES_FAST_PREPARING);
    descartes_fast_child(newborn->launch, newborn->theirs, -1);
    return 255;
}

/* Start a child in our memory. */
static pid_t descartes_fast_clone(descartes_fast_launch *launch,
                                  descartes_fast_nursery *nursery, const int theirs[3])
{
    descartes_fast_newborn newborn = {launch, theirs, nursery->shares_table};
    pid_t pid = -1;
    int i, error;
    if (!nursery->shares_table)
        return descartes_fast_in_child(nursery, descartes_fast_begin_life, &newborn, 0);
    newborn.theirs = nursery->places;
    for (i = 0; i < 3; i++)
        if (theirs[i] != nursery->null_fd && dup3(theirs[i], nursery->places[i], O_CLOEXEC) < 0)
            break;
    if (i == 3)
        pid = descartes_fast_in_child(nursery, descartes_fast_begin_life, &newborn, 1);
    error = errno;
    for (i = 0; i < 3; i++)     /* or an end would stay open here */
        if (theirs[i] != nursery->null_fd)
            dup3(nursery->null_fd, nursery->places[i], O_CLOEXEC);
    errno = error;
    return pid;
}
#else
#define descartes_fast_clone(launch, nursery, theirs) (-1)
#endif

static pid_t descartes_fast_fork(descartes_fast_launch *launch,
                                 descartes_fast_nursery *nursery, const int theirs[3],
                                 int report_fd)
{
    sigset_t all, before;
    pid_t pid;
    int error;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    pid = report_fd < 0 ? descartes_fast_clone(launch, nursery, theirs) : fork();
    if (pid == 0)
        descartes_fast_child(launch, theirs, report_fd);
    error = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return pid;
}

/* A child that has memory of its own reports through a pipe, which its exec closes. */
static pid_t descartes_fast_start_apart(descartes_fast_launch *launch,
                                        descartes_fast_nursery *nursery, const int theirs[3])
{
    int report[2], ends[2], error;
    ssize_t size;
    pid_t pid;
    if (descartes_fast_pipe_for_child(ends) < 0)
        return -1;
    pid = descartes_fast_fork(launch, nursery, theirs, ends[1]);
    error = errno;
    close(ends[1]);
    if (pid > 0) {
        launch->pid = pid;
        __sync_synchronize();
        if (launch->is_unwanted)
            kill(pid, SIGKILL);
        launch->made_between_ns[1] = DESCARTES_FAST_BOOT_NS();
        do
            size = read(ends[0], report, sizeof report);
        while (size < 0 && errno == EINTR);
        if (size == sizeof report) {
            launch->stage = report[0];
            launch->error = report[1];
        }
    }
    close(ends[0]);
    errno = error;
    return pid;
}

/* Whether a child has exited; its exit status stays where it is. */
static int descartes_fast_has_exited(pid_t pid)
{
    siginfo_t info;
    memset(&info, 0, sizeof info);
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid;
}

/* Close our ends of its output where nothing is to be read any more. */
static void descartes_fast_close_silent(descartes_fast_launch *launch)
{
    struct pollfd ends[2] = {{launch->fds[1], POLLIN, 0}, {launch->fds[2], POLLIN, 0}};
    if (poll(ends, 2, 0) <= 0)
        return;
    for (int i = 0; i < 2; i++)
        if (ends[i].revents == POLLHUP) {
            close(ends[i].fd);
            launch->fds[i + 1] = -1;
        }
}

static void descartes_fast_run(descartes_fast_launch *launch, descartes_fast_nursery *nursery,
                               pthread_mutex_t *lock)
{
    int theirs[3] = {-1, -1, -1};
    pid_t pid = -1;
    if (descartes_fast_open_ends(launch, theirs) < 0) {
        launch->error = errno;
        launch->stage = DESCARTES_FAST_PIPES;
    } else {
        if (theirs[0] < 0)
            theirs[0] = nursery->null_fd;
        launch->made_between_ns[0] = DESCARTES_FAST_BOOT_NS();
        pid = nursery->shares_memory ? descartes_fast_fork(launch, nursery, theirs, -1)
                                     : descartes_fast_start_apart(launch, nursery, theirs);
        if (pid > 0)
            launch->pid = pid;  /* it may have been killed before it could write it */
        else {
            launch->error = errno;
            launch->stage = DESCARTES_FAST_FORK;
        }
        if (theirs[0] == nursery->null_fd)
            theirs[0] = -1;
        descartes_fast_close(theirs);
        if (pid > 0 && launch->stage) {
            pthread_mutex_lock(lock);   /* whoever kills it must not mean another */
            launch->pid = 0;
            pthread_mutex_unlock(lock);
            descartes_fast_reap(pid);
        }
    }
    if (launch->stage) {
        descartes_fast_close(launch->fds);
        return;
    }
    launch->started_at_ns = descartes_fast_now(CLOCK_REALTIME);
}

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t is_wanted, is_done;
    descartes_fast_nursery nursery;
    int tells[2];           /* a pipe: a byte in it tells that launches are done */
    int is_told, untold;
    int is_call_wanted, is_closing;
    descartes_fast_launch *first, *last;
} descartes_fast_launcher;

#ifdef __linux__
#define DESCARTES_FAST_WAIT_CLOCK CLOCK_MONOTONIC
#else
#define DESCARTES_FAST_WAIT_CLOCK CLOCK_REALTIME
#endif

static int descartes_fast_open_launcher(descartes_fast_launcher *launcher)
{
    pthread_condattr_t attributes;
    memset(launcher, 0, sizeof *launcher);
    launcher->nursery.null_fd = -1;
    for (int i = 0; i < 3; i++)
        launcher->nursery.places[i] = -1;
    if (descartes_fast_pipe(launcher->tells) < 0) {
        launcher->tells[0] = launcher->tells[1] = -1;
        return -1;
    }
    fcntl(launcher->tells[0], F_SETFL, O_NONBLOCK);
    fcntl(launcher->tells[1], F_SETFL, O_NONBLOCK);
    pthread_mutex_init(&launcher->lock, NULL);
    pthread_cond_init(&launcher->is_wanted, NULL);
    pthread_condattr_init(&attributes);
#ifdef __linux__
    pthread_condattr_setclock(&attributes, DESCARTES_FAST_WAIT_CLOCK);
#endif
    pthread_cond_init(&launcher->is_done, &attributes);
    pthread_condattr_destroy(&attributes);
    return descartes_fast_open_nursery(&launcher->nursery);
}

/* Start what is begun; return 1 when a call is wanted, 0 when it is all over. */
static int descartes_fast_work(descartes_fast_launcher *launcher)
{
    descartes_fast_launch *launch;
    int is_over = 0;
    pthread_mutex_lock(&launcher->lock);
    while (!launcher->is_call_wanted && !is_over) {
        launch = launcher->first;
        if (!launch) {
            is_over = launcher->is_closing;
            if (!is_over)
                pthread_cond_wait(&launcher->is_wanted, &launcher->lock);
            continue;
        }
        launcher->first = launch->next;
        pthread_mutex_unlock(&launcher->lock);
        descartes_fast_run(launch, &launcher->nursery, &launcher->lock);
        pthread_mutex_lock(&launcher->lock);
        launch->is_done = 1;
        launcher->untold++;
        pthread_cond_broadcast(&launcher->is_done);
        if (!launcher->is_told
            && (!launcher->first || launcher->untold >= DESCARTES_FAST_TOGETHER))
            launcher->is_told = write(launcher->tells[1], "", 1) > 0;
    }
    pthread_mutex_unlock(&launcher->lock);
    return !is_over;
}

static void descartes_fast_begin(descartes_fast_launcher *launcher,
                                 descartes_fast_launch *launch)
{
    pthread_sigmask(SIG_BLOCK, NULL, &launch->mask);
    sigdelset(&launch->mask, SIGCHLD);
    launch->fds[0] = launch->fds[1] = launch->fds[2] = -1;
    pthread_mutex_lock(&launcher->lock);
    launch->next = NULL;
    if (launcher->first)
        launcher->last->next = launch;
    else
        launcher->first = launch;
    launcher->last = launch;
    pthread_cond_signal(&launcher->is_wanted);
    pthread_mutex_unlock(&launcher->lock);
}

/* Whether a launch is done; wait for that for so long, if it is not. */
static int descartes_fast_is_done(descartes_fast_launcher *launcher,
                                  descartes_fast_launch *launch, double secs)
{
    struct timespec until;
    int is_done, error = 0;
    clock_gettime(DESCARTES_FAST_WAIT_CLOCK, &until);
    until.tv_sec += (time_t)secs;
    until.tv_nsec += (long)((secs - (double)(time_t)secs) * 1e9);
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_mutex_lock(&launcher->lock);
    while (secs > 0 && !error && !launch->is_done)
        error = pthread_cond_timedwait(&launcher->is_done, &launcher->lock, &until);
    is_done = launch->is_done;
    pthread_mutex_unlock(&launcher->lock);
    return is_done;
}

/* Kill the process of a launch that is not taken, if there is one. */
static void descartes_fast_kill(descartes_fast_launcher *launcher,
                                descartes_fast_launch *launch)
{
    pthread_mutex_lock(&launcher->lock);
    launch->is_unwanted = 1;
    __sync_synchronize();
    if (launch->pid > 0)
        kill(launch->pid, SIGKILL);
    pthread_mutex_unlock(&launcher->lock);
}

/* Begin nothing that was not begun: it has failed. */
static void descartes_fast_cancel(descartes_fast_launcher *launcher)
{
    descartes_fast_launch *launch;
    pthread_mutex_lock(&launcher->lock);
    for (launch = launcher->first; launch; launch = launch->next) {
        launch->stage = DESCARTES_FAST_FORK;
        launch->error = ECANCELED;
        launch->is_done = 1;
    }
    launcher->first = NULL;
    pthread_mutex_unlock(&launcher->lock);
}

/* What is done from now on is told again. */
static void descartes_fast_hear(descartes_fast_launcher *launcher)
{
    char told[8];
    pthread_mutex_lock(&launcher->lock);
    if (launcher->is_told && read(launcher->tells[0], told, sizeof told) > 0)
        launcher->is_told = 0;
    launcher->untold = 0;
    pthread_mutex_unlock(&launcher->lock);
}

static void descartes_fast_want_call(descartes_fast_launcher *launcher)
{
    pthread_mutex_lock(&launcher->lock);
    launcher->is_call_wanted = 1;
    pthread_cond_signal(&launcher->is_wanted);
    while (launcher->is_call_wanted)
        pthread_cond_wait(&launcher->is_done, &launcher->lock);
    pthread_mutex_unlock(&launcher->lock);
}

static void descartes_fast_end_call(descartes_fast_launcher *launcher)
{
    pthread_mutex_lock(&launcher->lock);
    launcher->is_call_wanted = 0;
    pthread_cond_broadcast(&launcher->is_done);
    pthread_mutex_unlock(&launcher->lock);
}

static void descartes_fast_close_launcher(descartes_fast_launcher *launcher)
{
    pthread_mutex_lock(&launcher->lock);
    launcher->is_closing = 1;
    pthread_cond_signal(&launcher->is_wanted);
    pthread_mutex_unlock(&launcher->lock);
}

#endif
