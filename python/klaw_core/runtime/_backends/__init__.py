# SPDX-License-Identifier: Apache-2.0
"""Where an Executor's tasks run: the protocol, and how a backend is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from klaw_core.runtime._config import Backend, get_config
from klaw_core.runtime.errors import BackendErrorException

if TYPE_CHECKING:
    from klaw_core.runtime.executor import TaskHandle

__all__ = ["ExecutorBackend", "make_backend"]


@runtime_checkable
class ExecutorBackend(Protocol):
    """Runs functions and finishes their handles. All methods are called on the executor's event loop."""

    name: str

    async def start(self) -> None:
        """Gets ready."""
        ...

    def submit(self, handle: TaskHandle[Any], fn: Callable[..., Any], args: Any, kwargs: Any, options: Any) -> None:
        """Runs fn(*args, **kwargs) and calls handle._finish(result) on the loop. `options`: this task's own."""
        ...

    def cancel(self, handle: TaskHandle[Any], reason: str) -> None:
        """Ends the task if it can be ended; calls handle._finish in any case, soon."""
        ...

    async def stop(self, wait: bool) -> None:
        """Waits for what runs (wait=True), or cancels it, and gives everything back."""
        ...


def make_backend(
    backend: Backend | str | ExecutorBackend | None, concurrency: int | None, options: dict[str, Any]
) -> ExecutorBackend:
    """The backend of this name (None: the configured one), or the one that was given. Errors: ValueError;
    BackendErrorException for Ray when it can't be had."""
    if isinstance(backend, ExecutorBackend):
        if concurrency is not None or options:
            raise ValueError("concurrency and options belong to the backend that was given, not to the executor")
        return backend
    try:
        chosen = Backend(backend) if backend is not None else get_config().backend
    except ValueError:
        names = ", ".join(repr(b.value) for b in Backend)
        raise ValueError(f"backend has to be one of {names}, not {backend!r}") from None
    if chosen is Backend.LOCAL:
        from klaw_core.runtime._backends.local import LocalBackend  # noqa: PLC0415

        configured = {key: value for key, value in get_config().backend_kwargs.items() if key in LocalBackend.OPTIONS}
        return LocalBackend(concurrency=concurrency, **{**configured, **options})
    try:
        from klaw_core.runtime._backends.ray import RayBackend  # noqa: PLC0415
    except ImportError as error:
        raise BackendErrorException(
            f"the Ray backend can't be loaded ({error}); install it by: pip install 'klaw-core[ray]'", "ray"
        ) from error
    made: ExecutorBackend = RayBackend(concurrency=concurrency, **options)
    return made
