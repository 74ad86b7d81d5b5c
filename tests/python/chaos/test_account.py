# SPDX-License-Identifier: Apache-2.0
"""The checker finds each violation in a made-up log, and none in a log without one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from .account import Account, Faults, Mode, account, read_log, table

NEXT, BEFORE, DURABLE = Mode(), Mode(before=True), Mode(durable=True)


def check(text: str, mode: Mode = NEXT, faults: Faults | None = None) -> Account:
    """An account of the channel q. A line: the log's name, then the log's line."""
    logs: dict[str, list[list[str]]] = {}
    for line in filter(None, text.splitlines()):
        name, *words = line.split()
        logs.setdefault(name, []).append(words)
    return account(logs, "q", mode, faults or Faults())


SENT = """
s S q a 0
s C q a 0 1.0
s S q a 1
s C q a 1 2.0
"""
GOT = """
r R q a 0 0
r R q a 1 0
"""


def test_a_run_without_violation() -> None:
    result = check(SENT + GOT)
    assert (result.sent, result.confirmed, result.received) == (2, 2, 2)
    assert not result.broken
    assert not result.examples


def test_a_lost_item() -> None:
    result = check(SENT + "r R q a 0 0")
    assert (result.lost, result.broken) == (1, True)
    assert "('a', 1)" in result.examples[0]


def test_a_double_without_mark() -> None:
    result = check(SENT + GOT + "r2 R q a 1 0")
    assert (result.doubled, result.broken) == (1, True)


def test_a_double_with_its_mark_is_none() -> None:
    result = check(SENT + GOT + "r2 R q a 1 1")
    assert (result.doubled, result.redelivered, result.broken) == (0, 1, False)
    assert not check(SENT + GOT + "r R q a 0 1").broken  # out of order, but marked
    assert not check(SENT + "r R q a 0 0\nr2 R q a 1 1").broken  # the first delivery may have been nobody's


def test_an_item_that_was_never_sent() -> None:
    result = check(SENT + GOT + "r R q a 2 0")
    assert (result.unexpected, result.broken) == (1, True)


def test_an_item_that_was_refused() -> None:
    result = check(SENT + GOT + "s S q a 2\ns N q a 2\nr R q a 2 0")
    assert (result.false_no, result.broken) == (1, True)
    assert not check(SENT + GOT + "s S q a 2\ns N q a 2").broken


def test_an_uncertain_item_may_come_or_not() -> None:
    result = check(SENT + GOT + "s S q a 2\ns U q a 2\ns S q b 0\nr R q b 0 0")
    assert (result.uncertain, result.recovered, result.broken) == (2, 1, False)


def test_a_lane_out_of_order() -> None:
    result = check(SENT + "r R q a 1 0\nr R q a 0 0")
    assert (result.disordered, result.broken) == (1, True)
    assert not check(SENT + "r R q a 1 0\nr2 R q a 0 0").broken  # two receivers: nobody can tell
    assert not check(SENT + "s S q b 0\nr R q a 0 0\nr R q b 0 0\nr R q a 1 0").broken


def test_an_item_that_nobody_is_given() -> None:
    result = check(SENT + GOT)
    result.left = 1
    assert result.broken


def test_other_channels_are_left_alone() -> None:
    assert not check(SENT + GOT + "r R p a 9 0").broken


def test_a_dead_receivers_items_may_be_gone_only_where_that_is_promised() -> None:
    text = SENT + "r R q a 0 0"
    dead = Faults(gone_receivers={"r"})
    assert check(text, NEXT, dead).lost == 1
    assert check(text, DURABLE, dead).lost == 1
    result = check(text, BEFORE, dead)
    assert (result.gone, result.lost) == (1, 0)
    assert check(text, BEFORE).lost == 1


@pytest.mark.parametrize(
    ("gone", "ends", "durable", "lost"),
    [
        (math.inf, [3.0], False, 0),  # confirmed at 2.0, its sender is gone, the actor ended later
        (math.inf, [1.5], False, 1),  # the actor that had it never ended
        (0.0, [3.0], False, 1),  # its sender is there and sends again
        (math.inf, [], False, 1),
        (2.5, [3.0], False, 0),  # its sender was stopped after that
        (1.5, [3.0], False, 1),  # it was stopped before, and had gone on
        (math.inf, [3.0], True, 1),  # it was on disk
    ],
)
def test_an_actors_end_excuses_what_only_it_had(gone: float, ends: list[float], durable: bool, lost: int) -> None:
    faults = Faults(gone_lanes={"s": gone} if gone else {}, actor_ends=ends)
    result = check(SENT + "r R q a 0 0", Mode(durable=durable), faults)
    assert (result.lost, result.gone) == (lost, 1 - lost)


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("S q a 0\nC q a 0 1.", encoding="ascii")
    assert list(read_log(path)) == [["S", "q", "a", "0"]]


def test_the_table_names_every_channel() -> None:
    text = table({"default": Account(sent=1), "durable": Account(lost=7)})
    assert text.splitlines()[0].startswith("| channel |")
    assert "| durable |" in text
    assert " 7 |" in text
