# SPDX-License-Identifier: Apache-2.0
"""The latest value, and who wants to know when it changes.

>>> import asyncio
>>> async def main() -> None:
...     tx, rx = watch(1)
...     await tx.send(2)
...     await rx.changed()
...     print(rx.borrow())
>>> asyncio.run(main())
2
"""

from __future__ import annotations

from klaw_core._klaw import WatchReceiver, WatchSender, watch

__all__ = ["WatchReceiver", "WatchSender", "watch"]
