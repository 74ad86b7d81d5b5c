# SPDX-License-Identifier: Apache-2.0
"""How this process uses klaw: explicit values beat the environment, which beats detection. libklaw decides.

>>> get_config().backend is Backend.LOCAL
True
>>> init(backend="mars")
Traceback (most recent call last):
    ...
ValueError: ...'mars'...
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from klaw_core import _klaw
from klaw_core.runtime import _inspect

__all__ = ["Backend", "Machine", "RuntimeConfig", "get_config", "init"]


_MOST = 1_000_000
_OWN = ("workers",)  # options of the local backend that only Python has


class Backend(str, Enum):
    """What carries tasks, channels and actors."""

    LOCAL = "local"
    RAY = "ray"


@dataclass(frozen=True, slots=True)
class Machine:
    """What was found out about the machine, seen from this process. Memory in bytes."""

    online: int
    allowed: int
    cores: int
    quota_milli: int
    usable: int
    memory: int
    memory_limit: int


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """The values in force; `sources` says for each: "explicit", "environment" or "detected"."""

    backend: Backend
    concurrency: int
    log_level: str
    checkpoint_path: str
    backend_kwargs: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    machine: Machine | None = None
    inspect: bool = False


# The backend's options as Python values: libklaw keeps texts.
_backend_kwargs: dict[str, Any] = {}

#: goes up whenever what get_config gives may have changed
generation = 0


def init(
    backend: Backend | str | None = None,
    concurrency: int | None = None,
    log_level: str | None = None,
    checkpoint_path: str | os.PathLike[str] | None = None,
    inspect: bool = False,
    **backend_kwargs: Any,
) -> RuntimeConfig:
    """Settles the configuration of this process; what is None comes from the environment (KLAW_BACKEND,
    KLAW_CONCURRENCY, KLAW_LOG_LEVEL, KLAW_CHECKPOINT_PATH, KLAW_INSPECT) or is detected. inspect: the process
    answers the ``klaw`` command of the same user from now on; actors and supervisors that begin later are seen.

    Errors: ValueError for a wrong value, with the list of right ones; RuntimeError when it was settled differently
    before.
    """
    global generation  # noqa: PLW0603
    if concurrency is not None and (isinstance(concurrency, bool) or not 1 <= concurrency <= _MOST):
        raise ValueError(f"concurrency has to be from 1 to {_MOST}, not {concurrency!r}")
    for key, value in backend_kwargs.items():
        if key in _OWN and _backend_kwargs.get(key, value) != value:
            raise RuntimeError(f"{key} was settled as {_backend_kwargs[key]!r} before, now it is {value!r}")
    name = backend.value if isinstance(backend, Backend) else backend
    _klaw.config_init(
        name,
        concurrency or 0,
        log_level.lower() if log_level else None,
        None if checkpoint_path is None else os.fspath(checkpoint_path),
        {key: str(value) for key, value in backend_kwargs.items() if key not in _OWN},
        inspect,
    )
    if inspect:
        _inspect.begin()
    _backend_kwargs.update(backend_kwargs)
    generation += 1
    return get_config()


def get_config() -> RuntimeConfig:
    """The values in force, also before :func:`init`.

    >>> get_config().concurrency >= 1
    True
    """
    values: dict[str, Any] = _klaw.config_get()
    return RuntimeConfig(
        backend=Backend(values["backend"]),
        concurrency=values["concurrency"],
        log_level=values["log_level"],
        checkpoint_path=values["checkpoint_path"],
        inspect=values["inspect"],
        backend_kwargs=dict(_backend_kwargs),
        sources=values["sources"],
        machine=Machine(**values["machine"]),
    )


def _detect_backend() -> Backend:
    """The backend when nobody says: the environment's, else the local one."""
    return get_config().backend


def _detect_concurrency() -> int:
    """The processors this process may use: affinity, cpuset and the cgroups' quota considered."""
    usable: int = _klaw.config_get()["machine"]["usable"]
    return usable


def _forget() -> None:
    """For tests: as if init had not been called."""
    global generation  # noqa: PLW0603
    generation += 1
    _backend_kwargs.clear()
    _inspect._forget()
    _klaw.config_forget()
