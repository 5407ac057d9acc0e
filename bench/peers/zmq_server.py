"""A command server as the pyzmq guide teaches: a ROUTER of zmq.asyncio, a task, msgpack."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import msgpack
import uvloop
import zmq
import zmq.asyncio

from .messages import agent_dict, agents


async def serve(agent_count: int) -> None:
    context = zmq.asyncio.Context()
    socket = context.socket(zmq.ROUTER)
    socket.set(zmq.ROUTER_MANDATORY, 1)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    listed = agents(agent_count)
    known = {agent.id: agent for agent in listed}
    print(port, listed[0].id, flush=True)
    while True:
        identity, body = await socket.recv_multipart()
        request = msgpack.unpackb(body)
        answer: dict[str, Any] = {"request_id": request["request_id"], "success": True}
        if request["type"] == "list_agents":
            answer["agents"] = [agent_dict(agent) for agent in listed]
        else:
            agent = known[request["agent_id"]]
            answer["status"] = agent.status
            answer["data"] = {
                "status": agent.status,
                "pid": 4711,
                "exit_code": None,
                "signal": None,
                "started_at": agent.started_at,
                "ended_at": None,
                "stdout_bytes": 0,
                "stderr_bytes": 0,
                "metadata": {},
            }
        await socket.send_multipart([identity, msgpack.packb(answer)])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1]) if len(sys.argv) > 1 else 1))
