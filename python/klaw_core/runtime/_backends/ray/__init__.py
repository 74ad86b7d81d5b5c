# SPDX-License-Identifier: Apache-2.0
"""The Ray backend: tasks, actors and workflow steps on a cluster. Importing this imports Ray.

Workers need klaw-core, and the modules of what is sent to them; functions of ``__main__`` travel by value.
"""

from __future__ import annotations

from klaw_core.runtime._backends._ray_connect import DEFAULT_RUNTIME_ENV_EXCLUDES, ensure_ray
from klaw_core.runtime._backends.ray.executor import RayBackend

__all__ = ["DEFAULT_RUNTIME_ENV_EXCLUDES", "RayBackend", "_ensure_ray_init"]

_ensure_ray_init = ensure_ray
