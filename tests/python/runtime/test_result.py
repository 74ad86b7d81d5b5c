# SPDX-License-Identifier: Apache-2.0
"""Results, options and errors: values that can be matched, compared, pickled and unwrapped."""

from __future__ import annotations

import copy
import doctest
import gc
import pickle
from typing import Any

import klaw_core._klaw
import klaw_core.result
import pytest
from klaw_core import Err, Nothing, NothingType, Ok, Option, Result, Some, UnwrapError
from klaw_core.runtime import errors

BOXES = [Ok(1), Err("no"), Some([1]), Nothing]


def test_match_takes_the_value_out() -> None:
    def describe(result: Any) -> object:
        match result:
            case Ok(value):
                return ("ok", value)
            case Err(error):
                return ("err", error)
            case Some(value):
                return ("some", value)
            case NothingType():
                return "nothing"

    assert [describe(box) for box in BOXES] == [("ok", 1), ("err", "no"), ("some", [1]), "nothing"]


@pytest.mark.parametrize("box", BOXES)
def test_boxes_survive_pickling_and_copying(box: Any) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(box, protocol)) == box
    assert copy.copy(box) == box
    assert copy.deepcopy(box) == box


def test_nothing_is_one_object() -> None:
    assert NothingType() is Nothing
    assert pickle.loads(pickle.dumps(Nothing)) is Nothing
    assert not Nothing


def test_equality_and_hash_follow_side_and_value() -> None:
    assert Ok(1) == Ok(1.0) and hash(Ok(1)) == hash(Ok(1))
    assert Ok(1) != Err(1) and Ok(1) != Some(1) and Ok(1) != 1
    with pytest.raises(TypeError):
        hash(Ok([]))


def test_unwrapping_the_wrong_side_raises_what_it_is() -> None:
    with pytest.raises(KeyError):
        Err(KeyError("k")).unwrap()
    with pytest.raises(errors.ChannelFullError) as caught:
        Err(errors.ChannelFull(4)).unwrap()
    assert caught.value.capacity == 4
    with pytest.raises(UnwrapError) as wrapped:
        Err("no").expect("needed")
    assert wrapped.value.args == ("needed: 'no'", "no")
    with pytest.raises(UnwrapError):
        Nothing.unwrap()
    with pytest.raises(UnwrapError):
        Ok(1).unwrap_err()


def test_and_then_wants_the_same_family() -> None:
    with pytest.raises(TypeError, match="Ok or Err"):
        Ok(1).and_then(lambda v: Some(v))  # type: ignore[arg-type,return-value]
    with pytest.raises(TypeError, match="Some or Nothing"):
        Some(1).and_then(lambda v: v)  # type: ignore[arg-type,return-value]


def test_boxes_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Ok(1).value = 2  # type: ignore[misc]
    with pytest.raises(TypeError):
        Ok.value = 2  # type: ignore[misc,assignment]


def test_a_cycle_through_a_box_is_collected() -> None:
    cycle: list[object] = []
    cycle.append(Ok(cycle))
    assert repr(cycle) == "[Ok([...])]"
    del cycle
    assert gc.collect() >= 2


def test_aliases_can_be_subscribed() -> None:
    assert "Ok[int]" in str(Result[int, str])
    assert "Some[int]" in str(Option[int])


PAIRS = [(e._struct_type, e) for e in vars(errors).values() if isinstance(e, type) and hasattr(e, "_struct_type")]


def test_every_error_is_a_pair() -> None:
    assert len(PAIRS) == 13


@pytest.mark.parametrize(("struct", "exception"), PAIRS)
def test_struct_and_exception_carry_each_other(struct: Any, exception: Any) -> None:
    value = struct(1) if struct is errors.ChannelFull else struct()
    raised = value.to_exception()
    assert type(raised) is exception and isinstance(raised, errors.KlawError)
    assert raised.to_struct() == value
    for field in struct.__struct_fields__:
        assert getattr(raised, field) == getattr(value, field)
    raised.add_note("seen")
    again = pickle.loads(pickle.dumps(raised))
    assert again.to_struct() == value and again.__notes__ == ["seen"]
    assert copy.copy(raised).to_struct() == value


def test_exceptions_are_also_the_builtin_ones() -> None:
    assert issubclass(errors.TimeoutExpiredError, TimeoutError)
    assert issubclass(errors.ActorNotFoundError, LookupError)
    assert issubclass(errors.ChannelTypeErrorException, TypeError)
    assert issubclass(errors.ChannelBackendErrorException, errors.ChannelClosedError)


@pytest.mark.parametrize("module", [klaw_core.result, errors])
def test_documentation_runs(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


def test_documentation_of_the_extension_runs() -> None:
    runner = doctest.DocTestRunner()
    finder = doctest.DocTestFinder()
    names = {name: getattr(klaw_core._klaw, name) for name in dir(klaw_core._klaw)}
    found = 0
    for kind in names.values():
        for owner in [kind, *(vars(kind).values() if isinstance(kind, type) else ())]:
            text = getattr(owner, "__doc__", None)
            if isinstance(text, str) and ">>>" in text:
                test = doctest.DocTestParser().get_doctest(text, dict(names), getattr(owner, "__name__", "?"), None, 0)
                runner.run(test)
                found += 1
    assert finder and found > 20
    assert runner.failures == 0
