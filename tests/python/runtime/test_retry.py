# SPDX-License-Identifier: Apache-2.0
"""retry: how often, when, on what."""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from klaw_core import Err, Ok, Result, _klaw
from klaw_core.runtime import retry

pytestmark = pytest.mark.anyio


class Flaky:
    """Fails so many times, then succeeds."""

    def __init__(self, failures: int, error: Any = "busy") -> None:
        self.failures = failures
        self.error = error
        self.calls = 0

    def plain(self) -> Result[int, Any]:
        self.calls += 1
        if self.calls > self.failures:
            return Ok(self.calls)
        if isinstance(self.error, BaseException):
            raise self.error
        return Err(self.error)

    async def later(self) -> Result[int, Any]:
        await anyio.sleep(0)
        return self.plain()


async def cancelled_when(reached: Callable[[], bool], work: Callable[[], Awaitable[Any]]) -> None:
    """Cancels the work when it has got there; it ends by that and by nothing else."""
    async with anyio.create_task_group() as group:
        scope = anyio.CancelScope()

        async def run() -> None:
            with scope:
                await work()

        group.start_soon(run)
        with anyio.fail_after(10):
            while not reached():
                await anyio.sleep(0.001)
        scope.cancel()
    assert scope.cancelled_caught


async def test_an_err_is_tried_again() -> None:
    flaky = Flaky(2)
    assert await retry(flaky.later, attempts=3, backoff=0) == Ok(3)


async def test_giving_up_returns_the_last_err() -> None:
    flaky = Flaky(9)
    assert await retry(flaky.later, attempts=4, backoff=0) == Err("busy")
    assert flaky.calls == 4


async def test_giving_up_raises_the_last_exception_itself() -> None:
    error = OSError("no")
    flaky = Flaky(9, error)
    with pytest.raises(OSError, match="no") as caught:
        await retry(flaky.later, attempts=2, backoff=0)
    assert caught.value is error
    assert flaky.calls == 2


def test_plain_functions_are_tried_here_and_now() -> None:
    assert retry(Flaky(2).plain, attempts=3, backoff=0) == Ok(3)


def call(flaky: Flaky, how: str) -> Any:
    """The same coroutine function in the shapes that callers have."""

    class Callable:
        async def __call__(self) -> Any:
            return await flaky.later()

    return {
        "method": flaky.later,
        "partial": functools.partial(Flaky.later, flaky),
        "lambda": lambda: flaky.later(),
        "object": Callable(),
    }[how]


@pytest.mark.parametrize("how", ["method", "partial", "lambda", "object"])
async def test_whatever_gives_an_awaitable_is_tried_again(how: str) -> None:
    flaky = Flaky(2)
    assert await retry(call(flaky, how), attempts=3, backoff=0) == Ok(3)
    flaky = Flaky(9, OSError("no"))
    with pytest.raises(OSError, match="no"):
        await retry(call(flaky, how), attempts=3, backoff=0)
    assert flaky.calls == 3


async def test_arguments_go_along() -> None:
    async def add(a: int, b: int) -> int:
        return a + b

    assert await retry(add, 1, 2) == 3
    assert await retry(attempts=2)(add)(1, b=2) == 3


async def test_as_a_decorator_it_keeps_the_name_and_counts_for_each_call() -> None:
    calls = []

    @retry(attempts=2, backoff=0)
    async def fetch(n: int) -> Result[int, str]:
        "Fetches."
        calls.append(n)
        return Err("no")

    assert (fetch.__name__, fetch.__doc__) == ("fetch", "Fetches.")
    assert await fetch(1) == await fetch(2) == Err("no")
    assert calls == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("retry_on", "error", "calls"),
    [
        (OSError, OSError(), 3),
        (OSError, ConnectionError(), 3),
        (OSError, ValueError(), 1),
        ((OSError, KeyError), KeyError(), 3),
        (lambda error: error == "busy", "busy", 3),
        (lambda error: error == "busy", "broken", 1),
        (OSError, "busy", 1),
        (None, "anything", 3),
    ],
)
async def test_only_what_is_wanted_is_tried_again(retry_on: Any, error: Any, calls: int) -> None:
    flaky = Flaky(9, error)
    try:
        result = await retry(flaky.later, attempts=3, backoff=0, retry_on=retry_on)
    except Exception as raised:
        assert raised is error
    else:
        assert result == Err(error)
    assert flaky.calls == calls


async def test_an_err_that_holds_an_exception_is_judged_by_it() -> None:
    calls = []

    async def work() -> Result[int, Exception]:
        calls.append(1)
        return Err(ValueError())

    assert (await retry(work, attempts=3, backoff=0, retry_on=OSError)).is_err()
    assert len(calls) == 1


async def test_a_cancellation_is_never_tried_again() -> None:
    calls = []

    async def work() -> None:
        calls.append(1)
        await anyio.sleep(60)

    await cancelled_when(lambda: len(calls) == 1, lambda: retry(work, attempts=None, backoff=0))
    assert len(calls) == 1


async def test_the_pause_is_a_cancel_point() -> None:
    flaky = Flaky(9)
    await cancelled_when(lambda: flaky.calls == 1, lambda: retry(flaky.later, backoff=60, jitter=False))
    assert flaky.calls == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_what_ends_the_program_is_never_tried_again(error: BaseException) -> None:
    flaky = Flaky(9, error)
    with pytest.raises(type(error)):
        retry(flaky.plain, attempts=5, backoff=0)
    assert flaky.calls == 1


async def test_without_a_bound_it_goes_on() -> None:
    assert await retry(Flaky(50).later, attempts=None, backoff=0) == Ok(51)


async def test_in_total_no_attempt_begins_too_late() -> None:
    flaky = Flaky(1000)
    begin = time.monotonic()
    assert (await retry(flaky.later, attempts=None, backoff=0.01, kind="constant", jitter=False, total=0.05)).is_err()
    assert 1 <= flaky.calls <= 6
    assert time.monotonic() - begin < 30


@pytest.mark.parametrize(
    "options",
    [
        {"attempts": 0},
        {"attempts": -1},
        {"backoff": -1},
        {"backoff": float("nan")},
        {"factor": 0.5},
        {"factor": float("nan")},
        {"max_delay": -2},
        {"kind": "magic"},
        {"jitter": "some"},
    ],
)
def test_what_makes_no_sense_is_refused_before_the_first_call(options: dict[str, Any]) -> None:
    flaky = Flaky(0)
    with pytest.raises(ValueError):
        retry(flaky.plain, **options)
    assert flaky.calls == 0


@pytest.mark.parametrize(
    ("kind", "pauses"),
    [("exponential", [0.1, 0.2, 0.4, 0.5, 0.5]), ("linear", [0.1, 0.2, 0.3, 0.4, 0.5]), ("constant", [0.1] * 5)],
)
def test_the_pauses_without_jitter(kind: str, pauses: list[float]) -> None:
    number = {"exponential": 0, "constant": 1, "linear": 2}[kind]
    got = [_klaw.backoff_delay(number, 1, 0.1, 0.5, 2.0, attempt, 0) for attempt in range(1, 6)]
    assert got == pytest.approx(pauses)


@settings(max_examples=100, deadline=None)
@given(
    kind=st.integers(0, 2),
    jitter=st.integers(0, 2),
    base=st.floats(0, 1000),
    limit=st.floats(0, 1000),
    factor=st.floats(1, 10),
    attempt=st.integers(1, 200),
    chance=st.integers(0, 2**64 - 1),
)
def test_a_pause_is_within_its_bounds(
    kind: int, jitter: int, base: float, limit: float, factor: float, attempt: int, chance: int
) -> None:
    whole = _klaw.backoff_delay(kind, 1, base, limit, factor, attempt, 0)
    pause = _klaw.backoff_delay(kind, jitter, base, limit, factor, attempt, chance)
    assert 0 <= pause <= whole + 1e-9
    if jitter == 2:
        assert pause >= whole / 2 - 1e-9
    assert whole <= limit + 1e-9
    if attempt > 1:
        assert whole >= _klaw.backoff_delay(kind, 1, base, limit, factor, attempt - 1, 0) - 1e-9, "it never shrinks"


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(failures=st.integers(0, 8), attempts=st.integers(1, 8), as_exception=st.booleans())
async def test_the_calls_are_counted(failures: int, attempts: int, as_exception: bool) -> None:
    flaky = Flaky(failures, OSError("no") if as_exception else "no")
    try:
        result = await retry(flaky.later, attempts=attempts, backoff=0)
    except OSError:
        result = None
    assert flaky.calls == min(failures + 1, attempts)
    if failures < attempts:
        assert result == Ok(failures + 1)
    else:
        assert result == (None if as_exception else Err("no"))


async def test_it_really_waits() -> None:
    flaky = Flaky(2)
    begin = time.monotonic()
    await retry(flaky.later, attempts=3, backoff=0.01, jitter=False)
    assert time.monotonic() - begin >= 0.029
