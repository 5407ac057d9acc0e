"""Command templates: what a table of the configuration may say, and what comes of it."""

from __future__ import annotations

import tomllib

import pytest

from descartes_fast import BackendConfig, InvalidContext, Unsupported, UsageError
from descartes_fast.server.backends import Backends
from unit.backend_configs import plan, plan_tool, tool


def test_template_fills_placeholders_inside_words() -> None:
    made = plan_tool(tool("tool", "--title={name}", "--", "{task}"), name="w1", task="a b; c")
    assert made.argv == ("tool", "--title=w1", "--", "a b; c")


def test_template_with_empty_optional_group_leaves_it_out() -> None:
    tables = tool("tool", ("--model", "{model}"), "--", "{task}")
    assert plan_tool(tables).argv == ("tool", "--", "do it")
    assert plan_tool(tables, model="m").argv == ("tool", "--model", "m", "--", "do it")


def test_template_without_required_value_is_refused() -> None:
    with pytest.raises(InvalidContext, match="needs a model"):
        plan_tool(tool("tool", "{model}"))


def test_template_with_default_model_uses_it_until_a_client_asks() -> None:
    tables = tool("tool", ("--model={model}",), model="small")
    assert plan_tool(tables).argv == ("tool", "--model=small")
    assert plan_tool(tables, model="large").argv == ("tool", "--model=large")


def test_template_leaves_other_braces_alone() -> None:
    made = plan_tool(tool("tool", '{"a": {"b": 1}}', "{}", "{0}"))
    assert made.argv == ("tool", '{"a": {"b": 1}}', "{}", "{0}")


def test_template_does_not_fill_placeholders_inside_a_clients_text() -> None:
    made = plan_tool(tool("tool", "--", "{task}"), task="{name} {model}")
    assert made.argv == ("tool", "--", "{name} {model}")


@pytest.mark.parametrize("prompt", ['say "no"', "back\\slash", "lines\nand\ttabs", "\x7f\x01é😀"])
def test_template_toml_form_reads_back_as_the_text(prompt: str) -> None:
    word = plan_tool(tool("tool", "x={system_prompt:toml}"), system_prompt=prompt).argv[1]
    assert tomllib.loads(word)["x"] == prompt


def test_template_tool_level_expands_to_its_words() -> None:
    tables = tool("tool", "{tool_level}", "end", tool_levels={"read-only": ("--sandbox", "ro")})
    assert plan_tool(tables).argv == ("tool", "end")
    assert plan_tool(tables, tool_level="readonly").argv == ("tool", "--sandbox", "ro", "end")
    with pytest.raises(Unsupported, match="no tool level 'admin'; it has: readonly"):
        plan_tool(tables, tool_level="admin")


LONGEST = 128 * 1024 - 4097


def test_template_task_too_long_for_an_argument_goes_by_stdin() -> None:
    tables = tool("tool", ("--task={task}",))
    short = plan_tool(tables, task="x" * LONGEST)
    assert short.argv[1:] == ("--task=" + "x" * LONGEST,)
    assert (short.stdin, short.stdin_data) == ("null", b"")
    long = plan_tool(tables, task="x" * (LONGEST + 1))
    assert long.argv == ("tool",)
    assert (long.stdin, long.stdin_data) == ("close-after-task", b"x" * (LONGEST + 1))


def test_template_task_is_measured_in_bytes_not_characters() -> None:
    tables = tool("tool", ("--", "{task}"))
    assert plan_tool(tables, task="é" * (LONGEST // 2)).stdin == "null"
    assert plan_tool(tables, task="é" * (LONGEST // 2 + 1)).stdin == "close-after-task"


def test_template_task_too_long_with_no_way_by_stdin_is_refused() -> None:
    with pytest.raises(InvalidContext, match="argument 1 has 200000 bytes"):
        plan_tool(tool("tool", "{task}"), task="x" * 200_000)


def test_template_task_by_stdin_is_closed_after_it() -> None:
    made = plan_tool(tool("tool", task="stdin"), task="two\nlines")
    assert (made.stdin, made.stdin_data) == ("close-after-task", b"two\nlines")


def test_template_task_by_open_pipe_ends_with_its_line() -> None:
    tables = tool("tool", task="stdin", stdin="pipe")
    assert plan_tool(tables, task="hello").stdin_data == b"hello\n"
    assert plan_tool(tables, task="hello\n").stdin_data == b"hello\n"
    assert plan_tool(tables, task="").stdin_data == b""


def test_template_prepend_puts_prompt_and_context_before_the_task() -> None:
    tables = tool("tool", "--", "{task}", prepend=("system_prompt", "context"))
    made = plan_tool(tables, system_prompt="Be brief.", context="The sky.", task="Look.")
    assert made.argv[2] == "Be brief.\n\nThe sky.\n\nLook."
    assert plan_tool(tables, context="The sky.", task="Look.").argv[2] == "The sky.\n\nLook."


def test_template_passes_on_pause_limits_and_grace() -> None:
    tables = tool("tool", pause="cooperative", limits={"nofile": 64}, stop_grace_secs=2.5)
    made = plan_tool(tables)
    assert made.pause == "cooperative"
    assert made.limits == {"nofile": 64}
    assert made.stop_grace_secs == 2.5


@pytest.mark.parametrize(
    ("command", "settings", "words"),
    [
        (("{task}",), {}, "program's name"),
        (("tool", "{modle}"), {}, "no placeholder {modle}"),
        (("tool", "{task:yaml}"), {}, "no placeholder {task:yaml}"),
        (("tool", "x{tool_level}"), {}, "a word of its own"),
        (("tool", ("--verbose",)), {}, "has none"),
        (("tool", "a\0b"), {}, "NUL"),
        (("tool", "{task}"), {"task": "stdin"}, 'must be "argument"'),
        (("tool",), {"task": "stdin", "stdin": "null"}, 'not "null"'),
        (("tool",), {"model": "m"}, "no {model}"),
        (("tool",), {"tool_levels": {"a": ("b",)}}, "no {tool_level}"),
        (("tool",), {"limits": {"nofiles": 1}}, "no resource limit 'nofiles'"),
        (("tool",), {"limits": {"nofile": -1}}, "negative"),
        (("tool",), {"limits": {"as": 99_999_999_999_999_999_999}}, "below"),
        (("tool",), {"environment": ("A=B",)}, "'A=B' is not the name"),
        (("tool",), {"client_environment": ("*X",)}, "is not the name"),
        (("tool",), {"set_environment": {"A=B": "x"}}, "cannot be an environment variable"),
    ],
)
def test_template_that_makes_no_sense_is_refused_at_once(
    command: tuple[str, ...], settings: dict[str, object], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        Backends(tool(*command, **settings))


def test_table_without_a_command_is_refused() -> None:
    with pytest.raises(UsageError, match="backend 'new' has no command"):
        Backends({"new": BackendConfig(stdin="pipe")})


def test_table_of_a_built_in_changes_only_the_keys_it_gives() -> None:
    table = BackendConfig.from_table("claude", {"model": "opus", "working_dir": "/srv/work"})
    made = plan({"claude": table})
    assert made.argv == (*plan().argv, "--model=opus")
    assert made.cwd == "/srv/work"
    assert made.stdin == "close-after-task"


def test_table_of_an_alias_is_the_built_ins() -> None:
    table = BackendConfig(model="opus")
    assert "--model=opus" in plan({"claude-code-cli": table}, model_backend="claude").argv
    with pytest.raises(UsageError, match="are one"):
        Backends({"claude-code-cli": table, "claude": table})


def test_names_are_the_enabled_backends_sorted() -> None:
    assert Backends({}).names == ("claude", "claude-code-cli", "codex", "gemini", "opencode")
    off = BackendConfig(enabled=False)
    on = BackendConfig(enabled=True)
    assert Backends({"claude": off, "codex": off, "argv": on}).names == (
        "argv",
        "gemini",
        "opencode",
    )
