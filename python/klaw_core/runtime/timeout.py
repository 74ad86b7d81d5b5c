# SPDX-License-Identifier: Apache-2.0
"""A time limit as a value.

>>> import asyncio
>>> async def main() -> None:
...     print(await timeout(asyncio.sleep(0, "done"), 1))
...     print(await timeout(asyncio.sleep(10), 0.01))
>>> asyncio.run(main())
Ok('done')
Err(Timeout(seconds=0.01))
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, TypeVar

from klaw_core.result import Err, Ok, Result
from klaw_core.runtime.cancel import CancelScope
from klaw_core.runtime.errors import Timeout

__all__ = ["timeout"]

T = TypeVar("T")


async def timeout(awaitable: Awaitable[T], seconds: float) -> Result[T, Timeout | Any]:
    """Awaits for at most `seconds` seconds: Ok(value), Err(Timeout) when it was cut; a Result is passed through, an
    exception of the awaitable is raised as it is. ValueError for a negative or NaN limit."""
    if not seconds >= 0:
        close = getattr(awaitable, "close", None)
        if close is not None:
            close()
        raise ValueError(f"seconds has to be 0 or more, not {seconds!r}")
    async with CancelScope(timeout=seconds) as scope:
        value = await awaitable
        return value if isinstance(value, Ok | Err) else Ok(value)
    assert scope.cancelled
    return Err(Timeout(seconds))
