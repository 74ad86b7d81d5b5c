# SPDX-License-Identifier: Apache-2.0
"""The runtime's public names, flat."""

from __future__ import annotations

from klaw_core.result import Err, Nothing, NothingType, Ok, Option, Result, Some, UnwrapError
from klaw_core.runtime.errors import *  # noqa: F403
from klaw_core.runtime.errors import __all__ as _errors

__all__ = ["Err", "Nothing", "NothingType", "Ok", "Option", "Result", "Some", "UnwrapError", *_errors]  # noqa: PLE0604
