# SPDX-License-Identifier: Apache-2.0
"""Functions and actors in C, run by symbol on a worker of Ray (klaw/remote.h: klaw_remote_fn, klaw_remote_behavior).

Everything answers ``(code, result)``: 0 with bytes or None; a code of klaw/err.h that the function returned, with None;
-1 with a text where there is nothing to call. A function runs outside the interpreter's lock.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any, Final

__all__ = ["ACTOR_PREFIX", "NativeActor", "run_symbol"]

#: The actor "counter" of klaw_remote_actor is named "klaw_c_counter".
ACTOR_PREFIX: Final = "klaw_c_"

_Function = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.POINTER(ctypes.c_void_p))
_Start = _Function
_Handle = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.POINTER(ctypes.c_void_p)
)
_Stop = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Behavior(ctypes.Structure):
    _fields_ = (("start", ctypes.c_void_p), ("handle", ctypes.c_void_p), ("stop", ctypes.c_void_p))


@functools.cache
def _klaw() -> Any:
    """libklaw, the one that the extension has loaded."""
    from klaw_core import _klaw as extension  # noqa: F401, PLC0415

    library = ctypes.CDLL("libklaw.so.0")
    library.klaw_blob_data.restype = ctypes.c_void_p
    library.klaw_blob_data.argtypes = (ctypes.c_void_p,)
    library.klaw_blob_size.restype = ctypes.c_size_t
    library.klaw_blob_size.argtypes = (ctypes.c_void_p,)
    library.klaw_blob_unref.restype = None
    library.klaw_blob_unref.argtypes = (ctypes.c_void_p,)
    return library


def _take(blob: int | None) -> bytes | None:
    """The bytes of a blob, which is given back."""
    if not blob:
        return None
    klaw = _klaw()
    try:
        return ctypes.string_at(klaw.klaw_blob_data(blob), klaw.klaw_blob_size(blob))
    finally:
        klaw.klaw_blob_unref(blob)


def _address(library: str, symbol: str) -> tuple[int, str]:
    """(the symbol's address, "") or (0, why not)."""
    _klaw()  # first: the library's own dependency on it is this one
    try:
        loaded = ctypes.CDLL(library)
    except OSError as error:
        return 0, f"the worker can't load {library}: {error}"
    try:
        return ctypes.addressof(ctypes.c_char.in_dll(loaded, symbol)), ""
    except ValueError as error:
        return 0, f"{library} has no {symbol}: {error}"


def run_symbol(library: str, symbol: str, data: bytes) -> tuple[int, Any]:
    """Runs a klaw_remote_fn."""
    at, why = _address(library, symbol)
    if not at:
        return -1, why
    out = ctypes.c_void_p()
    code = _Function(at)(data, len(data), ctypes.byref(out))
    result = _take(out.value)
    return (0, result) if code == 0 else (code, None)


class NativeActor:
    """A klaw_remote_behavior with its state. An actor of Ray calls it one message at a time."""

    def __init__(self, library: str, symbol: str, data: bytes) -> None:
        self._state: int | None = None
        self._behavior: Any = None
        self._ready = self._start(library, symbol, data)

    def _start(self, library: str, symbol: str, data: bytes) -> tuple[int, Any]:
        at, why = _address(library, symbol)
        if not at:
            return -1, why
        behavior = _Behavior.from_address(at)
        if not behavior.handle:
            return -1, f"{symbol} of {library} has no handle: is it a klaw_remote_behavior?"
        state = ctypes.c_void_p()
        if behavior.start:
            code = _Start(behavior.start)(data, len(data), ctypes.byref(state))
            if code:
                return code, None
        self._state, self._behavior = state.value, behavior
        return 0, None

    def ready(self) -> tuple[int, Any]:
        """What has become of its start."""
        return self._ready

    def handle(self, message: bytes) -> tuple[int, Any]:
        """One message."""
        if self._behavior is None:
            return 9, None  # KLAW_STOPPED
        out = ctypes.c_void_p()
        code = _Handle(self._behavior.handle)(self._state, message, len(message), ctypes.byref(out))
        result = _take(out.value)
        return (0, result) if code == 0 else (code, None)

    def stop(self) -> bool:
        """Frees the state; whoever calls this ends the actor next. False: that has happened before."""
        behavior, self._behavior = self._behavior, None
        if behavior is None:
            return False
        if behavior.stop:
            _Stop(behavior.stop)(self._state)
        return True
