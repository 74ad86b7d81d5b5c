# SPDX-License-Identifier: Apache-2.0
"""The pipeline of wordcount.py on a Ray cluster (--backend ray): the same stages as processes, the same totals.

              batches                tallies
  walker     =========> workers (n) ========> reducer
  (a process)           (processes)           (this program)

Each double arrow is a durable channel of the cluster: what was confirmed there is on disk, and survives the actor that
holds it. Any of the processes and actors may be killed at any moment (--chaos sees to it):

  - a worker that dies had not acknowledged its batch, which it does by asking for the next one, when the tally is on
    disk: the batch goes to another worker;
  - a walker that dies is started again, and sends everything again, numbered as before;
  - a channel's actor is started again by Ray, and those at its ends go on where they were.

So a batch may be counted twice, but its pieces have numbers: the reducer adds the first tally, and only compares those
that come later. The walker's last word is how many pieces there are; when all of them are in the total, that's it.

Every machine of the cluster has to see the same files under the same names.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import ray
import wordcount
from klaw_core.runtime import ChannelClosedError, Receiver, Sender, Supervisor, channel, delete_channel, init
from wordcount import Piece, Pipeline, Root, Tally, Walk, count, progress, say_skipped, stopping

Plain = dict[str, Any]  # what goes through the channels: programs in any language can read it

ROOM_IN_CHAOS = 2  # batches that the channel holds then: what the walker can have sent before it is killed, too
MOST_KILLS = 10
OBJECTS = 100 << 20  # bytes for objects, of a cluster of our own

# The processes need klaw, not these two files: their code travels with the calls.
ray.cloudpickle.register_pickle_by_value(wordcount)
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

# ---- in the cluster's processes -------------------------------------------------------------------------------------


class QuietWalk(Walk):
    """Remembers what it skipped, for the process that has a terminal."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options, set(), 0, "")
        self.skipped: list[list[Any]] = []

    def skip(self, path: bytes, reason: str) -> None:
        self.skipped.append([path, reason])
        self.unreadable += 1


class Batches:
    """Sends batches as plain data, each with the hash of the files before it: the same when it is sent again, unless
    the files have changed."""

    def __init__(self, walk: QuietWalk, tx: Sender[Plain]) -> None:
        self.walk = walk
        self.tx = tx
        self.number = 0

    def send_sync(self, batch: list[Piece]) -> None:
        self.number += 1
        pieces = [[piece.number, piece.path, piece.start, piece.end] for piece in batch]
        try:
            self.tx.send_sync({"number": self.number, "mark": self.walk.marks[-1][1], "pieces": pieces})
        except ChannelClosedError as error:  # which would look like the end of the files
            raise RuntimeError(f"batches: {error}") from error


class Process:
    """A process of the cluster. It does one thing at a time: says where it is, then walks or works."""

    def where(self) -> tuple[str, int]:
        """The node and the pid."""
        return ray.get_runtime_context().get_node_id(), os.getpid()

    def walk(self, what: Plain, batches: Sender[Plain], tallies: Sender[Plain]) -> None:
        walk = QuietWalk(argparse.Namespace(**what))
        walk.send_batches(Batches(walk, batches))  # type: ignore[arg-type]
        tallies.send_sync(
            {
                "pieces": walk.marks[-1][0],
                "mark": walk.marks[-1][1],
                "roots": [[root.path, root.folders, root.files, root.bytes] for root in walk.roots],
                "skips": [walk.packed, walk.links, walk.special, walk.unreadable],
                "skipped": walk.skipped,
            }
        )

    def work(self, batches: Any, tallies: Sender[Plain], dies: bool) -> None:
        for batch in batches:  # asking for the next one acknowledges this one
            if dies and batch["number"] > ROOM_IN_CHAOS:  # it was sent once: somebody else has to get it
                os.kill(os.getpid(), signal.SIGKILL)
            tally = count([Piece(*piece) for piece in batch["pieces"]])
            tallies.send_sync(
                {
                    "mark": batch["mark"],
                    "numbers": tally.numbers,
                    "words": dict(tally.words),
                    "files": tally.files,
                    "size": tally.size,
                    "unreadable": [list(each) for each in tally.unreadable],
                }
            )


def kill(pid: int) -> None:
    """As a task, on the node of the victim."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


# ---- in this program ------------------------------------------------------------------------------------------------


class Chaos:
    """Kills processes with SIGKILL: each kind once, then one of any kind with so many percent a tally. Two workers die
    with a batch in their hands, which a kill from outside may miss."""

    KINDS = ("worker", "batches", "tallies")

    def __init__(self, percent: int, seed: int) -> None:
        self.percent = percent
        self.chance = random.Random(seed)
        self.killed = dict.fromkeys(("walker", *self.KINDS), 0)
        self.first = list(self.KINDS)
        self.chance.shuffle(self.first)

    def victim(self) -> str | None:
        """The kind of the next one, if it is time. Asked after each tally."""
        if not self.percent or sum(self.killed.values()) >= MOST_KILLS:
            return None
        if self.first:
            return self.first.pop()
        return self.chance.choice(list(self.killed)) if self.chance.random() * 100 < self.percent else None

    async def strike(self, kind: str, place: tuple[str, int]) -> None:
        node, pid = place
        there = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        await ray.remote(kill).options(num_cpus=0, scheduling_strategy=there).remote(pid)
        self.killed[kind] += 1


class RayPipeline(Pipeline):
    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.name = f"wordcount-{secrets.token_hex(4)}"
        self.chaos = Chaos(options.chaos, options.seed)
        self.marks: dict[int, str] = {}  # of each batch that was added, by its first number
        self.end: Plain | None = None  # the walker's last word
        self.places: dict[str, tuple[str, int]] = {}  # of the processes that run now
        self.ends: dict[str, tuple[Sender[Plain], Receiver[Plain]]] = {}
        self.walker_was_killed = asyncio.Event()
        self.first_lives: set[str] = set()  # processes that had a first life

    def more(self) -> Plain:
        return {"backend": "ray", "killed": self.chaos.killed}

    # -- the cluster --
    @contextlib.contextmanager
    def cluster(self) -> Any:
        """Of --address or RAY_ADDRESS, else one of our own, on this machine."""
        address = self.options.address or os.environ.get("RAY_ADDRESS")
        init(backend="ray", address=address)
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            if not address:
                ray.init(
                    address="local",
                    num_cpus=max(4, self.options.workers),
                    object_store_memory=OBJECTS,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="ERROR",
                )
            yield
        finally:
            ray.shutdown()

    @contextlib.asynccontextmanager
    async def channels_of(self, *capacities: tuple[str, int]) -> AsyncIterator[None]:
        """Named, durable, of plain data; deleted at the end."""
        try:
            for name, capacity in capacities:
                tx: Sender[Plain]
                rx: Receiver[Plain]
                tx, rx = await channel(
                    capacity,
                    backend="ray",
                    name=f"{self.name}/{name}",
                    durable=True,
                    codec="msgpack",
                    max_restarts=-1,
                )
                tx.open()  # type: ignore[attr-defined]  # ours keep it open while the others are dead
                rx.open()  # type: ignore[attr-defined]
                self.ends[name] = tx, rx
            yield
            for name, (_, rx) in self.ends.items():
                stats = await rx.stats_async()  # type: ignore[attr-defined]
                stats.backend_extras.update(name=name, kind="ray")
                self.channels.append(Seen(stats))
        finally:
            for name, _ in capacities[: len(self.ends)]:
                with contextlib.suppress(Exception):  # it may be dead for good; Ray ends below
                    await asyncio.to_thread(delete_channel, f"{self.name}/{name}", backend="ray")

    # -- the stages --
    async def process(self, name: str, cpus: int) -> None:
        """One process; ends when it has done its part, or fails when it is dead."""
        remote: Any = ray.remote(max_restarts=0, num_cpus=cpus)(Process).remote()
        (batches_tx, batches_rx), (tallies_tx, _) = self.ends["batches"], self.ends["tallies"]
        dies = bool(self.options.chaos) and name in ("worker 0", "worker 1") and name not in self.first_lives
        self.first_lives.add(name)
        try:
            if name != "walker" and self.options.chaos:
                await self.walker_was_killed.wait()  # before anybody takes what it sends: it can't have finished
            self.places[name] = await remote.where.remote()
            if name == "walker":
                paths = [os.path.abspath(path) for path in self.options.paths]
                what = {"paths": paths, "all": self.options.all, "min_bytes": self.options.min_bytes}
                await remote.walk.remote(what, batches_tx.clone(), tallies_tx.clone())
            else:
                await remote.work.remote(batches_rx.clone(), tallies_tx.clone(), dies)
        except Exception:
            self.failures += 1
            self.chaos.killed["worker"] += dies
            raise
        finally:
            self.places.pop(name, None)
            ray.kill(remote)

    async def supervise(self) -> None:  # type: ignore[override]
        def restarted(_child: Any, _error: Any, _attempt: int) -> None:
            self.restarts += 1

        async with Supervisor(max_restarts=2 * MOST_KILLS, restart_window=60.0, on_restart=restarted) as sup:
            await sup.start_child(self.process, "walker", 0, name="walker", restart="on_failure")
            for name in (f"worker {number}" for number in range(self.options.workers)):
                await sup.start_child(self.process, name, 1, name=name, restart="on_failure")
            await sup.wait()
            if sup.gave_up:
                raise RuntimeError(f"the processes fail again and again: {sup.error}")

    async def reduce(self) -> None:  # type: ignore[override]
        """Until everything is in the total."""
        _, tallies = self.ends["tallies"]
        async for item in tallies:
            if "numbers" in item:
                self.add(item)
                if kind := self.chaos.victim():
                    await self.disturb(kind)
            elif self.end is None:
                self.end = item
                self.note_end(item)
            elif self.end["mark"] != item["mark"]:
                raise RuntimeError("the files have changed while they were counted")
            if self.end is not None and len(self.total.done) == self.end["pieces"]:
                return

    def add(self, item: Plain) -> None:
        known = self.total.done.intersection(item["numbers"])
        first = item["numbers"][0]
        if known:
            if len(known) != len(item["numbers"]) or self.marks.get(first) != item["mark"]:
                raise RuntimeError("the files have changed while they were counted")
            self.recounted += 1
            return
        self.marks[first] = item["mark"]
        unreadable = [(path, reason) for path, reason in item["unreadable"]]
        self.total.add(Tally(Counter(item["words"]), item["numbers"], item["files"], item["size"], unreadable))
        for path, reason in unreadable:
            say_skipped(path, reason)

    def note_end(self, item: Plain) -> None:
        walk = self.walk
        walk.roots = [Root(*root) for root in item["roots"]]
        walk.packed, walk.links, walk.special, walk.unreadable = item["skips"]
        for path, reason in item["skipped"]:
            say_skipped(path, reason)

    # -- the chaos --
    async def disturb(self, kind: str) -> None:
        if kind in self.ends:
            stats = await self.ends[kind][1].stats_async()  # type: ignore[attr-defined]
            node = ray.get_runtime_context().get_node_id()  # a durable channel stays where its file is
            await self.chaos.strike(kind, (node, stats.backend_extras["pid"]))
            return
        running = sorted(name for name in self.places if name.startswith(kind))
        if running:
            await self.chaos.strike(kind, self.places.pop(self.chaos.chance.choice(running)))
        elif kind != "walker":  # all of them are being started
            self.chaos.first.append(kind)

    async def kill_the_walker(self) -> None:
        """When it has sent something, and waits for room if there is more than a little."""
        if not self.options.chaos:
            return
        _, batches = self.ends["batches"]
        while "walker" not in self.places or not (await batches.stats_async()).queue_size:  # type: ignore[attr-defined]
            if self.end is not None:
                break  # there was nothing to send
            await asyncio.sleep(0.02)
        await self.disturb("walker")
        self.walker_was_killed.set()

    # -- all of it --
    async def run(self) -> None:
        begun = time.monotonic()
        loop = asyncio.get_running_loop()
        wake_read, wake = os.pipe()
        stopped = asyncio.Event()
        loop.add_reader(wake_read, stopped.set)
        # In chaos the channel is short: the walker is in the middle of its work for most of the time.
        room = ROOM_IN_CHAOS if self.options.chaos else 4 * self.options.workers
        async with stopping(self, wake), self.channels_of(("batches", room), ("tallies", 16)), progress(self):
            reducer = asyncio.ensure_future(self.reduce())
            others: list[Coroutine[Any, Any, Any]] = [self.supervise(), self.kill_the_walker(), stopped.wait()]
            supervisor, killer, stop = (asyncio.ensure_future(each) for each in others)
            try:
                watched = {reducer, supervisor, killer, stop}
                while not reducer.done() and not stop.done():
                    done, watched = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
            finally:
                for task in (reducer, supervisor, killer, stop):
                    task.cancel()
                await asyncio.gather(reducer, supervisor, killer, stop, return_exceptions=True)
        loop.remove_reader(wake_read)
        os.close(wake_read)
        os.close(wake)
        self.seconds = time.monotonic() - begun


class Seen:
    """A channel's last counters."""

    def __init__(self, stats: Any) -> None:
        self.last = stats

    def stats(self) -> Any:
        return self.last


def run(options: argparse.Namespace) -> RayPipeline:
    """Counts. BackendErrorException when there is no cluster; RuntimeError."""
    p = RayPipeline(options)
    with contextlib.redirect_stdout(sys.stderr), p.cluster():  # Ray prints there whom it sees die
        asyncio.run(p.run())
    return p
