"""The agents of a chaos run: their program, and what it must write."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from random import Random
from typing import Any, Literal

__all__ = ["AgentPlan", "echoed", "planned"]

Kind = Literal["writer", "echo"]

_PROGRAM = """\
import json, os, sys, time
plan = json.loads({plan!r})
births = os.open({births!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
os.write(births, b"%s\\n" % plan["tag"].encode())
os.close(births)
def tell(fd, data):
    while data:
        data = data[os.write(fd, data):]
if plan["kind"] == "writer":
    for number in range(plan["lines"]):
        for fd in (1, 2):
            tell(fd, b"%d %s\\n" % (number, b"." * plan["width"]))
        time.sleep(plan["pause_secs"])
else:
    count = 0
    for line in iter(sys.stdin.buffer.readline, b""):
        count += 1
        for fd in (1, 2):
            tell(fd, b"got " + line)
        time.sleep(plan["pause_secs"])
    tell(1, b"end %d\\n" % count)
sys.exit(plan["code"])
"""


@dataclass(frozen=True, slots=True)
class AgentPlan:
    """What one agent does: writes ``lines`` numbered lines, or echoes those it gets."""

    tag: str
    kind: Kind
    code: int
    lines: int = 0
    width: int = 0
    pause_secs: float = 0.0

    def program(self, births: str) -> str:
        """Return the agent's program, which first notes its birth in the file ``births``."""
        return _PROGRAM.format(plan=json.dumps(asdict(self)), births=births)

    def written(self) -> bytes:
        """Return all that a writer writes to each of its streams."""
        dots = b"." * self.width
        return b"".join(b"%d %s\n" % (number, dots) for number in range(self.lines))

    @classmethod
    def of(cls, form: dict[str, Any]) -> AgentPlan:
        return cls(**form)


def planned(tag: str, dice: Random) -> AgentPlan:
    """Return a plan by chance."""
    kind: Kind = dice.choice(("writer", "echo", "echo"))
    if kind == "echo":
        return AgentPlan(
            tag=tag, kind=kind, code=dice.randrange(60), pause_secs=dice.choice((0.0, 0.0, 0.05))
        )
    if dice.random() < 0.3:  # much at once
        return AgentPlan(
            tag=tag, kind=kind, code=dice.randrange(60), lines=dice.randrange(50, 300), width=200
        )
    return AgentPlan(
        tag=tag,
        kind=kind,
        code=dice.randrange(60),
        lines=dice.randrange(1, 80),
        width=dice.randrange(40),
        pause_secs=dice.choice((0.005, 0.02, 0.05)),
    )


def echoed(output: bytes) -> tuple[list[bytes], bytes]:
    """Return the lines that an echo agent says it got, ends and all, and what follows them."""
    lines = []
    rest = output
    while rest.startswith(b"got ") and b"\n" in rest:
        line, _, rest = rest.partition(b"\n")
        lines.append(line.removeprefix(b"got ") + b"\n")
    return lines, rest
