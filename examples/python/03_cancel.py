# SPDX-License-Identifier: Apache-2.0
"""Cancelling: by a scope, by a time limit, by a handle. An item is never lost, whenever the cancellation lands."""

import asyncio

from klaw_core import Err, Ok
from klaw_core.runtime import Cancelled, Executor, Timeout, cancel_scope, channel, timeout


async def main() -> None:
    tx, rx = await channel(100, value_type=int)

    async with cancel_scope(timeout=0.01) as scope:
        await rx.recv()
    assert scope.cancelled

    assert await timeout(rx.recv(), 0.01) == Err(Timeout(0.01))
    assert await timeout(asyncio.sleep(0, "done"), 10) == Ok("done")

    async with Executor() as ex:
        task = ex.submit(rx.recv)
        task.cancel("not needed any more")
        assert await task == Err(Cancelled("not needed any more"))

    # Receivers that are cancelled again and again, while items arrive.
    received = []

    async def receive() -> None:
        received.append(await rx.recv())

    for i in range(100):
        task_ = asyncio.create_task(receive())
        await asyncio.sleep(0)
        await tx.send(i)
        if i % 3 == 0:
            task_.cancel()
        await asyncio.wait([task_])
    await tx.close()
    received += [item async for item in rx]
    print(len(received), "items, none lost")
    assert sorted(received) == list(range(100))


asyncio.run(main())
