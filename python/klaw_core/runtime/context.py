# SPDX-License-Identifier: Apache-2.0
"""Values that travel with the work: into tasks, threads, actors and remote calls, and into each log record.

>>> with context(request_id="r1", user="ada"):
...     current_context().request_id, current_context().extra["user"]
('r1', 'ada')
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass, field, replace
from types import MappingProxyType, TracebackType
from typing import Any, Self

__all__ = ["Context", "context", "current_context"]

SAMPLED = 1
_FLAGS = 3  # those that version 00 of traceparent knows
_EMPTY: Mapping[str, Any] = MappingProxyType({})
_TRACEPARENT = re.compile(r"^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(frozen=True, slots=True)
class Context:
    """request_id: text of the caller's; trace_id, span_id: 32 and 16 hexadecimal digits (W3C trace context).

    trace_flags: bit 1, the trace is sampled (the caller may have recorded it); bit 2, its id is random.
    """

    request_id: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    extra: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)
    trace_flags: int = SAMPLED

    def __reduce__(self) -> tuple[Any, ...]:
        """It is pickled on its way to another process."""
        return _rebuild, (self.request_id, self.trace_id, self.span_id, dict(self.extra), self.trace_flags)

    def fields(self) -> dict[str, Any]:
        """What a log record takes over: the ids that are set, and the extra values.

        >>> Context(request_id="r1").fields()
        {'request_id': 'r1'}
        """
        own = {key: getattr(self, key) for key in ("request_id", "trace_id", "span_id")}
        return {**self.extra, **{key: value for key, value in own.items() if value is not None}}

    def traceparent(self) -> str | None:
        """The W3C header of this place in the trace; None outside a trace.

        >>> Context.from_traceparent("00-" + "a" * 32 + "-" + "b" * 16 + "-01").traceparent()
        '00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-01'
        """
        if not self.trace_id or not self.span_id:
            return None
        return f"00-{self.trace_id}-{self.span_id}-{self.trace_flags & _FLAGS:02x}"

    @classmethod
    def from_traceparent(cls, header: str) -> Context:
        """The context a W3C traceparent names. ValueError for one that is malformed.

        >>> Context.from_traceparent("00-" + "a" * 32 + "-" + "b" * 16 + "-00").trace_flags  # not sampled
        0
        """
        match = _TRACEPARENT.fullmatch(header)
        if not match or match[1] == "ff" or (match[1] == "00" and match[5]):
            raise ValueError(f"not a traceparent: {header!r}")
        if set(match[2]) == {"0"} or set(match[3]) == {"0"}:
            raise ValueError(f"a traceparent with an id that is all zero: {header!r}")
        return cls(trace_id=match[2], span_id=match[3], trace_flags=int(match[4], 16) & _FLAGS)


def _rebuild(
    request_id: str | None, trace_id: str | None, span_id: str | None, extra: dict[str, Any], trace_flags: int = SAMPLED
) -> Context:
    return Context(request_id, trace_id, span_id, MappingProxyType(extra) if extra else _EMPTY, trace_flags)


_current: ContextVar[Context] = ContextVar("klaw_context", default=Context())  # noqa: B039 - it is frozen


def current_context() -> Context:
    """The context of the caller; an empty one when none was entered."""
    return _current.get()


class context:
    """Enters a context: the current one with these values. Works with ``with`` and with ``async with``.

    request_id, trace_id, span_id and trace_flags are Context's; everything else goes to `extra`. new_span=True: a fresh
    span id (and a fresh trace where there is none). Another trace is sampled unless trace_flags says otherwise.
    """

    __slots__ = ("_context", "_token")

    def __init__(self, base: Context | None = None, *, new_span: bool = False, **values: Any) -> None:
        now = base if base is not None else _current.get()
        ids = {key: values.pop(key) for key in ("request_id", "trace_id", "span_id", "trace_flags") if key in values}
        if new_span:
            import secrets  # noqa: PLC0415 - it loads hashlib

            ids.setdefault("trace_id", now.trace_id or secrets.token_hex(16))
            ids["span_id"] = secrets.token_hex(8)
        if ids.get("trace_id", now.trace_id) != now.trace_id:
            ids.setdefault("trace_flags", SAMPLED)
        extra = MappingProxyType({**now.extra, **values}) if values else now.extra
        self._context = replace(now, extra=extra, **ids)
        self._token: Token[Context] | None = None

    def __enter__(self) -> Context:
        if self._token is not None:
            raise RuntimeError("this context has been entered already")
        self._token = _current.set(self._context)
        return self._context

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        token, self._token = self._token, None
        if token is not None:
            _current.reset(token)

    async def __aenter__(self) -> Context:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def __copy__(self) -> Self:
        raise TypeError("a context that is entered can't be copied")
