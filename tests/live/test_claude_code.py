"""The real ``claude`` command, spawned and followed through the server.

The provider is a stand-in on loopback; everything else is the tool as users have it.
``DESCARTES_FAST_TEST_CLAUDE`` names a ``claude`` to use, else npm installs one into pytest's cache.
Where npm cannot, these tests are skipped; with ``DESCARTES_FAST_REQUIRE_CLAUDE`` they fail.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from descartes_fast import AgentConfig, AgentId, AgentStatus, BackendConfig, ZmqClient, connect
from live.messages_api import NO_ANSWER, MessagesApi, text, tool_use

if TYPE_CHECKING:
    from conftest import StartServer

# The first test may have to wait for npm.
pytestmark = [pytest.mark.timeout(300)]

PACKAGE = "@anthropic-ai/claude-code@2"


@pytest.fixture(scope="session")
def claude(pytestconfig: pytest.Config) -> Path:
    """The ``claude`` command."""
    if given := os.environ.get("DESCARTES_FAST_TEST_CLAUDE"):
        return Path(given)
    assert pytestconfig.cache is not None
    command = pytestconfig.cache.mkdir("claude-code") / "node_modules" / ".bin" / "claude"
    if not _works(command) and (reason := _install(command)):
        if os.environ.get("DESCARTES_FAST_REQUIRE_CLAUDE"):
            pytest.fail(reason)
        pytest.skip(reason)
    return command


def _install(command: Path) -> str | None:
    """Install Claude Code so that it is ``command``; return why not, if that fails."""
    npm = shutil.which("npm")
    if npm is None:
        return "there is no npm to install Claude Code with"
    folder = command.parents[2]
    options = ["--prefix", str(folder), "--no-audit", "--no-fund", "--fetch-retries=1", PACKAGE]
    options += ["--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=1000"]
    if reason := _failure([npm, "install", *options], folder, timeout=240):
        return f"npm could not install Claude Code: {reason}"
    if not _works(command):
        # An npm that runs no install scripts leaves out the step that puts the binary in place.
        package = folder / "node_modules" / "@anthropic-ai" / "claude-code"
        if reason := _failure(["node", "install.cjs"], package, timeout=60):
            return f"Claude Code could not be installed: {reason}"
    return None if _works(command) else f"{command} --version fails"


def _failure(argv: list[str], folder: Path, *, timeout: float) -> str | None:
    """Run a command; return what it says first if it fails, or what else went wrong."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, cwd=folder
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = (done.stderr or done.stdout).decode(errors="replace").splitlines()
    errors = [line for line in said if line.startswith(("npm error", "npm ERR!"))]
    return None if done.returncode == 0 else (errors or said or [f"exit {done.returncode}"])[0]


def _works(command: Path) -> bool:
    try:
        return subprocess.run([command, "--version"], capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.fixture
def workshop(claude: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment with ``claude`` on the path and a home of its own; the working directory."""
    for folder in ("home", "work"):
        (tmp_path / folder).mkdir()
    for name in list(os.environ):
        if name.startswith(("ANTHROPIC_", "CLAUDE")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{claude.absolute().parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test")
    monkeypatch.setenv("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
    monkeypatch.setenv("DISABLE_AUTOUPDATER", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "work"


async def follow(client: ZmqClient, agent: AgentId) -> list[dict[str, Any]]:
    """Return what the agent said on its stdout, to the end, a JSON object a line."""
    output = bytearray()
    async with await client.stream_agent_logs(agent, from_offset=0) as logs:
        async for message in logs:
            if message.stream_type == "stdout":
                output += message.data
    return [json.loads(line) for line in output.splitlines()]


def backends(workshop: Path) -> dict[str, BackendConfig]:
    return {"claude": BackendConfig(working_dir=str(workshop))}


async def test_claude_finishes_a_task(
    start_server: StartServer, workshop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with MessagesApi([text("There is nothing to do, so it is done.")]) as api:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", api.url)
        server = await start_server(backends=backends(workshop))
        async with connect(server.endpoint) as client:
            agent = await client.spawn_remote(
                AgentConfig(
                    name="coder",
                    model_backend="claude",
                    task="--help is not a flag here: do nothing.",
                    context="The project is empty.",
                    system_prompt="- Be brief.",
                    model="sonnet",
                    tool_level="readonly",
                    agents={"reviewer": {"description": "Reviews", "prompt": "Review."}},
                )
            )
            said = await follow(client, agent)
            ended = await client.wait_agent(agent, timeout_secs=30)
    assert (ended.exit_code, ended.status) == (0, AgentStatus.COMPLETED)
    assert (said[0]["type"], said[0]["subtype"]) == ("system", "init")
    assert sorted(said[0]["tools"]) == ["Glob", "Grep", "Read"]
    assert "reviewer" in said[0]["agents"]
    assert said[0]["cwd"] == str(workshop)
    assert said[-1]["type"] == "result"
    assert said[-1]["result"] == "There is nothing to do, so it is done."
    assert "sonnet" in api.requests[0]["model"]
    assert "- Be brief." in json.dumps(api.requests[0]["system"])
    heard = "The project is empty.\n\n--help is not a flag here: do nothing."
    assert json.dumps(heard) in json.dumps(api.requests[0]["messages"])
    assert api.headers[0]["x-api-key"] == "sk-test"


async def test_claude_uses_a_tool_its_level_allows(
    start_server: StartServer, workshop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = workshop / "note.txt"
    write = tool_use("Write", file_path=str(note), content="by a tool\n")
    async with MessagesApi([text("I write it."), write], [text("It is written.")]) as api:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", api.url)
        server = await start_server(backends=backends(workshop))
        async with connect(server.endpoint) as client:
            agent = await client.spawn_remote(
                AgentConfig(model_backend="claude", task="Write a note.", tool_level="minimal")
            )
            said = await follow(client, agent)
            ended = await client.wait_agent(agent, timeout_secs=30)
    assert ended.exit_code == 0
    assert note.read_text() == "by a tool\n"
    assert said[-1]["result"] == "It is written."


@pytest.mark.parametrize("level", ["readonly", "planner"])
async def test_claude_is_refused_a_tool_its_level_does_not_allow(
    start_server: StartServer, workshop: Path, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    note = workshop / "note.txt"
    write = tool_use("Write", file_path=str(note), content="by a tool\n")
    async with MessagesApi([write], [text("I may not.")]) as api:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", api.url)
        server = await start_server(backends=backends(workshop))
        async with connect(server.endpoint) as client:
            agent = await client.spawn_remote(
                AgentConfig(model_backend="claude", task="Write a note.", tool_level=level)
            )
            ended = await client.wait_agent(agent, timeout_secs=30)
    assert ended.exit_code == 0
    assert not note.exists()
    (result,) = api.requests[1]["messages"][-1]["content"]
    assert result["is_error"]


async def test_claude_waiting_for_its_provider_is_stopped(
    start_server: StartServer, workshop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with MessagesApi(NO_ANSWER) as api:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", api.url)
        server = await start_server(backends=backends(workshop))
        async with connect(server.endpoint) as client:
            agent = await client.spawn_remote(AgentConfig(model_backend="claude", task="Think."))
            await api.asked.wait()
            await client.stop_agent(agent)
            ended = await client.wait_agent(agent, timeout_secs=30)
    assert ended.status == AgentStatus.TERMINATED
