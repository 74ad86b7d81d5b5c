# SPDX-License-Identifier: Apache-2.0
"""What a channel's actor does, without Ray: a broker (klaw/broker.h), its clock, its journal, and those who wait.

An async actor of Ray runs each concurrency group on a thread and loop of its own. So the broker is called under a lock,
and an answer is handed to the loop on which its call waits.

Invariants while the lock is free
  H1  Every answer the broker had ready was taken and given to who waits for its ticket.
  H2  The clock's thread is awake by the broker's deadline.
  H3  durable: what the broker wants journalled is being written, or the writer has been told.

Rejected: asyncio timers for the broker's deadline (which loop? each has its own), and a commit a call (fsync is slow:
one transaction holds whatever has come while the last one was written).
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from klaw_core.runtime.channels.ray._waiting import settle

__all__ = ["ChannelHost"]

_COMPACT = 8 << 20  # bytes of journal, at least, after which the log begins anew
_ENTRY_MAX = 1 << 29  # bytes: the log takes nothing larger (KLAW_STORE_VALUE_MAX)


#: What everybody is told then; what to do comes last and fits into a message of the protocol.
_LOG_FAILED = (
    "the channel's log can't be written ({}): nothing confirmed is lost; mend the disk, then"
    " ray.kill(endpoint.actor, no_restart=False) starts the channel again from its log"
)


class _Putter:
    """Somebody who waits for room."""

    __slots__ = ("tried", "waiter")

    def __init__(self) -> None:
        self.waiter: Any = None
        self.tried = 0  # the step after which it last tried

    def wait(self, step: int) -> Any:
        """A waiter for when there may be room that was not there at that step."""
        self.tried = step
        self.waiter = asyncio.get_running_loop().create_future()
        return self.waiter


class ChannelHost:
    """Drives one broker. log: a ChannelLog of a durable broker, already replayed."""

    def __init__(self, broker: Any, log: Any = None) -> None:
        self.broker = broker
        self.log = log
        self.failure: str | None = None  # why the journal can't be written any more
        self.deleted = False
        self.told: set[bytes] = set()  # clients that have been answered since it is deleted
        self._lock = threading.RLock()
        self._calls: dict[int, Any] = {}  # ticket: who waits for its answer
        # Of one-item receives, (waiter, the step after which it last tried), oldest step first.
        self._getters: deque[tuple[Any, int]] = deque()
        self._putters: deque[_Putter] = deque()  # in turn: the first one alone tries
        self._steps = 0  # of the broker that may have changed something
        self._commits: list[Any] = []  # who waits until all so far is on disk
        self._next_compact = _COMPACT if log is None else max(_COMPACT, 2 * log.sizes()[2])
        self._wake = threading.Event()
        self._next = 0.0
        self._over = False
        self._dirty = threading.Event()
        threading.Thread(target=self._clock, name="klaw-broker-clock", daemon=True).start()
        if log is not None:
            threading.Thread(target=self._write, name="klaw-broker-log", daemon=True).start()

    # --- calls of hubs ---

    async def call(self, blob: bytes, attachments: list[Any] | tuple[Any, ...] = ()) -> Any:
        """One call of a hub: its answer, bytes or (bytes, attachments)."""
        return (await self.call_of(blob, attachments))[1]

    async def call_of(self, blob: bytes, attachments: Any = ()) -> tuple[bytes, Any]:
        """As call: (the client, the answer)."""
        waiter = None
        with self._lock:
            ticket, client = self.broker.call(blob, attachments)
            self._steps += 1
            answer, others = None, []
            for number, data, objects in self.broker.answers():
                reply = (data, objects) if objects else data
                if number == ticket:
                    answer = reply
                else:
                    others.append((number, reply))
            if answer is None:
                waiter = asyncio.get_running_loop().create_future()
                self._calls[ticket] = waiter
        self._after(others)
        if waiter is not None:
            try:
                answer = await waiter
            finally:
                self._calls.pop(ticket, None)
        if self.deleted:
            self.told.add(client)
        return client, answer

    def _after(self, answers: list[tuple[int, Any]]) -> None:
        """What follows when the broker was touched (H1-H3)."""
        settled = []
        for number, reply in answers:
            waiter = self._calls.get(number)
            if waiter is not None:
                settled.append((waiter, reply))
        if self._getters or self._putters:
            with self._lock:
                settled += self._stirred()
        if settled:
            settle(settled)
        if self.log is not None:
            self._dirty.set()
        due = self.broker.deadline()
        if due is not None and due < self._next:
            self._wake.set()

    def _stirred(self) -> list[tuple[Any, Any]]:
        """One-item callers that should look again: as many receivers as there may be something for, each once a step,
        and the first of those that wait for room. A receiver that finds nothing for it (another reader's item) has the
        next one look, not the same again."""
        stats = self.broker.stats()
        settled: list[tuple[Any, Any]] = []
        ending = stats["senders_closed"] or stats["receivers_closed"] or stats["deleted"] or self.failure
        for _ in range(len(self._getters) if ending else min(stats["queued"], len(self._getters))):
            if self._getters[0][1] == self._steps:
                break
            settled.append((self._getters.popleft()[0], True))
        capacity = stats["capacity"]
        if ending or capacity is None or capacity < 0 or capacity > stats["queued"]:
            for putter in list(self._putters) if ending else list(self._putters)[:1]:
                if putter.waiter is not None and putter.tried != self._steps:
                    settled.append((putter.waiter, True))
                    putter.waiter = None
        return settled

    def touch(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls a method of the broker and does what follows."""
        with self._lock:
            result = function(*args, **kwargs)
            if _status(result) not in ("full", "empty"):  # what changes nothing wakes nobody for a second time
                self._steps += 1
            answers = [
                (number, (data, objects) if objects else data) for number, data, objects in self.broker.answers()
            ]
        self._after(answers)
        return result

    # --- one item at a time ---

    async def put(self, items: list[Any], timeout: float | None) -> str:
        """Accepts all or none; waits for room up to `timeout` seconds (None: for ever), in turn with those that came
        before: a batch finds room though single items come all the time. OSError: the log can't be written."""
        end = None if timeout is None else time.monotonic() + timeout
        me = _Putter()
        waits = timeout is None or timeout > 0
        waiter: Any = None
        with self._lock:
            status = "full" if self._putters else self._try_put(items, waits)
            if status == "full" and waits:
                self._putters.append(me)
                waiter = me.wait(self._steps)
        try:
            while status == "full" and waits:
                try:
                    left = None if end is None else end - time.monotonic()
                    await asyncio.wait_for(asyncio.shield(waiter), left)
                except TimeoutError:
                    break
                with self._lock:
                    if self._putters[0] is me or self._ending():
                        status = self._try_put(items, True)
                    waiter = me.wait(self._steps)
        finally:
            with self._lock:
                if me in self._putters:
                    if status == "full" and self._putters[0] is me:  # its place in the broker's line
                        self.broker.unblock()
                        self._steps += 1
                    self._putters.remove(me)
            self._after([])  # the next one's turn
        if self.log is not None and status == "ok":
            await self.durable()
        return status

    def _try_put(self, items: list[Any], waits: bool) -> str:
        if self.failure:
            raise OSError(self.failure)
        return str(self.touch(self.broker.put, items, waits))

    def _ending(self) -> bool:
        stats = self.broker.stats()
        return bool(stats["senders_closed"] or stats["receivers_closed"] or stats["deleted"] or self.failure)

    async def get(self, reader: str, timeout: float | None) -> Any:
        """One item as Broker.get gives it, waiting up to `timeout` seconds (None: for ever). OSError as of put."""
        end = None if timeout is None else time.monotonic() + timeout
        result = self._try_get(reader)
        while _status(result) == "empty" and (end is None or time.monotonic() < end):
            waiter = asyncio.get_running_loop().create_future()
            with self._lock:
                result = self._try_get(reader)
                if _status(result) != "empty":
                    break
                self._getters.append((waiter, self._steps))
            try:
                await asyncio.wait_for(asyncio.shield(waiter), None if end is None else end - time.monotonic())
            except TimeoutError:
                pass
            except BaseException:
                if not self._leave(self._getters, waiter):
                    self._after([])  # it was woken, or is about to be: somebody else's turn
                raise
            self._leave(self._getters, waiter)
            result = self._try_get(reader)
        if self.log is not None and _status(result) == "ok":
            await self.durable()
        return result

    def _try_get(self, reader: str) -> Any:
        if self.failure:
            raise OSError(self.failure)
        return self.touch(self.broker.get, reader)

    def _leave(self, queue: deque[Any], waiter: Any) -> bool:
        """False: it was not in there any more."""
        with self._lock:
            for entry in queue:
                if entry[0] is waiter:
                    queue.remove(entry)
                    return True
        return False

    async def durable(self) -> None:
        """Until all so far is on disk. OSError: it can't be written any more."""
        waiter = asyncio.get_running_loop().create_future()
        with self._lock:
            writes = not self.failure  # else nobody takes the waiter
            if writes:
                self._commits.append(waiter)
        if writes:
            self._dirty.set()
            await waiter
        if self.failure:
            raise OSError(self.failure)

    # --- time, disk ---

    def _clock(self) -> None:
        while not self._over:
            self._wake.clear()
            self._next = math.inf  # whoever touches the broker from here on wakes this
            due = self.broker.deadline()
            now = time.monotonic()
            if due is not None and due <= now:
                self.touch(self.broker.tick)
                continue
            self._next = now + 3600.0 if due is None else due
            self._wake.wait(self._next - now)

    def _write(self) -> None:
        while not self._over:
            self._dirty.wait()
            self._dirty.clear()
            with self._lock:
                entries = self._journal()
                waiters, self._commits = self._commits, []
            try:
                for data, mark in entries:
                    self.log.append(data)
                    self.touch(self.broker.committed, mark)
                if self.log.sizes()[1] > self._next_compact:
                    self._compact()
            except Exception as error:  # a disk's error is final: nothing more is confirmed
                with self._lock:
                    if self._over:  # deleted, or closed: the log was taken away
                        settle([(waiter, True) for waiter in waiters])
                        return
                    self.failure = _LOG_FAILED.format(str(error)[:90])
                    waiters += self._commits
                    self._commits = []
                self.touch(self.broker.fail, self.failure)
                self._over = True
            settle([(waiter, True) for waiter in waiters])

    def _journal(self) -> list[tuple[bytes, int]]:
        """All that the broker wants written, in parts that the log takes. The lock is held."""
        return list(iter(self.broker.journal, None))

    def _compact(self) -> None:
        """Begins the log anew when that makes it much shorter. Only the writer's thread calls this: what the log is
        given is in the order in which it happened, and no lock is held meanwhile."""
        with self._lock:
            entries = self._journal()
            snapshot = self.broker.snapshot()  # has in it what the entries say
        if 2 * len(snapshot) < self.log.sizes()[1] and len(snapshot) <= _ENTRY_MAX:
            self.log.compact(snapshot)
        else:
            for data, _ in entries:
                self.log.append(data)
        self._next_compact = max(_COMPACT, 2 * len(snapshot))
        if entries:
            self.touch(self.broker.committed, entries[-1][1])

    def close(self) -> None:
        """Ends the threads."""
        self._over = True
        self._wake.set()
        if self.log is not None:
            self._dirty.set()


def _status(result: Any) -> str:
    if isinstance(result, tuple) and result:
        result = result[0]
    return result if isinstance(result, str) else ""
