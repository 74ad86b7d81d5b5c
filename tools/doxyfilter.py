# SPDX-License-Identifier: Apache-2.0
"""doxyfilter.py - Doxygen's input filter for the public headers, whose comments are plain C ones.

    doxyfilter.py <header>      prints what Doxygen shall read

A comment on lines of its own documents what follows it without a gap, and every further declaration of that group. One
behind a declaration documents that declaration. A struct member without a comment is documented by its struct. The
first comment of a file, after the SPDX line, is the text of the file. The lines keep their numbers.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

MEMBER = re.compile(r"^[A-Za-z_][^;{}]*;$")
STATEMENT = re.compile(r"^(KLAW_API\b|extern\b|static inline\b|typedef\b|struct\b|union\b|enum\b|#define\s+KLAW_\w+)")


def escaped(line: str) -> str:
    """The line with the characters escaped that Doxygen takes for commands, tags and links."""
    return re.sub(r"([@\\<>#])", r"\\\1", line)


def without_helpers(text: str) -> str:
    """The attribute macros and the macros that are undefined again are nobody's interface; X-macro lists that make an
    enumeration are written out."""
    for name in [*re.findall(r"#undef (\w+)", text), "KLAW_(?:API|MUST|PRINTF|BEGIN|END)"]:
        text = re.sub(rf"^#(?:define|undef) {name}\b.*$", "", text, flags=re.MULTILINE)
    for name in re.findall(r"^#define (KLAW_\w+_LIST)\(X\)", text, flags=re.MULTILINE):
        prefix = name.removesuffix("LIST").removesuffix("ERR_")
        entries = re.findall(r'^ +X\((\w+), (-?\d+), "([^"]*)"\)', text, flags=re.MULTILINE)
        members = " ".join(f"{prefix}{entry} = {number}, /**< {words}. */" for entry, number, words in entries)
        text = re.sub(rf"^ *{name}\(\w+\)$", members.replace("\\", "/"), text, flags=re.MULTILINE)
    return text


def convert(text: str) -> str:
    out: list[str] = []
    in_comment = False
    first = True  # the next comment on its own is the file's
    covered = False  # a comment stands right above
    group = ""  # its text: what a further declaration of the group says
    depth = 0
    open_statement = False
    for original in without_helpers(text).split("\n"):
        line = original
        stripped = line.strip()
        if in_comment:
            out.append(escaped(line))
            group += bool(group) * (" " + stripped.removeprefix("*").replace("*/", "").strip())
            in_comment = "*/" not in line
            continue
        if "SPDX-License-Identifier" in line:
            out.append("/** @file")
            continue
        if stripped.startswith("/*"):
            head, tail = line.split("/*", 1)
            if first:
                out.append(" * " + escaped(re.sub(r"^\s*[\w.]+ - ", "", tail)))
            else:
                out.append(head + "/**" + escaped(tail))
            covered = not first
            group = tail.replace("*/", "").strip() if depth == 0 and not first else ""
            first = False
            in_comment = "*/" not in line
            continue
        code = re.sub(r"/\*.*?(\*/|$)", "", line)
        starts = depth == 0 and not open_statement and STATEMENT.match(stripped)
        member = depth == 1 and MEMBER.match(code.strip())
        if "/* " in line and "*/" in line:
            before, comment = line.split("/*", 1)
            line = before + "/**< " + escaped(comment.strip())
        elif "/* " in line:  # goes on in the next lines
            before, comment = line.split("/*", 1)
            line = before + "/**< " + escaped(comment.strip())
            in_comment, group = True, ""
        elif member and not covered:
            line += " /**< See the description of the whole. */"
        elif starts and not covered and group:
            line = f"/** {escaped(group)} */ {line}"
        elif re.match(r"typedef (struct|union) (\w+) \2;", stripped) and not covered:
            line = f"/** Opaque. */ {line}"
        out.append(line)
        covered = False
        if not stripped:
            group = ""
        if stripped.startswith("#"):
            continue
        depth = max(0, depth + code.count("{") - code.count("}"))
        open_statement = depth == 0 and not code.rstrip().endswith((";", "}")) and bool(stripped)
    return "\n".join(out)


if __name__ == "__main__":
    sys.stdout.write(convert(Path(sys.argv[1]).read_text(encoding="utf-8")))
