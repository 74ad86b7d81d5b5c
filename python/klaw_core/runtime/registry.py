# SPDX-License-Identifier: Apache-2.0
"""Names of actors in this process. A name follows its actor through restarts and goes when the actor ends for good.

>>> whereis("nobody")
Nothing
>>> get_actor("nobody")
Err(ActorNotFound(name='nobody'))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klaw_core.result import Err, Nothing, Ok, Option, Result, Some
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


def whereis(name: str) -> Option[ActorRef[Any, Any]]:
    """Some(actor) of this name, or Nothing."""
    actor = _actors.get(name)
    return Nothing if actor is None else Some(actor)


def get_actor(name: str) -> Result[ActorRef[Any, Any], ActorNotFound]:
    """Ok(actor) of this name, or Err(ActorNotFound)."""
    actor = _actors.get(name)
    return Err(ActorNotFound(name)) if actor is None else Ok(actor)


def _forget(actor: ActorRef[Any, Any]) -> None:
    for name in [name for name, holder in _actors.items() if holder is actor]:
        del _actors[name]
