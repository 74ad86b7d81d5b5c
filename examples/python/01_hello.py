# SPDX-License-Identifier: Apache-2.0
"""A channel, two tasks: one sends, the other one receives until the channel is closed."""

import asyncio

from klaw_core.runtime import Sender, channel


async def count(tx: Sender[int]) -> None:
    async with tx:  # closed at the end: the receiver's loop ends
        for i in range(10):
            await tx.send(i)  # waits when the channel is full


async def main() -> None:
    tx, rx = await channel(capacity=4, value_type=int)
    sending = asyncio.create_task(count(tx))
    received = [item async for item in rx]
    await sending
    print(received)
    assert received == list(range(10))
    assert rx.stats().high_watermark <= 4


asyncio.run(main())
