"""Batches, samples, plans and loaders as torch people hold them: moved, saved, loaded, printed, tested for truth."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import patchpack as pp
from patchpack.losses import ShardFault
from patchpack.plan.online.planner import OnlinePlanner

RECIPE = pp.Recipe(
    resize=pp.resize.NaFlex(6), patch_size=4, seq_len=16, rows_per_batch=2, max_images=4, normalize=pp.normalize.HALF
)


def sample(number: int, target: Any) -> pp.Sample:
    pixels = np.full((8 + number, 12, 3), number, dtype=np.uint8)
    return pp.Sample(f"s{number}", pixels, target)


def batch_of(*targets: Any, **options: Any) -> pp.PackedBatch:
    return next(iter(pp.load([sample(i, target) for i, target in enumerate(targets)], RECIPE, **options)))


def with_a_rejection() -> pp.PackedBatch:
    items = [sample(0, 1), pp.Sample("broken", b"no image", 1), sample(2, 0)]
    return next(iter(pp.load(items, RECIPE, on_error="skip")))


# --------------------------------------------------------------------------------------------------------------- moved


def tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for entry in value.values() for tensor in tensors(entry)]
    return [tensor for entry in value for tensor in tensors(entry)] if isinstance(value, (list, tuple)) else []


@pytest.mark.parametrize(
    "targets",
    [(1, 0), ({"a": 1, "b": 0.5}, {"a": 0, "b": 1.5}), (None, None), ({"any": "object"}, {"other": [1]})],
    ids=["numbers", "dicts", "none", "objects"],
)
def test_every_tensor_is_moved_and_nothing_else_changes(targets) -> None:
    batch = batch_of(*targets)
    moved = batch.to("meta")
    assert type(moved) is pp.PackedBatch
    assert moved is not batch
    assert {tensor.device.type for tensor in tensors(batch)} == {"cpu"}  # the batch itself stays
    assert {tensor.device.type for tensor in tensors(moved)} == {"meta"}
    assert [(t.dtype, t.shape) for t in tensors(moved)] == [(t.dtype, t.shape) for t in tensors(batch)]
    assert moved.keys == batch.keys
    assert moved.info == batch.info
    assert pp.digest(batch.to(torch.device("cpu"))) == pp.digest(batch)  # nothing is normalised


def test_tensors_among_objects_are_moved() -> None:
    batch = batch_of(1, 0)._replace(targets=[[torch.zeros(2), "name"], [None, np.ones(2)]])
    moved = batch.to("meta").targets
    assert moved[0][0].device.type == "meta"
    assert moved[0][1] == "name"
    assert moved[1][0] is None
    assert isinstance(moved[1][1], np.ndarray)


def test_a_batch_of_arrays_becomes_one_of_tensors() -> None:
    batch = next(pp.Pack(RECIPE)([sample(0, 1), sample(1, 0)]))
    assert isinstance(batch.patches, np.ndarray)
    moved = batch.to("cpu")
    assert isinstance(moved.patches, torch.Tensor)
    assert np.array_equal(moved.patches.numpy(), batch.patches)
    assert moved.targets.tolist() == batch.targets.tolist()


def test_a_dtype_is_no_device() -> None:
    with pytest.raises(pp.errors.ConfigError, match=r"keeps every dtype, patchpack\.standardize\(batch, torch\.float16\)"):
        batch_of(1).to(torch.float16)
    with pytest.raises(TypeError):
        batch_of(1).to("cpu", torch.float16)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="pins memory for a GPU")
def test_a_batch_is_pinned() -> None:
    assert batch_of(1, 0).pin_memory().patches.is_pinned()


# --------------------------------------------------------------------------------------------------------------- saved


def saved_and_loaded(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file)  # its default: only types that it knows to be harmless


@pytest.mark.parametrize(
    "make",
    [lambda: batch_of(1, 0), lambda: batch_of({"a": 1}, {"a": 2}), lambda: batch_of("x", "y"), with_a_rejection],
    ids=["numbers", "dicts", "objects", "a rejection"],
)
def test_a_batch_is_saved_and_loaded(make) -> None:
    batch = make()
    again = saved_and_loaded(batch)
    assert type(again) is pp.PackedBatch
    assert again.info == batch.info
    assert again.keys == batch.keys
    assert pp.digest(again) == pp.digest(batch)


def test_a_batch_of_workers_is_saved_and_loaded() -> None:
    """Its tensors are views of one piece of memory, of several dtypes, which torch.save refuses as they are."""
    loader = pp.load([sample(n, n % 3) for n in range(8)], RECIPE, num_workers=1)
    batches = list(loader)
    assert [pp.digest(saved_and_loaded(batch)) for batch in batches] == [pp.digest(batch) for batch in batches]
    assert pp.digest(pickle.loads(pickle.dumps(batches[0]))) == pp.digest(batches[0])


def test_a_report_is_saved_and_loaded() -> None:
    loader = pp.load([sample(0, 1), pp.Sample("broken", b"no image", 1)], RECIPE, on_error="skip")
    list(loader)
    assert [r.key for r in loader.report().rejected] == ["broken"]
    assert saved_and_loaded(loader.report()) == loader.report()
    fault = ShardFault("a.tar", "cut")
    assert saved_and_loaded({"faults": [fault], "rejections": loader.report().rejected})["faults"] == [fault]


@pytest.mark.parametrize(
    "imports", ["import patchpack, torch", pytest.param("import torch, patchpack", marks=pytest.mark.slow)]
)
def test_a_batch_is_loaded_where_nothing_but_patchpack_was_imported(imports: str, tmp_path: Path) -> None:
    """Whichever comes first; patchpack itself imports no torch."""
    torch.save(with_a_rejection(), tmp_path / "batch.pt")
    code = f"{imports}; print(torch.load({str(tmp_path / 'batch.pt')!r}).info.rejections[0].key)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "broken"
    assert done.stderr == ""


# ------------------------------------------------------------------------------------------------------------- printed


def test_a_batch_says_what_it_holds_in_one_line() -> None:
    batch = batch_of(1, 0)
    assert repr(batch) == "PackedBatch(1 row x 16 tokens, 2 images, 75.0 % full, patch 4, uint8)"
    assert repr(batch.to("cpu")) == repr(batch)
    assert str(pp.standardize(batch.to("cpu"))) == repr(batch).replace("uint8", "float32")
    assert repr(next(pp.Pack(RECIPE)([sample(0, 1), sample(1, 0)]))) == repr(batch)
    assert f"{[batch]}" == f"[{batch!r}]"


def test_a_batch_of_anything_else_still_prints() -> None:
    strange = pp.PackedBatch._make(range(16))
    assert repr(strange).startswith("PackedBatch(patches=0, position_ids=1, ")
    assert repr(batch_of(1).to("meta")) == "PackedBatch(1 row x 16 tokens, patch 4, uint8, on meta)"


def test_a_sample_prints_no_pixels() -> None:
    picture = Image.new("L", (60, 40))
    assert repr(pp.Sample("a", b"x" * 5000, 3)) == "Sample(key='a', image=<5000 bytes>, target=3)"
    assert repr(sample(0, {"x": 1})) == "Sample(key='s0', image=<uint8 [8, 12, 3]>, target={'x': 1})"
    assert (
        repr(pp.Sample("a", picture, None, "a caption"))
        == "Sample(key='a', image=<L picture 40 x 60>, target=None, text='a caption')"
    )
    assert repr(pp.Sample("a", [b"12", picture], np.zeros(3))) == (
        "Sample(key='a', image=[<2 bytes>, <L picture 40 x 60>], target=<float64 [3]>)"
    )
    assert (
        repr(pp.Sample("a", [b"1"] * 5)) == "Sample(key='a', image=[<1 bytes>, <1 bytes>, <1 bytes>, … 5 in all], target=None)"
    )
    assert repr(pp.Sample("a", pp.Clip([b"1", b"2"]))) == "Sample(key='a', image=Clip(2 frames), target=None)"
    assert len(repr(pp.Sample("a", b"1", "y" * 500))) < 120


def test_plans_and_planners_and_loaders_print(tmp_path: Path) -> None:
    items = [sample(0, 1), sample(1, 0)]
    planner = pp.Planner(items, RECIPE, shuffle=True, epoch=3)
    assert repr(planner) == f"Planner({planner.source.name}, epoch 3, shuffle=1024)"
    assert repr(OnlinePlanner(RECIPE, epoch=3)).startswith("OnlinePlanner(")
    plan = next(iter(planner))
    assert repr(plan) == "BatchPlan(step 0 of epoch 3: 1 row x 16 tokens, 2 images, patch 4)"
    assert repr(pp.load(items, RECIPE, num_threads=2)) == f"Loader(Planner({planner.source.name}, epoch 0), num_threads=2)"
    assert repr(pp.pack_images([b"1"], RECIPE)) == "ImageBatches(Loader(Planner(images, epoch 0)))"
    index = pp.Index.build(pp.samples.shards("val"))
    whole = pp.Planner(index, RECIPE, shuffle=True, rank=1, world_size=2, tail="pad")
    assert repr(whole) == f"Planner({index.name}, epoch 0, shuffle={len(index)}, rank 1 of 2)"
    assert repr(whole.plan()) == f"EpochPlan(epoch 0 of {index.name}: {len(whole)} steps, rank 1)"


def test_loaders_and_planners_are_true() -> None:
    """Without steps_per_epoch their length is not known, and truth must not ask for it."""
    items = [sample(0, 1)]
    assert pp.load(items, RECIPE)
    assert pp.load(items, RECIPE, steps_per_epoch=1)
    assert pp.Planner(items, RECIPE)
    assert pp.pack_images([], RECIPE)
    with pytest.raises(TypeError, match="steps_per_epoch fixes it"):
        len(pp.load(items, RECIPE))
