# SPDX-License-Identifier: Apache-2.0
"""Every receiver gets every message that is sent after it subscribed.

>>> import asyncio
>>> async def main() -> None:
...     tx, first = broadcast(8)
...     second = tx.subscribe()
...     await tx.send("x")
...     print(await first.recv(), await second.recv())
>>> asyncio.run(main())
x x
"""

from __future__ import annotations

from klaw_core._klaw import BroadcastReceiver, BroadcastSender, broadcast

__all__ = ["BroadcastReceiver", "BroadcastSender", "broadcast"]
