# SPDX-License-Identifier: Apache-2.0
"""A Result that is still on its way, to be combined before it is awaited.

>>> import asyncio
>>> async def half(n: int) -> Result[int, str]:
...     return Err("odd") if n % 2 else Ok(n // 2)
>>> asyncio.run(AsyncResult(half(8)).and_then(half).map(str).run())
Ok('2')
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, TypeVar

from klaw_core.result import Err, Ok, Result

__all__ = ["AsyncResult"]

T = TypeVar("T")
E = TypeVar("E")
U = TypeVar("U")


async def _value(value: Any) -> Any:
    """What a function gave that may have been a coroutine function."""
    return await value if inspect.isawaitable(value) else value


class AsyncResult(Generic[T, E]):
    """Around an awaitable of a Result (anything else it gives becomes Ok). Each method gives a new one; functions may
    be plain or coroutine functions. Awaited once, like the coroutine it holds."""

    __slots__ = ("_awaitable",)

    def __init__(self, awaitable: Awaitable[Result[T, E] | T]) -> None:
        self._awaitable = awaitable

    @classmethod
    def ok(cls, value: U) -> AsyncResult[U, Any]:
        """One that is Ok(value).

        >>> import asyncio
        >>> asyncio.run(AsyncResult.ok(1).run())
        Ok(1)
        """
        return AsyncResult(_value(Ok(value)))

    @classmethod
    def err(cls, error: U) -> AsyncResult[Any, U]:
        """One that is Err(error).

        >>> import asyncio
        >>> asyncio.run(AsyncResult.err("no").unwrap_or(0))
        0
        """
        return AsyncResult(_value(Err(error)))

    async def run(self) -> Result[T, E]:
        """The Result, as a coroutine: what ``await`` gives."""
        value = await self._awaitable
        return value if isinstance(value, Ok | Err) else Ok(value)

    def __await__(self) -> Generator[Any, Any, Result[T, E]]:
        return self.run().__await__()

    def map(self, f: Callable[[T], Any]) -> AsyncResult[Any, E]:
        """Ok(f(value)); an Err passes."""

        async def go() -> Any:
            result: Any = await self.run()
            return Ok(await _value(f(result.value))) if result.is_ok() else result

        return AsyncResult(go())

    def map_err(self, f: Callable[[E], Any]) -> AsyncResult[T, Any]:
        """Err(f(error)); an Ok passes."""

        async def go() -> Any:
            result: Any = await self.run()
            return result if result.is_ok() else Err(await _value(f(result.error)))

        return AsyncResult(go())

    def and_then(self, f: Callable[[T], Any]) -> AsyncResult[Any, Any]:
        """f(value), itself a Result; an Err passes."""

        async def go() -> Any:
            result: Any = await self.run()
            return await _value(f(result.value)) if result.is_ok() else result

        return AsyncResult(go())

    def or_else(self, f: Callable[[E], Any]) -> AsyncResult[Any, Any]:
        """f(error), itself a Result; an Ok passes."""

        async def go() -> Any:
            result: Any = await self.run()
            return result if result.is_ok() else await _value(f(result.error))

        return AsyncResult(go())

    async def is_ok(self) -> bool:
        """Whether it is Ok."""
        return (await self.run()).is_ok()

    async def is_err(self) -> bool:
        """Whether it is Err."""
        return (await self.run()).is_err()

    async def unwrap(self) -> T:
        """The value; else raises what the error is, as Result.unwrap."""
        return (await self.run()).unwrap()

    async def expect(self, message: object) -> T:
        """The value; else raises UnwrapError with this message."""
        return (await self.run()).expect(message)

    async def unwrap_or(self, default: U) -> T | U:
        """The value, or the default."""
        result: Any = await self.run()
        value: T | U = result.unwrap_or(default)
        return value

    async def unwrap_or_else(self, f: Callable[[E], Any]) -> Any:
        """The value, or f(error)."""
        result: Any = await self.run()
        return result.value if result.is_ok() else await _value(f(result.error))
