# SPDX-License-Identifier: Apache-2.0
"""Channels on Ray beside ray.util.queue.Queue and bare calls of an actor: the sender is this process, the receiver an
actor's. Time runs from the first send until the receiver has the last item. The cluster is that of KLAW_BENCH_RAY, or
one started for the run."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from cases import CASES, Clock, check

PAYLOAD = b"x" * 100
LARGE = b"x" * 65_536
BATCH = 500


class _Holder:
    """What a bare actor does: a deque."""

    def __init__(self) -> None:
        self.items: deque[Any] = deque()

    async def put(self, item: Any) -> None:
        self.items.append(item)

    async def put_batch(self, items: list[Any]) -> None:
        self.items += items

    async def get(self) -> Any:
        while not self.items:
            await asyncio.sleep(0)
        return self.items.popleft()

    async def get_batch(self, most: int) -> list[Any]:
        while not self.items:
            await asyncio.sleep(0)
        return [self.items.popleft() for _ in range(min(most, len(self.items)))]


class _Sink:
    """The receiving process."""

    async def ready(self) -> None:
        with contextlib.suppress(ImportError):
            import numpy  # noqa: F401, PLC0415 # takes longer than ten arrays

    async def klaw(self, rx: Any, n: int, tasks: int) -> int:
        """Tasks that receive one by one."""
        left = n
        over = asyncio.get_running_loop().create_future()

        async def one(end: Any) -> None:
            nonlocal left
            while True:
                await end.recv()
                left -= 1
                if left == 0:
                    over.set_result(None)

        running = [asyncio.create_task(one(rx.clone())) for _ in range(tasks)]
        await over
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        return n

    async def klaw_batches(self, rx: Any, n: int) -> int:
        """One task that receives batches."""
        got = 0
        while got < n:
            got += len(await rx.recv_batch(BATCH))
        rx.ack()
        return got

    async def calls(self, get: Any, n: int, flying: int) -> int:
        """Calls of an actor, so many in flight."""

        async def one() -> None:
            for _ in range(n // flying):
                await get.remote()

        await asyncio.gather(*(one() for _ in range(flying)))
        return n

    async def call_batches(self, get: Any, n: int) -> int:
        got = 0
        while got < n:
            got += len(await get.remote(BATCH))
        return got

    async def queue_batches(self, queue: Any, n: int) -> int:
        got = 0
        while got < n:
            have = await queue.actor.qsize.remote()
            if have:
                got += len(await queue.actor.get_nowait_batch.remote(min(have, BATCH)))
        return got

    async def arrays(self, rx: Any, n: int) -> int:
        total = 0
        for _ in range(n):
            total += (await rx.recv()).nbytes
        rx.ack()
        return total

    async def array(self, refs: list[Any]) -> int:
        return int((await refs[0]).nbytes)


Body = Callable[[Any, Any], Coroutine[Any, Any, float]]


def _run(body: Body) -> float:
    from klaw_core.runtime._backends._ray_connect import ensure_ray  # noqa: PLC0415

    options = {} if os.environ.get("KLAW_BENCH_RAY") else {"num_cpus": 8, "object_store_memory": 300 << 20}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = ensure_ray(os.environ.get("KLAW_BENCH_RAY") or "local", "klaw", log_to_driver=False, **options)
    try:

        async def timed() -> float:
            sink = ray.remote(num_cpus=0, max_concurrency=1000)(_Sink).remote()
            await sink.ready.remote()
            return await body(ray, sink)

        return asyncio.run(timed())
    finally:
        ray.shutdown()


def _case(job: str, impl: str) -> Callable[[Body], Body]:
    def enter(body: Body) -> Body:
        CASES[job, impl] = lambda: _run(body)
        return body

    return enter


async def _holder(ray: Any) -> Any:
    actor = ray.remote(num_cpus=0, max_concurrency=4000)(_Holder).remote()
    await actor.put.remote(0)
    await actor.get.remote()
    return actor


async def _channel(sink: Any, receiving: Callable[[Any], Any], **options: Any) -> tuple[Any, Any]:
    """A channel whose receivers, elsewhere, already wait; what they will answer."""
    from klaw_core.runtime.channels.ray import ray_channel  # noqa: PLC0415

    tx, rx = await ray_channel(10_000, **options)
    warm = 0
    await tx.send(warm)
    await rx.recv()
    rx.ack()
    answer = receiving(rx)
    before = (await tx.stats_async()).receiver_count
    end = time.monotonic() + 20
    while (await tx.stats_async()).receiver_count <= before and time.monotonic() < end:
        await asyncio.sleep(0.05)
    return tx, answer


def _queue() -> Any:
    from ray.util.queue import Queue  # noqa: PLC0415

    queue = Queue(10_000, actor_options={"num_cpus": 0})
    queue.put(0)
    queue.get()
    return queue


async def _loop(send: Callable[[Any], Any], item: Any, n: int, tasks: int) -> None:
    async def one() -> None:
        for _ in range(n // tasks):
            await send(item)

    await asyncio.gather(*(one() for _ in range(tasks)))


# --- a stream, each send confirmed, many in flight; and items of 64 KiB ---
def _stream(job: str, item: bytes, n_klaw: int, n_peer: int, flying: int) -> None:
    @_case(job, "klaw")
    async def _(ray: Any, sink: Any) -> float:
        tx, answer = await _channel(sink, lambda rx: sink.klaw.remote(rx, n_klaw, flying))
        with Clock(n_klaw) as c:
            await _loop(tx.send, item, n_klaw, flying)
            check(await answer, n_klaw)
        return c.ns

    @_case(job, "Queue")
    async def _(ray: Any, sink: Any) -> float:
        queue, many = _queue(), min(flying, 200)
        answer = sink.calls.remote(queue.actor.get, n_peer, many)
        with Clock(n_peer) as c:
            await _loop(queue.put_async, item, n_peer, many)
            check(await answer, n_peer)
        return c.ns

    @_case(job, "actor")
    async def _(ray: Any, sink: Any) -> float:
        actor, many = await _holder(ray), min(flying, 200)
        answer = sink.calls.remote(actor.get, n_peer, many)
        with Clock(n_peer) as c:
            await _loop(actor.put.remote, item, n_peer, many)
            check(await answer, n_peer)
        return c.ns


# --- one at a time: how long a send takes ---
def _latency(n: int) -> None:
    job = "ray_send"

    @_case(job, "klaw")
    async def _(ray: Any, sink: Any) -> float:
        tx, answer = await _channel(sink, lambda rx: sink.klaw_batches.remote(rx, n))
        with Clock(n) as c:
            await _loop(tx.send, PAYLOAD, n, 1)
        check(await answer, n)
        return c.ns

    @_case(job, "Queue")
    async def _(ray: Any, sink: Any) -> float:
        queue = _queue()
        with Clock(n) as c:
            await _loop(queue.put_async, PAYLOAD, n, 1)
        return c.ns

    @_case(job, "actor")
    async def _(ray: Any, sink: Any) -> float:
        actor = await _holder(ray)
        with Clock(n) as c:
            await _loop(actor.put.remote, PAYLOAD, n, 1)
        return c.ns


# --- batches of 500 ---
def _batches(n: int) -> None:
    job, items = "ray_batch", [PAYLOAD] * BATCH

    @_case(job, "klaw")
    async def _(ray: Any, sink: Any) -> float:
        tx, answer = await _channel(sink, lambda rx: sink.klaw_batches.remote(rx, n))
        with Clock(n) as c:
            await _loop(tx.send_batch, items, n // BATCH, 8)
            check(await answer >= n, True)
        return c.ns

    @_case(job, "Queue")
    async def _(ray: Any, sink: Any) -> float:
        from ray.util.queue import Queue  # noqa: PLC0415

        queue = Queue(0, actor_options={"num_cpus": 0})
        queue.put(0)
        queue.get()
        answer = sink.queue_batches.remote(queue, n)
        with Clock(n) as c:
            await _loop(queue.actor.put_nowait_batch.remote, items, n // BATCH, 8)
            check(await answer, n)
        return c.ns

    @_case(job, "actor")
    async def _(ray: Any, sink: Any) -> float:
        actor = await _holder(ray)
        answer = sink.call_batches.remote(actor.get_batch, n)
        with Clock(n) as c:
            await _loop(actor.put_batch.remote, items, n // BATCH, 8)
            check(await answer, n)
        return c.ns


# --- arrays of 10 MB by reference, to a receiver of the same node ---
def _arrays(n: int) -> None:
    def array(ray: Any) -> Any:
        import numpy  # noqa: PLC0415

        return numpy.zeros(10_000_000, dtype="u1")

    def ours(job: str, volatile: bool) -> None:
        @_case(job, "klaw")
        async def _(ray: Any, sink: Any) -> float:
            value = array(ray)
            tx, answer = await _channel(sink, lambda rx: sink.arrays.remote(rx, n), reference=True, volatile=volatile)
            with Clock(n) as c:
                for _ in range(n):
                    await tx.send(value)
                check(await answer, n * value.nbytes)
            return c.ns

        @_case(job, "floor")
        async def _(ray: Any, sink: Any) -> float:
            value = array(ray)
            with Clock(n) as c:
                for _ in range(n):
                    check(await sink.array.remote([ray.put(value)]), value.nbytes)
            return c.ns

    ours("ray_array_volatile", True)
    ours("ray_array", False)


if importlib.util.find_spec("ray") is None:
    print("ray is not installed: channels on Ray are left out (tools/setup.sh ray)", file=sys.stderr)
else:
    _stream("ray_stream", PAYLOAD, 200_000, 2_000, 1000)
    _latency(500)
    _batches(200_000)
    _stream("ray_64k", LARGE, 4_000, 1_000, 50)
    if importlib.util.find_spec("numpy") is not None:
        _arrays(40)
