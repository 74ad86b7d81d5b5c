# SPDX-License-Identifier: Apache-2.0
"""Every name of Ray channels can be imported from where it is documented, and the examples in docstrings run. Needs
Ray as a package, but no cluster."""

from __future__ import annotations

import doctest
import importlib
import inspect

import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install 'klaw-core[ray]'")

pytestmark = pytest.mark.ray

PACKAGE = "klaw_core.runtime.channels.ray"
NAMES = {
    "constants": "DEFAULT_RAY_NAMESPACE ReaderInfo SingleResult BatchResult",
    "actor": "RayChannelActor _TypeValidator _ChannelActorState",
    "core": "RaySender RayReceiver",
    "reference": "RayReferenceSender RayReferenceReceiver",
    "broadcast": "RayBroadcastActor RayBroadcastSender RayBroadcastReceiver",
    "watch": "RayWatchActor RayWatchSender RayWatchReceiver",
    "supervisor": "ChannelSupervisor get_channel_supervisor",
    "pools": "ChannelReader ReaderPoolController",
    "factory": "ray_channel get_ray_channel delete_ray_channel list_ray_channels ray_broadcast_channel"
    " ray_watch_channel ray_reference_channel",
}
METHODS = {
    "RayChannelActor": "register_sender deregister_sender register_receiver deregister_receiver put put_nowait get"
    " get_nowait put_batch put_nowait_batch get_batch get_metadata get_stats get_checkpoint_state"
    " apply_checkpoint_state get_capacity is_closed get_reader_stats _update_watermark _update_reader_stats",
    "RayBroadcastActor": "register_receiver send recv get_metadata",
    "RayWatchActor": "send recv borrow get_metadata",
    "RaySender": "send try_send send_batch clone close",
    "RayReceiver": "recv try_recv recv_batch __aiter__ __anext__ clone close",
    "RayWatchReceiver": "borrow changed",
    "ChannelSupervisor": "create_channel delete_channel list_channels get_checkpoint restore_from_checkpoint",
    "ChannelReader": "start process",
    "ReaderPoolController": "scale num_readers",
}


@pytest.mark.parametrize("module", NAMES)
def test_names_and_examples(module: str) -> None:
    loaded = importlib.import_module(f"{PACKAGE}.{module}")
    for name in NAMES[module].split():
        value = getattr(loaded, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, name
        for method in METHODS.get(name, "").split():
            assert callable(getattr(value, method)), f"{name}.{method}"
    if module != "constants":
        assert all(hasattr(importlib.import_module(PACKAGE), name) for name in NAMES[module].split() if name[0] != "_")
    assert doctest.testmod(loaded, optionflags=doctest.ELLIPSIS).failed == 0


def test_importing_the_runtime_does_not_import_ray() -> None:
    import subprocess  # noqa: PLC0415
    import sys  # noqa: PLC0415

    program = "import sys, klaw_core.runtime; sys.exit('ray' in sys.modules or 'sunray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
