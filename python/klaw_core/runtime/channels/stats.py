# SPDX-License-Identifier: Apache-2.0
"""What a channel counts, the same on every backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ChannelCheckpoint", "ChannelStats"]


@dataclass(slots=True)
class ChannelStats:
    """A channel's counters, taken at one moment. Counts are items and endpoints, times seconds since the epoch.

    >>> from klaw_core._klaw import channel
    >>> tx, rx = channel(8)
    >>> tx.send_sync("x")
    >>> rx.stats().queue_size, rx.stats().capacity
    (1, 8)
    """

    sender_count: int
    receiver_count: int
    queue_size: int
    #: items the channel holds; None: any number; 0: a rendezvous
    capacity: int | None
    senders_closed: bool
    receivers_closed: bool
    created_at: float
    high_watermark: int
    total_sent: int
    total_received: int
    #: what only this backend knows; local: name, kind, waiting_senders, waiting_receivers
    backend_extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class ChannelCheckpoint:
    """What survives a restart of a channel's owner. created_at: seconds since 1970.

    >>> ChannelCheckpoint(0.0, total_sent=3, total_received=1, senders_closed=False, receivers_closed=False).total_sent
    3
    """

    created_at: float
    total_sent: int
    total_received: int
    senders_closed: bool
    receivers_closed: bool
