# SPDX-License-Identifier: Apache-2.0
"""How an item becomes bytes, once, at its sender, and a value again, once, at its receiver.

bytes go as they are. Plain data goes as MessagePack: None, bool, int64, float, str, bytes, list and dict of exactly
these types (a tuple would come back as a list), or any value of a `value_type` that MessagePack can carry. The rest
is pickled by value where that is needed (functions, classes of ``__main__``), with protocol 5: large buffers lie beside
the pickle and are not copied on the way back. ObjectRefs leave the pickle and travel along, where Ray sees them.

>>> codec = Codec()
>>> codec.decode(*codec.encode({"a": [1, 2]}))
{'a': [1, 2]}
>>> codec.decode(*codec.encode((1, {2})))
(1, {2})
>>> Codec(int).encode("x")
Traceback (most recent call last):
    ...
klaw_core.runtime.errors.ChannelTypeErrorException: expected int, got str
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from typing import Any, Final

import msgspec
from ray import ObjectRef
from ray import cloudpickle as _cloudpickle

from klaw_core.runtime.channels._validate import TypeValidator
from klaw_core.runtime.errors import ChannelTypeErrorException

__all__ = ["BYTES", "CODECS", "MSGPACK", "PICKLE", "Codec", "describe"]

#: Numbers of klaw/broker.h.
BYTES: Final = 0
MSGPACK: Final = 1
PICKLE: Final = 2
#: What a channel may be made with: "auto" chooses for each item, "msgpack" refuses what needs pickle.
CODECS: Final = ("auto", "msgpack")

_OUT_OF_BAND = 4096  # bytes from which a buffer is worth a place of its own
_DEPTH = 64  # containers in containers that are looked through for plain data
_INT64 = 1 << 63

_ATOMS = frozenset({type(None), bool, float, str, bytes})
_count = struct.Struct("<I")
_size = struct.Struct("<Q")

_encode_msgpack: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode
_decode_plain: Callable[[bytes], Any] = msgspec.msgpack.Decoder().decode


def _plain(value: Any, depth: int = _DEPTH) -> bool:
    """Whether MessagePack gives back the very same value."""
    kind = type(value)
    if kind in _ATOMS:
        return True
    if kind is int:
        return bool(-_INT64 <= value < _INT64)
    if depth == 0:
        return False  # too deep, or a list that contains itself
    if kind is list:
        return all(_plain(item, depth - 1) for item in value)
    if kind is dict:
        return all(_plain(key, 0) and _plain(item, depth - 1) for key, item in value.items())
    return False


class _Pickler(_cloudpickle.CloudPickler):  # type: ignore[misc, name-defined, unused-ignore]
    """Cloudpickle that sets ObjectRefs aside, in the order of their first occurrence."""

    def __init__(self, file: io.BytesIO, aside: Callable[[pickle.PickleBuffer], bool]) -> None:
        super().__init__(file, protocol=5, buffer_callback=aside)
        self.refs: list[ObjectRef] = []

    def persistent_id(self, value: Any) -> int | None:
        if isinstance(value, ObjectRef):
            self.refs.append(value)
            return len(self.refs) - 1
        return None


class _Unpickler(pickle.Unpickler):
    """Puts the ObjectRefs back."""

    def __init__(self, file: io.BytesIO, refs: list[ObjectRef], buffers: list[memoryview]) -> None:
        super().__init__(file, buffers=buffers)
        self._refs = refs

    def persistent_load(self, place: Any) -> ObjectRef:
        return self._refs[place]


def _pickle(value: Any) -> tuple[bytes, list[ObjectRef]]:
    """[number of buffers][size of each][the buffers, at multiples of 16][pickle]."""
    buffers: list[memoryview] = []

    def aside(buffer: pickle.PickleBuffer) -> bool:
        try:
            raw = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if raw.nbytes < _OUT_OF_BAND:
            return True
        buffers.append(raw)
        return False

    file = io.BytesIO()
    pickler = _Pickler(file, aside)
    pickler.dump(value)
    if not buffers:
        return b"\0\0\0\0" + file.getbuffer(), pickler.refs
    parts: list[Any] = [_count.pack(len(buffers)), *(_size.pack(raw.nbytes) for raw in buffers)]
    at = sum(len(part) for part in parts)
    for raw in buffers:
        parts += (b"\0" * (-at % 16), raw)
        at += -at % 16 + raw.nbytes
    parts.append(file.getbuffer())
    return b"".join(parts), pickler.refs


def _unpickle(data: bytes, refs: list[ObjectRef]) -> Any:
    view = memoryview(data)
    (many,) = _count.unpack_from(view)
    at = _count.size + many * _size.size
    buffers = []
    for place in range(many):
        (size,) = _size.unpack_from(view, _count.size + place * _size.size)
        at += -at % 16
        buffers.append(view[at : at + size])
        at += size
    return _Unpickler(io.BytesIO(view[at:]), refs, buffers).load()


def describe(value_type: Any) -> str:
    """The type as text, the same in every process: what two ends of a channel compare.

    >>> describe(int), describe(list[int]), describe(None)
    ('builtins.int', 'list[int]', '')
    """
    if value_type is None:
        return ""
    if isinstance(value_type, type) and not hasattr(value_type, "__args__"):
        return f"{value_type.__module__}.{value_type.__qualname__}"
    return str(value_type)


def _carried(value_type: Any) -> bool:
    """Whether MessagePack alone carries every value of this type and gives the same type back."""
    lossy = (msgspec.inspect.CustomType, msgspec.inspect.AnyType, msgspec.inspect.RawType)

    def whole(node: Any, seen: set[int]) -> bool:  # the types within types
        if id(node) in seen:
            return True
        seen.add(id(node))
        if isinstance(node, lossy):
            return False
        if isinstance(node, msgspec.Struct):
            return all(whole(getattr(node, name), seen) for name in node.__struct_fields__)
        if isinstance(node, tuple | list):
            return all(whole(each, seen) for each in node)
        return True

    try:
        return whole(msgspec.inspect.type_info(value_type), set())
    except (TypeError, RecursionError, NotImplementedError):
        return False


class Codec:
    """Encodes and decodes the items of one channel.

    value_type: what every item has to be; None: anything. name: "auto", or "msgpack" to refuse what would have to be
    pickled (then programs in C can read every item). Errors: ValueError for another name, TypeError for a value_type
    that MessagePack can't carry under "msgpack".
    """

    __slots__ = ("_exact", "_typed", "_validate", "name", "takes_bytes", "value_type")

    def __init__(self, value_type: Any = None, name: str = "auto") -> None:
        if name not in CODECS:
            raise ValueError(f"codec has to be one of {', '.join(map(repr, CODECS))}, not {name!r}")
        self.name = name
        self.value_type = value_type
        self._validate = None if value_type is None else TypeValidator(value_type)
        #: a value of exactly this class (a subclass would come back as its base); None: by the type's structure
        self._exact = value_type if isinstance(value_type, type) and not hasattr(value_type, "__args__") else None
        #: bytes go as they are, unlooked at
        self.takes_bytes = value_type is None or value_type is bytes
        self._typed: Callable[[bytes], Any] | None = None
        if value_type is not None and value_type is not bytes and _carried(value_type):
            self._typed = msgspec.msgpack.Decoder(value_type).decode
        elif name == "msgpack" and value_type not in (None, bytes):
            raise TypeError(f"codec='msgpack' can't carry {describe(value_type)}")

    def check(self, value: Any) -> None:
        """ChannelTypeErrorException: it is not of the value_type."""
        if self._validate is not None:
            self._validate(value)

    def encode(self, value: Any) -> tuple[bytes, int, list[ObjectRef] | None]:
        """(payload, codec's number, ObjectRefs that travel beside it or None). ChannelTypeErrorException: of another
        type than value_type, or it can't be encoded."""
        if self._validate is not None:
            self._validate(value)
            if self._typed is not None and (self._exact is None or type(value) is self._exact):
                try:
                    return _encode_msgpack(value), MSGPACK, None
                except (TypeError, ValueError, OverflowError, RecursionError):
                    pass  # an int over 64 bits, a lone surrogate
        if type(value) is bytes:
            return value, BYTES, None
        if _plain(value):
            try:
                return _encode_msgpack(value), MSGPACK, None
            except UnicodeEncodeError:
                pass
        if self.name == "msgpack":
            raise ChannelTypeErrorException("what MessagePack carries (codec='msgpack')", type(value).__qualname__)
        try:
            payload, refs = _pickle(value)
        except Exception as error:
            raise ChannelTypeErrorException(
                "a value that can be pickled", f"{type(value).__qualname__} ({type(error).__name__}: {error})"
            ) from error
        return payload, PICKLE, refs or None

    def decode(self, payload: bytes, codec: int, refs: list[ObjectRef] | None = None) -> Any:
        """The value again. ChannelTypeErrorException: it can't be made here (a class that can't be imported, another
        type than value_type, or pickle where codec="msgpack" refuses it)."""
        try:
            if codec == BYTES:
                return payload
            if codec == MSGPACK:
                return (self._typed or _decode_plain)(payload)
            if self.name == "msgpack":
                raise TypeError("a pickle, which codec='msgpack' refuses")
            return _unpickle(payload, refs or [])
        except Exception as error:
            raise ChannelTypeErrorException(
                "an item that can be decoded here", f"{type(error).__name__}: {error}"
            ) from error
