# SPDX-License-Identifier: Apache-2.0
"""A workflow whose first run fails half-way: the second one does only what is missing."""

import asyncio
import tempfile

from klaw_core.runtime import Workflow

done: list[str] = []


async def fetch(name: str) -> list[int]:
    done.append("fetch")
    return [1, 2, 3]


def add(numbers: list[int], broken: bool) -> int:
    done.append("add")
    if broken:
        raise OSError("the disk is full")
    return sum(numbers)


async def report(path: str, broken: bool) -> int:
    async with Workflow("report", path=path) as wf:
        numbers = await wf.step("fetch", fetch, "numbers")
        wf.result = await wf.step("add", add, numbers, broken)
    return int(wf.result)


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = f"{folder}/klaw.db"
        try:
            await report(store, broken=True)
        except OSError as error:
            print("first run:", error)
        total = await report(store, broken=False)
    print("second run:", total, done)
    assert total == 6
    assert done == ["fetch", "add", "add"]


asyncio.run(main())
