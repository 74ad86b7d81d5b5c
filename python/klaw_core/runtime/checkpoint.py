# SPDX-License-Identifier: Apache-2.0
"""Values that survive the process: libklaw's checkpoint store, one SQLite file that C programs open as well.

>>> import anyio, tempfile
>>> async def main() -> None:
...     with tempfile.TemporaryDirectory() as folder:
...         store = LocalCheckpointer(folder + "/own/")
...         await store.save("job", {"done": 3})
...         print(await store.load("job"), await store.list())
>>> anyio.run(main)
{'done': 3} ['job']
"""

from __future__ import annotations

import os
import threading
from typing import Any, Protocol, runtime_checkable

import msgspec

from klaw_core import _klaw
from klaw_core.runtime._config import get_config

__all__ = ["Checkpointer", "LocalCheckpointer"]


@runtime_checkable
class Checkpointer(Protocol):
    """Where checkpoints are kept."""

    async def save(self, key: str, value: Any) -> None:
        """Keeps a value under a key. When it returns, the value survives a power cut."""
        ...

    async def load(self, key: str) -> Any:
        """The value last saved; None when there is none."""
        ...

    async def delete(self, key: str) -> bool:
        """Forgets a key. False when there was none."""
        ...

    async def list(self, prefix: str = "") -> list[str]:
        """The keys that begin with `prefix`, sorted."""
        ...


_stores: dict[tuple[str, int], Any] = {}
_stores_lock = threading.Lock()


def open_store(path: str | os.PathLike[str] | None, keep: int = 3) -> Any:
    """The store of this file in this process, opened once. Blocks on the disk."""
    where = get_config().checkpoint_path if path is None else path if isinstance(path, str) else f"{os.fspath(path)}/"
    with _stores_lock:
        store = _stores.get((where, keep))
        if store is None:
            store = _stores[where, keep] = _klaw.Store(where, keep)
        return store


class LocalCheckpointer:
    """Over libklaw's store in `path`: a file, or a folder (ending in "/", or a path object: klaw.db in it); None: the
    configured one, ~/.klaw/checkpoints/. `keep` versions of each key. Values are encoded by msgpack: None, bool,
    numbers, text, bytes, lists, dicts, dataclasses and msgspec structs (these come back as dicts).

    Errors: OSError (disk full, read-only, no permission), BackendErrorException (a damaged file), both naming the file;
    TypeError for a value that can't be encoded.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, keep: int = 3) -> None:
        self._path = path
        self._keep = keep
        self._store: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        """It travels by its path: to a process that sees the same file."""
        return LocalCheckpointer, (get_config().checkpoint_path if self._path is None else self._path, self._keep)

    async def _run(self, method: str, *args: Any) -> Any:
        from anyio.to_thread import run_sync  # noqa: PLC0415

        if self._store is None:
            self._store = await run_sync(open_store, self._path, self._keep)
        return await run_sync(getattr(self._store, method), *args)

    async def save(self, key: str, value: Any) -> None:
        """Keeps a value under a key; when it returns, it survives a power cut."""
        await self._run("save", key, msgspec.msgpack.encode(value))

    async def load(self, key: str) -> Any:
        """The value last saved; None when there is none."""
        data = await self._run("load", key)
        return None if data is None else msgspec.msgpack.decode(data)

    async def delete(self, key: str) -> bool:
        """Forgets a key with all its versions. False when there was none."""
        return bool(await self._run("delete", key))

    async def list(self, prefix: str = "") -> list[str]:
        """The keys that begin with `prefix`, sorted."""
        return sorted(entry[0] for entry in await self._run("list", prefix or None))
