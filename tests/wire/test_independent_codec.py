"""Our codec and the slow one agree on every input: accept, refuse, value, and bytes."""

from __future__ import annotations

import os
import random

import pytest

from descartes_fast import (
    ProtocolError,
    deserialize_zmq_message,
    serialize_zmq_message,
    to_builtins,
)
from wire import slow_codec
from wire.cases import DECODE_CASES, VECTORS
from wire.mutations import mutations

# A million is a matter of minutes: DESCARTES_FAST_MUTATIONS=1000000.
COUNT = int(os.environ.get("DESCARTES_FAST_MUTATIONS", "20000"))
# Other inputs each time; a failure prints the seed that brings its own back.
SEED = int(os.environ.get("DESCARTES_FAST_SEED", random.SystemRandom().randrange(2**32)))
SHARDS = 8

WHOLE = [
    bytes.fromhex(line[form])
    for line in VECTORS + [line for line in DECODE_CASES if line["ok"]]
    for form in ("hex", "hex_named")
    if form in line and len(line[form]) < 4096
]


def compare(data: bytes) -> bool:
    """Hold both codecs against each other. Returns whether the message was accepted."""
    try:
        expected = slow_codec.decode(data)
    except slow_codec.NotComparable:
        return False
    except slow_codec.Refused as refusal:
        try:
            message = deserialize_zmq_message(data)
        except ProtocolError as error:
            if not 0 <= error.offset <= len(data):
                pytest.fail(f"{data.hex()} is not {error.offset} bytes long")
            return False
        pytest.fail(f"{data.hex()} was taken as {message!r}, but: {refusal}")
    try:
        message = deserialize_zmq_message(data)
    except ProtocolError as error:
        pytest.fail(f"{data.hex()} was refused: {error}")
    assert repr(to_builtins(message)) == repr(expected), data.hex()
    assert serialize_zmq_message(message) == slow_codec.encode(expected), data.hex()
    return True


@pytest.mark.parametrize("line", VECTORS + DECODE_CASES, ids=lambda line: line["name"])
def test_slow_codec_passes_the_cases_of_rmp_serde(line: dict[str, object]) -> None:
    data = bytes.fromhex(str(line["hex"]))
    if line.get("ok", True):
        assert slow_codec.decode(data) == line["message"]
    else:
        with pytest.raises(slow_codec.Refused):
            slow_codec.decode(data)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("shard", range(SHARDS))
def test_mutated_messages_get_the_same_answer_from_both(shard: int) -> None:
    print(f"DESCARTES_FAST_SEED={SEED} DESCARTES_FAST_MUTATIONS={COUNT}")
    accepted = sum(compare(data) for data in mutations(WHOLE, SEED + shard, COUNT // SHARDS))
    # Mutations that all break the message would compare nothing but refusals.
    assert accepted > COUNT // SHARDS // 50
