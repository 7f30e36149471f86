"""Which lanes this worker owns, and the state that each of them keeps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import structlog

from fleet.store import lanes
from fleet.store.api import KeyState, Store
from workers.job import Job

log = structlog.get_logger("fleet.workers")


class Lane:
    """A lane that we own under `epoch`, with the last state and its sequence number by key."""

    __slots__ = ("epoch", "states")

    def __init__(self, epoch: int, states: dict[str, tuple[int, Any]]) -> None:
        self.epoch = epoch
        self.states = states


class LaneKeeper:
    """Takes lanes over, and lets go of those that another worker took.

    The broker makes one consumer of a lane the active one and tells nobody. So before a batch is
    handled its lanes' owners are read from the store: a lane that is not ours (any more) is taken,
    under a new epoch, and its states are read anew before anything is handled with them.
    """

    def __init__(self, store: Store, service: str, worker: str, state: Any) -> None:
        self._store = store
        self._service = service
        self._worker = worker
        self._decode = msgspec.json.Decoder(state).decode if state is not None else None
        self._lanes: dict[str, Lane] = {}

    def forget(self, queue: str) -> None:
        """Trust nothing we know of this lane; it is taken anew before its next event."""
        self._lanes.pop(queue, None)

    def held(self) -> list[str]:
        """The lanes whose events came to us since we began to consume them."""
        return list(self._lanes)

    def get(self, queue: str) -> Lane | None:
        """The lane, where we own it."""
        return self._lanes.get(queue)

    async def hold(self, queues: Iterable[str]) -> None:
        """Own these lanes, with their present states."""
        wanted = sorted(queues)
        owners = await self._store.read(lambda tx: lanes.owners(tx, self._service, wanted))
        for queue in wanted:
            mine = self._lanes.get(queue)
            if mine is None or owners.get(queue, ("", 0)) != (self._worker, mine.epoch):
                await self._take(queue)

    def keep(self, job: Job) -> bool:
        """Make what the handler kept the lane's state, for the next event of the key.

        False where it cannot be: we do not own the lane any more as we did when it began.
        """
        lane = self._lanes.get(job.delivery.origin.queue)
        if lane is None or job.context is None or lane.epoch != job.epoch:
            return False
        job.sequence = lane.states.get(job.key, (0, None))[0] + 1
        lane.states[job.key] = (job.sequence, job.context.kept)
        return True

    async def _take(self, queue: str) -> None:
        epoch, states = await self._store.run(
            lambda tx: lanes.take(tx, self._service, queue, self._worker)
        )
        self._lanes[queue] = Lane(epoch, dict(self._read(queue, states)))
        log.info("lane taken", queue=queue, epoch=epoch, keys=len(states))

    def _read(self, queue: str, states: list[KeyState]) -> Iterable[tuple[str, tuple[int, Any]]]:
        for state in states:
            if self._decode is None:
                return
            try:
                yield state.key, (state.seq, self._decode(state.body))
            except msgspec.MsgspecError as error:
                log.error("state cannot be read; it starts empty", queue=queue, reason=str(error))
                yield state.key, (state.seq, None)
