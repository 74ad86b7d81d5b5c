# SPDX-License-Identifier: Apache-2.0
"""The README's program is a real one: it compiles without a warning and prints what it says."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_example_of_the_readme_compiles_and_runs(tmp_path: Path) -> None:
    build = Path(os.environ.get("KLAW_BUILD_DIR", ROOT / "build" / "release"))
    if not (build / "libklaw.so").exists():
        pytest.skip(f"no library in {build.name}")
    example = re.search(r"```c\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert example
    source, program = tmp_path / "readme.c", tmp_path / "readme"
    source.write_text(example.group(1))
    compiler = shutil.which(os.environ.get("CC", "cc"))
    assert compiler
    flags = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{ROOT / 'include'}"]
    libraries = [f"-L{build}", "-lklaw", f"-Wl,-rpath,{build}"]
    subprocess.run([compiler, *flags, source, "-o", program, *libraries], check=True)
    run = subprocess.run([program], capture_output=True, text=True, timeout=30, check=False)
    assert (run.returncode, run.stdout) == (0, "42\n")
