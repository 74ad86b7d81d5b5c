# SPDX-License-Identifier: Apache-2.0
"""What a process knows of a channel: one hub (klaw/hub.h) a channel, whatever number of its tasks send and receive.

A Link carries its hub's calls to the channel's actor and tells waiting tasks what has become of their operations. It is
passive: calls are submitted on the thread that caused them, answers arrive on Ray's callback thread, which pumps, and
settles all waiters of a loop by one wake-up. What has to happen later (renewals, repeats) is the one clock thread's.

Rules
  L1  Single sends and receives wait in the hub itself (klaw_core._klaw.RemoteOperation); batches wait here.
  L2  Finalizers only put a note into the clock's queue: they may run anywhere, under any lock.
  L3  Nothing is submitted once Ray is shut down: Ray would start a cluster of its own. Links detach before that (W30).
  L4  Large arguments go through the object store and may wait for room there: Ray's callback thread never submits them.

Rejected: a thread a channel (thousands of channels), and a Ray call a wait (84 kB each at the actor).
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import ray
import ray.exceptions
from ray import ObjectRef

from klaw_core import _klaw
from klaw_core.runtime.channels.ray._waiting import ThreadWaiter, settle
from klaw_core.runtime.channels.ray.codec import Codec, describe
from klaw_core.runtime.errors import (
    ChannelBackendErrorException,
    ChannelClosedError,
    ChannelFullError,
    ChannelLaggedError,
    KlawError,
    UncertainError,
)

__all__ = ["Address", "Link", "detach_all", "flush", "link_to", "note_closed", "store_size"]

# What becomes of a send: the hub's events.
SENT, REFUSED, UNSENT, UNCERTAIN, _ROOM = range(5)
_ATTACH, _PUSH, _POLL, _RENEW, _DETACH = range(5)  # what a call is for

_PIECE: Final = 96 * 1024  # bytes: Ray sends an argument along with the call up to 100 KiB, a call's up to 10 MiB
_PIECES: Final = 10  # such pieces at most: more go through the object store, which costs about as much as ten
_FRAME: Final = 4 << 20  # bytes: of a call's items, and of an answer's
_ANSWER: Final = 92 * 1024  # bytes of items for which a piece of an answer has room
_ITEM_LIMIT: Final = 1 << 30  # bytes
_LINGER: Final = 1.0  # seconds a link without endpoints stays
_STORE_KNOWN: Final = 10.0  # seconds for which the size of the object stores is taken to be known
_TURN: Final = 0.05  # seconds after which a loop that was to pump is not waited for: it is blocked, or has ended
_LEAVE: Final = 2.0  # seconds at most for detaching at exit


class Address(msgspec.Struct, frozen=True):
    """Where a channel is and what it is: all that an endpoint needs, in any process."""

    handle: Any  #: of the actor
    channel_id: bytes
    kind: int = 0
    capacity: int | None = None
    ack: str = "next"
    codec: str = "auto"
    value_type: Any = None
    reference: bool = False
    volatile: bool = False
    durable: bool = False
    name: str = ""
    namespace: str = ""
    actor_name: str = ""

    def error(self, message: str) -> ChannelBackendErrorException:
        """What went wrong here, as an exception."""
        return ChannelBackendErrorException(message, "ray", self.actor_name, self.namespace)


_links: dict[bytes, Link] = {}
_inherited: list[Any] = []  # in a forked child: its parent's hubs
_registry = threading.Lock()
_store = (0.0, 0)  # until when it is known, the size of the smallest object store


def link_to(address: Address) -> Link:
    """The link of this process to that channel, made on first use, with one endpoint more counted: it does not leave
    before that is opened, or given back by `unused`. ChannelBackendErrorException: Ray does not run."""
    if not ray.is_initialized():
        raise address.error("this process is not connected to Ray")
    context = ray.get_runtime_context()
    session = context.get_worker_id()
    with _registry:
        link = _links.get(address.channel_id)
        if link is not None and (
            link.session != session or link.left or link.hub.trouble or link.actor != _actor_id(address.handle)
        ):
            _links.pop(address.channel_id)
            link = None
        if link is None:
            _clock.start()
            link = _links[address.channel_id] = Link(address, session, context.get_node_id())
        link.endpoints += 1
        return link


def _actor_id(handle: Any) -> str:
    return str(handle._actor_id.hex())


class _Forked:
    """In the place of a hub in a forked child."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("this process was forked from one that used this channel: use spawn, or open it anew here")


class Link:
    """One process, one channel."""

    def __init__(self, address: Address, session: str, node: str) -> None:
        self.address = address
        self.session = session
        self.actor = _actor_id(address.handle)
        self.left = False
        self.codec = Codec(address.value_type, address.codec)
        ack = ("next", "explicit", "before").index(address.ack)
        self.hub: Any = _klaw.Hub(
            address.channel_id,
            kind=address.kind,
            ack=ack,
            node=node,
            type=describe(address.value_type).encode(),
            frame_bytes=_FRAME,
            answer_bytes=_FRAME,
        )
        self.endpoints = 0
        self.unused_since = time.monotonic()
        self._lock = threading.Lock()  # guards _room
        self._room: list[Any] = []
        self._kicked: Any = None  # the loop that is to pump
        self._kicked_at = 0.0
        self.look_at = math.inf  # when the clock looks whether it has
        self.hub.on_calls = self.kick
        self.hub.on_error = self.error
        self._hold: ObjectRef | None = None
        self._polls: dict[int, Any] = {}  # by pieces: how it is called for such an answer

    # --- endpoints ---

    def open(self, side: int, token: bytes | None = None) -> int:
        """The number of the endpoint that link_to counted. ChannelClosedError, or its subclass when the backend is
        broken."""
        try:
            endpoint: int = self.hub.open(side, token)
        except BaseException as error:
            self.unused()
            if isinstance(error, ChannelClosedError):
                raise self.closed() from None
            raise
        return endpoint

    def unused(self) -> None:
        """One endpoint less."""
        with _registry:
            self.endpoints -= 1
            self.unused_since = time.monotonic()
        _clock.want(self.unused_since + _LINGER)

    def close(self, endpoint: int) -> None:
        """Closes an endpoint."""
        self.hub.close(endpoint)
        self.unused()

    def mint(self, side: int) -> bytes:
        """A token that stands for an endpoint until the unpickled one claims it (W7), for the one that was counted."""
        try:
            token: bytes = self.hub.mint(side)
        finally:
            self.unused()
        return token

    def error(self, reason: str, missed: int = 0) -> KlawError:
        """What the hub has to say as an exception."""
        if reason == "full":
            return ChannelFullError(self.address.capacity or 0)
        if reason == "lagged":
            return ChannelLaggedError(missed)
        if reason == "lost":
            return self.address.error(f"at least {missed} items were lost when the channel's actor ended")
        if reason == "uncertain":
            trouble = self.hub.trouble or "the channel lost sight of this process while an item was on its way"
            return UncertainError(trouble)
        return self.closed()

    def closed(self) -> ChannelClosedError:
        """Why nothing can be sent or received here any more."""
        trouble = self.hub.trouble
        if trouble:
            return self.address.error(trouble)
        return ChannelClosedError("deleted" if self.hub.state()["deleted"] else "closed")

    # --- batches that wait (L1) ---

    @contextlib.contextmanager
    def awaiting_room(self, waiter: Any) -> Iterator[None]:
        """Inside, the waiter is woken when the hub may take sends again (W15)."""
        with self._lock:
            self._room.append(waiter)
        try:
            yield
        finally:
            with self._lock, contextlib.suppress(ValueError):
                self._room.remove(waiter)

    # --- the wire ---

    def kick(self) -> None:
        """Called by the hub when it has something to say or send. Pumps soon: at the end of this pass of the event
        loop, so that its tasks' sends go in one frame; at once where no loop of asyncio runs."""
        loop = asyncio._get_running_loop()
        if loop is None:
            if not _here.answering:
                self.pump()
        elif self._kicked is not loop:
            self._kicked = loop
            loop.call_soon(self._kick)
            self._kicked_at = time.monotonic()
            if self.look_at == math.inf:
                self.look_at = self._kicked_at + _TURN
                _clock.want(self.look_at)

    def _kick(self) -> None:
        self._kicked = None
        self.pump()

    def pump(self) -> None:
        """Makes the calls the hub wants made, tells what has happened."""
        hub = self.hub
        while True:
            calls = hub.calls()
            for call in calls:
                if _here.answering and len(call[2]) > (_PIECE if call[3] else _PIECES * _PIECE):
                    _bulk.put((self, call))
                else:
                    self.submit(*call)
            events = hub.events()
            if events:
                self._tell(events)
            if not calls and not events:
                break
        due = hub.deadline()
        if due is not None:
            _clock.want(due)

    def submit(self, number: int, kind: int, blob: bytes, attachments: list[Any]) -> None:
        """Makes one call of the actor."""
        try:
            if self.left or not ray.is_initialized():  # L3
                raise RuntimeError("Ray was shut down")
            handle = self.address.handle
            if kind == _PUSH:
                if attachments:
                    ref = handle.push.remote(blob, attachments)
                elif _PIECE < len(blob) <= _PIECES * _PIECE:
                    pieces = [blob[at : at + _PIECE] for at in range(0, len(blob), _PIECE)]
                    ref = handle.push.remote(pieces[0], None, *pieces[1:])
                else:
                    ref = handle.push.remote(blob)
            elif kind == _POLL:
                back = -(-self.hub.answer_bytes // _ANSWER)
                if 1 < back <= _PIECES:
                    self._poll(number, blob, back)
                    return
                ref = handle.poll.remote(blob)
            elif kind == _RENEW:
                ref = handle.renew.remote(blob)
            elif kind == _ATTACH:
                if self._hold is None:
                    self._hold = handle.hold.remote()
                ref = handle.attach.remote(blob, [self._hold, *attachments])
            else:
                ref = handle.detach.remote(blob)
            ref.future().add_done_callback(functools.partial(self._answered, number))
        except Exception as error:
            gone = not ray.is_initialized() or _is_dead(error)
            self.hub.failed(number, gone, f"{type(error).__name__}: {error}")

    def _poll(self, number: int, blob: bytes, many: int) -> None:
        """A poll whose answer comes in so many pieces, each small enough to come along with it."""
        method = self._polls.get(many)
        if method is None:
            method = self._polls[many] = self.address.handle.poll.options(num_returns=many)
        pieces = [ref.future() for ref in method.remote(blob, many)]
        left = many
        lock = threading.Lock()

        def one_more(_: Any) -> None:
            nonlocal left
            with lock:
                left -= 1
                if left:
                    return
            self._answered(number, pieces[0], *pieces[1:])

        for each in pieces:
            each.add_done_callback(one_more)

    def _answered(self, number: int, future: Any, *more: Any) -> None:
        """On Ray's callback thread."""
        _here.answering = True
        try:
            error = future.exception()
            for each in more:
                error = error or each.exception()
            if error is None:
                answer = future.result()
                blob, attachments = answer if type(answer) is tuple else (answer, ())
                if more:
                    blob = b"".join((blob, *(each.result() for each in more)))
                self.hub.reply(number, blob, attachments)
            else:
                text = str(error).strip().splitlines()
                self.hub.failed(number, _is_dead(error), f"{type(error).__name__}: {text[0] if text else ''}")
            self.pump()
        finally:
            _here.answering = False

    def _tell(self, events: list[tuple[int, Any, int]]) -> None:
        settled: list[tuple[Any, Any]] = []
        for kind, waiter, _endpoint in events:
            if waiter is not None:
                settled.append((waiter, kind))
            elif kind == _ROOM:
                with self._lock:
                    settled += [(each, True) for each in self._room]
                    self._room = []
        if settled:
            settle(settled)

    # --- later ---

    def tick(self, now: float) -> None:
        """On the clock's thread, when something may be due."""
        due = self.hub.deadline()
        if due is not None and due <= now:
            self.hub.tick()
            self.pump()
        if now >= self.look_at:
            self.look_at = math.inf
            if self._kicked is not None and now < self._kicked_at + _TURN:
                self.look_at = self._kicked_at + _TURN
            elif self._kicked is not None:
                self._kick()
        if now >= self.lingers():
            self.leave(unless_used=True)

    def lingers(self) -> float:
        """When it may leave: a while after its last endpoint was closed, and the last one sent away has arrived (W7):
        until then it is this process that keeps the channel open."""
        if self.endpoints or self.hub.state()["tokens"]:
            return math.inf
        return self.unused_since + _LINGER

    def leave(self, *, unless_used: bool = False) -> None:
        """Begins to detach (W30)."""
        with _registry:
            if unless_used and self.endpoints:
                return
            if _links.get(self.address.channel_id) is self:
                del _links[self.address.channel_id]
        if not self.left:
            self.hub.detach()
            self.pump()  # now: the loop that a kick would wait for may be blocked by our caller, or have ended

    def forked(self) -> None:
        """In the child of a fork."""
        self.left = True
        _inherited.append(self.hub)  # its references are the parent's: to let go of them may take Ray's locks
        self.hub = _Forked()


def store_size() -> int:
    """Bytes that the smallest object store of the cluster holds, at most the hub's 1 GiB: no item can be larger. Asks
    the cluster, which blocks, at most every ten seconds."""
    global _store  # noqa: PLW0603
    now = time.monotonic()
    if now >= _store[0]:
        sizes = [node["Resources"].get("object_store_memory", 0) for node in ray.nodes() if node["Alive"]]
        _store = (now + _STORE_KNOWN, int(min([size for size in sizes if size] + [_ITEM_LIMIT])))
    return _store[1]


def _is_dead(error: BaseException) -> bool:
    """Whether the actor is gone for good."""
    return isinstance(error, ray.exceptions.ActorDiedError) or (
        isinstance(error, ray.exceptions.RayActorError) and not isinstance(error, ray.exceptions.ActorUnavailableError)
    )


class _Here(threading.local):
    """What this thread is doing."""

    answering = False  # in _answered: its end pumps


class _Clock:
    """One thread a process, started on first use: ticks the links, closes what was garbage."""

    def __init__(self) -> None:
        self._notes: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._until = 0.0  # when it wakes by itself
        self._lock = threading.Lock()

    def want(self, due: float) -> None:
        """To be awake by then."""
        if due < self._until:
            self._until = due
            self._notes.put(None)

    def note(self, function: Callable[[], object]) -> None:
        """From a finalizer: calls the function on the clock's thread (L2)."""
        self._notes.put(function)

    def start(self) -> None:
        """Before the first link: a finalizer may not start a thread."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="klaw-ray-clock", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            self._until = math.inf  # whoever wants it earlier from here on leaves a note
            now = time.monotonic()
            next_due = now + 60.0
            for link in list(_links.values()):
                with contextlib.suppress(Exception):
                    link.tick(now)
                    due = link.hub.deadline()
                    if due is not None:
                        next_due = min(next_due, due)
                    next_due = min(next_due, link.look_at)
                    next_due = min(next_due, link.lingers())
            self._until = next_due
            try:
                note = self._notes.get(timeout=max(0.001, next_due - time.monotonic()))
                while True:
                    if note is not None:
                        with contextlib.suppress(Exception):
                            note()
                    note = self._notes.get_nowait()
            except queue.Empty:
                pass


class _Bulk:
    """Submits what is too large for Ray's callback thread (L4)."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Link, Any]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, call: tuple[Link, Any]) -> None:
        self._calls.put(call)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="klaw-ray-bulk", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            link, call = self._calls.get()
            with contextlib.suppress(Exception):
                link.submit(*call)
                link.pump()


_clock = _Clock()
_bulk = _Bulk()
_here = _Here()


def note_closed(link: Link, endpoint: int) -> None:
    """From a finalizer: that endpoint is garbage."""
    _clock.note(functools.partial(link.close, endpoint))


def detach_all(timeout: float = _LEAVE) -> None:
    """Leaves every channel: what nobody took goes back, endpoints close. Waits until the actors know, at most `timeout`
    seconds. Runs by itself at exit and before ``ray.shutdown()``."""
    links = list(_links.values())
    for link in links:
        with contextlib.suppress(Exception):
            link.leave()
    end = time.monotonic() + timeout
    for link in links:
        while not link.left and not link.hub.idle and time.monotonic() < end:
            ThreadWaiter().wait(0.002, None)
        link.left = True


async def flush(timeout: float) -> bool:
    """Waits on asyncio until the actors know what this process has sent, acknowledged and closed: whoever ends it then
    takes nothing back. False: they don't after `timeout` seconds."""
    end = time.monotonic() + timeout
    links = list(_links.values())
    for link in links:
        if link.lingers() < math.inf:
            link.leave(unless_used=True)  # at once: what is left to say goes along
    for link in links:
        while not link.left and not link.hub.idle:
            if time.monotonic() > end:
                return False
            await asyncio.sleep(0.002)
    return True


def _after_fork() -> None:
    global _clock, _bulk, _registry
    for link in _links.values():
        link.forked()
    _links.clear()
    _clock, _bulk, _registry = _Clock(), _Bulk(), threading.Lock()


def _detaching(shutdown: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(shutdown)
    def detach_and_shutdown(*args: Any, **kwargs: Any) -> Any:
        detach_all()
        return shutdown(*args, **kwargs)

    return detach_and_shutdown


os.register_at_fork(after_in_child=_after_fork)
atexit.register(detach_all)  # after Ray's own, so it runs before it
if not getattr(ray.shutdown, "__wrapped_by_klaw__", False):
    # Ray has no hook for this. Without it, receivers' unacknowledged items return only after the lease.
    _shutdown: Any = _detaching(ray.shutdown)
    _shutdown.__wrapped_by_klaw__ = True
    ray.shutdown = _shutdown
