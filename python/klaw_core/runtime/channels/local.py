# SPDX-License-Identifier: Apache-2.0
"""Many-to-many channels of this process.

>>> import asyncio
>>> async def main() -> None:
...     tx, rx = channel(8)
...     await tx.send("x")
...     print(await rx.recv())
>>> asyncio.run(main())
x
"""

from __future__ import annotations

from klaw_core._klaw import LocalReceiver, LocalSender, channel

__all__ = ["LocalReceiver", "LocalSender", "channel"]
