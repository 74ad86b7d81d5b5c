# SPDX-License-Identifier: Apache-2.0
"""What the executors run; worker processes import it."""


def half(n: int) -> int:
    """A tiny function."""
    return n // 2
