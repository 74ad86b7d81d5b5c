# SPDX-License-Identifier: Apache-2.0
"""The runtime's public names, flat.

A process that has used klaw may fork, but klaw does not run in the child: every operation there raises RuntimeError,
and the parent is not disturbed. Start worker processes by spawn or forkserver, as ``Executor(workers="processes")``
does."""

from __future__ import annotations

from klaw_core.result import Err, Nothing, NothingType, Ok, Option, Result, Some, UnwrapError
from klaw_core.runtime import errors as _errors
from klaw_core.runtime._backends import ExecutorBackend
from klaw_core.runtime._config import Backend, RuntimeConfig, get_config, init
from klaw_core.runtime._logging import add_hook, get_logger
from klaw_core.runtime._runtime import Runtime, ShutdownReport
from klaw_core.runtime.actor import Actor, ActorRef, spawn_actor
from klaw_core.runtime.cache import async_lru_safe
from klaw_core.runtime.cancel import CancelScope, cancel_scope
from klaw_core.runtime.channels import *  # noqa: F403
from klaw_core.runtime.channels import __all__ as _channels
from klaw_core.runtime.checkpoint import Checkpointer, LocalCheckpointer
from klaw_core.runtime.context import Context, context, current_context
from klaw_core.runtime.errors import *  # noqa: F403
from klaw_core.runtime.executor import Executor, TaskHandle
from klaw_core.runtime.itertools import *  # noqa: F403
from klaw_core.runtime.itertools import __all__ as _itertools
from klaw_core.runtime.pool import ActorPool, actor_pool
from klaw_core.runtime.registry import get_actor, register, unregister, whereis
from klaw_core.runtime.result import AsyncResult
from klaw_core.runtime.retry import retry
from klaw_core.runtime.supervisor import ChildInfo, Supervisor, SupervisorGaveUpError
from klaw_core.runtime.timeout import timeout
from klaw_core.runtime.tracing import use_opentelemetry
from klaw_core.runtime.workflow import StepInfo, Workflow, WorkflowInfo

__all__ = [  # noqa: PLE0604
    "Actor",
    "ActorPool",
    "ActorRef",
    "AsyncResult",
    "Backend",
    "CancelScope",
    "Checkpointer",
    "ChildInfo",
    "Context",
    "Err",
    "Executor",
    "ExecutorBackend",
    "LocalCheckpointer",
    "Nothing",
    "NothingType",
    "Ok",
    "Option",
    "Result",
    "Runtime",
    "RuntimeConfig",
    "ShutdownReport",
    "Some",
    "StepInfo",
    "Supervisor",
    "SupervisorGaveUpError",
    "TaskHandle",
    "UnwrapError",
    "Workflow",
    "WorkflowInfo",
    "actor_pool",
    "add_hook",
    "async_lru_safe",
    "cancel_scope",
    "context",
    "current_context",
    "get_actor",
    "get_config",
    "get_logger",
    "init",
    "register",
    "retry",
    "spawn_actor",
    "timeout",
    "unregister",
    "use_opentelemetry",
    "whereis",
    *_channels,
    *_errors.__all__,
    *_itertools,
]
