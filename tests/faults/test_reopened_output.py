"""Scripts that open /dev/stdout and /dev/stderr anew: no earlier output is lost."""

from __future__ import annotations

from descartes_fast import AgentConfig, ZmqClient

# Each task, and what it writes to stdout and stderr. Were these files, each opening would cut
# what is there to nothing, and what is written then would begin at the front.
TASKS = {
    "echo": ("echo one; echo two >/dev/stdout; echo three", b"one\ntwo\nthree\n", b""),
    "echo-stderr": (
        "echo one >&2; echo two >/dev/stderr; echo three >&2",
        b"",
        b"one\ntwo\nthree\n",
    ),
    "tee": (
        "echo zero >&2; echo one; echo both | tee /dev/stderr; echo two; echo three >&2",
        b"one\nboth\ntwo\n",
        b"zero\nboth\nthree\n",
    ),
    "exec": (
        "echo one; exec >/dev/stdout; echo two; exec >/dev/fd/1 2>/dev/fd/2; echo three",
        b"one\ntwo\nthree\n",
        b"",
    ),
    "proc": ("echo one; echo two >/proc/self/fd/1; echo three", b"one\ntwo\nthree\n", b""),
    "crossed": (
        "echo one; echo two >&2; echo three >/dev/stderr 2>/dev/null; echo four",
        b"one\nfour\n",
        b"two\nthree\n",
    ),
    "dd": (
        "echo one; echo two | dd of=/dev/stdout 2>/dev/null; echo three",
        b"one\ntwo\nthree\n",
        b"",
    ),
    "many": (
        "i=0; while [ $i -lt 1000 ]; do echo $i >/dev/stdout; i=$((i + 1)); done",
        b"".join(b"%d\n" % number for number in range(1000)),
        b"",
    ),
}


async def test_stream_that_is_opened_anew_loses_nothing(client: ZmqClient) -> None:
    for name, (task, stdout, stderr) in TASKS.items():
        agent = await client.spawn_remote(AgentConfig(model_backend="sh", task=task))
        assert (await client.wait_agent(agent, timeout_secs=10)).exit_code == 0, name
        assert await client.read_agent_stdout(agent) == (stdout or None), name
        assert await client.read_agent_stderr(agent) == (stderr or None), name
