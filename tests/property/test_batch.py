"""Views of random batches: one partition seen from every side, the same in numpy and in torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

import patchpack as pp
from helpers.batches import ROWS, SEQ_LEN, SLOTS, batches, to_torch
from patchpack.batch.views import standardize_patches
from patchpack.testing import check_batch


def same(ours: Any, theirs: Any) -> bool:
    """Equal in values and dtype, one numpy and the other torch."""
    return isinstance(theirs, torch.Tensor) and ours.dtype == theirs.numpy().dtype and np.array_equal(ours, theirs.numpy())


@given(batches())
def test_every_batch_is_valid(batch: pp.PackedBatch) -> None:
    check_batch(batch)
    check_batch(to_torch(batch))


@given(batches())
def test_masks_in_numpy_and_torch_agree(batch: pp.PackedBatch) -> None:
    for view in (pp.token_mask, pp.attention_mask, pp.pool_mask):
        assert same(view(batch), view(to_torch(batch)))
    assert pp.fill_rate(batch) == pp.fill_rate(to_torch(batch))


@given(batches(), st.booleans())
def test_ragged_in_numpy_and_torch_agree(batch: pp.PackedBatch, static: bool) -> None:
    ours, theirs = pp.ragged(batch, static), pp.ragged(to_torch(batch), static)
    assert ours.max_seqlen == theirs.max_seqlen
    assert all(same(a, b) for a, b in zip(ours, theirs, strict=True) if isinstance(a, np.ndarray))


@given(batches())
def test_unpack_in_numpy_and_torch_agrees(batch: pp.PackedBatch) -> None:
    for ours, theirs in zip(pp.unpack(batch), pp.unpack(to_torch(batch)), strict=True):
        assert (*ours[:4], ours.grid, ours.source_size) == (*theirs[:4], theirs.grid, theirs.source_size)
        assert same(ours.patches, theirs.patches)
        assert same(ours.position_ids, theirs.position_ids)
        assert int(ours.target) == int(theirs.target)


@given(batches())
def test_normalize_in_numpy_and_torch_agrees(batch: pp.PackedBatch) -> None:
    assert same(
        standardize_patches(batch.patches, batch.norm),
        standardize_patches(*(torch.as_tensor(a) for a in (batch.patches, batch.norm))),
    )


@given(batches(num_rows=st.just(ROWS)))
def test_static_shapes_do_not_depend_on_contents(batch: pp.PackedBatch) -> None:
    flat = pp.ragged(batch, static=True)
    shapes = [array.shape for array in (flat.patches, flat.position_ids, flat.cu_seqlens, flat.places)]
    segments = ROWS * SLOTS + ROWS
    assert shapes == [(ROWS * SEQ_LEN, 3), (ROWS * SEQ_LEN, 2), (segments + 1,), (segments, 2)]
    assert flat.max_seqlen == SEQ_LEN


@given(batches())
def test_static_segments_partition_the_tokens(batch: pp.PackedBatch) -> None:
    flat = pp.ragged(batch, static=True)
    lengths = np.diff(flat.cu_seqlens)
    assert (lengths >= 0).all()
    assert flat.cu_seqlens[0] == 0
    assert flat.cu_seqlens[-1] == len(flat.patches) == batch.segment_ids.size


@given(batches())
def test_static_padding_is_cut_into_chunks_of_at_most_a_row(batch: pp.PackedBatch) -> None:
    flat = pp.ragged(batch, static=True)
    padding = np.diff(flat.cu_seqlens)[flat.places[:, 0] < 0]
    assert len(padding) == len(batch.segment_ids)
    assert (padding <= SEQ_LEN).all()
    assert padding.sum() == (batch.segment_ids == 0).sum()


@given(batches())
def test_static_ragged_holds_every_image_at_its_place(batch: pp.PackedBatch) -> None:
    flat = pp.ragged(batch, static=True)
    edges = flat.cu_seqlens.tolist()
    for (row, slot), begin, end in zip(flat.places.tolist(), edges, edges[1:], strict=False):
        if row >= 0:
            mine = batch.segment_ids[row] == slot + 1
            assert np.array_equal(flat.patches[begin:end], batch.patches[row, mine])
            assert np.array_equal(flat.position_ids[begin:end], batch.position_ids[row, mine])
        else:
            assert not flat.patches[begin:end].any()


@given(batches())
def test_ragged_is_static_ragged_without_what_is_empty(batch: pp.PackedBatch) -> None:
    flat, static = pp.ragged(batch), pp.ragged(batch, static=True)
    used = (np.diff(static.cu_seqlens) > 0) & (static.places[:, 0] >= 0)
    assert np.array_equal(np.diff(flat.cu_seqlens), np.diff(static.cu_seqlens)[used])
    assert np.array_equal(flat.places, static.places[used])
    assert np.array_equal(flat.patches, static.patches[: len(flat.patches)])
    assert flat.max_seqlen == max(np.diff(flat.cu_seqlens), default=0)


@given(batches())
def test_attention_mask_equals_the_double_loop(batch: pp.PackedBatch) -> None:
    mask = pp.attention_mask(batch)
    for r, segments in enumerate(batch.segment_ids.tolist()):
        slow = [[a == b != 0 for b in segments] for a in segments]
        assert mask[r].tolist() == slow


@given(batches())
def test_unpack_hands_values_back_by_key(batch: pp.PackedBatch) -> None:
    images = list(pp.unpack(batch))
    per_token = dict(pp.unpack(batch, batch.patches))
    per_slot = dict(pp.unpack(batch, batch.targets))
    assert list(per_token) == list(per_slot) == [image.key for image in images]
    for image in images:
        assert np.array_equal(per_token[image.key], image.patches)
        assert per_slot[image.key] == image.target


@given(batches(), st.sampled_from([torch.float32, torch.bfloat16]))
def test_standardize_is_idempotent(batch: pp.PackedBatch, dtype: torch.dtype) -> None:
    once = pp.standardize(batch.to("cpu"), dtype)
    twice = pp.standardize(once.to("cpu"), dtype)
    assert torch.equal(once.patches, twice.patches)


@given(batches(), st.sampled_from([torch.float32, torch.bfloat16]))
def test_standardize_keeps_padding_zero(batch: pp.PackedBatch, dtype: torch.dtype) -> None:
    moved = pp.standardize(batch.to("cpu"), dtype)
    assert not moved.patches[moved.segment_ids == 0].any()
    pp.validate(moved)
