# SPDX-License-Identifier: Apache-2.0
"""Broadcast: everybody gets everything that was sent after they registered; who is slow is told what went by."""

from __future__ import annotations

import asyncio

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'klaw-core[ray]'")

from klaw_core.runtime import ChannelLaggedError  # noqa: E402
from klaw_core.runtime.channels.ray import (  # noqa: E402
    RayBroadcastActor,
    RayBroadcastReceiver,
    RayBroadcastSender,
    get_ray_channel,
    ray_broadcast_channel,
)

from .channels.ray.support import aio, drain  # noqa: E402

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_init")]


@aio
async def test_everybody_gets_everything_in_order_until_the_end() -> None:
    tx, first = await ray_broadcast_channel(100, name="news")
    assert (type(tx), type(first)) == (RayBroadcastSender, RayBroadcastReceiver)
    second = tx.subscribe()
    found = await get_ray_channel("news")
    assert found is not None
    third = found[1]
    assert type(third) is RayBroadcastReceiver
    await asyncio.gather(second.ready(), third.ready())
    for i in range(20):
        await tx.send(i)
    late = tx.subscribe()
    await late.ready()
    await tx.send_batch([20, 21])
    await tx.close()
    assert await asyncio.gather(*map(drain, (first, second, third))) == [list(range(22))] * 3
    assert await drain(late) == [20, 21]


@aio
async def test_a_slow_receiver_is_told_how_many_it_missed_and_stops_nobody() -> None:
    tx, slow = await ray_broadcast_channel(4)
    quick = tx.subscribe()
    await quick.ready()
    for i in range(10):
        await tx.send(i)
        assert await quick.recv() == i
    missed, got = 0, []
    while len(got) + missed < 10:
        try:
            got.append(await slow.recv())
        except ChannelLaggedError as error:
            missed += error.missed
    assert missed >= 1
    assert got == list(range(10))[-len(got) :] or got[0] == 0  # what had come before it fell behind
    assert got[-1] == 9


def test_the_actor_one_item_at_a_time() -> None:
    actor = RayBroadcastActor.new_actor().options(num_cpus=0).remote(capacity=2, value_type=int)
    do = actor.methods
    assert ray.get(do.get_metadata.remote())["type"] == "broadcast"
    for reader in ("a", "b"):
        assert ray.get(do.register_receiver.remote(reader, "node")) == "ok"
    assert ray.get(do.send.remote(1)) == "ok"
    assert ray.get(do.send.remote("x")) == "type_error"
    assert [ray.get(do.recv.remote(reader)).value for reader in ("a", "b")] == [1, 1]
    assert ray.get(do.recv.remote("a", timeout=0.01)).status == "empty"
    assert ray.get(do.recv.remote("nobody", timeout=0.01)).status == "missing"
    waiting = do.recv.remote("b")
    assert ray.get(do.send.remote(2)) == "ok"
    assert ray.get(waiting).value == 2
    assert [ray.get(do.send.remote(i)) for i in (3, 4)] == ["ok", "ok"]
    told = ray.get(do.recv.remote("a"))
    assert (told.status, told.missed) == ("lagged", 1)
    assert [ray.get(do.recv.remote("a")).value for _ in range(2)] == [3, 4]
    ray.kill(actor._actor_handle)
