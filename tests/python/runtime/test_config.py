# SPDX-License-Identifier: Apache-2.0
"""init, get_config, the environment, detection."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest
from klaw_core.runtime import Backend, Executor, get_config, init
from klaw_core.runtime._config import _detect_backend, _detect_concurrency


def test_without_init_everything_is_detected() -> None:
    config = get_config()
    assert config.backend is Backend.LOCAL
    assert config.concurrency == _detect_concurrency()
    assert config.log_level == "off"
    assert config.sources["concurrency"] == "detected"


def test_detection_sees_no_more_processors_than_the_affinity_allows() -> None:
    machine = get_config().machine
    assert machine is not None
    assert 1 <= _detect_concurrency() <= machine.allowed == len(os.sched_getaffinity(0))
    assert machine.allowed <= machine.online
    assert machine.memory > 1 << 20


def test_detection_follows_the_affinity_of_the_process() -> None:
    one = min(os.sched_getaffinity(0))
    program = (
        f"import os; os.sched_setaffinity(0, {{{one}}});"
        " import klaw_core.runtime as k; print(k.get_config().concurrency)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "1\n"


def test_explicit_beats_environment_beats_detection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLAW_CONCURRENCY", "7")
    monkeypatch.setenv("KLAW_LOG_LEVEL", "debug")
    config = init(concurrency=3)
    assert (config.concurrency, config.sources["concurrency"]) == (3, "explicit")
    assert (config.log_level, config.sources["log_level"]) == ("debug", "environment")
    assert config.sources["backend"] == "detected"


def test_the_environment_names_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLAW_BACKEND", "ray")
    assert _detect_backend() is Backend.RAY
    assert get_config().sources["backend"] == "environment"


@pytest.mark.parametrize("value", [Backend.LOCAL, "local"])
def test_the_backend_is_an_enum_or_its_name(value: Backend | str) -> None:
    assert init(backend=value).backend is Backend.LOCAL


@pytest.mark.parametrize(
    ("options", "right"),
    [
        ({"backend": "mars"}, ["local", "ray"]),
        ({"log_level": "loud"}, ["off", "error", "warn", "info", "debug", "trace"]),
    ],
)
def test_a_wrong_name_is_refused_with_the_right_ones(options: dict[str, str], right: list[str]) -> None:
    with pytest.raises(ValueError, match=next(iter(options.values()))) as caught:
        init(**options)  # type: ignore[arg-type]
    assert all(name in str(caught.value) for name in right)
    assert get_config().sources["backend"] == "detected", "nothing was settled"


@pytest.mark.parametrize("number", [0, -1, True, 2**32, 2**32 + 1, 2**70, 1.5])
def test_a_wrong_concurrency_is_refused(number: int) -> None:
    with pytest.raises((ValueError, TypeError)):
        init(concurrency=number)
    assert get_config().sources["concurrency"] == "detected"


@pytest.mark.parametrize("text", ["0", "-3", "many", "", "99999999999999999999"])
def test_a_wrong_environment_is_refused_or_ignored_but_never_obeyed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("KLAW_CONCURRENCY", text)
    try:
        config = init()
    except ValueError as error:
        assert "KLAW_CONCURRENCY" in str(error)
    else:
        assert config.concurrency == _detect_concurrency()


def test_the_same_init_twice_is_one_and_another_one_is_refused() -> None:
    first = init(concurrency=2)
    assert init(concurrency=2) == first
    with pytest.raises(RuntimeError):
        init(concurrency=3)
    assert get_config().concurrency == 2


def test_options_of_the_backend_keep_their_python_values() -> None:
    options = {"num_cpus": 2, "labels": {"zone": "a"}}
    assert init("ray", **options).backend_kwargs == options
    get_config().backend_kwargs["num_cpus"] = 99
    assert get_config().backend_kwargs["num_cpus"] == 2, "what is handed out is a copy"


def test_log_levels_in_any_case() -> None:
    assert init(log_level="INFO").log_level == "info"


@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_the_checkpoint_path_is_a_text_or_a_path(tmp_path: pathlib.Path, kind: type) -> None:
    config = init(checkpoint_path=kind(tmp_path / "state.db"))
    assert config.checkpoint_path == str(tmp_path / "state.db")


def test_a_configuration_is_a_value() -> None:
    config = get_config()
    assert config == get_config()
    with pytest.raises(AttributeError):
        config.concurrency = 3  # type: ignore[misc]


def test_an_executor_takes_the_configured_concurrency() -> None:
    init(concurrency=5)
    assert Executor()._concurrency == 5
    assert Executor(concurrency=2)._concurrency == 2


def test_the_executor_takes_the_configured_options() -> None:
    init(workers="processes")
    assert Executor()._backend._workers == "processes"  # type: ignore[attr-defined]
    assert Executor(workers="threads")._backend._workers == "threads"  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="workers"):
        init(workers="threads")


def test_the_local_backend_has_no_other_options() -> None:
    with pytest.raises(ValueError, match="num_cpus"):
        init(num_cpus=2)


def test_the_import_loads_nothing_heavy() -> None:
    program = (
        "import sys, klaw_core.runtime; print(len(sys.modules), sorted({m.partition('.')[0] for m in sys.modules}"
        " & {'ray', 'structlog', 'tenacity', 'anyio', 'trio', 'uvloop', 'asyncio', 'concurrent', 'multiprocessing',"
        " 'subprocess', 'ssl', 'hashlib', 'logging', 'json', 'rich', 'psutil', 'sqlite3'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    count, _, heavy = done.stdout.partition(" ")
    assert heavy == "[]\n"
    assert int(count) < 170  # msgspec's own imports are most of them; asyncio would be 60 more
