# SPDX-License-Identifier: Apache-2.0
"""What a channel's actor does with those who wait, without Ray: who can't be served is not asked again and again, what
is confirmed is told, nobody waits for a disk that has failed."""

from __future__ import annotations

import asyncio
import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install 'klaw-core[ray]'")

from klaw_core import _klaw
from klaw_core.runtime.channels.ray._host import ChannelHost

QUEUE, BROADCAST = 0, 1


def item(text: bytes = b"x") -> tuple[Any, ...]:
    return (text, 0, None, b"", 0.0)


class Counted(ChannelHost):
    """Counts the steps of its broker."""

    touched = 0

    def touch(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        self.touched += 1
        return super().touch(function, *args, **kwargs)


async def settled(host: Counted) -> int:
    """Steps of the broker once nothing happens any more; of 10 000 passes of the loop at most."""
    before = -1
    for _ in range(100):
        if host.touched == before:
            break
        before = host.touched
        for _ in range(100):
            await asyncio.sleep(0)
    return host.touched


def test_batches_that_do_not_fit_wait_without_work_and_go_when_there_is_room() -> None:
    async def main() -> None:
        host = Counted(_klaw.Broker(os.urandom(16), capacity=4))
        assert await host.put([item()], 0.0) == "ok"
        waiting = [asyncio.create_task(host.put([item()] * 4, None)) for _ in range(5)]
        assert await settled(host) < 100
        for _ in range(21):
            assert (await host.get("", 20.0))[0] == "ok"
        assert await asyncio.gather(*waiting) == ["ok"] * 5
        host.close()

    asyncio.run(main())


def test_a_batch_as_large_as_the_channel_finds_room_while_single_items_press() -> None:
    async def main() -> None:
        host = Counted(_klaw.Broker(os.urandom(16), capacity=4))
        assert await host.put([item()] * 4, 0.0) == "ok"

        async def press() -> None:
            while not batch.done():
                assert await host.put([item()], None) == "ok"

        batch = asyncio.create_task(host.put([item(b"batch")] * 4, None))
        await asyncio.sleep(0)
        singles = [asyncio.create_task(press()) for _ in range(3)]
        taken = []
        while b"batch" not in taken[-1:]:
            assert len(taken) < 100
            taken.append((await host.get("", 20.0))[1])
        rest = asyncio.gather(*singles)
        while not rest.done():
            await host.get("", 0.01)
        host.close()

    asyncio.run(main())


def test_a_put_that_is_given_up_holds_up_nobody() -> None:
    channel = os.urandom(16)
    host, hub = Counted(_klaw.Broker(channel, capacity=4)), _klaw.Hub(channel)
    calls: set[asyncio.Task[None]] = set()

    async def one(number: int, blob: bytes) -> None:
        hub.reply(number, await host.call(blob), ())

    async def accepted(n: int, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while hub.state()["accepted"] < n and time.monotonic() < end:
            hub.tick()
            calls.update(asyncio.create_task(one(number, blob)) for number, _, blob, _ in hub.calls())
            await asyncio.sleep(0.001)
        return int(hub.state()["accepted"]) >= n

    async def main() -> None:
        assert await host.put([item()] * 3, 0.0) == "ok"
        waiting = asyncio.create_task(host.put([item()] * 4, None))
        await settled(host)
        hub.send(hub.open("sender"), b"y", 0, None)
        assert not await accepted(1, 0.2)
        waiting.cancel()
        assert await accepted(1, 20.0)
        for call in calls:
            call.cancel()

    asyncio.run(main())
    host.close()


def test_readers_of_a_broadcast_that_have_seen_all_wait_without_work_for_a_slow_one() -> None:
    async def main() -> None:
        host = Counted(_klaw.Broker(os.urandom(16), kind=BROADCAST, capacity=4))
        for reader in ("a", "b", "slow"):
            host.touch(host.broker.register, 1, reader)
        assert await host.put([item(b"1")], 0.0) == "ok"
        for reader in ("a", "b"):
            assert (await host.get(reader, 0.0))[1] == b"1"
        waiting = [asyncio.create_task(host.get(reader, None)) for reader in ("a", "b")]
        assert await settled(host) < 100
        assert await host.put([item(b"2")], 0.0) == "ok"
        assert [got[1] for got in await asyncio.gather(*waiting)] == [b"2", b"2"]
        host.close()

    asyncio.run(main())


def test_whoever_was_woken_and_is_cancelled_lets_the_next_one_go() -> None:
    async def main() -> None:
        host = ChannelHost(_klaw.Broker(os.urandom(16), capacity=4))
        first, second = (asyncio.create_task(host.get("", None)) for _ in range(2))
        await asyncio.sleep(0)
        # From a thread: the waiter is out of the queue, and its loop has not heard of it.
        thread = threading.Thread(target=host.touch, args=(host.broker.put, [item()]))
        thread.start()
        thread.join()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await asyncio.wait_for(second, 20.0))[0] == "ok"
        host.close()

    asyncio.run(main())


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file of this process grows beyond `size` bytes: as a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fails_is_told_and_what_was_confirmed_is_kept(tmp_path: Path) -> None:
    channel = os.urandom(16)

    async def main() -> None:
        log = _klaw.ChannelLog(str(tmp_path / "log"), channel)
        host = ChannelHost(_klaw.Broker(channel, capacity=4, durable=True), log)
        assert await host.put([item(b"confirmed")], 0.0) == "ok"
        with files_up_to(1 << 18):
            calls = host.put([item(bytes(1 << 20))], 0.0), host.put([item()], 0.0), host.get("", None), host.durable()
            for call in calls:
                with pytest.raises(OSError, match=r"can't be written \(.*nothing confirmed is lost.*ray.kill"):
                    await asyncio.wait_for(call, 20.0)
        assert not host.broker.stats()["deleted"]
        host.close()
        log.close()

    asyncio.run(main())
    snapshot, records = _klaw.ChannelLog(str(tmp_path / "log"), channel).load()
    again = _klaw.Broker(channel, capacity=4, durable=True, restarted=True)
    assert snapshot is None
    for record in records:
        again.replay(record)
    assert [payload for payload, *_ in again.peek()] == [b"confirmed"]


def restarted(path: Path, channel: bytes, **options: Any) -> Any:
    """The broker that the log describes."""
    snapshot, records = _klaw.ChannelLog(str(path), channel).load()
    broker = _klaw.Broker(channel, durable=True, restarted=True, **options)
    if snapshot is not None:
        broker.restore(snapshot)
    for record in records:
        broker.replay(record)
    return broker


def test_what_a_compaction_confirms_is_told_and_kept(tmp_path: Path) -> None:
    channel = os.urandom(16)
    broker = _klaw.Broker(channel, capacity=4, durable=True)
    log = _klaw.ChannelLog(str(tmp_path / "log"), channel)
    host = Counted(broker, log)
    broker.put([item(b"kept")])  # journalled by nobody else: no step of the host has seen it
    before = host.touched
    host._compact()
    assert broker.journal() is None and host.touched > before
    host.close()
    log.close()
    assert [payload for payload, *_ in restarted(tmp_path / "log", channel, capacity=4).peek()] == [b"kept"]


def test_the_log_stays_short_while_much_waits_in_the_channel(tmp_path: Path) -> None:
    channel = os.urandom(16)
    log = _klaw.ChannelLog(str(tmp_path / "log"), channel)
    large, backlog = 1 << 20, 5

    async def main() -> None:
        host = ChannelHost(_klaw.Broker(channel, capacity=None, durable=True), log)
        for number in range(30):
            assert await host.put([item(bytes([number]) * large)], 0.0) == "ok"
            if number >= backlog:
                assert (await host.get("", 0.0))[1][0] == number - backlog
            _count, records, snapshot = log.sizes()
            assert records + snapshot <= 20 * large
        host.close()

    asyncio.run(main())
    assert log.sizes()[2] >= backlog * large
    log.close()
    kept = [payload[0] for payload, *_ in restarted(tmp_path / "log", channel, capacity=None).peek()]
    assert kept == list(range(25, 30))


class Gated:
    """A log that begins anew when it is told to."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self.sizes, self.append = log.sizes, log.append
        self.compacting, self.go_on = threading.Event(), threading.Event()

    def compact(self, snapshot: bytes) -> None:
        self.compacting.set()
        assert self.go_on.wait(20.0)
        self._log.compact(snapshot)


def test_nobody_waits_for_the_disk_while_the_log_is_compacted(tmp_path: Path) -> None:
    channel = os.urandom(16)
    log = _klaw.ChannelLog(str(tmp_path / "log"), channel)
    gated = Gated(log)
    broker = _klaw.Broker(channel, capacity=None, durable=True)
    broker.put([item()] * 1000)
    for _ in range(2):  # they come, and go: there is much less than was written
        record, mark = broker.journal()
        log.append(record)
        broker.committed(mark)
        while broker.get()[0] == "ok":
            pass
    host = ChannelHost(broker, gated)
    host._next_compact = 0
    host.touch(broker.put, [item(b"kept")])
    assert gated.compacting.wait(20.0)
    others = threading.Thread(target=host.touch, args=(broker.put, [item(b"meanwhile")]))
    others.start()
    others.join(10.0)
    served = not others.is_alive()
    gated.go_on.set()
    others.join()
    asyncio.run(host.durable())
    host.close()
    log.close()
    assert served
    kept = [payload for payload, *_ in restarted(tmp_path / "log", channel, capacity=None).peek()]
    assert kept == [b"kept", b"meanwhile"]
