# SPDX-License-Identifier: Apache-2.0
"""Endpoints in tasks, actors and drivers of their own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'klaw-core[ray]'")

from klaw_core.runtime.channels.ray import delete_ray_channel, ray_channel  # noqa: E402

from .support import aio, drain, line_of, spawn_driver  # noqa: E402

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_init")]


@ray.remote(num_cpus=1)
def produce(tx: Any, start: int, n: int) -> int:
    """From a plain task."""
    with tx:
        for i in range(start, start + n):
            tx.send_sync(i)
    return n


@ray.remote(num_cpus=0)
class Consumer:
    """From an async actor."""

    async def consume(self, rx: Any) -> list[Any]:
        return [item async for item in rx]


@aio
async def test_tasks_send_and_actors_receive_until_the_last_one_has_finished() -> None:
    tx, rx = await ray_channel(16)
    consumers = [Consumer.remote() for _ in range(2)]
    got = [each.consume.remote(rx) for each in consumers]
    # More tasks than can run at once: the later ones start when earlier ones have finished. None finds it closed.
    sent = [produce.remote(tx, 100 * i, 100) for i in range(6)]
    await tx.close()
    await rx.close()
    assert sum([await each for each in sent]) == 600
    lists = [await each for each in got]
    assert sorted(lists[0] + lists[1]) == list(range(600))


@aio
async def test_a_named_channel_between_two_drivers(ray_init: Any) -> None:
    _tx, rx = await ray_channel(100, name="between drivers")
    driver = spawn_driver(
        """
async def main():
    tx, rx = await get_ray_channel("between drivers")
    async with tx:
        for i in range(50):
            await tx.send({"i": i})
    say("sent")
asyncio.run(main())
""",
        ray_init["address"] if "address" in ray_init else ray_init["gcs_address"],
    )
    try:
        receiving = asyncio.create_task(drain(rx))
        assert await asyncio.to_thread(line_of, driver) == "sent"
        assert await receiving == [{"i": i} for i in range(50)]
        assert await asyncio.to_thread(driver.wait, 20) == 0
    finally:
        driver.kill()
    await asyncio.to_thread(delete_ray_channel, "between drivers")
