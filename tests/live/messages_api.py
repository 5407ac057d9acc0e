"""A stand-in for the Messages API on loopback: enough of it for an agent to finish a task."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from typing import Any, Self

Block = dict[str, Any]


def text(words: str) -> Block:
    """A block of an answer: text."""
    return {"type": "text", "text": words}


def tool_use(name: str, **arguments: Any) -> Block:
    """A block of an answer: the model asks for a tool to be run."""
    return {"type": "tool_use", "id": f"toolu_{name.lower()}", "name": name, "input": arguments}


NO_ANSWER: tuple[Block, ...] = ()
"""A turn in which the model thinks forever."""


class MessagesApi:
    """Answers ``POST /v1/messages`` from a script, streaming where it is asked to.

    ``turns`` are the answers, each a list of blocks, to the requests that offer tools, in
    order; the last one is given again when they run out. Requests without tools (titles,
    summaries) are answered by one word. ``requests`` and ``headers`` keep the former.
    """

    def __init__(self, *turns: Sequence[Block]) -> None:
        self._turns = turns
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.asked = asyncio.Event()
        self.url = ""
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while request := await _read_request(reader):
                method, path, headers, body = request
                status, kind, payload = await self._answer(method, path, headers, body)
                head = (
                    f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n"
                    f"content-length: {len(payload)}\r\n\r\n"
                )
                writer.write(head.encode() + (b"" if method == "HEAD" else payload))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # The agent has gone; there is nobody to answer.
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[str, str, bytes]:
        path = path.partition("?")[0]
        if method == "HEAD":
            return "200 OK", "text/plain", b""
        if path == "/v1/messages/count_tokens":
            return "200 OK", "application/json", b'{"input_tokens":10}'
        if method != "POST" or path != "/v1/messages":
            error = {"type": "not_found_error", "message": f"no {method} {path} here"}
            return (
                "404 Not Found",
                "application/json",
                json.dumps({"type": "error", "error": error}).encode(),
            )
        request = json.loads(body)
        message = self._message(request, headers)
        if not message["content"]:
            await asyncio.Event().wait()
        if request.get("stream"):
            return "200 OK", "text/event-stream", b"".join(_events(message))
        return "200 OK", "application/json", json.dumps(message).encode()

    def _message(self, request: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
        if request.get("tools"):
            blocks = list(self._turns[min(len(self.requests), len(self._turns) - 1)])
            self.requests.append(request)
            self.headers.append(headers)
            self.asked.set()
        else:
            blocks = [text("untitled")]
        wants_tool = any(block["type"] == "tool_use" for block in blocks)
        return {
            "id": f"msg_{len(self.requests):04}",
            "type": "message",
            "role": "assistant",
            "model": request["model"],
            "content": blocks,
            "stop_reason": "tool_use" if wants_tool else "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 10, "output_tokens": 5},
        }


async def _read_request(
    reader: asyncio.StreamReader,
) -> tuple[str, str, dict[str, str], bytes] | None:
    line = await reader.readline()
    if not line:
        return None
    method, path, _ = line.decode().split(" ", 2)
    headers: dict[str, str] = {}
    while (line := await reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode().partition(":")
        headers[name.strip().lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return method, path, headers, body


def _events(message: dict[str, Any]) -> Iterator[bytes]:
    """Yield a message as the server-sent events of the streaming API."""
    start = message | {"content": [], "stop_reason": None}
    yield _event("message_start", message=start)
    for index, block in enumerate(message["content"]):
        if block["type"] == "text":
            empty, key = block | {"text": ""}, "text"
            deltas = [{"type": "text_delta", "text": word} for word in _pieces(block["text"])]
        else:
            empty, key = block | {"input": {}}, "input"
            deltas = [
                {"type": "input_json_delta", "partial_json": piece}
                for piece in _pieces(json.dumps(block[key]))
            ]
        yield _event("content_block_start", index=index, content_block=empty)
        for delta in deltas:
            yield _event("content_block_delta", index=index, delta=delta)
        yield _event("content_block_stop", index=index)
    yield _event(
        "message_delta",
        delta={"stop_reason": message["stop_reason"], "stop_sequence": None},
        usage={"output_tokens": message["usage"]["output_tokens"]},
    )
    yield _event("message_stop")


def _pieces(words: str, length: int = 12) -> list[str]:
    return [words[start : start + length] for start in range(0, len(words), length)]


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind} | fields)}\n\n".encode()
