# SPDX-License-Identifier: Apache-2.0
"""Tests of tools/tidy.py: each rule passes good input and catches the bad one it is there for."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

TIDY = Path(__file__).resolve().parents[2] / "tools" / "tidy.py"
spec = importlib.util.spec_from_file_location("tidy", TIDY)
assert spec and spec.loader
tidy = importlib.util.module_from_spec(spec)
sys.modules["tidy"] = tidy
spec.loader.exec_module(tidy)

HEAD = "/* SPDX-License-Identifier: Apache-2.0 */\n"
PUBLIC = HEAD + "/* x.h - a header. */\n#ifndef KLAW_X_H\n#define KLAW_X_H\n\n"


def rules(path: str, text: str, warnings: bool = False) -> list[str]:
    return [f.rule for f in tidy.check_file(path, text) if f.warning == warnings]


def source(body: str, name: str = "a.c") -> str:
    return f"{HEAD}/* {name} - for a test. */\n{body}"


def body_of(lines: int) -> str:
    """A function of that many lines, its braces included."""
    return "static int long_one(int x) {\n" + "    x++;\n" * (lines - 2) + "}\n"


def test_a_good_file_is_clean() -> None:
    text = source('#include "plat/futex.h"\n#include "klaw/err.h"\n#include <stdio.h>\n\nint f(int x) { return x; }\n')
    assert rules("src/base/a.c", text) == []


@pytest.mark.parametrize(
    "include",
    [
        '"sync/channel.h"',
        '"runtime/config.h"',
        '"../sync/channel.h"',
        '"../plat/futex.h"',
        '"nowhere/a.h"',
        "<plat/futex.h>",
    ],
)
def test_layer_refuses_what_is_not_below(include: str) -> None:
    assert rules("src/sched/a.c", source(f"#include {include}\n")) == ["layer"]


@pytest.mark.parametrize(
    "include", ['"plat/futex.h"', '"sched/worker.h"', '"worker.h"', '"klaw/err.h"', "<sys/types.h>"]
)
def test_layer_accepts_what_is_below(include: str) -> None:
    assert rules("src/sched/a.c", source(f"#include {include}\n")) == []


@pytest.mark.parametrize("include", ['"sched/worker.h"', '"worker.h"', "<plat/futex.h>"])
def test_layer_keeps_internals_out_of_public_headers(include: str) -> None:
    assert rules("include/klaw/x.h", PUBLIC + f"#include {include}\n#endif\n") == ["layer"]


def test_tests_may_include_everything() -> None:
    assert rules("tests/unit/plat/a.c", source('#include "sync/channel.h"\n')) == []


def test_length_of_files() -> None:
    assert rules("src/base/a.c", source("\n".join(["int x;"] * 798) + "\n")) == []
    assert rules("src/base/a.c", source("\n".join(["int x;"] * 799) + "\n")) == ["length"]


@pytest.mark.parametrize(("lines", "warned", "failed"), [(100, 0, 0), (101, 1, 0), (150, 1, 0), (151, 0, 1)])
def test_length_of_functions(lines: int, warned: int, failed: int) -> None:
    text = source("struct s {\n    int x;\n};\nstatic const int table[] = {1, 2};\n" + body_of(lines))
    assert rules("src/base/a.c", text, warnings=True) == ["length"] * warned
    assert rules("src/base/a.c", text) == ["length"] * failed


def test_functions_are_found_among_other_braces() -> None:
    code = tidy.blank_code(
        "enum e { A, B };\n"
        'const char *s = "{";\n'
        "#define M(x) \\\n    { x\n"
        "static inline int one(int x) {\n    if (x) {\n        x--;\n    }\n    return x; /* } */\n}\n"
        "int two(void)\n{\n    char c = '{';\n    return c;\n}\n"
    )
    assert [(name, count) for _, count, name in tidy.functions(code)] == [("one", 6), ("two", 5)]


def test_opening() -> None:
    assert rules("src/base/a.c", "int x;\n") == ["opening"]
    assert rules("src/base/a.c", HEAD + "int x;\n") == ["opening"]
    assert rules("src/base/a.c", HEAD + "/* b.c - another file's. */\nint x;\n") == ["opening"]
    assert rules("tests/unit/base/a.c", HEAD + "int x;\n") == []
    assert rules("tools/a.sh", "#!/bin/sh\nset -e\n") == ["opening"]
    assert rules("tools/a.sh", "#!/bin/sh\n# SPDX-License-Identifier: Apache-2.0\nset -e\n") == []


@pytest.mark.parametrize("word", ["TO" + "DO", "FIX" + "ME", "XX" + "X"])
def test_banned_marks(word: str) -> None:
    assert rules("README.md", f"This is a {word}.\n") == ["banned"]
    assert rules("src/base/a.c", source(f"/* {word}: later */\n")) == ["banned"]


@pytest.mark.parametrize("path", ["/r" + "oot/x", "/h" + "ome/ann/x", "/w" + "ork/main"])
def test_banned_paths(path: str) -> None:
    assert rules("HACKING.md", f"See {path} for it.\n") == ["banned"]
    assert rules("HACKING.md", f"See $PREFIX{path} or https://example.org{path}.\n") == []


@pytest.mark.parametrize("call", ["strcpy(a, b)", "sprintf (a, b)", "gets(a)", "strcat(a, b)"])
def test_banned_calls(call: str) -> None:
    assert rules("src/base/a.c", source(f"void f(void) {{ {call}; }}\n")) == ["banned"]


def test_allowed_neighbours_of_banned_calls() -> None:
    text = source('void f(void) { fgets(a, 1, b); snprintf(a, 1, b); /* strcpy(a, b) */ puts("gets("); }\n')
    assert rules("src/base/a.c", text) == []


@pytest.mark.parametrize(
    "declaration",
    [
        "KLAW_API void klaw_f(void);",
        "KLAW_API KLAW_MUST klaw_err klaw_f(int a,\n                                int b);",
        "static inline int klaw_f(void) {\n    return 0;\n}",
        "typedef struct klaw_x {\n    int a;\n} klaw_x;",
        "#define KLAW_X 1",
        "extern KLAW_API const int klaw_x;",
    ],
)
def test_doc_wants_a_comment_before_public_declarations(declaration: str) -> None:
    assert rules("include/klaw/x.h", PUBLIC + declaration + "\n#endif\n") == ["doc"]
    assert rules("include/klaw/x.h", PUBLIC + "/* What it does. */\n" + declaration + "\n#endif\n") == []
    assert rules("src/base/x.h", PUBLIC + declaration + "\n#endif\n") == []


def test_doc_one_comment_serves_a_group_but_not_past_a_gap() -> None:
    first = "/* Both. */\nKLAW_API void klaw_f(int a,\n                     int b);\n"
    second = "KLAW_API void klaw_g(void);\n#endif\n"
    assert rules("include/klaw/x.h", PUBLIC + first + second) == []
    assert rules("include/klaw/x.h", PUBLIC + first + "\n" + second) == ["doc"]


def test_doc_leaves_opaque_types_and_bodies_alone() -> None:
    text = PUBLIC + (
        "typedef struct klaw_x klaw_x;\n\n"
        "/* Options. */\ntypedef struct klaw_o {\n    int a;\n\n    int b;\n} klaw_o;\n"
        "\n/* Doubles. */\nstatic inline int klaw_f(int x) {\n    int y = x;\n\n    return y + x;\n}\n#endif\n"
    )
    assert rules("include/klaw/x.h", text) == []


@pytest.mark.parametrize(
    ("text", "count"),
    [("int x; \n", 1), ("\tint x;\n", 1), ("int x;", 1), ("int x;\n\n", 1), ("    \nint x;\n", 1), ("int x;\n", 0)],
)
def test_space(text: str, count: int) -> None:
    assert rules("src/base/a.c", source(text)) == ["space"] * count


def test_tabs_are_what_a_makefile_needs() -> None:
    assert rules("Makefile", "# SPDX-License-Identifier: Apache-2.0\nall:\n\t@true\n") == []


def test_the_program_reports_and_fails(tmp_path: Path) -> None:
    (tmp_path / "src" / "plat").mkdir(parents=True)
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "a.c").write_text("nobody looks here\n")
    bad = tmp_path / "src" / "plat" / "a.c"
    bad.write_text(source('#include "sync/channel.h"\n'))
    run = subprocess.run([sys.executable, "-B", TIDY, tmp_path], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stdout.startswith("src/plat/a.c:3: layer: plat must not include")
    bad.write_text(source('#include "plat/futex.h"\n'))
    run = subprocess.run([sys.executable, "-B", TIDY, tmp_path], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "tidy: 1 files, 0 errors, 0 warnings\n")
