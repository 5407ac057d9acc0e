"""One connection to a keeper: requests and their replies, events, descriptors that come along."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from ..errors import CommunicationError, from_wire
from .keeper.passing import Arrivals, close_all, receive, send
from .keeper.protocol import BrokenFrame, FrameReader, frame

__all__ = ["KeeperConnection", "TakeDescriptors"]

_READ_BYTES = 64 * 1024  # more would be mapped for each read, and unmapped after it: 10 us
_READS = 16  # in one turn of the loop
_UNSENT_BYTES = 1024 * 1024
_HELD_BYTES = 4 * 1024
"""What is asked in one turn of the loop goes in pieces of this size, some twenty small requests:
the keeper begins with the first of them, and is not woken for each."""

TakeDescriptors = Callable[[dict[str, Any], list[int] | None], None]
"""Given a reply's header and the descriptors that it names; ``None``: they were lost."""


class KeeperConnection:
    """Asks a keeper, and tells ``on_event`` and ``on_lost`` what comes unasked.

    Owns ``connection``. ``on_lost`` is called at most once, and not after :meth:`close`.
    """

    def __init__(
        self,
        connection: socket.socket,
        on_event: Callable[[dict[str, Any]], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_event = on_event
        self._on_lost = on_lost
        self._reader = FrameReader()
        self._wire = _Wire(connection, self._receive, self.lose)
        self._waiting: dict[int, tuple[asyncio.Future[dict[str, Any]], TakeDescriptors | None]] = {}
        self._ids = itertools.count(1)
        self.lost: str | None = None
        """Why nothing can be asked any more, if that is so."""

    def ask(
        self,
        operation: str,
        body: bytes = b"",
        *,
        descriptors: Sequence[int] = (),
        take: TakeDescriptors | None = None,
        **fields: Any,
    ) -> Coroutine[Any, Any, dict[str, Any]]:
        """Send a request, at once; its reply is to be awaited, or what a refusal stands for raised.

        ``take`` is given a reply that names descriptors, and these (``None``: they were lost), at
        once when they come: nothing is lost when the one who asked is cancelled then. Raises
        ``CommunicationError`` once the connection is lost.
        """
        if self.lost is not None:
            raise CommunicationError(self.lost)
        request_id = next(self._ids)
        data = frame({"op": operation, "id": request_id, **fields}, body)
        future: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._waiting[request_id] = future, take
        self._wire.write(data, descriptors)
        return self._reply(request_id, future, fields.get("agent"))

    async def _reply(
        self, request_id: int, future: asyncio.Future[dict[str, Any]], agent_id: str | None
    ) -> dict[str, Any]:
        try:
            reply = await future
        finally:
            self._waiting.pop(request_id, None)
        if "code" in reply:
            raise from_wire(f"{reply['code']}: {reply['words']}", agent_id=agent_id)
        return reply

    def post(self, operation: str, **fields: Any) -> None:
        """Send a request that nobody waits for."""
        if self.lost is None:
            self._wire.write(frame({"op": operation, "id": 0, **fields}))

    async def drain(self) -> None:
        """Wait until the keeper has taken most of what was written."""
        await self._wire.drain()

    def lose(self, reason: str) -> None:
        """Give the connection up: whoever waits is told, and so is ``on_lost``."""
        if self._end(reason):
            self._on_lost(reason)

    def close(self) -> None:
        """Close the connection; whoever waits is told. Twice is fine."""
        self._end("the connection to the keeper was closed")

    def _end(self, reason: str) -> bool:
        if self.lost is not None:
            return False
        self.lost = reason
        self._wire.close()
        for future, _ in self._waiting.values():
            if not future.done():
                future.set_exception(CommunicationError(reason))
        return True

    def _receive(self, data: bytes) -> None:
        try:
            for header, _ in self._reader.feed(data):
                if self.lost is None:
                    self._take(header)
        except BrokenFrame as error:
            self.lose(f"the keeper's words cannot be read: {error}")

    def _take(self, header: dict[str, Any]) -> None:
        descriptors = self._wire.arrivals.take_list(header) if "fds" in header else []
        if "re" in header:
            future, take = self._waiting.pop(header["re"], (None, None))
            if future is not None and not future.done():
                if take is not None and "fds" in header:
                    take(header, descriptors)
                    descriptors = []
                future.set_result(header)
            if "ended" in header:
                self._tell(header["ended"])
        else:
            self._tell(header)
        close_all(descriptors or [])

    def _tell(self, event: dict[str, Any]) -> None:
        try:
            self._on_event(event)
        except Exception as error:
            self._loop.call_exception_handler(
                {"message": "an event of the keeper was not handled", "exception": error}
            )


class _Wire:
    """The connection's bytes and descriptors.

    No transport: under uvloop one costs the loop a descriptor, and none takes descriptors.
    """

    def __init__(
        self,
        connection: socket.socket,
        on_data: Callable[[bytes], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = connection
        self._on_data = on_data
        self._on_lost = on_lost
        self._unsent: deque[tuple[bytes, Sequence[int]]] = deque()
        self._unsent_bytes = 0
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._is_holding = False
        self.arrivals = Arrivals()
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._closed = False
        connection.setblocking(False)
        self._loop.add_reader(connection.fileno(), self._read)

    def write(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send what the socket takes, and the rest when it can.

        The first of one turn of the loop goes at once, what follows in that turn with its others.
        The descriptors go with the first byte; they must stay open until they are sent.
        """
        if self._closed:
            return
        if self._is_holding and not descriptors:
            self._held.append(data)
            self._held_bytes += len(data)
            if self._held_bytes >= _HELD_BYTES:
                self._release()
            return
        self._release()
        self._queue(data, descriptors)
        if not self._is_holding:
            self._is_holding = True
            self._loop.call_soon(self._end_holding)

    def _end_holding(self) -> None:
        self._is_holding = False
        if not self._closed:
            self._release()

    def _release(self) -> None:
        if self._held:
            data = b"".join(self._held)
            self._held.clear()
            self._held_bytes = 0
            self._queue(data, ())

    def _queue(self, data: bytes, descriptors: Sequence[int]) -> None:
        self._unsent.append((data, descriptors))
        self._unsent_bytes += len(data)
        if len(self._unsent) == 1:
            self._flush()

    async def drain(self) -> None:
        """Wait until most of what was written is sent."""
        await self._may_write.wait()

    def close(self) -> None:
        """Close the socket. Twice is fine."""
        if not self._closed:
            self._closed = True
            self._may_write.set()
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
            self.arrivals.close()

    def _read(self) -> None:
        """Read what is there, which the kernel gives out in parts where descriptors came along."""
        for _ in range(_READS):
            if not self._read_once():
                return

    def _read_once(self) -> bool:
        """Read; return whether there may be more."""
        if self._closed:
            return False
        try:
            data, batches = receive(self._socket, _READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._on_lost(f"the connection to the keeper broke: {error}")
            return False
        self.arrivals.put(batches)
        if data:
            self._on_data(data)
        else:
            self._on_lost("the keeper is gone")
        return bool(batches)

    def _flush(self) -> None:
        try:
            while self._unsent:
                data, descriptors = self._unsent[0]
                count = send(self._socket, data, descriptors)
                self._unsent_bytes -= count
                if count == len(data):
                    self._unsent.popleft()
                else:
                    self._unsent[0] = data[count:], ()
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            # Not from within a write: whoever asks must be waiting by then.
            self._loop.call_soon(self._on_lost, f"the connection to the keeper broke: {error}")
            return
        if self._unsent:
            self._loop.add_writer(self._socket.fileno(), self._flush)
        else:
            self._loop.remove_writer(self._socket.fileno())
        if self._unsent_bytes > _UNSENT_BYTES:
            self._may_write.clear()
        else:
            self._may_write.set()
