# SPDX-License-Identifier: Apache-2.0
"""Threads and an event loop on the same channel; functions on threads by an executor, results in order."""

import asyncio
import threading

from klaw_core import Ok
from klaw_core.runtime import Executor, channel


async def main() -> None:
    tx, rx = await channel(16, value_type=int)

    def produce(first: int) -> None:
        with_own = tx.clone()
        for i in range(first, first + 100):
            with_own.send_sync(i)
        with_own.close_sync()

    threads = [threading.Thread(target=produce, args=(first,)) for first in (0, 100, 200)]
    for thread in threads:
        thread.start()
    received = [await rx.recv() for _ in range(300)]
    for thread in threads:
        thread.join()
    assert sorted(received) == list(range(300))
    assert [n for n in received if n < 100] == list(range(100))  # each sender's items come in its order

    async with Executor(concurrency=4) as ex:
        lengths = await ex.map(len, ["a", "bb", "ccc"])
    print(len(received), lengths)
    assert lengths == [Ok(1), Ok(2), Ok(3)]


asyncio.run(main())
