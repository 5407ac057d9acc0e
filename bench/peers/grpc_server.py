"""A command server of grpc.aio: a generic handler, the bodies in msgpack (no protobuf)."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import msgpack

from .messages import agents

_MOST_PENDING = 100_000  # it cancels calls above some 1,000 otherwise


async def serve() -> None:
    agent = agents(1)[0]

    async def get_status(body: bytes, context: Any) -> bytes:
        request = msgpack.unpackb(body)
        assert request["agent_id"] == agent.id
        answer = {
            "request_id": request["request_id"],
            "success": True,
            "status": agent.status,
            "data": {"status": agent.status, "pid": 4711, "started_at": agent.started_at},
        }
        return bytes(msgpack.packb(answer))

    server = grpc.aio.server(
        options=[
            ("grpc.server.max_pending_requests", _MOST_PENDING),
            ("grpc.server.max_pending_requests_hard_limit", _MOST_PENDING),
        ]
    )
    handler = grpc.method_handlers_generic_handler(
        "bench.Agents", {"GetStatus": grpc.unary_unary_rpc_method_handler(get_status)}
    )
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, agent.id, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve())
