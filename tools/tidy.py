# SPDX-License-Identifier: Apache-2.0
"""tidy.py - lints the tree: what a compiler and a formatter can't know about klaw.

    tidy.py [root]

Rules (each has a case in tests/tools/test_tidy.py that must fail):
    layer      a file of src/<layer>/ includes headers of its own and of lower layers only, and public ones as
               "klaw/x.h"; no path leaves its folder by "..". A public header includes public headers only.
    length     a file has at most 800 lines; a function over 100 lines is a warning, over 150 an error.
    opening    the first line (after #!) is the SPDX line; in src/ and include/ a comment that names the
               file comes next.
    banned     unfinished-work marks, unbounded string functions, paths of somebody's machine.
    doc        every public declaration, type and macro has a comment before it (one for a group without a gap) or on
               its line; def.h, which has no interface, is exempt.
    space      no trailing white space, no tabs (Makefile excepted), one newline at the end.

Prints "file:line: rule: text", one a line; warnings carry the word "warning:". Exit status 1 when a rule is broken.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LAYERS = ["plat", "base", "policy", "sched", "sync", "flow", "actor", "store", "runtime"]
FILE_LINES = 800
FUNCTION_WARN = 100
FUNCTION_LINES = 150

SKIPPED_FOLDERS = {".git", ".venv", "build", "__pycache__", "node_modules", "target"}
C_SUFFIXES = {".c", ".h", ".S"}
SOURCE_SUFFIXES = C_SUFFIXES | {".py", ".sh", ".cmake", ".in", ".go", ".rs", ".cpp", ".cc", ".hpp"}
TEXT_SUFFIXES = SOURCE_SUFFIXES | {".toml", ".md", ".json", ".txt", ".yml"}
SOURCE_NAMES = {"CMakeLists.txt", "Makefile", ".clang-format", ".clang-tidy", "Doxyfile"}
SOURCE_PATHS = {".ci/run"}
TEXT_NAMES = SOURCE_NAMES | {".gitignore", ".editorconfig"}
SPDX = "SPDX-License-Identifier: Apache-2.0"

# Written so that this file does not contain what it forbids.
BANNED_EVERYWHERE = [
    (re.compile(r"\b([T]ODO|[F]IXME|[X]XX)\b"), "unfinished-work mark"),
    (re.compile(r"(?<![\w./*$}-])/([r]oot|[h]ome|[w]ork|[U]sers)/\w"), "path of one machine"),
]
BANNED_IN_C = [
    (re.compile(r"\b(strcpy|strcat|sprintf|vsprintf|gets|strtok|alloca)\s*\("), "banned function"),
]

# What needs a comment in a public header, and what of it may do without: opaque types and include guards.
DECLARATION = re.compile(
    r'KLAW_API\b|extern\b(?!\s*")|static inline\b|typedef\b|(?:struct|enum|union)\s+\w+\s*\{|#define\s+KLAW_\w+'
)
UNDOCUMENTED = re.compile(r"typedef (struct|union) (\w+) \2;|#define KLAW_\w+_H$")


@dataclass(frozen=True)
class Finding:
    """One broken rule at one place."""

    path: str
    line: int
    rule: str
    text: str
    warning: bool = False

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {'warning: ' if self.warning else ''}{self.rule}: {self.text}"


def blank_code(source: str) -> str:
    """C source with comments, strings and character constants blanked; lines and columns stay."""
    pattern = r'/\*.*?\*/|//(?:\\\n|[^\n])*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\''
    return re.sub(pattern, lambda m: re.sub(r"[^\n]", " ", m.group(0)), source, flags=re.DOTALL)


def check_space(path: str, lines: list[str], text: str) -> Iterator[Finding]:
    tabs_allowed = path.endswith("Makefile") or path.endswith((".S", ".go"))
    for number, line in enumerate(lines, 1):
        if line != line.rstrip() and line.strip("\f"):
            yield Finding(path, number, "space", "trailing white space")
        elif line and not line.strip():
            yield Finding(path, number, "space", "white space on an empty line")
        if "\t" in line and not tabs_allowed:
            yield Finding(path, number, "space", "tab")
        if "\r" in line:
            yield Finding(path, number, "space", "carriage return")
    if text and (not text.endswith("\n") or text.endswith("\n\n")):
        yield Finding(path, len(lines), "space", "the file ends with exactly one newline")


def check_banned(path: str, lines: list[str], code: list[str] | None) -> Iterator[Finding]:
    for number, line in enumerate(lines, 1):
        for pattern, what in BANNED_EVERYWHERE:
            if found := pattern.search(line):
                yield Finding(path, number, "banned", f"{what}: {found.group(0)}")
    for number, line in enumerate(code or [], 1):
        for pattern, what in BANNED_IN_C:
            if found := pattern.search(line):
                yield Finding(path, number, "banned", f"{what}: {found.group(1)}")


def check_opening(path: str, lines: list[str]) -> Iterator[Finding]:
    first = 1 if lines and lines[0].startswith("#!") else 0
    if SPDX not in "".join(lines[first : first + 1]):
        yield Finding(path, first + 1, "opening", f"the first line has to be the SPDX line ({SPDX})")
        return
    name = Path(path).name
    if Path(path).suffix in C_SUFFIXES and path.startswith(("src/", "include/")):
        opening = lines[first + 1] if len(lines) > first + 1 else ""
        if not re.match(r"/\* " + re.escape(name) + r"\b", opening):
            yield Finding(path, first + 2, "opening", f"a comment that starts with '/* {name} - ' has to come next")


def check_layer(path: str, source: str) -> Iterator[Finding]:
    parts = Path(path).parts
    in_src = parts[0] == "src" and len(parts) > 2 and parts[1] in LAYERS
    public = parts[:2] == ("include", "klaw")
    if not in_src and not public:
        return
    for found in re.finditer(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', source, flags=re.MULTILINE):
        line = source.count("\n", 0, found.start()) + 1
        quote, target = found.groups()
        top = target.split("/")[0]
        if ".." in Path(target).parts:
            yield Finding(path, line, "layer", f'"{target}" leaves the folder')
        elif public:
            if (quote == '"' and top != "klaw") or (top in LAYERS and "/" in target):
                yield Finding(path, line, "layer", f'a public header includes the internal "{target}"')
        elif quote == '"' and "/" in target and top != "klaw":
            if top not in LAYERS:
                yield Finding(path, line, "layer", f'"{target}" is in no layer')
            elif LAYERS.index(top) > LAYERS.index(parts[1]):
                yield Finding(path, line, "layer", f'{parts[1]} must not include "{target}" of the higher layer {top}')
        elif quote == "<" and top in LAYERS and "/" in target:
            yield Finding(path, line, "layer", f'write "{target}", not <{target}>')


def functions(code: str) -> Iterator[tuple[int, int, str]]:
    """(first line, number of lines, name) of every function definition in blanked C code.

    A definition is a top-level brace whose head ends with a parenthesis, which is how this tree is written."""
    depth = 0
    head_start = 0
    opened: tuple[int, str] | None = None
    # Preprocessor lines would upset the count of braces.
    code = re.sub(r"^[ \t]*#(?:\\\n|[^\n])*", lambda m: re.sub(r"[^\n]", " ", m.group(0)), code, flags=re.MULTILINE)
    for at, char in enumerate(code):
        if char == "{":
            if depth == 0:
                head = code[head_start:at]
                name = re.search(r"(\w+)\s*\([^{};]*\)\s*(?:__attribute__\s*\(\(.*\)\)\s*)?$", head, flags=re.DOTALL)
                # extern "C" { and its macro do not nest.
                if re.search(r"\bextern\s+$", head.rstrip() + " "):
                    head_start = at + 1
                    continue
                if name and "=" not in head:
                    opened = (code.count("\n", 0, head_start + len(head) - len(head.lstrip())) + 1, name.group(1))
            depth += 1
        elif char == "}":
            depth = max(0, depth - 1)
            if depth == 0:
                if opened:
                    yield opened[0], code.count("\n", 0, at) + 2 - opened[0], opened[1]
                opened = None
                head_start = at + 1
        elif char == ";" and depth == 0:
            head_start = at + 1


def check_length(path: str, lines: list[str], code: str | None) -> Iterator[Finding]:
    if len(lines) > FILE_LINES:
        yield Finding(path, FILE_LINES + 1, "length", f"{len(lines)} lines; a file over {FILE_LINES} wants to be two")
    for first, count, name in functions(code) if code is not None else ():
        if count > FUNCTION_LINES:
            yield Finding(path, first, "length", f"{name} has {count} lines, the limit is {FUNCTION_LINES}")
        elif count > FUNCTION_WARN:
            yield Finding(path, first, "length", f"{name} has {count} lines", warning=True)


def check_doc(path: str, lines: list[str]) -> Iterator[Finding]:
    """Each line that starts a public declaration follows a comment, or another one of the same group without a gap."""
    if not path.startswith("include/klaw/"):
        return
    documented = False  # a comment stands right above, or a group that began with one goes on
    in_comment = False
    depth = 0
    open_statement = False
    for number, line in enumerate(lines, 1):
        stripped = line.strip()
        if in_comment:
            in_comment = "*/" not in stripped
            continue
        if depth == 0 and not open_statement:
            if stripped.startswith("/*"):
                documented = True
                in_comment = "*/" not in stripped
                continue
            if not stripped:
                documented = False
                continue
            starts = DECLARATION.match(stripped)
            # An opaque type needs no words of its own, a guard is none, a trailing comment counts.
            exempt = UNDOCUMENTED.match(stripped) or "/*" in stripped or path == "include/klaw/def.h"
            if starts and not documented and not exempt:
                yield Finding(path, number, "doc", f"no comment before: {stripped[:70]}")
        code = blank_code(stripped)
        if stripped.startswith("#"):
            open_statement = stripped.endswith("\\")
            continue
        if open_statement and stripped.endswith("\\"):
            continue
        depth = max(0, depth + code.count("{") - code.count("}"))
        ended = code.rstrip().endswith((";", "}")) or stripped in ("KLAW_BEGIN", "KLAW_END")
        open_statement = depth == 0 and not ended


def check_file(path: str, text: str) -> list[Finding]:
    """Everything wrong with one file. `path` is relative to the root, with slashes."""
    suffix, name = Path(path).suffix, Path(path).name
    lines = text.split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    code = blank_code(text) if suffix in {".c", ".h"} else None
    findings = list(check_space(path, lines, text))
    findings += check_banned(path, lines, code.split("\n") if code is not None else None)
    if suffix in SOURCE_SUFFIXES or name in SOURCE_NAMES or path in SOURCE_PATHS:
        findings += check_opening(path, lines)
        findings += check_length(path, lines, code)
    if suffix in C_SUFFIXES:
        findings += check_layer(path, text)
    if suffix == ".h":
        findings += check_doc(path, lines)
    return findings


def files(root: Path) -> Iterator[Path]:
    for folder, names, entries in os.walk(root):
        names[:] = sorted(n for n in names if n not in SKIPPED_FOLDERS)
        for entry in sorted(entries):
            path = Path(folder, entry)
            if path.suffix in TEXT_SUFFIXES or entry in TEXT_NAMES or path.relative_to(root).as_posix() in SOURCE_PATHS:
                yield path


def main(arguments: list[str]) -> int:
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent
    findings: list[Finding] = []
    count = 0
    for path in files(root):
        count += 1
        findings += check_file(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8"))
    for finding in findings:
        print(finding)
    errors = sum(not f.warning for f in findings)
    print(f"tidy: {count} files, {errors} errors, {len(findings) - errors} warnings")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
