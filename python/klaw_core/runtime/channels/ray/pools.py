# SPDX-License-Identifier: Apache-2.0
"""Pools of actors that consume one channel.

    class Resizer(ChannelReader):
        async def process(self, item): ...

    pool = ReaderPoolController.new_actor().remote("images", 4, reader_cls=Resizer)
    ray.get(pool.methods.scale.remote(-2))

Each item goes to one reader. It counts as received when ``process`` has returned: what a reader that dies or raises had
in hand goes to another one.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, TypeVar

import ray
import ray.exceptions
import sunray

from klaw_core import _klaw
from klaw_core.runtime._logging import get_logger
from klaw_core.runtime.channels.ray._link import flush
from klaw_core.runtime.channels.ray.constants import DEFAULT_RAY_NAMESPACE
from klaw_core.runtime.channels.ray.factory import get_ray_channel
from klaw_core.runtime.errors import ChannelClosedError

__all__ = ["ChannelReader", "ReaderPoolController"]

T = TypeVar("T")

_STOP_LIMIT = 30.0  # seconds a reader has for the item in hand
_FLUSH_LIMIT = 10.0  # seconds it has to tell the channels what it has done


class ChannelReader(sunray.ActorMixin, max_concurrency=8):  # type: ignore[call-arg]
    """Consumes a channel; subclasses say what to do with an item."""

    def __init__(self, channel_name: str, namespace: str = DEFAULT_RAY_NAMESPACE) -> None:
        self._channel_name = channel_name
        self._namespace = namespace
        self._rx: Any = None
        self._stopping = asyncio.Event()
        self._processed = 0

    @sunray.remote_method
    async def start(self) -> int:
        """Consumes until the channel is closed or `stop` is called: the number of items. The channel knows then which:
        the process may be killed, and none comes again. LookupError: no such channel. What `process` raises ends it,
        and the item goes to another reader."""
        found = await get_ray_channel(self._channel_name, namespace=self._namespace)
        if found is None:
            raise LookupError(f"there is no channel {self._channel_name!r} in namespace {self._namespace!r}")
        self._rx = found[1]
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            async with self._rx:
                while not self._stopping.is_set():
                    receive = asyncio.ensure_future(self._rx.recv())
                    await asyncio.wait({receive, stopped}, return_when=asyncio.FIRST_COMPLETED)
                    if not receive.done():
                        receive.cancel()  # loses nothing
                        await asyncio.wait({receive})
                        if receive.cancelled():
                            break
                    try:
                        item = receive.result()
                    except ChannelClosedError as error:
                        if type(error) is ChannelClosedError:
                            break
                        raise
                    await ChannelReader._process(self, item)
        finally:
            stopped.cancel()
            if not await flush(_FLUSH_LIMIT):
                get_logger().warning("a reader's channels have not heard all it did", channel=self._channel_name)
        return self._processed

    async def _process(self, item: Any) -> None:
        result = self.process(item)
        if asyncio.iscoroutine(result):
            await result
        self._processed += 1

    def process(self, item: Any) -> Any:
        """What to do with an item; may be a coroutine function. This one does nothing."""

    @sunray.remote_method
    async def stop(self) -> None:
        """No further item; `start` returns when the one in hand is done."""
        self._stopping.set()

    @sunray.remote_method
    async def processed(self) -> int:
        """Items so far."""
        return self._processed


class ReaderPoolController(sunray.ActorMixin, max_concurrency=100):  # type: ignore[call-arg]
    """Keeps a number of readers of one channel running. A reader that fails is replaced, with growing pauses, as long
    as there are not more than `max_restarts` failures within `restart_window` seconds."""

    def __init__(
        self,
        channel_name: str,
        initial_size: int,
        *,
        namespace: str = DEFAULT_RAY_NAMESPACE,
        reader_cls: type[ChannelReader] = ChannelReader,
        reader_args: tuple[Any, ...] = (),
        reader_options: dict[str, Any] | None = None,
        max_restarts: int = 10,
        restart_window: float = 60.0,
    ) -> None:
        """reader_args: for reader_cls after channel_name and namespace. reader_options: Ray's own."""
        if initial_size < 0:
            raise ValueError(f"initial_size can't be negative: {initial_size}")
        self._channel_name = channel_name
        self._namespace = namespace
        self._reader_cls = reader_cls
        self._reader_args = reader_args
        self._reader_options = {"num_cpus": 0, **(reader_options or {})}
        self._max_restarts = max_restarts
        self._restart_window = restart_window
        self._failures: list[float] = []
        self._errors: list[str] = []
        self._readers: list[sunray.Actor[Any]] = []
        self._tasks: dict[Any, asyncio.Task[None]] = {}
        self._wanted = initial_size
        self._begun = False
        self._open: Any = None  # a receiver that never receives: the channel is not closed between two readers

    # The loop runs only once a method is called.
    async def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            found = await get_ray_channel(self._channel_name, namespace=self._namespace)
            if found is None:
                raise LookupError(f"there is no channel {self._channel_name!r} in namespace {self._namespace!r}")
            self._open = found[1]
            self._open.open()
            for _ in range(self._wanted):
                self._spawn_reader()

    def _spawn_reader(self) -> None:
        actor: Any = self._reader_cls.new_actor().options(**self._reader_options)
        reader = actor.remote(self._channel_name, self._namespace, *self._reader_args)
        self._readers.append(reader)
        self._tasks[reader] = asyncio.ensure_future(self._look_after(reader))

    async def _look_after(self, reader: Any) -> None:
        """Until it ends; replaces it when it failed."""
        try:
            await reader.methods.start.remote()
        except Exception as error:
            self._failed(reader, error)
            if len(self._failures) > self._max_restarts:
                get_logger().error("a reader pool gives up", channel=self._channel_name, error=str(error))
            else:
                pause = _klaw.backoff_delay(1, 0, 0.05, 5.0, 2.0, len(self._failures), 0)
                await asyncio.sleep(pause)
                if len(self._readers) < self._wanted:
                    self._spawn_reader()
        else:
            if reader in self._readers:  # the channel is closed
                self._readers.remove(reader)
                self._wanted -= 1
        finally:
            self._tasks.pop(reader, None)
            ray.kill(reader._actor_handle)

    def _failed(self, reader: Any, error: Exception) -> None:
        now = time.monotonic()
        self._failures = [at for at in self._failures if at > now - self._restart_window] + [now]
        self._errors = [*self._errors[-9:], f"{type(error).__name__}: {error}"]
        if reader in self._readers:
            self._readers.remove(reader)

    @sunray.remote_method
    async def start(self) -> int:
        """Starts the readers (any other method does so, too): how many."""
        await self._begin()
        return len(self._readers)

    @sunray.remote_method
    async def scale(self, delta: int) -> int:
        """So many readers more, or fewer: those finish the item in hand, and nothing is lost. Returns how many there
        are then; waits for the ones that go."""
        await self._begin()
        self._wanted = max(0, self._wanted + delta)
        for _ in range(max(0, delta)):
            self._spawn_reader()
        leaving = [self._readers.pop() for _ in range(min(-delta, len(self._readers)))] if delta < 0 else []
        for reader in leaving:
            reader.methods.stop.remote()
        tasks = [self._tasks[reader] for reader in leaving if reader in self._tasks]
        if tasks:
            await asyncio.wait(tasks, timeout=_STOP_LIMIT)
        return len(self._readers)

    @sunray.remote_method
    async def num_readers(self) -> int:
        """How many there are."""
        await self._begin()
        return len(self._readers)

    @sunray.remote_method
    async def processed(self) -> int:
        """Items the readers that are there have processed."""
        await self._begin()
        return sum(await asyncio.gather(*(reader.methods.processed.remote() for reader in list(self._readers))))

    @sunray.remote_method
    async def errors(self) -> list[str]:
        """What the last ten readers that failed raised."""
        return list(self._errors)

    @sunray.remote_method
    async def stop(self) -> None:
        """Stops all readers; nothing is lost."""
        await self._begin()
        self._wanted = 0
        if self._open is not None:
            await self._open.close()
        leaving, self._readers = self._readers, []
        for reader in leaving:
            reader.methods.stop.remote()
        tasks = list(self._tasks.values())
        if tasks:
            await asyncio.wait(tasks, timeout=_STOP_LIMIT)
