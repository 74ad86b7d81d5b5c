# SPDX-License-Identifier: Apache-2.0
"""Pools of like actors.

>>> import asyncio
>>> class Square:
...     async def handle(self, msg: int) -> int:
...         return msg * msg
>>> async def main() -> None:
...     async with await actor_pool(Square, 2) as pool:
...         print(await pool.map([1, 2, 3]))
>>> asyncio.run(main())
[Ok(1), Ok(4), Ok(9)]
"""

from __future__ import annotations

import itertools
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from klaw_core.result import Err, Result
from klaw_core.runtime.actor import ActorRef, Restart, spawn_actor
from klaw_core.runtime.errors import ActorStopped, ActorStoppedError

if TYPE_CHECKING:
    import anyio

__all__ = ["ActorPool", "actor_pool"]

M = TypeVar("M")
R = TypeVar("R")

PoolStrategy = Literal["round_robin", "least_loaded"]


class ActorPool(Generic[M, R]):
    """Made by :func:`actor_pool`; leaving it as a context by an exception kills its members. A member that fails is
    restarted by its policy, one that ended is replaced."""

    def __init__(self, actor: Any, strategy: PoolStrategy, options: dict[str, Any]) -> None:
        if strategy not in ("round_robin", "least_loaded"):
            raise ValueError(f"strategy has to be 'round_robin' or 'least_loaded', not {strategy!r}")
        self._actor = actor
        self._strategy = strategy
        self._options = options
        self._members: list[ActorRef[M, R]] = []
        self._turn = itertools.count()
        self._closed = False
        self._replaced = 0
        self._lock: anyio.Lock | None = None

    @property
    def members(self) -> list[ActorRef[M, R]]:
        """The actors, in no particular order."""
        return list(self._members)

    @property
    def replaced(self) -> int:
        """Members that ended for good and were replaced."""
        return self._replaced

    def __len__(self) -> int:
        return len(self._members)

    def _changing(self) -> anyio.Lock:
        """Held while members are made or taken away, which waits: one at a time does it."""
        if self._lock is None:
            import anyio  # noqa: PLC0415

            self._lock = anyio.Lock()
        return self._lock

    async def _pick(self) -> ActorRef[M, R]:
        if self._closed:
            raise ActorStoppedError("pool", "stopped")
        if not all(member.is_alive for member in self._members):
            async with self._changing():
                for at, member in enumerate(self._members):
                    if not member.is_alive and not self._closed:
                        self._members[at] = await spawn_actor(self._actor, **self._options)
                        self._replaced += 1
            if self._closed:
                raise ActorStoppedError("pool", "stopped")
        if self._strategy == "least_loaded":
            return min(self._members, key=lambda member: member._load)
        return self._members[next(self._turn) % len(self._members)]

    async def send(self, msg: M) -> None:
        """To one member, waiting for room in its mailbox. ActorStoppedError when the pool is stopped."""
        while True:
            member = await self._pick()
            try:
                await member.send(msg)
            except ActorStoppedError:
                if self._closed:
                    raise
                continue  # it has just ended: the next one
            return

    async def ask(self, msg: M, timeout: float | None = None) -> Result[R, Any]:
        """Asks one member."""
        try:
            member = await self._pick()
        except ActorStoppedError as error:
            return Err(error.to_struct())
        return await member.ask(msg, timeout)

    async def map(self, messages: list[M], timeout: float | None = None) -> list[Result[R, Any]]:
        """Asks the members with all messages, each member with one after the other; answers in order."""
        import anyio  # noqa: PLC0415

        answers: list[Result[R, Any]] = [Err(ActorStopped("pool"))] * len(messages)
        work = iter(enumerate(messages))

        async def run() -> None:
            for at, message in work:
                answers[at] = await self.ask(message, timeout)

        async with anyio.create_task_group() as group:
            for _ in range(min(len(messages), 2 * len(self._members))):
                group.start_soon(run)
        return answers

    async def broadcast(self, msg: M) -> None:
        """Sends to every member that runs."""
        for member in self.members:
            if member.is_alive:
                await member.send(msg)

    async def resize(self, size: int) -> None:
        """Grows, or shrinks: members that go handle what is in their mailboxes first."""
        if size < 1:
            raise ValueError(f"size has to be 1 or more, not {size}")
        async with self._changing():
            while len(self._members) < size:
                self._members.append(await spawn_actor(self._actor, **self._options))
            gone, self._members = self._members[size:], self._members[:size]
        for member in gone:
            await member.stop()

    async def stop(self) -> None:
        """Ends all members after they have handled their mailboxes. Idempotent."""
        self._closed = True
        async with self._changing():
            for member in self.members:
                await member.stop()

    async def __aenter__(self) -> ActorPool[M, R]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.stop()
        else:
            await self._kill()

    async def _kill(self) -> None:
        import anyio  # noqa: PLC0415

        self._closed = True
        with anyio.CancelScope(shield=True):
            for member in self.members:
                await member.kill()


async def actor_pool(
    actor: Any,
    size: int,
    strategy: PoolStrategy = "round_robin",
    *,
    restart: Restart = "on_failure",
    **options: Any,
) -> ActorPool[Any, Any]:
    """Starts `size` actors; options as spawn_actor, for each of them."""
    pool: ActorPool[Any, Any] = ActorPool(actor, strategy, {**options, "restart": restart})
    try:
        await pool.resize(size)
    except BaseException:
        await pool._kill()
        raise
    return pool
