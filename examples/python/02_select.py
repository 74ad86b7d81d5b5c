# SPDX-License-Identifier: Apache-2.0
"""Wait for the first of several: results, a heartbeat, or a time limit. What is not chosen loses nothing."""

import asyncio

from klaw_core.runtime import ChannelEmptyError, channel, select


async def main() -> None:
    result_tx, results = await channel(8, value_type=str)
    beat_tx, beats = await channel(8, value_type=str)
    await beat_tx.send("beat")
    await result_tx.send("result")

    seen: list[object] = []
    for _ in range(2):
        receiver, item = await select(results, beats, timeout=10)
        seen.append((receiver is results, item))
    assert set(seen) == {(False, "beat"), (True, "result")}

    try:
        await select(results, beats, timeout=0.01)
    except ChannelEmptyError:
        seen.append("nothing more")
    print(seen)
    assert seen[-1] == "nothing more"


asyncio.run(main())
