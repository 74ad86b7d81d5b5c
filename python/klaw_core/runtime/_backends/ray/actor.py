# SPDX-License-Identifier: Apache-2.0
"""Actors on Ray behind the same ActorRef.

Where the local backend starts a coroutine, a driver here asks a Ray actor (:mod:`host`) to begin; everything else of
supervision is the same code and the same machine of libklaw's. Ray itself starts a process anew that died, without
asking; it waits there until the machine has decided. So a ref that was sent elsewhere stays good through restarts.

ray_options are those of Ray's actors (num_cpus, which is 0 unless you say so, resources, scheduling_strategy,
runtime_env, max_concurrency, max_task_retries, ...), and

- lifetime="detached": the actor survives the process that made it. Restarts are decided in its own process then, the
  hooks run there, and a process that died is started again max_restarts times (Ray's count, by default the actor's).
- max_restarts: how many deaths of the process Ray makes good. With restart="never" they are Ray's matter alone; by
  default it is 0 for restart="never" and unlimited otherwise, because libklaw's machine counts.
- namespace: of the name. get_if_exists: an actor of this name, if there is one, instead of a new one.

What was in the mailbox of a process that died is lost. Who had asked gets Err(Uncertain): the message may or may not
have been handled. Nothing is sent twice, unless max_task_retries asks Ray for it.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from klaw_core import _klaw
from klaw_core.result import Err, Nothing, Option, Result, Some
from klaw_core.runtime import registry
from klaw_core.runtime._backends._ray_connect import default_namespace, ensure_ray
from klaw_core.runtime._backends.ray.executor import library_of_loop, with_excludes
from klaw_core.runtime._backends.ray.host import KIND, remote_class
from klaw_core.runtime._backends.ray.untyped import cloudpickle, exceptions, ray
from klaw_core.runtime._backends.ray.wire import cancel, connected, explain, settle, short, unpack
from klaw_core.runtime._config import Backend, get_config
from klaw_core.runtime._supervision import RESTARTS, choice
from klaw_core.runtime.actor import ActorRef, make_ref
from klaw_core.runtime.checkpoint import LocalCheckpointer
from klaw_core.runtime.context import current_context
from klaw_core.runtime.errors import (
    ActorStopped,
    BackendError,
    BackendErrorException,
    ChannelEmptyError,
    Timeout,
    Uncertain,
)

__all__ = ["RayActorRef", "find", "make_ray_ref"]

MAX_CONCURRENCY = 10_000  # messages on their way into one actor at once
CLEANUP = 6.0  # seconds a cancelled actor has, its on_stop included, before its process is killed
LOOK_UP = 1.0  # seconds a named actor has to say what it is

_ids = itertools.count(1)


def _died(name: str, error: BaseException) -> BackendErrorException:
    return BackendErrorException(f"the process of actor {name!r} died: {short(error)}", "ray")


class RayActorRef(ActorRef[Any, Any]):
    """The address of an actor on Ray. It can be pickled: what arrives elsewhere sends, asks, stops and kills as well;
    there is_alive says what was last seen."""

    def __init__(self, name: str, handle: Any, label: str, namespace: str) -> None:
        # Not the local one's: there is no mailbox here.
        self.name = label
        self.id = next(_ids)
        self._named = name
        self._namespace = namespace
        self._remote = handle
        self._owned = False
        self._driver = None
        self._make: Callable[[], Any] | None = None  # a new Ray actor, when the old one is gone for good
        self._own_restarts = False  # deaths of the process are Ray's matter
        self._revives = False  # Ray starts the process again
        self._stopping = self._killed = False
        self._reason = "stopped"
        self._end: list[Any] = []
        self._over = self._suspect = False
        self._flying = 0
        self._aborted: Any = None  # the ObjectRef of an abort
        self._aborting = False  # its thread is to give the process back
        self._lock = threading.Lock()
        self._changed: list[Any] = []  # who waits for a handle that works
        self.incarnation = 0
        self._task = None

    def __reduce__(self) -> tuple[Any, ...]:
        return RayActorRef, (self._named, self._remote, self.name, self._namespace)

    def __repr__(self) -> str:
        return f"<ActorRef {self.name!r} on Ray, {'stopped' if self._over else 'running'}>"

    @property
    def _load(self) -> int:
        return self._flying

    # --- messages ---
    async def send(self, msg: Any) -> None:
        """As on the local backend. Errors: ActorStoppedError; UncertainError when its process died meanwhile;
        BackendErrorException for a message that can't be pickled."""
        match await self._deliver(lambda handle: handle.post, msg, None):
            case Err(ActorStopped() as stopped):
                raise stopped.to_exception()
            case Err(error) if isinstance(error, BaseException):
                raise error
            case Err(error):
                raise error.to_exception()

    async def ask(self, msg: Any, timeout: float | None = None) -> Result[Any, Any]:
        """As on the local backend; also Err(Uncertain) when its process died meanwhile, Err(BackendError) for a message
        or an answer that can't travel."""
        until = None if timeout is None else time.monotonic() + timeout
        try:
            result: Result[Any, Any] = await self._deliver(lambda handle: handle.ask, msg, until, timeout)
            return result
        except ChannelEmptyError:
            return Err(Timeout(timeout or 0.0))

    async def _deliver(self, method: Callable[[Any], Any], msg: Any, until: float | None, *more: Any) -> Any:
        def left() -> float | None:
            return None if until is None else max(0.0, until - time.monotonic())

        while True:
            if self._over:
                return Err(ActorStopped(self.name, self._reason))
            try:
                connected()
                if self._suspect and not await self._again(left):
                    continue
            except BackendErrorException as error:
                return Err(error.to_struct())
            handle = self._remote
            try:
                ref = method(handle).remote(current_context(), [msg], *more)
            except Exception as error:
                return Err(BackendError(f"the message to {self.name!r} can't be sent: {_why(error)}", "ray"))
            self._flying += 1
            try:
                return unpack(await settle(ref, left()))
            except exceptions.RayActorError as error:
                self._suspect = True
                await self._mourn(handle, error)
                if self._over:
                    return Err(ActorStopped(self.name, self._reason))
                return Err(
                    Uncertain(f"the process of actor {self.name!r} died: the message may or may not have been handled")
                )
            except BackendErrorException as error:
                return Err(error.to_struct())
            except (exceptions.RayError, TypeError) as error:
                return explain(error, f"the answer of {self.name!r}")
            except BaseException:  # a time-out, or we are cancelled: it need not be begun
                cancel(ref)
                raise
            finally:
                self._flying -= 1

    async def _again(self, left: Callable[[], float | None]) -> bool:
        """Waits until a process is there again: True; False when something has changed."""
        handle = self._remote
        try:
            await settle(handle.ready.remote(), left())
        except exceptions.RayActorError as error:
            await self._mourn(handle, error)
            return False
        if handle is self._remote:
            self._suspect = False
        return True

    async def _mourn(self, gone: Any, error: Exception) -> None:
        """After a death: whether that was all is up to the driver, or, where there is none, to Ray."""
        if not isinstance(error, exceptions.ActorDiedError):
            return
        if self._owned:
            tx, rx = _klaw.oneshot()
            with self._lock:
                if self._over or gone is not self._remote:
                    return
                self._changed.append(tx)
            await rx.recv()
            return
        from anyio.to_thread import run_sync  # noqa: PLC0415

        handle = await run_sync(_lookup, self._named, self._namespace) if self._named else None
        if handle is not None and handle._actor_id != gone._actor_id:
            self._remote = handle
        elif gone is self._remote:
            self._ended_for_good(f"died: {short(error)}")

    def _ended_for_good(self, reason: str) -> None:
        with self._lock:
            self._over = True
            self._reason = reason
            waiting, self._end, self._changed = [*self._end, *self._changed], [], []
        for tx in waiting:
            tx.try_send_sync(None)

    # --- its end ---
    async def stop(self) -> None:
        """As on the local backend."""
        if self._over:
            return
        self._stopping = True
        if self._driver is not None:
            self._driver.shutdown()
        else:
            _quietly(self._remote.finish.remote)
        if not self._inside():
            await self.wait()

    async def kill(self) -> None:
        """As on the local backend. A handler that does not end within six seconds takes its process with it."""
        if self._over:
            return
        if self._driver is not None:
            self._killed = True
            self._driver.kill_all()
            if not self._inside():
                await self.wait()
                await self._cleaned()
                self.discard()
        elif not self._owned:
            ref = _quietly(self._remote.finish.remote, True)
            if ref is not None and not self._inside():
                with contextlib.suppress(exceptions.RayError, ChannelEmptyError):
                    await settle(ref, CLEANUP)
                with contextlib.suppress(exceptions.RayError, ChannelEmptyError):
                    await self._until_over(1.0)  # its owner gives it back
                self.discard()
                self._ended_for_good("killed")

    async def _cleaned(self) -> None:
        """Waits until what was cancelled has ended, as long as it may take."""
        if self._aborted is not None:
            with contextlib.suppress(exceptions.RayError, ChannelEmptyError):
                await settle(self._aborted, CLEANUP)

    def _inside(self) -> bool:
        """Whether the caller is the actor itself."""
        own: str | None = ray.get_runtime_context().get_actor_id()
        return own is not None and own == self._remote._actor_id.hex()

    async def wait(self) -> None:
        """Waits until it has ended for good."""
        if self._owned:
            await super().wait()
            return
        number = 0
        while not self._over:
            number += 1
            try:
                await self._until_over()
            except exceptions.RayActorError as error:
                if isinstance(error, exceptions.ActorDiedError):
                    self._ended_for_good("stopped")
                else:  # its process is started again
                    await self._again(lambda: None)

    async def _until_over(self, timeout: float | None = None) -> None:
        """Raises what until_over fails with, or ChannelEmptyError; who does not wait any more leaves no call there."""
        ref = self._remote.until_over.remote()
        try:
            await settle(ref, timeout)
        except (exceptions.RayError, BackendErrorException):
            raise
        except BaseException:
            cancel(ref)
            raise

    # --- one incarnation, started by a driver ---
    async def run(self, started: Callable[[], None]) -> None:
        self.incarnation += 1
        number = self.incarnation
        try:
            await self._begin(number, anew=True)
            started()
            while True:
                try:
                    outcome, final = await settle(self._remote.join.remote(number))
                    break
                except exceptions.ActorUnavailableError:
                    if not self._own_restarts:
                        raise
                    await self._begin(number)
        except exceptions.RayActorError as error:
            self._suspect = True
            raise _died(self.name, error) from error
        except exceptions.RayError as error:
            raise explain(error, f"actor {self.name!r}").error.to_exception() from error
        except BaseException as error:
            if not isinstance(error, Exception):
                self._abort(number)
            raise
        if final:
            self._stopping = True
            if self._driver is not None:
                self._driver.shutdown()
        _raise(unpack(outcome))

    async def _begin(self, number: int, anew: bool = False) -> None:
        """Waits for the process, however often Ray starts it, and lets the actor begin there. anew: in another process
        when Ray has given up that one."""
        if self._aborted is not None:
            await self._cleaned()
            self._aborted = None
        connected()
        try:
            await settle(self._remote.ready.remote())
        except exceptions.ActorDiedError:
            if not anew or self._make is None:
                raise
            self._replace(await self._make())
            await settle(self._remote.ready.remote())
        _raise(unpack(await settle(self._remote.begin.remote(number))))
        self._suspect = False

    def _replace(self, handle: Any) -> None:
        with self._lock:
            self._remote = handle
            self._suspect = False
            waiting, self._changed = self._changed, []
        for tx in waiting:
            tx.try_send_sync(None)

    def _abort(self, number: int) -> None:
        """Its driver has given it up. Nothing here depends on a loop, which may be about to end."""
        handle, revives = self._remote, self._revives
        ended = threading.Event()
        self._aborted = _quietly(handle.abort.remote, number)
        if self._aborted is None:
            return
        self._aborting = True
        self._aborted.future().add_done_callback(lambda _: ended.set())

        def finish() -> None:
            late = not ended.wait(CLEANUP)
            with self._lock:
                self._aborting = False
                over = self._over
            if late or over:
                _quietly(ray.kill, handle, no_restart=over or not revives)

        threading.Thread(target=finish, name="klaw-actor-abort", daemon=True).start()

    def stop_soon(self, final: bool) -> None:
        _quietly(self._remote.close.remote, final)

    def ended(self, error: BaseException | None) -> None:
        if self._over:
            return
        reason = self._reason
        if self._killed or (error is not None and not isinstance(error, Exception)):
            reason = "killed"
        elif error is not None:
            reason = f"failed: {error!r}"
        registry._forget(self)
        self._ended_for_good(reason)
        with self._lock:
            aborting = self._aborting
        if not aborting:
            self.discard()

    def discard(self) -> None:
        """Gives the process and the name back."""
        _quietly(ray.kill, self._remote, no_restart=True)


def _quietly(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """For what may be gone already, and for a Ray that was shut down."""
    try:
        connected()
        return function(*args, **kwargs)
    except Exception:
        return None


def _raise(result: Result[Any, Any]) -> None:
    if isinstance(result, Err):
        error = result.error
        raise error if isinstance(error, BaseException) else error.to_exception()


def _why(error: Exception) -> str:
    said = [line for line in str(error).splitlines() if "cannot pickle" in line or "FAIL serialization" in line]
    return said[-1].replace("!!! FAIL serialization:", "").strip() if said else short(error)


async def make_ray_ref(
    actor: Any,
    args: tuple[Any, ...],
    ray_options: Mapping[str, Any],
    *,
    policy: Mapping[str, Any],
    hooks: Mapping[str, Any],
    name: str | None,
    capacity: int,
    checkpoint: Any,
    checkpoint_interval: float,
    visible: bool = True,
) -> RayActorRef:
    """A Ray actor that has not begun, or, when it is to be detached, one that has. visible: its name can be looked up.

    Errors: ValueError for a name that is taken or a wrong option; BackendErrorException for what can't be sent.
    """
    from anyio.to_thread import run_sync  # noqa: PLC0415

    label = make_ref(
        actor, args, name=name, capacity=capacity, checkpoint=checkpoint, checkpoint_interval=checkpoint_interval
    ).name
    restart = policy["restart"]
    choice("restart", restart, RESTARTS)
    options = dict(ray_options)
    namespace = options.pop("namespace", None) or _namespace()
    detached = options.get("lifetime") == "detached"
    if detached and not name:
        raise ValueError("a detached actor needs a name: nobody would find it")
    await run_sync(ensure_ray, None, namespace)
    if options.pop("get_if_exists", False) and name:
        handle = _lookup(name, namespace)
        if handle is not None:
            return RayActorRef(name, handle, name, namespace)
    asked = options.get("max_restarts")
    if asked is None:
        options["max_restarts"] = 0 if restart == "never" else policy["max_restarts"] if detached else -1
    options.setdefault("num_cpus", 0)
    options.setdefault("max_concurrency", MAX_CONCURRENCY)
    if "runtime_env" in options:
        options["runtime_env"] = with_excludes(options["runtime_env"])
    if checkpoint is True:
        checkpoint = LocalCheckpointer(get_config().checkpoint_path)
        if not {"scheduling_strategy", "resources", "label_selector"} & options.keys():
            options["scheduling_strategy"] = _this_node(detached)
    try:
        spec = {
            "name": label,
            "capacity": capacity,
            "actor": cloudpickle.dumps((actor, args)),
            "checkpoint": cloudpickle.dumps(checkpoint),
            "interval": checkpoint_interval,
            "library": library_of_loop(),
            "alone": (dict(policy), cloudpickle.dumps(dict(hooks))) if detached else None,
        }
    except Exception as error:
        raise BackendErrorException(f"the actor {label!r} can't be sent to a worker: {_why(error)}", "ray") from error
    if visible and name:
        options.update(name=name, namespace=namespace)

    async def make() -> Any:
        return await _create(options, spec)

    ref = RayActorRef(name if visible and name else "", await make(), label, namespace)
    if detached:
        try:
            _raise(unpack(await settle(ref._remote.begin.remote(0))))
        except BaseException:
            ref.discard()
            raise
        return ref
    ref._owned = True
    ref._make = make
    ref._revives = options["max_restarts"] != 0
    ref._own_restarts = restart == "never" and bool(asked)
    return ref


def _this_node(hard: bool) -> Any:
    """Where the checkpoints are. An actor that outlives us must not forget its state on another node."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=not hard)


async def _create(options: dict[str, Any], spec: dict[str, Any]) -> Any:
    """A new Ray actor. A name that a dead one still has is taken from it."""
    until = time.monotonic() + 5.0
    while True:
        try:
            return remote_class().options(**options).remote(spec)
        except ValueError as error:
            if "name" not in options or "already taken" not in str(error):
                raise
            taken = ValueError(f"the name {options['name']!r} is taken in namespace {options['namespace']!r}")
            if time.monotonic() > until or await _alive(options["name"], options["namespace"]):
                raise taken from None
            import anyio  # noqa: PLC0415

            await anyio.sleep(0.02)


async def _alive(name: str, namespace: str) -> bool:
    """Whether the holder of a name is more than a name; a dead one loses it."""
    try:
        holder = ray.get_actor(name, namespace=namespace)
    except ValueError:
        return False
    try:
        await settle(holder.__ray_ready__.remote(), LOOK_UP)
    except exceptions.ActorDiedError:
        _quietly(ray.kill, holder, no_restart=True)
        return False
    except (exceptions.RayError, ChannelEmptyError):
        return True
    return True


# --- names ---
def _namespace() -> str:
    config = get_config()
    given = config.backend_kwargs.get("namespace") if config.backend is Backend.RAY else None
    return given or default_namespace()


def _lookup(name: str, namespace: str) -> Any:
    """The handle of a klaw actor of this name that is alive; None. Blocks for a round trip, at most LOOK_UP seconds
    while its process is being started again."""
    try:
        handle = ray.get_actor(name, namespace=namespace)
    except ValueError:
        return None
    try:
        said = ray.get(handle.describe.remote(), timeout=LOOK_UP)
    except exceptions.ActorDiedError:  # Ray gives out dead ones
        return None
    except (exceptions.ActorUnavailableError, exceptions.GetTimeoutError):
        return handle
    except (AttributeError, exceptions.RayError):
        return None
    return handle if isinstance(said, dict) and said.get("kind") == KIND else None


def find(name: str, namespace: str | None = None) -> Option[ActorRef[Any, Any]]:
    """Some(ref) of the klaw actor that has this name on the cluster, or Nothing. namespace: None is the configured one.
    Joins the cluster when this process has not."""
    ensure_ray()
    where = namespace or _namespace()
    handle = _lookup(name, where)
    return Nothing if handle is None else Some(RayActorRef(name, handle, name, where))
