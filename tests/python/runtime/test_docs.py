# SPDX-License-Identifier: Apache-2.0
"""Every example in a docstring runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import klaw_core
import pytest

MODULES = sorted(
    info.name
    for info in pkgutil.walk_packages(klaw_core.__path__, "klaw_core.")
    if not info.name.endswith(("._klaw", "._trio")) and ".ray" not in info.name
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert outcome.failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = sum(bool(test.examples) for name in MODULES for test in finder.find(importlib.import_module(name)))
    assert found > 30
