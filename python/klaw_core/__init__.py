# SPDX-License-Identifier: Apache-2.0
"""klaw_core: the klaw runtime for Python.

The common names are here, all of them in :mod:`klaw_core.runtime`.

>>> from klaw_core import Ok
>>> Ok(1).map(lambda v: v + 1)
Ok(2)
"""

from __future__ import annotations

from klaw_core._klaw import libklaw_version
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
