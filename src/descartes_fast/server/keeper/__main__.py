"""The keeper's entry: run by its path, it prints ``ready`` and serves until the end."""

from __future__ import annotations

import os
import sys

if not __package__:
    # Run by path: this folder stands in for its package, so that the imports below find its
    # files and nothing of the packages above it (and their compiled core) is loaded.
    import types

    __package__ = "descartes_fast.server.keeper"
    _folder = types.ModuleType(__package__)
    _folder.__path__ = [os.path.dirname(os.path.abspath(__file__))]
    sys.modules[__package__] = _folder

import argparse
import contextlib
import io
import signal
import threading
import time

from .keeper import Keeper
from .own_limits import OwnLimits
from .place import Place, PlaceTaken
from .proc import hold_reserve
from .renewal import load_state
from .system import become_subreaper

_LAST_START_SECS = 2.0
_THREAD_RETRY_SECS = 0.1


class _Log(io.TextIOBase):
    """The keeper's log, its stderr: on a full disk a word is lost, not the keeper."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            os.write(2, text.encode(errors="backslashreplace"))
        return len(text)


def main() -> int:
    """Run a keeper; return its exit code."""
    parser = argparse.ArgumentParser(prog="keeper")
    parser.add_argument("--socket", required=True)
    parser.add_argument("--instance", required=True)
    parser.add_argument("--build", default="", help="tells one state of this code from another")
    parser.add_argument("--agent-nofile", type=int)
    parser.add_argument("--resume", type=int, metavar="FD", help="the state of the one before")
    parser.add_argument("--check", type=int, metavar="FD", help="whether it could be resumed")
    arguments = parser.parse_args()
    os.umask(0o077)
    sys.stderr = _Log()
    state_fd = arguments.resume if arguments.check is None else arguments.check
    state = None if state_fd is None else load_state(state_fd)
    try:
        place = (
            Place.take(arguments.socket)
            if state is None
            else Place.taken(arguments.socket, state["listener_fd"], state["lock_fd"])
        )
    except (PlaceTaken, OSError) as error:
        print(f"the keeper does not start: {error}", file=sys.stderr)
        return 1
    keeper = Keeper(
        place,
        instance=arguments.instance if state is None else state["instance"],
        build=arguments.build,
        own_limits=OwnLimits.raised(arguments.agent_nofile)
        if state is None
        else OwnLimits(**state["own_limits"]),
    )
    if state is not None:
        keeper.restore(state)
    if arguments.check is not None:
        return 0
    signals_fd = _take_signals()
    become_subreaper()
    hold_reserve()
    try:
        return _run(keeper, signals_fd, place)
    finally:
        place.leave()


def _run(keeper: Keeper, signals_fd: int, place: Place) -> int:
    """Run a keeper in a thread, and start its agents in this one, the first of the process."""
    launcher = keeper.agents.launcher
    has_failed = True
    is_over = threading.Event()

    def run() -> None:
        nonlocal has_failed
        try:
            keeper.run(signals_fd)
            has_failed = False
        finally:
            launcher.close()
            if not is_over.wait(_LAST_START_SECS):
                # A program hangs in its exec, and the other thread with it.
                place.leave()
                os._exit(int(has_failed))

    thread = threading.Thread(target=run, name="keeper")
    while True:
        try:
            thread.start()
            break
        except RuntimeError:
            # Its agents may have all the threads that this user, or this group, may have.
            if not keeper.has_agents:
                raise
            time.sleep(_THREAD_RETRY_SECS)
    _say_ready()
    # They are the other's; this one's mask goes through an exec, after which none may be lost.
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    launcher.work()
    is_over.set()
    thread.join()
    return int(has_failed)


def _take_signals() -> int:
    """Let signals come through a descriptor, and let agents begin with every default.

    An ignored signal stays ignored through exec, a handler does not: what is ignored here
    gets a handler that does nothing. A mask is inherited too.
    """
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    for signum in (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, _ignore)
    for signum in signal.valid_signals():
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, _ignore)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return read_end


def _ignore(*_: object) -> None:
    pass


def _say_ready() -> None:
    """Say so on stdout, and point it and stdin at nothing: who started the keeper may be gone."""
    with contextlib.suppress(BrokenPipeError):
        os.write(1, b"ready\n")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)


if __name__ == "__main__":
    sys.exit(main())
