"""Views of a batch made by hand, as numpy and as torch: masks, ragged form, images back out, and what `validate` refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import patchpack as pp
from helpers.batches import TOKENS, by_hand, to_torch, with_gap
from patchpack.batch.views import standardize_patches
from patchpack.testing import check_batch


@pytest.fixture(params=["numpy", "torch"])
def kind(request: pytest.FixtureRequest) -> Callable[[pp.PackedBatch], pp.PackedBatch]:
    return to_torch if request.param == "torch" else lambda batch: batch


Kind = Callable[[pp.PackedBatch], pp.PackedBatch]

# --------------------------------------------------------------------------------------------------------------- masks


def test_attention_mask_is_block_diagonal(kind: Kind) -> None:
    a, b, c, o = "#" * 4, "#" * 6, "#" * 5, "."
    drawn = [
        *[a + o * 13] * 4,
        *[o * 4 + b + o * 7] * 6,
        *[o * 10 + c + o * 2] * 5,
        *[o * 17] * 2,
    ]
    mask = pp.attention_mask(kind(by_hand()))
    assert ["".join("#" if m else "." for m in line) for line in mask[0].tolist()] == drawn
    assert str(mask.dtype).endswith("bool")


def test_token_mask_leaves_out_padding(kind: Kind) -> None:
    assert pp.token_mask(kind(by_hand())).tolist() == [[True] * 15 + [False] * 2]
    assert pp.token_mask(kind(with_gap())).tolist() == [[True, True, False, False, True, True], [False] * 6]


def test_pool_mask_has_a_line_per_slot(kind: Kind) -> None:
    assert pp.pool_mask(kind(by_hand())).tolist() == [
        [
            [True] * 4 + [False] * 13,
            [False] * 4 + [True] * 6 + [False] * 7,
            [False] * 10 + [True] * 5 + [False] * 2,
            [False] * 17,
        ]
    ]


def test_an_unreadable_slot_looks_at_nothing_and_is_looked_at_by_nothing(kind: Kind) -> None:
    batch = kind(with_gap())
    mask = pp.attention_mask(batch)
    assert not mask[0, 2:4].any()
    assert not mask[0, :, 2:4].any()
    assert mask[0, 4:, 4:].all()
    assert pp.pool_mask(batch)[0].tolist() == [[True] * 2 + [False] * 4, [False] * 6, [False] * 4 + [True] * 2]


def test_fill_rate_is_the_share_of_real_tokens(kind: Kind) -> None:
    assert pp.fill_rate(kind(by_hand())) == 15 / 17
    assert pp.fill_rate(kind(with_gap())) == 4 / 12


# -------------------------------------------------------------------------------------------------------------- ragged


def test_ragged_by_hand(kind: Kind) -> None:
    batch = kind(by_hand())
    flat = pp.ragged(batch)
    assert flat.patches.tolist() == by_hand().patches[0, :15].tolist()
    assert flat.position_ids.tolist() == by_hand().position_ids[0, :15].tolist()
    assert flat.cu_seqlens.tolist() == [0, 4, 10, 15]
    assert str(flat.cu_seqlens.dtype).endswith("int32")
    assert flat.max_seqlen == 6
    assert flat.places.tolist() == [[0, 0], [0, 1], [0, 2]]


def test_ragged_leaves_out_unreadable_slots(kind: Kind) -> None:
    flat = pp.ragged(kind(with_gap()))
    assert flat.cu_seqlens.tolist() == [0, 2, 4]
    assert flat.places.tolist() == [[0, 0], [0, 2]]
    assert flat.patches.tolist() == with_gap().patches[0, [0, 1, 4, 5]].tolist()


def test_static_ragged_by_hand(kind: Kind) -> None:
    flat = pp.ragged(kind(by_hand()), static=True)
    assert flat.patches.tolist() == by_hand().patches[0].tolist()
    assert flat.cu_seqlens.tolist() == [0, 4, 10, 15, 15, 17]
    assert flat.max_seqlen == 17
    assert flat.places.tolist() == [[0, 0], [0, 1], [0, 2], [0, 3], [-1, -1]]


def test_static_ragged_moves_padding_to_the_end(kind: Kind) -> None:
    batch = with_gap()
    flat = pp.ragged(kind(batch), static=True)
    assert flat.patches[:4].tolist() == batch.patches[0, [0, 1, 4, 5]].tolist()
    assert not flat.patches[4:].any()
    # six slots, then the eight tokens of padding in segments of at most six
    assert flat.cu_seqlens.tolist() == [0, 2, 2, 4, 4, 4, 4, 10, 12]
    assert flat.places.tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2], [-1, -1], [-1, -1]]


@pytest.mark.parametrize("static", [False, True])
def test_a_batch_without_rows_has_every_view(kind: Kind, static: bool) -> None:
    batch = with_gap()
    fields = {name: getattr(batch, name)[:0] for name in batch._fields[:8] if name != "norm"}
    empty = kind(batch._replace(**fields, keys=[]))
    pp.validate(empty)
    flat = pp.ragged(empty, static=static)
    assert (tuple(flat.patches.shape), flat.cu_seqlens.tolist(), flat.places.tolist()) == ((0, 3), [0], [])
    assert pp.fill_rate(empty) == 0
    assert list(pp.unpack(empty)) == []
    assert tuple(pp.standardize(empty.to("cpu")).patches.shape) == (0, 6, 3)


# -------------------------------------------------------------------------------------------------------------- unpack


def test_unpack_by_hand(kind: Kind) -> None:
    images = list(pp.unpack(kind(by_hand())))
    assert [(i.key, i.row, i.slot, i.grid, i.source_size, int(i.target)) for i in images] == [
        ("a", 0, 0, (2, 2), (20, 20), 7),
        ("b", 0, 1, (2, 3), (20, 30), 8),
        ("c", 0, 2, (3, 2), (30, 20), 9),
    ]
    assert [len(i.patches) for i in images] == list(TOKENS)
    assert images[1].patches.tolist() == by_hand().patches[0, 4:10].tolist()
    assert images[2].position_ids.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0]]


def test_unpack_skips_unreadable_slots(kind: Kind) -> None:
    images = list(pp.unpack(kind(with_gap())))
    assert [(i.key, i.slot, i.target, i.grid) for i in images] == [("a", 0, "cat", (1, 2)), ("c", 2, "dog", (1, 2))]
    assert images[1].patches.tolist() == with_gap().patches[0, 4:].tolist()


def test_unpack_values_per_token(kind: Kind) -> None:
    batch = kind(with_gap())
    pairs = list(pp.unpack(batch, batch.patches[:, :, 0]))
    assert [key for key, _ in pairs] == ["a", "c"]
    assert [value.tolist() for _, value in pairs] == [
        with_gap().patches[0, :2, 0].tolist(),
        with_gap().patches[0, 4:, 0].tolist(),
    ]


def test_unpack_values_per_slot(kind: Kind) -> None:
    batch = kind(with_gap())
    pairs = list(pp.unpack(batch, batch.source_sizes))
    assert [(key, value.tolist()) for key, value in pairs] == [("a", [5, 9]), ("c", [6, 9])]


@pytest.mark.parametrize("shape", [(2, 5), (1, 6), (2,), (6, 2)])
def test_unpack_refuses_other_values(kind: Kind, shape: tuple[int, ...]) -> None:
    with pytest.raises(pp.errors.ShapeError, match=r"\[2, 6, ...\] per token or \[2, 3, ...\] per slot"):
        list(pp.unpack(kind(with_gap()), np.zeros(shape)))


def test_unpack_gives_every_target_of_a_dict(kind: Kind) -> None:
    batch = kind(with_gap())._replace(targets={"age": np.array([[1, -100, 3], [-100] * 3])})
    assert [{name: int(v) for name, v in image.target.items()} for image in pp.unpack(batch)] == [{"age": 1}, {"age": 3}]


def test_unpack_without_targets(kind: Kind) -> None:
    assert [image.target for image in pp.unpack(kind(with_gap())._replace(targets=None))] == [None, None]


# ----------------------------------------------------------------------------------------------------------- normalize

MEAN, STD = (10.0, 20.0, 30.0), (2.0, 4.0, 8.0)
PATCH = [10, 20, 30, 12, 24, 38]
NORMALIZED = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]


def test_normalize_by_hand() -> None:
    norm = np.array([MEAN, STD], dtype=np.float32)
    value = standardize_patches(np.array([[PATCH]], dtype=np.uint8), norm)
    assert value.tolist() == [[NORMALIZED]]
    assert value.dtype == np.float32
    assert standardize_patches(np.array([[PATCH]], dtype=np.uint8), norm, np.float16).dtype == np.float16


def test_normalize_by_hand_in_torch() -> None:
    norm = torch.tensor([MEAN, STD])
    value = standardize_patches(torch.tensor([[PATCH]], dtype=torch.uint8), norm)
    assert value.tolist() == [[NORMALIZED]]
    assert value.dtype == torch.float32
    assert standardize_patches(torch.tensor([[PATCH]], dtype=torch.uint8), norm, torch.bfloat16).dtype == torch.bfloat16


# ----------------------------------------------------------------------------------------------------------- standardize


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16])
def test_standardize_normalises_like_numpy(kind: Kind, dtype: torch.dtype | None) -> None:
    batch = by_hand()
    moved = pp.standardize(kind(batch).to("cpu"), dtype)
    expected = torch.as_tensor(standardize_patches(batch.patches, batch.norm)).to(dtype or torch.float32)
    assert moved.patches.dtype == (dtype or torch.float32)
    assert torch.equal(moved.patches[0, :15], expected[0, :15])
    assert moved.norm.tolist() == [[0.0] * 3, [1.0] * 3]


def test_standardize_keeps_padding_zero(kind: Kind) -> None:
    moved = pp.standardize(kind(with_gap()).to("cpu"))
    assert not moved.patches[0, 2:4].any()
    assert not moved.patches[1].any()
    pp.validate(moved)


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16])
def test_standardize_normalises_once(kind: Kind, dtype: torch.dtype | None) -> None:
    once = pp.standardize(kind(by_hand()).to("cpu"), dtype)
    twice = pp.standardize(once.to("cpu"), dtype)
    assert torch.equal(once.patches, twice.patches)
    assert torch.equal(once.norm, twice.norm)


def test_standardize_leaves_float_patches_as_they_are(kind: Kind) -> None:
    batch = by_hand()
    batch = batch._replace(patches=batch.patches.astype(np.float16), norm=np.array([[0] * 3, [1] * 3], dtype=np.float32))
    moved = pp.standardize(kind(batch).to("cpu"))
    assert moved.patches.dtype == torch.float16
    assert moved.patches.tolist() == batch.patches.tolist()
    assert pp.standardize(kind(batch).to("cpu"), torch.float32).patches.dtype == torch.float32


def test_standardize_moves_every_array(kind: Kind) -> None:
    targets = {"age": np.array([[1, 2, 3, -100]]), "score": np.array([[1, 2, 3, np.nan]], dtype=np.float32)}
    moved = pp.standardize(kind(by_hand()._replace(targets=targets)).to("meta"))
    arrays = [f for f in (*moved, *moved.targets.values()) if isinstance(f, torch.Tensor)]
    assert len(arrays) == 10
    assert {str(array.device) for array in arrays} == {"meta"}
    assert moved.keys == by_hand().keys


# ------------------------------------------------------------------------------------------------------------ validate


def test_validate_accepts(kind: Kind) -> None:
    check_batch(kind(by_hand()))
    check_batch(kind(with_gap()))


def put(field: str, index: Any, value: Any) -> Callable[[pp.PackedBatch], pp.PackedBatch]:
    """A change of one entry of one array."""

    def change(batch: pp.PackedBatch) -> pp.PackedBatch:
        array = getattr(batch, field).copy()
        array[index] = value
        return batch._replace(**{field: array})

    return change


def replace(field: str, make: Callable[[Any], Any]) -> Callable[[pp.PackedBatch], pp.PackedBatch]:
    """A change of one whole field."""
    return lambda batch: batch._replace(**{field: make(getattr(batch, field))})


def cast(field: str, dtype: str) -> Callable[[pp.PackedBatch], pp.PackedBatch]:
    return replace(field, lambda array: array.astype(dtype))


MUTATIONS = {
    # shapes
    "patches_short": (replace("patches", lambda a: a[:, 1:]), "patches must be"),
    "patches_thin": (replace("patches", lambda a: a[:, :, 1:]), "patches must be"),
    "patches_flat": (replace("patches", lambda a: a[0]), "patches must be"),
    "positions_short": (replace("position_ids", lambda a: a[:, 1:]), "position_ids must be"),
    "positions_flat": (replace("position_ids", lambda a: a[..., 0]), "position_ids must have 3 axes"),
    "segments_flat": (replace("segment_ids", lambda a: a[0]), "segment_ids must have 2 axes"),
    "segments_short": (replace("segment_ids", lambda a: a[:, 1:]), "must be"),
    "num_images_long": (replace("num_images", lambda a: np.repeat(a, 2)), "num_images must be"),
    "grids_short": (replace("grid_sizes", lambda a: a[:, 1:]), "grid_sizes must be"),
    "sizes_short": (replace("source_sizes", lambda a: a[:, 1:]), "source_sizes must be"),
    "slots_flat": (replace("slot_mask", lambda a: a[0]), "slot_mask must have 2 axes"),
    "norm_without_std": (replace("norm", lambda a: a[:1]), "norm must be"),
    "norm_flat": (replace("norm", lambda a: a[0]), "norm must have 2 axes"),
    "targets_short": (replace("targets", lambda a: a[:, 1:]), "targets must be"),
    "targets_ragged_list": (replace("targets", lambda a: [[1, 2]]), "targets must be lists"),
    "keys_of_two_rows": (replace("keys", lambda k: k + k), "keys must hold"),
    "keys_short": (replace("keys", lambda k: [k[0][:2]]), "one key per image, got 3 images and 2 keys"),
    "other_patch_size": (replace("patch_size", lambda p: 2), "patches must be"),
    # samples, which a batch made by hand does not number
    "samples_int64": (replace("sample_ids", lambda _: np.array([[1, 2, 3, 0]])), "sample_ids must be int32"),
    "samples_short": (replace("sample_ids", lambda _: np.array([[1, 2, 3]], dtype=np.int32)), "sample_ids must be"),
    "sample_left_out": (replace("sample_ids", lambda _: np.array([[1, 3, 3, 0]], dtype=np.int32)), "sample_ids must be 1"),
    "sample_missing": (replace("sample_ids", lambda _: np.array([[0, 1, 2, 0]], dtype=np.int32)), "sample_ids must be 1"),
    "sample_in_an_empty_slot": (replace("sample_ids", lambda _: np.array([[1, 2, 3, 3]], dtype=np.int32)), "must be 0 beyond"),
    # dtypes
    "patches_int32": (cast("patches", "int32"), "patches must be uint8 or float32 or float16"),
    "positions_float64": (cast("position_ids", "float64"), "position_ids must be"),
    "segments_int64": (cast("segment_ids", "int64"), "segment_ids must be int32"),
    "num_images_int64": (cast("num_images", "int64"), "num_images must be int32"),
    "grids_int64": (cast("grid_sizes", "int64"), "grid_sizes must be int32"),
    "sizes_int64": (cast("source_sizes", "int64"), "source_sizes must be int32"),
    "slots_int32": (cast("slot_mask", "int32"), "slot_mask must be bool"),
    "norm_float64": (cast("norm", "float64"), "norm must be float32"),
    "targets_int32": (cast("targets", "int32"), "targets must be int64 or float32"),
    # rows
    "num_images_low": (put("num_images", 0, 2), "keys"),
    "num_images_beyond_slots": (put("num_images", 0, 5), "num_images must be in 0 … 4"),
    "num_images_negative": (put("num_images", 0, -1), "num_images must be in 0 … 4"),
    "slot_beyond_images": (put("slot_mask", (0, 3), True), "beyond num_images"),
    "slot_off": (put("slot_mask", (0, 1), False), "segment_ids must contain the readable slots"),
    "segments_out_of_order": (put("segment_ids", (0, 2), 2), "row 0: segment_ids must not decrease"),
    "segment_negative": (put("segment_ids", (0, 16), -1), "must not be negative"),
    "segment_of_no_slot": (put("segment_ids", (0, 14), 4), "segment_ids must contain the readable slots"),
    "segment_lost": (put("segment_ids", (0, slice(10, 15)), 0), "segment_ids must contain the readable slots"),
    "padding_inside_an_image": (put("segment_ids", (0, 5), 0), "padding must come after the last image"),
    "padding_before_an_image": (put("segment_ids", (0, 4), 0), "padding must come after the last image"),
    "more_tokens_than_patches": (put("grid_sizes", (0, 1), (2, 2)), "slot 1 must have 1 … all tokens of its grid .*, got 6"),
    "grid_missing": (put("grid_sizes", (0, 1), (0, 0)), "slot 1 must have 1 … all tokens of its grid .*, got 6"),
    "grid_in_an_empty_slot": (put("grid_sizes", (0, 3), (1, 1)), "slot 3 has no image"),
    "size_missing": (put("source_sizes", (0, 2), (0, 20)), "slot 2 must have a source size"),
    "patch_in_padding": (put("patches", (0, 16, 2), 1), "patches must be zero at padding"),
    "position_in_padding": (put("position_ids", (0, 15, 0), 1), "position_ids must be zero at padding"),
    "target_in_an_empty_slot": (put("targets", (0, 3), 0), "targets must be −100"),
    "nan_missing": (replace("targets", lambda a: a.astype(np.float32)), "targets must be −100 .* or NaN"),
    "target_in_an_empty_slot_of_a_dict": (replace("targets", lambda a: {"x": np.abs(a)}), "targets must be −100"),
    "object_in_an_empty_slot": (replace("targets", lambda a: [["a", "b", "c", "d"]]), "targets must be None"),
    "float_patches_with_a_norm": (cast("patches", "float32"), "norm must be mean 0 and std 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_validate_refuses(kind: Kind, name: str) -> None:
    change, message = MUTATIONS[name]
    with pytest.raises(pp.errors.ShapeError, match=message):
        pp.validate(kind(change(by_hand())))


def test_validate_refuses_a_gap_inside_an_image(kind: Kind) -> None:
    """Where some slot is unreadable padding may lie between images, but not inside one."""
    batch = put("segment_ids", (0, slice(None)), [1, 0, 1, 0, 3, 3])(with_gap())
    batch = put("patches", (0, 1), 0)(put("position_ids", (0, 1), 0)(batch))
    with pytest.raises(pp.errors.ShapeError, match="the tokens of slot 0 must be contiguous"):
        pp.validate(kind(batch))


def test_every_field_has_a_mutation() -> None:
    batch = by_hand()
    changed = set()
    for change, _ in MUTATIONS.values():
        changed |= {name for name, a, b in zip(batch._fields, batch, change(batch), strict=True) if a is not b}
    elsewhere = {"times", "text_ids", "text_segment_ids"}  # test_video.py, test_text.py
    assert changed == set(batch._fields) - {"info"} - elsewhere


def test_arrays_are_to_be_moved_before_they_are_standardised() -> None:
    with pytest.raises(pp.errors.ConfigError, match=r"takes a batch of tensors, got one of arrays: call batch\.to\(device\)"):
        pp.standardize(by_hand())
