# SPDX-License-Identifier: Apache-2.0
"""Channels on the backend that is asked for. Ray is imported only when it is.

>>> import asyncio
>>> async def main() -> None:
...     tx, rx = await channel(8, value_type=int)
...     async with tx:
...         await tx.send_batch([1, 2, 3])
...     print([item async for item in rx])
>>> asyncio.run(main())
[1, 2, 3]
"""

from __future__ import annotations

import weakref
from typing import Any, Literal, TypeVar, overload

from klaw_core import _klaw
from klaw_core.runtime.channels._validate import TypeValidator
from klaw_core.runtime.channels.protocols import Receiver, Sender
from klaw_core.runtime.errors import BackendErrorException

__all__ = ["channel", "delete_channel", "get_channel", "list_channels"]

T = TypeVar("T")
Backend = Literal["local", "ray"]

# Named channels of this process: while an endpoint that channel() returned lives, more can be had.
_named: dict[tuple[str, str], tuple[weakref.ref[Any], weakref.ref[Any]]] = {}


def _backend(backend: str | None, distributed: bool | None) -> str:
    if distributed and backend not in (None, "ray"):
        raise ValueError(f"distributed=True needs backend 'ray', not {backend!r}")
    chosen = backend or ("ray" if distributed else "local")
    if chosen not in ("local", "ray"):
        raise ValueError(f"backend has to be 'local' or 'ray', not {chosen!r}")
    return chosen


def _ray() -> Any:
    try:
        import klaw_core.runtime.channels.ray.factory as factory  # type: ignore[import-not-found,unused-ignore] # noqa: PLC0415, PLR0402
    except ImportError as error:
        raise BackendErrorException(
            f"the Ray backend can't be loaded ({error}); install it by: pip install 'klaw-core[ray]'", "ray"
        ) from error
    return factory


def _space(namespace: str) -> str | None:
    """On Ray the default namespace can be settled by the environment (KLAW_RAY_NAMESPACE)."""
    return None if namespace == "klaw" else namespace


def _living(key: tuple[str, str]) -> tuple[Any, Any] | None:
    refs = _named.get(key)
    if refs is None:
        return None
    tx, rx = refs[0](), refs[1]()
    if tx is None or rx is None or tx.closed or rx.closed:
        del _named[key]
        return None
    return tx, rx


@overload
async def channel(
    capacity: int = 10_000,
    *,
    distributed: bool | None = None,
    backend: Backend | None = None,
    unbounded: bool = False,
    name: str | None = None,
    namespace: str = "klaw",
    value_type: type[T],
    reference: bool = False,
    durable: bool = False,
    **backend_options: Any,
) -> tuple[Sender[T], Receiver[T]]: ...


@overload
async def channel(
    capacity: int = 10_000,
    *,
    distributed: bool | None = None,
    backend: Backend | None = None,
    unbounded: bool = False,
    name: str | None = None,
    namespace: str = "klaw",
    value_type: Any = None,
    reference: bool = False,
    durable: bool = False,
    **backend_options: Any,
) -> tuple[Sender[Any], Receiver[Any]]: ...


async def channel(
    capacity: int = 10_000,
    *,
    distributed: bool | None = None,
    backend: Backend | None = None,
    unbounded: bool = False,
    name: str | None = None,
    namespace: str = "klaw",
    value_type: type[T] | Any | None = None,
    reference: bool = False,
    durable: bool = False,
    **backend_options: Any,
) -> tuple[Sender[T], Receiver[T]]:
    """Makes a channel, or (with a name that is known) opens a further pair of endpoints of it.

    capacity: items it holds; 0 is a rendezvous. value_type: sends of anything else raise ChannelTypeErrorException.
    name, namespace: for :func:`get_channel`. distributed, reference, durable and backend_options are the Ray
    backend's; the local one refuses them. Errors: ValueError for a wrong value, LimitExceededError for a capacity that
    is too large, BackendErrorException when the backend can't be had.
    """
    if _backend(backend, distributed) == "ray":
        pair: tuple[Sender[T], Receiver[T]] = await _ray().ray_channel(
            capacity=capacity,
            unbounded=unbounded,
            name=name,
            namespace=_space(namespace),
            value_type=value_type,
            reference=reference,
            durable=durable,
            **backend_options,
        )
        return pair
    for option, given in (("reference", reference), ("durable", durable), *backend_options.items()):
        if given:
            raise ValueError(f"{option!r} is an option of backend='ray', not of local channels")
    if name is not None and (living := _living((namespace, name))):
        return living[0].clone(), living[1].clone()
    validator = None if value_type is None else TypeValidator(value_type)
    tx, rx = _klaw.channel(capacity, unbounded, name, validator)
    if name is not None:
        _named[namespace, name] = weakref.ref(tx), weakref.ref(rx)
    return tx, rx


async def get_channel(
    name: str, *, backend: Backend = "local", namespace: str = "klaw"
) -> tuple[Sender[Any], Receiver[Any]] | None:
    """A further pair of endpoints of a named channel; None when there is none.

    >>> import asyncio
    >>> async def main() -> None:
    ...     tx, rx = await channel(name="jobs")
    ...     tx2, rx2 = await get_channel("jobs")
    ...     await tx2.send("x")
    ...     print(await rx.recv(), await get_channel("nothing"))
    >>> asyncio.run(main())
    x None
    """
    if _backend(backend, None) == "ray":
        found: tuple[Sender[Any], Receiver[Any]] | None = await _ray().get_ray_channel(
            name, namespace=_space(namespace)
        )
        return found
    living = _living((namespace, name))
    return (living[0].clone(), living[1].clone()) if living else None


def delete_channel(name: str, *, backend: Backend = "local", namespace: str = "klaw") -> bool:
    """Forgets a name (on Ray: ends the channel). False when there is no such channel. Endpoints of a local channel stay
    usable.

    >>> delete_channel("nothing")
    False
    """
    if _backend(backend, None) == "ray":
        return bool(_ray().delete_ray_channel(name, namespace=_space(namespace)))
    living = _living((namespace, name))
    _named.pop((namespace, name), None)
    return living is not None


def list_channels(*, backend: Backend = "local", namespace: str = "klaw") -> list[str]:
    """Names of the channels of a namespace, sorted.

    >>> list_channels(namespace="nobody's")
    []
    """
    if _backend(backend, None) == "ray":
        return list(_ray().list_ray_channels(namespace=_space(namespace)))
    return sorted(name for space, name in list(_named) if space == namespace and _living((space, name)))
