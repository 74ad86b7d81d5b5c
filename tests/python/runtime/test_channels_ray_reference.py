# SPDX-License-Identifier: Apache-2.0
"""What reference channels promise: the reference travels and not the value, the value survives its sender unless it is
volatile, arrays arrive without a copy."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'klaw-core[ray]'")
numpy = pytest.importorskip("numpy")

from klaw_core.runtime import ChannelEmptyError, ChannelTypeErrorException  # noqa: E402
from klaw_core.runtime.channels.ray import ray_reference_channel  # noqa: E402

from .channels.ray.support import SOON, Shared, aio, drain, eventually  # noqa: E402

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_init")]


@pytest.fixture(scope="module")
def shared(ray_cluster: Any) -> Shared:
    """A reference channel that stays open."""
    return Shared(capacity=8, reference=True)


@ray.remote(num_cpus=0)
class Producer:
    """Sends from a process that the test can kill."""

    def send(self, tx: Any, size: int) -> None:
        tx.send_sync(numpy.arange(size))
        self.tx = tx


@aio
async def test_arrays_arrive_without_a_copy(pair: Any) -> None:
    tx, rx = pair
    array = numpy.arange(500_000)
    await tx.send(array)
    got = await rx.recv()
    assert (got == array).all()
    assert not got.flags.writeable  # it lies in the object store
    assert not got.flags.owndata


@aio
async def test_the_actor_holds_references_and_no_values(pair: Any) -> None:
    tx, rx = pair
    await tx.send_batch([bytes(1_000_000), bytes(1_000_000)])
    stats = await tx.stats_async()
    assert stats.queue_size + stats.backend_extras["leased"] == 2
    assert stats.backend_extras["bytes"] < 10_000
    assert [len(value) for value in await rx.recv_batch(2, timeout=20)]
    rx.ack()


@aio
async def test_a_value_survives_its_sender(pair: Any) -> None:
    tx, rx = pair
    producer = Producer.remote()
    await producer.send.remote(tx, 300_000)
    ray.kill(producer)
    assert (await rx.recv()).shape == (300_000,)


@aio
async def test_a_volatile_one_dies_with_its_sender_and_the_channel_goes_on() -> None:
    tx, rx = await ray_reference_channel(8, volatile=True)
    producer = Producer.remote()
    await producer.send.remote(tx, 300_000)
    await tx.send("keeps the sending side open")
    ray.kill(producer)

    async def noticed() -> bool:
        return (await rx.stats_async()).sender_count == 1

    await eventually(noticed)
    try:
        got = await rx.recv()
    except ChannelTypeErrorException as error:
        assert "OwnerDied" in str(error)
    else:  # Ray frees what a dead process owned some time after it has told of the death
        assert (got == numpy.arange(300_000)).all()
    assert await rx.recv() == "keeps the sending side open"


@aio
async def test_what_cannot_be_stored_is_told_and_the_channel_goes_on(pair: Any) -> None:
    tx, rx = pair
    with pytest.raises(ChannelTypeErrorException):
        await tx.send(i for i in range(3))
    await tx.send("goes on")
    assert await rx.recv() == "goes on"


@aio
async def test_a_timeout_covers_the_fetching_of_the_value_which_goes_back() -> None:
    tx, rx = await ray_reference_channel(8, volatile=True)

    @ray.remote(num_cpus=0)
    class Gate:
        def __init__(self) -> None:
            self.opened = asyncio.Event()

        async def open(self) -> None:
            self.opened.set()

        async def value(self) -> str:
            await self.opened.wait()
            return "late"

    gate = Gate.remote()
    tx.open()
    await tx._link.hub.send_op(tx._endpoint, b"", 0, tx._FLAGS, [gate.value.remote()])
    with pytest.raises(ChannelEmptyError):
        await rx.recv(timeout=0.2)
    assert await rx.recv_batch(4, timeout=0.2) == []
    with pytest.raises(ChannelEmptyError):
        await asyncio.to_thread(rx.recv_sync, 0.2)
    await gate.open.remote()
    assert await rx.recv(timeout=SOON) == "late"
    await tx.close()
    assert await drain(rx) == []
