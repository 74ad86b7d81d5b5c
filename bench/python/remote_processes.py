# SPDX-License-Identifier: Apache-2.0
"""A remote channel over three processes and pipes, without Ray: senders, the broker, receivers.

    PYTHONPATH=build/python/site .venv/bin/python bench/python/remote_processes.py [items] [tasks]

Prints items a second by the clock, and the processor time an item of each process: what a transport adds to that is its
own. The pipes carry a number and a blob each way.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import struct
import sys
import time
from multiprocessing.connection import Connection, wait
from typing import Any

from klaw_core._klaw import Broker, Hub

CHANNEL = b"bench-channel-id"
PAYLOAD = b"x" * 100


def serve(pipes: list[Connection], result: Connection) -> None:
    """The broker's process: until every hub has left."""
    broker = Broker(CHANNEL, capacity=10_000)
    tickets: dict[int, tuple[Connection, bytes]] = {}
    start = time.process_time()
    while pipes:
        due = broker.deadline()
        for pipe in wait(pipes, None if due is None else max(0.0, due - time.monotonic())):
            assert isinstance(pipe, Connection)
            try:
                data = pipe.recv_bytes()
            except EOFError:
                pipes.remove(pipe)
                continue
            ticket, _ = broker.call(memoryview(data)[8:])  # type: ignore[arg-type]
            tickets[ticket] = (pipe, data[:8])
        if due is not None:
            broker.tick()
        for ticket, blob, _ in broker.answers():
            to, number = tickets.pop(ticket)
            if to in pipes:
                to.send_bytes(number + blob)
    result.send(("broker", time.process_time() - start))


class Link:
    """A hub whose calls go through a pipe, on a loop of asyncio."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.hub = Hub(CHANNEL)
        self.hub.on_calls = self.kick
        self.loop = asyncio.get_running_loop()
        self.loop.add_reader(pipe.fileno(), self.answered)
        self.frames = 0

    def kick(self) -> None:
        """At the end of this pass of the loop, so that its tasks' sends share a frame."""
        self.loop.call_soon(self.pump)

    def pump(self) -> None:
        """Makes the calls the hub wants made."""
        for number, _, blob, _ in self.hub.calls():
            self.frames += 1
            self.pipe.send_bytes(struct.pack("<Q", number) + blob)
        self.hub.events()

    def answered(self) -> None:
        """Takes what has come."""
        while self.pipe.poll():
            data = self.pipe.recv_bytes()
            self.hub.reply(struct.unpack("<Q", data[:8])[0], memoryview(data)[8:])  # type: ignore[arg-type]
        self.hub.tick()


def run(role: Any, pipe: Connection, n: int, tasks: int, result: Connection) -> None:
    """A process of senders or receivers."""
    start = time.process_time()
    frames = asyncio.run(role(pipe, n, tasks))
    result.send((role.__name__, time.process_time() - start, frames))
    result.close()


async def senders(pipe: Connection, n: int, tasks: int) -> int:
    """Tasks that send one item after the other."""
    link = Link(pipe)
    endpoint = link.hub.open("sender")

    async def send() -> None:
        for _ in range(n // tasks):
            await link.hub.send_op(endpoint, PAYLOAD, 0)

    await asyncio.gather(*(send() for _ in range(tasks)))
    return link.frames


async def receivers(pipe: Connection, n: int, tasks: int) -> int:
    """Tasks that receive, and acknowledge an item when they ask for the next."""
    link = Link(pipe)
    endpoint = link.hub.open("receiver")
    left = n // tasks * tasks
    over = asyncio.get_running_loop().create_future()

    async def receive() -> None:
        nonlocal left
        lease = 0
        while True:
            item = await link.hub.recv_op(endpoint, lease)
            lease = item.lease
            left -= 1
            if left == 0:
                over.set_result(None)

    readers = [asyncio.create_task(receive()) for _ in range(tasks)]
    await over
    for each in readers:
        each.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    return link.frames


def main() -> None:
    """One run."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 300_000
    tasks = int(sys.argv[2]) if len(sys.argv) > 2 else 256
    spawn = multiprocessing.get_context("spawn")
    near, far, results, ends = [], [], [], []
    for _ in range(2):
        here, there = spawn.Pipe()
        near.append(here)
        far.append(there)
    for _ in range(3):
        here, there = spawn.Pipe(duplex=False)
        results.append(here)
        ends.append(there)
    processes = [
        spawn.Process(target=serve, args=(far, ends[0])),
        spawn.Process(target=run, args=(receivers, near[0], n, tasks, ends[1])),
        spawn.Process(target=run, args=(senders, near[1], n, tasks, ends[2])),
    ]
    start = time.perf_counter()
    for each in processes:
        each.start()
    for pipe in (*near, *far, *ends):
        pipe.close()
    answers = [pipe.recv() for pipe in results]
    took = time.perf_counter() - start
    for each in processes:
        each.join()
    for name, spent, *frames in answers:
        print(f"{name:10} {spent / n * 1e9:8.0f} ns an item {frames or ''}")
    total = sum(answer[1] for answer in answers)
    print(f"{n / took:,.0f} items/s by the clock (start-up included), {2 * n / total:,.0f} on two idle processors")


if __name__ == "__main__":
    main()
