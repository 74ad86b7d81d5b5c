# SPDX-License-Identifier: Apache-2.0
"""Errors, each as a pair: a struct (a value, for ``Err``) and an exception (for raising).

``struct.to_exception()`` and ``exception.to_struct()`` convert; the exception takes the struct's fields, has them
as attributes, and keeps them when it is pickled or copied.

>>> error = ChannelFull(capacity=8)
>>> raise error.to_exception()
Traceback (most recent call last):
    ...
klaw_core.runtime.errors.ChannelFullError: full: 8 elements
>>> ChannelFullError(capacity=8).to_struct() == error
True
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

__all__ = [
    "ActorNotFound",
    "ActorNotFoundError",
    "ActorStopped",
    "ActorStoppedError",
    "BackendError",
    "BackendErrorException",
    "Cancelled",
    "ChannelBackendError",
    "ChannelBackendErrorException",
    "ChannelClosed",
    "ChannelClosedError",
    "ChannelEmpty",
    "ChannelEmptyError",
    "ChannelFull",
    "ChannelFullError",
    "ChannelLagged",
    "ChannelLaggedError",
    "ChannelTypeError",
    "ChannelTypeErrorException",
    "KlawError",
    "LimitExceeded",
    "LimitExceededError",
    "TaskCancelledError",
    "Timeout",
    "TimeoutExpiredError",
    "Uncertain",
    "UncertainError",
]


def _located(message: str, *where: str) -> str:
    places = [place for place in where if place]
    return f"{message or 'failed'} ({', '.join(places)})" if places else message or "failed"


class KlawError(Exception):
    """The base of every exception here. The struct is made once and kept."""

    _struct_type: ClassVar[type[Any]]

    def __init__(self, *args: Any, **fields: Any) -> None:
        self._struct = self._struct_type(*args, **fields)
        super().__init__(str(self._struct))

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self._struct), self._extras())

    def _extras(self) -> dict[str, Any] | None:
        """What a user added to the exception: notes and attributes."""
        extras = {key: value for key, value in self.__dict__.items() if key != "_struct"}
        return extras or None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # also while it is being rebuilt
            raise AttributeError(name)
        return getattr(self._struct, name)

    def to_struct(self) -> Any:
        """The same error as a value."""
        return self._struct


def _rebuild(kind: type[KlawError], struct: Any) -> KlawError:
    return kind(*msgspec.structs.astuple(struct))


class ChannelClosed(msgspec.Struct, frozen=True):
    """The channel or this endpoint is closed.

    reason: why, for people.
    """

    reason: str = "closed"

    def __str__(self) -> str:
        return self.reason

    def to_exception(self) -> ChannelClosedError:
        """The same error, for raising."""
        return ChannelClosedError(*msgspec.structs.astuple(self))


class ChannelClosedError(KlawError):
    """Raised for ChannelClosed: the channel or this endpoint is closed."""

    _struct_type = ChannelClosed
    reason: str

    def to_struct(self) -> ChannelClosed:
        """The same error as a value."""
        struct: ChannelClosed = self._struct
        return struct


class ChannelFull(msgspec.Struct, frozen=True):
    """No room, and the caller would not wait.

    capacity: elements the channel holds.
    """

    capacity: int

    def __str__(self) -> str:
        return f"full: {self.capacity} elements"

    def to_exception(self) -> ChannelFullError:
        """The same error, for raising."""
        return ChannelFullError(*msgspec.structs.astuple(self))


class ChannelFullError(KlawError):
    """Raised for ChannelFull: no room, and the caller would not wait."""

    _struct_type = ChannelFull
    capacity: int

    def to_struct(self) -> ChannelFull:
        """The same error as a value."""
        struct: ChannelFull = self._struct
        return struct


class ChannelEmpty(msgspec.Struct, frozen=True):
    """Nothing there, and the caller would not wait (any longer)."""

    def __str__(self) -> str:
        return "empty"

    def to_exception(self) -> ChannelEmptyError:
        """The same error, for raising."""
        return ChannelEmptyError(*msgspec.structs.astuple(self))


class ChannelEmptyError(KlawError):
    """Raised for ChannelEmpty: nothing there, and the caller would not wait (any longer)."""

    _struct_type = ChannelEmpty

    def to_struct(self) -> ChannelEmpty:
        """The same error as a value."""
        struct: ChannelEmpty = self._struct
        return struct


class ChannelLagged(msgspec.Struct, frozen=True):
    """A receiver of a broadcast fell behind.

    missed: messages it missed.
    """

    missed: int = 0

    def __str__(self) -> str:
        return f"missed {self.missed} messages"

    def to_exception(self) -> ChannelLaggedError:
        """The same error, for raising."""
        return ChannelLaggedError(*msgspec.structs.astuple(self))


class ChannelLaggedError(KlawError):
    """Raised for ChannelLagged: a receiver of a broadcast fell behind."""

    _struct_type = ChannelLagged
    missed: int

    def to_struct(self) -> ChannelLagged:
        """The same error as a value."""
        struct: ChannelLagged = self._struct
        return struct


class ChannelBackendError(msgspec.Struct, frozen=True):
    """What carries a channel failed.

    message: what went wrong.
    backend: "ray" or "local".
    actor_name: the channel's actor.
    namespace: where that actor is named.
    """

    message: str = ""
    backend: str = ""
    actor_name: str = ""
    namespace: str = ""

    def __str__(self) -> str:
        return _located(self.message, self.backend, self.actor_name, self.namespace)

    def to_exception(self) -> ChannelBackendErrorException:
        """The same error, for raising."""
        return ChannelBackendErrorException(*msgspec.structs.astuple(self))


class ChannelBackendErrorException(ChannelClosedError):
    """Raised for ChannelBackendError: what carries a channel failed."""

    _struct_type = ChannelBackendError  # type: ignore[assignment]
    message: str
    backend: str
    actor_name: str
    namespace: str

    def to_struct(self) -> ChannelBackendError:  # type: ignore[override]
        """The same error as a value."""
        struct: ChannelBackendError = self._struct
        return struct


class Timeout(msgspec.Struct, frozen=True):
    """The deadline passed first.

    seconds: the limit.
    """

    seconds: float = 0.0

    def __str__(self) -> str:
        return f"after {self.seconds:g} s"

    def to_exception(self) -> TimeoutExpiredError:
        """The same error, for raising."""
        return TimeoutExpiredError(*msgspec.structs.astuple(self))


class TimeoutExpiredError(KlawError, TimeoutError):
    """Raised for Timeout: the deadline passed first."""

    _struct_type = Timeout
    seconds: float

    def to_struct(self) -> Timeout:
        """The same error as a value."""
        struct: Timeout = self._struct
        return struct


class Cancelled(msgspec.Struct, frozen=True):
    """Cancelled before it happened.

    reason: why, for people.
    """

    reason: str = "cancelled"

    def __str__(self) -> str:
        return self.reason

    def to_exception(self) -> TaskCancelledError:
        """The same error, for raising."""
        return TaskCancelledError(*msgspec.structs.astuple(self))


class TaskCancelledError(KlawError):
    """Raised for Cancelled: cancelled before it happened."""

    _struct_type = Cancelled
    reason: str

    def to_struct(self) -> Cancelled:
        """The same error as a value."""
        struct: Cancelled = self._struct
        return struct


class BackendError(msgspec.Struct, frozen=True):
    """The backend failed.

    message: what went wrong.
    backend: "ray" or "local".
    """

    message: str = ""
    backend: str = ""

    def __str__(self) -> str:
        return _located(self.message, self.backend)

    def to_exception(self) -> BackendErrorException:
        """The same error, for raising."""
        return BackendErrorException(*msgspec.structs.astuple(self))


class BackendErrorException(KlawError):
    """Raised for BackendError: the backend failed."""

    _struct_type = BackendError
    message: str
    backend: str

    def to_struct(self) -> BackendError:
        """The same error as a value."""
        struct: BackendError = self._struct
        return struct


class ActorStopped(msgspec.Struct, frozen=True):
    """The actor is not running.

    name: the actor.
    reason: why, for people.
    """

    name: str = ""
    reason: str = "stopped"

    def __str__(self) -> str:
        return f"{self.name or 'actor'}: {self.reason}"

    def to_exception(self) -> ActorStoppedError:
        """The same error, for raising."""
        return ActorStoppedError(*msgspec.structs.astuple(self))


class ActorStoppedError(KlawError):
    """Raised for ActorStopped: the actor is not running."""

    _struct_type = ActorStopped
    name: str
    reason: str

    def to_struct(self) -> ActorStopped:
        """The same error as a value."""
        struct: ActorStopped = self._struct
        return struct


class ActorNotFound(msgspec.Struct, frozen=True):
    """No actor has this name.

    name: the name.
    """

    name: str = ""

    def __str__(self) -> str:
        return f"no actor is named {self.name!r}"

    def to_exception(self) -> ActorNotFoundError:
        """The same error, for raising."""
        return ActorNotFoundError(*msgspec.structs.astuple(self))


class ActorNotFoundError(KlawError, LookupError):
    """Raised for ActorNotFound: no actor has this name."""

    _struct_type = ActorNotFound
    name: str

    def to_struct(self) -> ActorNotFound:
        """The same error as a value."""
        struct: ActorNotFound = self._struct
        return struct


class ChannelTypeError(msgspec.Struct, frozen=True):
    """An element of the wrong type.

    expected: the type of the channel.
    got: the type of the element.
    """

    expected: str = ""
    got: str = ""

    def __str__(self) -> str:
        return f"expected {self.expected}, got {self.got}"

    def to_exception(self) -> ChannelTypeErrorException:
        """The same error, for raising."""
        return ChannelTypeErrorException(*msgspec.structs.astuple(self))


class ChannelTypeErrorException(KlawError, TypeError):
    """Raised for ChannelTypeError: an element of the wrong type."""

    _struct_type = ChannelTypeError
    expected: str
    got: str

    def to_struct(self) -> ChannelTypeError:
        """The same error as a value."""
        struct: ChannelTypeError = self._struct
        return struct


class LimitExceeded(msgspec.Struct, frozen=True):
    """Over a documented limit.

    limit: the most that is allowed.
    wanted: what was asked for.
    """

    limit: int = 0
    wanted: int = 0

    def __str__(self) -> str:
        return f"{self.wanted} is over the limit of {self.limit}"

    def to_exception(self) -> LimitExceededError:
        """The same error, for raising."""
        return LimitExceededError(*msgspec.structs.astuple(self))


class LimitExceededError(KlawError):
    """Raised for LimitExceeded: over a documented limit."""

    _struct_type = LimitExceeded
    limit: int
    wanted: int

    def to_struct(self) -> LimitExceeded:
        """The same error as a value."""
        struct: LimitExceeded = self._struct
        return struct


class Uncertain(msgspec.Struct, frozen=True):
    """A remote send may or may not have happened; it arrives at most once.

    message: what went wrong.
    """

    message: str = ""

    def __str__(self) -> str:
        return self.message or "may or may not have been sent"

    def to_exception(self) -> UncertainError:
        """The same error, for raising."""
        return UncertainError(*msgspec.structs.astuple(self))


class UncertainError(KlawError):
    """Raised for Uncertain: a remote send may or may not have happened; it arrives at most once."""

    _struct_type = Uncertain
    message: str

    def to_struct(self) -> Uncertain:
        """The same error as a value."""
        struct: Uncertain = self._struct
        return struct
