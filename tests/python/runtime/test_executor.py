# SPDX-License-Identifier: Apache-2.0
"""Executor and TaskHandle: submit, map, imap, gather; coroutines, threads, processes."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from klaw_core import Err, Ok, Result
from klaw_core.runtime import Cancelled, Executor, context, current_context
from klaw_core.runtime.channels.local import channel

pytestmark = pytest.mark.anyio
# Worker processes take a moment to start, and the loop has no part in them.
ONE_LOOP = pytest.mark.parametrize("anyio_backend", ["asyncio"])


async def double(n: int) -> int:
    await anyio.sleep(0)
    return 2 * n


def double_plain(n: int) -> int:
    return 2 * n


def odd_fails(n: int) -> Result[int, str]:
    return Err(f"{n} is odd") if n % 2 else Ok(n)


def raises_value_error(n: int) -> int:
    raise ValueError(n)


class Gate:
    """Coroutines that wait here, and how many."""

    def __init__(self) -> None:
        self.open = anyio.Event()
        self.inside = 0
        self.most = 0

    async def wait(self, value: Any = None) -> Any:
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.open.wait()
        finally:
            self.inside -= 1
        return value


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.001)


# --- submit ---
@pytest.mark.parametrize("fn", [double, double_plain])
async def test_a_handle_gives_the_value_each_time_it_is_awaited(fn: Any) -> None:
    async with Executor() as ex:
        handle = ex.submit(fn, 4)
        assert await handle == Ok(8)
        assert await handle == Ok(8)
        assert handle.exit_reason == "success"
        assert not handle.is_running()


async def test_a_handle_is_awaited_by_many() -> None:
    gate = Gate()
    got: list[Any] = []
    async with Executor() as ex, anyio.create_task_group() as group:
        handle = ex.submit(gate.wait, "x")

        async def wait() -> None:
            got.append(await handle)

        for _ in range(5):
            group.start_soon(wait)
        await until(lambda: gate.inside == 1)
        assert handle.is_running() and handle.exit_reason is None
        gate.open.set()
    assert got == [Ok("x")] * 5


async def test_arguments_and_keywords_arrive() -> None:
    async with Executor() as ex:
        assert await ex.submit(sorted, [3, 1, 2], reverse=True) == Ok([3, 2, 1])


@pytest.mark.parametrize("fn", [raises_value_error, odd_fails])
async def test_errors_are_values(fn: Any) -> None:
    async with Executor() as ex:
        handle = ex.submit(fn, 3)
        result = await handle
    assert handle.exit_reason == "error"
    match result:
        case Err(ValueError(args=(3,))) | Err("3 is odd"):
            pass
        case other:
            pytest.fail(f"{other!r}")


async def test_submitting_outside_is_refused() -> None:
    ex = Executor()
    with pytest.raises(RuntimeError, match="async with"):
        ex.submit(double, 1)
    async with ex:
        pass
    with pytest.raises(RuntimeError, match="async with"):
        ex.submit(double, 1)


async def test_an_unknown_option_of_a_task_is_refused_and_leaves_no_trace() -> None:
    async with Executor() as ex:
        with pytest.raises(ValueError, match="colour"):
            ex.submit(double, 1, backend_kwargs={"colour": "red"})
        assert await ex.submit(double, 1) == Ok(2)


async def test_leaving_waits_for_what_runs() -> None:
    ended = []

    async def slow() -> None:
        await anyio.sleep(0.01)
        ended.append("coroutine")

    def slow_plain() -> None:
        time.sleep(0.01)
        ended.append("thread")

    async with Executor() as ex:
        ex.submit(slow)
        ex.submit(slow_plain)
    assert sorted(ended) == ["coroutine", "thread"]


async def test_leaving_by_an_exception_cancels() -> None:
    gate = Gate()
    ex = Executor(concurrency=2)
    with pytest.raises(KeyError):
        async with ex:
            handles = [ex.submit(gate.wait) for _ in range(5)]
            await until(lambda: gate.inside == 2)
            raise KeyError("out")
    assert [handle.exit_reason for handle in handles] == ["cancelled"] * 5
    assert gate.inside == 0 and gate.most == 2


@pytest.mark.parametrize("plain", [False, True])
async def test_leaving_by_a_cancelled_scope_ends_everything(plain: bool) -> None:
    """The scope's cancellation strikes at every wait, also at those of the way out."""
    stop = threading.Event()
    threads = threading.active_count()
    with anyio.CancelScope() as scope:
        async with Executor(concurrency=2) as ex:
            handles = [ex.submit(stop.wait, 0.1) if plain else ex.submit(anyio.sleep, 60) for _ in range(4)]
            scope.deadline = anyio.current_time() + 0.01
            await anyio.sleep(60)
    assert scope.cancelled_caught
    assert not any(handle.is_running() for handle in handles)
    assert threading.active_count() <= threads + 1  # anyio keeps one of its own


async def test_cancelled_while_leaving_ends_everything() -> None:
    gate = Gate()
    with anyio.CancelScope() as scope:
        async with Executor() as ex:
            handle = ex.submit(gate.wait)
            scope.deadline = anyio.current_time() + 0.01
    assert handle.exit_reason == "cancelled"
    assert gate.inside == 0


# --- bounds ---
async def test_no_more_coroutines_than_the_concurrency_run() -> None:
    gate = Gate()
    async with Executor(concurrency=3) as ex:
        handles = [ex.submit(gate.wait, n) for n in range(10)]
        await until(lambda: gate.inside == 3)
        gate.open.set()
        assert [await handle for handle in handles] == [Ok(n) for n in range(10)]
    assert gate.most == 3


async def test_no_more_threads_than_the_concurrency_run() -> None:
    lock = threading.Lock()
    now = most = 0

    def work() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.001)
        with lock:
            now -= 1

    async with Executor(concurrency=3) as ex:
        for handle in [ex.submit(work) for _ in range(30)]:
            assert await handle == Ok(None)
    assert 1 <= most <= 3


# --- cancelling ---
async def test_cancel_ends_a_coroutine_with_the_first_reason() -> None:
    gate = Gate()
    async with Executor() as ex:
        handle = ex.submit(gate.wait)
        await until(lambda: gate.inside == 1)
        handle.cancel("enough")
        handle.cancel("later")
        assert await handle == Err(Cancelled("enough"))
        handle.cancel("much later")
        assert await handle == Err(Cancelled("enough"))
        assert handle.exit_reason == "cancelled"
    assert gate.inside == 0


async def test_cancel_before_the_beginning_means_never() -> None:
    gate = Gate()
    ran = []
    async with Executor(concurrency=1) as ex:
        first = ex.submit(gate.wait)
        waiting = ex.submit(gate.wait)
        waiting.cancel()
        assert await waiting == Err(Cancelled("cancelled"))
        gate.open.set()
        await first

        begun, hold = threading.Event(), threading.Event()

        def block() -> None:
            begun.set()
            hold.wait(10)

        blocking = ex.submit(block)
        plain = ex.submit(ran.append, 1)
        await until(begun.is_set)
        plain.cancel()
        assert (await plain).is_err()
        hold.set()
        await blocking
    assert gate.most == 1 and ran == []


async def test_a_function_on_a_thread_goes_on_but_nobody_waits() -> None:
    begun, hold, ended = threading.Event(), threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        hold.wait(10)
        ended.set()

    async with Executor() as ex:
        handle = ex.submit(block)
        await until(begun.is_set)
        handle.cancel("no patience")
        assert await handle == Err(Cancelled("no patience"))
        assert not ended.is_set()
        hold.set()
    assert ended.is_set(), "leaving waits for the thread"


async def test_a_cancelled_waiter_does_not_cancel_the_task() -> None:
    gate = Gate()
    async with Executor() as ex:
        handle = ex.submit(gate.wait, 1)
        await until(lambda: gate.inside == 1)
        with anyio.move_on_after(0.01) as scope:
            await handle
        assert scope.cancelled_caught and handle.is_running()
        assert not handle._waiters, "who has left is forgotten"
        gate.open.set()
        assert await handle == Ok(1)


async def test_a_task_that_swallows_its_cancellation_has_its_value() -> None:
    async def stubborn() -> str:
        try:
            await anyio.sleep(60)
        except BaseException:
            return "anyway"
        return "slept"

    async with Executor() as ex:
        handle = ex.submit(stubborn)
        await anyio.sleep(0.001)
        handle.cancel()
        assert (await handle) in (Ok("anyway"), Err(Cancelled("cancelled")))
        assert await ex.submit(double, 1) == Ok(2)


# --- map, imap, gather ---
@pytest.mark.parametrize("fn", [double, double_plain])
@pytest.mark.parametrize("size", [0, 1, 7, 500])
async def test_map_is_in_order(fn: Any, size: int) -> None:
    async with Executor(concurrency=3) as ex:
        assert await ex.map(fn, range(size)) == [Ok(2 * n) for n in range(size)]


async def test_map_has_one_result_for_each_item() -> None:
    async with Executor(concurrency=2) as ex:
        assert await ex.map(odd_fails, range(4)) == [Ok(0), Err("1 is odd"), Ok(2), Err("3 is odd")]
        results = await ex.map(raises_value_error, range(40))
    assert [result.error.args for result in results] == [(n,) for n in range(40)]


async def test_a_cancelled_map_leaves_nothing_running() -> None:
    gate = Gate()
    async with Executor(concurrency=2) as ex:
        with anyio.move_on_after(0.01):
            await ex.map(gate.wait, range(4))
        await until(lambda: gate.inside == 0)


@pytest.mark.parametrize("fn", [double, double_plain])
@pytest.mark.parametrize("ordered", [True, False])
async def test_imap_gives_everything_once(fn: Any, ordered: bool) -> None:
    async with Executor(concurrency=3) as ex:
        got = [result.unwrap() async for result in ex.imap(fn, range(50), ordered=ordered)]
    assert (got if ordered else sorted(got)) == [2 * n for n in range(50)]


async def test_imap_looks_no_further_ahead_than_it_may() -> None:
    taken = []

    def items() -> Any:
        for n in range(100):
            taken.append(n)
            yield n

    async with Executor(concurrency=2) as ex:
        results = ex.imap(double, items(), ahead=4)
        for n in range(10):
            assert await anext(results) == Ok(2 * n)
            assert len(taken) <= n + 1 + 4
        await results.aclose()
    assert len(taken) <= 14


async def test_imap_unordered_gives_the_quick_ones_first() -> None:
    gate = Gate()

    async def work(n: int) -> int:
        return await gate.wait(n) if n == 0 else n

    async with Executor(concurrency=3) as ex:
        results = ex.imap(work, range(3), ordered=False)
        assert {(await anext(results)).unwrap(), (await anext(results)).unwrap()} == {1, 2}
        gate.open.set()
        assert await anext(results) == Ok(0)
        await results.aclose()


async def test_leaving_imap_cancels_what_flies() -> None:
    gate = Gate()

    async def work(n: int) -> int:
        return await gate.wait(n) if n else n

    async with Executor(concurrency=4) as ex:
        results = ex.imap(work, range(4))
        assert await anext(results) == Ok(0)
        await results.aclose()
        await until(lambda: gate.inside == 0)


async def test_gather_takes_handles_and_awaitables() -> None:
    async with Executor() as ex:
        assert await ex.gather(ex.submit(double_plain, 1), double(2), ex.submit(double, 3)) == Ok([2, 4, 6])
        assert await ex.gather() == Ok([])


async def test_gather_ends_with_the_first_error_and_cancels_the_rest() -> None:
    gate = Gate()

    async def fail() -> Result[int, str]:
        await until(lambda: gate.inside == 2)
        return Err("no")

    async with Executor(concurrency=4) as ex:
        others = [ex.submit(gate.wait) for _ in range(2)]
        assert await ex.gather(*others, fail()) == Err("no")
        assert [(await other).error.reason for other in others] == ["another one failed"] * 2


# --- context, results ---
async def test_the_context_goes_along() -> None:
    async def here() -> str | None:
        return current_context().request_id

    async with Executor(concurrency=1) as ex:
        async with context(request_id="r1", user="ada"):
            handles = [ex.submit(here), ex.submit(_request_id_plain)]
        async with context(request_id="r2"):
            handles.append(ex.submit(_request_id_plain))
        assert [await handle for handle in handles] == [Ok("r1"), Ok("r1"), Ok("r2")]


@ONE_LOOP
async def test_the_context_goes_into_processes() -> None:
    async with Executor(workers="processes", concurrency=1) as ex:
        async with context(request_id="r1", user="ada"):
            handle = ex.submit(_request_id_plain)
        async with context(request_id="r2"):
            assert await ex.submit(_request_id_plain) == Ok("r2")
        assert await handle == Ok("r1")


def _request_id_plain() -> str | None:
    return current_context().request_id


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(jobs=st.lists(st.tuples(st.sampled_from(["value", "err", "raise", "cancel"]), st.integers(0, 3)), max_size=20))
async def test_any_mix_of_ends_is_told_one_by_one(jobs: list[tuple[str, int]]) -> None:
    async def work(end: str, steps: int) -> Any:
        for _ in range(steps):
            await anyio.sleep(0)
        if end == "raise":
            raise OSError(end)
        if end == "cancel":
            await anyio.sleep_forever()
        return Err(end) if end == "err" else end

    want = {"value": "success", "err": "error", "raise": "error", "cancel": "cancelled"}
    async with Executor(concurrency=4) as ex:
        handles = [ex.submit(work, *job) for job in jobs]
        for handle, (end, _) in zip(handles, jobs, strict=True):
            if end == "cancel":
                handle.cancel()
        for handle, (end, _) in zip(handles, jobs, strict=True):
            await handle
            assert handle.exit_reason == want[end]


async def test_tasks_and_channels_work_together() -> None:
    tx, rx = channel(4)

    def produce(k: int) -> None:
        with tx.clone() as mine:
            for n in range(200):
                mine.send_sync((k, n))

    async def consume() -> list[tuple[int, int]]:
        return [item async for item in rx]

    async with Executor(concurrency=3) as ex:
        receiving = ex.submit(consume)
        for handle in [ex.submit(produce, k) for k in range(3)]:
            assert (await handle).is_ok()
        await tx.close()
        got = (await receiving).unwrap()
    for k in range(3):
        assert [n for who, n in got if who == k] == list(range(200))


# --- processes ---
def _pid(_n: int = 0) -> int:
    return os.getpid()


def _die() -> None:
    os._exit(3)


def _touch(path: str, hold: float = 0) -> None:
    with open(path, "w") as file:
        file.write("x")
    time.sleep(hold)


@ONE_LOOP
async def test_processes_compute_elsewhere() -> None:
    async with Executor(workers="processes", concurrency=1) as ex:
        assert (await ex.submit(_pid)).unwrap() != os.getpid()
        assert await ex.submit(_pid, backend_kwargs={"workers": "threads"}) == Ok(os.getpid())
        assert await ex.map(double_plain, range(10)) == [Ok(2 * n) for n in range(10)]
        match await ex.submit(raises_value_error, 5):
            case Err(ValueError(args=(5,))):
                pass
            case other:
                pytest.fail(f"{other!r}")
        assert (await ex.submit(lambda: 1)).is_err(), "what can't be pickled is an error"


@ONE_LOOP
async def test_a_worker_that_dies_is_an_error_and_no_hang() -> None:
    async with Executor(workers="processes", concurrency=1) as ex:
        assert (await ex.submit(_die)).is_err()
        assert (await ex.submit(_pid)).is_ok(), "the next one gets a new pool"


@ONE_LOOP
async def test_a_cancelled_job_of_a_process_does_not_begin(tmp_path: Any) -> None:
    async with Executor(workers="processes", concurrency=1) as ex:
        first = ex.submit(_touch, str(tmp_path / "first"), 0.3)
        rest = [ex.submit(_touch, str(tmp_path / f"rest{n}")) for n in range(6)]
        for handle in rest:
            handle.cancel("no")
        assert [await handle for handle in rest] == [Err(Cancelled("no"))] * 6
        await first
    # A pool hands its workers one job ahead, which can't be taken back.
    assert len(list(tmp_path.glob("rest*"))) <= 2


async def test_a_stress_of_everything_at_once() -> None:
    seed = int(os.environ.get("KLAW_SEED", random.randrange(2**32)))
    print("seed", seed)
    rng = random.Random(seed)

    async def coroutine(steps: int) -> int:
        for _ in range(steps):
            await anyio.sleep(0)
        return steps

    def plain(steps: int) -> int:
        for _ in range(steps):
            time.sleep(0)
        return steps

    async with Executor(concurrency=4) as ex:
        jobs = [(steps, ex.submit(rng.choice([coroutine, plain]), steps)) for steps in rng.choices(range(5), k=300)]
        for _, handle in rng.sample(jobs, 60):
            await anyio.sleep(0)
            handle.cancel()
        for steps, handle in jobs:
            assert await handle in (Ok(steps), Err(Cancelled("cancelled")))
    assert not any(handle.is_running() for _, handle in jobs)
