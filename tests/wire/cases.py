"""The lines that the real ``rmp-serde`` produced, and what writing them must give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgpack

HERE = Path(__file__).parent


def load(name: str) -> list[dict[str, Any]]:
    """Return the lines of one of the two files beside this one."""
    with (HERE / name).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


VECTORS = load("vectors.jsonl")
DECODE_CASES = load("decode_cases.jsonl")


def trimmed(compact: bytes) -> bytes:
    """Return a compact message without the trailing ``None`` of its configs and infos.

    Works on the generic arrays, so that it shares nothing with the code under test.
    """
    body = msgpack.unpackb(compact, strict_map_key=False, raw=False)
    tag = body[0]
    if tag == "spawn_request":
        _trim(body[2])
    elif tag == "spawn_response" and body[3] is not None:
        _trim(body[3])
    elif tag == "list_agents_response":
        for info in body[3]:
            _trim(info)
    else:
        return compact
    packed: bytes = msgpack.packb(body, use_bin_type=True)
    return packed


def _trim(fields: list[Any]) -> None:
    while fields and fields[-1] is None:
        fields.pop()
