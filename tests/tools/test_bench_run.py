# SPDX-License-Identifier: Apache-2.0
"""Tests of bench/run.py: the contract, the order of the runs, the table. The programs here are small scripts."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

RUN = Path(__file__).resolve().parents[2] / "bench" / "run.py"
spec = importlib.util.spec_from_file_location("bench_run", RUN)
assert spec and spec.loader
run = importlib.util.module_from_spec(spec)
sys.modules["bench_run"] = run
spec.loader.exec_module(run)

PROGRAM = Path("peer")
CASE = run.Case("spsc_1w", "go", PROGRAM)


def result(job: str, impl: str, *figures: float, error: str = "") -> Any:
    return run.Result(job, impl, "ns", list(figures), error)


def table(*rows: Any) -> dict[tuple[str, str], Any]:
    return {(r.job, r.impl): r for r in rows}


def script(folder: Path, name: str, body: str) -> Path:
    """An executable that answers --list and runs `body` otherwise."""
    path = folder / name
    path.write_text(f'#!/bin/sh\nif [ "$1" = --list ]; then echo "spsc_1w {name}"; exit 0; fi\n{body}\n')
    path.chmod(0o755)
    return path


def row_of(rendered: str, job: str) -> list[str]:
    """The cells of a job's row."""
    lines = [x for x in rendered.splitlines() if x.startswith("|") and f"| {job} |" in x]
    assert len(lines) == 1
    return [c.strip() for c in lines[0].strip("|").split("|")]


# ---- the contract


def test_the_goals_name_every_job_once() -> None:
    jobs = [g.job for g in run.load_goals()]
    assert len(jobs) == len(set(jobs)) == 46
    assert all(g.unit in run.UNITS and (g.goal or g.goal_floor) for g in run.load_goals())


def test_list_gives_a_case_a_line() -> None:
    assert run.parse_list("a x\nb y\n", PROGRAM) == [run.Case("a", "x", PROGRAM), run.Case("b", "y", PROGRAM)]


@pytest.mark.parametrize("text", ["a\n", "a b c\n", "\n"])
def test_a_broken_list_is_refused(text: str) -> None:
    with pytest.raises(run.BenchError):
        run.parse_list(text, PROGRAM)


def test_a_figure_has_value_and_unit() -> None:
    assert run.parse_figure("spsc_1w go 28.4 ns\n", CASE) == (28.4, "ns")
    assert run.parse_figure("spsc_1w go 4096 bytes\n", CASE) == (4096.0, "bytes")


@pytest.mark.parametrize(
    "text",
    ["", "spsc_1w go 28.4", "spsc_1w go x ns", "spsc_1w go nan ns", "spsc_1w go -1 ns", "spsc_1w go 1 s", "b go 1 ns"],
)
def test_a_broken_figure_is_refused(text: str) -> None:
    with pytest.raises(run.BenchError):
        run.parse_figure(text, CASE)


def test_a_program_that_fails_says_how(tmp_path: Path) -> None:
    crash = script(tmp_path, "crash", "echo 'wrong result: 1, expected 2' >&2; kill -ABRT $$")
    with pytest.raises(run.BenchError, match="signal 6: wrong result: 1, expected 2"):
        run.call([crash, "spsc_1w"])
    with pytest.raises(run.BenchError, match="status 3"):
        run.call([script(tmp_path, "bad", "exit 3"), "spsc_1w"])


def test_a_program_that_hangs_is_ended(tmp_path: Path) -> None:
    hang = script(tmp_path, "hang", "exec sleep 60")
    with pytest.raises(run.BenchError, match="no answer"):
        run.call([hang, "spsc_1w"], limit=0.2)


def test_discover_takes_executables_only(tmp_path: Path) -> None:
    script(tmp_path, "b", "")
    script(tmp_path, "a", "")
    (tmp_path / "notes.txt").write_text("")
    assert [p.name for p in run.discover(tmp_path)] == ["a", "b"]
    assert run.discover(tmp_path / "missing") == []


# ---- the order of the runs


def test_each_round_runs_every_case_once_in_another_order() -> None:
    cases = [run.Case(job, impl, PROGRAM) for impl in "xyz" for job in ("b", "a")]
    rounds = [run.rotated(cases, ["a", "b"], turn) for turn in range(3)]
    assert [c.job for c in rounds[0]] == ["a", "a", "a", "b", "b", "b"]
    assert [c.impl for c in rounds[0]] == list("xyzxyz")
    assert [c.job for c in rounds[1]] == ["b", "b", "b", "a", "a", "a"]
    assert [c.impl for c in rounds[2]] == list("zxyzxy")
    assert all(sorted(map(str, r)) == sorted(map(str, cases)) for r in rounds)


def test_patterns_choose_jobs_and_implementations(tmp_path: Path) -> None:
    programs = [script(tmp_path, "klaw", ""), script(tmp_path, "go", "")]
    cases, complaints = run.collect(programs, ["spsc_*"], ["klaw*"])
    assert [c.impl for c in cases] == ["klaw"]
    assert complaints == []
    assert run.collect(programs, ["ring"], [])[0] == []


def test_a_program_without_a_list_is_a_complaint(tmp_path: Path) -> None:
    path = tmp_path / "broken"
    path.write_text("#!/bin/sh\nexit 4\n")
    path.chmod(0o755)
    assert run.collect([path], [], []) == ([], ["broken --list: status 4"])


def test_measure_keeps_figures_and_runs_a_failed_case_once(tmp_path: Path) -> None:
    good = script(tmp_path, "good", 'echo "$1 $2 7.5 ns"')
    count = tmp_path / "count"
    bad = script(tmp_path, "bad", f'echo run >> "{count}"; exit 1')
    cases, _ = run.collect([good, bad], [], [])
    results = run.measure(cases, ["spsc_1w"], 3)
    assert results["spsc_1w", "good"].figures == [7.5, 7.5, 7.5]
    assert results["spsc_1w", "bad"].error == "status 1"
    assert count.read_text() == "run\n"


# ---- the table


def test_a_record_has_the_median() -> None:
    assert result("ring_1000", "klaw", 3.0, 1.0, 2.0).record() == {
        "job": "ring_1000",
        "impl": "klaw",
        "ns_per_op": 2.0,
        "min": 1.0,
        "median": 2.0,
        "runs": 3,
    }
    assert "bytes" in run.Result("mem_parked", "klaw", "bytes", [4096.0]).record()
    failed = result("ring_1000", "go", 1.0, error="status 1").record()
    assert failed == {"job": "ring_1000", "impl": "go", "error": "status 1"}
    json.dumps(failed)


def test_the_ratio_is_to_the_fastest_peer_of_the_same_kind() -> None:
    results = table(
        result("spsc_threads", "klaw", 15.0),
        result("spsc_threads", "klaw-static", 14.0),
        result("spsc_threads", "std", 20.0),
        result("spsc_threads", "go", 80.0),
        result("spsc_threads", "rtrb", 3.0),
    )
    row = row_of(run.render(results, run.load_goals(), 3, ""), "spsc_threads")
    assert row[2:8] == ["15.0", "14.0", "std 20.0", "0.75", "≤ 16", "yes"]
    assert row[8] == "(rtrb 3.0), std 20.0, go 80.0"


def test_a_static_goal_counts_too() -> None:
    assert run.is_met(8.5, 7.5, 9, 8) == "yes"
    assert run.is_met(8.5, 8.5, 9, 8) == "no"
    assert run.is_met(9.5, 7.5, 9, 8) == "no"
    assert run.is_met(8.5, None, 9, 8) == "yes"
    assert run.is_met(None, 7.5, 9, 8) == run.is_met(8.5, 7.5, None, None) == "–"


def test_one_to_one_has_a_row_and_a_goal_of_its_own() -> None:
    results = table(
        result("spsc_threads", "klaw", 15.0),
        result("spsc_threads", "klaw-1to1", 11.0),
        result("spsc_threads", "klaw-1to1-static", 9.0),
        result("spsc_threads", "std", 22.0),
    )
    rendered = run.render(results, run.load_goals(), 3, "")
    assert row_of(rendered, "spsc_threads, one_to_one")[2:8] == ["11.0", "9.0", "std 22.0", "0.50", "≤ 10", "no"]
    assert row_of(rendered, "spsc_threads")[2] == "15.0"


def test_a_goal_may_hang_on_a_floor_of_the_same_run() -> None:
    results = table(
        result("py_pingpong", "klaw", 5_200.0),
        result("py_pingpong", "floor", 5_000.0),
        result("py_pingpong", "asyncio", 8_000.0),
    )
    rendered = run.render(results, run.load_goals(), 3, "")
    row = row_of(rendered, "py_pingpong")
    assert row[2:8] == ["5 200", "–", "asyncio 8 000", "0.65", "≤ 5 500 (1.1 x floor)", "yes"]
    assert row[8] == "(floor 5 000), asyncio 8 000"


def test_each_section_is_a_table_of_its_own() -> None:
    results = table(result("ring_1000", "klaw", 20.0), result("py_ask", "klaw", 6_000.0))
    lines = run.render(results, run.load_goals(), 3, "").splitlines()
    assert lines.index("## Python") > next(i for i, x in enumerate(lines) if "| ring_1000 |" in x)
    assert sum(x.startswith("|---") for x in lines) == 2


def test_a_failure_is_in_the_table() -> None:
    results = table(result("ring_1000", "klaw", error="signal 11"), result("ring_1000", "go", 140.0))
    rendered = run.render(results, run.load_goals(), 3, "")
    assert row_of(rendered, "ring_1000")[2:8] == ["FAILED", "–", "go 140", "–", "≤ 20", "–"]
    assert "- FAILED ring_1000 klaw: signal 11" in rendered


def test_jobs_nobody_ran_have_no_row_and_new_jobs_are_listed() -> None:
    rendered = run.render(table(result("new_job", "klaw", 5.0)), run.load_goals(), 3, "")
    assert "| ring_1000 |" not in rendered
    assert "- new_job klaw 5.0" in rendered


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (7.25, "7.2"), (231.4, "231"), (47000.0, "47 000")])
def test_figures_are_short(value: float | None, text: str) -> None:
    assert run.number(value) == text


def test_a_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ours = tmp_path / "ours"
    ours.mkdir()
    script(ours, "klaw", 'echo "$1 $2 8.0 ns"')
    peer = script(tmp_path, "go", 'echo "$1 $2 16.0 ns"')
    monkeypatch.setattr(run, "OURS", ours)
    monkeypatch.setattr(run, "OUT", tmp_path / "out")
    monkeypatch.setattr(run, "built_peers", lambda: [peer])
    assert run.main(["--no-build", "--quick"]) == 0
    rows = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {(r["job"], r["impl"], r["ns_per_op"], r["runs"]) for r in rows} == {
        ("spsc_1w", "klaw", 8.0, 3),
        ("spsc_1w", "go", 16.0, 3),
    }
    assert row_of((tmp_path / "out" / "table.md").read_text(), "spsc_1w")[5] == "0.50"
    assert "| spsc_1w |" in capsys.readouterr().out
    script(ours, "klaw", "exit 1")
    assert run.main(["--no-build", "--quick"]) == 1
    assert run.main(["--no-build", "--jobs", "nothing"]) == 1


def test_a_missing_toolchain_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "OUT", tmp_path)
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run.build_peers() == []
    said = capsys.readouterr().err
    for word in ("Go toolchain", "Rust toolchain", "C++ compiler", ".venv"):
        assert word in said
