# SPDX-License-Identifier: Apache-2.0
"""Reference channels, method by method."""

from __future__ import annotations

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'klaw-core[ray]'")

from klaw_core import Err, Ok  # noqa: E402
from klaw_core.runtime import (  # noqa: E402
    ChannelEmpty,
    ChannelEmptyError,
    ReferenceReceiver,
    ReferenceSender,
    channel,
)
from klaw_core.runtime.channels.ray import (  # noqa: E402
    RayReferenceReceiver,
    RayReferenceSender,
    ray_reference_channel,
)

from .support import LOOPS, aio, drain, on  # noqa: E402

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_init")]


@pytest.mark.parametrize("loop", LOOPS)
def test_values_come_back_as_they_were(loop: str) -> None:
    async def main() -> None:
        tx, rx = await ray_reference_channel(8)
        assert (type(tx), type(rx)) == (RayReferenceSender, RayReferenceReceiver)
        await tx.send({"a": (1, 2)})
        assert await rx.recv() == {"a": (1, 2)}
        await tx.send_batch([b"x" * 200_000, None])
        assert await rx.recv() == b"x" * 200_000
        assert await rx.recv() is None
        await tx.send("last")
        await tx.close()
        assert await drain(rx) == ["last"]

    on(loop, main)


@aio
async def test_the_factory_makes_one_and_it_keeps_to_the_protocols() -> None:
    tx, rx = await channel(4, backend="ray", reference=True)
    assert isinstance(tx, ReferenceSender)
    assert isinstance(rx, ReferenceReceiver)
    assert await rx.try_recv() == Err(ChannelEmpty())
    assert await tx.try_send(1) == Ok(None)
    assert await rx.try_recv() == Ok(1)
    with pytest.raises(ChannelEmptyError):
        await rx.recv(timeout=0.01)
    clone = tx.clone()
    assert type(clone) is RayReferenceSender
    await clone.send(2)
    assert await rx.clone().recv_batch(3) == [2]


def test_from_plain_threads() -> None:
    async def make() -> tuple[object, object]:
        return await ray_reference_channel(8)

    tx, rx = on("asyncio", make)
    tx.send_sync([1])
    tx.send_batch_sync([[2], [3]])
    assert [rx.recv_sync() for _ in range(3)] == [[1], [2], [3]]


@aio
async def test_the_reference_itself_can_be_had() -> None:
    tx, rx = await ray_reference_channel(8)
    await tx.send("value")
    ref = await rx.recv_ref()
    assert isinstance(ref, ray.ObjectRef)
    assert await ref == "value"
