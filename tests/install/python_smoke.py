# SPDX-License-Identifier: Apache-2.0
"""A program over an installed klaw_core: each part once, and one libklaw, the wheel's."""

import asyncio
import ctypes
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import klaw_core
from klaw_core import Ok
from klaw_core.runtime import Executor, LocalCheckpointer, Supervisor, Workflow, channel

assert "ray" not in sys.modules
assert version("klaw-core") == klaw_core.__version__


class Doubler:
    async def handle(self, msg: int) -> int:
        return msg * 2


async def main(folder: str) -> None:
    tx, rx = await channel(8, value_type=int)

    async def produce() -> None:
        async with tx:
            for i in range(1000):
                await tx.send(i)

    async with Executor(concurrency=2) as ex:
        task = ex.submit(produce)
        assert [item async for item in rx] == list(range(1000))
        assert await task == Ok(None)
        assert await ex.map(abs, [-1, 2]) == [Ok(1), Ok(2)]
    async with Supervisor() as sup:
        assert await (await sup.start_child(Doubler)).ask(21) == Ok(42)
    store = LocalCheckpointer(f"{folder}/klaw.db")
    await store.save("key", [1, 2])
    assert await store.load("key") == [1, 2]
    async with Workflow("work", path=f"{folder}/klaw.db") as wf:
        assert await wf.step("add", sum, [1, 2]) == 3


with tempfile.TemporaryDirectory() as home:
    asyncio.run(main(home))
package = Path(klaw_core.__file__).parent
# C code in this process finds the wheel's libklaw_ray, which uses this interpreter; there is no Ray in it.
message = ctypes.create_string_buffer(1024)  # klaw_error_info begins with it
visit = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_char_p)(lambda _user, _name: True)
assert ctypes.CDLL("libklaw.so.0").klaw_remote_list_sized(None, 0, visit, None, message) == 12  # KLAW_BACKEND
assert b"pip install 'klaw-core[ray]'" in message.value, message.value
libraries = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libklaw" in line}
assert libraries == {str(package / "libklaw.so.0"), str(package / "libklaw_ray.so.0")}, libraries
print(
    f"smoke: klaw_core {klaw_core.__version__} over libklaw {klaw_core.libklaw_version}, "
    f"Python {sys.version.split()[0]}"
)
