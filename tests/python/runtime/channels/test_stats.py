# SPDX-License-Identifier: Apache-2.0
"""What a channel counts."""

from __future__ import annotations

import dataclasses
import time

import pytest
from klaw_core.runtime import ChannelCheckpoint, ChannelStats, channel


@pytest.mark.anyio
async def test_counters_follow_what_happens() -> None:
    before = time.time()
    tx, rx = await channel(8, name="counted")
    other = tx.clone()
    await tx.send_batch([1, 2, 3])
    await rx.recv()
    stats = rx.stats()
    assert (stats.sender_count, stats.receiver_count, stats.queue_size, stats.capacity) == (2, 1, 2, 8)
    assert (stats.high_watermark, stats.total_sent, stats.total_received) == (3, 3, 1)
    assert before - 1 <= stats.created_at <= time.time() + 1
    assert not stats.senders_closed and not stats.receivers_closed
    assert stats.backend_extras["name"] == "counted" and stats.backend_extras["kind"] == "mpmc"
    await tx.close()
    await other.close()
    assert rx.stats().senders_closed and rx.stats().sender_count == 0
    await rx.close()
    assert rx.stats().receivers_closed


def test_fields_are_those_of_the_documents() -> None:
    assert [f.name for f in dataclasses.fields(ChannelStats)] == [
        "sender_count",
        "receiver_count",
        "queue_size",
        "capacity",
        "senders_closed",
        "receivers_closed",
        "created_at",
        "high_watermark",
        "total_sent",
        "total_received",
        "backend_extras",
    ]
    assert [f.name for f in dataclasses.fields(ChannelCheckpoint)] == [
        "created_at",
        "total_sent",
        "total_received",
        "senders_closed",
        "receivers_closed",
    ]
