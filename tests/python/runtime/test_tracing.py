# SPDX-License-Identifier: Apache-2.0
"""OpenTelemetry spans of asks, messages, tasks and steps: who is whose child, what failed, none unless asked for."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="opentelemetry-sdk is not installed")

from klaw_core import Err, Ok  # noqa: E402
from klaw_core.runtime import (  # noqa: E402
    Context,
    Executor,
    Workflow,
    context,
    current_context,
    spawn_actor,
    use_opentelemetry,
)
from opentelemetry import trace as otel  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402

pytestmark = pytest.mark.anyio


class Spans:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = sdk.TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def __getitem__(self, name: str) -> Any:
        (found,) = [span for span in self.exporter.get_finished_spans() if span.name == name]
        return found

    def names(self) -> list[str]:
        return sorted(span.name for span in self.exporter.get_finished_spans())


@pytest.fixture
def spans() -> Iterator[Spans]:
    spans = Spans()
    use_opentelemetry(spans.provider)
    yield spans
    use_opentelemetry(on=False)


def child_of(span: Any, parent: Any) -> bool:
    return bool(span.parent.span_id == parent.context.span_id and span.context.trace_id == parent.context.trace_id)


class Echo:
    async def handle(self, msg: Any) -> Any:
        if isinstance(msg, Exception):
            raise msg
        return current_context().span_id


async def test_an_ask_and_its_handling_nest(spans: Spans) -> None:
    echo = await spawn_actor(Echo, name="echo", restart="on_failure")
    with spans.provider.get_tracer("app").start_as_current_span("request"):
        inside = (await echo.ask("x")).unwrap()
    await echo.stop()
    assert spans.names() == ["ask echo", "handle echo", "request"]
    assert child_of(spans["ask echo"], spans["request"])
    assert child_of(spans["handle echo"], spans["ask echo"])
    assert inside == f"{spans['handle echo'].context.span_id:016x}"


async def test_failures_are_errors_of_their_spans(spans: Spans) -> None:
    echo = await spawn_actor(Echo, name="echo", restart="on_failure")
    assert (await echo.ask(ValueError("no"))).is_err()
    await echo.stop()
    for name in ("ask echo", "handle echo"):
        assert spans[name].status.status_code is otel.StatusCode.ERROR
    assert spans["handle echo"].events[0].attributes["exception.message"] == "no"


async def test_tasks_on_the_loop_and_on_threads_are_children(spans: Spans) -> None:
    def plain() -> tuple[str | None, bool]:
        return current_context().span_id, threading.current_thread() is not threading.main_thread()

    async def coroutine() -> Any:
        return Err("refused")

    with context(trace_id="ab" * 16, span_id="cd" * 8):
        async with Executor() as ex:
            inside, elsewhere = (await ex.submit(plain)).unwrap()
            assert await ex.submit(coroutine) == Err("refused")
    assert elsewhere
    for name in ("plain", "coroutine"):
        (span,) = [s for s in spans.exporter.get_finished_spans() if s.name.endswith(name)]
        assert span.parent.span_id == int("cd" * 8, 16) and span.context.trace_id == int("ab" * 16, 16)
        assert (span.status.status_code is otel.StatusCode.ERROR) == (name == "coroutine")
        assert name == "coroutine" or inside == f"{span.context.span_id:016x}"


async def test_a_step_is_a_span_and_a_kept_one_is_not(spans: Spans, tmp_path: Path) -> None:
    async def fetch() -> str:
        return "page"

    for _ in range(2):
        async with Workflow("report", path=f"{tmp_path}/") as wf:
            assert await wf.step("fetch", fetch) == "page"
    assert spans.names() == ["step fetch"]


async def test_a_trace_goes_out_and_in_as_a_header(spans: Spans) -> None:
    header = "00-" + "12" * 16 + "-" + "34" * 8 + "-01"
    echo = await spawn_actor(Echo, name="echo")
    with context(Context.from_traceparent(header)):
        assert (await echo.ask("x")).is_ok()
    await echo.stop()
    assert spans["ask echo"].parent.span_id == int("34" * 8, 16)
    assert spans["ask echo"].context.trace_id == int("12" * 16, 16)


async def test_a_trace_that_is_not_sampled_stays_so_in_and_out(spans: Spans) -> None:
    class Head:
        async def handle(self, msg: Any) -> Any:
            return current_context().traceparent()

    trace = "12" * 16
    head = await spawn_actor(Head, name="head")
    with context(Context.from_traceparent(f"00-{trace}-{'34' * 8}-00")):
        inside = (await head.ask("x")).unwrap()
    assert inside.startswith(f"00-{trace}-") and inside.endswith("-00") and "34" * 8 not in inside
    with context(Context.from_traceparent(f"00-{trace}-{'34' * 8}-01")):
        assert (await head.ask("x")).unwrap().endswith("-01")
    await head.stop()
    assert spans.names() == ["ask head", "handle head"]


async def test_nothing_is_traced_unless_asked_for() -> None:
    spans = Spans()
    use_opentelemetry(spans.provider)
    use_opentelemetry(on=False)
    echo = await spawn_actor(Echo, name="echo")
    assert await echo.ask("x") == Ok(None)
    await echo.stop()
    assert spans.names() == []


def test_it_is_not_imported_unless_asked_for() -> None:
    code = "import sys, klaw_core.runtime; sys.exit('opentelemetry' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
