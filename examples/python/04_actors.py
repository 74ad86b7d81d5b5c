# SPDX-License-Identifier: Apache-2.0
"""Actors: a state of their own, one message at a time, answers as values."""

import asyncio

from klaw_core import Err, Ok
from klaw_core.runtime import ActorStopped, get_actor, spawn_actor


class Account:
    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.balance = 0

    async def handle(self, amount: int) -> Ok[int] | Err[str]:
        if self.balance + amount < 0:
            return Err("not enough")
        self.balance += amount
        return Ok(self.balance)


async def main() -> None:
    account = await spawn_actor(Account, "Ada", name="account")
    await asyncio.gather(*(account.ask(1) for _ in range(100)))
    assert await account.ask(-101) == Err("not enough")

    match get_actor("account"):
        case Ok(found):
            print("balance:", await found.ask(0))
            assert await found.ask(0) == Ok(100)
        case Err(error):
            raise AssertionError(error)

    await account.stop()
    match await account.ask(1):
        case Err(ActorStopped(name)):
            print(name, "has stopped")
        case other:
            raise AssertionError(other)


asyncio.run(main())
