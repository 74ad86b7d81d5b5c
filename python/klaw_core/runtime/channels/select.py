# SPDX-License-Identifier: Apache-2.0
"""Wait for the first item of several receivers; the others lose nothing.

>>> import asyncio
>>> from klaw_core._klaw import channel
>>> async def main() -> None:
...     tx, slow = channel(1)
...     tx2, fast = channel(1)
...     await tx2.send("x")
...     receiver, item = await select(slow, fast)
...     print(receiver is fast, item)
>>> asyncio.run(main())
True x
"""

from __future__ import annotations

from klaw_core._klaw import select

__all__ = ["select"]
