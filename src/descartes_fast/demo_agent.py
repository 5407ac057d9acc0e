"""A small agent to try things with: works in steps, listens to stdin, says goodbye.

Standard library only, and no import of this package: run by its path with
``python -I -S`` it is there in some 20 ms.

    python -m descartes_fast.demo_agent --steps 5 --interval 0.2 "Count the stars"

It prints a line for each step, and ``heard: ...`` for each line of its stdin (``quit`` ends
it). At the end of its steps it exits with ``--exit-code``; SIGTERM and SIGINT end it at
once, in order, with a last line and code 0.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import selectors
import signal
import sys
import time
from collections.abc import Sequence

_NOTICES = {signal.SIGTERM: "goodbye", signal.SIGINT: "interrupted"}


class _Asked(Exception):
    """Somebody asked the agent to end; the text is its last word."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the agent; return its exit code."""
    options = _parser().parse_args(argv)
    task = " ".join(options.task) or os.environ.get("AGENT_CONTEXT", "")
    name = os.environ.get("DESCARTES_AGENT_NAME") or "demo"
    for number in _NOTICES:
        signal.signal(number, _ask_to_end)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        _say(f"{name}: started" + (f": {task}" if task else ""))
        _work(name, options.steps, options.interval)
    except _Asked as asked:
        # Nothing may interrupt the last word.
        for number in _NOTICES:
            signal.signal(number, signal.SIG_IGN)
        _say(f"{name}: {asked}")
        return 0
    if options.exit_code:
        print(f"{name}: failed, as asked", file=sys.stderr, flush=True)
    else:
        _say(f"{name}: done")
    return int(options.exit_code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="demo_agent", description="A small agent that works in steps and listens to stdin."
    )
    parser.add_argument("--steps", type=int, default=10, help="how many; 0: until it is stopped")
    parser.add_argument("--interval", type=float, default=0.5, help="seconds between two steps")
    parser.add_argument("--exit-code", type=int, default=0, help="what to end with")
    parser.add_argument("task", nargs="*", help="said in the first line")
    return parser


def _work(name: str, steps: int, interval: float) -> None:
    """Take the steps, and hear what stdin says between them."""
    with selectors.DefaultSelector() as selector:
        _listen(selector)
        heard = b""
        step = 0
        due = time.monotonic() + interval
        while steps == 0 or step < steps:
            if selector.select(max(0.0, due - time.monotonic())):
                data = os.read(0, 65536)
                if not data:
                    selector.unregister(0)
                *lines, heard = (heard + data).split(b"\n")
                for line in lines:
                    _hear(line.decode(errors="replace"))
            if time.monotonic() >= due:
                step += 1
                due += interval
                _say(f"{name}: step {step}" + (f" of {steps}" if steps else ""))


def _listen(selector: selectors.BaseSelector) -> None:
    """Wait for stdin too, unless it is closed, a file or ``/dev/null``: epoll refuses those."""
    with contextlib.suppress(OSError, ValueError):
        selector.register(0, selectors.EVENT_READ)


def _hear(line: str) -> None:
    if line.strip() == "quit":
        raise _Asked("goodbye")
    _say(f"heard: {line}")


def _ask_to_end(number: int, frame: object) -> None:
    raise _Asked(_NOTICES[signal.Signals(number)])


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
