# SPDX-License-Identifier: Apache-2.0
"""channel(): backends, names, value types, bad values."""

from __future__ import annotations

import gc
from typing import Literal

import pytest
from klaw_core import Ok
from klaw_core.runtime import (
    BackendErrorException,
    ChannelTypeErrorException,
    LimitExceededError,
    channel,
    delete_channel,
    get_channel,
    list_channels,
)

pytestmark = pytest.mark.anyio


async def test_named_channels_are_found_while_they_live() -> None:
    tx, rx = await channel(4, name="jobs")
    assert list_channels() == ["jobs"]
    found = await get_channel("jobs")
    assert found is not None
    await found[0].send(1)
    assert await rx.recv() == 1
    again_tx, _ = await channel(name="jobs")
    await again_tx.send(2)
    assert await rx.recv() == 2
    assert await get_channel("jobs", namespace="other") is None
    assert delete_channel("jobs") and not delete_channel("jobs")
    assert await get_channel("jobs") is None
    del tx, rx, found, again_tx
    tx, rx = await channel(name="gone")
    del tx, rx
    gc.collect()
    assert await get_channel("gone") is None and list_channels() == []


async def test_value_types_are_checked_before_the_send() -> None:
    tx, rx = await channel(9, value_type=int)
    await tx.send(1)
    with pytest.raises(ChannelTypeErrorException, match="expected int, got str"):
        await tx.send("x")  # type: ignore[arg-type]
    with pytest.raises(ChannelTypeErrorException):
        await tx.send_batch([1, "x"])  # type: ignore[list-item]
    with pytest.raises(ChannelTypeErrorException):
        await tx.try_send(True)
    assert rx.stats().queue_size == 1
    for kind, good, bad in [
        (list[int], [1], ["x"]),
        (int | None, None, "x"),
        (Literal["a"], "a", "b"),
        (dict[str, float], {"a": 1.5}, {1: 2}),
    ]:
        tx, rx = await channel(value_type=kind)
        assert await tx.try_send(good) == Ok(None)
        with pytest.raises(ChannelTypeErrorException):
            await tx.send(bad)


async def test_bad_values_are_refused() -> None:
    with pytest.raises(ValueError, match="capacity"):
        await channel(-1)
    with pytest.raises(LimitExceededError):
        await channel(2**60)
    with pytest.raises(ValueError, match="'local' or 'ray'"):
        await channel(backend="mars")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="durable"):
        await channel(durable=True)
    with pytest.raises(ValueError, match="num_cpus"):
        await channel(num_cpus=1)
    with pytest.raises(ValueError, match="distributed"):
        await channel(distributed=True, backend="local")


async def test_the_ray_backend_says_what_is_missing() -> None:
    try:
        import klaw_core.runtime.channels.ray.factory  # noqa: F401, PLC0415
    except ImportError:
        with pytest.raises(BackendErrorException, match="pip install"):
            await channel(backend="ray")
        with pytest.raises(BackendErrorException, match="pip install"):
            await channel(distributed=True)
