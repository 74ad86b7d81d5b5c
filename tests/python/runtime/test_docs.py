# SPDX-License-Identifier: Apache-2.0
"""Every example in a docstring runs."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import klaw_core.runtime
import pytest
from klaw_core import _klaw

MODULES = sorted(
    info.name
    for info in pkgutil.walk_packages(klaw_core.__path__, "klaw_core.")
    if not info.name.endswith(("._klaw", "._trio")) and ".ray" not in info.name
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert outcome.failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = sum(bool(test.examples) for name in MODULES for test in finder.find(importlib.import_module(name)))
    assert found > 30


def test_examples_of_the_extension_run() -> None:
    """doctest looks for Python functions only."""
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    space = vars(_klaw)
    documented = dict(space)
    for kind in space.values():
        if inspect.isclass(kind):
            documented |= {f"{kind.__name__}.{name}": member for name, member in vars(kind).items()}
    for name, found in documented.items():
        text = getattr(found, "__doc__", None)
        if isinstance(text, str) and ">>>" in text and (inspect.isroutine(found) or inspect.isclass(found)):
            runner.run(parser.get_doctest(inspect.cleandoc(text), dict(space), f"_klaw.{name}", None, None))
    assert runner.tries > 10 and runner.failures == 0


HOMES = [importlib.import_module(name) for name in MODULES if name.startswith("klaw_core.runtime.")]


def _examples(found: object) -> bool:
    return ">>>" in (inspect.getdoc(found) or "")


@pytest.mark.parametrize("name", klaw_core.runtime.__all__)
def test_every_public_name_is_explained_by_an_example(name: str) -> None:
    """Its own, one of its methods', or one of the module that it is public in. Exceptions and structs of errors are
    explained as pairs, protocols by what fulfils them."""
    found = getattr(klaw_core.runtime, name)
    if not (inspect.isclass(found) or inspect.isroutine(found)) or getattr(found, "_is_protocol", False):
        return
    if found.__module__ == "klaw_core.runtime.errors" or (inspect.isclass(found) and issubclass(found, BaseException)):
        assert inspect.getdoc(found) and _examples(importlib.import_module("klaw_core.runtime.errors"))
        return
    homes = [home for home in HOMES if getattr(home, name, None) is found and name in getattr(home, "__all__", ())]
    members = vars(found).values() if inspect.isclass(found) else ()
    assert _examples(found) or any(map(_examples, members)) or any(map(_examples, homes)), name


@pytest.mark.parametrize(
    "name", [n for n in klaw_core.runtime.__all__ if inspect.isclass(getattr(klaw_core.runtime, n))]
)
def test_every_public_method_has_a_docstring(name: str) -> None:
    kind = getattr(klaw_core.runtime, name)
    for member, found in vars(kind).items():
        function = isinstance(found, (classmethod, staticmethod, property)) or inspect.isroutine(found)
        if function and not member.startswith("_"):
            assert inspect.getdoc(getattr(kind, member)), f"{name}.{member} has no docstring"
