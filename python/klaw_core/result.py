# SPDX-License-Identifier: Apache-2.0
"""Result and Option: an outcome as a value.

>>> def half(n: int) -> Result[int, str]:
...     return Err("odd") if n % 2 else Ok(n // 2)
>>> half(4).and_then(half)
Ok(1)
>>> match half(3):
...     case Ok(value): print(value)
...     case Err(error): print("no:", error)
no: odd
"""

from __future__ import annotations

from typing import TypeVar, Union

from klaw_core._klaw import Err, Nothing, NothingType, Ok, Some, UnwrapError

__all__ = ["Err", "Nothing", "NothingType", "Ok", "Option", "Result", "Some", "UnwrapError"]

T = TypeVar("T")
E = TypeVar("E")

# Union and not |: an alias that can be subscribed on 3.11, Result[int, str].
Result = Union[Ok[T], Err[E]]  # noqa: UP007
Option = Union[Some[T], NothingType]  # noqa: UP007
