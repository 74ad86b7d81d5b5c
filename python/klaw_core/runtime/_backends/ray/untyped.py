# SPDX-License-Identifier: Apache-2.0
"""Ray without its types, which differ from version to version."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["cloudpickle", "exceptions", "ray"]

ray: Any = importlib.import_module("ray")
cloudpickle: Any = importlib.import_module("ray.cloudpickle")
exceptions: Any = importlib.import_module("ray.exceptions")
