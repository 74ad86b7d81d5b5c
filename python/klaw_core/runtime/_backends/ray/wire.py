# SPDX-License-Identifier: Apache-2.0
"""How outcomes travel between processes, and how a loop waits for an ObjectRef.

An outcome is a tuple of a code and what belongs to it. Exceptions travel as data, made into bytes where they are
raised: one that can't be pickled, or not be read again, arrives as its name, its text and its traceback's text. The
callback of an ObjectRef's future runs on a thread of Ray's; a klaw oneshot takes its news into whatever loop waits
(trio can't await ObjectRefs).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import traceback
from typing import Any

from klaw_core import _klaw
from klaw_core.result import Err, Ok, Result
from klaw_core.runtime._backends.ray.untyped import cloudpickle, exceptions, ray
from klaw_core.runtime.errors import BackendError, BackendErrorException, Cancelled

__all__ = ["CANCELLED", "cancel", "connected", "explain", "pack", "pack_error", "settle", "short", "unpack"]

OK, ERR, RAISED, CANCELLED = range(4)


def short(error: BaseException) -> str:
    """Type and first line of an error. Ray's own texts are pages."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(": ")


def pack_error(error: BaseException) -> tuple[int, Any]:
    """An exception as data."""
    trace = "".join(traceback.format_exception(error))
    blob: bytes | None = None
    if isinstance(error, Exception):
        try:
            blob = cloudpickle.dumps(error)
            if type(cloudpickle.loads(blob)) is not type(error):
                blob = None
        except Exception:
            blob = None
    try:
        text = str(error)
    except Exception:
        text = "(its text can't be had)"
    return RAISED, (blob, f"{type(error).__module__}.{type(error).__qualname__}", text, trace, os.getpid())


def pack(result: Result[Any, Any]) -> tuple[int, Any]:
    """A result as data."""
    match result:
        case Ok(value):
            return OK, value
        case Err(error) if isinstance(error, BaseException):
            return pack_error(error)
        case Err(error):
            return ERR, error
    raise TypeError(f"not a result: {result!r}")


def unpack(outcome: tuple[int, Any]) -> Result[Any, Any]:
    """The result that pack was given; an exception has the traceback of its worker as a note."""
    code, value = outcome
    if code == OK:
        return Ok(value)
    if code == ERR:
        return Err(value)
    if code == CANCELLED:
        return Err(Cancelled(value))
    blob, name, text, trace, pid = value
    if blob is not None:
        try:
            error = cloudpickle.loads(blob)
            error.add_note(f"in a Ray worker (pid {pid}):\n{trace}")
            return Err(error)
        except Exception as failure:  # its class is not to be had here
            trace += f"(it can't be read here: {short(failure)})\n"
    return Err(BackendError(f"{name}: {text}\nin a Ray worker (pid {pid}):\n{trace}", "ray"))


def explain(error: BaseException, what: str, reason: str | None = None) -> Err[Any]:
    """What an ObjectRef's failure means for the work named `what`. reason: of a cancellation that was asked for."""
    cause = getattr(error, "cause", None)
    if isinstance(error, exceptions.TaskCancelledError) or isinstance(cause, exceptions.TaskCancelledError):
        return Err(Cancelled(reason or "cancelled"))
    if isinstance(error, exceptions.RayTaskError):
        text = str(error)
        if "input arguments" in text:
            said = [line for line in text.splitlines() if line.strip()]
            return Err(BackendError(f"the arguments of {what} can't be read on the worker: {said[-1].strip()}", "ray"))
        if "failed to import" in text or "No module named" in text:
            return Err(
                BackendError(
                    f"{what} can't be loaded on the worker ({short(cause or error)}); workers need klaw-core and the"
                    " caller's modules: install them there, or give runtime_env={'pip': [...], 'py_modules': [...]}",
                    "ray",
                )
            )
        return Err(BackendError(f"the result of {what} can't be sent back: {short(cause or error)}", "ray"))
    if isinstance(error, exceptions.RaySystemError):
        return Err(BackendError(f"the result of {what} can't be read here: {_innermost(str(error))}", "ray"))
    if isinstance(error, exceptions.WorkerCrashedError):
        return Err(BackendError(f"the worker that ran {what} died", "ray"))
    return Err(BackendError(f"{what}: {short(error)}", "ray"))


def _innermost(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else text


_waiting: set[Any] = set()  # oneshots of who waits, for when Ray is shut down under them
_guard: threading.Thread | None = None
_guard_lock = threading.Lock()


def _watch(tx: Any) -> None:
    global _guard  # noqa: PLW0603
    with _guard_lock:
        _waiting.add(tx)
        if _guard is None:
            _guard = threading.Thread(target=_keep_watch, name="klaw-ray-guard", daemon=True)
            _guard.start()


def _keep_watch() -> None:
    """Futures of a Ray that was shut down never end."""
    global _guard  # noqa: PLW0603
    while True:
        time.sleep(1.0)
        with _guard_lock:
            if not _waiting:
                _guard = None
                return
            left = [] if ray.is_initialized() else list(_waiting)
        for tx in left:
            tx.try_send_sync(None)


def connected() -> None:
    """BackendErrorException unless this process is connected: a call would start another Ray by itself."""
    if not ray.is_initialized():
        raise BackendErrorException("Ray was shut down in this process", "ray")


async def settle(ref: Any, timeout: float | None = None) -> Any:
    """Waits for an ObjectRef on any loop: its value, or raises its error. ChannelEmptyError when the time is over;
    BackendErrorException when Ray is shut down meanwhile. A cancelled caller leaves at once; whether the work is
    cancelled as well is up to it."""
    tx, rx = _klaw.oneshot()
    ref.future().add_done_callback(tx.try_send_sync)
    _watch(tx)
    try:
        future = await rx.recv(timeout)
    finally:
        _waiting.discard(tx)
    if future is None:
        raise BackendErrorException("Ray was shut down in this process while something was waited for", "ray")
    return future.result()


def cancel(ref: Any, force: bool = False) -> None:
    """Ray's cancel, without its complaints about work that has ended."""
    with contextlib.suppress(ValueError, TypeError, exceptions.RayError):
        ray.cancel(ref, force=force)
