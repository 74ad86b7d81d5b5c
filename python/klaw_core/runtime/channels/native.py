# SPDX-License-Identifier: Apache-2.0
"""Channels that C code of this process shares: u64 (int) and bytes, many-to-many.

The other end is a fiber or a thread of a C extension module that links libklaw. Endpoints travel in capsules, in both
directions; ``klaw/python.h`` is C's side of it. A capsule owns one endpoint and is used once. Channels of Python
objects never leave Python.

>>> import asyncio
>>> async def main() -> None:
...     tx, rx = native_channel("bytes", 8)
...     theirs = tx.capsule()  # for a function of a C module; here Python takes it back
...     async with tx, from_capsule(theirs) as more:
...         await more.send(b"x")
...     print([item async for item in rx])
>>> asyncio.run(main())
[b'x']
"""

from __future__ import annotations

from klaw_core._klaw import NativeReceiver, NativeSender, from_capsule, native_channel

__all__ = ["NativeReceiver", "NativeSender", "from_capsule", "native_channel"]
