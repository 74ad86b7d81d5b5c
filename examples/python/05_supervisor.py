# SPDX-License-Identifier: Apache-2.0
"""Supervision: an actor that fails is started again, and the messages in its mailbox survive."""

import asyncio

from klaw_core import Ok
from klaw_core.runtime import ActorRef, Supervisor

restarts: list[str] = []


class Divider:
    async def handle(self, msg: int) -> float:
        return 60 / msg


def on_restart(ref: ActorRef[int, float], error: BaseException | None, attempt: int) -> None:
    restarts.append(f"{ref.name}: {error!r}, restart {attempt}")


async def main() -> None:
    async with Supervisor("one_for_one", max_restarts=3, restart_window=5.0, on_restart=on_restart) as sup:
        divider = await sup.start_child(Divider, name="divider")
        answers = await asyncio.gather(*(divider.ask(n) for n in (1, 0, 2)))
        print(answers, restarts)
        assert answers[0] == Ok(60.0) and answers[2] == Ok(30.0)
        assert isinstance(answers[1].unwrap_err(), ZeroDivisionError)
        assert len(restarts) == 1 and not sup.gave_up


asyncio.run(main())
