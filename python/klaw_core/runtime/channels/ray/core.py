# SPDX-License-Identifier: Apache-2.0
"""Senders and receivers of a Ray channel.

An endpoint counts from its first use on, or from the moment it was sent to another process: a task that is given a
sender can't find the channel closed because another one has finished. It may be used from any thread and event loop; a
consumer that wants its own acknowledgements takes its own ``clone()``.

``send`` returns when the channel's actor has the item. An item counts as received when its consumer asks for the next
one; what a dead consumer had not acknowledged is delivered again, marked (``rx.last.redelivered``).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Generic, Self, TypeVar, cast

from klaw_core.result import Err, Ok, Result
from klaw_core.runtime.channels.ray._link import (
    REFUSED,
    SENT,
    UNCERTAIN,
    UNSENT,
    Address,
    Link,
    link_to,
    note_closed,
    store_size,
)
from klaw_core.runtime.channels.ray._waiting import (
    LATE,
    Steps,
    ThreadWaiter,
    drive,
    drive_sync,
    new_waiter,
    wait_for_future,
)
from klaw_core.runtime.channels.ray.codec import Codec
from klaw_core.runtime.channels.ray.constants import QUEUE
from klaw_core.runtime.channels.stats import ChannelStats
from klaw_core.runtime.errors import (
    ChannelBackendError,
    ChannelClosed,
    ChannelClosedError,
    ChannelEmpty,
    ChannelEmptyError,
    ChannelFull,
    ChannelFullError,
    ChannelLagged,
    ChannelLaggedError,
    KlawError,
    LimitExceededError,
    TimeoutExpiredError,
)

__all__ = ["Item", "RayReceiver", "RaySender"]

T = TypeVar("T")

_SENDER, _RECEIVER = 0, 1
_NOWAIT = 32  # KLAW_REMOTE_NOWAIT
_REDELIVERED = 2  # KLAW_REMOTE_REDELIVERED
_CALL_LIMIT = 30.0  # seconds for an answer of an actor that may be restarting
_LARGE = 1 << 20  # bytes from which an item is worth a look at the object store's size
_LOOK_AGAIN = 0.02  # seconds between two looks at a queue whose items are on their way

_opening = threading.Lock()  # guards what an endpoint's first use and its close decide; nothing is called under it


class Item(Generic[T]):
    """A received item with what is known of it, see :meth:`RayReceiver.recv_item`.

    value; id: (sender's process, number), the same at each delivery; redelivered: a consumer may have seen it before;
    sent_at: seconds since 1970.
    """

    __slots__ = ("_lease", "_receiver", "id", "redelivered", "sent_at", "value")

    def __init__(self, receiver: RayReceiver[T], value: T, raw: Any) -> None:
        self.value = value
        self.id = (raw.client, raw.seq)
        self.redelivered = bool(raw.flags & _REDELIVERED)
        self.sent_at = raw.sent_at
        self._receiver = receiver
        self._lease = raw.lease

    def ack(self) -> bool:
        """It is done with. False: it was so before, or was given to somebody else in the meantime."""
        return self._receiver._settle(self._lease, True)

    def nack(self) -> bool:
        """Somebody else shall have it: it goes to the front, marked. False as in ack."""
        return self._receiver._settle(self._lease, False)


class _Endpoint:
    """What both sides share."""

    _SIDE = _SENDER

    def __init__(self, address: Address, *, made: bool = False) -> None:
        self._address = address
        self._made = made  # of a pair that made the channel: closes it even if it was never used
        self._link: Any = None
        self._endpoint = 0
        self._closed = False
        self._codec = Codec(address.value_type, address.codec)

    def _open(self) -> Link:
        """The link; registers the endpoint on first use."""
        if self._closed:
            raise ChannelClosedError("this endpoint is closed")
        link: Link = link_to(self._address)
        endpoint = link.open(self._SIDE)
        with _opening:
            first = self._link is None and not self._closed
            if first:
                self._endpoint, self._link = endpoint, link
        if not first:  # another thread has opened or closed it meanwhile: one too many would keep the channel open
            link.close(endpoint)
            return self._open() if self._link is None else self._link
        return link

    def open(self) -> None:
        """Registers this endpoint now and not on its first use. Idempotent. Errors as of the first use."""
        if self._link is None:
            self._open()

    @property
    def capacity(self) -> int | None:
        """Items the channel holds; None: any number."""
        return self._address.capacity

    @property
    def closed(self) -> bool:
        """Whether this endpoint was closed."""
        return self._closed

    @property
    def name(self) -> str | None:
        """The channel's name."""
        return self._address.name or None

    @property
    def namespace(self) -> str:
        """Where it is named."""
        return self._address.namespace

    @property
    def actor(self) -> Any:
        """The handle of the channel's actor."""
        return self._address.handle

    def clone(self) -> Self:
        """A further endpoint of the same side."""
        return type(self)(self._address)

    def _close(self) -> None:
        if self._closed:
            return
        if self._link is None and self._made:
            with contextlib.suppress(ChannelClosedError):
                self._open()
        with _opening:
            first = not self._closed
            self._closed = True
        if first and self._link is not None:
            self._link.close(self._endpoint)

    def close_sync(self) -> None:
        """As close, from a plain thread."""
        self._close()

    async def close(self) -> None:
        """Closes this endpoint. Idempotent."""
        self._close()

    def __del__(self) -> None:
        if getattr(self, "_link", None) is not None and not self._closed:
            note_closed(self._link, self._endpoint)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._closed:
            raise ChannelClosedError("this endpoint is closed: it can't be sent anywhere")
        # The minting process needs no endpoint of its own: the token counts as one until it is claimed (W7).
        return _unpickled, (type(self), self._address, link_to(self._address).mint(self._SIDE))

    async def __aenter__(self) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    async def __aexit__(self, kind: Any, *args: object) -> None:
        self._close()

    def __exit__(self, kind: Any, *args: object) -> None:
        self._close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._link is not None else "unused"
        return f"<{type(self).__name__} {self._address.actor_name or 'unnamed'} {state}>"

    # --- the channel's counters ---

    def _ask(self, method: Callable[[Any], Any]) -> Any:
        try:
            return method(self._address.handle).future()
        except Exception as error:
            raise self._address.error(f"{type(error).__name__}: {error}") from error

    def _answer_sync(self, method: Callable[[Any], Any]) -> Any:
        try:
            return self._ask(method).result(_CALL_LIMIT)
        except KlawError:
            raise
        except Exception as error:
            raise self._address.error(f"{type(error).__name__}: {error}") from error

    def stats(self) -> ChannelStats:
        """The channel's counters. One call of its actor, which this waits for (about 1 ms): in a coroutine rather
        ``await stats_async()``. ChannelBackendErrorException when there is no answer."""
        stats: ChannelStats = self._answer_sync(lambda actor: actor.get_stats.remote())
        return stats

    async def stats_async(self) -> ChannelStats:
        """As stats, for coroutines."""
        stats: ChannelStats = await self._answer(lambda actor: actor.get_stats.remote())
        return stats

    async def _answer(self, method: Callable[[Any], Any]) -> Any:
        try:
            return await wait_for_future(self._ask(method), _CALL_LIMIT)
        except KlawError:
            raise
        except Exception as error:
            raise self._address.error(f"{type(error).__name__}: {error}") from error


def _unpickled(kind: type[Any], address: Address, token: bytes) -> Any:
    endpoint = kind(address)
    link = link_to(address)
    endpoint._endpoint = link.open(endpoint._SIDE, token)
    endpoint._link = link
    return endpoint


class RaySender(_Endpoint, Generic[T]):
    """The sending side, see :class:`klaw_core.runtime.channels.Sender`."""

    _FLAGS = 0
    _BY_VALUE = True

    def _encode(self, value: T) -> tuple[bytes, int, Any]:
        encoded = self._codec.encode(value)
        if len(encoded[0]) > _LARGE:
            limit = store_size()
            if len(encoded[0]) > limit:
                raise LimitExceededError(limit, len(encoded[0]))
        return encoded

    def _items(self, values: Iterable[Any]) -> list[Any]:
        encode = cast("Callable[[Any], Any]", self._encode)
        if self._BY_VALUE and self._codec.takes_bytes:
            return [v if type(v) is bytes and len(v) <= _LARGE else encode(v) for v in values]
        return [encode(value) for value in values]

    def send(self, value: T, /) -> Coroutine[Any, Any, None]:
        """Sends, waiting for room; returns when the actor has the item (with durable=True: on disk).

        ChannelClosedError: closed first, not sent. ChannelBackendErrorException: the channel is broken.
        ChannelTypeErrorException: not of the value_type, or it can't be pickled. LimitExceededError: it is larger than
        the cluster's object store, or 1 GiB. UncertainError: the channel lost sight of this process while it was on its
        way; it arrives at most once.
        """
        link = self._link
        if link is None:
            link = self._open()
        payload, codec, refs = self._encode(value)
        operation: Coroutine[Any, Any, None] = link.hub.send_op(self._endpoint, payload, codec, self._FLAGS, refs)
        return operation

    async def try_send(self, value: T, /) -> Result[None, ChannelFull | ChannelClosed | ChannelBackendError]:
        """Sends if there is room at once: the actor is asked."""
        try:
            link = self._link or self._open()
            payload, codec, refs = self._encode(value)
            await link.hub.send_op(self._endpoint, payload, codec, self._FLAGS | _NOWAIT, refs)
        except (ChannelClosedError, ChannelFullError) as error:
            return Err(error.to_struct())
        return Ok(None)

    def send_sync(self, value: T, timeout: float | None = None) -> None:
        """As send, from a plain thread. TimeoutExpiredError: it was not sent within `timeout` seconds; UncertainError:
        it was on its way then."""
        link = self._link or self._open()
        payload, codec, refs = self._encode(value)
        link.hub.send_wait(self._endpoint, payload, codec, self._FLAGS, refs, b"", 0.0, timeout)

    def try_send_sync(self, value: T, /) -> Result[None, ChannelFull | ChannelClosed | ChannelBackendError]:
        """As try_send, from a plain thread."""
        try:
            link = self._link or self._open()
            payload, codec, refs = self._encode(value)
            link.hub.send_wait(self._endpoint, payload, codec, self._FLAGS | _NOWAIT, refs)
        except (ChannelClosedError, ChannelFullError) as error:
            return Err(error.to_struct())
        return Ok(None)

    def _batch(self, values: Iterable[T], waiter_of: Callable[[], Any], timeout: float | None) -> Steps:
        """The whole of a batch, see Steps."""
        link = self._link or self._open()
        items = self._items(values)
        if not items:
            return
        if link.address.capacity is not None and len(items) > link.address.capacity and link.address.kind == QUEUE:
            raise ChannelFullError(link.address.capacity)
        end = None if timeout is None else time.monotonic() + timeout

        def left() -> float | None:
            return None if end is None else max(0.0, end - time.monotonic())

        while True:
            waiter = waiter_of()
            status = link.hub.send_batch(self._endpoint, items, waiter, self._FLAGS, True)
            if status != "full":
                break
            room = waiter_of()
            with link.awaiting_room(room):  # W15
                # Room that came before it was waited for has told nobody.
                status = link.hub.send_batch(self._endpoint, items, waiter, self._FLAGS, True)
                if status != "full":
                    break
                if (yield room, left()) is LATE:
                    raise TimeoutExpiredError(timeout or 0.0)
        outcome: Any = UNSENT
        if status == "ok":
            try:
                outcome = yield waiter, left()
            except BaseException:
                link.hub.withdraw(waiter)
                raise
        if outcome is LATE:
            outcome = link.hub.withdraw(waiter)
            if outcome == "withdrawn":
                raise TimeoutExpiredError(timeout or 0.0)
            outcome = UNCERTAIN if outcome == "uncertain" else SENT
        if outcome != SENT:
            reason = {REFUSED: "full", UNCERTAIN: "uncertain"}.get(outcome, "closed")
            raise link.error(reason)

    async def send_batch(self, values: Iterable[T], /) -> None:
        """Sends all of them, adjacent and in order, or none. ChannelFullError: more than the channel holds."""
        await drive(self._batch(values, new_waiter, None))

    def send_batch_sync(self, values: Iterable[T], timeout: float | None = None) -> None:
        """As send_batch, from a plain thread. TimeoutExpiredError: none was sent within `timeout` seconds."""
        drive_sync(self._batch(values, ThreadWaiter, timeout))


def _end(timeout: float | None) -> float | None:
    """By when."""
    return None if timeout is None else time.monotonic() + timeout


class RayReceiver(_Endpoint, Generic[T]):
    """The receiving side, see :class:`klaw_core.runtime.channels.Receiver`."""

    _SIDE = _RECEIVER

    def __init__(self, address: Address, *, made: bool = False) -> None:
        super().__init__(address, made=made)
        self._next_acks = address.ack == "next"
        self._trouble: Exception | None = None  # found behind items that were given first
        self._held: dict[int, None] = {}  # leases of what was received and is neither acknowledged nor given back
        self._holds = address.ack != "before"
        self._raw: Any = None

    @property
    def reader_id(self) -> str:
        """What the channel's statistics call this receiver, "" before its first use."""
        return f"{self._link.hub.client.hex()}-{self._endpoint}" if self._link is not None else ""

    @property
    def last(self) -> Item[T] | None:
        """The item that was received last, without its value; None before the first."""
        if self._raw is None:
            return None
        return Item(self, None, self._raw)  # type: ignore[arg-type]

    # --- acknowledging ---

    def _settle(self, lease: int, done: bool) -> bool:
        link = self._link
        if link is None:
            return False
        self._held.pop(lease, None)
        method = link.hub.ack if done else link.hub.nack
        known: bool = method(self._endpoint, lease)
        return known

    def ack(self) -> int:
        """Everything received here so far is done with (for ack="explicit"). How many items that were."""
        held, self._held = self._held, {}
        known: int = self._link.hub.ack_leases(self._endpoint, held) if held else 0
        return known

    def nack(self) -> int:
        """Everything received here and not yet acknowledged goes back to the front, marked. How many items."""
        return sum([self._settle(lease, False) for lease in reversed(list(self._held))])

    def _close(self, *, giving_back: bool = False) -> None:
        if not self._closed and self._link is not None and (giving_back or not self._next_acks):
            self.nack()
        super()._close()

    async def __aexit__(self, kind: Any, *args: object) -> None:
        self._close(giving_back=kind is not None)  # W20: what it was working on when it failed is somebody else's

    def __exit__(self, kind: Any, *args: object) -> None:
        self._close(giving_back=kind is not None)

    # --- taking ---

    def _due(self) -> int:
        """Before a receive: the lease that it acknowledges (0: none); what a batch held is acknowledged here."""
        held = self._held
        if not held or not self._next_acks:
            return 0
        self._held = {}
        if len(held) > 1:
            self._link.hub.ack_leases(self._endpoint, held)
            return 0
        return next(iter(held))

    def _got(self, item: Any) -> Any:
        self._raw = item
        if self._holds:
            self._held[item.lease] = None
        return item

    def _ready(self) -> Link:
        if self._trouble is not None:
            trouble, self._trouble = self._trouble, None
            raise trouble
        link: Link = self._link
        if link is None:
            link = self._open()
        return link

    async def _next(self, timeout: float | None = None) -> Any:
        """The next item; ChannelEmptyError."""
        link = self._ready()
        try:
            return self._got(await link.hub.recv_op(self._endpoint, self._due(), timeout))
        except TimeoutExpiredError:
            raise ChannelEmptyError from None

    def _next_sync(self, timeout: float | None = None) -> Any:
        link = self._ready()
        try:
            return self._got(link.hub.recv_wait(self._endpoint, self._due(), timeout))
        except TimeoutExpiredError:
            raise ChannelEmptyError from None

    async def _fetch(self, item: Any, end: float | None = None) -> T:
        """The item's value, by the time `end`; ChannelEmptyError: it went back."""
        value: T = self._codec.decode(item.payload, item.codec, item.attachment)
        return value

    def _fetch_sync(self, item: Any, end: float | None = None) -> T:
        value: T = self._codec.decode(item.payload, item.codec, item.attachment)
        return value

    async def recv(self, timeout: float | None = None) -> T:
        """The next item. ChannelEmptyError: none within `timeout` seconds. ChannelClosedError: drained and closed.
        ChannelBackendErrorException: the channel is broken, or may have lost items (told once).
        ChannelTypeErrorException: the item can't be decoded here; the next receive goes on behind it."""
        link = self._link
        if link is None or self._trouble is not None:
            link = self._ready()
        try:
            item = await link.hub.recv_op(self._endpoint, self._due() if self._held else 0, timeout)
        except TimeoutExpiredError:
            raise ChannelEmptyError from None
        self._raw = item
        if self._holds:
            self._held[item.lease] = None
        value: T = self._codec.decode(item.payload, item.codec, item.attachment)
        return value

    async def recv_item(self, timeout: float | None = None) -> Item[T]:
        """As recv, with the item's id, mark and acknowledgement."""
        end = _end(timeout)
        item = await self._next(timeout)
        return Item(self, await self._fetch(item, end), item)

    async def recv_batch(self, max_items: int, timeout: float | None = None) -> list[T]:
        """Between 1 and `max_items` items, waiting for the first; [] when none came within `timeout` seconds. They are
        acknowledged together, by the next receive."""
        if max_items <= 0:
            return []
        end = _end(timeout)
        link = self._ready()
        try:
            batch = await link.hub.recv_op(self._endpoint, self._due(), timeout, max_items)
        except TimeoutExpiredError:
            return []
        values, leases = self._got_batch(batch)
        at = 0
        try:
            for at, each in enumerate(values):
                if type(each) is not bytes:
                    values[at] = await self._fetch(each, end)
        except ChannelEmptyError:  # out of time: what is here already is given
            self._give_back(leases[at + 1 :])
            del values[at:]
        except Exception as error:
            self._stuck(error, leases, at)
            del values[at:]
        except BaseException:
            self._give_back(leases)  # cancelled: nobody has seen any of them
            raise
        return values

    def _got_batch(self, batch: Any) -> tuple[list[Any], list[int]]:
        values, leases, self._raw = batch
        if self._holds:
            self._held.update(dict.fromkeys(leases))
        return values, leases

    def _give_back(self, leases: list[int]) -> None:
        """They were taken and nobody has seen them."""
        for lease in reversed(leases):
            self._settle(lease, False)

    def _stuck(self, error: Exception, leases: list[int], good: int) -> None:
        """An item of a batch can't be decoded: what is before it is given, what is behind it goes back, and it is told
        of by this receive if nothing is before it, else by the next one."""
        self._give_back(leases[good + 1 :])
        if good == 0:
            raise error
        if self._trouble is not None:  # that one first; this item comes again
            self._give_back(leases[good : good + 1])
        else:
            self._trouble = error

    def _elsewhere(self, pending: list[int]) -> int:
        """How many items are with others, or on their way to here."""
        state = self._link.hub.state()
        elsewhere: int = pending[1] - state["ready"] - state["held"]
        return elsewhere

    async def try_recv(self) -> Result[T, ChannelEmpty | ChannelClosed | ChannelLagged | ChannelBackendError]:
        """The next item if there is one at once: where none has come here yet, the actor is asked."""
        patience = 3  # looks while items may be on their way to here
        wait = 0.0
        try:
            while True:
                with contextlib.suppress(ChannelEmptyError):
                    item = await self._next(wait)
                    return Ok(await self._fetch(item))
                pending = await self._answer(lambda actor: actor.get_pending.remote())
                if not pending[0] and (self._elsewhere(pending) <= 0 or not patience):
                    with contextlib.suppress(ChannelEmptyError):  # it came, or the end was told, while we asked
                        return Ok(await self._fetch(await self._next(0.0)))
                    return Err(ChannelEmpty())
                patience -= 0 if pending[0] else 1
                wait = _LOOK_AGAIN
        except (ChannelClosedError, ChannelLaggedError) as error:
            return Err(error.to_struct())

    # --- plain threads ---

    def recv_sync(self, timeout: float | None = None) -> T:
        """As recv, from a plain thread."""
        end = _end(timeout)
        return self._fetch_sync(self._next_sync(timeout), end)

    def try_recv_sync(self) -> Result[T, ChannelEmpty | ChannelClosed | ChannelLagged | ChannelBackendError]:
        """As try_recv, from a plain thread."""
        patience, wait = 3, 0.0
        try:
            while True:
                with contextlib.suppress(ChannelEmptyError):
                    return Ok(self._fetch_sync(self._next_sync(wait)))
                pending = self._answer_sync(lambda actor: actor.get_pending.remote())
                if not pending[0] and (self._elsewhere(pending) <= 0 or not patience):
                    with contextlib.suppress(ChannelEmptyError):
                        return Ok(self._fetch_sync(self._next_sync(0.0)))
                    return Err(ChannelEmpty())
                patience -= 0 if pending[0] else 1
                wait = _LOOK_AGAIN
        except (ChannelClosedError, ChannelLaggedError) as error:
            return Err(error.to_struct())

    def recv_batch_sync(self, max_items: int, timeout: float | None = None) -> list[T]:
        """As recv_batch, from a plain thread."""
        if max_items <= 0:
            return []
        end = _end(timeout)
        link = self._ready()
        try:
            batch = link.hub.recv_wait(self._endpoint, self._due(), timeout, max_items)
        except TimeoutExpiredError:
            return []
        values, leases = self._got_batch(batch)
        at = 0
        try:
            for at, each in enumerate(values):
                if type(each) is not bytes:
                    values[at] = self._fetch_sync(each, end)
        except ChannelEmptyError:  # out of time: what is here already is given
            self._give_back(leases[at + 1 :])
            del values[at:]
        except Exception as error:
            self._stuck(error, leases, at)
            del values[at:]
        except BaseException:
            self._give_back(leases)
            raise
        return values

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.recv()
        except ChannelClosedError as error:
            if type(error) is not ChannelClosedError:
                raise  # a broken channel is no end of the stream
        raise StopAsyncIteration

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        try:
            return self.recv_sync()
        except ChannelClosedError as error:
            if type(error) is not ChannelClosedError:
                raise
        raise StopIteration
