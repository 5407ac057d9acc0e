"""Backends against hostile clients: no flag, no NUL, no way out, no variable that is not theirs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from descartes_fast import (
    AccessDenied,
    BackendConfig,
    InvalidContext,
    Unsupported,
    UsageError,
)
from descartes_fast.server.exec_limits import total_limit_bytes
from unit.backend_configs import AGENT_ID, SERVERS_ENVIRONMENT, plan, plan_tool, tool

FREE = {"claude": BackendConfig(client_environment=("*",))}


@pytest.mark.parametrize("field", ["task", "model", "name", "system_prompt", "context"])
def test_word_of_a_client_that_would_be_a_flag_is_refused(field: str) -> None:
    tables = tool("tool", f"{{{field}}}")
    with pytest.raises(InvalidContext, match=f"no {field} that begins with '-'"):
        plan_tool(tables, **{field: "--dangerously-skip-permissions"})
    assert plan_tool(tables, **{field: "x -y"}).argv == ("tool", "x -y")


@pytest.mark.parametrize("field", ["task", "model", "name", "system_prompt", "context"])
def test_word_of_a_client_behind_two_dashes_may_begin_with_a_dash(field: str) -> None:
    assert plan_tool(tool("tool", "--", f"{{{field}}}"), **{field: "-x"}).argv[-1] == "-x"
    assert plan_tool(tool("tool", f"--f={{{field}}}"), **{field: "-x"}).argv[-1] == "--f=-x"


def test_two_dashes_from_a_client_end_no_flags() -> None:
    tables = tool("tool", "-{name}", "{task}")
    with pytest.raises(InvalidContext, match="begins with '-'"):
        plan_tool(tables, name="-", task="-x")
    levels = tool("tool", "{tool_level}", "{task}", tool_levels={"a": ("--",)})
    with pytest.raises(InvalidContext, match="begins with '-'"):
        plan_tool(levels, tool_level="a", task="-x")


@pytest.mark.parametrize(
    "field",
    ["name", "model_backend", "task", "context", "system_prompt", "model", "tool_level"],
)
def test_nul_is_refused_in_every_field(field: str) -> None:
    with pytest.raises(InvalidContext, match=f"{field} holds a NUL"):
        plan(**{field: "a\0b"})


def test_nul_is_refused_in_the_environment() -> None:
    with pytest.raises(InvalidContext, match="AGENT_X holds a NUL"):
        plan(environment={"AGENT_X": "a\0b"})


def test_nul_in_agents_is_escaped() -> None:
    assert not any("\0" in word for word in plan(agents={"a\0": {"prompt": "\0"}}).argv)


@pytest.mark.parametrize(
    "name",
    ["..", "../x", "a/../b", "a\nb", "\x1b[31mred", "a\rb", "a\u202eb", "\u2028", "x" * 257],
)
def test_name_that_deceives_is_refused(name: str) -> None:
    with pytest.raises(InvalidContext, match="name"):
        plan(name=name)


@pytest.mark.parametrize("name", ["", "w", "team/worker 1", "dots..inside", "-x", "é😀", "x" * 256])
def test_name_of_any_ordinary_form_is_taken(name: str) -> None:
    assert plan(name=name).environment["DESCARTES_AGENT_NAME"] == name


@pytest.mark.parametrize("backend", ["", "nope", "../claude", "CLAUDE", "x" * 10_000, "claude "])
def test_backend_unknown_is_refused_with_the_names_there_are(backend: str) -> None:
    with pytest.raises(InvalidContext, match="enabled: claude, claude-code-cli, codex") as caught:
        plan(model_backend=backend)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "ANTHROPIC_BASE_URL",
        "ANTHROPIC_API_KEY",
        "NODE_OPTIONS",
        "BASH_ENV",
        "PYTHONPATH",
        "HTTPS_PROXY",
        "HOME",
        "DESCARTES_AGENT_ID",
        "DESCARTES_FAST_AGENT",
    ],
)
def test_variable_no_client_may_set_is_denied(name: str) -> None:
    with pytest.raises(AccessDenied, match=f"lets no client set {name}"):
        plan(environment={name: "x"})


def test_variable_the_backend_lists_may_be_set() -> None:
    tables = {"claude": BackendConfig(client_environment=("ANTHROPIC_BASE_URL", "MY_*"))}
    made = plan(tables, environment={"ANTHROPIC_BASE_URL": "http://x", "MY_THING": "1"})
    assert made.environment["ANTHROPIC_BASE_URL"] == "http://x"
    assert made.environment["MY_THING"] == "1"
    with pytest.raises(AccessDenied, match=r"it may set: ANTHROPIC_BASE_URL, MY_\*"):
        plan(tables, environment={"AGENT_X": "1"})


def test_variable_that_names_the_agent_is_never_a_clients() -> None:
    assert plan(FREE, environment={"PATH": "/x"}).environment["PATH"] == "/x"
    for name in ("DESCARTES_AGENT_ID", "DESCARTES_AGENT_NAME", "DESCARTES_FAST_AGENT"):
        with pytest.raises(AccessDenied):
            plan(FREE, environment={name: "x"})


@pytest.mark.parametrize(
    "name", ["", "=", "A=B", "1A", "A B", "A\0", "BASH_FUNC_x%%", "É", "A" * 300]
)
def test_variable_with_an_impossible_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidContext, match="not the name of an environment variable"):
        plan(FREE, environment={name: "x"})


def test_environment_is_chosen_not_inherited() -> None:
    environment = plan().environment
    assert environment == {
        "PATH": SERVERS_ENVIRONMENT["PATH"],
        "HOME": SERVERS_ENVIRONMENT["HOME"],
        "LC_ALL": SERVERS_ENVIRONMENT["LC_ALL"],
        "ANTHROPIC_API_KEY": SERVERS_ENVIRONMENT["ANTHROPIC_API_KEY"],
        "DESCARTES_AGENT_ID": str(AGENT_ID),
        "DESCARTES_AGENT_NAME": "worker",
    }
    assert "ANTHROPIC_API_KEY" not in plan(model_backend="codex").environment


def test_environment_that_is_fixed_gives_way_only_to_what_a_client_may_set() -> None:
    tables = tool(
        "tool",
        environment=("DATABASE_*",),
        set_environment={"HOME": "/srv", "AGENT_X": "default"},
    )
    assert plan_tool(tables).environment["HOME"] == "/srv"
    assert plan_tool(tables).environment["DATABASE_PASSWORD"] == "nobody's business"
    assert plan_tool(tables).environment["AGENT_X"] == "default"
    assert plan_tool(tables, environment={"AGENT_X": "mine"}).environment["AGENT_X"] == "mine"


def test_environment_variable_over_the_systems_limit_is_refused() -> None:
    room = 131_071 - len("AGENT_X=")
    plan(environment={"AGENT_X": "x" * room})
    with pytest.raises(InvalidContext, match="AGENT_X has 131072 bytes"):
        plan(environment={"AGENT_X": "x" * (room + 1)})
    with pytest.raises(InvalidContext, match="AGENT_CONTEXT"):
        plan(context="x" * 200_000)


def test_environment_over_the_systems_limit_as_a_whole_is_refused() -> None:
    count = total_limit_bytes() // 100_000 + 1
    with pytest.raises(InvalidContext, match="bytes together"):
        plan(environment={f"AGENT_{number}": "x" * 100_000 for number in range(count)})


def test_environment_of_many_small_variables_counts_their_pointers() -> None:
    count = total_limit_bytes() // (len("AGENT_000000=") + 9) + 1
    with pytest.raises(InvalidContext, match="bytes together"):
        plan(environment={f"AGENT_{number:06}": "" for number in range(count)})


def test_arguments_over_the_systems_limit_as_a_whole_are_refused() -> None:
    words = ["echo", *["x" * 100_000] * (total_limit_bytes() // 100_000 + 1)]
    with pytest.raises(InvalidContext, match="bytes together"):
        plan(tool("tool", "{argv}"), model_backend="tool", task=json.dumps(words))


def test_argument_over_the_systems_limit_is_refused() -> None:
    with pytest.raises(InvalidContext, match="argument 4 has"):
        plan(agents={"a": "x" * 131_072})


def test_directory_below_the_backends_own_may_be_chosen(tmp_path: Path) -> None:
    tables = tool("tool", working_dir=str(tmp_path))
    assert plan(tables, model_backend="tool").cwd == str(tmp_path)
    for wanted in ("a/b", str(tmp_path / "a/b")):
        made = plan(tables, {"working_dir": wanted}, model_backend="tool")
        assert made.cwd == str(tmp_path / "a/b")


@pytest.mark.parametrize("wanted", ["..", "a/../../b", "a\0", "../" * 10, "x" * 5000])
def test_directory_that_is_no_plain_path_is_refused(tmp_path: Path, wanted: str) -> None:
    tables = tool("tool", working_dir=str(tmp_path))
    with pytest.raises(InvalidContext, match="not a plain path"):
        plan(tables, {"working_dir": wanted}, model_backend="tool")


def test_directory_outside_is_denied_also_through_a_link(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "inside-too").mkdir()
    (inside / "out").symlink_to(tmp_path)
    tables = tool("tool", working_dir=str(inside))
    for wanted in ("/", "/etc", str(tmp_path / "inside-too"), "out", "out/inside-too"):
        with pytest.raises(AccessDenied, match="outside"):
            plan(tables, {"working_dir": wanted}, model_backend="tool")


def test_directory_is_the_operators_where_the_backend_has_none() -> None:
    with pytest.raises(AccessDenied, match="lets no client choose"):
        plan(metadata={"working_dir": "a"})
    assert plan(metadata={"priority": "high"}).cwd is None


def test_model_for_a_backend_without_one_is_refused() -> None:
    with pytest.raises(Unsupported, match="choose the model"):
        plan_tool(tool("tool"), model="m")


def test_plan_does_not_print_the_task() -> None:
    assert "secret" not in repr(plan(task="secret"))


def test_patterns_with_a_star_inside_are_refused() -> None:
    with pytest.raises(UsageError):
        plan(tool("tool", environment=("A*B",)))
