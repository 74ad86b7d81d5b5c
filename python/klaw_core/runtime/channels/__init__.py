# SPDX-License-Identifier: Apache-2.0
"""Channels: many-to-many, oneshot, broadcast, watch, and select over them."""

from __future__ import annotations

from klaw_core.runtime.channels.broadcast import BroadcastReceiver, BroadcastSender, broadcast
from klaw_core.runtime.channels.factory import channel, delete_channel, get_channel, list_channels
from klaw_core.runtime.channels.local import LocalReceiver, LocalSender
from klaw_core.runtime.channels.native import NativeReceiver, NativeSender, from_capsule, native_channel
from klaw_core.runtime.channels.oneshot import OneshotReceiver, OneshotSender, oneshot
from klaw_core.runtime.channels.protocols import Receiver, ReferenceReceiver, ReferenceSender, Sender
from klaw_core.runtime.channels.select import select
from klaw_core.runtime.channels.stats import ChannelCheckpoint, ChannelStats
from klaw_core.runtime.channels.watch import WatchReceiver, WatchSender, watch

__all__ = [
    "BroadcastReceiver",
    "BroadcastSender",
    "ChannelCheckpoint",
    "ChannelStats",
    "LocalReceiver",
    "LocalSender",
    "NativeReceiver",
    "NativeSender",
    "OneshotReceiver",
    "OneshotSender",
    "Receiver",
    "ReferenceReceiver",
    "ReferenceSender",
    "Sender",
    "WatchReceiver",
    "WatchSender",
    "broadcast",
    "channel",
    "delete_channel",
    "from_capsule",
    "get_channel",
    "list_channels",
    "native_channel",
    "oneshot",
    "select",
    "watch",
]
