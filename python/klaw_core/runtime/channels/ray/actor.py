# SPDX-License-Identifier: Apache-2.0
"""The actor that holds a channel, a thin shell around libklaw's broker.

Senders and receivers talk to it by the stream protocol (docs/ray-protocol.md): attach, push, poll, renew, detach, each
an opaque blob. Beside these stand methods that move one item and answer with a status. They are at least once and
anonymous: a repeated call counts twice, an item that was handed out counts as received. They encode on put and decode
on get, here, in the actor.

    actor = RayChannelActor.new_actor().remote(capacity=10, value_type=int)
    status = ray.get(actor.methods.put_nowait.remote(42))
    result = ray.get(actor.methods.get_nowait.remote())
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import warnings
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Generic, TypeVar

import msgspec
import ray
import ray.exceptions
import sunray

from klaw_core import _klaw
from klaw_core.runtime.channels._validate import TypeValidator
from klaw_core.runtime.channels.ray._host import ChannelHost
from klaw_core.runtime.channels.ray.codec import Codec, describe
from klaw_core.runtime.channels.ray.constants import (
    ACK_MODES,
    KINDS,
    QUEUE,
    BatchResult,
    ReaderInfo,
    SingleResult,
)
from klaw_core.runtime.channels.stats import ChannelCheckpoint, ChannelStats
from klaw_core.runtime.errors import ChannelTypeErrorException

__all__ = ["GROUPS", "RayChannelActor"]

T = TypeVar("T")

#: Concurrency groups. Polls park, holds never end, one-item callers wait for items or room: none of them may take the
#: place of a push, an attach or a question, and receivers not that of the senders they wait for.
GROUPS: Final = {"poll": 1000, "renew": 1000, "hold": 1000, "get": 5000, "put": 5000}
_PIECE: Final = 96 * 1024  # bytes of an answer that go in one result
_DURABLE_HOME: Final = "~/.klaw/channels"
_OK: Final = 0  # the status of an answer, its second byte
_TELL_LIMIT: Final = 1.0  # seconds for everybody to hear that the channel is deleted


class _TypeValidator(Generic[T]):
    """Whether an item is of a type: msgspec decides, nothing is converted. None accepts everything.

    >>> _TypeValidator(int).validate(1), _TypeValidator(int).validate("x"), _TypeValidator(None).validate("x")
    (True, False, True)
    """

    __slots__ = ("_check", "_type")

    def __init__(self, value_type: type[T] | None) -> None:
        self._type = value_type
        self._check: TypeValidator | None = None  # made when it is first needed

    def validate(self, item: Any) -> bool:
        """True: it is of the type."""
        if self._type is None:
            return True
        if self._check is None:
            self._check = TypeValidator(self._type)
        try:
            self._check(item)
        except ChannelTypeErrorException:
            return False
        return True


class _ChannelActorState(msgspec.Struct):
    """What the broker does not know, and what it knew when somebody last asked."""

    capacity: int | None
    unbounded: bool
    value_type: Any = None
    sender_count: int = 0
    receiver_count: int = 0
    senders_closed: bool = False
    receivers_closed: bool = False
    created_at: datetime | msgspec.UnsetType = msgspec.UNSET
    high_watermark: int = 0
    total_sent: int = 0
    total_received: int = 0

    def __post_init__(self) -> None:
        if self.created_at is msgspec.UNSET:
            self.created_at = datetime.now(UTC)

    def created(self) -> float:
        """Seconds since 1970."""
        assert isinstance(self.created_at, datetime)
        return self.created_at.timestamp()


def _was_restarted(context: Any) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of another property that it uses itself
        return bool(context.was_current_actor_reconstructed)


class RayChannelActor(  # type: ignore[call-arg]
    sunray.ActorMixin,
    Generic[T],
    max_restarts=4,
    max_task_retries=-1,
    max_concurrency=1000,
    concurrency_groups=GROUPS,
):
    """Holds a channel. Its methods answer with a status instead of raising:

    "ok"; "full": no room; "empty": nothing there; "closed": that side is closed; "type_error": not of the value_type;
    "lagged": items of a broadcast went by; "missing": no such reader.
    """

    _KIND: ClassVar[int] = QUEUE

    def __init__(
        self,
        capacity: int | None = None,
        unbounded: bool = False,
        value_type: type[T] | None = None,
        *,
        channel_id: bytes = b"",
        ack: str = "next",
        codec: str = "auto",
        reference: bool = False,
        volatile: bool = False,
        durable: bool = False,
        path: str = "",
        creator: str = "",
        broker_options: dict[str, Any] | None = None,
    ) -> None:
        """capacity: items; None and unbounded: any number. channel_id: 16 bytes (none: the actor's own id). path: the
        log of a durable channel. The rest is as of ray_channel."""
        context = ray.get_runtime_context()
        restarted = _was_restarted(context)
        self._state = _ChannelActorState(None if unbounded else capacity, unbounded or capacity is None, value_type)
        self._validator = _TypeValidator(value_type)
        self._codec = Codec(value_type, codec)
        self._channel_id = channel_id or bytes.fromhex(context.get_actor_id() or "")
        self._options = {
            "ack": ack,
            "codec": codec,
            "reference": reference,
            "volatile": volatile,
            "durable": durable,
            "creator": creator,
        }
        self._broker_options = {
            "kind": self._KIND,
            "ack": ACK_MODES.index(ack),
            "capacity": self._state.capacity,
            "type": describe(value_type).encode(),
            "durable": durable,
            **(broker_options or {}),
        }
        # All by the id of a process's call of hold: who waits for its end, what the process is called now (after its
        # lease has expired it takes another name), calls that are parked, and those that are not to wait (any more).
        self._watched: dict[bytes, asyncio.Task[None]] = {}
        self._client_of: dict[bytes, bytes] = {}
        self._holds: dict[bytes, tuple[asyncio.AbstractEventLoop, asyncio.Event]] = {}
        self._released: set[bytes] = set()
        self._offset = (0, 0)  # what a checkpoint said was sent and received before
        log = self._open_log(path, restarted) if durable else None
        broker = self._make_broker(restarted=restarted)
        if log is not None:
            snapshot, records = log.load()
            if snapshot is not None or records:
                broker = self._make_broker(restarted=True)
                if snapshot is not None:
                    broker.restore(snapshot)
                for record in records:
                    broker.replay(record)
        self._host = ChannelHost(broker, log)

    def _make_broker(self, restarted: bool) -> Any:
        return _klaw.Broker(self._channel_id, restarted=restarted, **self._broker_options)

    def _open_log(self, path: str, restarted: bool) -> Any:
        self._log_path = os.path.expanduser(path or f"{_DURABLE_HOME}/{self._channel_id.hex()}.db")
        os.makedirs(os.path.dirname(self._log_path), mode=0o700, exist_ok=True)
        return _klaw.ChannelLog(self._log_path, self._channel_id, existing=restarted)

    # --- the stream protocol ---

    @sunray.remote_method
    async def attach(self, blob: bytes, attachments: list[Any]) -> Any:
        """attachments[0]: a reference that never resolves and that the caller owns, see `hold`."""
        client, answer = await self._host.call_of(blob, attachments)
        if answer[1] != _OK:
            return answer  # one that is held for dead, or has left: it is nobody to be watched
        sentinel = attachments[0]
        hold = sentinel.task_id().binary()
        self._client_of[hold] = client
        if hold not in self._watched:
            self._watched[hold] = asyncio.ensure_future(self._watch(hold, sentinel))
        return answer

    @sunray.remote_method
    async def push(self, blob: bytes, attachments: list[Any] | None = None, *pieces: bytes) -> Any:
        """Items. pieces: the rest of a blob that is too large for one argument."""
        if not attachments:
            return await self._host.call(b"".join((blob, *pieces)) if pieces else blob)
        if self._options["reference"] and not self._options["volatile"]:
            attachments = list(await asyncio.gather(*map(self._own, attachments)))
        return await self._host.call(blob, attachments)

    @sunray.remote_method(concurrency_group="poll")
    async def poll(self, blob: bytes, pieces: int = 1) -> Any:
        """Items back, acknowledgements, room; parks for a while when there is nothing to say. pieces: the results that
        the answer is cut into: Ray sends one of up to 100 KiB along with the answer, and puts a larger one away."""
        answer = await self._host.call(blob)
        if pieces == 1:
            return answer
        data, objects = answer if type(answer) is tuple else (answer, None)
        size = max(_PIECE, -(-len(data) // pieces))
        parts = [data[at * size : (at + 1) * size] for at in range(pieces)]
        if objects is not None:
            parts[0] = (parts[0], objects)
        return parts

    @sunray.remote_method(concurrency_group="renew")
    async def renew(self, blob: bytes) -> Any:
        """The lease."""
        return await self._host.call(blob)

    @sunray.remote_method(concurrency_group="renew")
    async def detach(self, blob: bytes) -> Any:
        """The end of a client."""
        client, answer = await self._host.call_of(blob)
        for hold in [hold for hold, each in list(self._client_of.items()) if each == client]:
            self._release(hold)
        return answer

    @sunray.remote_method(concurrency_group="hold")
    async def hold(self) -> None:
        """Never answers while its caller is attached: its result is the caller's sentinel. When the caller's process
        dies, whoever waits for that result is told OwnerDiedError (W23)."""
        task = bytes.fromhex(ray.get_runtime_context().get_task_id() or "")
        event = asyncio.Event()
        self._holds[task] = asyncio.get_running_loop(), event
        try:
            if task not in self._released:  # its client may have come and gone before this began
                await event.wait()
        finally:
            del self._holds[task]
            self._released.discard(task)

    async def _watch(self, hold: bytes, sentinel: Any) -> None:
        try:
            await sentinel
        except ray.exceptions.OwnerDiedError:
            self._host.touch(self._host.broker.client_died, self._client_of.get(hold, bytes(16)))
        except Exception:
            pass  # it could not be watched: the lease is the second line (W24)
        else:
            self._released.discard(hold)  # it was let go of, and is over
        self._release(hold)

    def _release(self, hold: bytes) -> None:
        """Lets go of a process: its hold, which may not have begun yet, is to end."""
        self._client_of.pop(hold, None)
        if self._watched.pop(hold, None) is None:
            return
        self._released.add(hold)
        parked = self._holds.get(hold)
        if parked is not None:
            loop, event = parked
            loop.call_soon_threadsafe(event.set)

    async def _own(self, refs: list[Any]) -> list[Any]:
        """Takes over the ownership of values: they die with this actor and no longer with their sender."""
        owned = []
        for ref in refs:
            try:
                value = await ref
                owned.append(await asyncio.get_running_loop().run_in_executor(None, ray.put, value))
            except Exception:  # what can't be read here stays its sender's
                owned.append(ref)
        return owned

    # --- registration, anonymous ---

    def _register(self, side: int, reader: str = "", node: str = "") -> str:
        return str(self._host.touch(self._host.broker.register, side, reader, node))

    @sunray.remote_method
    def register_sender(self) -> str:
        """One sender more: "ok", or "closed"."""
        return self._register(0)

    @sunray.remote_method
    def deregister_sender(self) -> str:
        """One sender less; the last one closes the side. "ok" also when there was none."""
        self._host.touch(self._host.broker.deregister, 0, "")
        return "ok"

    @sunray.remote_method
    def register_receiver(self, reader_id: str, node_id: str) -> str:
        """One receiver more: "ok", "closed", or "exists"."""
        return self._register(1, reader_id, node_id)

    @sunray.remote_method
    def deregister_receiver(self, reader_id: str) -> str:
        """One receiver less; the last one closes the side. "ok" also when there was none."""
        self._host.touch(self._host.broker.deregister, 1, reader_id)
        return "ok"

    # --- one item at a time ---

    def _encode(self, items: Any) -> list[Any] | None:
        if not all(map(self._validator.validate, items)):
            return None
        return [(*self._codec.encode(item), b"", 0.0) for item in items]

    @sunray.remote_method(concurrency_group="put")
    async def put(self, item: T, timeout: float | None = None) -> str:
        """Puts an item, waiting for room up to `timeout` seconds: "ok", "full", "closed", "type_error"."""
        encoded = self._encode((item,))
        return "type_error" if encoded is None else await self._host.put(encoded, timeout)

    @sunray.remote_method
    async def put_nowait(self, item: T) -> str:
        """Puts an item if there is room: "ok", "full", "closed", "type_error"."""
        encoded = self._encode((item,))
        return "type_error" if encoded is None else await self._host.put(encoded, 0.0)

    @sunray.remote_method(concurrency_group="put")
    async def put_batch(self, items: Any, timeout: float | None = None) -> str:
        """Puts all items, adjacent, or none: "ok", "full", "closed", "type_error"."""
        encoded = self._encode(items)
        if encoded is None:
            return "type_error"
        if self._state.capacity is not None and len(encoded) > self._state.capacity:
            return "full"
        return await self._host.put(encoded, timeout) if encoded else "ok"

    @sunray.remote_method
    async def put_nowait_batch(self, items: Any) -> str:
        """As put_batch, without waiting."""
        encoded = self._encode(items)
        if encoded is None:
            return "type_error"
        return await self._host.put(encoded, 0.0) if encoded else "ok"

    async def _get(self, timeout: float | None, reader_id: str | None) -> SingleResult[T]:
        status, payload, codec, attachment, _flags, missed = await self._host.get(reader_id or "", timeout)
        if status != "ok":
            return SingleResult(status, None, missed)
        return SingleResult("ok", self._codec.decode(payload, codec, attachment), missed)

    @sunray.remote_method(concurrency_group="get")
    async def get(self, timeout: float | None = None, reader_id: str | None = None) -> SingleResult[T]:
        """Takes an item, waiting up to `timeout` seconds: "ok", "empty", "closed"."""
        return await self._get(timeout, reader_id)

    @sunray.remote_method
    async def get_nowait(self, reader_id: str | None = None) -> SingleResult[T]:
        """Takes an item if there is one: "ok", "empty", "closed"."""
        return await self._get(0.0, reader_id)

    @sunray.remote_method(concurrency_group="get")
    async def get_batch(
        self, max_items: int, timeout: float | None = None, reader_id: str | None = None
    ) -> BatchResult[T]:
        """Takes between 1 and `max_items` items, waiting for the first up to `timeout` seconds."""
        if max_items <= 0:
            return BatchResult("empty")
        first = await self._get(timeout, reader_id)
        if first.status != "ok":
            return BatchResult(first.status)
        items = [first.value]
        while len(items) < max_items:
            more = await self._get(0.0, reader_id)
            if more.status != "ok":
                break
            items.append(more.value)
        return BatchResult("ok", tuple(items))  # type: ignore[arg-type]

    # --- looking in, checkpoints ---

    def _look(self) -> dict[str, Any]:
        stats: dict[str, Any] = self._host.broker.stats()
        state = self._state
        state.sender_count, state.receiver_count = stats["senders"], stats["receivers"]
        state.senders_closed, state.receivers_closed = stats["senders_closed"], stats["receivers_closed"]
        state.total_sent = stats["total_sent"] + self._offset[0]
        state.total_received = stats["total_received"] + self._offset[1]
        self._update_watermark(stats["high_watermark"])
        return stats

    def _update_watermark(self, size: int) -> None:
        self._state.high_watermark = max(self._state.high_watermark, size)

    def _update_reader_stats(self) -> dict[str, ReaderInfo]:
        """The receivers as they are now."""
        shift = time.time() - time.monotonic()
        return {
            each["reader"]: ReaderInfo(
                each["reader"],
                each["node"],
                datetime.fromtimestamp(each["registered_at"] + shift, UTC),
                datetime.fromtimestamp(each["last_seen_at"] + shift, UTC),
                each["total_received"],
            )
            for each in self._host.broker.readers()
        }

    @sunray.remote_method
    def get_metadata(self) -> dict[str, Any]:
        """What the channel is: type ("channel", "broadcast", "watch"), capacity, unbounded, and its options."""
        return {
            "type": KINDS[self._KIND],
            "kind": self._KIND,
            "capacity": self._state.capacity,
            "unbounded": self._state.unbounded,
            "value_type": self._state.value_type,
            "type_text": describe(self._state.value_type),
            "channel_id": self._channel_id,
            **self._options,
        }

    @sunray.remote_method
    def get_stats(self) -> ChannelStats:
        """The counters. backend_extras: per_node_receivers, and what only a broker knows (leased, redelivered,
        duplicates, expired, lost, missed, clients, parked, bytes, boot, gathering)."""
        stats = self._look()
        per_node: dict[str, int] = {}
        for each in self._host.broker.readers():
            per_node[each["node"]] = per_node.get(each["node"], 0) + 1
        names = ("leased", "redelivered", "duplicates", "expired", "lost", "missed", "clients", "parked", "bytes")
        state = self._state
        return ChannelStats(
            sender_count=state.sender_count,
            receiver_count=state.receiver_count,
            queue_size=stats["queued"],
            capacity=state.capacity,
            senders_closed=state.senders_closed,
            receivers_closed=state.receivers_closed,
            created_at=state.created(),
            high_watermark=state.high_watermark,
            total_sent=state.total_sent,
            total_received=state.total_received,
            backend_extras={
                "per_node_receivers": per_node,
                "pid": os.getpid(),
                "trouble": self._host.failure or "",
                **{name: stats[name] for name in (*names, "boot", "gathering", "deleted")},
            },
        )

    @sunray.remote_method
    def get_pending(self) -> Any:
        """[items that wait, items that are delivered and not acknowledged]."""
        stats = self._host.broker.stats()
        return [stats["queued"], stats["leased"]]

    @sunray.remote_method
    def get_capacity(self) -> int | None:
        """Items it holds; None: any number."""
        return self._state.capacity

    @sunray.remote_method
    def is_closed(self) -> bool:
        """Both sides are closed and nothing is left."""
        stats = self._look()
        return bool(stats["senders_closed"] and stats["receivers_closed"] and not stats["queued"])

    @sunray.remote_method
    def get_reader_stats(self) -> dict[str, dict[str, Any]]:
        """For each receiver: node_id, registered_at, last_seen_at (seconds since 1970), total_received."""
        return {
            name: {
                "node_id": info.node_id,
                "registered_at": info.registered_at.timestamp(),
                "last_seen_at": info.last_seen_at.timestamp(),
                "total_received": info.total_received,
            }
            for name, info in self._update_reader_stats().items()
        }

    @sunray.remote_method
    def get_readers(self) -> list[ReaderInfo]:
        """The receivers."""
        return list(self._update_reader_stats().values())

    @sunray.remote_method
    def get_checkpoint_state(self) -> ChannelCheckpoint:
        """The counters that survive a restart."""
        self._look()
        state = self._state
        return ChannelCheckpoint(
            created_at=state.created(),
            total_sent=state.total_sent,
            total_received=state.total_received,
            senders_closed=state.senders_closed,
            receivers_closed=state.receivers_closed,
        )

    @sunray.remote_method
    def apply_checkpoint_state(self, state: ChannelCheckpoint) -> str:
        """Goes on counting from there; a side that was closed is closed."""
        self._look()
        self._state.created_at = datetime.fromtimestamp(state.created_at, UTC)
        self._offset = (
            self._offset[0] + state.total_sent - self._state.total_sent,
            self._offset[1] + state.total_received - self._state.total_received,
        )
        if state.senders_closed and not self._state.senders_closed:
            self._register(0)
            self._host.touch(self._host.broker.deregister, 0, "")
        if state.receivers_closed and not self._state.receivers_closed:
            self._register(1, "checkpoint", "")
            self._host.touch(self._host.broker.deregister, 1, "checkpoint")
        return "ok"

    @sunray.remote_method
    async def get_contents(self) -> list[Any]:
        """The items that wait, oldest first, encoded: (payload, codec, ObjectRefs)."""
        contents: list[Any] = self._host.touch(self._host.broker.peek)
        return contents

    @sunray.remote_method
    def get_waiting(self, after: int | None, most: int, size: int) -> Any:
        """[the actor's boot, what waits and stays]: items behind the place `after` (None: the last), so many at most,
        about `size` bytes of them, each (place, client, seq, sent_at in ns, codec, flags, payload)."""
        return [self._host.broker.stats()["boot"], self._host.touch(self._host.broker.waiting, after, most, size)]

    @sunray.remote_method
    async def put_contents(self, items: list[Any]) -> str:
        """Appends items of get_contents: all or none."""
        return await self._host.put([(*item, b"", 0.0) for item in items], 0.0) if items else "ok"

    @sunray.remote_method
    async def delete(self) -> str:
        """Answers every call from now on with "deleted" (W29), removes the log; whoever calls this kills the actor
        next."""
        self._host.deleted = True
        self._host.touch(self._host.broker.delete)
        if self._host.log is not None:
            self._host.close()
            self._host.log.close()
            for suffix in ("", "-journal", "-wal", "-shm", "-lock"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._log_path + suffix)
        # All are to hear "deleted", and not that the actor has died: those without a call under way just now make their
        # next one within milliseconds. One that is stopped, or dead and not yet known to be, is not waited for.
        end = time.monotonic() + _TELL_LIMIT
        while set(self._client_of.values()) - self._host.told and time.monotonic() < end:
            await asyncio.sleep(0.002)
        await asyncio.sleep(0.02)  # for answers that are on their way out
        return "ok"
