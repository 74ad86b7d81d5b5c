# SPDX-License-Identifier: Apache-2.0
"""Each operation of the extension, 10 000 times: no growth in objects, in Python's blocks, in libklaw's or in malloc's.

Counted after a warm-up (free lists, caches) with the collector run: `sys.getallocatedblocks`, `gc.get_objects`,
`klaw_alloc_live` of the loaded libklaw, and the bytes that malloc has handed out. In a debug build of CPython also
`sys.gettotalrefcount`. Seeded bugs it was tried with: an item that select references twice, a
clone's handle that is not given up, the elements of a refused batch that are not given back."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from klaw_core import _klaw
from klaw_core._klaw import (
    Err,
    Inbox,
    Nothing,
    Ok,
    Some,
    Store,
    Supervision,
    UnwrapError,
    WorkflowRun,
    broadcast,
    channel,
    from_capsule,
    native_channel,
    oneshot,
    select,
    watch,
)
from klaw_core.runtime import Executor, spawn_actor, timeout
from klaw_core.runtime.errors import (
    ChannelClosedError,
    ChannelEmptyError,
    ChannelFullError,
    ChannelLaggedError,
    ChannelTypeErrorException,
    LimitExceededError,
)

ROUNDS = 6  # a leak grows in every one, a cache that fills up does not
SOAK = os.environ.get("KLAW_TEST_SLICE") == "soak"
Step = Callable[[], Any]


# --- counting ---
class _Mallinfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    ]


def _libklaw() -> ctypes.CDLL:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return ctypes.CDLL(next(line.split()[-1] for line in lines if "/libklaw.so" in line))


LIBKLAW = _libklaw()
LIBKLAW.klaw_alloc_live.restype = ctypes.c_uint64
try:
    _mallinfo2 = ctypes.CDLL(None).mallinfo2  # glibc 2.33
    _mallinfo2.restype = _Mallinfo2
except AttributeError:
    _mallinfo2 = None
# Under a sanitizer malloc is another one, which keeps what was freed for a while.
SANITIZED = "libasan" in os.environ.get("LD_PRELOAD", "")
TIMES = 1_000 if SANITIZED and not SOAK else 10_000
# Of what goes to the disk or makes a loop or a thread; the soak slice does it as often as the rest.
SOME = TIMES if SOAK else 200 if SANITIZED else 1_000


def count() -> dict[str, int]:
    gc.collect()
    gc.collect()
    counts = {
        "blocks": sys.getallocatedblocks(),
        "objects": len(gc.get_objects()),
        "libklaw": int(LIBKLAW.klaw_alloc_live()),
    }
    if _mallinfo2 and not SANITIZED:
        counts["bytes"] = int(_mallinfo2().uordblks) + int(_mallinfo2().hblkhd)
    if hasattr(sys, "gettotalrefcount"):
        counts["references"] = sys.gettotalrefcount()
    return counts


# What may come and go without being a leak, in 1000 rounds and more: a table that grows, a block of malloc's caches.
ROOM = {"blocks": 60, "objects": 30, "libklaw": 8, "bytes": 48 << 10, "references": 200}


def grown(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {what: after[what] - before[what] for what in before if after[what] - before[what] > ROOM[what]}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    with contextlib.suppress(
        ChannelClosedError,
        ChannelEmptyError,
        ChannelFullError,
        ChannelLaggedError,
        ChannelTypeErrorException,
        LimitExceededError,
        UnwrapError,
        OverflowError,
        TypeError,
        ValueError,
        ZeroDivisionError,
        KeyError,
        RuntimeError,
    ):
        yield


# --- results ---
def results() -> Iterator[tuple[str, Step]]:
    ok, err, some = Ok([1]), Err(["e"]), Some([1])
    yield "Ok", lambda: Ok([])
    yield "Ok match", lambda: ok == Ok([1]) and hash(Ok(1)) and repr(ok) and ok.__reduce__() and ok.__match_args__
    yield "Ok maps", lambda: ok.map(len).map_err(len).and_then(Ok).or_else(Err)
    yield "Ok ends", lambda: (ok.unwrap(), ok.unwrap_or(1), ok.unwrap_or_else(len), ok.expect(""), ok.ok(), ok.err())
    yield "Err maps", lambda: err.map(len).map_err(len).and_then(Ok).or_else(Err)
    yield "Err ends", lambda: (err.unwrap_err(), err.unwrap_or([]), err.unwrap_or_else(len), err.ok(), err.err())
    yield "Some", lambda: some.map(len).and_then(Some).or_else(lambda: Nothing).ok_or("e").unwrap()
    yield "Nothing", lambda: Nothing.map(len).and_then(Some).or_else(lambda: Some([])).ok_or_else(list)

    def raises() -> None:
        for bad in (
            err.unwrap,
            ok.unwrap_err,
            Nothing.unwrap,
            lambda: err.expect("no"),
            lambda: ok.map(lambda _: 1 / 0),
        ):
            with quiet():
                bad()
        with quiet():
            ok.and_then(lambda _: 1)  # type: ignore[arg-type,return-value]

    yield "raises", raises


# --- channels, without a loop ---
def channels() -> Iterator[tuple[str, Step]]:
    tx, rx = channel(64)

    def through() -> None:
        tx.send_sync([])
        rx.recv_sync()
        tx.try_send_sync({})
        rx.try_recv_sync()
        tx.send_sync([], timeout=1.0)
        rx.recv_sync(timeout=1.0)

    def making() -> None:
        for both in (channel(), channel(0), channel(1, True), channel(4, name="n"), oneshot(), broadcast(4), watch([])):
            both[0].close_sync()

    def full_and_empty() -> None:
        a, b = channel(1)
        a.send_sync([])
        assert a.try_send_sync([]).is_err()
        with quiet():
            a.send_sync([], timeout=0)
        with quiet():
            a.send_sync([], timeout=1e-9)
        b.recv_sync()
        assert b.try_recv_sync().is_err()
        with quiet():
            b.recv_sync(timeout=0)
        with quiet():
            b.recv_sync(timeout=1e-9)
        a.close_sync()
        with quiet():
            b.recv_sync()
        with quiet():
            a.send_sync([])

    def ends() -> None:
        a, b = channel(4)
        with a.clone() as c, b.clone() as d:
            c.send_sync([])
            assert d.recv_sync() == []
            _ = c.closed, c.capacity, repr(c), repr(d)

    def dropped() -> None:
        a, b = channel(4)
        a.send_sync((a, b, []))
        a.send_sync([])

    def wrong() -> None:
        bad: Any
        for bad in (
            *(lambda: channel(-1), lambda: channel(1 << 60), lambda: broadcast(4, "never"), lambda: rx.recv_batch(0)),
            *(lambda: rx.recv(float("nan")), tx.send_sync, lambda: tx.send_batch(1), select),  # type: ignore[arg-type]
        ):
            with quiet():
                bad()

    def validated() -> None:
        a, b = channel(4, validator=int)
        a.send_sync("1")
        with quiet():
            a.send_sync("no")
        b.recv_sync()

    def every_kind() -> None:
        a, b = oneshot()
        a.send_sync([])
        b.recv_sync()
        with quiet():
            a.send_sync([])
        c, d = broadcast(2)
        e = c.subscribe()
        for _ in range(4):
            c.send_sync([])
        with quiet():
            d.recv_sync()
        e.close_sync()
        f, g = watch([])
        h = f.subscribe()
        f.send_sync({})
        assert g.has_changed() and g.borrow() == {} == h.recv_sync()

    def iterated() -> None:
        a, b = channel(4)
        a.send_sync([])
        a.close_sync()
        assert list(b) == [[]]

    def native() -> None:
        for kind, value in (("u64", 1 << 60), ("bytes", b"x" * 50)):
            a, b = native_channel(kind, 4)  # type: ignore[call-overload]
            a.send_sync(value)
            c, d = from_capsule(a.capsule()), from_capsule(b.capsule())
            c.send_sync(value)  # type: ignore[union-attr]
            assert d.recv_sync() == b.recv_sync() == value  # type: ignore[union-attr]
            b.capsule()
            a.send_sync(value)
            with quiet():
                a.send_sync(None)
            b.close_sync()
            d.close_sync()
            with quiet():
                a.send_sync(value)
            with quiet():
                from_capsule(a)  # type: ignore[arg-type]

    for step in (through, making, full_and_empty, ends, dropped, wrong, validated, every_kind, iterated, native):
        yield step.__name__, step
    yield "stats", lambda: (tx.stats(), rx.stats())


# --- awaitables ---
def awaited() -> Iterator[tuple[str, Step]]:
    async def at_once() -> None:
        tx, rx = channel(8)
        async with tx, rx:
            await tx.send([])
            await tx.send_batch([[], {}])
            await tx.try_send([])
            assert await rx.recv() == [] and len(await rx.recv_batch(8)) == 3
            assert (await rx.try_recv()).is_err()
            with quiet():
                await rx.recv(timeout=0)
            with quiet():
                await tx.send_batch([[]] * 9)

    async def parked() -> None:
        tx, rx = channel(0)
        task = asyncio.ensure_future(rx.recv())
        await asyncio.sleep(0)
        await tx.send([])
        await task
        task = asyncio.ensure_future(tx.send([]))
        await asyncio.sleep(0)
        assert await rx.recv_batch(3) == [[]]
        await task

    async def parked_batch() -> None:
        tx, rx = channel(2)
        await tx.send([])
        task = asyncio.ensure_future(tx.send_batch([[], []]))
        await asyncio.sleep(0)
        assert await rx.recv() == []
        await task
        await rx.recv_batch(2)

    async def cancelled() -> None:
        tx, rx = channel(0)
        for op in (rx.recv(), tx.send([]), rx.recv_batch(2), select(rx), rx.recv(timeout=60)):
            task = asyncio.ensure_future(op)
            await asyncio.sleep(0)
            task.cancel("why")
            await asyncio.gather(task, return_exceptions=True)

    async def granted_and_cancelled() -> None:
        tx, rx = channel(1)
        task = asyncio.ensure_future(rx.recv())
        await asyncio.sleep(0)
        await tx.send([])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await rx.recv() == []

    async def expired() -> None:
        tx, rx = channel(1)
        with quiet():
            await rx.recv(timeout=1e-7)
        assert await rx.recv_batch(3, timeout=1e-7) == []
        with quiet():
            await select(rx, timeout=1e-7)
        del tx

    async def closed_while_parked() -> None:
        tx, rx = channel(1)
        tasks = [asyncio.ensure_future(op) for op in (rx.recv(), rx.recv_batch(2), select(rx))]
        await asyncio.sleep(0)
        await tx.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        with quiet():
            await rx.recv()
        async for _ in rx:
            pass

    async def thrown() -> None:
        tx, rx = channel(0)
        op = rx.recv()
        op.send(None)
        with quiet():
            op.throw(ValueError("x"))
        op = tx.send([])
        op.send(None)
        op.close()
        with quiet():
            op.send(None)

    async def abandoned() -> None:
        tx, rx = channel(0)
        op = rx.recv()
        op.send(None)
        other = tx.send([])
        other.close()
        repr(op)
        op.cancel()
        op.done()

    async def kinds() -> None:
        a, b = oneshot()
        await a.send([])
        await b.recv()
        c, d = broadcast(2)
        task = asyncio.ensure_future(d.recv())
        await asyncio.sleep(0)
        await c.send([])
        await task
        e, f = watch([])
        waiting = asyncio.ensure_future(f.changed())
        await asyncio.sleep(0)
        await e.send({})
        await waiting

    async def selected() -> None:
        (a, b), (c, d) = channel(1), channel(1)
        await a.send([])
        assert (await select(b, d))[1] == []
        task = asyncio.ensure_future(select(b, d))
        await asyncio.sleep(0)
        await c.send({})
        assert (await task)[1] == {}

    async def native() -> None:
        tx, rx = native_channel("bytes", 2)
        task = asyncio.ensure_future(rx.recv())
        await asyncio.sleep(0)
        await tx.send(b"x" * 40)
        await task
        await tx.send_batch([b"y" * 40, b"z" * 40])
        parked = asyncio.ensure_future(tx.send_batch([b"y" * 40, b"z" * 40]))
        await asyncio.sleep(0)
        await rx.recv_batch(8)
        await parked
        assert (await select(rx))[1] == b"y" * 40
        blocked = asyncio.ensure_future(tx.send_batch([b"a" * 40, b"b" * 40]))
        await asyncio.sleep(0)
        blocked.cancel()
        await asyncio.gather(blocked, return_exceptions=True)
        await rx.close()
        with quiet():
            await tx.send_batch([b"y" * 40, b"z" * 40])

    return ((f.__name__, f) for f in (at_once, parked, parked_batch, cancelled, granted_and_cancelled, expired,
            closed_while_parked, thrown, abandoned, kinds, selected, native))  # fmt: skip


# --- the rest ---
def rest() -> Iterator[tuple[str, Step]]:
    def supervision() -> None:
        machine = Supervision(0, 0, 3, 5.0, 0.1, 1.0, 2.0, kind=1, jitter=1)
        child = machine.add(0, False, 1.0)
        machine.begin()
        while machine.next():
            pass
        machine.started(child)
        machine.exited(child, True)
        _ = machine.next(), machine.due(), machine.state(child), machine.restarts(child)
        for bad in (lambda: machine.remove(99), lambda: machine.started(99), lambda: Supervision(99)):
            with quiet():
                bad()
        machine.shutdown()

    yield "supervision", supervision
    yield "backoff", lambda: _klaw.backoff_delay(1, 1, 0.1, 1.0, 2.0, 3, 12345)
    yield "config", lambda: (_klaw.config_init(None, 3, None, None, {}), _klaw.config_get(), _klaw.config_forget())

    def bad_config() -> None:
        with quiet():
            _klaw.config_init("nowhere", 3, "loud", None, {})

    yield "bad config", bad_config


def check(name: str, step: Step, times: int) -> None:
    for _ in range(min(times, 1000)):
        step()
    for _ in range(ROUNDS):
        before = count()
        for _ in range(times):
            step()
        more = grown(before, count())
        if not more:
            return
    pytest.fail(f"{name}: {times} rounds leave {more} behind, again and again")


@pytest.mark.parametrize(
    ("name", "step"), [pytest.param(n, s, id=n) for f in (results, channels, rest) for n, s in f()]
)
def test_nothing_grows(name: str, step: Step) -> None:
    check(name, step, SOME if name == "config" else TIMES)


async def _check(name: str, step: Step, times: int) -> None:
    for _ in range(min(times, 1000)):
        await step()
    for _ in range(ROUNDS):
        before = count()
        for _ in range(times):
            await step()
        more = grown(before, count())
        if not more:
            return
    pytest.fail(f"{name}: {times} rounds leave {more} behind, again and again")


@pytest.mark.parametrize(("name", "step"), [pytest.param(n, s, id=n) for n, s in awaited()])
def test_nothing_grows_under_asyncio(name: str, step: Step) -> None:
    asyncio.run(_check(name, step, TIMES))


# --- the disk, loops, threads ---
def on_disk(folder: str) -> Iterator[tuple[str, Step]]:
    store = Store(f"{folder}/one/", 2)
    number = iter(range(1 << 40))

    def saved() -> None:
        store.save("key", b"x" * 100)
        store.load("key")
        store.list("k")
        store.versions("key")

    def missed() -> None:
        assert store.load("nothing") is None and not store.delete("nothing")
        for bad in (
            lambda: store.save("", b""),
            lambda: store.load("key", 1 << 40),
            lambda: store.cancel_workflow("no"),
        ):
            with contextlib.suppress(Exception):
                bad()
        with contextlib.suppress(Exception):
            Store("/proc/nowhere/")

    def opened() -> None:
        other = Store(f"{folder}/two/", 2)
        other.save("key", b"")
        _ = other.path
        other.close()
        with contextlib.suppress(RuntimeError):
            other.load("key")

    def workflow() -> None:
        name = f"w{next(number)}"
        run = WorkflowRun(store, name, ["a", "b"])
        assert run.step("a", lambda: b"1") == b"1" and run.kept("b") is None and not run.done
        with contextlib.suppress(ZeroDivisionError):
            run.step("b", lambda: 1 / 0)  # type: ignore[arg-type,return-value]
        with contextlib.suppress(TypeError):
            run.step("b", lambda: "text")  # type: ignore[arg-type,return-value]
        run.fail("no")
        run.close()
        run = WorkflowRun(store, name, ["a", "b"])
        with contextlib.suppress(Exception):
            WorkflowRun(store, name)  # somebody runs it
        run.step("a", lambda: b"2")
        run.step("b", lambda: b"2")
        run.finish(b"r")
        assert run.result() == b"r" and run.done
        del run
        store.workflows("w")
        store.delete_workflow(name)

    for step in (saved, missed, opened, workflow):
        yield step.__name__, step


@pytest.mark.parametrize("which", ["saved", "missed", "opened", "workflow"])
def test_nothing_grows_on_disk(which: str) -> None:
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        check(which, dict(on_disk(folder))[which], 200 if which == "workflow" and not SOAK else SOME)


def test_inboxes_and_threads_leave_nothing() -> None:
    def step() -> None:
        tx, rx = channel(1)

        def receive() -> None:
            assert rx.recv_sync() == []

        thread = threading.Thread(target=receive)
        thread.start()
        tx.send_sync([])
        thread.join()
        inbox = Inbox()
        assert inbox.fileno() > 0
        inbox.pump()

    check("threads", step, SOME)


@pytest.mark.parametrize("run", [asyncio.run, trio.run], ids=["asyncio", "trio"])
def test_loops_leave_nothing(run: Callable[..., Any]) -> None:
    async def wait() -> None:
        tx, rx = channel(1)
        with contextlib.suppress(ChannelEmptyError):
            await rx.recv(timeout=1e-6)
        await tx.send([])
        await rx.recv()

    def step() -> None:
        run(wait) if run is trio.run else run(wait())

    check("loops", step, SOME if SOAK else 200)


def test_nothing_grows_under_trio() -> None:
    async def main() -> None:
        async def step() -> None:
            tx, rx = channel(0)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(rx.recv)
                await trio.lowlevel.checkpoint()
                await tx.send([])
            with trio.CancelScope() as scope:
                scope.cancel()
                await rx.recv()
            with trio.move_on_after(0):
                await tx.send([])
            with contextlib.suppress(ChannelEmptyError):
                await rx.recv(timeout=1e-7)

        await _check("trio", step, SOME)

    trio.run(main)


# --- what is built on it ---
class _Echo:
    async def handle(self, msg: Any) -> Any:
        return msg


async def _actor() -> None:
    ref = await spawn_actor(_Echo, name="leak")
    await ref.ask([])
    await ref.stop()


async def _executor() -> None:
    async with Executor(concurrency=1) as ex:
        await ex.submit(asyncio.sleep, 0)


async def _timeout() -> None:
    _tx, rx = channel(1)
    assert (await timeout(rx.recv(), 0)).is_err()


@pytest.mark.parametrize("step", [_actor, _executor, _timeout])
def test_actors_executors_and_time_limits_leave_nothing(step: Step) -> None:
    asyncio.run(_check(step.__name__, step, SOME))
