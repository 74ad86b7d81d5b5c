# SPDX-License-Identifier: Apache-2.0
"""Tests of tools/doxyfilter.py: what it makes of the comments, and that an undocumented declaration stays one."""

import importlib.util
from pathlib import Path

TOOL = Path(__file__).resolve().parents[2] / "tools" / "doxyfilter.py"
spec = importlib.util.spec_from_file_location("doxyfilter", TOOL)
assert spec and spec.loader
doxyfilter = importlib.util.module_from_spec(spec)
spec.loader.exec_module(doxyfilter)

HEAD = "/* SPDX-License-Identifier: Apache-2.0 */\n/* x.h - a header. */\n#define KLAW_X_H\n\n"


def converted(body: str) -> list[str]:
    text = doxyfilter.convert(HEAD + body)
    assert text.count("\n") == (HEAD + body).count("\n"), "lines keep their numbers"
    return text.split("\n")[4:]


def test_the_first_comment_is_the_file() -> None:
    assert doxyfilter.convert(HEAD).split("\n")[:3] == ["/** @file", " * a header. */", "#define KLAW_X_H"]


def test_a_comment_documents_its_group() -> None:
    lines = converted(
        "/* Both,\n * really. */\nKLAW_API void f(void);\nKLAW_API void g(void);\n\nKLAW_API void h(void);\n"
    )
    assert lines[0] == "/** Both,"
    assert lines[2] == "KLAW_API void f(void);"
    assert lines[3] == "/** Both, really. */ KLAW_API void g(void);"
    assert lines[5] == "KLAW_API void h(void);"


def test_members_and_trailing_comments() -> None:
    lines = converted(
        "/* S. */\ntypedef struct s {\n    int a; /* in ns */\n    int b;\n    /* C. */\n    int c;\n} s;\n"
    )
    assert lines[2] == "    int a; /**< in ns */"
    assert lines[3] == "    int b; /**< See the description of the whole. */"
    assert lines[4:6] == ["    /** C. */", "    int c;"]


def test_a_trailing_comment_may_go_on() -> None:
    lines = converted("/* S. */\ntypedef struct s {\n    int a; /* in ns,\n              or not */\n    int b;\n} s;\n")
    assert lines[2:5] == [
        "    int a; /**< in ns,",
        "              or not */",
        "    int b; /**< See the description of the whole. */",
    ]


def test_x_macro_lists_become_enumerators() -> None:
    body = '#define KLAW_ERR_LIST(X) \\\n    X(OK, 0, "success") \\\n    X(FULL, 1, "no room")\n'
    lines = converted(body + "/* E. */\ntypedef enum e {\n    KLAW_ERR_LIST(ENUM)\n} e;\n")
    assert lines[5] == "KLAW_OK = 0, /**< success. */ KLAW_FULL = 1, /**< no room. */"
