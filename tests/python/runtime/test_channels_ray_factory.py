# SPDX-License-Identifier: Apache-2.0
"""Making, finding, listing and deleting channels, by Ray's factories and by the ones for every backend."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'klaw-core[ray]'")

from klaw_core.runtime import (  # noqa: E402
    ChannelBackendErrorException,
    channel,
    delete_channel,
    get_channel,
    list_channels,
)
from klaw_core.runtime.channels.ray import (  # noqa: E402
    RayReceiver,
    RayReferenceSender,
    RaySender,
    delete_ray_channel,
    get_ray_channel,
    list_ray_channels,
    ray_broadcast_channel,
    ray_channel,
    ray_watch_channel,
)

from .channels.ray.support import aio  # noqa: E402

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_init")]


@aio
async def test_the_factory_of_all_backends_leads_here() -> None:
    tx, rx = await channel(4, distributed=True, name="made by channel", value_type=int)
    assert (type(tx), type(rx)) == (RaySender, RayReceiver)
    await tx.send(1)
    found = await get_channel("made by channel", backend="ray")
    assert found is not None
    assert await found[1].recv() == 1
    with pytest.raises(TypeError):
        await found[0].send("x")  # type: ignore[arg-type, unused-ignore]
    assert "made by channel" in list_channels(backend="ray")
    assert await asyncio.to_thread(delete_channel, "made by channel", backend="ray")
    assert not await asyncio.to_thread(delete_channel, "made by channel", backend="ray")
    assert await get_channel("made by channel", backend="ray") is None
    assert "made by channel" not in list_channels(backend="ray")
    with pytest.raises(ValueError, match="distributed"):
        await channel(distributed=True, backend="local")


@aio
async def test_looking_registers_nobody_and_a_name_gives_the_same_channel() -> None:
    tx, _rx = await ray_channel(4, name="jobs", namespace="space", value_type=list[int])
    for _ in range(3):
        assert await get_ray_channel("jobs", namespace="space") is not None
        await ray_channel(4, name="jobs", namespace="space", value_type=list[int])
    stats = await tx.stats_async()
    assert (stats.sender_count, stats.receiver_count) == (0, 0)
    pair = await get_ray_channel("jobs", namespace="space")
    assert pair is not None
    # Closing what was only looked up and never used closes nothing.
    await pair[0].close()
    await pair[1].close()
    await tx.send([1])
    assert list_ray_channels(namespace="space") == ["jobs"]
    assert await get_ray_channel("jobs") is None
    assert await get_ray_channel("jobs", namespace="no such space") is None
    assert list_ray_channels(namespace="no such space") == []
    assert not await asyncio.to_thread(delete_ray_channel, "jobs", namespace="no such space")
    assert await asyncio.to_thread(delete_ray_channel, "jobs", namespace="space")
    # The name is free again, at once.
    tx, rx = await ray_channel(8, name="jobs", namespace="space")
    await tx.send("x")
    assert await rx.recv() == "x"
    assert await asyncio.to_thread(delete_ray_channel, "jobs", namespace="space")


@aio
async def test_a_name_that_belongs_to_another_channel_is_told() -> None:
    await ray_channel(4, name="taken", value_type=int)

    async def refused(making: Any, match: str) -> None:
        with pytest.raises(ChannelBackendErrorException, match=match) as told:
            await making
        assert told.value.actor_name == "channel_taken"

    await refused(ray_channel(5, name="taken", value_type=int), "capacity 4 and not 5")
    await refused(ray_channel(4, name="taken", value_type=str), "builtins.int")
    await refused(ray_channel(4, name="taken", value_type=int, ack="before"), "ack 'next'")
    await refused(ray_channel(4, name="taken", value_type=int, reference=True), "reference")
    await refused(ray_broadcast_channel(4, name="taken", value_type=int), "kind channel and not")
    await refused(ray_watch_channel(1, name="taken"), "kind channel and not")
    assert await asyncio.to_thread(delete_ray_channel, "taken")


@ray.remote(num_cpus=0)
class Stranger:
    """No channel of klaw."""

    def hello(self) -> str:
        return "hello"


@aio
async def test_an_actor_that_is_no_channel_is_told() -> None:
    stranger = Stranger.options(name="channel_stranger", namespace="klaw").remote()
    await stranger.hello.remote()
    for ask in (lambda: get_ray_channel("stranger"), lambda: ray_channel(name="stranger")):
        with pytest.raises(ChannelBackendErrorException, match="no channel"):
            await ask()
    with pytest.raises(ChannelBackendErrorException, match="no channel"):
        await asyncio.to_thread(delete_ray_channel, "stranger")
    assert await stranger.hello.remote() == "hello"


@aio
async def test_wrong_values_are_refused_before_anything_starts() -> None:
    for options, match in (
        ({"capacity": 0}, "capacity"),
        ({"capacity": True}, "capacity"),
        ({"ack": "never"}, "'next', 'explicit', 'before'"),
        ({"codec": "json"}, "'auto', 'msgpack'"),
        ({"durable": True}, "name"),
        ({"durable": True, "name": "x", "reference": True}, "references"),
        ({"name": ""}, "name"),
    ):
        with pytest.raises(ValueError, match=match):
            await ray_channel(**options)
    with pytest.raises(TypeError, match="msgpack"):
        await ray_channel(codec="msgpack", value_type=object)
    with pytest.raises(TypeError):
        await ray_watch_channel(1, 2)
    with pytest.raises(TypeError):
        await channel(4, backend="ray", no_such_option=1)


@aio
async def test_options_reach_the_channel_and_its_actor() -> None:
    tx, _rx = await ray_channel(
        unbounded=True, reference=True, volatile=True, actor_options={"name": "named-by-ray"}, codec="msgpack"
    )
    assert type(tx) is RayReferenceSender
    assert tx.capacity is None
    meta = await ray.get_actor("named-by-ray").get_metadata.remote()
    assert (meta["reference"], meta["volatile"], meta["unbounded"], meta["codec"]) == (True, True, True, "msgpack")


@aio
async def test_msgpack_alone_refuses_what_has_to_be_pickled() -> None:
    tx, rx = await ray_channel(4, codec="msgpack")
    with pytest.raises(TypeError, match="MessagePack"):
        await tx.send((1, 2))
    await tx.send([1, 2])
    assert await rx.recv() == [1, 2]
