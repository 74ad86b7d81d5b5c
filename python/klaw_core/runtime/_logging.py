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
>>> remove(); with_level("off")
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any

from klaw_core import _klaw
from klaw_core.runtime.context import current_context

__all__ = ["add_hook", "get_logger", "with_level"]

Record = MutableMapping[str, Any]
Hook = Callable[[dict[str, Any]], None]

LEVELS = {
    "trace": logging.NOTSET,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "off": logging.CRITICAL + 1,
}

_hooks: list[Hook] = []
_loggers: dict[str, Any] = {}
_level_override: str | None = None


def _level() -> str:
    return _level_override or str(_klaw.config_get()["log_level"])


def with_level(level: str) -> None:
    """The least grave level that is written: "off", "error", "warn", "info", "debug" or "trace"."""
    global _level_override  # noqa: PLW0603
    if level not in LEVELS:
        raise ValueError(f"log level has to be one of {', '.join(LEVELS)}, not {level!r}")
    _level_override = level
    _loggers.clear()


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


class _Silent:
    """What logs nothing, without structlog."""

    def bind(self, **_values: Any) -> _Silent:
        return self

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *_args, **_values: None


_silent = _Silent()


def get_logger(name: str = "klaw") -> Any:
    """A structlog logger at the level in force. structlog is imported when the first record may be written."""
    logger = _loggers.get(name)
    if logger is None:
        if _level() == "off":
            return _silent
        import structlog  # noqa: PLC0415 - only who logs pays for it

        logger = _loggers[name] = structlog.wrap_logger(
            structlog.PrintLogger(sys.stderr),
            wrapper_class=structlog.make_filtering_bound_logger(LEVELS[_level()]),
            processors=[
                _inject,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
                _call_hooks,
                structlog.processors.JSONRenderer(serializer=json.dumps, default=repr),
            ],
            cache_logger_on_first_use=False,
        ).bind(logger=name)
    return logger
