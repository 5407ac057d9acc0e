"""The built-in backends: what reaches each tool, and what each refuses."""

from __future__ import annotations

import json
import tomllib

import pytest

from descartes_fast import BackendConfig, InvalidContext, Unsupported
from unit.backend_configs import plan

TOOLS = ("claude", "claude-code-cli", "codex", "gemini", "opencode")


@pytest.mark.parametrize("backend", TOOLS)
def test_builtin_task_goes_by_stdin_which_is_then_closed(backend: str) -> None:
    made = plan(model_backend=backend, task="--help\n'; rm -rf /")
    assert made.stdin_data == b"--help\n'; rm -rf /"
    assert made.stdin == "close-after-task"
    assert not any("rm -rf" in word for word in made.argv)


@pytest.mark.parametrize("backend", TOOLS)
def test_builtin_without_a_task_is_refused(backend: str) -> None:
    for task in ("", " \n"):
        with pytest.raises(InvalidContext, match="needs a task"):
            plan(model_backend=backend, task=task)


@pytest.mark.parametrize("backend", TOOLS)
def test_builtin_takes_ten_megabytes_of_task(backend: str) -> None:
    assert len(plan(model_backend=backend, task="x" * 10_000_000).stdin_data) == 10_000_000


@pytest.mark.parametrize("backend", TOOLS)
def test_builtin_model_is_part_of_its_flag(backend: str) -> None:
    assert "--model=-x" in plan(model_backend=backend, model="-x").argv
    assert not any(word.startswith("--model") for word in plan(model_backend=backend).argv)


@pytest.mark.parametrize("backend", TOOLS)
def test_builtin_context_and_prompt_are_in_the_environment(backend: str) -> None:
    made = plan(model_backend=backend, context="the context", system_prompt="the prompt")
    assert made.environment["AGENT_CONTEXT"] == "the context"
    assert made.environment["AGENT_SYSTEM_PROMPT"] == "the prompt"
    assert "AGENT_CONTEXT" not in plan(model_backend=backend).environment


@pytest.mark.parametrize("backend", TOOLS)
def test_builtin_context_and_prompt_reach_the_tool(backend: str) -> None:
    made = plan(model_backend=backend, context="the context", system_prompt="the prompt")
    heard = made.stdin_data.decode() + " ".join(made.argv)
    assert heard.count("the context") == 1
    assert heard.count("the prompt") == 1
    assert made.stdin_data.endswith(b"\n\ndo it")


def test_claude_runs_in_print_mode_with_streamed_json() -> None:
    assert plan().argv == ("claude", "--print", "--output-format=stream-json", "--verbose")


def test_claude_system_prompt_may_begin_with_a_dash() -> None:
    assert "--append-system-prompt=- be brief" in plan(system_prompt="- be brief").argv


def test_claude_agents_are_json() -> None:
    agents = {"reviewer": {"description": "reviews", "prompt": "é", "tools": ["Read", "Grep"]}}
    (word,) = (word for word in plan(agents=agents).argv if word.startswith("--agents="))
    assert json.loads(word.removeprefix("--agents=")) == agents


@pytest.mark.parametrize("backend", ["codex", "gemini", "opencode"])
def test_tools_without_sub_agents_refuse_them(backend: str) -> None:
    with pytest.raises(Unsupported, match="no sub-agents"):
        plan(model_backend=backend, agents={"a": {}})
    plan(model_backend=backend, agents={})


def test_codex_reads_the_system_prompt_as_toml() -> None:
    prompt = 'Say "yes"\nmodel = "other"'
    argv = plan(model_backend="codex", system_prompt=prompt).argv
    (word,) = (word for word in argv if word.startswith("--config="))
    assert tomllib.loads(word.removeprefix("--config=")) == {"developer_instructions": prompt}


@pytest.mark.parametrize("level", ["readonly", "read-only", "read_only", "ReadOnly"])
def test_tool_level_is_known_in_all_its_spellings(level: str) -> None:
    assert plan(tool_level=level).argv[-2:] == (
        "--tools=Read,Grep,Glob",
        "--permission-mode=dontAsk",
    )


@pytest.mark.parametrize("level", ["readonly", "researcher", "planner"])
def test_tool_level_that_reads_gets_no_shell_and_no_edits(level: str) -> None:
    words = {
        backend: " ".join(plan(model_backend=backend, tool_level=level).argv)
        for backend in ("claude", "codex", "gemini", "opencode")
    }
    assert "Bash" not in words["claude"]
    assert "--sandbox=read-only" in words["codex"]
    assert "--approval-mode=plan" in words["gemini"]
    assert "--agent=plan" in words["opencode"]


def test_tool_level_a_tool_cannot_be_held_to_is_refused() -> None:
    with pytest.raises(Unsupported, match="it has: orchestrator, planner, readonly, researcher"):
        plan(model_backend="opencode", tool_level="minimal")
    with pytest.raises(Unsupported, match="no tool level 'lisp-developer'"):
        plan(tool_level="lisp-developer")


def test_argv_is_off_until_the_server_enables_it() -> None:
    with pytest.raises(InvalidContext, match="not known or not enabled"):
        plan(model_backend="argv", task="ls")


ARGV = {"argv": BackendConfig(enabled=True)}


@pytest.mark.parametrize(
    ("task", "argv"),
    [
        ("ls -la 'a b' $HOME;", ("ls", "-la", "a b", "$HOME;")),
        ('["ls", "-la", "a b", ""]', ("ls", "-la", "a b", "")),
        (' ["[", "-e", "x", "]"]', ("[", "-e", "x", "]")),
    ],
)
def test_argv_is_a_json_array_or_quoted_words(task: str, argv: tuple[str, ...]) -> None:
    made = plan(ARGV, model_backend="argv", task=task)
    assert made.argv == argv
    assert made.stdin == "pipe"


@pytest.mark.parametrize(
    "task",
    [
        "",
        "  ",
        "[]",
        "[1]",
        '[""]',
        "''",
        '["a", "\\u0000"]',
        "'open",
        "[" * 10_000,
        "-n x",
        "[-n]",
    ],
)
def test_argv_that_names_no_program_is_refused(task: str) -> None:
    with pytest.raises(InvalidContext):
        plan(ARGV, model_backend="argv", task=task)


def test_argv_behind_a_wrapper_may_hold_flags_of_its_own_only() -> None:
    tables = {"boxed": BackendConfig(command=("nice", "-n", "5", "{argv}"))}
    assert plan(tables, model_backend="boxed", task="ls -l").argv == ("nice", "-n", "5", "ls", "-l")
    with pytest.raises(InvalidContext, match="begins with '-'"):
        plan(tables, model_backend="boxed", task="-n -20 ls")
