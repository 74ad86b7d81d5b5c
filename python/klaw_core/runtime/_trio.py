# SPDX-License-Identifier: Apache-2.0
"""How an operation waits under trio: the extension delegates to these coroutines."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from klaw_core._klaw import Inbox

if TYPE_CHECKING:
    from klaw_core._klaw import Operation

_inbox: trio.lowlevel.RunVar[Inbox] = trio.lowlevel.RunVar("klaw_inbox")


async def _deliver(inbox: Inbox) -> None:
    """Pumps the inbox of this run for as long as the run lasts."""
    while True:
        await trio.lowlevel.wait_readable(inbox.fileno())
        inbox.pump()


def _inbox_of_run() -> Inbox:
    try:
        return _inbox.get()
    except LookupError:
        inbox = Inbox()
        _inbox.set(inbox)
        trio.lowlevel.spawn_system_task(_deliver, inbox)
        return inbox


async def park(operation: Operation[Any]) -> bool:
    """Waits until the operation is granted: True; False: its time has passed."""
    task = trio.lowlevel.current_task()
    if not operation._start(_inbox_of_run(), partial(trio.lowlevel.reschedule, task)):
        return True

    def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
        operation._abandon()
        return trio.lowlevel.Abort.SUCCEEDED

    timeout = operation._timeout
    with trio.move_on_after(timeout if timeout >= 0 else float("inf")):
        await trio.lowlevel.wait_task_rescheduled(abort)
        return True
    return False


async def checkpoint(_operation: Operation[Any]) -> None:
    """One pass through the loop."""
    await trio.lowlevel.checkpoint()
