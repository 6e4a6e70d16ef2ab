"""What the house is built on: images in, rows out, the same images back; nothing lost, nothing doubled, nothing moved.

Random recipes over every kind of policy, random pictures down to one pixel. What the model promises is tested beside it.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

import patchpack as pp
from helpers import naive_paint
from patchpack.batch.unpack import PackedImage
from patchpack.testing import check_batch, recipes

PATCH_SIZE = 4

# ---------------------------------------------------------------------------------------------------------- strategies


def small_recipes() -> st.SearchStrategy[pp.Recipe]:
    """Recipes whose rows are short enough for a double loop over tokens; some standardise every image by itself."""
    some = recipes(PATCH_SIZE).filter(lambda recipe: recipe.seq_len <= 600)
    return some | some.map(lambda recipe: recipe.replace(dtype="float32", normalize=pp.normalize.PerImage()))


def encoded(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def array(pixels: Any) -> Any:
    """The pixels, unless their first axis could be the channels too."""
    return Image.fromarray(pixels) if pixels.shape[0] in (1, 3, 4) else pixels


FORMS = {"array": array, "bytes": encoded, "pil": Image.fromarray}

TARGETS: list[st.SearchStrategy[Any]] = [
    st.none(),
    st.integers(0, 999),
    st.floats(-1, 1, width=32),
    st.tuples(st.integers(0, 9), st.integers(0, 9)),
    st.text(max_size=3),
    st.fixed_dictionaries({"class": st.integers(0, 9), "box": st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4)}),
]


@st.composite
def images(draw: st.DrawFn, form: str | None = None) -> Any:
    side = st.one_of(st.just(1), st.integers(1, 9), st.integers(1, 40))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    contrast = draw(st.sampled_from([256, 2, 1]))  # a nearly flat image has a deviation of its own kind
    pixels = random.integers(0, contrast, (draw(side), draw(side), 3), dtype=np.uint8) + np.uint8(256 - contrast)
    return FORMS[form or draw(st.sampled_from(list(FORMS)))](pixels)


@st.composite
def samples(draw: st.DrawFn, max_size: int = 12, form: str | None = None) -> list[pp.Sample]:
    """Readable samples of one kind of target, with keys of their own."""
    target = draw(st.sampled_from(TARGETS))
    keys = draw(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=max_size, unique=True))
    return [pp.Sample(key, draw(images(form)), draw(target)) for key in keys]


class Packed(NamedTuple):
    batches: list[pp.PackedBatch]
    report: pp.Report

    @property
    def rows(self) -> list[list[str]]:
        return [row for batch in self.batches for row in batch.keys]

    @property
    def images(self) -> dict[str, PackedImage]:
        return {image.key: image for batch in self.batches for image in pp.unpack(batch)}


def pack(source: list[pp.Sample], recipe: pp.Recipe, *, epoch: int = 0) -> Packed:
    loader = pp.load(source, recipe, on_error="skip")
    loader.set_epoch(epoch)
    batches = []
    try:
        for batch in loader:
            batches.append(batch)  # noqa: PERF402  # what came before an error counts
    except pp.errors.SourceError:  # the recipe refuses every single size, or not one image can be read
        assert not any(image for batch in batches for image in pp.unpack(batch))
    return Packed(batches, loader.report())


# ---------------------------------------------------------------------------------------------------- 1: one place each


@given(samples(), small_recipes())
def test_every_planned_image_is_in_exactly_one_row(source: list[pp.Sample], recipe: pp.Recipe) -> None:
    packed = pack(source, recipe)
    placed = [key for row in packed.rows for key in row]
    assert Counter([*placed, *(r.key for r in packed.report.rejected)]) == Counter(sample.key for sample in source)
    assert {r.stage for r in packed.report.rejected} <= {"plan"}


@given(samples(), small_recipes())
def test_tokens_of_an_image_are_contiguous(source: list[pp.Sample], recipe: pp.Recipe) -> None:
    for batch in pack(source, recipe).batches:
        for segments in batch.segment_ids.tolist():
            changes = [a for a, b in zip(segments, [*segments[1:], -1], strict=True) if a != b]
            assert len(changes) == len(set(changes))


@given(samples(), small_recipes())
def test_tokens_of_an_image_are_in_raster_order(source: list[pp.Sample], recipe: pp.Recipe) -> None:
    for image in pack(source, recipe).images.values():
        places = [tuple(ids) for ids in image.position_ids.tolist()]
        assert places == sorted(set(places))


# ------------------------------------------------------------------------------------------------------------- 2: caps


@given(samples(), small_recipes())
def test_no_row_exceeds_seq_len(source: list[pp.Sample], recipe: pp.Recipe) -> None:
    for batch in pack(source, recipe).batches:
        assert tuple(batch.patches.shape[1:]) == (recipe.seq_len, 3 * PATCH_SIZE**2)
        assert (batch.segment_ids > 0).sum(dim=1).max() <= recipe.seq_len


@given(samples(), small_recipes())
def test_no_row_exceeds_max_images(source: list[pp.Sample], recipe: pp.Recipe) -> None:
    for batch in pack(source, recipe).batches:
        assert batch.num_images.max() <= recipe.max_images
        assert batch.slot_mask.shape[1] == recipe.max_images


@given(samples(), small_recipes())
def test_no_row_is_empty(source: list[pp.Sample], recipe: pp.Recipe) -> None:
    assert all(pack(source, recipe).rows)


@given(samples(), small_recipes())
def test_only_the_last_batch_has_fewer_rows(source: list[pp.Sample], recipe: pp.Recipe) -> None:
    counts = [len(batch.keys) for batch in pack(source, recipe).batches]
    assert all(count == recipe.rows_per_batch for count in counts[:-1])
    assert all(1 <= count <= recipe.rows_per_batch for count in counts[-1:])


# --------------------------------------------------------------------------------------------------------- 3: segments


@given(samples(), small_recipes())
def test_segments_count_up_and_end_in_zeros(source: list[pp.Sample], recipe: pp.Recipe) -> None:
    for batch in pack(source, recipe).batches:
        for segments, num_images in zip(batch.segment_ids.tolist(), batch.num_images.tolist(), strict=True):
            real = [s for s in segments if s]
            assert segments == sorted(real) + [0] * (len(segments) - len(real))
            assert sorted(set(real)) == list(range(1, num_images + 1))


# ------------------------------------------------------------------------------------------------------ 4: out equals in


def assert_painted(image: PackedImage, alone: naive_paint.Painted) -> None:
    assert image.grid == alone.grid
    assert image.source_size == alone.source_size
    assert np.array_equal(image.position_ids, alone.position_ids)
    if alone.patches.dtype == np.uint8:
        assert np.array_equal(image.patches, alone.patches)
    else:
        np.testing.assert_allclose(image.patches, alone.patches, rtol=0, atol=2e-5)


@given(samples(max_size=6), small_recipes(), st.integers(0, 3))
def test_unpack_gives_back_what_was_packed(source: list[pp.Sample], recipe: pp.Recipe, epoch: int) -> None:
    """Pixel for pixel and id for id, against each image planned, resized, cut and thinned alone."""
    found = pack(source, recipe, epoch=epoch).images
    for ordinal, sample in enumerate(source):
        if sample.key in found:
            assert_painted(found[sample.key], naive_paint.paint_alone(sample, recipe, epoch=epoch, ordinal=ordinal))


def plain(value: Any) -> Any:
    """Lists and numbers, of tensors and tuples."""
    if isinstance(value, dict):
        return {name: plain(entry) for name, entry in value.items()}
    value = value.tolist() if isinstance(value, torch.Tensor) else value
    return list(value) if isinstance(value, tuple) else value


@given(samples(), small_recipes())
def test_unpack_gives_every_key_its_target(source: list[pp.Sample], recipe: pp.Recipe) -> None:
    targets = {sample.key: plain(sample.target) for sample in source}
    for key, image in pack(source, recipe).images.items():
        assert plain(image.target) == targets[key]


@dataclass(frozen=True)
class Middle:
    """The middle of an image as 2 x 2 patches: a policy that crops and resizes."""

    draws = 0

    def bound(self, patch_size: int) -> int:
        return 4

    def __call__(self, sizes: Any, patch_size: int, u: Any = None) -> Any:
        return np.full(sizes.shape, 2, dtype=np.int32)

    def place(self, sizes: Any, grids: Any, patch_size: int) -> tuple[Any, Any]:
        box = np.concatenate([sizes // 4, np.maximum(1, sizes // 2)], axis=1).astype(np.int32)
        return box, (grids * patch_size).astype(np.int32)


@given(images(form="array"), st.sampled_from([pp.normalize.HALF, pp.normalize.PerImage()]))
def test_pixels_outside_the_box_do_not_shine_in(image: Any, normalize: Any) -> None:
    recipe = pp.Recipe(resize=Middle(), patch_size=PATCH_SIZE, seq_len=4, dtype="float32", normalize=normalize)
    sample = pp.Sample("k", image)
    assert_painted(pack([sample], recipe).images["k"], naive_paint.paint_alone(sample, recipe))
    if normalize == pp.normalize.HALF:
        pixels = np.asarray(image)
        inside = tuple(slice(side // 4, side // 4 + max(1, side // 2)) for side in pixels.shape[:2])
        other = 255 - pixels
        other[inside] = pixels[inside]
        ours, theirs = (pack([pp.Sample("k", array(picture))], recipe).images["k"].patches for picture in (pixels, other))
        assert torch.equal(ours, theirs)


@given(samples(max_size=20), st.integers(12, 60), st.integers(1, 3), st.integers(0, 2**64 - 1), st.sampled_from([0.0, 0.5]))
def test_a_patch_size_per_step_loses_and_changes_nothing(
    source: list[pp.Sample], seq_len: int, rows: int, seed: int, rate: float
) -> None:
    recipe = pp.Recipe(
        resize=pp.resize.NaFlex(12),
        drop=pp.drop.Constant(rate),
        patch_size=(2, 3, 5),
        seq_len=seq_len,
        max_images=4,
        rows_per_batch=rows,
        seed=seed,
    )
    packed = pack(source, recipe)
    assert Counter(key for row in packed.rows for key in row) == Counter(sample.key for sample in source)
    by_key = {sample.key: sample for sample in source}
    for batch in packed.batches:
        assert batch.patch_size in (2, 3, 5)
        for image in pp.unpack(batch):
            assert_painted(image, naive_paint.paint_alone(by_key[image.key], recipe, patch_size=batch.patch_size))


# --------------------------------------------------------------------------------------------------- 5: same in, same out


def assert_same(ours: Packed, theirs: Packed) -> None:
    assert ours.report == theirs.report
    for a, b in zip(ours.batches, theirs.batches, strict=True):
        assert (a.keys, a.info, a.patch_size) == (b.keys, b.info, b.patch_size)
        for x, y in zip(a, b, strict=True):
            if isinstance(x, torch.Tensor):
                torch.testing.assert_close(x, y, rtol=0, atol=0, equal_nan=True)


@given(samples(), small_recipes(), st.integers(0, 9))
def test_same_recipe_and_keys_give_the_same_batches(source: list[pp.Sample], recipe: pp.Recipe, epoch: int) -> None:
    assert_same(pack(source, recipe, epoch=epoch), pack(source, recipe, epoch=epoch))


@given(samples(), small_recipes())
def test_order_does_not_change_an_image(source: list[pp.Sample], recipe: pp.Recipe) -> None:
    assume(not isinstance(recipe.drop, pp.drop.Scheduled))  # a schedule goes by arrival
    forth, back = pack(source, recipe).images, pack(source[::-1], recipe).images
    assert forth.keys() == back.keys()
    for key, image in forth.items():
        assert image.grid == back[key].grid
        assert torch.equal(image.patches, back[key].patches)
        assert torch.equal(image.position_ids, back[key].position_ids)


# ------------------------------------------------------------------------------------------------------- 8: one partition


@given(samples(), small_recipes())
def test_masks_and_lengths_describe_one_partition(source: list[pp.Sample], recipe: pp.Recipe) -> None:
    for batch in pack(source, recipe).batches:
        check_batch(batch)


# --------------------------------------------------------------------------------------------------------- 9: conservation

BREAKAGE = {
    "no picture": ("header", lambda sample: pp.Sample(sample.key, b"no picture", sample.target)),
    "wrong dtype": ("header", lambda sample: pp.Sample(sample.key, np.zeros((5, 4, 3), int), sample.target)),
    "pixels cut": ("decode", lambda sample: pp.Sample(sample.key, long_png()[:-3000], sample.target)),
    "other target": ("target", lambda sample: pp.Sample(sample.key, sample.image, object())),
    "late other target": ("target", lambda sample: pp.Sample(sample.key, long_png(), (1, 2, 3, 4, 5))),
}


def long_png() -> bytes:
    """A file that can be cut inside its pixels."""
    return encoded(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))


@st.composite
def sources_at_fault(draw: st.DrawFn) -> tuple[list[pp.Sample], dict[str, str]]:
    """Samples with integer targets, some broken; and the broken keys with the stage that must name them."""
    keys = draw(st.lists(st.text(min_size=1, max_size=5), min_size=2, max_size=20, unique=True))
    source = [pp.Sample(keys[0], draw(images()), 0)]
    broken = {}
    for target, key in enumerate(keys[1:], 1):
        sample = pp.Sample(key, draw(images()), target)
        how = draw(st.sampled_from([None, None, None, *BREAKAGE]))
        if how is not None:
            broken[key], change = BREAKAGE[how]
            sample = change(sample)
        source.append(sample)
    return source, broken


def account(source: list[pp.Sample], recipe: pp.Recipe) -> Iterator[tuple[set[str], pp.Report]]:
    """Keys delivered readable so far, and the report, after every batch."""
    loader = pp.load(source, recipe, on_error="skip")
    delivered: set[str] = set()
    try:
        for batch in loader:
            delivered |= {image.key for image in pp.unpack(batch)}
            yield delivered, loader.report()
    except pp.errors.SourceError:
        yield delivered, loader.report()


@given(sources_at_fault(), small_recipes())
def test_seen_is_packed_and_rejected_and_waiting(fault: tuple[list[pp.Sample], dict[str, str]], recipe: pp.Recipe) -> None:
    """After every batch, counted from outside: of the samples seen, who is neither delivered nor rejected is waiting."""
    source, _ = fault
    for delivered, report in account(source, recipe):
        rejected = {r.key for r in report.rejected}
        seen = {sample.key for sample in source[: report.seen]}
        assert delivered | rejected <= seen
        assert not delivered & rejected
        assert (report.packed, report.waiting) == (len(delivered), len(seen - delivered - rejected))
        assert not report.dropped


@given(sources_at_fault(), small_recipes())
def test_nothing_waits_at_the_end(fault: tuple[list[pp.Sample], dict[str, str]], recipe: pp.Recipe) -> None:
    source, _ = fault
    *_, (_, report) = account(source, recipe)
    assert (report.seen, report.waiting) == (len(source), 0)


@given(sources_at_fault(), small_recipes())
def test_every_fault_is_named_once_with_its_stage(fault: tuple[list[pp.Sample], dict[str, str]], recipe: pp.Recipe) -> None:
    source, broken = fault
    report = pack(source, recipe).report
    named = [(r.key, r.stage) for r in report.rejected if r.stage != "plan"]
    refused = {r.key for r in report.rejected if r.stage == "plan"}
    assert Counter(named) == Counter((key, stage) for key, stage in broken.items() if key not in refused)


@given(samples(form="array"), small_recipes(), st.data())
def test_an_unreadable_image_moves_nobody(source: list[pp.Sample], recipe: pp.Recipe, data: st.DataObject) -> None:
    """Cut behind its header, an image keeps its place and leaves it empty."""
    victim = data.draw(st.integers(0, len(source) - 1))
    pictures = [sample if i != victim else pp.Sample(sample.key, long_png(), sample.target) for i, sample in enumerate(source)]
    intact = pack(pictures, recipe)
    pictures[victim] = pp.Sample(source[victim].key, long_png()[:-3000], source[victim].target)
    broken = pack(pictures, recipe)
    assert broken.rows == intact.rows
    assert broken.images.keys() == intact.images.keys() - {source[victim].key}
    for key, image in broken.images.items():
        twin = intact.images[key]
        assert (image.row, image.slot, image.grid, plain(image.target)) == (twin.row, twin.slot, twin.grid, plain(twin.target))
        assert torch.equal(image.patches, twin.patches)
    for batch, twin in zip(broken.batches, intact.batches, strict=True):
        pp.validate(batch)
        assert torch.equal(batch.num_images, twin.num_images)
        left = batch.segment_ids > 0
        assert torch.equal(batch.segment_ids[left], twin.segment_ids[left])


# --------------------------------------------------------------------------------------------------------------- 10: greedy


@given(samples(max_size=20), st.integers(40, 100), st.integers(1, 6))
def test_greedy_equals_the_loop_of_the_paper(source: list[pp.Sample], seq_len: int, max_images: int) -> None:
    recipe = pp.Recipe(
        resize=pp.resize.NaViT((8, 25)), drop=pp.drop.Beta(0.3, 0.8), packer=pp.packing.FirstFit(10**6),
        patch_size=PATCH_SIZE, seq_len=seq_len, max_images=max_images, rows_per_batch=2,
    )  # fmt: skip
    packed = pack(source, recipe)
    lengths = [len(packed.images[sample.key].patches) for sample in source]
    expected = [[source[i].key for i in row] for row in naive_paint.greedy(lengths, seq_len, max_images)]
    assert sorted(packed.rows) == sorted(expected)


def test_greedy_by_hand() -> None:
    """Lengths 6, 5, 4, 3, 2 in rows of 10 and three slots."""
    recipe = pp.Recipe(resize=pp.resize.Native(10), patch_size=1, seq_len=10, max_images=3, rows_per_batch=9)
    source = [pp.Sample(str(n), Image.new("RGB", (n, 1))) for n in (6, 5, 4, 3, 2)]
    assert pack(source, recipe).rows == [["6", "4"], ["5", "3", "2"]]


@pytest.mark.parametrize("patch_size", [1, 2, 7])
def test_one_pixel_is_an_image(patch_size: int) -> None:
    recipe = pp.Recipe(resize=pp.resize.Native(4), patch_size=patch_size, seq_len=4, max_images=1, rows_per_batch=1)
    (batch,) = pp.load([pp.Sample("dot", Image.new("RGB", (1, 1), (9, 9, 9)), 1)], recipe)
    assert batch.grid_sizes[0, 0].tolist() == [1, 1]
    assert batch.source_sizes[0, 0].tolist() == [1, 1]
    assert batch.patches[0, 0].tolist() == [9] * 3 + [0] * (3 * patch_size**2 - 3)
