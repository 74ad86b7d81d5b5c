# SPDX-License-Identifier: Apache-2.0
"""Structured records through structlog: silent by default, the current context in each.

>>> records = []
>>> remove = add_hook(records.append)
>>> with_level("info")
>>> from klaw_core.runtime.context import context
>>> with context(request_id="r1"):
...     get_logger("demo").info("listening", port=80)
>>> records[-1]["event"], records[-1]["port"], records[-1]["request_id"]
('listening', 80, 'r1')
>>> remove(); with_level(None)
"""

from __future__ import annotations

import sys
from collections.abc import Callable, MutableMapping
from typing import Any, TextIO, cast

from klaw_core import _klaw
from klaw_core.runtime import _config
from klaw_core.runtime.context import current_context

__all__ = ["add_hook", "get_logger", "with_level"]

Record = MutableMapping[str, Any]
Hook = Callable[[dict[str, Any]], None]

#: as logging's, which is not imported for them
LEVELS = {"trace": 0, "debug": 10, "info": 20, "warn": 30, "error": 40, "off": 51}

_hooks: list[Hook] = []
_wrapped: dict[str, Any] = {}  # structlog's, by level
_level_override: str | None = None
_level_seen = (-1, "off")  # what the configuration of that generation says


def _level() -> str:
    global _level_seen  # noqa: PLW0603
    if _level_override is not None:
        return _level_override
    if _level_seen[0] != _config.generation:
        _level_seen = _config.generation, str(_klaw.config_get()["log_level"])
    return _level_seen[1]


def with_level(level: str | None) -> None:
    """The least grave level that is written: "off", "error", "warn", "info", "debug" or "trace"; None: the configured
    one."""
    global _level_override  # noqa: PLW0603
    if level is not None and level not in LEVELS:
        raise ValueError(f"log level has to be one of {', '.join(LEVELS)}, not {level!r}")
    _level_override = level


def add_hook(hook: Hook) -> Callable[[], None]:
    """Calls hook(record) for each record that is written. Returns what removes it again. A hook that raises is
    removed from no one's sight: its error is written to stderr."""
    _hooks.append(hook)
    return lambda: _hooks.remove(hook) if hook in _hooks else None


def _inject(_logger: Any, _method: str, record: Record) -> Record:
    for key, value in current_context().fields().items():
        record.setdefault(key, value)
    return record


def _call_hooks(_logger: Any, _method: str, record: Record) -> Record:
    for hook in list(_hooks):
        try:
            hook(dict(record))
        except Exception as error:  # a hook must not fail what it watches
            print(f"klaw: log hook {hook!r} failed: {error!r}", file=sys.stderr)
    return record


def _nothing(*_args: Any, **_values: Any) -> None:
    """What a record comes to that is not written."""


def _real() -> Any:
    """structlog's logger of the level in force, without values."""
    level = _level()
    logger = _wrapped.get(level)
    if logger is None:
        import json  # noqa: PLC0415

        import structlog  # noqa: PLC0415 - only who logs pays for it

        logger = _wrapped[level] = structlog.wrap_logger(
            structlog.WriteLogger(cast(TextIO, _Stderr())),
            wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
            processors=[
                _inject,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
                _call_hooks,
                structlog.processors.JSONRenderer(serializer=json.dumps, default=repr),
            ],
            cache_logger_on_first_use=False,
        )
    return logger


class _Stderr:
    """The standard error of the moment: it may be replaced after a logger was made."""

    def write(self, text: str) -> None:
        sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


class Logger:
    """As structlog's bound loggers (info, warning, bind, ...), at the level in force when a record is written. While
    that is "off", structlog is not imported."""

    __slots__ = ("_values",)

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def bind(self, **values: Any) -> Logger:
        """The same with more values."""
        return Logger({**self._values, **values})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if _level() == "off":
            return _nothing
        return getattr(_real().bind(**self._values), name)


def get_logger(name: str = "klaw") -> Any:
    """A logger with structlog's methods; its records go to stderr as lines of JSON. It may be made before init."""
    return Logger({"logger": name})
