"""Every Python example of the README and of the documents, run as it stands.

Each runs in a process of its own against real servers that listen where the example says,
except that their ports are free ones. The second server is started with the README's words.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import COMMAND, CommandLine, clean_environment

_ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_README = _ROOT / "README.md"
_SECOND_SERVER = re.compile(r"^<!-- second server -->\n```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FIRST, _SECOND = "tcp://127.0.0.1:5555", "tcp://127.0.0.1:5565"


def _examples() -> list[object]:
    found = []
    for path in (_README, _ROOT / "docs" / "protocol.md"):
        text = path.read_text()
        for block in _BLOCK.finditer(text):
            heading = re.findall(r"^#+ (.*)$", text[: block.start()], re.MULTILINE)[-1]
            found.append(pytest.param(block[1], id=f"{path.stem}: {heading}"))
    return found


@pytest.fixture
def second(cli: CommandLine) -> Iterator[str]:
    """The endpoint of the README's second server, on a free port."""
    (command,) = _SECOND_SERVER.findall(_README.read_text())
    words = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:0", command).split()
    assert words[:2] == ["descartes-fast", "serve"]
    # Its own folder, with the backend of the first server's configuration.
    backends = tomllib.loads((cli.folder / "config.toml").read_text())["backends"]
    (cli.folder / "server.toml").write_text(
        "[backends.sh]\n"
        + "".join(f"{name} = {json.dumps(value)}\n" for name, value in backends["sh"].items())
    )
    words = [word for word in words[2:] if word != "\\"]
    server = subprocess.Popen(
        [*COMMAND, "serve", "--json", *words],
        stdout=subprocess.PIPE,
        env=clean_environment(),
        cwd=cli.folder,
    )
    with server:
        assert server.stdout is not None
        yield json.loads(server.stdout.readline())["endpoint"]
        server.terminate()
        assert server.wait(timeout=20) == 0


@pytest.mark.parametrize("example", _examples())
def test_example_runs(example: str, cli: CommandLine, request: pytest.FixtureRequest) -> None:
    program = example.replace(_FIRST, cli.endpoint)
    if _SECOND in program:
        program = program.replace(_SECOND, request.getfixturevalue("second"))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=clean_environment(),
        timeout=40,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout
    assert done.stderr == b""


def test_the_examples_are_short() -> None:
    for parameter in _examples():
        (example,) = parameter.values  # type: ignore[attr-defined]
        body = re.sub(
            r"^(import|from) .*\n|^\n|^ *asyncio\.run.*\n", "", example, flags=re.MULTILINE
        )
        assert len(body.splitlines()) <= 12, example
