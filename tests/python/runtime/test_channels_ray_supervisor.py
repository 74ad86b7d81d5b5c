# SPDX-License-Identifier: Apache-2.0
"""What the supervisor promises when something dies: it comes back knowing its channels, and gives a dead channel's last
checkpoint to the next one."""

from __future__ import annotations

from typing import Any

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'klaw-core[ray]'")

from klaw_core.runtime.channels.ray import get_channel_supervisor, get_ray_channel, ray_channel  # noqa: E402

from .channels.ray.support import aio, eventually  # noqa: E402

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_init")]

SPACE = "supervised again"


@aio
async def test_a_dead_channels_items_come_back_from_its_checkpoint() -> None:
    supervisor = get_channel_supervisor(SPACE)
    do = supervisor.methods
    assert await do.create_channel.remote("c", 10, options={"max_restarts": 0}) == "ok"
    tx, _rx = await get_ray_channel("c", namespace=SPACE)
    await tx.send_batch(["a", "b", "c"])
    assert (await tx.actor.get.remote()).value == "a"
    assert await do.get_checkpoint.remote("c") is not None
    ray.kill(tx.actor)

    async def made_again() -> bool:
        return await do.create_channel.remote("c", 10) == "ok"

    await eventually(made_again)
    assert await do.restore_from_checkpoint.remote("c") == "ok"
    _tx, rx = await get_ray_channel("c", namespace=SPACE)
    assert [await rx.recv(), await rx.recv()] == ["b", "c"]
    assert (await rx.stats_async()).total_sent == 3

    # The supervisor itself dies: another process finds it under its name, and it finds the channels.
    ray.kill(supervisor._actor_handle, no_restart=False)

    async def knows() -> Any:
        return await get_channel_supervisor(SPACE).methods.get_checkpoint.remote("c")

    state = await eventually(knows)
    assert state["total_sent"] == 3
    assert await do.list_channels.remote() == ["c"]
    assert await do.create_channel.remote("c", 10) == "exists"
    assert await do.delete_channel.remote("c") == "ok"
    ray.kill(supervisor._actor_handle)


@aio
async def test_a_channel_that_somebody_else_made_can_be_looked_after() -> None:
    tx, _rx = await ray_channel(5, name="foreign", namespace=SPACE)
    await tx.send(1)
    do = get_channel_supervisor(SPACE).methods
    assert await do.create_channel.remote("foreign", 5) == "exists"
    state = await do.get_checkpoint.remote("foreign")
    assert len(state["items"]) == 1
    assert await do.restore_from_checkpoint.remote("foreign", {**state, "items": state["items"] * 9}) == "full"
    assert await do.delete_channel.remote("foreign") == "ok"
    ray.kill(get_channel_supervisor(SPACE)._actor_handle)
