# SPDX-License-Identifier: Apache-2.0
"""Makes, finds, lists and deletes channels whose actor runs in a Ray cluster.

    tx, rx = await ray_channel(name="jobs", value_type=int)
    again = await get_ray_channel("jobs")  # in any process of the cluster

A named channel is a detached actor: it lives until it is deleted. One without a name lives as long as the process that
made it, and as anybody holds an endpoint.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

from klaw_core.runtime._backends._ray_connect import ensure_ray
from klaw_core.runtime._logging import get_logger
from klaw_core.runtime.channels.ray.constants import (
    ACK_MODES,
    ACTOR_PREFIX,
    BROADCAST,
    DEFAULT_RAY_NAMESPACE,
    KINDS,
    QUEUE,
    WATCH,
)
from klaw_core.runtime.errors import ChannelBackendErrorException

__all__ = [
    "delete_ray_channel",
    "get_ray_channel",
    "list_ray_channels",
    "ray_broadcast_channel",
    "ray_channel",
    "ray_reference_channel",
    "ray_watch_channel",
]

T = TypeVar("T")

_START_LIMIT = 60.0  # seconds for an actor to start, workers of a busy machine included
_ANSWER_LIMIT = 30.0  # seconds for one that runs, or restarts
_NAMING_LIMIT = 10.0  # seconds for the name of a dying actor to come free
_SAME = ("kind", "capacity", "type_text", "ack", "codec", "reference", "volatile", "durable")


async def _off_loop(function: Callable[[], T]) -> T:
    """Runs what blocks on a thread, under asyncio or trio."""
    if asyncio._get_running_loop() is None and "trio" in sys.modules:
        trio: Any = sys.modules["trio"]
        result: T = await trio.to_thread.run_sync(function)
        return result
    return await asyncio.to_thread(function)


def _actor_name(name: str) -> str:
    if not isinstance(name, str) or not name:
        raise ValueError(f"a channel's name has to be a text that is not empty, not {name!r}")
    return ACTOR_PREFIX + name


def _error(message: str, actor_name: str, namespace: str) -> ChannelBackendErrorException:
    return ChannelBackendErrorException(message, "ray", actor_name, namespace)


def _find(actor_name: str, namespace: str) -> tuple[Any, dict[str, Any]] | None:
    """(handle, metadata) of a channel that is alive. Ray may still name one that is dead: None."""
    import ray  # noqa: PLC0415
    import ray.exceptions  # noqa: PLC0415

    try:
        handle = ray.get_actor(actor_name, namespace=namespace)
    except ValueError:
        return None
    if not hasattr(handle, "get_metadata"):
        raise _error("this name belongs to an actor that is no channel of klaw", actor_name, namespace)
    try:
        return handle, handle.get_metadata.remote().future().result(_ANSWER_LIMIT)
    except ray.exceptions.ActorUnavailableError as error:
        raise _error(f"the channel's actor can't be reached: {error}", actor_name, namespace) from error
    except ray.exceptions.ActorDiedError:
        return None
    except TimeoutError as error:
        raise _error(f"the channel's actor gave no answer within {_ANSWER_LIMIT:g} s", actor_name, namespace) from error


def _address(handle: Any, meta: dict[str, Any], name: str | None, namespace: str) -> Any:
    from klaw_core.runtime.channels.ray._link import Address  # noqa: PLC0415

    return Address(
        handle=handle,
        channel_id=meta["channel_id"],
        kind=meta["kind"],
        capacity=meta["capacity"],
        ack=meta["ack"],
        codec=meta["codec"],
        value_type=meta["value_type"],
        reference=meta["reference"],
        volatile=meta["volatile"],
        durable=meta["durable"],
        name=name or "",
        namespace=namespace,
        actor_name=_actor_name(name) if name else "",
    )


def _endpoints(address: Any, *, made: bool) -> tuple[Any, Any]:
    from klaw_core.runtime.channels.ray.broadcast import RayBroadcastReceiver, RayBroadcastSender  # noqa: PLC0415
    from klaw_core.runtime.channels.ray.core import RayReceiver, RaySender  # noqa: PLC0415
    from klaw_core.runtime.channels.ray.reference import RayReferenceReceiver, RayReferenceSender  # noqa: PLC0415
    from klaw_core.runtime.channels.ray.watch import RayWatchReceiver, RayWatchSender  # noqa: PLC0415

    sender, receiver = {
        QUEUE: (RayReferenceSender, RayReferenceReceiver) if address.reference else (RaySender, RayReceiver),
        BROADCAST: (RayBroadcastSender, RayBroadcastReceiver),
        WATCH: (RayWatchSender, RayWatchReceiver),
    }[address.kind]
    return sender(address, made=made), receiver(address, made=made)


def _differences(wanted: dict[str, Any], meta: dict[str, Any]) -> str:
    said = [
        f"{key.removesuffix('_text')} {meta[key]!r} and not {wanted[key]!r}"
        for key in _SAME
        if key in wanted and meta[key] != wanted[key]
    ]
    return ", ".join(said).replace(repr(meta["kind"]) + " and", KINDS[meta["kind"]] + " and")


def _make(
    actor: Any,
    arguments: dict[str, Any],
    wanted: dict[str, Any],
    name: str | None,
    namespace: str,
    options: dict[str, Any],
) -> tuple[Any, Any]:
    """A pair of the channel of that name, or of a new one. Blocks."""
    import ray.exceptions  # noqa: PLC0415

    ensure_ray()
    if name is None:
        return _start(actor, arguments, options, None, namespace)
    actor_name = _actor_name(name)
    end = time.monotonic() + _NAMING_LIMIT
    while True:
        found = _find(actor_name, namespace)
        if found is not None:
            handle, meta = found
            differences = _differences(wanted, meta)
            if differences:
                raise _error(f"a channel of this name exists, with {differences}", actor_name, namespace)
            return _endpoints(_address(handle, meta, name, namespace), made=meta["creator"] == arguments["creator"])
        try:
            named = {"name": actor_name, "namespace": namespace, "lifetime": "detached", "get_if_exists": True}
            tx, rx = _start(actor, arguments, {**options, **named}, name, namespace)
            if tx._made:
                return tx, rx
        except (ray.exceptions.ActorDiedError, ValueError):
            if time.monotonic() > end:
                raise
        time.sleep(0.05)  # somebody else made it first, or it is dying


def _start(
    actor: Any, arguments: dict[str, Any], options: dict[str, Any], name: str | None, namespace: str
) -> tuple[Any, Any]:
    import ray.exceptions  # noqa: PLC0415

    handle = actor.new_actor().options(**options).remote(**arguments)._actor_handle
    try:
        meta = handle.get_metadata.remote().future().result(_START_LIMIT)
    except TimeoutError as error:
        raise _error(
            f"its actor did not start within {_START_LIMIT:g} s", options.get("name", ""), namespace
        ) from error
    except ray.exceptions.ActorDiedError as error:
        text = str(error).strip()
        if "creation task" in text or "__init__" in text or name is None:
            raise _error(f"its actor could not be started: {text}", options.get("name", ""), namespace) from error
        raise
    return _endpoints(_address(handle, meta, name, namespace), made=meta["creator"] == arguments["creator"])


def _options(max_restarts: int | None, durable: bool, actor_options: dict[str, Any] | None) -> dict[str, Any]:
    options: dict[str, Any] = {"num_cpus": 0, **(actor_options or {})}
    if max_restarts is not None:
        options["max_restarts"] = max_restarts
    if durable and "scheduling_strategy" not in options:
        import ray  # noqa: PLC0415
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415

        # Another node would start with an empty log.
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
    return options


def _checked(capacity: int | None, unbounded: bool, ack: str) -> int | None:
    if ack not in ACK_MODES:
        raise ValueError(f"ack has to be one of {', '.join(map(repr, ACK_MODES))}, not {ack!r}")
    if unbounded or capacity is None:
        get_logger().warning("a Ray channel without bound holds everything in its actor's memory")
        return None
    if isinstance(capacity, bool) or not isinstance(capacity, int) or capacity < 1:
        raise ValueError(f"capacity has to be at least 1 (a rendezvous is local only), not {capacity!r}")
    return capacity


async def ray_channel(
    capacity: int | None = 10_000,
    *,
    unbounded: bool = False,
    name: str | None = None,
    namespace: str | None = None,
    value_type: Any = None,
    reference: bool = False,
    volatile: bool = False,
    durable: bool = False,
    ack: str = "next",
    codec: str = "auto",
    path: str | None = None,
    max_restarts: int | None = None,
    actor_options: dict[str, Any] | None = None,
    broker_options: dict[str, Any] | None = None,
) -> tuple[Any, Any]:
    """(RaySender, RayReceiver) of a new channel, or of the one of that name. An endpoint counts from its first use on.

    capacity: items it holds (unbounded: any number). namespace: where the name is (None: DEFAULT_RAY_NAMESPACE).
    value_type: sends of anything else raise ChannelTypeErrorException. reference: values go through the object store
    (volatile: they die with their sender). durable: confirmed items survive the actor; needs a name; path: the log's
    file on this node. ack: when an item counts as received: "next" (its consumer asks for the next one), "explicit"
    (``rx.ack()``), "before" (handed out: at most once). codec: "auto", or "msgpack" to refuse pickle. max_restarts: of
    the actor (None: 4; -1: any number). actor_options: Ray's own. broker_options: times, for tests.

    Errors: ValueError for a wrong value; BackendErrorException when Ray can't be reached; ChannelBackendErrorException
    when the actor can't be started, or the name belongs to another kind of channel, capacity, type or mode.
    """
    from klaw_core.runtime.channels.ray.actor import RayChannelActor  # noqa: PLC0415
    from klaw_core.runtime.channels.ray.codec import Codec, describe  # noqa: PLC0415

    space = namespace or DEFAULT_RAY_NAMESPACE
    limit = _checked(capacity, unbounded, ack)
    Codec(None if reference else value_type, codec)
    if durable and name is None:
        raise ValueError("durable=True needs a name: another process has to find the channel again")
    if durable and reference:
        raise ValueError("durable=True can't keep references: the object store does not survive")
    wanted = {
        "kind": QUEUE,
        "capacity": limit,
        "type_text": describe(value_type),
        "ack": ack,
        "codec": codec,
        "reference": reference,
        "volatile": volatile,
        "durable": durable,
    }
    arguments = {
        "capacity": limit,
        "unbounded": limit is None,
        "value_type": value_type,
        "channel_id": channel_id(name or "", space) if durable else b"",
        "ack": ack,
        "codec": codec,
        "reference": reference,
        "volatile": volatile,
        "durable": durable,
        "path": path or "",
        "creator": secrets.token_hex(8),
        "broker_options": broker_options,
    }

    def make() -> tuple[Any, Any]:
        ensure_ray()
        options = _options(max_restarts, durable, actor_options)
        return _make(RayChannelActor, arguments, wanted, name, space, options)

    return await _off_loop(make)


def channel_id(name: str, namespace: str) -> bytes:
    """The identity of a durable channel: the same in a later cluster.

    >>> len(channel_id("jobs", "klaw"))
    16
    """
    return hashlib.blake2b(f"{namespace}/{name}".encode(), digest_size=16, person=b"klaw channel").digest()


async def ray_reference_channel(capacity: int | None = 10_000, **options: Any) -> tuple[Any, Any]:
    """(RayReferenceSender, RayReferenceReceiver): as ray_channel(reference=True)."""
    return await ray_channel(capacity, reference=True, **options)


async def ray_broadcast_channel(
    capacity_per_reader: int = 1024,
    *,
    name: str | None = None,
    namespace: str | None = None,
    value_type: Any = None,
    codec: str = "auto",
    max_restarts: int | None = None,
    actor_options: dict[str, Any] | None = None,
    broker_options: dict[str, Any] | None = None,
) -> tuple[Any, Any]:
    """(RayBroadcastSender, RayBroadcastReceiver): every receiver gets every item sent after it registered. The receiver
    of this pair is registered when this returns. capacity_per_reader: items kept for one that is slow; older ones are
    dropped, and it is told how many. The rest and the errors are those of ray_channel."""
    from klaw_core.runtime.channels.ray.broadcast import RayBroadcastActor  # noqa: PLC0415
    from klaw_core.runtime.channels.ray.codec import Codec, describe  # noqa: PLC0415

    space = namespace or DEFAULT_RAY_NAMESPACE
    limit = _checked(capacity_per_reader, False, "next")
    Codec(value_type, codec)
    wanted = {"kind": BROADCAST, "capacity": limit, "type_text": describe(value_type), "codec": codec}
    arguments = {
        "capacity": limit,
        "value_type": value_type,
        "codec": codec,
        "creator": secrets.token_hex(8),
        "broker_options": broker_options,
    }

    def make() -> tuple[Any, Any]:
        ensure_ray()
        return _make(RayBroadcastActor, arguments, wanted, name, space, _options(max_restarts, False, actor_options))

    tx, rx = await _off_loop(make)
    await rx.ready()
    return tx, rx


async def ray_watch_channel(
    *initial: Any,
    name: str | None = None,
    namespace: str | None = None,
    value_type: Any = None,
    codec: str = "auto",
    max_restarts: int | None = None,
    actor_options: dict[str, Any] | None = None,
    broker_options: dict[str, Any] | None = None,
) -> tuple[Any, Any]:
    """(RayWatchSender, RayWatchReceiver): the newest value. initial: the first one, or nothing for none yet; where the
    name exists its value stays. The rest and the errors are those of ray_channel."""
    from klaw_core.runtime.channels.ray.codec import Codec, describe  # noqa: PLC0415
    from klaw_core.runtime.channels.ray.watch import RayWatchActor  # noqa: PLC0415

    if len(initial) > 1:
        raise TypeError(f"a watch channel has one initial value or none, not {len(initial)}")
    space = namespace or DEFAULT_RAY_NAMESPACE
    coder = Codec(value_type, codec)
    for value in initial:
        coder.encode(value)
    wanted = {"kind": WATCH, "type_text": describe(value_type), "codec": codec}
    arguments = {
        "initial": initial,
        "value_type": value_type,
        "codec": codec,
        "creator": secrets.token_hex(8),
        "broker_options": broker_options,
    }

    def make() -> tuple[Any, Any]:
        ensure_ray()
        return _make(RayWatchActor, arguments, wanted, name, space, _options(max_restarts, False, actor_options))

    return await _off_loop(make)


async def get_ray_channel(name: str, *, namespace: str | None = None) -> tuple[Any, Any] | None:
    """A pair of endpoints of a named channel, of its kind; None when there is none. Registers nobody: an endpoint
    counts from its first use on."""
    space = namespace or DEFAULT_RAY_NAMESPACE
    actor_name = _actor_name(name)

    def find() -> tuple[Any, Any] | None:
        ensure_ray()
        found = _find(actor_name, space)
        return None if found is None else _endpoints(_address(*found, name, space), made=False)

    return await _off_loop(find)


def delete_ray_channel(name: str, *, namespace: str | None = None) -> bool:
    """Ends a named channel: who sends or receives there gets ChannelClosedError, what is in it is gone (with
    durable=True its log, too). False when there is none."""
    ray = ensure_ray()
    actor_name = _actor_name(name)
    try:
        handle = ray.get_actor(actor_name, namespace=namespace or DEFAULT_RAY_NAMESPACE)
    except ValueError:
        return False
    if not hasattr(handle, "get_metadata"):
        raise _error("this name belongs to an actor that is no channel of klaw", actor_name, namespace or "")
    try:
        handle.delete.remote().future().result(_ANSWER_LIMIT)
        told = True
    except Exception:  # it is dead, or does not answer
        told = False
    ray.kill(handle, no_restart=True)
    return told


def list_ray_channels(*, namespace: str | None = None) -> list[str]:
    """The names of a namespace's channels, sorted."""
    ray = ensure_ray()
    space = namespace or DEFAULT_RAY_NAMESPACE
    return sorted(
        actor["name"].removeprefix(ACTOR_PREFIX)
        for actor in ray.util.list_named_actors(all_namespaces=True)
        if actor["namespace"] == space and actor["name"].startswith(ACTOR_PREFIX)
    )
