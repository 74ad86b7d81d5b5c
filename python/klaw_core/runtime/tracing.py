# SPDX-License-Identifier: Apache-2.0
"""OpenTelemetry spans of asks, handled messages, tasks and workflow steps, once the program asks for them.

The trace itself is part of klaw's context: it goes into tasks, threads, processes, actors and Ray's workers, and in and
out of the process as a traceparent header (``Context.from_traceparent``, ``Context.traceparent``).

    from opentelemetry.sdk.trace import TracerProvider
    klaw_core.runtime.use_opentelemetry(TracerProvider())

Needs opentelemetry-api: ``pip install 'klaw-core[otel]'``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from klaw_core.runtime.context import context, current_context

__all__ = ["use_opentelemetry"]

# None: nobody wants spans, and the one look at this is all that they cost.
tracer: Any = None


def use_opentelemetry(tracer_provider: Any = None, *, on: bool = True) -> None:
    """From now on asks, messages, tasks and steps are spans of this provider (None: OpenTelemetry's global one).

    A span is a child of OpenTelemetry's current span, or of the trace in klaw's context; inside, klaw's context carries
    its ids and whether it is sampled. on=False: no spans any more. ImportError without opentelemetry-api, naming what
    to install. Each process decides for itself: call it in workers, too.

    >>> use_opentelemetry(on=False)
    """
    global tracer  # noqa: PLW0603
    if not on:
        tracer = None
        return
    try:
        from opentelemetry import trace  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(f"no OpenTelemetry here ({error}); install it by: pip install 'klaw-core[otel]'") from error
    from klaw_core import _klaw  # noqa: PLC0415

    tracer = trace.get_tracer("klaw", _klaw.libklaw_version, tracer_provider)


def _parent(carried: bool) -> Any:
    """OpenTelemetry's context to begin a span in: its own, unless klaw's names another trace (or `carried` says that
    klaw's is the nearer one); then that."""
    from opentelemetry import trace  # noqa: PLC0415

    ours, theirs = current_context(), trace.get_current_span().get_span_context()
    if not ours.trace_id or not ours.span_id:
        return None
    if theirs.is_valid and not carried and f"{theirs.trace_id:032x}" == ours.trace_id:
        return None
    remote = trace.SpanContext(int(ours.trace_id, 16), int(ours.span_id, 16), True, trace.TraceFlags(ours.trace_flags))
    return trace.set_span_in_context(trace.NonRecordingSpan(remote))


@contextmanager
def span(kind: str, name: str, carried: bool = False) -> Iterator[Any]:
    """A span "kind name" around the block, current in OpenTelemetry and in klaw. With no tracer: nothing."""
    if tracer is None:
        yield None
        return
    with tracer.start_as_current_span(f"{kind} {name}", context=_parent(carried), attributes={"klaw.kind": kind}) as s:
        ids = s.get_span_context()
        with context(trace_id=f"{ids.trace_id:032x}", span_id=f"{ids.span_id:016x}", trace_flags=int(ids.trace_flags)):
            yield s


def note(s: Any, result: Any) -> None:
    """Marks the span of something that answers by a value: an Err is an error."""
    if s is not None and getattr(result, "is_err", None) is not None and result.is_err():
        from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415

        s.set_status(Status(StatusCode.ERROR, repr(result.error)))


class _Traced:
    """A function in a span; can be pickled if the function can, and traces nothing where nobody wants it."""

    def __init__(self, kind: str, name: str, function: Callable[..., Any]) -> None:
        self.kind, self.name, self.function = kind, name, function
        functools.update_wrapper(self, function, updated=())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.kind, self.name, self.function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with span(self.kind, self.name) as s:
            result = self.function(*args, **kwargs)
            note(s, result)
            return result


def traced(kind: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """function within a span each time it is called; a coroutine function stays one."""
    if not inspect.iscoroutinefunction(function):
        return _Traced(kind, name, function)

    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        with span(kind, name) as s:
            result = await function(*args, **kwargs)
            note(s, result)
            return result

    return call
