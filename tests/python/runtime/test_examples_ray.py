# SPDX-License-Identifier: Apache-2.0
"""wordcount.py on a Ray cluster has the totals it has without, also while its processes are killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from klaw_core.runtime import list_channels

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "python"
LIMIT = 50.0  # seconds
SAME = ("files", "bytes", "words", "distinct", "skipped", "found", "top")


def argv(*args: object) -> list[str]:
    return [sys.executable, str(EXAMPLES / "wordcount.py"), *map(str, args)]


def run(*args: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(argv(*args), capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen batches: small files, and a large one whose words lie across the edges of pieces."""
    root = tmp_path_factory.mktemp("tree")
    for i in range(1200):
        (root / f"{i}.txt").write_text(f"file {i} Größe don't\n" * (i % 7))
    (root / "large").write_bytes(b"across the edges " * 190_000)
    (root / "archive.gz").write_bytes(b"packed")
    (root / "link").symlink_to("large")
    return root


@pytest.fixture(scope="module")
def local(tree: Path) -> dict[str, Any]:
    result = json.loads(run("--json", "-n", 10**6, "-j", 1, "--no-checkpoint", tree).stdout)
    assert result["files"] == 1201 and result["words"] > 500_000
    return {key: result[key] for key in SAME}


def on_ray(cluster: Any, *args: object) -> dict[str, Any]:
    args = ("--json", "-n", 10**6, "-j", 2, "--backend", "ray", "--address", cluster["address"], *args)
    result: dict[str, Any] = json.loads(run(*args).stdout)
    left = [name for name in list_channels(backend="ray") if name.startswith("wordcount")]
    assert left == []
    return result


@pytest.mark.ray
def test_the_totals_are_the_same_on_ray(ray_cluster: Any, tree: Path, local: dict[str, Any]) -> None:
    result = on_ray(ray_cluster, tree)
    assert {key: result[key] for key in SAME} == local
    assert set(result["killed"].values()) == {0} and result["recounted"] == 0
    assert [(each["name"], each["kind"]) for each in result["channels"]] == [("batches", "ray"), ("tallies", "ray")]


@pytest.mark.ray
def test_the_totals_are_the_same_whoever_is_killed(ray_cluster: Any, tree: Path, local: dict[str, Any]) -> None:
    result = on_ray(ray_cluster, "--chaos=1", "--seed", 1, tree)
    assert {key: result[key] for key in SAME} == local
    # The walker, both channels' actors, and workers, two of them with a batch in their hands that was sent once: with
    # ack="before" it would never be counted.
    assert min(result["killed"].values()) >= 1 and result["killed"]["worker"] >= 2, result["killed"]
    assert result["restarts"] >= 2


@pytest.mark.ray
def test_ctrl_c_leaves_no_channels(ray_cluster: Any, tmp_path: Path) -> None:
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(8 << 30)  # much to read
    command = argv("--json", "-j", 1, "--progress", "--backend", "ray", "--address", ray_cluster["address"], tmp_path)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr
            while "files, " not in (line := process.stderr.readline()):  # it has begun
                assert line
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=LIMIT)
        finally:
            process.kill()
    assert process.returncode == 130, out + err
    assert json.loads(out)["interrupted"]
    assert [name for name in list_channels(backend="ray") if name.startswith("wordcount")] == []


@pytest.mark.ray
def test_no_cluster_is_told(tree: Path) -> None:
    assert "nobody answers at 127.0.0.1:1" in run("--backend", "ray", "--address", "127.0.0.1:1", tree, code=1).stderr


def test_options_that_ray_does_not_have_are_refused(tree: Path) -> None:
    run("--backend", "ray", "-", code=2)
    run("--backend", "ray", "--resume", tree, code=2)
    run("--backend", "ray", "--address", "somewhere", tree, code=2)
    run("--address", "127.0.0.1:1", tree, code=2)


def test_without_ray_it_says_what_to_install_and_counts_locally(tree: Path) -> None:
    program = """
import sys
sys.modules["ray"] = None
sys.path.insert(0, sys.argv.pop(1))
import wordcount
sys.exit(wordcount.main())
"""
    command = [sys.executable, "-c", program, str(EXAMPLES), "-j1", "--no-checkpoint", str(tree)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=LIMIT)
    done = subprocess.run([*command, "--backend", "ray"], capture_output=True, text=True, check=False, timeout=LIMIT)
    assert done.returncode == 1 and "pip install 'klaw-core[ray]'" in done.stderr
