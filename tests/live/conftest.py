"""Fixtures of the live tests: the command line with a server of its own, a bare keeper."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import COMMAND, SERVER_TOML, CommandLine, clean_environment
from live.raw_keeper import RawKeeper, raw_keeper


@pytest.fixture
def cli() -> Iterator[CommandLine]:
    """The command line, with a server of its own that ends with the test."""
    with tempfile.TemporaryDirectory(prefix="dfast-") as folder:
        config = Path(folder) / "config.toml"
        config.write_text(SERVER_TOML.format(folder=folder))
        server = subprocess.Popen(
            [*COMMAND, "serve", "--config", str(config)],
            stdout=subprocess.PIPE,
            env=clean_environment(),
        )
        with server:
            assert server.stdout is not None
            lines = [server.stdout.readline().decode() for _ in range(3)]
            assert all(lines), "the server has not started; its words are on stderr"
            facts = dict(line.split() for line in lines)
            yield CommandLine(facts["endpoint"], Path(folder))
            server.terminate()
            assert server.wait(timeout=20) == 0


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[RawKeeper]:
    """A keeper without a server, which ends with the test and all that it has."""
    with raw_keeper(tmp_path) as keeper:
        yield keeper
