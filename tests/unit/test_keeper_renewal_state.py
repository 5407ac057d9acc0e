"""The state of a keeper of an earlier build, as this one takes it over."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from descartes_fast.server.keeper.output_files import OpenFiles
from descartes_fast.server.keeper.output_pipe import Budget, Outcome, OutputPipe
from descartes_fast.server.keeper.renewal import load_state


def state_fd(state: dict[str, Any]) -> int:
    fd = os.memfd_create("state")
    os.write(fd, json.dumps(state).encode())
    return fd


def test_streams_of_a_build_that_had_their_files_open_go_on(tmp_path: Path) -> None:
    path = tmp_path / "stdout"
    path.write_bytes(b"before")
    file_fd = os.open(path, os.O_WRONLY)
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    common = {"path": str(path), "limit_bytes": 1000, "policy": "trim", "released": 0}
    common |= {"refused": {"base64": ""}}
    running = {**common, "fd": read_end, "file_fd": file_fd, "start": 0, "end": 6}
    finished = {**common, "fd": -1, "file_fd": -1, "start": 0, "end": 9}
    agent = {"stdout": running, "stderr": finished}
    state = load_state(state_fd({"version": 2, "agents": [agent]}))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file_fd)
    budget, files = Budget(), OpenFiles()
    pipes = [OutputPipe.restored(stream, budget, files) for stream in state["agents"][0].values()]
    assert budget.kept_bytes == 6
    os.write(write_end, b" after")
    assert pipes[0].move() is Outcome.MOVED
    assert path.read_bytes() == b"before after"
    for pipe in pipes:
        pipe.close()
    os.close(write_end)
    assert budget.kept_bytes == 0


def test_state_of_a_later_build_is_refused() -> None:
    with pytest.raises(ValueError, match="version 4"):
        load_state(state_fd({"version": 4, "agents": []}))
