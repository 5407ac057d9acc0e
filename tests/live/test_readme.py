"""Every Python example of the README and of the documents, run as it stands.

Each runs in a process of its own against real servers that listen where the example says,
except that their ports are free ones.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import CommandLine, clean_environment

_ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ENDPOINT = re.compile(r"tcp://127\.0\.0\.1:55\d5")


def _examples() -> list[object]:
    found = []
    for path in (_ROOT / "README.md", _ROOT / "docs" / "protocol.md"):
        text = path.read_text()
        for block in _BLOCK.finditer(text):
            heading = re.findall(r"^#+ (.*)$", text[: block.start()], re.MULTILINE)[-1]
            found.append(pytest.param(block[1], id=f"{path.stem}: {heading}"))
    return found


@pytest.mark.parametrize("example", _examples())
def test_example_runs(example: str, cli: CommandLine) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _ENDPOINT.sub(cli.endpoint, example)],
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
        body = re.sub(r"^(import|from) .*\n|^\n|^asyncio\.run.*\n", "", example, flags=re.MULTILINE)
        assert len(body.splitlines()) <= 18, example
