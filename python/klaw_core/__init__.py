# SPDX-License-Identifier: Apache-2.0
"""klaw_core: the klaw runtime for Python.

Every public name of :mod:`klaw_core.runtime` can be imported from here too; the runtime is loaded when the first of
them is asked for, so that a program which only wants results pays for nothing else.

>>> from klaw_core import Ok, channel
>>> Ok(1).map(lambda v: v + 1)
Ok(2)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from klaw_core._klaw import libklaw_version

if TYPE_CHECKING:
    from klaw_core.runtime import *  # noqa: F403
else:
    from klaw_core.result import Err, Nothing, NothingType, Ok, Option, Result, Some, UnwrapError

__version__ = "0.1.0"
__all__ = [
    "Err",
    "Nothing",
    "NothingType",
    "Ok",
    "Option",
    "Result",
    "Some",
    "UnwrapError",
    "__version__",
    "libklaw_version",
]


def __getattr__(name: str) -> Any:
    if not name.startswith("_"):
        runtime = import_module("klaw_core.runtime")
        if name in runtime.__all__:
            value = getattr(runtime, name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *import_module("klaw_core.runtime").__all__})
