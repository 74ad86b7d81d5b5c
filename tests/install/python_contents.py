# SPDX-License-Identifier: Apache-2.0
"""python_contents.py <sdist> <wheel>: what has to be in them is, and nothing else."""

import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path


def check_sdist(path: str) -> None:
    with tarfile.open(path) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    for wanted in ("pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE", "PKG-INFO", "include/klaw/klaw.h"):
        assert wanted in names, wanted
    for folder in ("src/sync/", "python/klaw_core/_klaw/", "python/klaw_core/runtime/", "cmake/"):
        assert any(name.startswith(folder) for name in names), folder
    strange = [
        name for name in names if re.match(r"(tests|bench|examples|build|tools|\.)|.*(\.o|\.so|\.pyc|\.log)$", name)
    ]
    assert not [name for name in strange if name != ".gitignore"], strange


def check_wheel(path: str) -> None:
    assert re.search(r"/klaw_core-[0-9.]+-cp3\d+-cp3\d+-linux_(x86_64|aarch64)\.whl$", path), path
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
        names = archive.namelist()
        archive.extractall(folder)
        metadata = archive.read(next(name for name in names if name.endswith(".dist-info/METADATA"))).decode()
        [extension] = [name for name in names if re.match(r"klaw_core/_klaw\.cpython-.*\.so$", name)]
        dynamic, ray = (
            subprocess.run(["readelf", "-d", Path(folder, name)], capture_output=True, text=True, check=True).stdout
            for name in (extension, "klaw_core/libklaw_ray.so.0")
        )
    tops = {name.split("/")[0] for name in names}
    assert len(tops) == 2 and "klaw_core" in tops, tops
    libraries = sorted(name for name in names if ".so" in name and name != extension)
    assert libraries == ["klaw_core/libklaw.so.0", "klaw_core/libklaw_ray.so.0"], libraries
    assert not [name for name in names if name.endswith((".c", ".h", ".pyc"))]
    for wanted in ("__init__.py", "py.typed", "_klaw.pyi", "runtime/__init__.py", "runtime/channels/__init__.py"):
        assert f"klaw_core/{wanted}" in names, wanted
    assert re.search(r"NEEDED.*\[libklaw\.so\.0\]", dynamic), dynamic
    assert re.search(r"(RUNPATH|RPATH).*\[\$ORIGIN\]", dynamic), dynamic
    # libklaw hands it its functions, and it loads the interpreter's library, or finds it in the process.
    assert not re.search(r"NEEDED.*\[(libklaw|libpython)", ray), ray
    assert re.search(r"SONAME.*\[libklaw_ray\.so\.0\]", ray), ray
    for line in ("Name: klaw-core", "Provides-Extra: ray", "Provides-Extra: dev", "Requires-Python: >=3.11"):
        assert line in metadata, line


check_sdist(sys.argv[1])
check_wheel(sys.argv[2])
print("contents: as they should be")
