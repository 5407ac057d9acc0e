"""The backends every server knows: Claude Code, OpenCode, Codex, Gemini, and plain programs.

The flags were checked against the tools themselves (Claude Code 2.1.197, OpenCode 1.18.33,
Codex 0.169.0, Gemini 0.61.0). Each takes its task from stdin, which is closed after it: no
task is ever parsed as a flag, is too long for an argument, or shows in ``ps``.

What a client asks for reaches the tools like this; what has no place is refused:

============= ========================== ====================== ================ ================
field         claude                     codex                  opencode         gemini
============= ========================== ====================== ================ ================
task          stdin                      stdin                  stdin            stdin
context       before the task            before the task        before the task  before the task
system_prompt ``--append-system-prompt`` developer instructions before the task  before the task
model         ``--model``                ``--model``            ``--model``      ``--model``
agents        ``--agents``               refused                refused          refused
============= ========================== ====================== ================ ================

The context and the system prompt are also in every agent's environment, as
``AGENT_CONTEXT`` and ``AGENT_SYSTEM_PROMPT``.

A tool level is an upper bound, by the original's names: ``minimal`` (read, write, edit, run
commands), ``orchestrator`` (and sub-agents), ``readonly`` and ``researcher`` (read and search),
``planner`` (read, and write plans: for Claude Code below ``thoughts/``). A level that a tool
cannot be held to is left out here, and refused. Without a level the tool's own
permissions hold.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..config import BackendConfig

__all__ = ["ALIASES", "BUILTIN_BACKENDS"]

ALIASES: Mapping[str, str] = {"claude-code-cli": "claude"}
"""Other names of backends; the original's clients ask for ``claude-code-cli``."""

# Reading below the working directory needs no permission; reading elsewhere is refused.
_CLAUDE_READ = ("--tools=Read,Grep,Glob", "--permission-mode=dontAsk")

_CLAUDE = BackendConfig(
    enabled=True,
    command=(
        "claude",
        "--print",
        "--output-format=stream-json",
        "--verbose",
        ("--model={model}",),
        ("--append-system-prompt={system_prompt}",),
        ("--agents={agents}",),
        "{tool_level}",
    ),
    task="stdin",
    prepend=("context",),
    # --tools is what exists for the model, --allowedTools what runs without a question,
    # and dontAsk refuses the rest: in print mode there is nobody to ask.
    tool_levels={
        "minimal": (
            "--tools=Read,Write,Edit,Bash",
            "--allowedTools=Read,Write,Edit,Bash",
            "--permission-mode=dontAsk",
        ),
        "orchestrator": (
            "--tools=Read,Write,Edit,Bash,Task",
            "--allowedTools=Read,Write,Edit,Bash,Task",
            "--permission-mode=dontAsk",
        ),
        "readonly": _CLAUDE_READ,
        "researcher": _CLAUDE_READ,
        "planner": (
            "--tools=Read,Grep,Glob,Write",
            "--allowedTools=Edit(thoughts/**)",
            "--permission-mode=dontAsk",
        ),
    },
    environment=(
        "ANTHROPIC_*",
        "CLAUDE_*",
        "API_TIMEOUT_MS",
        "DISABLE_AUTOUPDATER",
        "DISABLE_ERROR_REPORTING",
        "DISABLE_TELEMETRY",
        "IS_SANDBOX",
        "MAX_THINKING_TOKENS",
    ),
)

_OPENCODE = BackendConfig(
    enabled=True,
    command=("opencode", "run", "--format=json", ("--model={model}",), "{tool_level}"),
    task="stdin",
    prepend=("system_prompt", "context"),
    # There is no preset between plan (reads) and build (everything, sub-agents too).
    tool_levels={
        "orchestrator": ("--agent=build",),
        "readonly": ("--agent=plan",),
        "researcher": ("--agent=plan",),
        "planner": ("--agent=plan",),
    },
    environment=(
        "OPENCODE_*",
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_BASE_URL",
        "GEMINI_API_KEY",
        "GOOGLE_GENERATIVE_AI_API_KEY",
        "GROQ_API_KEY",
        "MISTRAL_API_KEY",
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "OPENROUTER_API_KEY",
        "XAI_API_KEY",
    ),
)

_CODEX = BackendConfig(
    enabled=True,
    command=(
        "codex",
        "exec",
        "--json",
        "--color=never",
        "--skip-git-repo-check",
        ("--model={model}",),
        # A TOML string: Codex reads the value as TOML, and a prompt is any text.
        ("--config=developer_instructions={system_prompt:toml}",),
        "{tool_level}",
        "-",
    ),
    task="stdin",
    prepend=("context",),
    tool_levels={
        "minimal": ("--sandbox=workspace-write",),
        "readonly": ("--sandbox=read-only",),
        "researcher": ("--sandbox=read-only",),
        "planner": ("--sandbox=read-only",),
    },
    environment=("CODEX_*", "OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORGANIZATION"),
)

_GEMINI = BackendConfig(
    enabled=True,
    command=("gemini", "--output-format=stream-json", ("--model={model}",), "{tool_level}"),
    task="stdin",
    prepend=("system_prompt", "context"),
    # auto_edit writes files and runs no commands: less than the level, never more.
    tool_levels={
        "minimal": ("--approval-mode=auto_edit",),
        "readonly": ("--approval-mode=plan",),
        "researcher": ("--approval-mode=plan",),
        "planner": ("--approval-mode=plan",),
    },
    environment=("GEMINI_*", "GOOGLE_*"),
    # Without it Gemini refuses to run, or drops the approval mode, in a directory that nobody
    # has confirmed interactively. An older Gemini does not know the variable, nor the question.
    set_environment={"GEMINI_CLI_TRUST_WORKSPACE": "true"},
)

_ARGV = BackendConfig(
    enabled=False,
    command=("{argv}",),
    stdin="pipe",
)

BUILTIN_BACKENDS: Mapping[str, BackendConfig] = {
    "argv": _ARGV,
    "claude": _CLAUDE,
    "codex": _CODEX,
    "gemini": _GEMINI,
    "opencode": _OPENCODE,
}
"""What a table ``[backends.NAME]`` of the same name changes key by key."""
