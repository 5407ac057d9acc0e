"""The answers to batches that went well for everybody, made without a look at each agent.

What a batch says of an agent then is its status, and most have the one that they had the last time.
"""

from __future__ import annotations

from functools import partial

from .._core import BatchControlCommand, BatchControlResponse
from .._core.batches import Granted
from .together import Addressed

__all__ = ["BatchReplies"]


class BatchReplies:
    """Knows what to say of each agent that was in a batch.

    An agent whose status changes takes that back before it tells anybody
    (:meth:`.agent.Agent.outdate_status`).
    """

    def __init__(self) -> None:
        self._granted = Granted()

    @property
    def changes(self) -> int:
        """How often a status has changed: while it has not, what was answered is still true."""
        return self._granted.changes

    def all_went_well(
        self, request: BatchControlCommand, addressed: Addressed
    ) -> BatchControlResponse | None:
        """Return the answer with the statuses of now; ``None`` if an agent is not there."""
        response = self._granted.response(request.request_id, addressed.ids)
        if response is None and self._tell(addressed):
            response = self._granted.response(request.request_id, addressed.ids)
        return response

    def _tell(self, addressed: Addressed) -> bool:
        """Tell what is not told; return whether all agents are there."""
        if None in addressed.agents:
            return False
        for position in self._granted.untold(addressed.ids):
            agent = addressed.found(position)
            key = agent.id.bytes
            self._granted.tell(key, agent.status)
            agent.on_status_outdated = partial(self._granted.take_back, key)
        return True
