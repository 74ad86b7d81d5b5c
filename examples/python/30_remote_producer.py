# SPDX-License-Identifier: Apache-2.0
"""The lines of a file, into a channel on a Ray cluster that examples/c/31_remote_consumer.c receives from.

    ray start --head --node-ip-address=127.0.0.1
    31_remote_consumer lines &
    python examples/python/30_remote_producer.py lines README.md

C sees what MessagePack has a word for, so the channel says codec="msgpack"; here a str, which is klaw_text there.
"""

import asyncio
import sys
from pathlib import Path

from klaw_core.runtime import channel


async def main(name: str, file: str) -> None:
    lines = await asyncio.to_thread(Path(file).read_text)
    tx, _ = await channel(name=name, backend="ray", codec="msgpack")
    async with tx:
        sent = 0
        for line in lines.splitlines():
            await tx.send(line)
            sent += 1
    print(f"sent {sent} lines, {len(lines.split())} words")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: 30_remote_producer.py CHANNEL FILE")
    asyncio.run(main(*sys.argv[1:]))
