# SPDX-License-Identifier: Apache-2.0
"""The channel's actor, method by method, through sunray's typed handle. A cluster is needed, senders and receivers are
not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'klaw-core[ray]'")
sunray = pytest.importorskip("sunray")

from klaw_core.runtime.channels.ray.actor import (  # noqa: E402
    RayChannelActor,
    _ChannelActorState,
    _TypeValidator,
)
from klaw_core.runtime.channels.ray.constants import BatchResult, ReaderInfo, SingleResult  # noqa: E402
from klaw_core.runtime.channels.stats import ChannelCheckpoint, ChannelStats  # noqa: E402

from .support import Point  # noqa: E402

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_init")]


def make() -> Any:
    """An actor for integers, ten of them."""
    return RayChannelActor.new_actor().options(num_cpus=0).remote(capacity=10, value_type=int)


@pytest.fixture(scope="module")
def shared(ray_cluster: Any) -> Any:
    """One for the tests that close nothing: each actor is a process."""
    return make()


@pytest.fixture
def actor(shared: Any) -> Iterator[Any]:
    """It, empty."""
    yield shared
    while ray.get(shared.methods.get_batch.remote(100, timeout=0.0)).status == "ok":
        pass


@pytest.fixture
def own() -> Iterator[Any]:
    """One of the test's own."""
    made = make()
    yield made
    ray.kill(made._actor_handle)


def test_new_actor_gives_a_typed_handle_and_takes_options() -> None:
    made = RayChannelActor.new_actor().options(num_cpus=0, name="test-channel-actor").remote(capacity=10)
    assert isinstance(made, sunray.Actor)
    assert ray.get(made.methods.put_nowait.remote(42)) == "ok"
    assert ray.get_actor("test-channel-actor") is not None
    ray.kill(made._actor_handle)


def test_one_item_in_one_item_out(actor: Any) -> None:
    assert ray.get(actor.methods.put_nowait.remote(42)) == "ok"
    assert ray.get(actor.methods.get_nowait.remote()) == SingleResult("ok", 42)
    assert ray.get(actor.methods.get_nowait.remote()) == SingleResult("empty")
    assert ray.get(actor.methods.put.remote(43, timeout=1.0)) == "ok"
    status, value = ray.get(actor.methods.get.remote(timeout=1.0))
    assert (status, value) == ("ok", 43)
    assert ray.get(actor.methods.get.remote(timeout=0.01)).status == "empty"


def test_a_value_of_another_type_is_refused_and_the_channel_goes_on(actor: Any) -> None:
    assert ray.get(actor.methods.put_nowait.remote("not an int")) == "type_error"
    assert ray.get(actor.methods.put.remote(1.5)) == "type_error"
    assert ray.get(actor.methods.put_batch.remote((1, "x"))) == "type_error"
    assert ray.get(actor.methods.put_nowait.remote(True)) == "type_error"
    assert ray.get(actor.methods.get_nowait.remote()).status == "empty"
    assert ray.get(actor.methods.put_nowait.remote(1)) == "ok"


def test_batches_are_whole_and_in_order(actor: Any) -> None:
    assert ray.get(actor.methods.put_batch.remote((1, 2, 3, 4, 5))) == "ok"
    assert ray.get(actor.methods.get_batch.remote(max_items=3)) == BatchResult("ok", (1, 2, 3))
    assert ray.get(actor.methods.put_nowait_batch.remote([6, 7])) == "ok"
    assert ray.get(actor.methods.get_batch.remote(10)).items == (4, 5, 6, 7)
    assert ray.get(actor.methods.get_batch.remote(10, timeout=0.01)) == BatchResult("empty")
    assert ray.get(actor.methods.put_nowait_batch.remote(range(11))) == "full"
    assert ray.get(actor.methods.put_batch.remote(range(11), timeout=0.01)) == "full"
    assert ray.get(actor.methods.put_batch.remote(())) == "ok"
    assert ray.get(actor.methods.get_nowait.remote()).status == "empty"


def test_full_is_told_and_leaves_nothing_behind(actor: Any) -> None:
    assert ray.get(actor.methods.put_batch.remote(range(10))) == "ok"
    assert ray.get(actor.methods.put_nowait.remote(10)) == "full"
    assert ray.get(actor.methods.put.remote(10, timeout=0.01)) == "full"
    assert ray.get(actor.methods.put_batch.remote((10, 11), timeout=0.01)) == "full"
    assert ray.get(actor.methods.get_batch.remote(20)).items == tuple(range(10))


def test_registrations_are_counted_and_the_last_sender_closes(own: Any) -> None:
    assert ray.get(own.methods.register_sender.remote()) == "ok"
    assert ray.get(own.methods.register_sender.remote()) == "ok"
    assert ray.get(own.methods.register_receiver.remote("reader-1", "node-1")) == "ok"
    assert ray.get(own.methods.register_receiver.remote("reader-2", "node-1")) == "ok"
    assert ray.get(own.methods.register_receiver.remote("reader-2", "node-1")) == "exists"
    stats = ray.get(own.methods.get_stats.remote())
    assert (stats.sender_count, stats.receiver_count) == (2, 2)
    assert stats.backend_extras["per_node_receivers"] == {"node-1": 2}

    assert ray.get(own.methods.put_nowait.remote(1)) == "ok"
    assert ray.get(own.methods.deregister_sender.remote()) == "ok"
    assert ray.get(own.methods.put_nowait.remote(2)) == "ok"
    assert ray.get(own.methods.deregister_sender.remote()) == "ok"
    assert ray.get(own.methods.put_nowait.remote(3)) == "closed"
    assert ray.get(own.methods.register_sender.remote()) == "closed"
    assert ray.get(own.methods.get_batch.remote(9)).items == (1, 2)
    assert ray.get(own.methods.get.remote()).status == "closed"
    assert ray.get(own.methods.get_batch.remote(9)).status == "closed"

    assert not ray.get(own.methods.is_closed.remote())
    for reader in ("reader-1", "reader-2", "nobody"):
        assert ray.get(own.methods.deregister_receiver.remote(reader)) == "ok"
    assert ray.get(own.methods.is_closed.remote())


def test_each_readers_items_are_counted(own: Any) -> None:
    ray.get(own.methods.register_receiver.remote("a", "node-1"))
    ray.get(own.methods.register_receiver.remote("b", "node-2"))
    ray.get(own.methods.put_batch.remote(range(5)))
    ray.get(own.methods.get_batch.remote(3, reader_id="a"))
    ray.get(own.methods.get.remote(reader_id="b"))
    stats = ray.get(own.methods.get_reader_stats.remote())
    assert {name: (each["node_id"], each["total_received"]) for name, each in stats.items()} == {
        "a": ("node-1", 3),
        "b": ("node-2", 1),
    }
    assert all(each["registered_at"] <= each["last_seen_at"] for each in stats.values())
    infos = ray.get(own.methods.get_readers.remote())
    assert all(type(info) is ReaderInfo for info in infos)


def test_metadata_stats_and_capacity(actor: Any) -> None:
    meta = ray.get(actor.methods.get_metadata.remote())
    assert (meta["type"], meta["capacity"], meta["unbounded"]) == ("channel", 10, False)
    assert ray.get(actor.methods.get_capacity.remote()) == 10
    before = ray.get(actor.methods.get_stats.remote())
    ray.get(actor.methods.put_batch.remote(range(4)))
    ray.get(actor.methods.get_batch.remote(3))
    stats = ray.get(actor.methods.get_stats.remote())
    assert type(stats) is ChannelStats
    assert (stats.queue_size, stats.capacity) == (1, 10)
    assert stats.high_watermark >= 4
    assert (stats.total_sent - before.total_sent, stats.total_received - before.total_received) == (4, 3)


def test_an_unbounded_one_takes_what_comes() -> None:
    made = RayChannelActor.new_actor().options(num_cpus=0).remote(unbounded=True)
    assert ray.get([made.methods.put_nowait.remote(i) for i in range(100)]) == ["ok"] * 100
    assert ray.get(made.methods.get_capacity.remote()) is None
    assert ray.get(made.methods.get_metadata.remote())["unbounded"]
    # Any value, as it was: what MessagePack would change is pickled.
    for value in ((1, 2), {3}, Point(1), {"a": [b"x", None]}):
        ray.get(made.methods.put_nowait.remote(value))
    assert ray.get(made.methods.get_batch.remote(200)).items[-4:] == ((1, 2), {3}, Point(1), {"a": [b"x", None]})
    ray.kill(made._actor_handle)


def test_a_checkpoint_carries_counters_and_closed_sides(own: Any) -> None:
    ray.get(own.methods.put_batch.remote(range(4)))
    ray.get(own.methods.get_batch.remote(3))
    state = ray.get(own.methods.get_checkpoint_state.remote())
    assert type(state) is ChannelCheckpoint
    assert (state.total_sent, state.total_received, state.senders_closed) == (4, 3, False)
    other = ChannelCheckpoint(1000.0, 40, 30, senders_closed=True, receivers_closed=False)
    assert ray.get(own.methods.apply_checkpoint_state.remote(other)) == "ok"
    assert ray.get(own.methods.get_checkpoint_state.remote()) == other
    assert ray.get(own.methods.put_nowait.remote(1)) == "closed"


def test_the_type_validator_alone() -> None:
    assert _TypeValidator(None).validate(object())
    whole = _TypeValidator(list[int])
    assert whole.validate([1, 2])
    assert not whole.validate([1, "x"])
    assert whole._check is not None
    assert _TypeValidator(Point).validate(Point(1))
    assert not _TypeValidator(Point).validate(1)


def test_the_actors_state_knows_when_it_was_made() -> None:
    state = _ChannelActorState(capacity=1, unbounded=False)
    assert state.created() > 1_700_000_000
    assert (state.sender_count, state.total_sent, state.senders_closed) == (0, 0, False)
