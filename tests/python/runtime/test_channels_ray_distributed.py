# SPDX-License-Identifier: Apache-2.0
"""What is promised when processes are killed: senders, receivers, the channel's actor. Each test ends in an account."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import time
from typing import Any

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'klaw-core[ray]'")

from klaw_core.runtime import ChannelBackendErrorException, UncertainError  # noqa: E402
from klaw_core.runtime.channels.ray import delete_ray_channel, get_ray_channel, ray_channel  # noqa: E402

from .channels.ray.support import aio, drain, eventually, pid_of  # noqa: E402

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_init")]


@ray.remote(num_cpus=0, max_restarts=0)
class Process:
    """A process that sends and receives, and that a test can kill."""

    def __init__(self, tx: Any = None, rx: Any = None) -> None:
        self.tx = tx
        self.rx = rx

    async def pid(self) -> int:
        return os.getpid()

    async def send(self, values: list[Any]) -> None:
        for value in values:
            await self.tx.send(value)

    async def recv(self) -> Any:
        return await self.rx.recv()

    async def park(self, n: int) -> None:
        """So many receivers wait, each for one item."""
        ends = [self.rx.clone() for _ in range(n)]
        self.tasks = [asyncio.create_task(end.recv()) for end in ends]
        await asyncio.sleep(0)

    async def parked(self) -> int:
        return sum(not task.done() for task in self.tasks)


@aio
async def test_a_killed_receivers_items_go_to_others_and_nothing_is_lost() -> None:
    tx, rx = await ray_channel(100)
    victim = Process.remote(rx=rx)
    waiting = victim.recv.remote()
    await tx.send("in hand")
    assert await waiting == "in hand"
    lost = victim.recv.remote()  # acknowledges it and waits
    await tx.send_batch(["next", "and the next"])
    assert await lost == "next"
    os.kill(await victim.pid.remote(), signal.SIGKILL)
    begun = time.monotonic()
    first = await rx.recv_item(timeout=20)
    got = {first.value: first.redelivered}
    while len(got) < 2:
        item = await rx.recv_item(timeout=20)
        got[item.value] = item.redelivered
    assert got == {"next": True, "and the next": True}  # nobody can say what the dead one had seen
    assert time.monotonic() - begun < 10  # OwnerDiedError, long before the lease of 15 s


@aio
async def test_a_killed_sender_is_deregistered_and_what_it_had_confirmed_stays() -> None:
    tx, rx = await ray_channel(100)
    victim = Process.remote(tx=tx)
    await victim.send.remote([1, 2, 3])
    await tx.close()
    os.kill(await victim.pid.remote(), signal.SIGKILL)
    assert await drain(rx) == [1, 2, 3]  # ends, since nobody is left who could send


@aio
async def test_a_killed_actor_comes_back_and_live_senders_send_again() -> None:
    tx, rx = await ray_channel(1000, max_restarts=-1)
    total, got = 300, []
    kills = 0

    async def send() -> None:
        for i in range(total):
            await tx.send(i)

    async def receive() -> None:
        while len(set(got)) < total:
            got.append(await rx.recv())

    async def kill() -> None:
        nonlocal kills
        for after in (60, 180):
            await eventually(lambda after=after: len(set(got)) >= after)
            os.kill((await tx.stats_async()).backend_extras["pid"], signal.SIGKILL)
            kills += 1

    await asyncio.gather(send(), receive(), kill())
    assert kills == 2
    assert set(got) == set(range(total))
    assert len(got) == total  # whoever received is alive and has told what it had
    assert list(dict.fromkeys(got)) == sorted(set(got))


@aio
async def test_a_durable_channel_keeps_what_it_confirmed_when_all_else_is_dead(tmp_path: Any) -> None:
    path = str(tmp_path / "log.db")
    tx, _rx = await ray_channel(1000, name="kept", durable=True, path=path, max_restarts=-1)
    producer = Process.remote(tx=tx)
    await producer.send.remote(list(range(50)))
    os.kill(await producer.pid.remote(), signal.SIGKILL)
    os.kill(await asyncio.to_thread(pid_of, tx), signal.SIGKILL)

    async def back() -> Any:
        try:
            return await get_ray_channel("kept")
        except ChannelBackendErrorException:
            return None

    _tx, rx = await eventually(back)
    got = [await rx.recv(timeout=30) for _ in range(50)]
    assert got == list(range(50))
    assert (await rx.stats_async()).backend_extras["lost"] == 0
    assert os.path.exists(path)
    assert await asyncio.to_thread(delete_ray_channel, "kept")
    assert not os.path.exists(path)


@aio
async def test_waiting_receivers_block_no_sender() -> None:
    tx, rx = await ray_channel(100)
    crowds = [Process.remote(rx=rx) for _ in range(2)]
    await asyncio.gather(*(crowd.park.remote(250) for crowd in crowds))

    async def registered() -> bool:
        return (await tx.stats_async()).receiver_count >= 500

    await eventually(registered)
    slowest = 0.0
    for i in range(100):
        begun = time.monotonic()
        await tx.send(i)
        slowest = max(slowest, time.monotonic() - begun)
    assert slowest < 5

    async def served() -> bool:
        return sum([await crowd.parked.remote() for crowd in crowds]) == 400

    await eventually(served)
    for crowd in crowds:
        ray.kill(crowd)


def _pid(_actor: Any) -> int:
    return os.getpid()


def _pid_now(actor: Any) -> int | None:
    """None: it is between two lives."""
    try:
        return int(ray.get(actor.__ray_call__.remote(_pid), timeout=20))
    except ray.exceptions.RayError:
        return None


@aio
async def test_a_disk_that_fails_is_told_and_a_new_start_has_what_was_confirmed(tmp_path: Any) -> None:
    name = f"disk {time.monotonic_ns()}"
    tx, rx = await ray_channel(100, name=name, durable=True, path=str(tmp_path / "log"), max_restarts=1)
    rx.open()
    await tx.send(b"confirmed")

    def fill(_actor: Any) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, resource.RLIM_INFINITY))

    await tx.actor.__ray_call__.remote(fill)
    with pytest.raises(UncertainError, match="can't be written"):
        await tx.send(bytes(1 << 19))
    with pytest.raises(ChannelBackendErrorException, match="nothing confirmed is lost") as told:
        await tx.send(b"another")
    assert told.value.actor_name == f"channel_{name}"
    with pytest.raises(ChannelBackendErrorException, match="can't be written"):
        await rx.recv()  # it had no credit for it: nothing was delivered
    before = ray.get(tx.actor.__ray_call__.remote(_pid))
    ray.kill(tx.actor, no_restart=False)
    await eventually(lambda: _pid_now(tx.actor) not in (None, before))
    again = rx.clone()
    assert await again.recv() == b"confirmed"
    await tx.clone().send(b"goes on")
    assert await again.recv() == b"goes on"
    delete_ray_channel(name)


@pytest.mark.slow
@aio
async def test_short_leases_and_endpoints_that_are_long_on_their_way() -> None:
    tx, rx = await ray_channel(100, broker_options={"lease": 4.0, "token": 4.0})
    await tx.send("before")
    assert await rx.recv() == "before"
    client = rx.reader_id
    on_its_way = ray.cloudpickle.dumps(tx)  # to a task that waits for its turn
    await tx.close()
    await asyncio.sleep(5.5)  # longer than a lease and a token's life
    assert rx.stats().sender_count == 1
    arrived = ray.cloudpickle.loads(on_its_way)
    await arrived.send("after")
    assert await rx.recv() == "after" and rx.reader_id == client and not rx.last.redelivered
    await eventually(lambda: not rx._link.hub.state()["tokens"])
    await arrived.close()
    assert await drain(rx) == []


def _watching(actor: Any) -> list[int]:
    return [len(each) for each in (actor._watched, actor._client_of, actor._holds, actor._released)]


@pytest.mark.slow
@aio
async def test_the_actor_forgets_processes_that_have_gone() -> None:
    tx, rx = await ray_channel(100)
    rx.open()

    @ray.remote(num_cpus=0, max_calls=1)
    def send(sender: Any, value: int) -> None:
        sender.send_sync(value)

    await asyncio.gather(*[send.remote(tx.clone(), value) for value in range(2)])
    assert sorted([await rx.recv() for _ in range(2)]) == [0, 1]

    async def alone() -> bool:
        return await rx.actor.__ray_call__.remote(_watching) == [1, 1, 1, 0]

    await eventually(alone)
