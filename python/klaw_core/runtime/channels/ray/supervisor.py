# SPDX-License-Identifier: Apache-2.0
"""One actor that makes the channels of a namespace, keeps their handles, and takes checkpoints, contents included.

supervisor = get_channel_supervisor()
ray.get(supervisor.methods.create_channel.remote("jobs", capacity=100))
state = ray.get(supervisor.methods.get_checkpoint.remote("jobs"))
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any, Final

import ray
import ray.exceptions
import sunray

from klaw_core.runtime._backends._ray_connect import ensure_ray
from klaw_core.runtime.channels.ray.constants import DEFAULT_RAY_NAMESPACE
from klaw_core.runtime.channels.ray.factory import (
    _actor_name,
    _find,
    delete_ray_channel,
    ray_broadcast_channel,
    ray_channel,
    ray_watch_channel,
)
from klaw_core.runtime.channels.stats import ChannelCheckpoint
from klaw_core.runtime.errors import ChannelBackendErrorException

__all__ = ["ChannelSupervisor", "get_channel_supervisor"]

SUPERVISOR_NAME: Final = "klaw_channel_supervisor"


class ChannelSupervisor(sunray.ActorMixin, max_restarts=-1, max_task_retries=-1, max_concurrency=100):  # type: ignore[call-arg]
    """Makes channels and looks after them. Its methods answer with a status: "ok", "exists", "missing", "full"."""

    def __init__(self, namespace: str = DEFAULT_RAY_NAMESPACE) -> None:
        self._namespace = namespace
        self._channels: dict[str, Any] = {}  # names: handles
        self._checkpoints: dict[str, dict[str, Any]] = {}

    @sunray.remote_method
    async def create_channel(
        self,
        name: str,
        capacity: int = 10000,
        unbounded: bool = False,
        channel_type: str = "channel",
        options: dict[str, Any] | None = None,
    ) -> str:
        """channel_type: "channel", "broadcast" or "watch". options: of the factory. "exists": it was there already, or
        there is one of that name that differs. ValueError for another type."""
        if name in self._channels and await self._alive(name):
            return "exists"
        kwargs = {"name": name, "namespace": self._namespace, **(options or {})}
        try:
            if channel_type == "channel":
                tx, _rx = await ray_channel(capacity, unbounded=unbounded, **kwargs)
            elif channel_type == "broadcast":
                tx, _rx = await ray_broadcast_channel(capacity, **kwargs)
            elif channel_type == "watch":
                tx, _rx = await ray_watch_channel(**kwargs)
            else:
                raise ValueError(f"channel_type has to be 'channel', 'broadcast' or 'watch', not {channel_type!r}")
        except ChannelBackendErrorException as error:
            if "exists" in error.message:
                return "exists"
            raise
        made = tx._made
        tx._made = _rx._made = False  # these two are never used, and close nothing
        self._channels[name] = tx.actor
        return "ok" if made else "exists"

    async def _alive(self, name: str) -> bool:
        try:
            await self._channels[name].get_metadata.remote()
        except ray.exceptions.RayActorError:
            del self._channels[name]
            return False
        return True

    async def _handle(self, name: str) -> Any:
        """Of a channel of this namespace, made here or not (also after a restart of this actor); None: none."""
        if name in self._channels and await self._alive(name):
            return self._channels[name]
        found = await asyncio.to_thread(_find, _actor_name(name), self._namespace)
        if found is None:
            return None
        self._channels[name] = found[0]
        return found[0]

    @sunray.remote_method
    async def delete_channel(self, name: str) -> str:
        """Ends it: "ok", "missing"."""
        self._channels.pop(name, None)
        self._checkpoints.pop(name, None)
        there = await asyncio.to_thread(delete_ray_channel, name, namespace=self._namespace)
        return "ok" if there else "missing"

    @sunray.remote_method
    def list_channels(self) -> list[str]:
        """The names of the channels it knows, sorted."""
        return sorted(self._channels)

    @sunray.remote_method
    async def get_checkpoint(self, name: str) -> dict[str, Any] | None:
        """The channel's counters (fields of ChannelCheckpoint) and "items": what waits in it, encoded, oldest first
        (not what is with receivers and not yet acknowledged).
        Kept here, too. Of a channel that has died: the last one that was taken. None: never seen."""
        handle = await self._handle(name)
        if handle is not None:
            state, items = await asyncio.gather(handle.get_checkpoint_state.remote(), handle.get_contents.remote())
            self._checkpoints[name] = {**asdict(state), "items": items}
        return self._checkpoints.get(name)

    @sunray.remote_method
    async def restore_from_checkpoint(self, name: str, state_dict: dict[str, Any] | None = None) -> str:
        """Puts a checkpoint (None: the last one taken here) into the channel: its counters go on from there, its items
        are appended, all or none, closed sides are closed after that. "ok", "missing", "full", "closed"."""
        handle = await self._handle(name)
        state_dict = state_dict if state_dict is not None else self._checkpoints.get(name)
        if handle is None or state_dict is None:
            return "missing"
        fields = {key: value for key, value in state_dict.items() if key != "items"}
        status: str = await handle.put_contents.remote(state_dict.get("items") or [])
        if status != "ok":
            return status
        await handle.apply_checkpoint_state.remote(ChannelCheckpoint(**fields))
        self._checkpoints[name] = state_dict
        return "ok"


def get_channel_supervisor(
    namespace: str | None = None, name: str = SUPERVISOR_NAME
) -> sunray.Actor[ChannelSupervisor]:
    """The supervisor of a namespace, made on first use; one in the cluster. BackendErrorException: no Ray."""
    ensure_ray()
    space = namespace or DEFAULT_RAY_NAMESPACE
    actor: sunray.Actor[ChannelSupervisor] = (
        ChannelSupervisor.new_actor()
        .options(name=name, namespace=space, lifetime="detached", get_if_exists=True, num_cpus=0)
        .remote(space)
    )
    return actor
