# SPDX-License-Identifier: Apache-2.0
"""Names of actors, in this process and on the cluster. A name follows its actor through restarts and goes
when the actor ends for good.

>>> whereis("nobody")
Nothing
>>> get_actor("nobody")
Err(ActorNotFound(name='nobody'))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klaw_core.result import Err, Nothing, Ok, Option, Result, Some
from klaw_core.runtime._config import Backend, get_config
from klaw_core.runtime.errors import ActorNotFound

if TYPE_CHECKING:
    from klaw_core.runtime.actor import ActorRef

__all__ = ["get_actor", "register", "unregister", "whereis"]

_actors: dict[str, ActorRef[Any, Any]] = {}


def register(name: str, actor: ActorRef[Any, Any]) -> None:
    """Gives an actor a name. ValueError when another one has it, or for an empty one."""
    if not name:
        raise ValueError("a name is not empty")
    holder = _actors.setdefault(name, actor)
    if holder is not actor:
        raise ValueError(f"the name {name!r} is taken by {holder!r}")


def unregister(name: str) -> bool:
    """Takes a name away. False when nobody has it."""
    return _actors.pop(name, None) is not None


def whereis(name: str, *, namespace: str | None = None) -> Option[ActorRef[Any, Any]]:
    """Some(actor) of this name, or Nothing. Actors of this process come first; on the Ray backend, or when a namespace
    is given, those of the cluster follow, which takes a round trip."""
    actor = _actors.get(name)
    if actor is not None and namespace is None:
        return Some(actor)
    if namespace is None and get_config().backend is not Backend.RAY:
        return Nothing
    from klaw_core.runtime.actor import ray_actors  # noqa: PLC0415

    found: Option[ActorRef[Any, Any]] = ray_actors().find(name, namespace)
    return found


def get_actor(name: str, *, namespace: str | None = None) -> Result[ActorRef[Any, Any], ActorNotFound]:
    """Ok(actor) of this name, or Err(ActorNotFound); looked up as :func:`whereis` does."""
    found = whereis(name, namespace=namespace)
    return Ok(found.value) if isinstance(found, Some) else Err(ActorNotFound(name))


def _forget(actor: ActorRef[Any, Any]) -> None:
    for name in [name for name, holder in _actors.items() if holder is actor]:
        del _actors[name]
