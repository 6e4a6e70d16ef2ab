"""Functions that derive masks, positions and the ragged form of the texts in a `PackedBatch`. The results are not stored.

`patchpack.batch.views` has the same functions for the images. Every function here takes a batch with texts. The batch holds
numpy arrays or torch tensors, and the results are of the same kind.
"""

from __future__ import annotations

from typing import cast

from typing_extensions import NamedTuple

from patchpack.batch import _arrays
from patchpack.batch._types import Array, ArrayT, Generic
from patchpack.batch.packed import PackedBatch
from patchpack.errors import ConfigError


def mask(batch: PackedBatch[ArrayT]) -> ArrayT:
    """Return bool ``[B, text_len]``, True where a token belongs to a text: ``text_segment_ids > 0``."""
    return _segments(batch) > 0


def attention_mask(batch: PackedBatch[ArrayT]) -> ArrayT:
    """Return bool ``[B, text_len, text_len]``, True where token i may attend to token j, because both belong to one text."""
    segments = _segments(batch)
    mask: ArrayT = (segments[:, :, None] == segments[:, None, :]) & (segments > 0)[:, None, :]
    return mask


def pool_mask(batch: PackedBatch[ArrayT]) -> ArrayT:
    """Return bool ``[B, E, text_len]``, True where token t belongs to the text of the sample whose first image is in slot e.

    ``mask[b, e, t] = text_segment_ids[b, t] == e + 1``. ``mask.any(-1)``, bool ``[B, E]``, is True in the slots whose image is
    the first one of a sample with a text.
    """
    segments = _segments(batch)
    slots = _arrays.arange(segments, batch.slot_mask.shape[1]) + 1
    mask: ArrayT = segments[:, None, :] == slots[None, :, None]
    return mask


def position_ids(batch: PackedBatch[ArrayT]) -> ArrayT:
    """Return int64 ``[B, text_len]``, the number of each token within its text, from 0. Padding has 0."""
    pooled = pool_mask(batch)
    count = pooled.cumsum(-1) - 1  # counts the tokens of each text from 0; only valid at these tokens
    numbers: ArrayT = (count * pooled).sum(1)
    return numbers


class Ragged(NamedTuple, Generic[Array]):
    """All texts of a batch end to end, in the form that variable-length attention kernels take.

    Attributes:
        text_ids: int32 ``[T]``, tokens of all N texts.
        cu_seqlens: int32 ``[N + 1]``, the positions at which texts begin and end: text i is
            ``text_ids[cu_seqlens[i]:cu_seqlens[i + 1]]``.
        max_seqlen: number of tokens of the longest text.
        places: int64 ``[N, 2]``, one (row, slot) per text: the slot of the first image of the text's sample.
    """

    text_ids: Array
    cu_seqlens: Array
    max_seqlen: int
    places: Array


def ragged(batch: PackedBatch[ArrayT]) -> Ragged[ArrayT]:
    """Return all texts of a batch without padding, in row-major slot order."""
    lengths = pool_mask(batch).sum(-1)  # [B, E]
    there = lengths > 0
    used = lengths[there]
    longest = int(used.max()) if len(used) else 0
    ids = cast("ArrayT", batch.text_ids)  # a batch with text_segment_ids has them
    return Ragged(ids[mask(batch)], _arrays.cumulative(used), longest, _arrays.nonzero(there))


def _segments(batch: PackedBatch[ArrayT]) -> ArrayT:
    if batch.text_segment_ids is None:
        raise ConfigError("this batch has no texts: load it with tokenize= and text_len=")
    return batch.text_segment_ids
