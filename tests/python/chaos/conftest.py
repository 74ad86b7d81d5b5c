# SPDX-License-Identifier: Apache-2.0
"""Whether Ray is there."""

from __future__ import annotations

import importlib.util

import pytest

HAVE_RAY = importlib.util.find_spec("ray") is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Says why tests of Ray do not run on a Python that has none."""
    if not HAVE_RAY:
        for item in items:
            if item.get_closest_marker("ray"):
                item.add_marker(pytest.mark.skip(reason="Ray is not installed: pip install 'klaw-core[ray]'"))
