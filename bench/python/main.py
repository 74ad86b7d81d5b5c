# SPDX-License-Identifier: Apache-2.0
"""The Python benches, klaw_core's and the peers', by the contract of bench/run.py."""

from __future__ import annotations

import sys

import actors  # noqa: F401
import channels  # noqa: F401
import executors  # noqa: F401
import fanout  # noqa: F401
import footprint  # noqa: F401
import remote  # noqa: F401
import threads  # noqa: F401
from cases import CASES

UNITS = {"py_import": "ms", "py_import_mem": "bytes", "py_mem_recv": "bytes"}


def main() -> None:
    """--list, or one run of JOB IMPL."""
    if sys.argv[1:] == ["--list"]:
        for job, impl in CASES:
            print(job, impl)
        return
    job, impl = sys.argv[1:]
    if (job, impl) not in CASES:
        raise SystemExit(f"no such case: {job} {impl}")
    print(f"{job} {impl} {CASES[job, impl]():.3f} {UNITS.get(job, 'ns')}")


if __name__ == "__main__":  # worker processes import this file
    main()
