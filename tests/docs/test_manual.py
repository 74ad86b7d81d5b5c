# SPDX-License-Identifier: Apache-2.0
"""Every code block of the manual and of the README is compiled or run.

C: a block with a main is a program; any other one is the body of a first fiber. Python: a block that calls asyncio.run
is a program; the others of a page are run one after the other as one program, with await at top level. A block's last
comment lines `# -> text` (C: `/* -> text */`) are what it prints. Blocks of other languages are not run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("docs/**/*.md"), ROOT / "README.md"])
LIB = ROOT / "build" / "release"
FENCE = re.compile(r"^```(\w[\w+-]*)([^\n]*)\n(.*?)^```$", re.M | re.S)
WANTED = re.compile(r"^\s*(?:# -> (.*)|/\* -> (.*?) \*/)$", re.M)

C_BODY = """#include <klaw/klaw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static klaw_err first(void *arg) {{
    (void)arg;
    {{
{body}
    }}
    return KLAW_OK;
}}
int main(void) {{
    klaw_err e = klaw_run(first, NULL, NULL);
    if (e)
        fprintf(stderr, "%s\\n", klaw_err_text(e));
    return (int)e;
}}
"""

PY_RUN = """import ast, asyncio, inspect, sys
source = sys.stdin.read()
code = compile(source, sys.argv[1], "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
names = {"__name__": "__main__"}
async def main():
    result = eval(code, names)
    if inspect.iscoroutine(result):
        await result
asyncio.run(main())
"""


def blocks(language: str) -> list[tuple[Path, int, str, str]]:
    """Page, line, what stands behind the language, text."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            if match[1] == language:
                found.append((page, text.count("\n", 0, match.start()) + 1, match[2].strip(), match[3]))
    return found


def ray_or_not(mark: str) -> list[pytest.MarkDecorator]:
    """A block whose fence says ```python ray needs Ray."""
    return [pytest.mark.ray] if mark == "ray" else []


def named(items: list[tuple[Path, int, str, str]]) -> list[object]:
    return [
        pytest.param(*item, id=f"{item[0].relative_to(ROOT)}:{item[1]}", marks=ray_or_not(item[2])) for item in items
    ]


def check_output(source: str, output: str) -> None:
    wanted = [a or b for a, b in WANTED.findall(source)]
    if wanted:
        assert [line.rstrip() for line in output.splitlines()] == [line.rstrip() for line in wanted]


@pytest.mark.parametrize("page,line,mark,source", named(blocks("c")))
def test_c_block(page: Path, line: int, mark: str, source: str, tmp_path: Path) -> None:
    text = source if "int main(" in source else C_BODY.format(body=source)
    file = tmp_path / "block.c"
    file.write_text(text, encoding="utf-8")
    compiler = os.environ.get("CC", "cc")
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unused-but-set-variable"]
    built = subprocess.run(
        [compiler, *flags, f"-I{ROOT}/include", str(file), "-o", str(tmp_path / "block"), f"-L{LIB}", "-lklaw"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert built.returncode == 0, f"{page.name}:{line}\n{built.stderr}"
    ran = subprocess.run(
        [str(tmp_path / "block")],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={**os.environ, "LD_LIBRARY_PATH": str(LIB)},
        check=False,
    )
    assert ran.returncode == 0, f"{page.name}:{line}\n{ran.stdout}{ran.stderr}"
    check_output(source, ran.stdout)


def run_python(name: str, source: str, where: Path, program: bool) -> None:
    command = [sys.executable, "-", name] if program else [sys.executable, "-c", PY_RUN, name]
    ran = subprocess.run(
        command,
        input=source,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=where,
        env={**os.environ, "HOME": str(where)},
        check=False,
    )
    assert ran.returncode == 0, f"{name}\n{ran.stdout}{ran.stderr}"
    check_output(source, ran.stdout)


@pytest.mark.parametrize("page,line,mark,source", named([b for b in blocks("python") if "asyncio.run(" in b[3]]))
def test_python_program(page: Path, line: int, mark: str, source: str, tmp_path: Path) -> None:
    run_python(f"{page.name}:{line}", source, tmp_path, True)


def pages() -> list[object]:
    found: dict[tuple[Path, str], list[str]] = {}
    for page, line, mark, source in blocks("python"):
        if "asyncio.run(" not in source:
            # Blank lines in front keep a traceback's line numbers those of the page.
            so_far = found.setdefault((page, mark), [])
            missing = line - sum(text.count("\n") for text in so_far)
            so_far.append("\n" * missing + source)
    return [
        pytest.param(page, "".join(parts), id=f"{page.relative_to(ROOT)}{mark}", marks=ray_or_not(mark))
        for (page, mark), parts in found.items()
    ]


@pytest.mark.parametrize("page,source", pages())
def test_python_page(page: Path, source: str, tmp_path: Path) -> None:
    run_python(page.name, source, tmp_path, False)


def test_the_reference_has_every_header() -> None:
    text = (ROOT / "docs" / "reference" / "c.md").read_text(encoding="utf-8")
    listed = sorted(re.findall(r"\{doxygenfile\} (\S+)", text))
    assert listed == sorted(path.name for path in ROOT.glob("include/klaw/*.h"))
