# SPDX-License-Identifier: Apache-2.0
"""ChannelSupervisor, method by method."""

from __future__ import annotations

from typing import Any

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'klaw-core[ray]'")

from klaw_core.runtime.channels.ray import get_channel_supervisor, get_ray_channel, list_ray_channels  # noqa: E402

from .support import aio  # noqa: E402

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_init")]

SPACE = "supervised"


@pytest.fixture(scope="module")
def supervisor(ray_cluster: Any) -> Any:
    """The supervisor of a namespace of this module's own."""
    made = get_channel_supervisor(SPACE)
    yield made
    for name in ray.get(made.methods.list_channels.remote()):
        ray.get(made.methods.delete_channel.remote(name))
    ray.kill(made._actor_handle)


def test_there_is_one_a_namespace(supervisor: Any) -> None:
    assert get_channel_supervisor(SPACE) == supervisor
    other = get_channel_supervisor("elsewhere")
    assert other != supervisor
    ray.kill(other._actor_handle)


def test_it_makes_lists_and_deletes_channels(supervisor: Any) -> None:
    do = supervisor.methods
    assert ray.get(do.create_channel.remote("b", capacity=5, channel_type="broadcast")) == "ok"
    assert ray.get(do.create_channel.remote("w", channel_type="watch")) == "ok"
    assert ray.get(do.create_channel.remote("w", channel_type="watch")) == "exists"
    assert ray.get(do.list_channels.remote()) == ["b", "w"]
    assert list_ray_channels(namespace=SPACE) == ["b", "w"]
    assert ray.get(do.delete_channel.remote("b")) == "ok"
    assert ray.get(do.delete_channel.remote("b")) == "missing"
    assert ray.get(do.delete_channel.remote("w")) == "ok"
    with pytest.raises(ValueError, match="channel_type"):
        ray.get(do.create_channel.remote("x", channel_type="pipe"))


@aio
async def test_checkpoints_carry_counters_and_items(supervisor: Any) -> None:
    do = supervisor.methods
    assert await do.create_channel.remote("c", 10) == "ok"
    tx, _rx = await get_ray_channel("c", namespace=SPACE)
    await tx.send_batch([1, (2, 3), "x"])
    state = await do.get_checkpoint.remote("c")
    assert (state["total_sent"], state["senders_closed"], len(state["items"])) == (3, False, 3)
    assert (await tx.stats_async()).queue_size == 3

    assert await do.delete_channel.remote("c") == "ok"
    assert await do.restore_from_checkpoint.remote("c", state) == "missing"
    assert await do.create_channel.remote("c", 10) == "ok"
    assert await do.restore_from_checkpoint.remote("c", state) == "ok"
    _tx, rx = await get_ray_channel("c", namespace=SPACE)
    assert [await rx.recv() for _ in range(3)] == [1, (2, 3), "x"]
    assert (await rx.stats_async()).total_sent == 3
    assert await do.get_checkpoint.remote("never seen") is None
