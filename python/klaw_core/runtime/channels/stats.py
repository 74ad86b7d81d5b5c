# SPDX-License-Identifier: Apache-2.0
"""What a channel counts, the same on every backend."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["ChannelCheckpoint", "ChannelStats"]


@dataclass(frozen=True, slots=True)
class ChannelStats:
    """A channel's counters, taken at one moment. Times are seconds since the epoch."""

    sender_count: int
    receiver_count: int
    queue_size: int
    #: items it holds; -1: rendezvous, -2: any number
    capacity: int
    senders_closed: bool
    receivers_closed: bool
    created_at: float
    high_watermark: int
    total_sent: int
    total_received: int
    #: what only this backend knows
    backend_extras: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChannelCheckpoint:
    """What survives a restart of a channel's owner."""

    created_at: float
    total_sent: int
    total_received: int
    senders_closed: bool
    receivers_closed: bool
