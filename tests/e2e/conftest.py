# SPDX-License-Identifier: Apache-2.0
"""What the end-to-end tests share: where the program is, and a naive word count to compare it with."""

import json
import os
import random
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(os.environ.get("KLAW_SOURCE_DIR", Path(__file__).resolve().parents[2]))
BUILD = Path(os.environ.get("KLAW_BUILD_DIR", ROOT / "build" / "release"))
WORDCOUNT = BUILD / "examples" / "wordcount"
KLAW = BUILD / "bin" / "klaw"
PATIENT = BUILD / "bin" / "patient"
TIMEOUT = 60

PACKED = {
    *(".gz", ".bz2", ".xz", ".zst", ".zip", ".tgz", ".jar", ".whl", ".png", ".jpg", ".jpeg", ".gif", ".ico", ".pdf"),
    *(".webp", ".ttf", ".woff", ".mo", ".so", ".a", ".o", ".pyc"),
}
SEED = int(os.environ.get("KLAW_SEED", random.SystemRandom().randrange(1 << 32)))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"seed {SEED}")


@dataclass
class Naive:
    """The totals as a few lines of Python see them."""

    files: int = 0
    size: int = 0
    words: Counter[bytes] = field(default_factory=Counter)

    def add(self, data: bytes) -> None:
        self.files += 1
        self.size += len(data)
        self.words.update(word.lower() for word in re.findall(rb"[A-Za-z0-9\x80-\xff]+", data))

    def add_path(self, path: Path, packed: bool = False) -> None:
        """A named file, or a folder: links, special files and (unless told) compressed ones left out."""
        if path.is_dir():
            for folder, _, names in os.walk(path):
                for name in names:
                    entry = Path(folder, name)
                    if entry.is_symlink() or not entry.is_file():
                        continue
                    if packed or os.path.splitext("x" + name)[1].lower() not in PACKED:
                        self.add(entry.read_bytes())
        else:
            self.add(path.read_bytes())

    def totals(self) -> tuple[int, int, int, int]:
        return self.files, self.size, self.words.total(), len(self.words)


def naive(*paths: Path, packed: bool = False) -> Naive:
    count = Naive()
    for path in paths:
        count.add_path(path, packed)
    return count


def totals(result: dict[str, Any]) -> tuple[int, int, int, int]:
    return result["files"], result["bytes"], result["words"], result["distinct"]


def run(*args: object, **more: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [WORDCOUNT, *map(os.fspath, map(str, args))], capture_output=True, timeout=TIMEOUT, check=False, **more
    )


def run_json(*args: object, code: int = 0, **more: Any) -> dict[str, Any]:
    done = run("--json", *args, **more)
    assert done.returncode == code, done.stderr.decode()
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture(autouse=True)
def _built() -> None:
    if not WORDCOUNT.exists():
        pytest.skip(f"no wordcount in {BUILD.name}")


@pytest.fixture(autouse=True, scope="session")
def _checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of a test goes to the home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KLAW_CHECKPOINT_PATH", str(tmp_path_factory.mktemp("checkpoints")))
        yield


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with everything that is unpleasant to count; KLAW_SEED makes the same one again."""
    rng = random.Random(SEED)
    root = tmp_path_factory.mktemp("tree")
    chunk = 256 * 1024

    def put(name: str, data: bytes) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    put("empty/a.txt", b"")
    put("empty/b", b"")
    put("separators only", b" \n\t.,;" * 1000)
    put("crlf.txt", b"One two\r\nTWO three\r\n\r\nthree Three\r\n" * 500)
    put("utf8.txt", "Grüße, naïve Übergröße \u4f60\u597d \U0001f600 ÉTÉ été don't\n".encode() * 3000)
    put("no newline at the end", b"last")
    put("begins in the middle", b"word of another file")
    put("one long word", b"Ab9" * chunk)
    put("long words.txt", b" ".join(b"x%d" % i * rng.randrange(1, 60000) for i in range(60)))
    put("null bytes", b"a\0b\0\0AB" * 5000)
    put("all bytes", bytes(range(256)) * 3000)
    put("random", rng.randbytes(3 * chunk + 17))
    put("random words", b" ".join(rng.randbytes(rng.randrange(1, 20)) for _ in range(30000)))
    for size in (-65, -64, -63, -1, 0, 1, 63, 64, 65):
        # The edges of a chunk, of a 64-byte block, and of both.
        put(f"edge/{size:+}", b"w" * (chunk + size))
        put(f"edge/{size:+} split", b"w" * (chunk + size) + b" " + b"V" * 100)
        put(f"edge/{size:+} end", b"ab " * ((chunk + size) // 3) + b"." * ((chunk + size) % 3))
        put(f"small edge/{size:+}", b"q" * (128 + size))
    vocabulary = [rng.randbytes(rng.randrange(1, 12)).hex().encode() for _ in range(5000)]
    for i in range(200):
        words = rng.choices(vocabulary, k=rng.randrange(0, 3000))
        put(f"deep/{i % 7}/{i % 3}/{i}.txt", b" ".join(words) + rng.choice([b"", b"\n", b"\r\n"]))
    put("big/words.txt", b"\n".join(rng.choices(vocabulary, k=600000)))
    put("packed/archive.GZ", b"not really compressed")
    put("packed/.gz", b"a name that is nothing but an ending")
    (root / "dangling").symlink_to("nowhere")
    (root / "deep" / "loop").symlink_to(root)
    (root / "crlf link").symlink_to("crlf.txt")
    os.mkfifo(root / "deep" / "fifo")
    return root
