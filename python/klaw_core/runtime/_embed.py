# SPDX-License-Identifier: Apache-2.0
"""The Python half of klaw/remote.h: fetches the questions of the C program around it and puts them to Ray.

libklaw_ray calls :func:`serve` on the one thread it has here. Questions come and answers go by a table of C functions
(``klawi_desk`` of src/runtime/remote_desk.h, whose layout is repeated here), so that no thread of the program ever
enters the interpreter. What blocks runs on threads of its own. Ray is imported by the first question.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import functools
import json
import re
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

__all__ = ["serve"]

_VERSION: Final = 3
_TICK: Final = 3_600_000_000_000  # ns that one look for a question may take

_OPEN, _DELETE, _LIST, _TASK, _SPAWN, _FIND, _ASK, _STOP, _FORGET, _CALL, _CLOSE, _CANCEL = range(1, 13)
_STATS, _PEEK = range(13, 15)

_LOOK_LIMIT: Final = 30.0  # seconds for an actor's answer about itself
_LOOK_BYTES: Final = 4 << 20  # that one look at what waits brings, about

_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")

# Numbers of klaw/err.h.
_OK, _TIMEOUT, _EXISTS, _NOT_FOUND, _STOPPED, _BACKEND, _INVALID = 0, 4, 7, 8, 9, 12, 14

# Numbers of klaw/hub.h.
_ATTACH, _PUSH, _POLL, _RENEW = range(4)


class _Request(ctypes.Structure):
    _fields_ = (
        ("ticket", ctypes.c_uint64),
        ("key", ctypes.c_uint64),
        ("id", ctypes.c_uint64),
        ("remote", ctypes.c_void_p),
        ("text", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_uint64),
        ("verb", ctypes.c_int32),
        ("kind", ctypes.c_int32),
        ("memory", ctypes.c_void_p),
    )


class _Desk(ctypes.Structure):
    _fields_ = (
        ("version", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("library", ctypes.c_char_p),
        ("next", ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.POINTER(_Request), ctypes.c_int64)),
        ("release", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
        (
            "answer",
            ctypes.CFUNCTYPE(
                None,
                ctypes.c_uint64,
                ctypes.c_int32,
                ctypes.c_int32,
                ctypes.c_char_p,
                ctypes.c_uint64,
                ctypes.c_char_p,
                ctypes.c_char_p,
                ctypes.c_char_p,
            ),
        ),
        ("reply", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_char_p, ctypes.c_uint64)),
        ("failed", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int32, ctypes.c_char_p)),
        ("broken", ctypes.CFUNCTYPE(None, ctypes.c_char_p)),
        ("connected", ctypes.CFUNCTYPE(None)),
        ("leave", ctypes.CFUNCTYPE(None)),
    )


class _Question:
    """A request, copied out of C's memory."""

    __slots__ = ("data", "id", "key", "kind", "remote", "text", "ticket", "verb")

    def __init__(self, request: _Request) -> None:
        self.ticket: int = request.ticket
        self.key: int = request.key
        self.id: int = request.id
        self.remote: int = request.remote
        self.verb: int = request.verb
        self.kind: int = request.kind
        self.text: dict[str, Any] = json.loads(request.text) if request.text else {}
        self.data: bytes = ctypes.string_at(request.data, request.size) if request.size else b""


class _Refusal(Exception):
    """An answer that is an error: a code of klaw/err.h. far: of the function that ran, not of the backend."""

    def __init__(self, code: int, message: str, *, far: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.far = far


def serve(address: int) -> None:
    """Serves the desk at that address until it says to leave."""
    desk = _Desk.from_address(address)
    if desk.version != _VERSION or desk.size < ctypes.sizeof(_Desk):
        library = (desk.library or b"?").decode()
        raise ImportError(f"klaw_core here does not belong to libklaw {library}: install the same version")
    server = _Server(desk)
    # A program that is Python itself ends its interpreter before C's own exit functions run.
    atexit.register(desk.leave)
    try:
        server.run()
    finally:
        atexit.unregister(desk.leave)
        server.end()


class _Server:
    def __init__(self, desk: _Desk) -> None:
        self._desk = desk
        self._keys = iter(range(1, 1 << 62))
        self._channels: dict[int, _Carrier] = {}
        self._actors: dict[int, Any] = {}
        self._running: dict[int, Any] = {}  # ticket: the reference of a task
        self._functions: dict[Any, Any] = {}
        self._pool = ThreadPoolExecutor(16, "klaw-embed")
        self._ours = False  # this process was not connected to Ray before
        self._used: set[str] = set()
        self._handlers = {
            _OPEN: self._open,
            _DELETE: self._delete,
            _LIST: self._list,
            _STATS: self._stats,
            _PEEK: self._peek,
            _TASK: self._task,
            _SPAWN: self._spawn,
            _FIND: self._find,
            _ASK: self._ask,
            _STOP: self._stop,
        }

    def run(self) -> None:
        request = _Request()
        while True:
            found = self._desk.next(request, _TICK)
            if found < 0:
                return
            if found == 0:
                continue
            try:
                question = _Question(request)
            finally:
                self._desk.release(request.memory)
            self._dispatch(question)

    def _dispatch(self, q: _Question) -> None:
        if q.verb == _CALL:
            carrier = self._channels.get(q.key)
            if carrier is None:
                self._desk.failed(q.remote, q.id, 1, b"the channel was closed here")
            else:
                carrier.submit(self._desk, q)
                self._exit_first(f"call {q.kind}")
        elif q.verb == _CLOSE:
            self._channels.pop(q.key, None)
        elif q.verb == _FORGET:
            self._actors.pop(q.key, None)
        elif q.verb == _CANCEL:
            self._cancel(q.id)
        else:
            self._pool.submit(self._answer, q)

    def _answer(self, q: _Question) -> None:
        try:
            data = self._handlers[q.verb](q)
        except BaseException as error:
            self._refuse(q.ticket, error)
        else:
            self._exit_first(f"verb {q.verb}")
            if data is not None:  # None: the answer comes later
                self._desk.answer(q.ticket, _OK, 0, data, len(data), None, None, None)

    def _refuse(self, ticket: int, error: BaseException) -> None:
        self._exit_first(f"error {type(error).__name__}")
        far = isinstance(error, _Refusal) and error.far
        cause = getattr(error, "cause", None)  # of what a worker raised: without its traceback
        text = str(cause) if cause is not None and str(cause) else str(error)
        message = _cut(text or type(error).__name__, 255)
        actor = _cut(getattr(error, "actor_name", "") or "", 63)
        namespace = _cut(getattr(error, "namespace", "") or "", 63)
        self._desk.answer(ticket, _code_of(error), int(far), None, 0, message, actor, namespace)

    # --- Ray ---

    def _connect(self, text: dict[str, Any]) -> Any:
        from klaw_core.runtime._backends._ray_connect import ensure_ray, import_ray  # noqa: PLC0415

        before = import_ray().is_initialized()
        # What Ray's workers print is not for the program's own output.
        ray = ensure_ray(text.get("address"), text.get("namespace"), text.get("timeout"), log_to_driver=False)
        self._ours = self._ours or not before
        self._exit_first("connected")
        return ray

    def _exit_first(self, path: str) -> None:
        """Ray's C++ makes objects on the first use of each path, and at exit they are destroyed, the newest first,
        while its threads still use them. klaw's own exit function, which ends Ray, has to be newer than those."""
        if path not in self._used:
            self._used.add(path)
            self._desk.connected()

    def _open(self, q: _Question) -> bytes:
        text = q.text
        self._connect(text)
        from klaw_core.runtime.channels.ray import get_ray_channel, ray_channel  # noqa: PLC0415

        name, namespace = text["name"], text.get("namespace")
        pair: tuple[Any, Any] | None
        if text["make"]:
            making = ray_channel(
                text["capacity"],
                unbounded=text["capacity"] is None,
                name=name,
                namespace=namespace,
                durable=text["durable"],
                ack=text["ack"],
                codec="msgpack",
            )
            pair = asyncio.run(making)
        else:
            pair = asyncio.run(get_ray_channel(name, namespace=namespace))
        if pair is None:
            raise _Refusal(_NOT_FOUND, f"there is no channel {name!r}")
        address = pair[0]._address
        if address.kind != 0 or address.reference:
            raise _Refusal(_EXISTS, f"{name!r} is a channel of references, or no queue: C has no part in those")
        key = next(self._keys)
        self._channels[key] = _Carrier(address)
        return struct.pack("<Q16sq", key, address.channel_id, ("next", "explicit", "before").index(address.ack))

    def _delete(self, q: _Question) -> bytes:
        self._connect(q.text)
        from klaw_core.runtime.channels.ray import delete_ray_channel  # noqa: PLC0415

        if not delete_ray_channel(q.text["name"], namespace=q.text.get("namespace")):
            raise _Refusal(_NOT_FOUND, f"there is no channel {q.text['name']!r}")
        return b""

    def _list(self, q: _Question) -> bytes:
        self._connect(q.text)
        from klaw_core.runtime.channels.ray import list_ray_channels  # noqa: PLC0415

        return b"".join(name.encode() + b"\0" for name in list_ray_channels(namespace=q.text.get("namespace")))

    def _look(self, q: _Question) -> tuple[Any, dict[str, Any]]:
        """(handle, metadata) of a channel, without becoming one of its endpoints."""
        self._connect(q.text)
        from klaw_core.runtime.channels.ray.factory import _actor_name, _find  # noqa: PLC0415

        found = _find(_actor_name(q.text["name"]), _namespace(q.text))
        if found is None:
            raise _Refusal(_NOT_FOUND, f"there is no channel {q.text['name']!r}")
        return found

    def _stats(self, q: _Question) -> bytes:
        """klawi_looked of src/runtime/remote_desk.h."""
        handle, meta = self._look(q)
        stats = handle.get_stats.remote().future().result(_LOOK_LIMIT)
        extras = stats.backend_extras
        names = ("leased", "redelivered", "duplicates", "expired", "lost", "missed", "clients", "parked", "bytes")
        numbers = (
            stats.sender_count,
            stats.receiver_count,
            stats.queue_size,
            stats.high_watermark,
            stats.total_sent,
            stats.total_received,
            *(extras[name] for name in names),
        )
        return struct.pack(
            "<15Q8q2Q",
            *numbers,
            -1 if stats.capacity is None else stats.capacity,
            int(stats.created_at * 1e9),
            meta["kind"],
            ("next", "explicit", "before").index(meta["ack"]),
            bool(meta["durable"]),
            stats.senders_closed,
            stats.receivers_closed,
            bool(extras["gathering"]),
            extras["boot"],
            extras["pid"],
        )

    def _peek(self, q: _Question) -> bytes:
        """The boot, then klawi_peeked of src/runtime/remote_desk.h and the payload, for each item."""
        handle, meta = self._look(q)
        if meta["kind"] != 0:
            raise _Refusal(_EXISTS, f"{q.text['name']!r} is no queue: nothing waits in it")
        after, most = q.text["after"], q.text["most"]
        boot, items = handle.get_waiting.remote(after, most, _LOOK_BYTES).future().result(_LOOK_LIMIT)
        if q.text["boot"] not in (0, boot) and after:  # places began anew
            boot, items = handle.get_waiting.remote(0, most, _LOOK_BYTES).future().result(_LOOK_LIMIT)
        parts = [struct.pack("<Q", boot)]
        for place, client, seq, sent_at, codec, flags, payload in items:
            parts += (struct.pack("<Q16sQqIIQ", place, client, seq, sent_at, codec, flags, len(payload)), payload)
        return b"".join(parts)

    # --- functions in C on workers ---

    def _options(self, text: dict[str, Any]) -> dict[str, Any]:
        options: dict[str, Any] = {"num_cpus": text["cpus"]}
        if text.get("resources"):
            resources = json.loads(text["resources"])
            if not isinstance(resources, dict):
                raise _Refusal(_INVALID, "resources have to be a JSON object")
            options["resources"] = resources
        return options

    def _remote(self, ray: Any, function: Any) -> Any:
        if function not in self._functions:
            self._functions[function] = ray.remote(function)
        return self._functions[function]

    def _task(self, q: _Question) -> None:
        ray = self._connect(q.text)
        from klaw_core.runtime import _native  # noqa: PLC0415

        task = self._remote(ray, _native.run_symbol)
        options = {**self._options(q.text), "max_retries": q.text["retries"]}
        ref = task.options(**options).remote(q.text["library"], q.text["symbol"], q.data)
        self._later(q.ticket, ref)

    def _later(self, ticket: int, ref: Any) -> None:
        """Answers when the reference is there: (code, bytes or text)."""
        self._running[ticket] = ref
        ref.future().add_done_callback(functools.partial(self._done, ticket))

    def _done(self, ticket: int, future: Any) -> None:
        self._running.pop(ticket, None)
        self._exit_first("done")
        error = future.exception()
        if error is not None:
            self._refuse(ticket, error)
            return
        code, result = future.result()
        if code == _OK:
            self._desk.answer(ticket, _OK, 0, result, len(result or b""), None, None, None)
        elif code < 0:
            self._refuse(ticket, _Refusal(_BACKEND, result))
        else:
            self._refuse(ticket, _Refusal(code, f"the function answered with error {code}", far=True))

    def _cancel(self, ticket: int) -> None:
        ref = self._running.pop(ticket, None)
        if ref is not None:
            import ray  # noqa: PLC0415

            with contextlib.suppress(Exception):  # of an actor, or it is over
                ray.cancel(ref)

    def _spawn(self, q: _Question) -> bytes:
        ray = self._connect(q.text)
        from klaw_core.runtime import _native  # noqa: PLC0415

        options = {**self._options(q.text), "max_restarts": q.text["retries"]}
        name = q.text.get("name")
        if name:
            options.update(name=_native.ACTOR_PREFIX + name, namespace=_namespace(q.text), lifetime="detached")
        try:
            handle = (
                self._remote(ray, _native.NativeActor)
                .options(**options)
                .remote(q.text["library"], q.text["symbol"], q.data)
            )
        except ValueError as error:
            raise _Refusal(_EXISTS, str(error)) from error
        code, result = handle.ready.remote().future().result()
        if code != _OK:
            ray.kill(handle, no_restart=True)
            if code < 0:
                raise _Refusal(_BACKEND, str(result))
            raise _Refusal(code, f"the actor's start answered with error {code}", far=True)
        return self._key_of(handle)

    def _key_of(self, handle: Any) -> bytes:
        key = next(self._keys)
        self._actors[key] = handle
        return struct.pack("<Q", key)

    def _find(self, q: _Question) -> bytes:
        ray = self._connect(q.text)
        from klaw_core.runtime import _native  # noqa: PLC0415

        try:
            handle = ray.get_actor(_native.ACTOR_PREFIX + q.text["name"], namespace=_namespace(q.text))
        except ValueError:
            raise _Refusal(_NOT_FOUND, f"there is no actor {q.text['name']!r}") from None
        return self._key_of(handle)

    def _ask(self, q: _Question) -> None:
        handle = self._actors.get(q.key)
        if handle is None:
            raise _Refusal(_STOPPED, "the actor was given up")
        self._later(q.ticket, handle.handle.remote(q.data))

    def _stop(self, q: _Question) -> bytes:
        handle = self._actors.get(q.key)
        if handle is None:
            raise _Refusal(_STOPPED, "the actor was given up")
        import ray  # noqa: PLC0415

        stopped = handle.stop.remote().future().result()
        with contextlib.suppress(Exception):  # it has gone already
            ray.kill(handle, no_restart=True)
        if not stopped:
            raise _Refusal(_STOPPED, "the actor was stopped before")
        return b""

    def end(self) -> None:
        """The process leaves: Ray's own exit functions run now where nobody else would call them."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._ours:
            import ray  # noqa: PLC0415

            with contextlib.suppress(Exception):
                ray.shutdown()


class _Carrier:
    """Carries the calls of one hub to its channel's actor."""

    def __init__(self, address: Any) -> None:
        self._handle = address.handle
        self._hold: Any = None
        self._lock = threading.Lock()

    def submit(self, desk: _Desk, q: _Question) -> None:
        """Makes one call; its end is told when it comes."""
        from klaw_core.runtime.channels.ray._link import _is_dead  # noqa: PLC0415

        def told(future: Any) -> None:
            error = future.exception()
            if error is None:
                answer = future.result()
                blob = answer[0] if type(answer) is tuple else answer
                desk.reply(q.remote, q.id, blob, len(blob))
            else:
                desk.failed(q.remote, q.id, int(_is_dead(error)), _cut(f"{type(error).__name__}: {error}", 255))

        try:
            self._begin(q).future().add_done_callback(told)
        except Exception as error:
            desk.failed(q.remote, q.id, int(_is_dead(error)), _cut(f"{type(error).__name__}: {error}", 255))

    def _begin(self, q: _Question) -> Any:
        handle = self._handle
        if q.kind == _PUSH:
            return handle.push.remote(q.data)
        if q.kind == _POLL:
            return handle.poll.remote(q.data)
        if q.kind == _RENEW:
            return handle.renew.remote(q.data)
        if q.kind == _ATTACH:
            if self._hold is None:
                self._hold = handle.hold.remote()
            return handle.attach.remote(q.data, [self._hold])
        return handle.detach.remote(q.data)


def _namespace(text: dict[str, Any]) -> str:
    from klaw_core.runtime._backends._ray_connect import default_namespace  # noqa: PLC0415

    return text.get("namespace") or default_namespace()


def _cut(text: str, size: int) -> bytes:
    """As one line without colours, as UTF-8 that is whole."""
    line = " ".join(_COLOURS.sub("", text).split())
    return line.encode("utf-8", "replace")[:size].decode("utf-8", "ignore").encode()


def _code_of(error: BaseException) -> int:
    if isinstance(error, _Refusal):
        return error.code
    name = type(error).__name__
    text = str(error)
    if "a channel of this name exists" in text or "belongs to an actor that is no channel" in text:
        return _EXISTS
    if name == "ActorDiedError" and ("exit_actor" in text or "ray.kill" in text or "INTENDED" in text):
        return _STOPPED
    if isinstance(error, ValueError | TypeError):
        return _INVALID
    return _BACKEND
