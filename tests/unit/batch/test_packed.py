"""A batch is generic to type checkers and a plain named tuple to pickle, to torch's loader and to torch's trees."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_flatten

import patchpack as pp
from helpers.batches import by_hand, to_torch
from patchpack.batch.unpack import PackedImage
from patchpack.batch.views import Ragged


@pytest.mark.parametrize("kind", [pp.PackedBatch, PackedImage, Ragged, pp.text.Ragged])
def test_a_generic_named_tuple_has_no_other_base(kind: type) -> None:
    assert kind.__bases__ == (tuple,)  # torch 2.6 looks for tensors in no other named tuple
    assert kind[np.ndarray].__origin__ is kind


def test_torch_finds_every_tensor() -> None:
    batch = to_torch(by_hand())
    leaves, _ = tree_flatten(batch)
    tensors = [field for field in batch if isinstance(field, torch.Tensor)]
    assert len(tensors) >= 8
    assert all(any(leaf is tensor for leaf in leaves) for tensor in tensors)


def test_a_batch_survives_pickle_and_torch_save() -> None:
    batch, file = to_torch(by_hand()), io.BytesIO()
    torch.save(batch, file)
    file.seek(0)
    for again in (pickle.loads(pickle.dumps(batch)), torch.load(file)):
        assert type(again) is pp.PackedBatch
        assert pp.digest(again) == pp.digest(batch)
        assert again._replace(patch_size=2)._fields == batch._fields


def test_a_batch_is_defined_without_torch() -> None:
    code = (
        "import sys, types\n"
        "sys.modules['patchpack'] = door = types.ModuleType('patchpack')\n"  # the package itself imports torch
        f"door.__path__ = {list(pp.__path__)!r}\n"
        "import patchpack.batch.packed, patchpack.batch.views, patchpack.batch.unpack\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
