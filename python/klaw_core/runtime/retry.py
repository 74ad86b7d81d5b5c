# SPDX-License-Identifier: Apache-2.0
"""Try again, with pauses that libklaw's backoff computes; tenacity does the trying.

>>> import asyncio
>>> from klaw_core.result import Err, Ok
>>> answers = [Err("busy"), Err("busy"), Ok(3)]
>>> async def ask() -> object:
...     return answers.pop(0)
>>> asyncio.run(retry(ask, attempts=3, backoff=0))
Ok(3)

As a decorator, for coroutine functions and for plain ones:

>>> @retry(attempts=2, backoff=0)
... def fails() -> None:
...     raise OSError("no")
>>> fails()
Traceback (most recent call last):
    ...
OSError: no
"""

from __future__ import annotations

import functools
import inspect
import random
from collections.abc import Callable
from typing import Any, Literal

from klaw_core import _klaw
from klaw_core.result import Err

__all__ = ["retry"]

_KINDS = {"exponential": 0, "constant": 1, "linear": 2}
_JITTERS = {"full": 0, "none": 1, "equal": 2}

RetryOn = Callable[[Any], bool] | type[BaseException] | tuple[type[BaseException], ...] | None


def _predicate(retry_on: RetryOn) -> Callable[[Any], bool]:
    """Of an outcome: the error of an Err, or an exception. Default: every Err, every Exception."""
    if retry_on is None:
        return lambda _error: True
    if isinstance(retry_on, type | tuple):
        return lambda error: isinstance(error, retry_on)
    return retry_on


def retry(
    fn: Callable[..., Any] | None = None,
    *args: Any,
    attempts: int | None = 3,
    backoff: float = 0.1,
    max_delay: float | None = 30.0,
    jitter: bool | Literal["full", "equal", "none"] = "full",
    kind: Literal["exponential", "linear", "constant"] = "exponential",
    factor: float = 2.0,
    retry_on: RetryOn = None,
    total: float | None = None,
) -> Any:
    """Calls ``fn(*args)`` until it returns no Err and raises nothing; awaitable when fn is a coroutine
    function or gives an awaitable. Without fn: a decorator.

    attempts: calls at most (None: no bound). backoff: seconds before the second one; kind and factor: how it grows, to
    max_delay seconds at most (None: no bound); jitter: how chance spreads it (True is "full"). retry_on: which errors
    are tried again: exception types, or a predicate of the error (of an Err: what it holds). total: no attempt begins
    later than so many seconds after the first.

    When it gives up it returns the last Err, or raises the last exception. A cancellation is never tried again.
    """
    if attempts is not None and attempts < 1:
        raise ValueError(f"attempts has to be 1 or more or None, not {attempts!r}")
    if not backoff >= 0 or (max_delay is not None and not max_delay >= 0) or (total is not None and not total >= 0):
        raise ValueError(f"times have to be 0 or more seconds: {backoff=}, {max_delay=}, {total=}")
    spread = "full" if jitter is True else "none" if jitter is False else jitter
    if kind not in _KINDS or spread not in _JITTERS:
        raise ValueError(f"kind has to be one of {', '.join(_KINDS)}, jitter one of {', '.join(_JITTERS)}")
    limits = (_KINDS[kind], _JITTERS[spread], float(backoff), -1.0 if max_delay is None else float(max_delay), factor)
    _klaw.backoff_delay(*limits, 1, 0)  # refuses what makes no sense now and not at the first failure
    wanted = _predicate(retry_on)

    def options() -> dict[str, Any]:
        import tenacity  # noqa: PLC0415 - only who retries pays for it

        stop: Any = tenacity.stop_never if attempts is None else tenacity.stop_after_attempt(attempts)
        if total is not None:
            stop = stop | tenacity.stop_before_delay(total)
        return {
            "stop": stop,
            "wait": lambda state: _klaw.backoff_delay(*limits, state.attempt_number, random.getrandbits(64)),
            "retry": tenacity.retry_if_exception(lambda e: isinstance(e, Exception) and wanted(e))
            | tenacity.retry_if_result(lambda r: isinstance(r, Err) and wanted(r.error)),
            "retry_error_callback": lambda state: state.outcome.result(),
        }

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        async def later(first: list[Any], a: Any, k: Any) -> Any:
            """Awaits what each call gives; `first` holds what the first one gave, if it was made already."""
            import anyio  # noqa: PLC0415
            import tenacity  # noqa: PLC0415

            async def call() -> Any:
                return await (first.pop() if first else function(*a, **k))

            return await tenacity.AsyncRetrying(sleep=anyio.sleep, **options())(call)

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def again(*a: Any, **k: Any) -> Any:
                return await later([], a, k)

            return again

        @functools.wraps(function, ("__module__", "__name__", "__qualname__", "__doc__"), ())
        def again_sync(*a: Any, **k: Any) -> Any:
            import tenacity  # noqa: PLC0415

            value = tenacity.Retrying(**options())(function, *a, **k)
            return later([value], a, k) if inspect.isawaitable(value) else value

        return again_sync

    return wrap if fn is None else wrap(fn)(*args)
