# SPDX-License-Identifier: Apache-2.0
"""The numbers that examples/c/30_remote_producer.c sends, received by as many of these as are started: each by one.

    ray start --head --node-ip-address=127.0.0.1
    python examples/python/31_remote_consumer.py readings &
    python examples/python/31_remote_consumer.py readings &
    30_remote_producer readings 1000

A number counts as received when the next one is asked for. Were a consumer killed before, another one would get it.
"""

import asyncio
import sys

from klaw_core.runtime import channel


async def main(name: str) -> None:
    _, rx = await channel(name=name, backend="ray", codec="msgpack")
    count = total = 0
    async for number in rx:  # ends when the last sender has closed and nothing is left
        count += 1
        total += number
    await rx.close()
    print(f"received {count} numbers, their sum is {total}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: 31_remote_consumer.py CHANNEL")
    asyncio.run(main(sys.argv[1]))
