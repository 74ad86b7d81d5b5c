# SPDX-License-Identifier: Apache-2.0
"""Asking an actor: a request and its reply."""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any

from cases import Clock, case, check

N = 10_000


class Adder:
    """The actor: keeps a sum."""

    def __init__(self) -> None:
        self.sum = 0

    async def handle(self, msg: int) -> int:
        """Adds; the sum."""
        self.sum += msg
        return self.sum


@case("py_ask", "klaw", "klaw_core.runtime")
async def _(klaw: ModuleType) -> float:
    ref = await klaw.spawn_actor(Adder)
    last: Any = None
    with Clock(N) as c:
        for i in range(N):
            last = await ref.ask(i)
    await ref.stop()
    check(last, klaw.Ok(N * (N - 1) // 2))
    return c.ns


@case("py_ask", "queue+future")
async def _() -> float:
    mailbox: asyncio.Queue[tuple[int, asyncio.Future[int]] | None] = asyncio.Queue(1024)

    async def serve() -> None:
        adder = Adder()
        while (item := await mailbox.get()) is not None:
            item[1].set_result(await adder.handle(item[0]))

    task = asyncio.create_task(serve())
    loop = asyncio.get_running_loop()
    last = 0
    with Clock(N) as c:
        for i in range(N):
            reply = loop.create_future()
            await mailbox.put((i, reply))
            last = await reply
    await mailbox.put(None)
    await task
    check(last, N * (N - 1) // 2)
    return c.ns


@case("py_ask", "pykka", "pykka")
def _(pykka: ModuleType) -> float:
    class Thread(pykka.ThreadingActor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.sum = 0

        def on_receive(self, message: int) -> int:
            self.sum += message
            return self.sum

    n = 2_000
    ref = Thread.start()
    last = 0
    with Clock(n) as c:
        for i in range(n):
            last = ref.ask(i)
    ref.stop()
    check(last, n * (n - 1) // 2)
    return c.ns
