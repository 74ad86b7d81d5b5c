# SPDX-License-Identifier: Apache-2.0
"""What stood in ``klaw_core.async_`` is found in the runtime and flat in the package; the old place is empty."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys

import klaw_core
import pytest
from klaw_core import runtime

MOVED = {
    "AsyncResult": "result",
    "async_buffered": "itertools",
    "async_chunked": "itertools",
    "async_collect": "itertools",
    "async_filter": "itertools",
    "async_first_ok": "itertools",
    "async_lru_safe": "cache",
    "async_map": "itertools",
    "async_merge": "itertools",
    "async_partition": "itertools",
    "async_race_ok": "itertools",
}


@pytest.mark.parametrize("name", MOVED)
def test_a_moved_name_is_one_object_at_each_place(name: str) -> None:
    module = importlib.import_module(f"klaw_core.runtime.{MOVED[name]}")
    assert getattr(module, name) is getattr(runtime, name) is getattr(klaw_core, name)


def test_the_old_package_is_gone() -> None:
    assert importlib.util.find_spec("klaw_core.async_") is None


@pytest.mark.parametrize("name", runtime.__all__)
def test_every_name_of_the_runtime_can_be_imported_flat(name: str) -> None:
    assert getattr(klaw_core, name) is getattr(runtime, name)
    assert name in dir(klaw_core)


def test_a_name_that_is_nowhere_is_refused() -> None:
    with pytest.raises(AttributeError, match="'klaw_core' has no attribute 'nothing_of_this_name'"):
        _ = klaw_core.nothing_of_this_name
    with pytest.raises(ImportError):
        exec("from klaw_core import nothing_of_this_name")


def test_results_alone_do_not_load_the_runtime() -> None:
    code = """
import sys
from klaw_core import Ok
assert "klaw_core.runtime" not in sys.modules
from klaw_core import channel
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
