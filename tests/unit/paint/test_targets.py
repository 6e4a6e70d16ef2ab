"""Labels beside slots: every kind, its filler, and what happens to a label of another kind."""

from __future__ import annotations

import io
import json
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import patchpack as pp
from patchpack.paint.targets import allocate, infer_kind, store
from patchpack.stream.sample.labels import decode_target
from patchpack.types import TargetSpec

RECIPE = pp.Recipe(resize=pp.resize.Native(9), patch_size=2, seq_len=9, max_images=3, rows_per_batch=1)

# ---------------------------------------------------------------------------------------------------------------- kinds

INT, FLOAT, OBJECT = TargetSpec("int64"), TargetSpec("float32"), TargetSpec("object")
KINDS = {
    "int": (3, INT),
    "bool": (True, INT),
    "numpy_int": (np.uint8(3), INT),
    "torch_int": (torch.tensor(3), INT),
    "float": (0.5, FLOAT),
    "numpy_float": (np.float64(0.5), FLOAT),
    "int_list": ([1, 2, 3], TargetSpec("int64", (3,))),
    "box": (np.zeros((4, 2), dtype=np.float32), TargetSpec("float32", (4, 2))),
    "str": ("cat", OBJECT),
    "bytes": (b"cat", OBJECT),
    "ragged": ([[1], [2, 3]], OBJECT),
    "str_list": (["a", "b"], OBJECT),
    "too_large": (2**63, OBJECT),
    "too_large_array": (np.array([1, 2**63], dtype=np.uint64), OBJECT),
    "gradient": (torch.zeros(2, requires_grad=True), TargetSpec("float32", (2,))),
    "torch_float": (torch.tensor(0.5), FLOAT),
    "torch_bool": (torch.tensor([True, False]), TargetSpec("int64", (2,))),
    "half": (torch.tensor([0.5], dtype=torch.float16), TargetSpec("float32", (1,))),
    "bfloat16": (torch.tensor(0.5, dtype=torch.bfloat16), FLOAT),
    "parameter": (torch.nn.Parameter(torch.ones(2, dtype=torch.float64)), TargetSpec("float32", (2,))),
    "tensors_in_a_list": ([torch.tensor(0.5), torch.tensor(1.0)], TargetSpec("float32", (2,))),
    "complex": (torch.zeros(2, dtype=torch.complex64), OBJECT),
    "dict_of_tensors": ({"a": torch.tensor(3.0, dtype=torch.bfloat16)}, {"a": FLOAT}),
    "dict": ({"a": 1, "b": [0.5, 1]}, {"a": INT, "b": TargetSpec("float32", (2,))}),
    "dict_int_keys_of_text": ({7: "x"}, OBJECT),
    "dict_of_text": ({"a": 1, "b": "x"}, OBJECT),
    "empty_dict": ({}, OBJECT),
    "none": (None, None),
}


@pytest.mark.parametrize("name", KINDS)
def test_kind(name: str) -> None:
    target, kind = KINDS[name]
    assert infer_kind(target) == kind


@pytest.mark.parametrize("name", KINDS)
def test_the_first_target_fits_its_own_kind(name: str) -> None:
    target, kind = KINDS[name]
    store(allocate(kind, 1, 1), kind, 0, 0, target)


def test_int_targets_are_int64_with_minus_100() -> None:
    targets = allocate(INT, 2, 2)
    store(targets, INT, 0, 1, 7)
    assert targets.dtype == np.int64
    assert targets.tolist() == [[-100, 7], [-100, -100]]


def test_float_targets_are_float32_with_nan() -> None:
    targets = allocate(FLOAT, 1, 2)
    store(targets, FLOAT, 0, 0, 0.5)
    assert targets.dtype == np.float32
    assert targets[0, 0] == 0.5
    assert np.isnan(targets[0, 1])


def test_array_targets_keep_their_shape() -> None:
    kind = TargetSpec("int64", (2, 2))
    targets = allocate(kind, 1, 2)
    store(targets, kind, 0, 1, [[1, 2], [3, 4]])
    assert targets.tolist() == [[[[-100, -100], [-100, -100]], [[1, 2], [3, 4]]]]


def test_dict_targets_are_a_dict_of_arrays() -> None:
    kind = infer_kind({"class": 1, "score": 0.5})
    targets = allocate(kind, 1, 2)
    store(targets, kind, 0, 0, {"score": 1, "class": 4})
    assert targets["class"].tolist() == [[4, -100]]
    assert targets["score"][0, 0] == 1.0
    assert np.isnan(targets["score"][0, 1])


@pytest.mark.parametrize("target", [{7: 1}, {1: 5, "1": 6}, {("a", "b"): 1}])
def test_names_of_a_dict_are_strings(target: Any) -> None:
    with pytest.raises(pp.errors.TargetError, match="the names of a dict of labels are strings, got"):
        infer_kind(target)
    kind = infer_kind({"1": 5})
    with pytest.raises(pp.errors.TargetError, match=r"expected a dict of the targets 1, as the first sample had, got"):
        store(allocate(kind, 1, 1), kind, 0, 0, target)


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "label", [10**5000, Unshowable(), [10**5000], {"a": Unshowable()}], ids=["int", "object", "list", "dict"]
)
def test_a_label_that_cannot_be_shown_is_a_rejection(label: Any) -> None:
    for first in (1, 0.5, {"b": 1}, None):
        kind = infer_kind(first)
        with pytest.raises(pp.errors.TargetError, match=r"cannot be shown \((ValueError|RuntimeError)\)"):
            store(allocate(kind, 1, 1), kind, 0, 0, label)
    _, report = load([1, label, 2])
    assert [r.key for r in report.rejected] == ["k1"]


def test_an_error_whose_text_cannot_be_shown_is_a_rejection() -> None:
    def failing(label: int) -> int:
        if label == 1:
            raise ValueError(Unshowable())
        return label

    _, report = load([0, 1, 2], map_target=failing)
    assert [r.key for r in report.rejected] == ["k1"]
    assert report.rejected[0].reason == "map_target failed for 1: ValueError: (its text cannot be shown)"


@pytest.mark.parametrize("label", [16777217, -16777217, np.int64(2**53 + 1), [0, 16777217], True])
def test_an_integer_that_float32_cannot_hold_is_refused(label: Any) -> None:
    kind = infer_kind([0.5, 0.5] if isinstance(label, list) else 0.5)
    if label is True:
        store(allocate(kind, 1, 1), kind, 0, 0, label)
        return
    with pytest.raises(
        pp.errors.TargetError,
        match=r"float32 holds exactly, got the integer .*: give labels as",
    ):
        store(allocate(kind, 1, 1), kind, 0, 0, label)


@pytest.mark.parametrize("label", [16777216, 2**40, 0, [2**30, -(2**25)]])
def test_an_integer_that_float32_holds_is_kept(label: Any) -> None:
    kind = infer_kind([0.5, 0.5] if isinstance(label, list) else 0.5)
    targets = allocate(kind, 1, 1)
    store(targets, kind, 0, 0, label)
    assert targets[0, 0].tolist() == (label if isinstance(label, list) else float(label))


MASKED = np.ma.array([1, 2], mask=[False, True])


@pytest.mark.parametrize(
    "label", [MASKED, np.ma.masked, [MASKED, MASKED], {"a": MASKED}], ids=["array", "masked", "list", "dict"]
)
def test_masked_values_are_no_labels(label: Any) -> None:
    with pytest.raises(pp.errors.TargetError, match="a label with masked values has no number there"):
        infer_kind(label)
    assert infer_kind(np.ma.array([1, 2], mask=False)) == TargetSpec("int64", (2,))
    _, report = load([label, 1])
    assert [(r.key, r.stage) for r in report.rejected] == [("k0", "target")]


def test_none_after_a_text_is_a_rejection() -> None:
    (batch,), report = load(["cat", None, "dog"])
    assert [(r.key, r.stage) for r in report.rejected] == [("k1", "target")]
    assert batch.targets == [["cat", None, "dog"]]
    assert batch.slot_mask.tolist() == [[True, False, True]]


def test_other_objects_are_a_nested_list_with_none() -> None:
    targets = allocate(OBJECT, 1, 3)
    store(targets, OBJECT, 0, 1, {"text": ["a"]})
    assert targets == [[None, {"text": ["a"]}, None]]


def test_no_targets_are_none() -> None:
    assert allocate(None, 2, 2) is None
    store(None, None, 0, 0, None)


def test_an_int_is_a_fine_float() -> None:
    targets = allocate(FLOAT, 1, 1)
    store(targets, FLOAT, 0, 0, 3)
    assert targets.tolist() == [[3.0]]


MISMATCHES = {
    "float_for_int": (1, 0.5),
    "text_for_int": (1, "1"),
    "none_for_int": (1, None),
    "array_for_int": (1, [1, 2]),
    "too_large_for_int": (1, 2**64 - 1),
    "numpy_too_large_for_int": (1, np.uint64(2**64 - 1)),
    "text_for_float": (0.5, "x"),
    "other_shape": ([1, 2], [1, 2, 3]),
    "value_for_none": (None, 1),
    "none_for_text": ("x", None),
    "other_names": ({"a": 1}, {"b": 1}),
    "name_missing": ({"a": 1, "b": 2}, {"a": 1}),
    "int_for_dict": ({"a": 1}, 1),
    "other_kind_in_dict": ({"a": 1, "b": 1}, {"a": 2, "b": 0.5}),
}


@pytest.mark.parametrize("name", MISMATCHES)
def test_another_kind_is_refused_and_nothing_written(name: str) -> None:
    first, other = MISMATCHES[name]
    kind = infer_kind(first)
    targets, untouched = allocate(kind, 1, 1), allocate(kind, 1, 1)
    with pytest.raises(pp.errors.TargetError, match=r"first sample had"):
        store(targets, kind, 0, 0, other)
    np.testing.assert_equal(targets, untouched)


# --------------------------------------------------------------------------------------------------- through the loader


def picture(value: int) -> Any:
    return np.full((2, 2, 3), value, dtype=np.uint8)


def load(targets: list[Any], **options: Any) -> tuple[list[pp.PackedBatch], pp.Report]:
    samples = [pp.Sample(f"k{i}", picture(i + 1), target) for i, target in enumerate(targets)]
    loader = pp.load(samples, RECIPE, on_error="skip", **options)
    return list(loader), loader.report()


def plain(targets: Any) -> Any:
    """Lists, and dicts of lists."""
    if isinstance(targets, dict):
        return {name: plain(values) for name, values in targets.items()}
    return targets.tolist() if hasattr(targets, "tolist") else targets


def blank(targets: Any, empty: Any) -> None:
    """Make the second slot of the first row what the only slot of `empty` is."""
    if isinstance(targets, dict):
        for name, values in targets.items():
            blank(values, empty[name])
    elif targets is not None:
        targets[0][1] = empty[0][0]


@pytest.mark.parametrize(("name", "num_workers"), [*((name, 0) for name in MISMATCHES), ("other_kind_in_dict", 1)])
def test_a_mismatch_blanks_its_slot_and_moves_nobody(name: str, num_workers: int) -> None:
    first, other = MISMATCHES[name]
    batches, report = load([first, other, first], num_workers=num_workers)
    (intact,), _ = load([first, first, first])
    (batch,) = batches
    assert [(r.key, r.stage) for r in report.rejected] == [("k1", "target")]
    assert (report.seen, report.packed, report.waiting) == (3, 2, 0)
    assert batch.num_images.tolist() == [3]
    assert batch.keys == [["k0", "k1", "k2"]]
    assert batch.slot_mask.tolist() == [[True, False, True]]
    assert batch.segment_ids.tolist() == [[1, 0, 3] + [0] * 6]
    assert batch.patches[0, 0].tolist() == intact.patches[0, 0].tolist()
    assert batch.patches[0, 2].tolist() == intact.patches[0, 2].tolist()
    expected = plain(intact.targets)
    blank(expected, plain(allocate(infer_kind(first), 1, 1)))
    np.testing.assert_equal(plain(batch.targets), expected)
    pp.validate(batch)


def test_tensors_whatever_the_kind() -> None:
    (batch,), _ = load([{"class": 1, "box": [0.0, 1.0, 2.0, 3.0]}] * 2)
    assert batch.targets["class"].dtype == torch.int64
    assert batch.targets["class"].tolist() == [[1, 1, -100]]
    assert batch.targets["box"].dtype == torch.float32
    assert tuple(batch.targets["box"].shape) == (1, 3, 4)
    (batch,), _ = load(["cat", "dog"])
    assert batch.targets == [["cat", "dog", None]]
    (batch,), _ = load([None, None])
    assert batch.targets is None


def test_target_none_takes_no_targets_from_samples() -> None:
    (batch,), report = load([1, "x", None], target=None)
    assert batch.targets is None
    assert report.packed == 3


def test_the_kind_is_that_of_the_first_readable_sample() -> None:
    samples = [pp.Sample("bad", b"no image", "text"), pp.Sample("good", picture(1), 5)]
    (batch,) = pp.load(samples, RECIPE, on_error="skip")
    assert batch.targets.tolist() == [[5, -100, -100]]


# --------------------------------------------------------------------------------------------------------- label members


def npy(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def npy_header(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return file.getvalue()


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.arange(3))
    return file.getvalue()


@pytest.mark.parametrize(
    ("extension", "data", "value"),
    [
        ("cls", b"7", 7),
        ("cls", b" -1\n", -1),
        ("txt", "Zürich".encode(), "Zürich"),
        ("json", b'{"a": [1, 2.5]}', {"a": [1, 2.5]}),
        ("npy", npy(np.array([1, 2])), np.array([1, 2])),
        ("seg.npy", npy(np.array([1, 2])), np.array([1, 2])),
        ("xyz", b"\x00\x01", b"\x00\x01"),
    ],
)
def test_label_member(extension: str, data: bytes, value: Any) -> None:
    np.testing.assert_equal(decode_target(extension, data), value)


@pytest.mark.parametrize(
    ("extension", "data"),
    [
        ("cls", b""),
        ("cls", b"1.5"),
        ("cls", "٣".encode()),
        ("cls", b"9" * 5000),
        ("txt", b"\xff"),
        ("json", b"{"),
        ("json", b"[" * 100_000),
        ("npy", b""),
        ("npy", npy(np.arange(9))[:-1]),
        ("npy", npy(np.arange(9)).replace(b"'", b"(")),
        ("npy", npy(np.array([{}]), allow_pickle=True)),
        ("npy", npy_header((10**13,))),
        ("npy", npy_header((10**30,))),
        ("npy", b"PK\x03\x04"),
        ("npy", npz()),
    ],
    ids=[
        "cls_empty", "cls_float", "cls_not_ascii", "cls_endless", "txt_not_utf8", "json_cut", "json_deep",
        "npy_empty", "npy_cut", "npy_header_broken", "npy_pickle", "npy_lies", "npy_lies_more", "npy_zip_cut", "npy_zip",
    ],
)  # fmt: skip
def test_label_member_that_is_not_what_it_says(extension: str, data: bytes) -> None:
    with pytest.raises(pp.errors.TargetError, match="does not hold a"):
        decode_target(extension, data)


@given(st.sampled_from(["cls", "txt", "json", "npy"]), st.binary(max_size=40))
def test_any_bytes_are_a_label_or_a_target_error(extension: str, data: bytes) -> None:
    with suppress(pp.errors.TargetError):
        decode_target(extension, data)


@given(st.integers(0, 90), st.binary(min_size=1, max_size=3))
def test_any_scribble_over_an_array_is_a_label_or_a_target_error(place: int, scribble: bytes) -> None:
    whole = npy(np.arange(3))
    with suppress(pp.errors.TargetError):
        decode_target("npy", whole[:place] + scribble + whole[place + len(scribble) :])


def test_a_broken_label_in_a_shard_costs_its_sample_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    png = io.BytesIO()
    Image.fromarray(picture(9)).save(png, "PNG")
    with tarfile.open(path, "w") as tar:
        for name, data in [
            ("0.png", png.getvalue()), ("0.json", b"{"),
            ("1.png", png.getvalue()), ("1.json", json.dumps({"age": 3}).encode()),
            ("2.png", png.getvalue()), ("2.json", json.dumps({"age": 4}).encode()),
        ]:  # fmt: skip
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    loader = pp.load(str(path), RECIPE, target="json", on_error="skip")
    (batch,) = loader
    assert batch.targets["age"].tolist() == [[-100, 3, 4]]
    assert [(r.key, r.member, r.stage) for r in loader.report().rejected] == [("a.tar/0", "0.png", "target")]


TENSORS = {
    "float": (torch.tensor(0.5), torch.tensor(0.25)),
    "vector": (torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])),
    "bfloat16": (torch.tensor(0.5, dtype=torch.bfloat16), torch.tensor(2.0, dtype=torch.bfloat16)),
    "gradient": (torch.tensor(0.5, requires_grad=True), torch.tensor(2.0, requires_grad=True)),
    "computed": (torch.ones(2, requires_grad=True) * 2, torch.zeros(2, requires_grad=True) * 2),
    "int32": (torch.tensor(3, dtype=torch.int32), torch.tensor(4, dtype=torch.int32)),
    "array, then tensor": (np.array([0.5, 0.5]), torch.tensor([0.1, 0.9])),
    "tensor, then list": (torch.tensor([0.5, 0.5]), [0.1, 0.9]),
}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_is_a_number(name: str, workers: int) -> None:
    """Float tensors ended a run with numpy's TypeError; others became lists of objects in silence."""
    for targets in (TENSORS[name], [{"a": target} for target in TENSORS[name]]):
        (batch,), report = load(targets, num_workers=workers)
        assert report.packed == 2
        found = batch.targets["a"] if isinstance(batch.targets, dict) else batch.targets
        for slot, target in enumerate(TENSORS[name]):
            expected = torch.as_tensor(target).detach().to(found.dtype)
            torch.testing.assert_close(found[0, slot], expected, rtol=0, atol=0)


def test_a_double_beyond_float32_is_refused_though_torch_makes_it_infinite() -> None:
    stored = allocate(TargetSpec("float32"), 1, 1)
    with pytest.raises(pp.errors.TargetError, match="range of float32, got tensor"):
        store(stored, TargetSpec("float32"), 0, 0, torch.tensor(1e300, dtype=torch.float64))


def test_a_float_beyond_float32_is_refused_not_infinite() -> None:
    stored = allocate(TargetSpec("float32"), 1, 2)
    with pytest.raises(pp.errors.TargetError, match=r"range of float32, got 1e\+300"):
        store(stored, TargetSpec("float32"), 0, 0, 1e300)
    store(stored, TargetSpec("float32"), 0, 1, float("inf"))  # infinity itself is a float
    assert np.isnan(stored[0, 0])
    assert np.isinf(stored[0, 1])
