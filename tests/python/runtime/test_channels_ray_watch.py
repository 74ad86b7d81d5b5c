# SPDX-License-Identifier: Apache-2.0
"""Watch: the newest value, and who waits for a change."""

from __future__ import annotations

import asyncio

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'klaw-core[ray]'")

from klaw_core.runtime import ChannelClosedError, ChannelEmptyError  # noqa: E402
from klaw_core.runtime.channels.ray import (  # noqa: E402
    RayWatchActor,
    RayWatchReceiver,
    RayWatchSender,
    get_ray_channel,
    ray_watch_channel,
)

from .channels.ray.support import aio  # noqa: E402

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_init")]


@aio
async def test_everybody_sees_the_newest_value_and_old_ones_are_skipped() -> None:
    tx, rx = await ray_watch_channel("first", name="settings")
    assert (type(tx), type(rx)) == (RayWatchSender, RayWatchReceiver)
    assert rx.borrow() == "first"
    assert await rx.recv() == "first"
    found = await get_ray_channel("settings")
    assert found is not None
    other = found[1]
    assert await other.recv() == "first"
    changing = [asyncio.create_task(each.changed()) for each in (rx, other)]
    await tx.send("second")
    await asyncio.gather(*changing)
    assert [await rx.current(), await other.current()] == ["second", "second"]
    for i in range(10):
        await tx.send(i)
    seen = [await rx.recv()]
    while seen[-1] != 9:
        seen.append(await rx.recv())
    assert seen == sorted(seen)
    with pytest.raises(ChannelEmptyError):
        await rx.recv(timeout=0.01)
    # The last value is still there for who has not seen it, then it is closed.
    await tx.send("last")
    await tx.close()
    assert await rx.recv() == "last"
    with pytest.raises(ChannelClosedError):
        await rx.changed()


def test_the_actor_one_value_at_a_time() -> None:
    actor = RayWatchActor.new_actor().options(num_cpus=0).remote(value_type=int)
    do = actor.methods
    assert ray.get(do.get_metadata.remote())["type"] == "watch"
    assert ray.get(do.borrow.remote()).status == "empty"
    assert ray.get(do.register_receiver.remote("a", "node")) == "ok"
    waiting = do.recv.remote("a")
    assert ray.get(do.send.remote(1)) == "ok"
    assert ray.get(waiting).value == 1
    assert ray.get(do.send.remote("x")) == "type_error"
    assert [ray.get(do.send.remote(i)) for i in (2, 3)] == ["ok", "ok"]
    assert ray.get(do.borrow.remote()).value == 3
    assert ray.get(do.recv.remote("a")).value == 3
    assert ray.get(do.recv.remote("a", timeout=0.01)).status == "empty"
    assert ray.get(do.recv.remote("nobody", timeout=0.01)).status == "missing"
    ray.kill(actor._actor_handle)
