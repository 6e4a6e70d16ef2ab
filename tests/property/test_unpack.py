"""One number per token, handed over in every layout that `unpack` takes."""

from __future__ import annotations

import numpy as np
from hypothesis import given

import patchpack as pp
from helpers.batches import batches


@given(batches())
def test_ragged_dense_and_padded_say_the_same(batch: pp.PackedBatch) -> None:
    images = list(pp.unpack(batch))
    longest = max((len(image.patches) for image in images), default=0)
    token = np.cumsum(batch.segment_ids > 0).reshape(batch.segment_ids.shape).astype(np.float64)
    padded = np.full((len(images), longest + 1), -1.0)
    for i, (_, own) in enumerate(pp.unpack(batch, token, per="token")):
        padded[i, : len(own)] = own
    ragged = token[batch.segment_ids > 0]
    for dense in (False, True):
        a, b = (list(pp.unpack(batch, values, per=per, dense=dense)) for values, per in ((token, "token"), (ragged, "ragged")))
        c = list(pp.unpack(batch, padded, per="image", dense=True)) if dense else a
        for image, (key, one), (_, two), (_, three) in zip(images, a, b, c, strict=True):
            assert key == image.key
            assert np.array_equal(one, two)
            assert np.array_equal(one, three)
            assert one.shape == (tuple(image.grid) if dense else (len(image.patches),))
