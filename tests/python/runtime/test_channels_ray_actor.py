# SPDX-License-Identifier: Apache-2.0
"""What the channel's actor promises to those who call it one item at a time: who waits is woken by an item, by room, by
a close; batches are whole; these callers and the streams share one queue."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'klaw-core[ray]'")

from klaw_core.runtime.channels.ray import ray_channel  # noqa: E402
from klaw_core.runtime.channels.ray.actor import RayChannelActor  # noqa: E402

from .channels.ray.support import aio, drain  # noqa: E402

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_init")]


@pytest.fixture(scope="module")
def shared(ray_cluster: Any) -> Any:
    """The actor of a channel of four."""
    return RayChannelActor.new_actor().options(num_cpus=0).remote(capacity=4)


@pytest.fixture
def actor(shared: Any) -> Iterator[Any]:
    """It, empty."""
    yield shared._actor_handle
    while ray.get(shared.methods.get_batch.remote(100, timeout=0.0)).status == "ok":
        pass


@aio
async def test_a_get_that_waits_is_woken_by_a_put(actor: Any) -> None:
    waiting = [actor.get.remote() for _ in range(20)]
    late = actor.get.remote(timeout=0.05)
    assert (await late).status == "empty"
    for i in range(20):
        assert await actor.put.remote(i) == "ok"
    assert sorted([(await each).value for each in waiting]) == list(range(20))


@aio
async def test_a_put_that_waits_is_woken_by_a_get(actor: Any) -> None:
    assert await actor.put_batch.remote(range(4)) == "ok"
    waiting = [actor.put.remote(i) for i in range(4, 10)]
    batch = actor.put_batch.remote((10, 11, 12))
    got: list[int] = []
    while len(got) < 13:
        got += (await actor.get_batch.remote(2, timeout=20)).items
    assert sorted(got) == list(range(13))
    at = got.index(10)
    assert got[at : at + 3] == [10, 11, 12]  # a batch is adjacent
    assert [await each for each in (*waiting, batch)] == ["ok"] * 7


@aio
async def test_waiting_getters_do_not_stop_anybody(actor: Any) -> None:
    many = 1100  # more than a group of Ray's has places when nobody says
    waiting = [actor.get.remote() for _ in range(many)]
    assert (await actor.get_stats.remote()).queue_size == 0
    for i in range(0, many, 4):
        assert await actor.put_batch.remote(range(i, i + 4)) == "ok"
    assert sorted([each.value for each in await asyncio.gather(*waiting)]) == list(range(many))


@aio
async def test_waiting_putters_do_not_stop_anybody(actor: Any) -> None:
    many = 1100
    waiting = [actor.put.remote(i) for i in range(many)]
    assert (await actor.get_stats.remote()).queue_size <= 4
    got: list[int] = []
    while len(got) < many:
        got += (await actor.get_batch.remote(100, timeout=20)).items
    assert sorted(got) == list(range(many))
    assert set(await asyncio.gather(*waiting)) == {"ok"}


@aio
async def test_one_item_callers_and_streams_share_the_queue_and_a_close_wakes_whoever_waits() -> None:
    tx, rx = await ray_channel(1)
    actor = tx.actor
    await tx.send(1)
    assert (await actor.get.remote()).value == 1
    waiting = asyncio.create_task(rx.recv())
    assert await actor.put.remote(2) == "ok"
    assert await waiting == 2
    await actor.register_sender.remote()
    await tx.close()  # the other one is left
    await actor.register_receiver.remote("reader", "node")
    gets = [actor.get.remote() for _ in range(3)]
    receiving = asyncio.create_task(drain(rx))
    await actor.put.remote("x")
    await actor.deregister_sender.remote()
    results = [(await each).status for each in gets]
    assert sorted([*results, *map(str, await receiving)]) in (["closed", "closed", "ok"], ["closed"] * 3 + ["x"])

    tx, rx = await ray_channel(1)
    actor = tx.actor
    await actor.register_receiver.remote("reader", "node")
    assert await actor.put.remote(1) == "ok"
    puts = [actor.put.remote(2), actor.put_batch.remote((3,))]
    sending = asyncio.create_task(tx.send(4))
    assert (await actor.put.remote(5, timeout=0.01)) == "full"
    await actor.deregister_receiver.remote("reader")
    assert [await each for each in puts] == ["closed", "closed"]
    with pytest.raises(Exception, match="closed"):
        await sending
