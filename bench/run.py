# SPDX-License-Identifier: Apache-2.0
"""Measures klaw and its peers in turn and writes one table.

Every program follows one contract: ``prog --list`` prints one ``JOB IMPL`` a line; ``prog JOB IMPL`` runs that job
once, checks its own result and prints ``JOB IMPL VALUE UNIT``. Our programs lie in build/release/bench (``make bench``
builds them first); the peers are built here, into build/bench. One program, bench/python, has klaw_core and Python's
peers. A toolchain or a package that is missing is named in
a notice and its peers are left out.

In each round every implementation of a job runs once, the implementations of one job one after another and in
rotated order: the machine's drift hits all of them. Written: build/bench/table.md and build/bench/results.json, a
list of {"job", "impl", "ns_per_op", "ms" or "bytes" (the median), "min", "median", "runs"}; an implementation that
crashed, timed out or got a wrong result has {"job", "impl", "error"} and makes the exit status 1.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import platform
import secrets
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
PEERS = BENCH / "peers"
OUT = ROOT / "build" / "bench"
OURS = ROOT / "build" / "release" / "bench"
UNITS = ("ns", "ms", "bytes")
RUN_LIMIT = 30.0
RAY_LIMIT = 120.0  # a job on Ray starts processes
RAY_ROUNDS = 3
BUILD_LIMIT = 900.0

T = TypeVar("T")


class BenchError(Exception):
    """A program broke the contract, or a peer can't be built."""


@dataclass(frozen=True)
class Goal:
    """One line of goals.json: a job, in the order of the table."""

    job: str
    row: str
    title: str
    unit: str
    goal: float | None = None
    section: str = ""
    goal_static: float | None = None
    goal_one_to_one: float | None = None
    floor: str = ""  # the implementation that goal_floor, a factor, refers to; no peer
    goal_floor: float | None = None
    aside: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Case:
    """One job of one implementation."""

    job: str
    impl: str
    program: Path


@dataclass
class Result:
    """The figures of one case, or why there are none."""

    job: str
    impl: str
    unit: str = "ns"
    figures: list[float] = field(default_factory=list)
    error: str = ""

    @property
    def median(self) -> float | None:
        """The median of the runs; None when it failed or never ran."""
        return None if self.error or not self.figures else statistics.median(self.figures)

    def record(self) -> dict[str, object]:
        """The row of results.json."""
        if self.median is None:
            return {"job": self.job, "impl": self.impl, "error": self.error or "did not run"}
        key = "ns_per_op" if self.unit == "ns" else self.unit
        return {
            "job": self.job,
            "impl": self.impl,
            key: round(self.median, 3),
            "min": round(min(self.figures), 3),
            "median": round(self.median, 3),
            "runs": len(self.figures),
        }


Results = dict[tuple[str, str], Result]


# ---- the contract -----------------------------------------------------------------------------------------------


def load_goals(path: Path = BENCH / "goals.json") -> list[Goal]:
    """The goals, in the order of the table."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [Goal(**{**row, "aside": tuple(row.get("aside", ()))}) for row in rows]


def parse_list(text: str, program: Path) -> list[Case]:
    """The answer to --list: `JOB IMPL` a line."""
    cases = []
    for line in text.splitlines():
        words = line.split()
        if len(words) != 2:
            raise BenchError(f"{program.name} --list printed {line!r}, not JOB IMPL")
        cases.append(Case(words[0], words[1], program))
    return cases


def parse_figure(text: str, case: Case) -> tuple[float, str]:
    """The answer to a run: one line `JOB IMPL VALUE UNIT`; its value and unit."""
    words = text.split()
    if len(words) != 4 or words[:2] != [case.job, case.impl] or words[3] not in UNITS:
        raise BenchError(f"printed {text.strip()!r}")
    try:
        value = float(words[2])
    except ValueError:
        raise BenchError(f"printed {text.strip()!r}") from None
    if not 0 <= value < 1e12:
        raise BenchError(f"printed {text.strip()!r}")
    return value, words[3]


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def call(argv: Sequence[str | Path], limit: float = RUN_LIMIT) -> str:
    """Runs a program of ours or a peer's; what it printed. BenchError when it fails."""
    try:
        done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        raise BenchError(f"no answer in {limit:.0f} s") from None
    except OSError as e:
        raise BenchError(e.strerror or str(e)) from None
    if done.returncode != 0:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
        said = last_line(done.stderr)
        raise BenchError(f"{how}: {said}" if said else how)
    return done.stdout


def discover(folder: Path) -> list[Path]:
    """The executables of a folder, by name."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_file() and os.access(p, os.X_OK))


# ---- building the peers -------------------------------------------------------------------------------------------


def notice(text: str) -> None:
    """One line for the person who waits."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def build(name: str, argv: Sequence[str | Path], cwd: Path, env: dict[str, str] | None = None) -> None:
    """Runs one build command; its output goes to build/bench/NAME.log. BenchError when it fails."""
    log = OUT / f"{name}.log"
    with log.open("w", encoding="utf-8") as out:
        try:
            done = subprocess.run(
                [str(a) for a in argv],
                cwd=cwd,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=BUILD_LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise BenchError(f"not built in {BUILD_LIMIT:.0f} s") from None
        except OSError as e:
            raise BenchError(f"{argv[0]}: {e.strerror}") from None
    if done.returncode != 0:
        raise BenchError(f"does not build (build/bench/{log.name}): {last_line(log.read_text(errors='replace'))}")


def build_go() -> list[Path]:
    """Go: one program."""
    if shutil.which("go") is None:
        raise BenchError("needs the Go toolchain (command go), 1.22 or newer")
    program = OUT / "peers" / "go"
    build("go", ["go", "build", "-o", program, "."], PEERS / "go")
    return [program]


def build_rust() -> list[Path]:
    """Rust: one cargo project, one program a library. Built in a copy, so that the lock file stays out of the tree."""
    if shutil.which("cargo") is None:
        raise BenchError("needs the Rust toolchain (command cargo), 1.85 or newer")
    copy, target = OUT / "rust", OUT / "rust-target"
    source = PEERS / "rust"
    shutil.rmtree(copy / "src", ignore_errors=True)
    shutil.copytree(source / "src", copy / "src")  # keeps the times, so that nothing is built twice
    shutil.copy2(source / "Cargo.toml", copy / "Cargo.toml")
    build("rust", ["cargo", "build", "--release", "--bins"], copy, {"CARGO_TARGET_DIR": str(target)})
    names = sorted(p.stem for p in (source / "src" / "bin").glob("*.rs"))
    return [target / "release" / name for name in names]


def build_cxx(name: str, header: str, flags: Sequence[str], packages: Sequence[str]) -> list[Path]:
    """A C++ peer of one file; `packages` are Debian's, tried in turn when the header is missing (none: never there)."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise BenchError("needs a C++ compiler (command g++)")
    if not has_header(compiler, header) and not any(
        apt_install(package) and has_header(compiler, header) for package in packages
    ):
        known = f"Debian package {' or '.join(packages)}" if packages else "Debian has no package of it"
        raise BenchError(f"needs {header}: {known}")
    program = OUT / "peers" / name
    argv: list[str | Path] = [compiler, "-std=c++17", "-O2", "-o", program, PEERS / name / "main.cpp"]
    argv += flags
    build(name, argv, ROOT)
    return [program]


def build_erlang() -> list[Path]:
    """Erlang: one module, compiled, and a script that starts it."""
    if shutil.which("erlc") is None and not apt_install("erlang-base"):
        raise BenchError("needs Erlang (commands erlc and erl): Debian package erlang-base")
    code, program = OUT / "erlang", OUT / "peers" / "erlang"
    code.mkdir(exist_ok=True)
    build("erlang", ["erlc", "-o", code, PEERS / "erlang" / "bench.erl"], ROOT)
    start = f'exec erl +S 2:2 -noinput -boot no_dot_erlang -pa "{code}" -s bench main -extra "$@"'
    program.write_text(f"#!/bin/sh\n{start}\n", encoding="utf-8")
    program.chmod(0o755)
    return [program]


def build_python() -> list[Path]:
    """Python: a script that starts bench/python with the interpreter and the packages of .venv."""
    interpreter, site = ROOT / ".venv" / "bin" / "python", ROOT / "build" / "python" / "site"
    if not interpreter.exists():
        raise BenchError("needs .venv: tools/setup.sh bench")
    if not site.exists():
        notice("no klaw_core in build/python/site: only its peers are measured")
    program = OUT / "peers" / "python"
    start = f'PYTHONPATH="{site}" exec "{interpreter}" -B "{BENCH / "python" / "main.py"}" "$@"'
    program.write_text(f"#!/bin/sh\n{start}\n", encoding="utf-8")
    program.chmod(0o755)
    return [program]


def has_header(compiler: str, header: str) -> bool:
    """Whether the compiler finds <header>."""
    source = f"#include <{header}>\n"
    argv = [compiler, "-std=c++17", "-fsyntax-only", "-x", "c++", "-"]
    return subprocess.run(argv, input=source, text=True, capture_output=True, check=False).returncode == 0


def apt_install(package: str) -> bool:
    """Tries to install a Debian package; only as root and where there is apt-get."""
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        return False
    notice(f"installing {package}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = [apt, "install", "-y", "--no-install-recommends", package]
    for argv in (install, [apt, "update"], install):
        try:
            done = subprocess.run(
                argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=BUILD_LIMIT, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        if argv is install and done.returncode == 0:
            return True
    return False


def build_peers() -> list[Path]:
    """Builds what can be built here; a notice for each peer that can't."""
    (OUT / "peers").mkdir(parents=True, exist_ok=True)
    fiber = ("libboost-fiber1.81-dev", "libboost-fiber-dev")
    builders: dict[str, Callable[[], list[Path]]] = {
        "go": build_go,
        "rust": build_rust,
        "erlang": build_erlang,
        "python": build_python,
        "boost": lambda: build_cxx("boost", "boost/fiber/all.hpp", ("-lboost_fiber", "-lboost_context"), fiber),
        "libuv": lambda: build_cxx("libuv", "uv.h", ("-luv",), ("libuv1-dev",)),
        "tbb": lambda: build_cxx("tbb", "tbb/task_group.h", ("-ltbb",), ("libtbb-dev",)),
        "openmp": lambda: build_cxx("openmp", "omp.h", ("-fopenmp",), ("libomp-dev",)),
        "argobots": lambda: build_cxx("argobots", "abt.h", ("-labt",), ()),
    }
    programs: list[Path] = []
    for name, builder in builders.items():
        notice(f"building {name}")
        try:
            programs += builder()
        except BenchError as e:
            notice(f"peer {name} left out: {e}")
    return programs


def built_peers() -> list[Path]:
    """The peers that an earlier run built."""
    names = [p.stem for p in (PEERS / "rust" / "src" / "bin").glob("*.rs")]
    rust = [OUT / "rust-target" / "release" / name for name in sorted(names)]
    return discover(OUT / "peers") + [p for p in rust if p.is_file()]


# ---- measuring ----------------------------------------------------------------------------------------------------


def collect(programs: Iterable[Path], jobs: Sequence[str], impls: Sequence[str]) -> tuple[list[Case], list[str]]:
    """The cases of all programs that the patterns let through, and the complaints."""
    cases: list[Case] = []
    complaints = []
    for program in programs:
        try:
            cases += parse_list(call([program, "--list"]), program)
        except BenchError as e:
            complaints.append(f"{program.name} --list: {e}")
    return [c for c in cases if matches(c.job, jobs) and matches(c.impl, impls)], complaints


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether the name fits one of the patterns (as of a shell); no patterns fit everything."""
    return not patterns or any(fnmatch.fnmatchcase(name, p) for p in patterns)


def rotated(cases: Sequence[Case], order: Sequence[str], turn: int) -> list[Case]:
    """The cases of one round: job after job, both the jobs and the implementations of each shifted by the turn."""
    known = {job: i for i, job in enumerate(order)}
    jobs = sorted({c.job for c in cases}, key=lambda job: (known.get(job, len(known)), job))
    out: list[Case] = []
    for job in shift(jobs, turn):
        out += shift([c for c in cases if c.job == job], turn)
    return out


def shift(items: list[T], turn: int) -> list[T]:
    """The list, started `turn` places further."""
    at = turn % len(items) if items else 0
    return items[at:] + items[:at]


def measure(cases: Sequence[Case], order: Sequence[str], rounds: int) -> Results:
    """Runs all rounds. A case that fails once is not run again. Ctrl-C ends it with what there is."""
    results = {(c.job, c.impl): Result(c.job, c.impl) for c in cases}
    try:
        for turn in range(rounds):
            now = [c for c in cases if turn < RAY_ROUNDS or not on_ray(c)]
            for n, case in enumerate(rotated(now, order, turn), 1):
                progress(f"round {turn + 1}/{rounds}, {n}/{len(now)}: {case.job} {case.impl}")
                run_case(case, results[case.job, case.impl])
    except KeyboardInterrupt:
        progress("")
        notice("interrupted; the table shows what there is")
    progress("")
    return results


def on_ray(case: Case) -> bool:
    """Whether a case needs the cluster: its runs are long and few."""
    return case.job.startswith("ray_")


@contextmanager
def ray_head(cases: Sequence[Case]) -> Iterator[None]:
    """One local Ray for all cases that need one: its address is in KLAW_BENCH_RAY, its token is of this run only."""
    if not any(map(on_ray, cases)):
        yield
        return
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(16))
    site = f"{ROOT / 'build' / 'python' / 'site'}:{BENCH / 'python'}"
    head = subprocess.Popen(
        [ROOT / ".venv" / "bin" / "python", "-B", BENCH / "python" / "ray_head.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": site},
    )
    try:
        assert head.stdout is not None
        address = head.stdout.readline().strip()
        if address:
            os.environ["KLAW_BENCH_RAY"] = address
        else:
            notice("a local Ray could not be started once for all: each run starts its own")
        yield
    finally:
        os.environ.pop("KLAW_BENCH_RAY", None)
        head.communicate()


def run_case(case: Case, result: Result) -> None:
    """One run of one case, into its result."""
    if result.error:
        return
    try:
        limit = RAY_LIMIT if on_ray(case) else RUN_LIMIT
        value, result.unit = parse_figure(call([case.program, case.job, case.impl], limit), case)
        result.figures.append(value)
    except BenchError as e:
        result.error = str(e)


def progress(text: str) -> None:
    """A line that is written over; only on a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


# ---- the table ----------------------------------------------------------------------------------------------------


def number(value: float | None) -> str:
    """A figure for people: three digits, thousands apart."""
    if value is None:
        return "–"
    if value < 100:
        return f"{value:.1f}"
    return f"{value:,.0f}".replace(",", " ")


def is_ours(impl: str) -> bool:
    """Whether it is klaw in one of its forms."""
    return impl == "klaw" or impl.startswith("klaw-")


def best_peer(results: Results, goal: Goal) -> Result | None:
    """The fastest peer of a job that is of its kind."""
    peers = [
        r
        for r in results.values()
        if r.job == goal.job and not is_ours(r.impl) and r.impl not in (*goal.aside, goal.floor)
    ]
    return min((r for r in peers if r.median is not None), key=lambda r: r.median or 0.0, default=None)


def median_of(results: Results, job: str, impl: str) -> float | None:
    """The median of one case, if it has one."""
    result = results.get((job, impl))
    return result.median if result else None


def is_met(shared: float | None, static: float | None, goal: float | None, goal_static: float | None) -> str:
    """yes, no, or – where there is nothing to compare."""
    if shared is None or goal is None:
        return "–"
    late = static is not None and goal_static is not None and static > goal_static
    return "no" if shared > goal or late else "yes"


def cell(results: Results, job: str, impl: str) -> str:
    """The figure of one case; FAILED when it failed, – when there is none."""
    result = results.get((job, impl))
    if result is None:
        return "–"
    return "FAILED" if result.error else number(result.median)


def peers_text(results: Results, goal: Goal) -> str:
    """All peers of a job, the fastest first; those of another kind in parentheses."""
    peers = [r for r in results.values() if r.job == goal.job and not is_ours(r.impl)]
    peers.sort(key=lambda r: (r.median is None, r.median or 0.0))
    words = [f"{r.impl} {cell(results, r.job, r.impl)}" for r in peers]
    odd = (*goal.aside, goal.floor)
    return ", ".join(f"({w})" if r.impl in odd else w for w, r in zip(words, peers, strict=True))


def goal_text(goal: Goal, limit: float | None, static: float | None) -> str:
    """The goal for people; one that hangs on a floor says so."""
    if limit is None:
        return "–"
    if goal.goal_floor is not None:
        return f"≤ {number(limit)} ({goal.goal_floor:g} x {goal.floor})"
    return f"≤ {limit:g}" + (f" (static {static:g})" if static else "")


def table_row(results: Results, goal: Goal, one_to_one: bool) -> list[str] | None:
    """One row; None when klaw has no such form of the job (one_to_one) or nobody ran it."""
    ours = "klaw-1to1" if one_to_one else "klaw"
    static = f"{ours}-static"
    names = [impl for job, impl in results if job == goal.job]
    if not names or (one_to_one and ours not in names and static not in names):
        return None
    shared_ns, static_ns = (median_of(results, goal.job, impl) for impl in (ours, static))
    limit = goal.goal_one_to_one if one_to_one else goal.goal
    limit_static = None if one_to_one else goal.goal_static
    floor_ns = median_of(results, goal.job, goal.floor)
    if goal.goal_floor is not None and floor_ns is not None and not one_to_one:
        limit = goal.goal_floor * floor_ns
    best = best_peer(results, goal)
    theirs = best.median if best else None
    ratio = shared_ns / theirs if shared_ns is not None and theirs else None
    return [
        goal.row,
        goal.job + (", one_to_one" if one_to_one else ""),
        cell(results, goal.job, ours),
        cell(results, goal.job, static),
        f"{best.impl} {number(theirs)}" if best else "–",
        "–" if ratio is None else f"{ratio:.2f}",
        goal_text(goal, limit, limit_static),
        is_met(shared_ns, static_ns, limit, limit_static),
        "" if one_to_one else peers_text(results, goal),
    ]


def render(results: Results, goals: Sequence[Goal], rounds: int, machine: str) -> str:
    """The whole of table.md."""
    head = ["#", "job", "klaw", "klaw-static", "best peer", "klaw / best", "goal", "met", "all peers"]
    lines = [f"Medians of {rounds} rounds, ns an operation unless said; lower is better. {machine}"]
    for section in dict.fromkeys(g.section for g in goals):
        pairs = [(g, one_to_one) for g in goals if g.section == section for one_to_one in (False, True)]
        rows = [row for row in (table_row(results, *pair) for pair in pairs) if row is not None]
        if rows:
            lines += ["", *([f"## {section}", ""] if section else [])]
            lines += ["| " + " | ".join(head) + " |", "|---|---|--:|--:|---|--:|---|---|---|"]
            lines += ["| " + " | ".join(row) + " |" for row in rows]
    notes = [f"- {g.job}: {g.title}. {g.note}".rstrip() for g in goals if any(job == g.job for job, _ in results)]
    lines += ["", "Peers in parentheses are not of the job's kind and don't count as the best.", "", *notes]
    failed = [f"- FAILED {r.job} {r.impl}: {r.error}" for r in results.values() if r.error]
    known = {g.job for g in goals}
    extra = [f"- {r.job} {r.impl} {number(r.median)}" for r in results.values() if r.job not in known and not r.error]
    lines += ["", *failed] if failed else []
    lines += ["", "Without a goal:", "", *extra] if extra else []
    return "\n".join(lines) + "\n"


def machine_text() -> str:
    """The machine, in a few words."""
    model = platform.machine()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        model = next((x.split(":", 1)[1].strip() for x in text.splitlines() if x.startswith("model name")), model)
    except OSError:
        pass
    return f"{model}, {os.cpu_count()} processors."


# ---- the command --------------------------------------------------------------------------------------------------


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="bench/run.py", description="Measures klaw and its peers in turn.")
    parser.add_argument("--rounds", type=int, default=7, help="runs of each case (7)")
    parser.add_argument("--quick", action="store_const", const=3, dest="rounds", help="three rounds")
    parser.add_argument("--jobs", default="", help="only these jobs: names or patterns, by comma")
    parser.add_argument("--impls", default="", help="only these implementations: names or patterns, by comma")
    parser.add_argument("--no-build", action="store_true", help="take the peers as an earlier run built them")
    args = parser.parse_args(argv)
    if args.rounds < 1:
        parser.error("--rounds must be at least 1")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Builds, measures, prints and writes the table; 1 when something failed."""
    args = parse_args(argv)
    jobs, impls = ([w for w in text.split(",") if w] for text in (args.jobs, args.impls))
    goals = load_goals()
    OUT.mkdir(parents=True, exist_ok=True)
    ours = discover(OURS)
    if not ours:
        notice("no programs of klaw in build/release/bench: only the peers are measured")
    peers = built_peers() if args.no_build else build_peers()
    cases, complaints = collect([*ours, *peers], jobs, impls)
    if not cases:
        notice("nothing to measure")
        return 1
    with ray_head(cases):
        results = measure(cases, [g.job for g in goals], args.rounds)
    table = render(results, goals, args.rounds, machine_text())
    (OUT / "table.md").write_text(table, encoding="utf-8")
    rows = [r.record() for r in results.values()]
    (OUT / "results.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(table, end="")
    for text in complaints:
        notice(f"FAILED {text}")
    return 1 if complaints or any(r.error for r in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
