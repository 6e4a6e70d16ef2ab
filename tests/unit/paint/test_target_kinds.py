"""Kinds of targets that the user declares: what is accepted, what is stored, and what an error advises."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import patchpack as pp
from patchpack.paint.target_kinds import in_words, option_of, parse_kind
from patchpack.paint.targets import allocate, erase, infer_kind, store
from patchpack.types import TargetKind, TargetSpec

INT, FLOAT, OBJECT = (TargetSpec(dtype, (), True) for dtype in ("int64", "float32", "object"))
BOX = TargetSpec("float32", (4,), True)

shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
ones = st.one_of(st.sampled_from(["int", "float", "object"]), st.tuples(st.sampled_from(["int", "float"]), shapes))
options = st.one_of(ones, st.dictionaries(st.text(max_size=5), ones, min_size=1, max_size=3))


@pytest.mark.parametrize(
    ("given_kind", "kind"),
    [
        (None, None),
        ("int", INT),
        ("float", FLOAT),
        ("object", OBJECT),
        (("float", (4,)), BOX),
        (["float", [4]], BOX),
        (("int", ()), INT),
        ({"a": "int", "b": ("float", (4,)), "c": "object"}, {"a": INT, "b": BOX, "c": OBJECT}),
    ],
    ids=str,
)
def test_an_option_is_a_kind(given_kind: Any, kind: TargetKind) -> None:
    assert parse_kind(given_kind) == kind


@pytest.mark.parametrize(
    "given_kind",
    [
        "", "int64", "Float", int, np.float32, 4, True, [], (), ("float",), ("float", 4), ("float", (-1,)), ("float", (True,)),
        ("float", (1.0,)), ("object", (4,)), ("float", "4"), {}, {1: "int"}, {"a": None}, {"a": {"b": "int"}}, {"a": "x"},
    ],
    ids=repr,
)  # fmt: skip
def test_anything_else_is_refused(given_kind: Any) -> None:
    with pytest.raises(pp.errors.ConfigError, match="target_kind must be 'int', 'float', 'object', a pair of"):
        parse_kind(given_kind)


@given(options)
def test_the_option_of_a_kind_gives_the_kind_again(option: Any) -> None:
    kind = parse_kind(option)
    assert parse_kind(option_of(kind)) == kind
    assert parse_kind(eval(in_words(kind))) == kind


values = st.recursive(st.none() | st.integers() | st.floats() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=3))


@given(st.lists(values, min_size=1, max_size=4))
def test_an_object_is_any_value_and_stays_that_value(labels: list[Any]) -> None:
    targets = allocate(OBJECT, 1, len(labels))
    for slot, label in enumerate(labels):
        store(targets, OBJECT, 0, slot, label)
    assert isinstance(targets, list)
    assert all(found is label for found, label in zip(targets[0], labels, strict=True))
    for slot in range(len(labels)):
        erase(targets, OBJECT, 0, slot)
    assert targets == [[None] * len(labels)]


@given(st.lists(st.integers(-(1 << 24), 1 << 24) | st.floats(width=32), min_size=1, max_size=4))
def test_a_float_is_any_number_that_float32_holds(labels: list[float]) -> None:
    targets = allocate(FLOAT, 1, len(labels))
    for slot, label in enumerate(labels):
        store(targets, FLOAT, 0, slot, label)
    assert isinstance(targets, np.ndarray)
    for found, label in zip(targets[0].tolist(), labels, strict=True):
        assert found == label or (math.isnan(found) and math.isnan(label))


@given(st.lists(st.tuples(st.integers(-5, 5), values), min_size=1, max_size=4))
def test_a_dict_may_hold_arrays_and_objects(labels: list[tuple[int, Any]]) -> None:
    kind = parse_kind({"class": "int", "boxes": "object"})
    targets = allocate(kind, 1, len(labels) + 1)
    for slot, (number, boxes) in enumerate(labels):
        store(targets, kind, 0, slot, {"boxes": boxes, "class": number})
    assert isinstance(targets, dict)
    assert targets["class"].tolist() == [[*(number for number, _ in labels), -100]]
    assert all(found is boxes for found, (_, boxes) in zip(targets["boxes"][0], labels, strict=False))
    erase(targets, kind, 0, 0)
    assert (targets["class"][0, 0], targets["boxes"][0][0]) == (-100, None)


def test_a_dict_of_which_one_label_is_wrong_is_not_written_at_all() -> None:
    kind = parse_kind({"boxes": "object", "class": "int"})
    targets = allocate(kind, 1, 1)
    with pytest.raises(pp.errors.TargetError, match="expected a target 'class' of kind int64 as target_kind="):
        store(targets, kind, 0, 0, {"boxes": [1], "class": 0.5})
    assert targets["boxes"] == [[None]]


ANY = "pass target_kind='object' for labels of any type"
LENGTHS = "pass target_kind='object' for labels of several shapes or lengths"
NONE_TOO = "pass target_kind='object', which also takes None"
FRACTIONS = "pass target_kind='float' if labels are fractions"
AB = "{'a': 'int', 'b': 'float'}"
ADVICE: dict[str, tuple[Any, Any, str]] = {  # the first label or the declared kind, the label, the error
    "1, then 0.5": (1, 0.5, f"expected a target of kind int64 as the first sample had, got 0.5: {FRACTIONS}"),
    "vectors": ([1, 2], [0.5, 1], "pass target_kind=('float', (2,)) if labels are fractions"),
    "None for int": (1, None, f"{NONE_TOO}, or replace None by a number in map_target=, such as -100"),
    "None for float": (0.5, None, f"{NONE_TOO}, or replace None by a number in map_target=, such as float('nan')"),
    "None for a text": ("x", None, f"expected a target, as the first sample had, got None: {NONE_TOO}"),
    "boxes": ([[1, 2], [3, 4]], [[1, 2]], f"int64 [2, 2] as the first sample had, got [[1, 2]]: {LENGTHS}"),
    "no boxes": ([[1, 2], [3, 4]], [], f"got []: {LENGTHS}"),
    "ragged": ([1, 2], [[1], [2, 3]], ANY),
    "a text": (1, "x", ANY),
    "only some": (None, 1, "expected no target, as the first sample had none, got 1: pass target_kind='object' if only some"),
    "in a dict": ({"a": 1, "b": 2}, {"a": 1, "b": 0.5}, f"got 0.5: pass target_kind={AB} if labels are fractions"),
    "name in a dict": ({"a": 1, "b": 2}, {"a": 1, "b": 0.5}, "expected a target 'b' of kind int64 as the first sample had"),
    "None in a dict": ({"a": 1}, {"a": None}, "pass target_kind={'a': 'object'}, which also takes None"),
    "another dict": ({"a": 1}, {"b": 1}, f"expected a dict of the targets a, as the first sample had, got {{'b': 1}}: {ANY}"),
    "declared int": (INT, 0.5, f"expected a target of kind int64 as target_kind='int' says, got 0.5: {FRACTIONS}"),
    "declared int, None": (INT, None, f"as target_kind='int' says, got None: {NONE_TOO}"),
    "declared shape": (
        FLOAT,
        [1, 2],
        "got [1, 2]: pass target_kind=('float', (2,)) if all labels have this shape, or target_k",
    ),
    "declared number": (
        BOX,
        1,
        "pass target_kind='float' if all labels are single numbers, or target_kind='object' for labels",
    ),
    "declared in a dict": (
        {"a": INT},
        {"a": "x"},
        "as target_kind={'a': 'int'} says, got 'x': pass target_kind={'a': 'object'}",
    ),
}


@pytest.mark.parametrize("name", ADVICE)
def test_an_error_advises_the_kind_that_takes_the_label(name: str) -> None:
    first, label, said = ADVICE[name]
    declared = isinstance(first, TargetSpec) or (isinstance(first, dict) and isinstance(next(iter(first.values())), TargetSpec))
    kind = first if declared else infer_kind(first)
    with pytest.raises(pp.errors.TargetError) as error:
        store(allocate(kind, 1, 1), kind, 0, 0, label)
    assert said in str(error.value)


@contextmanager
def suppress_beyond_float32() -> Iterator[None]:
    """Pass over the error for a number that float32 does not hold."""
    try:
        yield
    except pp.errors.TargetError as error:
        if "float32" not in str(error):
            raise


@given(values, values)
def test_the_advised_kind_takes_both_labels(first: Any, label: Any) -> None:
    """Following the advice of an error leads to a kind that holds the first label and the label at fault."""
    try:
        kind = infer_kind(first)
        store(allocate(kind, 1, 1), kind, 0, 0, label)
    except pp.errors.TargetError as error:
        text = str(error)
        if "target_kind=" not in text:
            return  # a number beyond float32
        option = "float" if "target_kind='float'" in text else "object"
        if "target_kind=('float'" in text:
            option = ("float", np.shape(first))  # type: ignore[assignment]
        advised = parse_kind(option)
        for one in (first, label):
            with suppress_beyond_float32():
                store(allocate(advised, 1, 1), advised, 0, 0, one)
