# SPDX-License-Identifier: Apache-2.0
"""wordcount whose counters fail on purpose: the totals are those of an independent count all the same."""

import random
from collections import Counter
from pathlib import Path

import pytest
from conftest import SEED, naive, run, run_json, totals


@pytest.mark.parametrize("round_", range(4))
def test_the_totals_of_a_chaotic_run_are_exact(tree: Path, round_: int) -> None:
    rng = random.Random(SEED + round_)
    workers, percent, copies = rng.choice([1, 2, 3, 8]), rng.choice([3, 10, 30, 50]), rng.choice([1, 2])
    result = run_json(
        "--seed", rng.randrange(1 << 32), f"--chaos={percent}", "-j", workers, "-n", 10_000_000, *[tree] * copies
    )
    want = naive(*[tree] * copies)
    assert totals(result) == want.totals()
    assert result["restarts"] == result["failures"]
    assert sum(entry["count"] for entry in result["top"]) == want.words.total()
    if percent == 50:
        assert result["failures"] > 0
    if result["failures"]:
        assert result["recounted"] >= result["failures"]


def test_every_word_survives(tree: Path) -> None:
    calm = run_json("-n", 10_000_000, tree)
    chaotic = run_json("-n", 10_000_000, "--chaos=40", tree)
    assert chaotic["top"] == calm["top"]
    assert calm["failures"] == calm["restarts"] == calm["recounted"] == 0 < chaotic["failures"]
    assert Counter(entry["word"] for entry in calm["top"])


def test_pipes_are_counted_exactly_too(tree: Path) -> None:
    words = tree / "big" / "words.txt"
    result = run_json("--chaos=50", "-", input=words.read_bytes())
    assert totals(result) == naive(words).totals()
    assert result["failures"] > 0


def test_it_says_what_happened(tree: Path) -> None:
    done = run("--chaos=50", "--seed", 7, tree)
    text = done.stdout.decode()
    assert done.returncode == 0
    assert "counters failed" in text and "none twice" in text and "chaos: 50 percent, seed 7" in text
    assert b"counters failed" not in run(tree).stdout


@pytest.mark.parametrize("args", [["--chaos=0"], ["--chaos=51"], ["--chaos=x"], ["--seed", "x"], ["--seed", "-1"]])
def test_wrong_chaos_is_refused(args: list[str]) -> None:
    done = run(*args)
    assert done.returncode == 2 and b"--help" in done.stderr
