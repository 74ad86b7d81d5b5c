# SPDX-License-Identifier: Apache-2.0
"""Whether a value is of a type, generic types included (list[int], int | None, Literal["a"])."""

from __future__ import annotations

from typing import Any

import msgspec

from klaw_core.runtime.errors import ChannelTypeErrorException

__all__ = ["TypeValidator"]


class TypeValidator:
    """Called with a value: returns None, or raises ChannelTypeErrorException. Nothing is converted.

    >>> TypeValidator(list[int])([1, 2])
    >>> TypeValidator(int)("x")
    Traceback (most recent call last):
        ...
    klaw_core.runtime.errors.ChannelTypeErrorException: expected int, got str
    """

    __slots__ = ("_plain", "value_type")

    def __init__(self, value_type: Any) -> None:
        self.value_type = value_type
        #: a class (or a tuple of them) that isinstance alone decides
        self._plain = isinstance(value_type, type) and not hasattr(value_type, "__args__")

    def __call__(self, value: Any) -> None:
        if self._plain:
            # As msgspec does: a bool is no int.
            if isinstance(value, self.value_type) and not (self.value_type is int and isinstance(value, bool)):
                return
        else:
            try:
                msgspec.convert(value, self.value_type, strict=True)
            except (msgspec.ValidationError, TypeError):
                pass
            else:
                return
        raise ChannelTypeErrorException(_name(self.value_type), _name(type(value)))


def _name(value_type: Any) -> str:
    return value_type.__name__ if isinstance(value_type, type) else str(value_type).replace("typing.", "")
