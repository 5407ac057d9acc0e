"""A server in a process of its own, for tests that freeze it, kill it or take its resources."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from command_line import COMMAND, SERVER_TOML, clean_environment


class ServerProcess:
    """A server that runs, and its endpoints."""

    def __init__(self, process: subprocess.Popen[bytes], endpoint: str, pub_endpoint: str) -> None:
        self.process = process
        self.endpoint = endpoint
        self.pub_endpoint = pub_endpoint


@contextmanager
def server_process(*wrapper: str, settings: str = "", tcp: bool = False) -> Iterator[ServerProcess]:
    """Run a server with the backend ``sh`` for the length of a block.

    ``wrapper`` is a command that executes the one behind it, ``settings`` are more lines of TOML
    for ``[zmq_server]``. A server that still runs at the end, or is frozen, is ended by SIGTERM.
    """
    with tempfile.TemporaryDirectory(prefix="dfast-") as folder:
        document = SERVER_TOML.format(folder=folder)
        document = document.replace("[zmq_server]", f"[zmq_server]\n{settings}", 1)
        if tcp:
            for name in ("commands", "events"):
                document = document.replace(f"ipc://{folder}/{name}", "tcp://127.0.0.1:0")
        config = Path(folder) / "config.toml"
        config.write_text(document)
        process = subprocess.Popen(
            [*wrapper, *COMMAND, "serve", "--config", str(config)],
            stdout=subprocess.PIPE,
            env=clean_environment(),
        )
        with process:
            assert process.stdout is not None
            lines = [process.stdout.readline().decode() for _ in range(3)]
            assert all(lines), "the server has not started; its words are on stderr"
            facts = dict(line.split() for line in lines)
            try:
                yield ServerProcess(process, facts["endpoint"], facts["pub_endpoint"])
            finally:
                process.send_signal(signal.SIGCONT)
                process.terminate()
                process.wait(timeout=20)
