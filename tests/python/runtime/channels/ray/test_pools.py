# SPDX-License-Identifier: Apache-2.0
"""ChannelReader and ReaderPoolController."""

from __future__ import annotations

from typing import Any

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'klaw-core[ray]'")

from klaw_core.runtime.channels.ray import (  # noqa: E402
    ChannelReader,
    ReaderPoolController,
    delete_ray_channel,
    ray_channel,
)

from .support import aio, drain, eventually  # noqa: E402

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_init")]


class Forwarder(ChannelReader):
    """Sends each item on, and fails once on the first "bad" that it sees before anybody else has."""

    def __init__(self, channel_name: str, namespace: str, out: Any, marker: str = "") -> None:
        super().__init__(channel_name, namespace)
        self._out = out
        self._marker = marker

    async def process(self, item: Any) -> None:
        if item == "bad" and self._marker and not (await self._seen()):
            raise RuntimeError("the first reader of this item fails")
        await self._out.send(item)

    async def _seen(self) -> bool:
        try:
            open(self._marker, "x").close()
        except FileExistsError:
            return True
        return False


@aio
async def test_a_pool_consumes_scales_and_loses_nothing() -> None:
    tx, _rx = await ray_channel(100, name="pooled")
    results, got = await ray_channel(1000)
    pool = (
        ReaderPoolController.new_actor()
        .options(num_cpus=0)
        .remote("pooled", 1, reader_cls=Forwarder, reader_args=(results,))
    )
    do = pool.methods
    assert await do.start.remote() == 1
    assert await do.num_readers.remote() == 1
    await tx.send_batch(range(50))
    assert await do.scale.remote(1) == 2
    await tx.send_batch(range(50, 100))
    assert await do.scale.remote(-1) == 1
    await tx.send_batch(range(100, 150))
    assert sorted([await got.recv() for _ in range(150)]) == list(range(150))
    await tx.close()  # the readers end with the channel

    async def none_left() -> bool:
        return await do.num_readers.remote() == 0

    await eventually(none_left)
    ray.kill(pool._actor_handle)
    delete_ray_channel("pooled")


@aio
async def test_a_reader_that_has_ended_may_be_killed_and_nothing_comes_again() -> None:
    tx, rx = await ray_channel(1000, name="ended")
    results, got = await ray_channel(1000)
    rx.open()
    await tx.send_batch(range(500))
    left = 500
    for end in ("stop", "close"):
        reader = Forwarder.new_actor().options(num_cpus=0).remote("ended", "klaw", results)
        done = reader.methods.start.remote()
        await got.recv()
        await (reader.methods.stop.remote() if end == "stop" else tx.close())
        left -= await done
        ray.kill(reader._actor_handle)
        assert await rx.actor.get_pending.remote() == [left, 0]
    assert left == 0
    rx.close_sync()
    delete_ray_channel("ended")


@aio
async def test_a_reader_that_raises_is_replaced_and_its_item_comes_again(tmp_path: Any) -> None:
    tx, _rx = await ray_channel(100, name="failing")
    results, got = await ray_channel(1000)
    pool = (
        ReaderPoolController.new_actor()
        .options(num_cpus=0)
        .remote("failing", 1, reader_cls=Forwarder, reader_args=(results, str(tmp_path / "seen")))
    )
    assert await pool.methods.num_readers.remote() == 1
    await tx.send_batch([1, "bad", 2])
    await tx.close()
    await results.close()
    first = [await got.recv() for _ in range(3)]
    assert sorted(map(str, first)) == ["1", "2", "bad"]
    assert any("fails" in error for error in await pool.methods.errors.remote())
    await pool.methods.stop.remote()
    ray.kill(pool._actor_handle)
    assert await drain(got) == []
    delete_ray_channel("failing")


def test_a_reader_alone_says_that_there_is_no_channel() -> None:
    reader = ChannelReader.new_actor().options(num_cpus=0).remote("there is none")
    with pytest.raises(LookupError, match="there is none"):
        ray.get(reader.methods.start.remote())
    assert ray.get(reader.methods.processed.remote()) == 0
    ray.kill(reader._actor_handle)
