#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Counts words, on all processors at once: examples/c/wordcount in Python, with the same totals.

              batches               tallies
  walker     =========> workers (n) =======> reducer ---> checkpoint
  (a thread)            supervised                        (once a second)
                          |   ^
                          v   |
                        processes that count

Each double arrow is a bounded channel: a stage that is too fast waits in its send, and memory stays the same however
much there is to read.

The workers are children of a supervisor and may fail at any point (--chaos sees to it). Nothing is lost and nothing is
counted twice, because what a worker has taken and what it makes of it part ways: the batch stays in its lane, which
outlives it, until its tally is handed over, and handing over is one send: it has happened or it has not. Who is started
in its place finds the batch in the lane.

So the reducer's total is a whole number of batches at any moment. Files are cut into pieces, and the walk numbers them
in an order that depends on nothing but names and sizes: the total and the numbers in it are the checkpoint, and
--resume counts the pieces that are missing.

A piece is the words that begin in it: who counts it skips one that began before it, and reads on to the last one's end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import random
import select
import signal
import stat
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from klaw_core import Err, Ok
from klaw_core.runtime import (
    BackendErrorException,
    ChannelClosedError,
    Executor,
    LocalCheckpointer,
    Receiver,
    Sender,
    Supervisor,
    channel,
    get_config,
)

PIECE = 1 << 20  # bytes of a file that are counted in one go
BATCH_PIECES = 256  # at most, of small files
PREFIX = "wordcount.py/"
FOLDERS = [
    *("/usr/share/doc", "/usr/share/common-licenses", "/usr/share/licenses", "/usr/share/man", "/usr/share/info"),
    *("/usr/share/perl", "/usr/share/perl5", "/usr/share/vim", "/usr/include", "/usr/lib/python3"),
    *("/usr/lib/python3.11", "/usr/lib/python3.12", "/usr/lib/python3.13", "/usr/lib/gcc", "/etc"),
]
PACKED = {
    *("gz", "bz2", "xz", "zst", "zip", "tgz", "jar", "whl", "png", "jpg", "jpeg", "gif", "ico", "pdf", "webp"),
    *("ttf", "woff", "mo", "so", "a", "o", "pyc"),
}
#: Of each byte: itself if it belongs to a word (in lower case), else a space.
FOLD = bytes(c if c >= 0x80 or chr(c).isalnum() else 0x20 for c in bytes(range(256)).lower())

# ---- counting: in the processes -------------------------------------------------------------------------------------


@dataclass(slots=True)
class Piece:
    """A part of a file: from `start` to before `end` (None: its end); or `data` that came through a pipe."""

    number: int  # -1: of a pipe
    path: bytes
    start: int = 0
    end: int | None = None
    data: bytes | None = None


@dataclass(slots=True)
class Tally:
    """What became of a batch."""

    words: Counter[bytes] = field(default_factory=Counter)
    numbers: list[int] = field(default_factory=list)
    files: int = 0
    size: int = 0
    unreadable: list[tuple[bytes, str]] = field(default_factory=list)


def read_piece(piece: Piece) -> tuple[bytes, int]:
    """The folded text of the words that begin in a piece, and the piece's bytes. OSError."""
    with open(piece.path, "rb", buffering=0) as file:
        before = b""
        if piece.start:
            file.seek(piece.start - 1)
            before = file.read(1)
        parts = []
        left = piece.end - piece.start if piece.end is not None else 1 << 62
        while left > 0 and (part := file.read(min(left, PIECE))):
            parts.append(part)
            left -= len(part)
        size = sum(map(len, parts))
        text = b"".join(parts).translate(FOLD)
        if before.translate(FOLD).strip(b" "):
            text = text[text.index(b" ") :] if b" " in text else b""
        while text[-1:].strip(b" ") and (part := file.read(4096)):
            end, space, _ = part.translate(FOLD).partition(b" ")
            text += end + space
    return text, size


def count(batch: list[Piece]) -> Tally:
    tally = Tally()
    for piece in batch:
        tally.numbers.append(piece.number)
        try:
            text, size = (piece.data.translate(FOLD), len(piece.data)) if piece.data is not None else read_piece(piece)
        except OSError as error:
            tally.unreadable.append((piece.path, error.strerror or str(error)))
            continue
        tally.words.update(text.split())
        tally.size += size
        tally.files += piece.end is None
    return tally


# ---- walking: in a thread -------------------------------------------------------------------------------------------


class Changed(Exception):
    """The files are not those of the checkpoint."""


@dataclass(slots=True)
class Root:
    path: str
    folders: int = 0
    files: int = 0
    bytes: int = 0


class Walk:
    """Numbers the pieces of all files. `done`: numbers that an earlier run counted; it had seen `known` pieces, whose
    names, sizes and times have the hash `wanted`: pieces that are missing up to there wait until that has been seen."""

    def __init__(self, options: argparse.Namespace, done: set[int], known: int, wanted: str) -> None:
        self.options = options
        self.roots: list[Root] = []
        self.packed = self.links = self.special = self.unreadable = 0
        self.cut = 0
        self.marks: list[tuple[int, str]] = [(0, "")]  # after so many pieces, the hash
        self.stopped = False
        self._hash = hashlib.blake2b(digest_size=16)
        self._number = 0
        self._done, self._known, self._wanted = done, known, wanted
        self._missing: list[Piece] = []

    def skip(self, path: bytes, reason: str) -> None:
        say_skipped(path, reason)
        self.unreadable += 1

    def entries(self, folder: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            self.skip(folder, error.strerror or "")
            return
        for name in names:
            path = os.path.join(folder, name)
            try:
                yield path, os.lstat(path)
            except OSError as error:
                self.skip(path, error.strerror or "")

    def files(self, root: Root) -> Iterator[tuple[bytes, os.stat_result]]:
        """Regular files of a root."""
        path = os.fsencode(root.path)
        try:
            info = os.stat(path)
        except OSError as error:
            if self.options.paths:
                self.skip(path, error.strerror or "")
            return
        if stat.S_ISREG(info.st_mode):
            yield path, info
        folders = [path.rstrip(b"/") or b"/"] if stat.S_ISDIR(info.st_mode) else []
        while folders:
            root.folders += 1
            for path, info in self.entries(folders.pop()):
                if stat.S_ISDIR(info.st_mode):
                    folders.append(path)
                elif stat.S_ISLNK(info.st_mode):
                    self.links += 1
                elif not stat.S_ISREG(info.st_mode):
                    self.special += 1
                elif not self.options.all and packed(path):
                    self.packed += 1
                else:
                    yield path, info

    def pieces(self) -> Iterator[Piece]:
        for name in self.options.paths or FOLDERS:
            if not self.options.paths and sum(root.bytes for root in self.roots) >= self.options.min_bytes:
                break
            root = Root(name)
            self.roots.append(root)
            for path, info in self.files(root):
                root.files += 1
                root.bytes += info.st_size
                yield from self.file(path, info)
        if self._number < self._known:
            raise Changed

    def file(self, path: bytes, info: os.stat_result) -> Iterator[Piece]:
        self._hash.update(b"%b\0%d %d\n" % (path, info.st_size, info.st_mtime_ns))
        starts = range(0, max(info.st_size, 1), PIECE)
        for start in starts:
            piece = Piece(self._number, path, start, None if start == starts[-1] else start + PIECE)
            self._number += 1
            if self._number > self._known:
                yield piece
            elif piece.number not in self._done:
                self._missing.append(piece)
            if self.stopped:
                self.cut += piece.end is not None
                return
        self.marks.append((self._number, self._hash.hexdigest()))
        if self._missing and self._number >= self._known:
            self.check()
            missing, self._missing = self._missing, []
            yield from missing
        elif self._number == self._known:
            self.check()

    def check(self) -> None:
        if not any(number == self._known and mark == self._wanted for number, mark in self.marks[-2:]):
            raise Changed

    def send_batches(self, tx: Sender[list[Piece]]) -> None:
        """Sends everything, in batches. From a thread: it blocks on the disk, and in send_sync."""
        batch: list[Piece] = []
        size = 0
        with contextlib.suppress(ChannelClosedError):
            for piece in self.pieces():
                if self.stopped:
                    self.cut += piece.start > 0
                    break
                batch.append(piece)
                size += PIECE if piece.end is not None else 8192
                if size >= PIECE or len(batch) == BATCH_PIECES:
                    tx.send_sync(batch)
                    batch, size = [], 0
            if batch:
                tx.send_sync(batch)


def packed(path: bytes) -> bool:
    _, dot, ending = os.path.basename(path).rpartition(b".")
    return bool(dot) and os.fsdecode(ending).lower() in PACKED


def read_stream(path: bytes, wake: int, tx: Sender[list[Piece]]) -> bool:
    """A pipe: whole words of it, until it ends or `wake` can be read. From a thread. Whether it was cut."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        say_skipped(path, error.strerror or "")
        return False
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.register(wake, select.POLLIN)
    rest = b""
    try:
        while True:
            ready = dict(poll.poll())
            if fd in ready and (data := os.read(fd, PIECE)):
                rest += data
                cut = rest.translate(FOLD).rfind(b" ") + 1
                if cut >= PIECE or (wake in ready and cut):
                    tx.send_sync([Piece(-1, path, end=0, data=rest[:cut])])
                    rest = rest[cut:]
            elif fd in ready:
                tx.send_sync([Piece(-1, path, data=rest)])
                return False
            else:  # nothing more to read, and we are to stop: the last word may not be whole
                cut = rest.translate(FOLD).rfind(b" ") + 1
                tx.send_sync([Piece(-1, path, end=0, data=rest[:cut])])
                return True
            if wake in ready:
                poll.modify(fd, select.POLLIN)
    finally:
        os.close(fd)


def say_skipped(path: bytes, reason: str) -> None:
    print(f"wordcount: {path.decode(errors='replace')}: {reason} (skipped)", file=sys.stderr)


# ---- the pipeline: on the event loop --------------------------------------------------------------------------------


class ChaosError(Exception):
    """A worker that was made to fail."""


@dataclass
class Total:
    """What has been counted: the checkpoint's content."""

    words: Counter[bytes] = field(default_factory=Counter)
    done: set[int] = field(default_factory=set)
    files: int = 0
    size: int = 0
    unreadable: int = 0

    def add(self, tally: Tally) -> None:
        self.words.update(tally.words)
        self.done.update(number for number in tally.numbers if number >= 0)
        self.files += tally.files
        self.size += tally.size
        self.unreadable += len(tally.unreadable)

    def encode(self, marks: list[tuple[int, str]]) -> dict[str, Any]:
        known = max(self.done, default=-1) + 1
        mark = next(mark for mark in marks if mark[0] >= known)
        edges = sorted(
            {n for n in self.done if n - 1 not in self.done} ^ {n + 1 for n in self.done if n + 1 not in self.done}
        )
        return {
            "format": 1,
            "mark": mark,
            "edges": edges,
            "words": list(self.words.items()),
            "numbers": [self.files, self.size, self.unreadable],
        }

    @classmethod
    def decode(cls, kept: dict[str, Any]) -> tuple[Total, int, str]:
        """The total, and the mark. ValueError, KeyError or TypeError when it is not one."""
        if kept["format"] != 1:
            raise ValueError(kept["format"])
        edges = iter(kept["edges"])
        done = {number for first, last in zip(edges, edges, strict=True) for number in range(first, last)}
        total = cls(Counter(dict(kept["words"])), done, *kept["numbers"])
        return total, *kept["mark"]


class Pipeline:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.total = Total()
        self.resumed = 0
        self.failures = self.restarts = self.recounted = self.saved = self.cut = 0
        self.signal = 0
        self.began = time.monotonic()
        self.seconds = 0.0
        self.chance = random.Random(options.seed)
        self.lanes: list[list[list[Piece]]] = [[] for _ in range(options.workers)]
        self.channels: list[Any] = []
        self.store: LocalCheckpointer | None = None
        self.key = PREFIX + key_of(options)
        self.walk = Walk(options, set(), 0, "")

    def more(self) -> dict[str, Any]:
        """What another backend adds to the result."""
        return {}

    # -- the checkpoint --
    def open_store(self) -> LocalCheckpointer:
        if self.store is None:
            path = self.options.store or os.path.join(get_config().checkpoint_path, "wordcount.db")
            self.store = LocalCheckpointer(path, keep=1)
        return self.store

    async def load(self) -> None:
        """With --resume: what an earlier run left."""
        if not self.options.resume:
            if self.options.store:
                await self.open_store().list(PREFIX)
            return
        kept = await self.open_store().load(self.key)
        if kept is None:
            others = [key.split(" ", 1)[1] for key in await self.open_store().list(PREFIX)]
            only = f", only of: {others[0]}" if others else ""
            print(f"wordcount: there is no checkpoint of this input{only}", file=sys.stderr)
            print("wordcount: counting from the beginning", file=sys.stderr)
            return
        try:
            self.total, known, mark = Total.decode(kept)
        except (ValueError, KeyError, TypeError):
            raise BackendErrorException("what the store has for this input is not a checkpoint of wordcount") from None
        self.resumed = self.total.size
        self.walk = Walk(self.options, self.total.done, known, mark)

    async def save(self) -> None:
        if self.options.no_checkpoint or not self.total.done:
            return
        try:
            await self.open_store().save(self.key, self.total.encode(self.walk.marks))
            self.saved += 1
        except (OSError, BackendErrorException) as error:
            print(f"wordcount: no checkpoint is kept: {error}", file=sys.stderr)
            self.options.no_checkpoint = True

    # -- the stages --
    async def worker(
        self, number: int, batches: Receiver[list[Piece]], tallies: Sender[Tally], processes: Executor
    ) -> None:
        lane = self.lanes[number]
        self.recounted += len(lane)
        while True:
            if not lane:
                try:
                    lane.append(await batches.recv())
                except ChannelClosedError:
                    return
            match await processes.submit(count, lane[0]):
                case Ok(tally):
                    if self.options.chaos and self.chance.random() * 100 < self.options.chaos:
                        self.failures += 1
                        raise ChaosError(f"worker {number}")
                    await tallies.send(tally)
                    lane.clear()
                case Err(error):
                    raise error

    async def reduce(self, tallies: Receiver[Tally]) -> None:
        saved = time.monotonic()
        async for tally in tallies:
            self.total.add(tally)
            for path, reason in tally.unreadable:
                say_skipped(path, reason)
            if time.monotonic() - saved >= self.options.checkpoint_every:
                await self.save()
                saved = time.monotonic()

    async def supervise(self, batches: Receiver[list[Piece]], tallies: Sender[Tally], processes: Executor) -> None:
        def restarted(_child: Any, _error: Any, _attempt: int) -> None:
            self.restarts += 1

        async with Supervisor(
            max_restarts=1000, restart_window=1.0, auto_shutdown="all_significant", on_restart=restarted
        ) as sup:
            for number in range(self.options.workers):
                await sup.start_child(
                    self.worker, number, batches, tallies, processes, name=f"worker {number}", significant=True
                )
            await sup.wait()
            if sup.gave_up:
                raise RuntimeError(f"the workers fail again and again: {sup.error}")

    async def run(self) -> None:
        await self.load()
        begun = time.monotonic()
        batches: tuple[Sender[list[Piece]], Receiver[list[Piece]]]
        batches = await channel(4 * self.options.workers, name="batches")
        tallies: tuple[Sender[Tally], Receiver[Tally]] = await channel(16, name="tallies")
        batch_tx, batch_rx = batches
        tally_tx, tally_rx = tallies
        self.channels = [batches[1], tallies[1]]
        streams, files = split_streams(self.options.paths)
        wake_read, wake = os.pipe()
        async with (
            Executor(concurrency=self.options.workers, workers="processes") as processes,
            Executor(concurrency=len(streams) + 1) as inputs,
            stopping(self, wake),
            progress(self),
        ):
            reducer = inputs.submit(self.reduce, tally_rx)
            workers = asyncio.ensure_future(self.supervise(batch_rx, tally_tx, processes))
            sources = [inputs.submit(read_stream, path, wake_read, batch_tx) for path in streams]
            if files or not streams:
                self.walk.options = argparse.Namespace(**{**vars(self.options), "paths": files})
                sources.append(inputs.submit(self.walk.send_batches, batch_tx))
            feeding = asyncio.ensure_future(self.feed(sources, batch_tx))
            try:
                await asyncio.wait([workers, feeding], return_when=asyncio.FIRST_EXCEPTION)
                if workers.done() and workers.exception():
                    self.walk.stopped = True
                    await batch_rx.close()
                await feeding
                await workers
            finally:
                await tally_tx.close()
                await reducer
        self.seconds = time.monotonic() - begun
        if self.signal:
            await self.save()
        elif self.store is not None:
            await self.store.delete(self.key)

    async def feed(self, sources: list[Any], batches: Sender[list[Piece]]) -> None:
        try:
            for source in sources:
                match await source:
                    case Ok(cut):
                        self.cut += bool(cut)
                    case Err(error):
                        raise error
        finally:
            await batches.close()


def split_streams(paths: list[str]) -> tuple[list[bytes], list[str]]:
    """Pipes and devices that were named, and the rest."""
    streams, files = [], []
    for path in paths:
        where = "/dev/stdin" if path == "-" else path
        with contextlib.suppress(OSError):
            mode = os.stat(where).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                streams.append(os.fsencode(where))
                continue
        files.append(where)
    return streams, files


@contextlib.asynccontextmanager
async def stopping(p: Pipeline, wake: int) -> AsyncIterator[None]:
    """The first Ctrl-C ends the reading; what has been read is counted. The second one ends the program."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)

    def stop(number: int) -> None:
        p.signal = number
        p.walk.stopped = True
        os.write(wake, b"x")
        for each in signals:
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)
        print("wordcount: stopping; once more to stop at once", file=sys.stderr)

    for each in signals:
        loop.add_signal_handler(each, stop, each)
    try:
        yield
    finally:
        if not p.signal:
            for each in signals:
                loop.remove_signal_handler(each)


@contextlib.asynccontextmanager
async def progress(p: Pipeline) -> AsyncIterator[None]:
    """A line on stderr: by rich on a terminal, plain otherwise and without it."""
    wanted = sys.stderr.isatty() if p.options.progress is None else p.options.progress
    if not wanted:
        yield
        return

    def line() -> str:
        size = p.total.size - p.resumed
        rate = size / 1e6 / max(time.monotonic() - p.began, 1e-3)
        return f"{p.total.files} files, {p.total.size / 1e6:.1f} MB, {rate:.0f} MB/s"

    status = None
    if sys.stderr.isatty():
        with contextlib.suppress(ImportError):
            from rich.console import Console  # noqa: PLC0415 - it need not be there

            status = Console(stderr=True).status(line())

    async def show() -> None:
        while True:
            if status is not None:
                status.update(line())
            else:
                print(line(), file=sys.stderr, flush=True)
            await asyncio.sleep(0.1 if status is not None else 1.0)

    with status or contextlib.nullcontext():
        task = asyncio.ensure_future(show())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])


# ---- the result -----------------------------------------------------------------------------------------------------


def text_of(name: bytes | str) -> str:
    text = (os.fsencode(name) if isinstance(name, str) else name).decode(errors="replace")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" if ord(c) < 0x80 else c for c in text)


def result(p: Pipeline) -> dict[str, Any]:
    total, walk, options = p.total, p.walk, p.options
    top = sorted(total.words.items(), key=lambda item: (-item[1], item[0]))[: options.top]
    stats = [rx.stats() for rx in p.channels]
    return {
        "files": total.files,
        "bytes": total.size,
        "words": total.words.total(),
        "distinct": len(total.words),
        "seconds": p.seconds,
        "mb_per_s": (total.size - p.resumed) / 1e6 / max(p.seconds, 1e-9),
        "workers": options.workers,
        "interrupted": bool(p.signal),
        "cut": p.cut + walk.cut,
        "failures": p.failures,
        "restarts": p.restarts,
        "recounted": p.recounted,
        "resumed": p.resumed,
        "checkpoints": p.saved,
        "skipped": {
            "unreadable": total.unreadable + walk.unreadable,
            "packed": walk.packed,
            "links": walk.links,
            "special": walk.special,
        },
        "found": [vars_of(root) for root in walk.roots],
        "top": [{"word": word.decode(errors="replace"), "count": n} for word, n in top],
        "channels": [
            {
                "name": s.backend_extras["name"],
                "kind": s.backend_extras["kind"],
                "capacity": s.capacity,
                "sent": s.total_sent,
                "high": s.high_watermark,
            }
            for s in stats
        ],
        **p.more(),
    }


def vars_of(root: Root) -> dict[str, Any]:
    return {"path": text_of(root.path), "folders": root.folders, "files": root.files, "bytes": root.bytes}


def report(r: dict[str, Any], options: argparse.Namespace) -> None:
    for root in r["found"]:
        if root["files"] or options.paths:
            print(
                f"found {root['path']}: {root['files']} files in {root['folders']} folders, "
                f"{root['bytes'] / 1e6:.1f} MB"
            )
    skipped = r["skipped"]
    if skipped["packed"] or skipped["links"] or skipped["special"]:
        print("skipped {packed} compressed files and images, {links} links, {special} special files".format(**skipped))
    found = sum(root["bytes"] for root in r["found"])
    if not options.paths and found < options.min_bytes and not r["interrupted"]:
        wanted = options.min_bytes / 1e6
        print(f"this machine has only {found / 1e6:.1f} MB of text where wordcount looks ({wanted:.1f} wanted)")
    if r["top"]:
        print(f"\n{'count':>12}  word")
    for entry in r["top"]:
        print(f"{entry['count']:>12}  {text_of(entry['word'])}")
    print(f"\n{'channel':<10} {'kind':>10} {'capacity':>10} {'sent':>10} {'high':>10}")
    for c in r["channels"]:
        print(f"{c['name']:<10} {c['kind']:>10} {c['capacity']:>10} {c['sent']:>10} {c['high']:>10}")
    so_far = "so far: " if r["interrupted"] else ""
    print(f"\n{so_far}{r['files']} files, {r['bytes']} bytes, {r['words']} words, {r['distinct']} distinct; ", end="")
    print(f"{r['seconds']:.3f} s with {r['workers']} workers, {r['mb_per_s']:.0f} MB/s")
    if skipped["unreadable"]:
        print(f"{skipped['unreadable']} could not be read")
    if options.chaos or r["failures"]:
        print(
            f"workers failed {r['failures']} times and were started again {r['restarts']} times; "
            f"{r['recounted']} batches were counted again, none twice"
        )
    if options.chaos:
        print(f"chaos: {options.chaos} percent, seed {options.seed}")
    if any(r.get("killed", {}).values()):
        print("killed: " + ", ".join(f"{kind} {n}" for kind, n in r["killed"].items()))
    if r["resumed"]:
        print(f"{r['resumed']} of these bytes had been counted before")
    if r["interrupted"]:
        print(f"interrupted: these totals are partial ({r['cut']} files cut short)")


# ---- the command line -----------------------------------------------------------------------------------------------


def key_of(options: argparse.Namespace) -> str:
    """What the input is called: a hash of all that matters, and its arguments as far as they fit."""
    what = [os.getcwd() if any(not path.startswith("/") for path in options.paths) else "", str(options.all)]
    what += options.paths or [str(options.min_bytes)]
    name = hashlib.blake2b(b"\0".join(map(os.fsencode, what)), digest_size=8).hexdigest()
    shown = " ".join(text_of(path) for path in options.paths) or "the text of this machine"
    return f"{name} {shown[:150]}"


def seconds(text: str) -> float:
    for unit, scale in (("ms", 1e-3), ("s", 1.0)):
        if text.endswith(unit) and text[: -len(unit)].replace(".", "", 1).isdigit():
            return float(text[: -len(unit)]) * scale
    if text.isdigit():
        return float(text)
    raise argparse.ArgumentTypeError(f"'{text}' is not a time: 500ms, 2s")


def size(text: str) -> int:
    scale = {"K": 10**3, "M": 10**6, "G": 10**9}.get(text[-1:], 1)
    return int(text[:-1] if scale > 1 else text) * scale


def percent(text: str) -> int:
    if not (text.isdigit() and 1 <= int(text) <= 50):
        raise argparse.ArgumentTypeError("between 1 and 50 percent")
    return int(text)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "wordcount.py",
        usage="wordcount.py [options] [FILE|FOLDER ...]",
        description="Counts words, on all processors at once. Folders are read with everything below them; '-' is the "
        "standard input. Without arguments it looks for text on this machine until it has found enough.",
        epilog="A word is a run of ASCII letters, digits and bytes from 0x80 up, in lower case. Ctrl-C stops the "
        "reading, counts what has been read and leaves a checkpoint, as kill -9 does; the same command with --resume "
        "counts what is missing. Exit status: 0; 1 when nothing could be read or --resume can't go on; 2 for wrong "
        "options; 130 after Ctrl-C.",
    )
    add = parser.add_argument
    add("paths", nargs="*", metavar="FILE|FOLDER")
    add("-n", "--top", type=int, default=20, help="show the N most frequent words (20)", metavar="N")
    add("-j", "--workers", type=int, default=os.cpu_count() or 1, help="so many (one per processor)", metavar="N")
    add("-a", "--all", action="store_true", help="in folders, read compressed files and images too")
    add("--min-bytes", type=size, default=20_000_000, metavar="N", help="how much is enough without arguments (20M)")
    add("--json", action="store_true", help="the result as one JSON object")
    add(
        "--chaos", type=percent, nargs="?", const=10, default=0, metavar="P", help="make workers fail at P percent (10)"
    )
    add("--seed", type=int, default=random.SystemRandom().randrange(1 << 32), metavar="N", help="chance of the chaos")
    add("--resume", action="store_true", help="go on from the checkpoint of an interrupted run of the same input")
    add("--store", metavar="FILE", help="keep the checkpoint there (~/.klaw/checkpoints/wordcount.db)")
    add("--checkpoint-every", type=seconds, default=1.0, metavar="T", help="keep one every 500ms, 2s (1s)")
    add("--no-checkpoint", action="store_true", help="keep none")
    add("--backend", choices=("local", "ray"), default="local", help="where: here, or on a Ray cluster (local)")
    add("--address", metavar="HOST:PORT", help="of the Ray cluster (RAY_ADDRESS, else one is started here)")
    add("--progress", action=argparse.BooleanOptionalAction, help="a progress line, though stderr is no terminal")
    given = pairwise([*(sys.argv[1:] if arguments is None else arguments), ""])  # what is no number is a file
    options = parser.parse_args(["--chaos=10" if a == "--chaos" and not b.isdigit() else a for a, b in given])
    if options.workers < 1 or options.top < 0:
        parser.error("--workers has to be 1 or more, --top 0 or more")
    if options.resume and options.no_checkpoint:
        parser.error("--resume needs a checkpoint")
    if options.resume and "-" in options.paths:
        parser.error("--resume: '-' is a pipe, which can't be read again")
    if options.backend == "ray" and (options.resume or options.store or split_streams(options.paths)[0]):
        parser.error("--backend ray keeps no checkpoints, and reads no pipes: what is killed there reads again")
    if options.address and (options.backend != "ray" or not options.address.rpartition(":")[2].isdigit()):
        parser.error("--address is HOST:PORT, for --backend ray")
    return options


def run(options: argparse.Namespace) -> Pipeline:
    if options.backend == "ray":
        try:
            import wordcount_ray  # noqa: PLC0415 - Ray need not be there
        except ImportError as error:
            raise RuntimeError(f"--backend ray needs Ray ({error}): pip install 'klaw-core[ray]'") from error
        ran: Pipeline = wordcount_ray.run(options)
        return ran
    p = Pipeline(options)
    asyncio.run(p.run())
    return p


def main() -> int:
    options = parse()
    try:
        p = run(options)
    except Changed:
        print("wordcount: the input is no longer the one of the checkpoint", file=sys.stderr)
        print("wordcount: without --resume it is counted from the beginning", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before or after the counting
        return 130
    except (OSError, RuntimeError, BackendErrorException) as error:
        print(f"wordcount: {options.store or ''}: {error}".replace(" : ", " "), file=sys.stderr)
        return 1
    r = result(p)
    if options.json:
        print(json.dumps(r))
    else:
        report(r, options)
    sys.stdout.flush()
    if p.signal:
        if p.saved:
            print("wordcount: --resume goes on from here", file=sys.stderr)
        return 128 + p.signal
    return 1 if r["files"] == 0 and r["skipped"]["unreadable"] else 0


if __name__ == "__main__":
    sys.exit(main())
