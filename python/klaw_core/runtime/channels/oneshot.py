# SPDX-License-Identifier: Apache-2.0
"""One value, once.

>>> import asyncio
>>> async def main() -> None:
...     tx, rx = oneshot()
...     await tx.send("x")
...     print(await rx.recv())
>>> asyncio.run(main())
x
"""

from __future__ import annotations

from klaw_core._klaw import OneshotReceiver, OneshotSender, oneshot

__all__ = ["OneshotReceiver", "OneshotSender", "oneshot"]
