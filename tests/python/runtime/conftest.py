# SPDX-License-Identifier: Apache-2.0
"""No test of the runtime hangs: after a while it is failed where it stands."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

LIMIT = 20.0  # seconds


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """Raises in the main thread when the test takes too long."""

    def late(_number: int, _frame: FrameType | None) -> Any:
        raise TimeoutError(f"the test was not done after {LIMIT:.0f} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
