# SPDX-License-Identifier: Apache-2.0
"""A workflow's step as a Ray task."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from klaw_core.result import Err
from klaw_core.runtime._backends._ray_connect import ensure_ray
from klaw_core.runtime._backends.ray.executor import TASK_OPTIONS, library_of_loop, refusal, with_excludes
from klaw_core.runtime._backends.ray.tasks import Head, run_task, task_of
from klaw_core.runtime._backends.ray.untyped import exceptions, ray
from klaw_core.runtime._backends.ray.wire import cancel, explain, settle, unpack
from klaw_core.runtime.context import current_context

__all__ = ["RayStep", "ensure_ray"]


class RayStep:
    """Each call of it is an attempt. options: of Ray's tasks. Made on the loop that waits for the step."""

    def __init__(
        self, name: str, function: Callable[..., Any], args: Any, kwargs: Any, options: dict[str, Any]
    ) -> None:
        for key in options:
            if key not in TASK_OPTIONS:
                raise ValueError(f"a step on Ray has no option {key!r}; it has: {', '.join(TASK_OPTIONS)}")
        self._name = f"step {name}"
        self._work = (function, args, kwargs)
        self._options = {"name": self._name, **options}
        if "runtime_env" in options:
            self._options["runtime_env"] = with_excludes(options["runtime_env"])
        self._head = Head(current_context(), math.inf, library_of_loop(), bool(options.get("retry_exceptions")))

    async def __call__(self) -> Any:
        """What the function returns; raises what it raises. When it is cancelled, so is the task."""
        function, args, kwargs = self._work
        try:
            ref = ray.remote(run_task).options(**self._options).remote(task_of(function, self._head), *args, **kwargs)
        except Exception as error:
            raise refusal(self._name, error).to_exception() from error
        try:
            result = unpack(await settle(ref))
        except exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if self._head.raises and isinstance(cause, Exception) and not isinstance(cause, exceptions.RayError):
                raise cause from None
            result = explain(error, self._name, "the workflow's step was cancelled")
        except BaseException:
            cancel(ref)
            raise
        if isinstance(result, Err):
            failure = result.error
            raise failure if isinstance(failure, BaseException) else failure.to_exception()
        return result.value
