# SPDX-License-Identifier: Apache-2.0
"""Every public name is where the documents say, has a docstring, and is in the flat namespace."""

from __future__ import annotations

import importlib
import importlib.resources
import inspect
import subprocess
import sys

import klaw_core.runtime
import pytest

R = "klaw_core.runtime"
NAMES = {
    "klaw_core": "Ok Err Result Some Nothing Option",
    "klaw_core.result": "Ok Err Result Some Nothing Option UnwrapError",
    f"{R}.errors": """ChannelClosed ChannelClosedError ChannelFull ChannelFullError ChannelEmpty ChannelEmptyError
        ChannelLagged ChannelLaggedError ChannelBackendError ChannelBackendErrorException Timeout TimeoutExpiredError
        Cancelled TaskCancelledError BackendError BackendErrorException ActorStopped ActorStoppedError ActorNotFound
        ActorNotFoundError ChannelTypeError ChannelTypeErrorException LimitExceeded LimitExceededError Uncertain
        UncertainError""",
    f"{R}.channels.errors": "ChannelClosed ChannelClosedError ChannelFull ChannelFullError ChannelEmpty ChannelLagged",
    f"{R}._config": "Backend RuntimeConfig init get_config _detect_backend _detect_concurrency",
    f"{R}._backends": "ExecutorBackend",
    f"{R}._backends.local": "LocalBackend",
    f"{R}._logging": "get_logger add_hook",
    f"{R}.executor": "Executor TaskHandle",
    f"{R}.cancel": "cancel_scope CancelScope",
    f"{R}.timeout": "timeout",
    f"{R}.retry": "retry",
    f"{R}.context": "Context context current_context",
    f"{R}.channels": """channel oneshot broadcast watch select get_channel delete_channel list_channels Sender Receiver
        ReferenceSender ReferenceReceiver ChannelStats ChannelCheckpoint""",
    f"{R}.channels.local": "LocalSender LocalReceiver channel",
    f"{R}.channels.oneshot": "OneshotSender OneshotReceiver oneshot",
    f"{R}.channels.broadcast": "BroadcastSender BroadcastReceiver broadcast",
    f"{R}.channels.watch": "WatchSender WatchReceiver watch",
    f"{R}.channels.select": "select",
    f"{R}.channels.native": "NativeSender NativeReceiver native_channel from_capsule",
    f"{R}.channels.factory": "channel get_channel delete_channel list_channels",
    f"{R}.channels.protocols": "Sender Receiver ReferenceSender ReferenceReceiver",
    f"{R}.channels.stats": "ChannelStats ChannelCheckpoint",
    f"{R}.actor": "Actor ActorRef spawn_actor",
    f"{R}.pool": "ActorPool actor_pool",
    f"{R}.registry": "get_actor whereis register unregister",
    f"{R}.supervisor": "Supervisor",
    f"{R}.checkpoint": "Checkpointer LocalCheckpointer",
    f"{R}.workflow": "Workflow WorkflowInfo StepInfo",
    f"{R}.result": "AsyncResult",
    f"{R}.cache": "async_lru_safe",
    f"{R}.itertools": """async_collect async_race_ok async_map async_filter async_partition async_first_ok
        async_buffered async_chunked async_merge""",
    f"{R}._runtime": "Runtime",
}
ALL = [(module, name) for module, names in NAMES.items() for name in names.split()]


@pytest.mark.parametrize(("module", "name"), ALL)
def test_the_name_is_there_and_flat(module: str, name: str) -> None:
    found = getattr(importlib.import_module(module), name)
    if not name.startswith("_") and module != f"{R}._backends.local" and ".channels." not in module:
        assert getattr(klaw_core.runtime, name) is found


@pytest.mark.parametrize("name", klaw_core.runtime.__all__)
def test_every_flat_name_has_a_docstring(name: str) -> None:
    found = getattr(klaw_core.runtime, name)
    if inspect.isclass(found) or inspect.isroutine(found):
        assert inspect.getdoc(found), name


def test_the_flat_list_has_no_doubles_and_keeps_its_word() -> None:
    names = klaw_core.runtime.__all__
    assert len(names) == len(set(names))
    space: dict[str, object] = {}
    exec("from klaw_core.runtime import *", space)
    assert set(names) <= set(space)


def test_the_package_is_typed() -> None:
    folder = importlib.resources.files("klaw_core")
    assert (folder / "py.typed").is_file() and (folder / "_klaw.pyi").is_file()


FORK = """
import asyncio, os, sys, warnings
warnings.simplefilter("ignore")
from klaw_core.runtime import Executor, LocalCheckpointer
from klaw_core._klaw import channel

tx, rx = channel(4)
tx.send_sync("before")

async def use():
    tx, rx = channel(1)
    await tx.send(1)
    return await rx.recv()

async def executor():
    async with Executor() as ex:
        return await ex.submit(abs, -1)

assert asyncio.run(use()) == 1
pid = os.fork()
if pid == 0:
    refused = 0
    for attempt in (
        lambda: tx.send_sync(1), lambda: rx.recv_sync(1), lambda: rx.try_recv_sync(), lambda: channel(1),
        lambda: asyncio.run(use()), lambda: asyncio.run(executor()),
        lambda: asyncio.run(LocalCheckpointer(sys.argv[1]).save("a", 1)),
    ):
        try:
            attempt()
        except RuntimeError as error:
            refused += "fork" in str(error) or "not running" in str(error)
    os._exit(100 + refused)
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
assert rx.recv_sync() == "before" and asyncio.run(use()) == 1, "the parent goes on"
print(status)
"""


def test_the_child_of_a_fork_is_refused_and_the_parent_goes_on(tmp_path: object) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK, f"{tmp_path}/own/"], capture_output=True, text=True, check=True, timeout=20
    )
    assert done.stdout == "107\n"
