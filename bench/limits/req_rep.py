"""pyzmq's own blocking REQ/REP echo over TCP: a lone round trip without a loop or a codec."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import zmq

from ..driver import Round, drive, percentiles


def echo() -> None:
    """The other side: send back what comes, or as many bytes as the first word asks for."""
    with zmq.Context() as context, context.socket(zmq.REP) as socket:
        print(socket.bind_to_random_port("tcp://127.0.0.1"), flush=True)
        answer = b""
        while True:
            request = socket.recv()
            if request[:1] == b"#":
                answer = bytes(int(request[1:]))
                request = b""
            socket.send(answer or request)


@contextmanager
def round_trips() -> Iterator[Round]:
    command = [sys.executable, "-m", "bench.limits.req_rep", "echo"]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server,
        zmq.Context() as context,
        context.socket(zmq.REQ) as socket,
    ):
        assert server.stdout is not None
        socket.connect(f"tcp://127.0.0.1:{server.stdout.readline().strip()}")

        def one_round(
            *,
            count: int = 1,
            size: int = 120,
            answer: int = 0,
            pause_secs: float = 0.0,
            **_: Any,
        ) -> dict[str, Any]:
            socket.send(b"#%d" % answer)
            socket.recv()
            request = bytes(size)
            took: list[float] = []
            clock = time.perf_counter
            begun = clock()
            while len(took) < count:
                sent = clock()
                socket.send(request)
                socket.recv()
                took.append(clock() - sent)
                if pause_secs:
                    time.sleep(pause_secs)
            secs = clock() - begun
            return {
                "rate": len(took) / secs,
                "done": len(took),
                "ms": sum(took) / len(took) * 1e3,
                **percentiles(took),
            }

        try:
            yield one_round
        finally:
            server.terminate()


if __name__ == "__main__":
    if sys.argv[1:] == ["echo"]:
        echo()
    else:
        drive(round_trips)
