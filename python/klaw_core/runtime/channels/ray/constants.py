# SPDX-License-Identifier: Apache-2.0
"""What both ends of a Ray channel agree on: names, limits, and what the actor's one-item methods return.

>>> status, value = SingleResult("ok", 42)
>>> status, value
('ok', 42)
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final, Generic, Literal, TypeVar

import msgspec

from klaw_core.runtime._backends._ray_connect import default_namespace

__all__ = [
    "ACK_MODES",
    "ACTOR_PREFIX",
    "BROADCAST",
    "DEFAULT_RAY_NAMESPACE",
    "KINDS",
    "QUEUE",
    "WATCH",
    "BatchResult",
    "ReaderInfo",
    "SingleResult",
    "Status",
]

T = TypeVar("T")

#: Where channels are named when nobody says: KLAW_RAY_NAMESPACE, else "klaw".
DEFAULT_RAY_NAMESPACE: Final = default_namespace()
#: The actor of the channel "jobs" is named "channel_jobs".
ACTOR_PREFIX: Final = "channel_"

#: Numbers of klaw/broker.h.
QUEUE: Final = 0
BROADCAST: Final = 1
WATCH: Final = 2
#: What get_metadata calls them.
KINDS: Final = ("channel", "broadcast", "watch")
#: When an item counts as received; the place is the number of klaw/broker.h.
ACK_MODES: Final = ("next", "explicit", "before")

#: What the actor's methods answer.
Status = Literal["ok", "full", "empty", "closed", "type_error", "lagged", "missing", "exists"]


class ReaderInfo(msgspec.Struct, frozen=True):
    """One registered receiver.

    registered_at, last_seen_at: UTC. total_received: items it has acknowledged.
    """

    reader_id: str
    node_id: str
    registered_at: datetime
    last_seen_at: datetime
    total_received: int = 0


class SingleResult(msgspec.Struct, Generic[T], frozen=True):
    """What `get` answers: a status, and with "ok" the item. It unpacks as (status, value).

    missed: with "lagged", how many items of a broadcast went by.
    """

    status: str
    value: T | None = None
    missed: int = 0

    def __iter__(self) -> Iterator[Any]:
        return iter((self.status, self.value))


class BatchResult(msgspec.Struct, Generic[T], frozen=True):
    """What `get_batch` answers: a status, and with "ok" at least one item. It unpacks as (status, items).

    >>> BatchResult("empty").items
    ()
    """

    status: str
    items: tuple[T, ...] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter((self.status, self.items))
