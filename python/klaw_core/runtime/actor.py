# SPDX-License-Identifier: Apache-2.0
"""Actors: a state of their own, a bounded mailbox, one message at a time.

>>> import asyncio
>>> class Counter:
...     def __init__(self) -> None:
...         self.n = 0
...     async def handle(self, msg: int) -> int:
...         self.n += msg
...         return self.n
>>> async def main() -> None:
...     counter = await spawn_actor(Counter, name="counter")
...     await counter.send(1)
...     print(await counter.ask(2))
...     await counter.stop()
...     print(await counter.ask(3))
>>> asyncio.run(main())
Ok(3)
Err(ActorStopped(name='counter', reason='stopped'))

The outcome of an ask is always one value: the reply, the error the actor failed with, Timeout, or ActorStopped. A
request whose asker has left is not started. Messages survive a restart of the actor, except the one it failed with.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

from klaw_core import _klaw
from klaw_core.result import Err, Ok, Result
from klaw_core.runtime import _inspect, registry, tracing
from klaw_core.runtime._config import Backend, get_config
from klaw_core.runtime._logging import get_logger
from klaw_core.runtime._spawn import current_task
from klaw_core.runtime._supervision import RESTARTS, Driver, Hook, choice
from klaw_core.runtime.context import Context, context, current_context
from klaw_core.runtime.errors import (
    ActorStopped,
    ActorStoppedError,
    BackendErrorException,
    ChannelClosedError,
    ChannelEmptyError,
    Timeout,
)

if TYPE_CHECKING:
    from klaw_core.runtime.checkpoint import Checkpointer

__all__ = ["Actor", "ActorRef", "spawn_actor"]

Msg = TypeVar("Msg", contravariant=True)  # noqa: PLC0105 - the names users write
Reply = TypeVar("Reply", covariant=True)  # noqa: PLC0105
M = TypeVar("M")
R = TypeVar("R")

Restart = Literal["never", "on_failure", "always"]

_numbers = itertools.count(1)


class Actor(Protocol[Msg, Reply]):
    """What an actor is: ``handle``, and if it likes: ``on_start()``, ``on_stop()`` (coroutine functions),
    ``snapshot() -> value`` and ``restore(value)`` (either kind) for checkpoints."""

    async def handle(self, msg: Msg) -> Reply:
        """One message; what it returns answers an ask (a Result as it is). An exception is a failure of the actor."""
        ...


class _Envelope:
    """A message on its way. `reply` is None for a send."""

    __slots__ = ("context", "left", "message", "reply")

    def __init__(self, message: Any, reply: Any, context: Context) -> None:
        self.message = message
        self.reply = reply
        self.context = context
        self.left = False  # the asker does not wait any more


async def _call(function: Any, *args: Any) -> Any:
    """Of a hook that may be a coroutine function or a plain one, or missing (None)."""
    if function is None:
        return None
    value = function(*args)
    return await value if isinstance(value, Awaitable) else value


async def _cleanup(function: Any) -> None:
    """Of an actor that is being killed: shielded from that, but not for ever."""
    from klaw_core.runtime.cancel import CancelScope  # noqa: PLC0415 - only a kill needs it

    async with CancelScope(timeout=5.0, shield=True):
        await _call(function)


class ActorRef(Generic[M, R]):
    """An actor's address. It survives restarts; several tasks, loops and threads may use it."""

    def __init__(self, factory: Callable[[], Any], name: str, capacity: int, checkpoint: _Checkpoint | None) -> None:
        self.name = name
        self.id = next(_numbers)
        self._factory = factory
        self._capacity = capacity
        self._open_mailbox()
        self._checkpoint = checkpoint
        self._driver: Driver | None = None
        self._stopping = self._killed = False
        self._reason = "stopped"
        self._end: list[Any] = []
        self._over = False
        self.incarnation = 0
        self._task: Any = None  # that runs the incarnation
        self._busy = False
        self._owned = True  # its driver is in this process
        self._shown: _klaw.Published | None = None  # for inspection

    def __repr__(self) -> str:
        return f"<ActorRef {self.name!r} {'stopped' if self._over else 'running'}>"

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended for good."""
        return not self._over

    # --- for users ---
    async def send(self, msg: M) -> None:
        """Puts a message into the mailbox, waiting for room. ActorStoppedError when it takes none any more."""
        await self._post(_Envelope(msg, None, current_context()))

    async def _post(self, envelope: _Envelope) -> None:
        while True:
            tx = self._tx
            try:
                await tx.send(envelope)
            except ChannelClosedError:
                if tx is not self._tx:  # it is restarted with its group: into the new mailbox
                    continue
                raise ActorStoppedError(self.name, self._reason) from None
            return

    def ask(self, msg: M, timeout: float | None = None) -> Coroutine[Any, Any, Result[R, Any]]:
        """Sends and waits for the answer, at most `timeout` seconds for both."""
        return self._ask(msg, timeout) if tracing.tracer is None else self._ask_traced(msg, timeout)

    async def _ask_traced(self, msg: M, timeout: float | None) -> Result[R, Any]:
        with tracing.span("ask", self.name) as span:
            result = await self._ask(msg, timeout)
            tracing.note(span, result)
            return result

    async def _ask(self, msg: M, timeout: float | None) -> Result[R, Any]:
        reply, answer = _klaw.oneshot()
        envelope = _Envelope(msg, reply, current_context())
        until = None if timeout is None else time.monotonic() + timeout
        try:
            if until is None:
                await self._post(envelope)
            elif not await self._send_within(envelope, until):
                return Err(Timeout(timeout or 0.0))
            result: Result[R, Any] = await answer.recv(None if until is None else max(0.0, until - time.monotonic()))
            return result
        except ChannelEmptyError:
            return Err(Timeout(timeout or 0.0))
        except (ChannelClosedError, ActorStoppedError):
            return Err(ActorStopped(self.name, self._reason))
        finally:
            envelope.left = True

    async def _send_within(self, envelope: _Envelope, until: float) -> bool:
        match await self._tx.try_send(envelope):
            case Ok():
                return True
            case Err(error) if type(error).__name__ == "ChannelClosed":
                raise ChannelClosedError
        from klaw_core.runtime.cancel import CancelScope  # noqa: PLC0415 - only a full mailbox needs it

        async with CancelScope(timeout=max(0.0, until - time.monotonic())):
            await self._post(envelope)
            return True
        return False

    async def stop(self) -> None:
        """Ends it for good after it has handled what is in its mailbox; waits for that, except when the actor itself
        calls it. Idempotent."""
        self._stopping = True
        await self._tx.close()
        if self._driver is not None:
            self._driver.shutdown()
        if self._task is None or self._task is not current_task():
            await self.wait()

    async def kill(self) -> None:
        """Ends it for good now: what it does is cancelled, its mailbox is dropped; its on_stop has five seconds, its
        state is not kept. Idempotent."""
        if self._driver is not None:
            self._killed = True
            self._driver.kill_all()
        if self._task is None or self._task is not current_task():
            await self.wait()

    @property
    def _load(self) -> int:
        """Messages it has, the one it handles included."""
        return int(self._tx.stats().queue_size) + self._busy

    async def wait(self) -> None:
        """Waits until it has ended for good."""
        if not self._over:
            tx, rx = _klaw.oneshot()
            self._end.append(tx)
            await rx.recv()

    def discard(self) -> None:
        """It was never started."""

    # --- one incarnation, started by a driver ---
    @property
    def ref(self) -> ActorRef[M, R]:
        """Itself: what a supervisor's child is reached by."""
        return self

    def stop_soon(self, final: bool) -> None:
        """The incarnation ends when it has handled what is in its mailbox. Unless that is final, what comes from now
        on waits in a new mailbox for the next incarnation."""
        old = self._tx
        if not final:
            self._open_mailbox()
        old.close_sync()

    def _open_mailbox(self) -> None:
        self._tx, self._rx = _klaw.channel(max(self._capacity, 0), self._capacity < 0, self.name)

    async def run(self, started: Callable[[], None]) -> None:
        """One incarnation, from its start to its end; for supervisors. started() is called once it is up."""
        self.incarnation += 1
        self._task = current_task()
        if self._tx.closed and not self._stopping:  # it had been stopped and is started again
            self._open_mailbox()
        mailbox = self._rx
        actor = self._factory()
        if _inspect.on:
            if self._shown is None:
                self._shown = _inspect.actor(self.name, type(actor).__name__)
            if self._shown is not None:
                self._shown.actor_starts(self.incarnation, mailbox)
        if self._checkpoint is not None:
            await self._checkpoint.load(self, actor)
        await _call(getattr(actor, "on_start", None))
        started()
        if self._shown is not None:
            self._shown.actor_idle()
        due = None if self._checkpoint is None else time.monotonic() + self._checkpoint.interval
        failure: BaseException | None = None
        try:
            while True:
                try:
                    envelope = await mailbox.recv(None if due is None else max(0.0, due - time.monotonic()))
                except ChannelEmptyError:
                    assert self._checkpoint is not None
                    await self._checkpoint.save(self, actor)
                    due = time.monotonic() + self._checkpoint.interval
                    continue
                except ChannelClosedError:
                    break
                if not envelope.left:
                    await self._handle(actor, envelope)
        except BaseException as error:
            failure = error
            if self._shown is not None:
                self._shown.actor_failed()
            raise
        finally:
            self._busy = False
            self._task = None
            if mailbox is not self._rx:
                _drop(mailbox)
            await self._leave(actor, failure)

    async def _handle(self, actor: Any, envelope: _Envelope) -> None:
        reply = envelope.reply
        self._busy = True
        if self._shown is not None:
            self._shown.actor_busy()
        try:
            if tracing.tracer is not None:
                with context(envelope.context), tracing.span("handle", self.name, carried=True) as span:
                    value = await actor.handle(envelope.message)
                    tracing.note(span, value)
            elif envelope.context is current_context():
                value = await actor.handle(envelope.message)
            else:
                with context(envelope.context):
                    value = await actor.handle(envelope.message)
        except Exception as error:
            if reply is not None:
                reply.try_send_sync(Err(error))
            raise
        except BaseException:
            if reply is not None:
                reply.close_sync()
            raise
        self._busy = False
        if self._shown is not None:
            self._shown.actor_handled()
        if reply is not None:
            reply.try_send_sync(value if isinstance(value, Ok | Err) else Ok(value))

    async def _leave(self, actor: Any, failure: BaseException | None) -> None:
        if self._checkpoint is not None and failure is None:
            await self._checkpoint.save(self, actor)
        on_stop = getattr(actor, "on_stop", None)
        try:
            if failure is None or isinstance(failure, Exception):
                await _call(on_stop)
            elif on_stop is not None and not isinstance(failure, GeneratorExit):
                await _cleanup(on_stop)
        except Exception as error:
            if failure is None:
                raise
            get_logger("klaw.actor").error("on_stop failed", actor=self.name, error=repr(error))

    def ended(self, error: BaseException | None) -> None:
        """There will be no further incarnation, because of this error or (None) by request; for supervisors."""
        self._over = True
        if self._killed or (error is not None and not isinstance(error, Exception)):
            self._reason = "killed"
        elif error is not None:
            self._reason = f"failed: {error!r}"
        registry._forget(self)
        if self._shown is not None:
            self._shown.end()
        self._tx.close_sync()
        _drop(self._rx)
        waiting, self._end = self._end, []
        for tx in waiting:
            tx.try_send_sync(None)


def _drop(mailbox: Any) -> None:
    """Closes a mailbox; who asked and was not answered hears of it."""
    while isinstance(dropped := mailbox.try_recv_sync(), Ok):
        if dropped.value.reply is not None:
            dropped.value.reply.close_sync()
    mailbox.close_sync()


class _Checkpoint:
    """Where and how often an actor's state is kept. Failing saves are logged; the actor goes on."""

    def __init__(self, checkpointer: Checkpointer, interval: float, key: str) -> None:
        self.checkpointer = checkpointer
        self.interval = interval
        self.key = key

    async def load(self, ref: ActorRef[Any, Any], actor: Any) -> None:
        value = await self.checkpointer.load(self.key)
        if value is not None:
            await _call(actor.restore, value)

    async def save(self, ref: ActorRef[Any, Any], actor: Any) -> None:
        try:
            await self.checkpointer.save(self.key, await _call(actor.snapshot))
        except Exception as error:
            get_logger("klaw.actor").error("a checkpoint could not be saved", actor=ref.name, error=repr(error))


class _Supervised:
    """An ActorRef as a driver's child: stopping closes the mailbox."""

    __slots__ = ("name", "ref")

    def __init__(self, ref: ActorRef[Any, Any]) -> None:
        self.ref = ref
        self.name = ref.name

    async def run(self, started: Callable[[], None]) -> None:
        await self.ref.run(started)

    def stop(self, final: bool) -> None:
        self.ref.stop_soon(final)

    def ended(self, error: BaseException | None) -> None:
        self.ref.ended(error)


def make_ref(
    actor: Any,
    args: tuple[Any, ...],
    *,
    name: str | None,
    capacity: int,
    checkpoint: bool | Checkpointer,
    checkpoint_interval: float,
) -> ActorRef[Any, Any]:
    """The address of an actor that has not been started. A class or function makes a new instance for each incarnation;
    an instance is used again."""
    if callable(actor) and not hasattr(type(actor), "handle"):
        factory = (lambda: actor(*args)) if args else actor
        label = getattr(actor, "__name__", "actor")
    elif hasattr(actor, "handle"):
        if args:
            raise TypeError("arguments are for a class or a function that makes the actor, not for an instance")
        factory, label = (lambda: actor), type(actor).__name__
    else:
        raise TypeError(f"an actor has a method 'handle'; {actor!r} has none and makes none")
    keep = None
    if checkpoint:
        from klaw_core.runtime.checkpoint import LocalCheckpointer  # noqa: PLC0415

        if name is None:
            raise ValueError("an actor with checkpoint=True needs a name: its state is kept under it")
        if not checkpoint_interval > 0:
            raise ValueError(f"checkpoint_interval has to be more than 0 seconds, not {checkpoint_interval!r}")
        store = LocalCheckpointer() if checkpoint is True else checkpoint
        keep = _Checkpoint(store, checkpoint_interval, f"actor/{name}")
    return ActorRef(factory, name or label, capacity, keep)


async def spawn_actor(
    actor: Any,
    *args: Any,
    name: str | None = None,
    capacity: int = 1000,
    restart: Restart = "never",
    max_restarts: int = 3,
    restart_window: float = 5.0,
    backoff: float | None = None,
    checkpoint: bool | Checkpointer = False,
    checkpoint_interval: float = 60.0,
    on_restart: Hook | None = None,
    on_failure: Hook | None = None,
    on_max_restarts: Hook | None = None,
    backend: Backend | str | None = None,
    ray_options: Mapping[str, Any] | None = None,
) -> ActorRef[Any, Any]:
    """Starts an actor (a class or function that makes one, with its arguments, or an instance), waits until it runs.

    name: for get_actor; capacity: messages its mailbox holds (negative: any number). restart: when a failed
    ("on_failure") or also a finished ("always") actor is started again, at most max_restarts times within
    restart_window seconds, after `backoff` seconds that grow (None: at once). checkpoint: its snapshot() is kept every
    checkpoint_interval seconds and when it stops, and given to restore() when it starts. Hooks: (ref, error, attempt).
    backend: None is the configured one. ray_options: of a Ray actor (max_restarts, max_task_retries, lifetime,
    num_cpus, resources, ...): see :mod:`klaw_core.runtime._backends.ray.actor`.

    Errors: what the actor's first start raised; ValueError for a wrong value or a name that is taken.
    """
    hooks = {"on_restart": on_restart, "on_failure": on_failure, "on_max_restarts": on_max_restarts}
    policy = {"restart": restart, "max_restarts": max_restarts, "restart_window": restart_window, "backoff": backoff}
    where = {"name": name, "capacity": capacity, "checkpoint": checkpoint, "checkpoint_interval": checkpoint_interval}
    ref: ActorRef[Any, Any]
    if chosen_backend(backend) is Backend.RAY:
        ref = await ray_actors().make_ray_ref(actor, args, ray_options or {}, policy=policy, hooks=hooks, **where)
        if not ref._owned:
            return ref
    else:
        if ray_options:
            raise ValueError("ray_options are for backend='ray'")
        ref = make_ref(actor, args, **where)  # type: ignore[arg-type]
    await start(ref, name, policy, hooks)
    return ref


def chosen_backend(backend: Backend | str | None) -> Backend:
    """The backend of this name (None: the configured one). ValueError with the list of right ones."""
    try:
        return Backend(backend) if backend is not None else get_config().backend
    except ValueError:
        names = ", ".join(repr(b.value) for b in Backend)
        raise ValueError(f"backend has to be one of {names}, not {backend!r}") from None


def ray_actors() -> Any:
    """The module of actors on Ray. BackendErrorException when Ray can't be had."""
    try:
        from klaw_core.runtime._backends.ray import actor as module  # noqa: PLC0415
    except ImportError as error:
        raise BackendErrorException(
            f"the Ray backend can't be loaded ({error}); install it by: pip install 'klaw-core[ray]'", "ray"
        ) from error
    return module


async def start(
    ref: ActorRef[Any, Any], register_as: str | None, policy: Mapping[str, Any], hooks: Mapping[str, Any]
) -> None:
    """Starts what make_ref made, under a driver of its own. Errors: as spawn_actor."""
    backoff = policy["backoff"]
    try:
        machine = _klaw.Supervision(
            0, 0, policy["max_restarts"] or -1, policy["restart_window"], -1.0 if backoff is None else backoff
        )
        driver = Driver(machine, name=ref.name, **hooks)
        number = driver.add(_Supervised(ref), choice("restart", policy["restart"], RESTARTS), False, float("inf"))
        ref._driver = driver
        if register_as is not None:
            registry.register(register_as, ref)
    except BaseException:
        ref.discard()
        raise
    driver.begin()
    try:
        failure = await driver.settled(number)
    except BaseException:
        driver.kill_all()
        raise
    if failure is not None:
        driver.shutdown()
        await driver.wait()
        raise failure
