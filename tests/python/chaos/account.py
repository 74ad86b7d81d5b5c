# SPDX-License-Identifier: Apache-2.0
"""The account of a chaos run: what became of every item, from the logs that the processes wrote.

A log is a file of lines, each written by one write() before the process goes on, so that SIGKILL takes none of them:

    S channel lane n      the send of item n of that lane begins (a lane sends one item, or batch, after the other)
    C channel lane n time it is confirmed (time.monotonic(), one clock for the whole machine)
    U channel lane n      it is uncertain, says an error
    N channel lane n      it was not sent, says an error
    R channel lane n mark a receiver got it; mark 1: redelivered
    T channel count       a receiver was told that at least so many items were lost

The checker is that of a total queue: each item that was confirmed is received, none that was not sent; an item that
comes again carries its mark; what one receiver gets of one lane without mark is in order. It knows nothing of klaw.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Account", "Faults", "Mode", "account", "read_log", "table"]

Item = tuple[str, int]  # lane, number


@dataclass(frozen=True)
class Mode:
    """What a channel promises. before: at most once, a dead receiver's items may be gone. durable: what was confirmed
    survives its sender and the actor."""

    before: bool = False
    durable: bool = False


@dataclass
class Faults:
    """What was done: when each lane's process was killed or stopped past its lease, when the channel's actor ended,
    the lanes and receivers being named by their logs. Times as of time.monotonic()."""

    #: logs of senders, and when the channel lost what it could resend: killed: infinity; stopped: when it went on
    gone_lanes: dict[str, float] = field(default_factory=dict)
    gone_receivers: set[str] = field(default_factory=set)
    actor_ends: list[float] = field(default_factory=list)


@dataclass
class Account:
    """Counts. lost, doubled, unexpected, false_no, disordered, left: a promise is broken where it is not 0."""

    sent: int = 0  # begun
    confirmed: int = 0
    uncertain: int = 0  # begun, and neither confirmed nor refused
    received: int = 0  # different items
    redelivered: int = 0  # deliveries with the mark
    recovered: int = 0  # uncertain items that came
    doubled: int = 0  # deliveries beyond the first without mark
    lost: int = 0  # confirmed, never received, and no promise allows it
    gone: int = 0  # confirmed, never received, as the mode allows: see account
    told: int = 0  # losses that receivers were told of, the largest number
    unexpected: int = 0  # received, never sent
    false_no: int = 0  # received, though its send said that it was not sent
    disordered: int = 0  # unmarked deliveries of a lane to a receiver behind a later item
    left: int = 0  # still in the queue when nothing came any more: whoever runs the chaos asks the channel
    examples: list[str] = field(default_factory=list)

    @property
    def broken(self) -> bool:
        """Whether a promise is broken."""
        return bool(self.lost or self.doubled or self.unexpected or self.false_no or self.disordered or self.left)


def read_log(path: Path) -> Iterator[list[str]]:
    """The lines of a log; a last line without its end was never written."""
    with path.open(encoding="ascii") as file:
        for line in file:
            if line.endswith("\n"):
                yield line.split()


def account(logs: Mapping[str, Iterable[list[str]]], channel: str, mode: Mode, faults: Faults) -> Account:
    """The account of one channel. logs: by name, the lines of each process."""
    result = Account()
    begun: dict[Item, str] = {}  # and who sends it
    confirmed: dict[Item, float] = {}
    refused: set[Item] = set()
    plain: dict[Item, int] = {}  # deliveries without mark
    marked: dict[Item, int] = {}
    for name, lines in logs.items():
        last: dict[str, int] = {}  # lane: the newest item this receiver got without mark
        for what, where, *rest in lines:
            if where != channel:
                continue
            if what == "T":
                result.told = max(result.told, int(rest[0]))
                continue
            item = (rest[0], int(rest[1]))
            if what == "S":
                begun[item] = name
            elif what == "C":
                confirmed[item] = float(rest[2])
            elif what == "N":
                refused.add(item)
            elif what == "R" and rest[2] == "1":
                marked[item] = marked.get(item, 0) + 1
            elif what == "R":
                plain[item] = plain.get(item, 0) + 1
                if item[1] <= last.get(item[0], -1):
                    result.disordered += plain[item] == 1
                    result.examples.append(f"{name}: {item} behind {last[item[0]]}")
                last[item[0]] = item[1]
    got = plain.keys() | marked.keys()
    open_ends = begun.keys() - confirmed.keys() - refused
    result.sent, result.confirmed, result.uncertain = len(begun), len(confirmed), len(open_ends)
    result.received, result.recovered = len(got), len(got & open_ends)
    result.redelivered = sum(marked.values())
    result.doubled = sum(n - 1 for n in plain.values())
    result.examples += [f"{item} came {n} times without mark" for item, n in plain.items() if n > 1]
    result.unexpected = len(got - begun.keys())
    result.false_no = len(got & refused)
    missing = [item for item in confirmed if item not in got]
    last_end = max(faults.actor_ends, default=0.0)
    for item in missing:
        if mode.before and faults.gone_receivers:
            result.gone += 1  # it may have been handed out, and counts as received
        elif not mode.durable and confirmed[item] < min(last_end, faults.gone_lanes.get(begun[item], 0.0)):
            result.gone += 1  # only the actor had it, its sender being gone
        else:
            result.lost += 1
            result.examples.append(f"{item} of {begun[item]} is lost")
    result.examples += [f"{item} was never sent" for item in got - begun.keys()]
    result.examples += [f"{item} was refused and came" for item in got & refused]
    return result


_COLUMNS = (
    ("confirmed", "confirmed"),
    ("uncertain", "uncertain"),
    ("received", "received"),
    ("redelivered", "redelivered"),
    ("recovered", "recovered"),
    ("gone", "gone, as allowed"),
    ("lost", "lost"),
    ("left", "left over"),
    ("doubled", "doubled unmarked"),
    ("disordered", "out of order"),
    ("unexpected", "unexpected"),
    ("false_no", "refused, yet there"),
)


def table(accounts: Mapping[str, Account]) -> str:
    """The accounts as a table of Markdown."""
    lines = ["| channel | " + " | ".join(title for _, title in _COLUMNS) + " |"]
    lines.append("|---|" + "--:|" * len(_COLUMNS))
    for name, each in accounts.items():
        lines.append(f"| {name} | " + " | ".join(f"{getattr(each, key):,}" for key, _ in _COLUMNS) + " |")
    return "\n".join(lines) + "\n"
