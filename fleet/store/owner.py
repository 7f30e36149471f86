"""One thread owns the database; what waits together is committed together."""

from __future__ import annotations

import asyncio
import ctypes
import queue
import random
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, Generic, Protocol, TypeVar

from fleet.core.errors import StateError
from fleet.store.again import OvertakenError
from fleet.store.api import Tx

T = TypeVar("T")

GROUP_LIMIT: Final = 256
"""The most jobs that share a transaction, so that the first need not wait for all."""

TRIES: Final = 8
"""So often a transaction is done that others overtake."""

STOP_S: Final = 10.0
"""How long a store that is away is waited for at the end."""

# Each SQL statement gives the interpreter lock up and takes it back. A thread asks for it only
# after a whole interval in which the holder did not let go; a busy event loop lets go for a
# microsecond at each poll, so that with Python's 5 ms the owner waited for seconds (measured).
# It helps only if the wait is really that short: Linux adds 50 us to each unless told not to.
SWITCH_INTERVAL_S: Final = 0.00001
_PR_SET_TIMERSLACK: Final = 29


class Engine(Protocol):
    """A database as the owner thread drives it; only that thread calls it.

    Each method raises StateError for what time will mend, StoreError for what a person must.
    """

    @property
    def tx(self) -> Tx:
        """What a write works with between `begin` and `commit`."""
        ...

    @property
    def reader(self) -> Tx:
        """What a read works with."""
        ...

    def open(self) -> None:
        """Connect, and bring the schema up to date."""
        ...

    def close(self) -> None:
        """Let go of the database; raises nothing."""
        ...

    def begin(self, *, alone: bool) -> None:
        """Begin to write; `alone`: keep everybody else out who asked for that."""
        ...

    def commit(self) -> None:
        """Make durable what was written since `begin`; raises StateError where that is lost.

        It knows: where the answer is lost, it finds out before it returns or raises.
        """
        ...

    def rollback(self) -> None:
        """Undo what was written since `begin`; raises nothing."""
        ...

    def at_once(self, work: Callable[[Tx], T]) -> T:
        """Do `work`, which is one statement, as a transaction of its own; None: undo it."""
        ...

    def interrupt(self) -> None:
        """Wait for nothing any longer; called from another thread, before `close`."""
        ...


class Job(Generic[T]):
    """Work for the owner thread and the future of its result.

    `alone`: no other such work runs meanwhile, in any process. `shortcut` does the same in one
    statement, or answers None and has done nothing.
    """

    __slots__ = ("alone", "error", "future", "result", "shortcut", "work", "writes")

    def __init__(
        self,
        work: Callable[[Tx], T],
        future: asyncio.Future[T],
        *,
        writes: bool,
        alone: bool = True,
        shortcut: Callable[[Tx], T | None] | None = None,
    ) -> None:
        self.work = work
        self.future = future
        self.writes = writes
        self.alone = alone
        self.shortcut = shortcut
        self.result: T | None = None
        self.error: BaseException | None = None

    def attempt(self, run: Callable[[Callable[[Tx], T]], T]) -> None:
        """Keep the result of `run(work)`, or what it raised."""
        self.result = self.error = None
        try:
            self.result = run(self.work)
        except StopIteration as error:
            self.error = RuntimeError("work for the store raised StopIteration")
            self.error.__cause__ = error
        except BaseException as error:  # noqa: BLE001 - its caller's; the thread must live on
            self.error = error

    @property
    def overtaken(self) -> bool:
        """Whether doing it again may go better."""
        return isinstance(self.error, OvertakenError)

    def resolve(self) -> None:
        """Tell the caller, unless it was cancelled; runs in its loop."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]  # T may be None itself


class Owner:
    """Runs jobs in one thread over one engine, writes in groups, reads in between."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._jobs: queue.SimpleQueue[Job[Any] | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    async def start(self) -> None:
        """Start the thread and open the engine in it; raises what that raises."""
        self._loop = asyncio.get_running_loop()
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL_S))
        opened: asyncio.Future[None] = self._loop.create_future()
        # A daemon: a process that ends without closing the store loses nothing it was promised.
        thread = threading.Thread(
            target=self._serve, args=(opened,), name="fleet-store", daemon=True
        )
        thread.start()
        try:
            await opened
        except asyncio.CancelledError:
            self._jobs.put(None)
            raise
        self._thread = thread

    async def stop(self) -> None:
        """Finish what is queued, then end the thread and close the engine."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(self._join, thread)

    async def submit(
        self,
        work: Callable[[Tx], T],
        *,
        writes: bool,
        alone: bool = True,
        shortcut: Callable[[Tx], T | None] | None = None,
    ) -> T:
        """The result of `work` in the owner thread; raises what it raised."""
        if self._thread is None or self._loop is None or not self._thread.is_alive():
            raise StateError("The store is closed.")
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(Job(work, future, writes=writes, alone=alone, shortcut=shortcut))
        return await future

    def _serve(self, opened: asyncio.Future[None]) -> None:
        _wake_promptly()
        opening: Job[None] = Job(lambda _: None, opened, writes=False)
        opening.attempt(lambda _: self._engine.open())
        self._report([opening])
        if opening.error is not None:
            return
        more = True
        while more:
            jobs, more = self._waiting()
            self._report(_done(jobs, writes=False, by=self._read))
            self._report(_done(jobs, writes=True, by=self._write))
        self._engine.close()

    def _waiting(self) -> tuple[list[Job[Any]], bool]:
        """Wait for a job and take whatever waits behind it; False where that was the last."""
        jobs: list[Job[Any]] = []
        job = self._jobs.get()
        while job is not None:
            jobs.append(job)
            if len(jobs) == GROUP_LIMIT or self._jobs.empty():
                return jobs, True
            job = self._jobs.get_nowait()
        return jobs, False

    def _read(self, jobs: Sequence[Job[Any]]) -> None:
        for job in jobs:
            for _ in range(TRIES):
                job.attempt(lambda work: work(self._engine.reader))
                if not job.overtaken:
                    break

    def _write(self, jobs: Sequence[Job[Any]]) -> None:
        if len(jobs) == 1 and self._took_shortcut(jobs[0]):
            return
        for left in reversed(range(TRIES)):
            self._write_once(jobs)
            if not left or not any(job.overtaken for job in jobs):
                return
            time.sleep(random.uniform(0, 0.01))  # noqa: S311 - jitter, no secret

    def _write_once(self, jobs: Sequence[Job[Any]]) -> None:
        for job in jobs:
            job.error = None
        try:
            self._engine.begin(alone=any(job.alone for job in jobs))
            for job in jobs:
                job.attempt(self._in_savepoint if len(jobs) > 1 else self._bare)
            if any(job.overtaken for job in jobs):
                raise OvertakenError  # noqa: TRY301 - as if the commit had found it
            if all(job.error is not None for job in jobs):
                self._engine.rollback()
            else:
                self._engine.commit()
        except Exception as error:  # noqa: BLE001 - nothing of the group was written: all hear it
            self._engine.rollback()
            for job in jobs:
                job.error = job.error or error

    def _took_shortcut(self, job: Job[Any]) -> bool:
        if job.shortcut is None:
            return False
        shortcut = job.shortcut
        job.attempt(lambda _: self._engine.at_once(shortcut))
        if job.overtaken:
            return False
        return job.error is not None or job.result is not None

    def _bare(self, work: Callable[[Tx], T]) -> T:
        return work(self._engine.tx)

    def _in_savepoint(self, work: Callable[[Tx], T]) -> T:
        with self._engine.tx.savepoint():
            return work(self._engine.tx)

    def _join(self, thread: threading.Thread) -> None:
        thread.join(STOP_S)
        if thread.is_alive():
            self._engine.interrupt()
            thread.join()

    def _report(self, jobs: Sequence[Job[Any]]) -> None:
        if not jobs or self._loop is None:
            return
        try:
            self._loop.call_soon_threadsafe(_resolve, jobs)
        except RuntimeError:
            # The loop is closed: nobody waits any more.
            return


def _wake_promptly() -> None:
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)


def _done(
    jobs: Iterable[Job[Any]], *, writes: bool, by: Callable[[Sequence[Job[Any]]], None]
) -> list[Job[Any]]:
    chosen = [job for job in jobs if job.writes == writes]
    if chosen:
        by(chosen)
    return chosen


def _resolve(jobs: Iterable[Job[Any]]) -> None:
    for job in jobs:
        job.resolve()
