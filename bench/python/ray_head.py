# SPDX-License-Identifier: Apache-2.0
"""A local Ray for the benches: prints its address, ends when its stdin does. bench/run.py starts it once for all."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile

HOME = tempfile.mkdtemp(prefix="kb-")
os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0", RAY_TMPDIR=HOME)


def main() -> None:
    """The program."""
    from klaw_core.runtime._backends._ray_connect import ensure_ray  # noqa: PLC0415

    ray = ensure_ray("local", "klaw", num_cpus=8, object_store_memory=300 << 20, log_to_driver=False)
    try:
        print(ray.get_runtime_context().gcs_address, flush=True)
        sys.stdin.read()
    finally:
        ray.shutdown()
        shutil.rmtree(HOME, ignore_errors=True)


if __name__ == "__main__":
    main()
