# SPDX-License-Identifier: Apache-2.0
"""Scopes that cancel what runs in them: by a time limit, or because somebody says so.

>>> import asyncio
>>> async def main() -> None:
...     async with cancel_scope(timeout=0.01) as scope:
...         await asyncio.sleep(10)
...     print(scope.cancelled, scope.reason)
>>> asyncio.run(main())
True deadline
"""

from __future__ import annotations

import math
from types import TracebackType
from typing import TYPE_CHECKING, Any

from klaw_core.runtime.errors import Cancelled

if TYPE_CHECKING:
    import anyio

__all__ = ["CancelScope", "cancel_scope"]


class CancelScope:
    """A part of a task that can be cancelled alone. Cancellation is level-triggered: every wait inside ends, until the
    scope is left; it does not pass the scope's border. Over anyio's scope, so it works under asyncio and trio."""

    __slots__ = ("_reason", "_scope", "_shield", "_timeout")

    def __init__(self, timeout: float | None = None, shield: bool = False) -> None:
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout has to be 0 or more seconds or None, not {timeout!r}")
        self._timeout = timeout
        self._shield = shield
        self._reason: str | None = None
        self._scope: anyio.CancelScope | None = None

    def cancel(self, reason: str = "cancelled") -> None:
        """Cancels what runs in the scope. The first reason stays. Idempotent."""
        if self._reason is None:
            self._reason = reason
        if self._scope is not None:
            self._scope.cancel()

    @property
    def cancelled(self) -> bool:
        """Whether its time has passed or somebody cancelled it."""
        return self.reason is not None

    @property
    def reason(self) -> str | None:
        """Why: the reason given, or "deadline"; None when it was not cancelled."""
        if self._reason is None and self._scope is not None and self._scope.cancel_called:
            self._reason = "deadline"
        return self._reason

    @property
    def error(self) -> Cancelled | None:
        """The same as a value for Err; None when it was not cancelled."""
        reason = self.reason
        return None if reason is None else Cancelled(reason)

    async def __aenter__(self) -> CancelScope:
        if self._scope is not None:
            raise RuntimeError("a cancel scope is entered once")
        import anyio  # noqa: PLC0415 - its backend is chosen by who runs us

        deadline = math.inf if self._timeout is None else anyio.current_time() + self._timeout
        self._scope = anyio.CancelScope(deadline=deadline, shield=self._shield)
        self._scope.__enter__()
        if self._reason is not None:
            self._scope.cancel()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._scope is not None
        return self._scope.__exit__(kind, error, trace)


def cancel_scope(timeout: float | None = None, shield: bool = False) -> Any:
    """A scope for ``async with``: cancelled after `timeout` seconds; shield=True: nothing outside cancels into it."""
    return CancelScope(timeout, shield)
