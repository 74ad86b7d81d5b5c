# SPDX-License-Identifier: Apache-2.0
"""Values that travel with the work, and the log records they get into."""

from __future__ import annotations

import copy
import json
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from klaw_core import Ok
from klaw_core.runtime import Context, Executor, add_hook, context, current_context, get_logger, init, spawn_actor
from klaw_core.runtime._logging import with_level

pytestmark = pytest.mark.anyio


def test_there_is_always_one_and_it_is_empty() -> None:
    assert current_context() == Context()
    assert current_context().fields() == {}


def test_it_nests_and_ends() -> None:
    with context(request_id="r1", user="ada"):
        with context(user="bob", place="here") as inner:
            assert inner is current_context()
            assert inner.request_id == "r1"
            assert inner.extra == {"user": "bob", "place": "here"}
        assert current_context().extra == {"user": "ada"}
    assert current_context() == Context()


def test_it_ends_by_an_exception_too() -> None:
    with pytest.raises(KeyError), context(request_id="r1"):
        raise KeyError
    assert current_context() == Context()


def test_it_can_not_be_changed() -> None:
    with context(user="ada") as now:
        with pytest.raises(AttributeError):
            now.request_id = "x"  # type: ignore[misc]
        with pytest.raises(TypeError):
            now.extra["user"] = "bob"  # type: ignore[index]


def test_one_is_entered_once_at_a_time() -> None:
    here = context(request_id="r1")
    with here, pytest.raises(RuntimeError, match="already"):
        here.__enter__()
    assert current_context() == Context()


def test_it_is_pickled_and_copied() -> None:
    with context(request_id="r1", user="ada") as now:
        for other in (pickle.loads(pickle.dumps(now)), copy.deepcopy(now)):
            assert other == now
            with pytest.raises(TypeError):
                other.extra["user"] = "bob"


ids = st.text("0123456789abcdef", min_size=32, max_size=32).filter(lambda text: set(text) != {"0"})


@given(
    trace=ids, span=ids.map(lambda text: text[:16]).filter(lambda text: set(text) != {"0"}), flags=st.integers(0, 255)
)
def test_a_traceparent_goes_round(trace: str, span: str, flags: int) -> None:
    there = Context.from_traceparent(f"00-{trace}-{span}-{flags:02x}")
    assert there.traceparent() == f"00-{trace}-{span}-{flags & 3:02x}"
    assert pickle.loads(pickle.dumps(there)) == there


def test_whether_it_is_sampled_stays_with_the_trace() -> None:
    header = "00-" + "a" * 32 + "-" + "b" * 16 + "-00"
    with context(Context.from_traceparent(header)), context(new_span=True, user="ada") as inner:
        assert inner.trace_flags == 0 and (inner.traceparent() or "").endswith("-00")
        with context(trace_id="c" * 32, span_id="d" * 16) as other:
            assert other.trace_flags == 1
        with context(trace_flags=1) as decided:
            assert decided.trace_id == "a" * 32 and decided.trace_flags == 1


@pytest.mark.parametrize(
    "header",
    ["", "x", "00-" + "0" * 32 + "-" + "b" * 16 + "-01", "00-" + "a" * 32 + "-" + "0" * 16 + "-01",
     "ff-" + "a" * 32 + "-" + "b" * 16 + "-01", "00-" + "A" * 32 + "-" + "b" * 16 + "-01",
     "00-" + "a" * 32 + "-" + "b" * 16 + "-01-more", "00-" + "a" * 32 + "-" + "b" * 16 + "-01\n"],
)  # fmt: skip
def test_a_malformed_traceparent_is_refused(header: str) -> None:
    with pytest.raises(ValueError):
        Context.from_traceparent(header)


def test_a_new_span_keeps_the_trace() -> None:
    with context(new_span=True) as outer, context(new_span=True) as inner:
        assert outer.trace_id and inner.trace_id == outer.trace_id
        assert outer.span_id != inner.span_id
        assert Context.from_traceparent(inner.traceparent() or "").span_id == inner.span_id


async def test_async_with_works_as_with() -> None:
    async with context(request_id="r1") as now:
        await anyio.sleep(0)
        assert current_context() is now
    assert current_context() == Context()


async def test_tasks_side_by_side_have_their_own() -> None:
    seen = {}

    async def work(n: int) -> None:
        with context(request_id=str(n)):
            for _ in range(5):
                await anyio.sleep(0)
                assert current_context().request_id == str(n)
            seen[n] = current_context().request_id

    async with anyio.create_task_group() as group:
        for n in range(10):
            group.start_soon(work, n)
    assert seen == {n: str(n) for n in range(10)}


async def test_it_goes_into_coroutines_and_threads_of_an_executor() -> None:
    def plain() -> tuple[str | None, str]:
        with context(inner=True):
            return current_context().request_id, threading.current_thread().name

    async def coroutine() -> str | None:
        return current_context().request_id

    async with Executor(concurrency=1) as ex:
        handles = []
        for name in ("a", "b", None):
            with context(request_id=name):
                handles.append((name, ex.submit(plain), ex.submit(coroutine)))
        for name, on_thread, on_loop in handles:
            where = (await on_thread).unwrap()
            assert where[0] == name and where[1].startswith("klaw-executor")
            assert await on_loop == Ok(name)


async def test_a_message_carries_its_senders_context_and_not_the_actors() -> None:
    class Who:
        async def handle(self, msg: str) -> str | None:
            return current_context().request_id

    with context(request_id="maker"):
        ref = await spawn_actor(Who)
    with context(request_id="asker"):
        assert await ref.ask("who") == Ok("asker")
    assert await ref.ask("who") == Ok(None)
    await ref.stop()


# --- logging ---
@pytest.fixture
def records() -> Iterator[list[dict[str, Any]]]:
    kept: list[dict[str, Any]] = []
    remove = add_hook(kept.append)
    with_level("info")
    yield kept
    remove()
    with_level(None)


def test_it_is_silent_by_default(capfd: pytest.CaptureFixture[str]) -> None:
    log = get_logger("silent")
    log.error("nobody hears")
    log.bind(a=1).info("nor this")
    assert capfd.readouterr() == ("", "")


def test_a_record_has_the_context(records: list[dict[str, Any]], capfd: pytest.CaptureFixture[str]) -> None:
    with context(request_id="r1", trace_id="t" * 32, user="ada"):
        get_logger("web").warning("slow", ms=12)
    get_logger("web").info("after")
    record, after = records
    assert {
        "event": "slow",
        "request_id": "r1",
        "trace_id": "t" * 32,
        "user": "ada",
        "ms": 12,
    }.items() <= record.items()
    assert record["level"] == "warning" and record["logger"] == "web" and "timestamp" in record
    assert "request_id" not in after
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["slow", "after"]


def test_what_is_logged_beats_the_context(records: list[dict[str, Any]]) -> None:
    with context(user="ada"):
        get_logger().info("x", user="bob")
    assert records[0]["user"] == "bob"


def test_below_the_level_nothing_is_written(records: list[dict[str, Any]]) -> None:
    log = get_logger()
    log.debug("no")
    with_level("debug")
    log.debug("yes")
    with_level("error")
    log.warning("no")
    assert [record["event"] for record in records] == ["yes"]


def test_a_logger_made_before_init_obeys_it(capfd: pytest.CaptureFixture[str]) -> None:
    log = get_logger("early").bind(part="a")
    log.info("not yet")
    init(log_level="info")
    log.info("now")
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [(line["event"], line["part"], line["logger"]) for line in lines] == [("now", "a", "early")]


def test_a_wrong_level_is_refused_with_the_right_ones() -> None:
    with pytest.raises(ValueError, match="error"):
        with_level("loud")


def test_a_hook_that_fails_breaks_nothing(records: list[dict[str, Any]], capfd: pytest.CaptureFixture[str]) -> None:
    def bad(_record: dict[str, Any]) -> None:
        raise OSError("hook")

    remove = add_hook(bad)
    get_logger().info("x")
    remove()
    remove()
    assert "hook" in capfd.readouterr().err
    assert [record["event"] for record in records] == ["x"]


def test_values_that_json_does_not_know_are_written_as_they_look(
    records: list[dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    get_logger().info("x", what={1, 2}, error=ValueError("v"))
    assert "ValueError" in capfd.readouterr().err


async def test_records_of_tasks_have_the_context_of_their_submitter(records: list[dict[str, Any]]) -> None:
    async with Executor() as ex:
        with context(request_id="r7"):
            handle = ex.submit(get_logger("task").info, "inside")
        assert (await handle).is_ok()
    assert records[0]["request_id"] == "r7"
