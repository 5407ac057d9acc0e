"""Moves the output of all agents into their files, one chunk of each stream a turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .loop import READ, Loop
from .output_pipe import Outcome, OutputPipe

__all__ = ["Pump"]

_RETRY_SECS = 0.25
_LOOK_AGAIN_SECS = 1.0


@dataclass(slots=True)
class _Stream:
    pipe: OutputPipe
    grown: Callable[[], None]
    finished: Callable[[], None]
    step: Callable[[], None]
    watched: bool = False
    at_end: bool = False


class Pump:
    """Watches the pipes, and knows which of them wait for room or for the disk."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._streams: dict[OutputPipe, _Stream] = {}
        self._full: set[OutputPipe] = set()
        self._looks_again = False
        self._given_up: set[OutputPipe] = set()

    @property
    def waiting(self) -> int:
        """How many streams wait for room."""
        return len(self._full)

    def add(
        self, pipe: OutputPipe, grown: Callable[[], None], finished: Callable[[], None]
    ) -> None:
        """Move what ``pipe`` brings, from :meth:`watch` on; call ``grown`` after each chunk.

        ``finished`` is called once, after :meth:`finish`.
        """
        stream = _Stream(pipe, grown, finished, lambda: self._step(stream))
        stream.at_end = pipe.fd < 0  # the pipe's end was lost with an earlier keeper
        self._streams[pipe] = stream

    def watch(self, pipe: OutputPipe) -> None:
        """Move what comes when it comes, if it is not being finished. Raises ``OSError``."""
        stream = self._streams[pipe]
        if not stream.at_end and not pipe.finishing:
            self._watch(stream)

    def finish(self, pipe: OutputPipe) -> None:
        """Move what is left (nobody of the agent is left to write more), then call back."""
        pipe.finishing = True
        self._step(self._streams[pipe])

    def give_up(self, pipe: OutputPipe) -> None:
        """Let a disk that takes no more hold up the end of ``pipe`` no longer."""
        if pipe in self._streams:
            self._given_up.add(pipe)

    def remove(self, pipe: OutputPipe) -> None:
        """Move nothing more of ``pipe``, and close it."""
        stream = self._streams.pop(pipe, None)
        if stream is not None:
            self._unwatch(stream)
        self._full.discard(pipe)
        self._given_up.discard(pipe)
        pipe.close()

    def make_room(self) -> None:
        """Limits or what was released have changed: let the streams that wait look again."""
        for pipe in list(self._full):
            # What one step sets off may have served, or removed, those after it.
            if pipe in self._full:
                self._full.discard(pipe)
                self._step(self._streams[pipe])

    def _step(self, stream: _Stream) -> None:
        pipe = stream.pipe
        if pipe not in self._streams:
            return
        outcome = Outcome.END if stream.at_end else pipe.move()
        if outcome is Outcome.MOVED:
            stream.grown()
            if pipe.finishing:
                self._loop.call_soon(stream.step)
            else:
                self._watch(stream)
        elif outcome is Outcome.EMPTY:
            if pipe.finishing:
                self._finished(stream)
            else:
                self._watch(stream)
        elif outcome is Outcome.END:
            stream.at_end = True
            self._unwatch(stream)
            if pipe.finishing:
                self._finished(stream)
        elif outcome is Outcome.FULL:
            self._unwatch(stream)
            self._full.add(pipe)
            self._look_again_later()
        elif pipe.finishing and pipe in self._given_up:
            self._finished(stream)
        else:
            self._unwatch(stream)
            self._loop.call_later(_RETRY_SECS, stream.step)

    def _look_again_later(self) -> None:
        """Look again now and then too: a full disk can keep a stream from being trimmed."""
        if not self._looks_again:
            self._looks_again = True
            self._loop.call_later(_LOOK_AGAIN_SECS, self._look_again)

    def _look_again(self) -> None:
        self._looks_again = False
        self.make_room()

    def _finished(self, stream: _Stream) -> None:
        self.remove(stream.pipe)
        stream.finished()

    def _watch(self, stream: _Stream) -> None:
        if not stream.watched:
            self._loop.watch(stream.pipe.fd, READ, stream.step)
            stream.watched = True

    def _unwatch(self, stream: _Stream) -> None:
        if stream.watched:
            self._loop.unwatch(stream.pipe.fd)
            stream.watched = False
