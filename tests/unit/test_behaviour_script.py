"""The digests of behaviour say what changed, and say nothing of how the library spells it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import patchpack as pp
from helpers import behaviour
from helpers.batches import by_hand
from helpers.behaviour import __main__ as script
from helpers.behaviour import names, parts, registry
from helpers.behaviour.values import Parts, digest
from patchpack.types import Size

SOME = ["pack/samples/wrap", "packer/Lookahead cut", "recipe/all drawn/batches", "source/samples/here", "wrong/recipe/rows 0"]


def of(*batches: Any) -> dict[str, str]:
    found = Parts()
    parts.run_batches(found, batches, images=True)
    return found.digests()


def changed(batch: Any, **fields: Any) -> set[str]:
    """Return the parts that differ once some fields are others."""
    before, after = of(batch), of(batch._replace(**fields))
    assert before.keys() == after.keys()
    return {label for label in before if before[label] != after[label]}


def test_a_pixel_a_label_and_a_key_change_their_parts_alone() -> None:
    batch = by_hand()
    pixels, labels = batch.patches.copy(), batch.targets.copy()
    pixels[0, 3, 1] += 1
    labels[0, 1] += 1
    assert changed(batch) == set()
    assert changed(batch, patches=pixels) == {"patches", "images"}
    assert changed(batch, targets=labels) == {"targets", "images"}
    assert changed(batch, keys=[["a", "b", "d"]]) == {"keys", "images"}
    assert changed(batch, info={"step": 1}) == {"info"}
    assert changed(batch, targets=batch.targets.astype(np.int32)) == {"targets", "images"}


def test_the_order_of_batches_changes_digests() -> None:
    one = by_hand()
    other = one._replace(patches=one.patches[:, ::-1].copy())
    assert of(one, other)["patches"] != of(other, one)["patches"]
    assert of(one, other)["norm"] == of(other, one)["norm"]


DIFFERENT: list[Any] = [
    None, False, 0, 0.0, -0.0, "", b"", [], {}, set(), [0], [[0]], [[], 0], "0", b"0", {"0": 0}, ["a", "bc"], ["ab", "c"], True,
    1, np.int64(1), np.int32(1), np.zeros(2), np.zeros(2, np.float32), np.zeros((2, 1)), np.zeros((1, 2)),
    torch.zeros(2), np.array([None, 1], dtype=object), range(3), {"a": 1, "b": 2}, {"a": 2, "b": 1},
]  # fmt: skip


def test_values_that_differ_have_other_digests() -> None:
    assert len({digest(value) for value in DIFFERENT}) == len(DIFFERENT)


def test_values_that_are_equal_have_one_digest() -> None:
    assert digest((1, Size(2, 3))) == digest([1, [2, 3]])
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest(np.arange(6).reshape(2, 3).T) == digest(np.arange(6).reshape(2, 3).T.copy())
    assert digest("/tmp/one/s.tar", "/tmp/one") == digest("/tmp/other/s.tar", "/tmp/other")
    with pytest.raises(TypeError, match="SimpleNamespace has no defined bytes"):
        digest(SimpleNamespace(a=1))


@pytest.fixture
def cases(tmp_path: Path) -> Iterator[Any]:
    behaviour.all_cases()
    with registry.working_in(tmp_path):
        yield registry.CASES


@pytest.mark.parametrize("name", SOME)
def test_a_case_gives_the_same_twice_and_elsewhere(name: str, cases: Any, tmp_path: Path) -> None:
    here = registry.run(name)
    assert here
    assert "error" not in here
    assert registry.run(name) == here
    other = tmp_path / "another folder"
    other.mkdir()
    with registry.working_in(other):
        assert registry.run(name) == here


def test_a_case_that_fails_names_its_error(cases: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(out: Parts, error: Exception) -> None:
        out.add("before", 1)
        raise error

    for error, said in (
        (pp.recipes.UnknownRecipeError("navid"), "ConfigError"),
        (ZeroDivisionError("x"), "ZeroDivisionError"),
        (names.NoSuchNameError("Loader"), "no such name: Loader"),
    ):
        monkeypatch.setitem(cases, "fails", partial(fails, error=error))
        assert registry.run("fails") == {"before": digest(1), "error": said}


def test_a_case_that_never_ends_is_stopped(cases: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(out: Parts) -> None:
        while True:
            pass

    monkeypatch.setitem(cases, "endless", endless)
    monkeypatch.setattr(registry, "LIMIT", 0.05)
    assert registry.run("endless") == {"error": "TimeoutError"}


def test_every_name_of_the_tables_is_there() -> None:
    """Find what no case may stumble over: a rename that the tables have not been told of."""
    for label in names.OBJECTS:
        names.find(label)
    recipe = set(pp.Recipe.__dataclass_fields__)
    assert {"rows_per_batch", "flip_prob"} <= names.PARAMETERS.keys()
    assert all(set(names.PARAMETERS[label]) & recipe for label in ("rows_per_batch", "flip_prob"))


def test_new_spellings_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def renamed(source: Any, recipe: Any, *, on_error: Any = "raise", rows_per_batch: int = 1, **more: Any) -> Any:
        return source, recipe, on_error, rows_per_batch, more

    def policy(on_error: Any, *, max_in_a_row: int = 1) -> Any:
        return "policy", on_error, max_in_a_row

    def opened(source: Any, *, target: str) -> Any:
        return "source", source, target

    there = {"load": renamed, "ErrorPolicy": policy, "open_source": opened}
    find = names.find
    monkeypatch.setattr(names, "find", lambda label: there.get(label) or find(label))
    words = {"max_in_a_row": 3, "on_error": "skip", "target": "cls", "rows_per_batch": 5, "pin_memory": True}
    given = names.load("shards", "recipe", **words)
    assert given == (("source", "shards", "cls"), "recipe", ("policy", "skip", 3), 5, {"pin_memory": True})
    assert names.read(SimpleNamespace(shortened=4), "shortened") == names.read({"altered": 4}, "shortened") == 4
    with pytest.raises(names.NoSuchNameError, match="shortened of a dict"):
        names.read({}, "shortened")


def test_comparing_tells_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {"a": {"patches": digest(1), "keys": digest(2)}, "b": {"error": "ConfigError"}, "c": {"len": digest(3)}}
    after = {"a": {"patches": digest(9), "keys": digest(2)}, "b": {"error": "ShapeError"}, "d": {}}
    for name, found in (("before", before), ("after", after)):
        (tmp_path / name).write_text(json.dumps(found))
    files = [str(tmp_path / "before"), str(tmp_path / "after")]
    assert script.main(["--compare", *files]) == 1
    told = capsys.readouterr().out.splitlines()
    assert told == [
        "a: patches",
        "b: error (ConfigError → ShapeError)",
        "c: only before",
        "d: only after",
        "4 of 4 cases differ",
    ]
    assert script.main(["--compare", files[0], files[0]]) == 0


def test_some_cases_are_run_by_pattern(capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--only", "packer/*cut", "--only", "wrong/recipe/rows 0"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["packer/Lookahead cut", "wrong/recipe/rows 0"]
    assert found["wrong/recipe/rows 0"] == {"raises": "ConfigError"}


def test_there_are_cases_of_every_source_mode_and_recipe() -> None:
    there = set(behaviour.all_cases())
    assert len(there) > 900
    for group in (
        "source",
        "resume",
        "replay",
        "recipe",
        "preset",
        "packer",
        "end",
        "fault",
        "wrong",
        "pages",
        "texts",
        "clips",
    ):
        assert any(name.startswith(f"{group}/") for name in there), group
    for preset in pp.recipes.PRESETS:
        assert {f"preset/{preset}/{what}" for what in ("decisions", "batches", "eval")} <= there
