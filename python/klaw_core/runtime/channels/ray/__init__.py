# SPDX-License-Identifier: Apache-2.0
"""Channels whose queue is an actor of a Ray cluster. Importing this imports Ray."""

from __future__ import annotations

from klaw_core.runtime.channels.ray._link import detach_all
from klaw_core.runtime.channels.ray.actor import RayChannelActor
from klaw_core.runtime.channels.ray.broadcast import RayBroadcastActor, RayBroadcastReceiver, RayBroadcastSender
from klaw_core.runtime.channels.ray.constants import DEFAULT_RAY_NAMESPACE, BatchResult, ReaderInfo, SingleResult
from klaw_core.runtime.channels.ray.core import Item, RayReceiver, RaySender
from klaw_core.runtime.channels.ray.factory import (
    delete_ray_channel,
    get_ray_channel,
    list_ray_channels,
    ray_broadcast_channel,
    ray_channel,
    ray_reference_channel,
    ray_watch_channel,
)
from klaw_core.runtime.channels.ray.pools import ChannelReader, ReaderPoolController
from klaw_core.runtime.channels.ray.reference import RayReferenceReceiver, RayReferenceSender
from klaw_core.runtime.channels.ray.supervisor import ChannelSupervisor, get_channel_supervisor
from klaw_core.runtime.channels.ray.watch import RayWatchActor, RayWatchReceiver, RayWatchSender

__all__ = [
    "DEFAULT_RAY_NAMESPACE",
    "BatchResult",
    "ChannelReader",
    "ChannelSupervisor",
    "Item",
    "RayBroadcastActor",
    "RayBroadcastReceiver",
    "RayBroadcastSender",
    "RayChannelActor",
    "RayReceiver",
    "RayReferenceReceiver",
    "RayReferenceSender",
    "RaySender",
    "RayWatchActor",
    "RayWatchReceiver",
    "RayWatchSender",
    "ReaderInfo",
    "ReaderPoolController",
    "SingleResult",
    "delete_ray_channel",
    "detach_all",
    "get_channel_supervisor",
    "get_ray_channel",
    "list_ray_channels",
    "ray_broadcast_channel",
    "ray_channel",
    "ray_reference_channel",
    "ray_watch_channel",
]
