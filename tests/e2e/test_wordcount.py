# SPDX-License-Identifier: Apache-2.0
"""wordcount from outside: its totals against an independent count, bad input, and its options."""

import codecs
import json
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import TIMEOUT, WORDCOUNT, naive, run, run_json, totals

LICENSES = Path("/usr/share/common-licenses")


def _each_byte(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "\ufffd", error.start + 1


codecs.register_error("byte by byte", _each_byte)


def shown(word: bytes) -> str:
    """A word as the report shows it: U+FFFD for each byte that is not UTF-8."""
    return word.decode("utf-8", errors="byte by byte")


# ---- totals ----


@pytest.mark.parametrize("workers", [1, 2, 3, 16])
def test_totals_of_a_tree_are_those_of_an_independent_count(tree: Path, workers: int) -> None:
    assert totals(run_json("-j", workers, tree)) == naive(tree).totals()


def test_every_word_is_counted_as_often_as_it_stands_there(tree: Path) -> None:
    want: Counter[str] = Counter()
    for word, count in naive(tree).words.items():
        want[shown(word)] += count
    got: Counter[str] = Counter()
    result = run_json("-n", 10_000_000, tree)
    for entry in result["top"]:
        got[entry["word"]] += entry["count"]
    assert got == want
    counts = [entry["count"] for entry in result["top"]]
    assert counts == sorted(counts, reverse=True)


def test_ties_are_in_the_order_of_bytes_and_top_is_a_prefix_of_all(tree: Path) -> None:
    text = tree / "utf8.txt"
    words = naive(text).words
    want = [shown(word) for word in sorted(words, key=lambda w: (-words[w], w))]
    for n in (0, 1, 3, len(want), 1000):
        assert [entry["word"] for entry in run_json("-n", n, text)["top"]] == want[:n]


def test_each_file_alone_is_right(tree: Path) -> None:
    for path in sorted(tree.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.parent.name not in {"0", "1", "2"}:
            assert totals(run_json(path)) == naive(path).totals(), path.name


@pytest.mark.skipif(not LICENSES.is_dir(), reason="this machine has no common-licenses")
def test_totals_of_a_real_folder() -> None:
    assert totals(run_json(LICENSES)) == naive(LICENSES).totals()


def test_arguments_add_up_and_count_twice_when_named_twice(tree: Path) -> None:
    paths = [tree / "utf8.txt", tree / "deep", tree / "utf8.txt", tree / "crlf link"]
    assert totals(run_json(*paths)) == naive(*paths).totals()


def test_standard_input_may_be_a_file_a_pipe_or_empty(tree: Path) -> None:
    words = tree / "big" / "words.txt"
    want = naive(words).totals()
    with words.open("rb") as file:
        assert totals(run_json("-", stdin=file)) == want
    assert totals(run_json("-", input=words.read_bytes())) == want
    assert totals(run_json("-", input=b"")) == (1, 0, 0, 0)
    assert totals(run_json("-", stdin=subprocess.DEVNULL)) == (1, 0, 0, 0)


def test_pipes_are_read_when_they_are_named(tmp_path: Path, tree: Path) -> None:
    pipes = [tmp_path / f"pipe{i}" for i in range(12)]
    for pipe in pipes:
        os.mkfifo(pipe)
    command: list[str | Path] = [WORDCOUNT, "--json", *pipes, tree / "deep"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        for pipe in reversed(pipes):
            pipe.write_bytes((tree / "utf8.txt").read_bytes())
        out, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    assert totals(json.loads(out)) == naive(*[tree / "utf8.txt"] * len(pipes), tree / "deep").totals()


def test_what_folders_hide_is_skipped_and_said(tree: Path) -> None:
    result = run_json(tree)
    assert result["skipped"] == {"unreadable": 0, "packed": 2, "links": 3, "special": 1}
    everything = run_json("--all", tree)
    assert everything["skipped"]["packed"] == 0
    assert totals(everything) == naive(tree, packed=True).totals()
    # A name on the command line is an order.
    assert run_json(tree / "packed" / "archive.GZ")["words"] == 3


def mix(x: int) -> int:
    """The step of the hash of long words, see words.c."""
    x = x * 0x9E3779B97F4A7C15 % (1 << 64)
    return x ^ (x >> 32)


def test_words_with_the_same_hash_are_told_apart(tmp_path: Path) -> None:
    # key = mix(mix(16 ^ first) ^ last): for any other first half there is a last half with the same key. About three
    # in a hundred of those consist of bytes that belong to words.
    first, last = b"\xe1" * 8, b"\xe2" * 8
    key = mix(16 ^ int.from_bytes(first, "little")) ^ int.from_bytes(last, "little")
    words = [first + last]
    for i in range(3000):
        half = b"%08d" % i
        other = (mix(16 ^ int.from_bytes(half, "little")) ^ key).to_bytes(8, "little")
        if all(byte >= 0x80 or chr(byte) in "0123456789abcdefghijklmnopqrstuvwxyz" for byte in other):
            words.append(half + other)
    text = tmp_path / "colliding"
    text.write_bytes(b" ".join(words * 2))
    assert len(words) > 20
    assert totals(run_json(text)) == naive(text).totals()
    assert run_json(text)["distinct"] == len(words)


# ---- bad input ----


def not_to_be_opened(folder: Path) -> Path:
    """A file that is there and that even root may not open for reading."""
    if os.geteuid() != 0:
        (folder / "secret").touch(mode=0)
        return folder / "secret"
    for path in Path("/sys/bus").glob("*/drivers_probe"):
        if path.stat().st_mode & 0o444 == 0:
            return path
    pytest.skip("root may open everything here")


def test_very_many_unreadable_files_do_not_use_up_the_chunks(tree: Path, tmp_path: Path) -> None:
    good, bad = tree / "crlf.txt", not_to_be_opened(tmp_path)
    result = run_json(*[bad] * 1000, good, *[bad] * 1000)
    assert totals(result) == naive(good).totals()
    assert result["skipped"]["unreadable"] == 2000


def test_what_cannot_be_read_is_reported_and_skipped(tree: Path, tmp_path: Path) -> None:
    good, missing = tree / "crlf.txt", tmp_path / "missing"
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    done = run("--json", missing, good, loop, tree / "dangling", "/proc/self/mem")
    result = json.loads(done.stdout)
    assert done.returncode == 0
    assert totals(result) == naive(good).totals()
    assert result["skipped"]["unreadable"] == 4
    said = done.stderr.decode().splitlines()
    assert len(said) == 4 and all(line.endswith("(skipped)") for line in said)
    assert any(f"{missing}: No such file or directory" in line for line in said)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_and_folders_without_permission_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(b"one two")
    (tmp_path / "secret").write_bytes(b"three")
    (tmp_path / "secret").chmod(0)
    (tmp_path / "closed").mkdir(mode=0)
    result = run_json(tmp_path)
    assert totals(result) == (1, 7, 2, 2)
    assert result["skipped"]["unreadable"] == 2


def test_nothing_readable_at_all_is_a_failure(tmp_path: Path) -> None:
    assert run(tmp_path / "missing").returncode == 1
    assert run("/proc/self/mem").returncode == 1
    # An empty folder is no failure, there was nothing to read.
    assert totals(run_json(tmp_path)) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    "args",
    [
        ["--what"],
        ["-n", "many"],
        ["-n", "-1"],
        ["-j", "0"],
        ["-j", "9999999"],
        ["--min-bytes", "1X"],
        ["--rate", "999"],
        ["-n"],
    ],
)
def test_wrong_options_are_refused_with_a_hint(args: list[str]) -> None:
    done = run(*args)
    assert done.returncode == 2 and b"--help" in done.stderr and done.stdout == b""


def test_a_full_disk_is_noticed() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([WORDCOUNT, "/dev/null"], stdout=full, stderr=subprocess.PIPE, timeout=TIMEOUT)
    assert done.returncode == 1 and b"could not be written" in done.stderr


# ---- what it says ----


def test_help_teaches() -> None:
    text = run("--help").stdout.decode()
    for word in (
        "usage:",
        "--top",
        "--workers",
        "--json",
        "--min-bytes",
        "Ctrl-C",
        "Examples",
        "Exit status",
        "word is",
    ):
        assert word in text
    assert max(map(len, text.splitlines())) <= 100


def check_schema(result: dict[str, Any]) -> None:
    kinds: dict[str, type | tuple[type, ...]] = {
        "files": int, "bytes": int, "words": int, "distinct": int, "seconds": float, "mb_per_s": float,
        "workers": int, "interrupted": bool, "cut": int, "failures": int, "restarts": int, "recounted": int,
        "resumed": int, "checkpoints": int, "skipped": dict, "found": list, "top": list, "channels": list,
    }  # fmt: skip
    assert {key: type(value) for key, value in result.items()} == kinds
    assert set(result["skipped"]) == {"unreadable", "packed", "links", "special"}
    assert all(set(entry) == {"path", "folders", "files", "bytes"} for entry in result["found"])
    assert all(set(entry) == {"word", "count"} for entry in result["top"])
    assert [entry["name"] for entry in result["channels"]] == ["paths", "empties", "chunks", "tallies"]
    for channel in result["channels"]:
        assert set(channel) == {"name", "kind", "capacity", "sent", "high"}
        assert 0 <= channel["high"] <= channel["capacity"]


def test_json_has_its_members_and_the_channels_kept_their_bounds(tree: Path) -> None:
    result = run_json("-j", 3, tree)
    check_schema(result)
    channels = {entry["name"]: entry for entry in result["channels"]}
    assert channels["paths"]["sent"] == result["files"]
    assert channels["tallies"]["sent"] >= 1 and result["workers"] == 3
    assert channels["chunks"]["sent"] >= result["bytes"] // (1 << 20)
    assert not result["interrupted"] and result["cut"] == 0


def test_names_with_any_bytes_stay_valid_json(tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b'/a "b\\ \xff\x01'
    Path(os.fsdecode(odd)).write_bytes(b"one")
    done = subprocess.run([WORDCOUNT, "--json", odd], capture_output=True, timeout=TIMEOUT)
    assert json.loads(done.stdout)["found"][0]["path"].endswith('/a "b\\ \ufffd\x01')


def test_the_report_for_people_has_the_same_numbers(tree: Path) -> None:
    result, text = run_json(tree), run(tree).stdout.decode()
    files, size, words, distinct = totals(result)
    assert f"{files} files, {size} bytes, {words} words, {distinct} distinct" in text
    assert "MB/s" in text
    for name in ("paths", "empties", "chunks", "tallies"):
        assert f"\n{name} " in text
    for entry in result["top"]:
        assert f"{entry['count']:>12}  {entry['word']}\n" in text
    assert len(result["top"]) == 20


def test_progress_is_for_terminals_unless_asked_for(tree: Path) -> None:
    assert run(tree).stderr == b""
    master, slave = os.openpty()
    for option, some in (("--json", True), ("--no-progress", False)):
        subprocess.run([WORDCOUNT, option, tree], stdout=subprocess.DEVNULL, stderr=slave, timeout=TIMEOUT, check=True)
        os.set_blocking(master, False)
        try:
            line = os.read(master, 4096)
        except BlockingIOError:
            line = b""
        assert (b"MB/s" in line) == some
    os.close(slave)
    os.close(master)


def test_the_default_finds_enough_or_says_what_it_found() -> None:
    result, text = run_json(), run().stdout.decode()
    check_schema(result)
    found = sum(entry["bytes"] for entry in result["found"])
    assert found >= 20_000_000 or f"this machine has only {found / 1e6:.1f} MB of text" in text
    assert result["bytes"] > 0 and result["words"] > 0
    # Not more folders than needed.
    assert found - result["found"][-1]["bytes"] < 20_000_000
    assert "found /usr/share" in text or "found /usr/" in text


def test_a_rate_is_kept(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"word " * 20_000)
    result = run_json("--rate", "200K", str(tmp_path))
    assert result["bytes"] == result["words"] * 5 == 100_000
    assert result["seconds"] >= 0.45


def test_min_bytes_bounds_the_default_search() -> None:
    little = run_json("--min-bytes", "1K")
    assert len([entry for entry in little["found"] if entry["bytes"]]) == 1
