"""The making of a batch from a plan. Every image is decoded once, and its pixels are written once, directly to the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from patchpack import errors
from patchpack.batch.packed import PackedBatch
from patchpack.image import pillow_warnings
from patchpack.losses import Rejection, source_of
from patchpack.paint import targets
from patchpack.paint.augment import change_of
from patchpack.paint.clip import paint_clip
from patchpack.paint.layout import Layout, PlacedImage, wipe
from patchpack.paint.part import part_of_picture
from patchpack.paint.resample import identity_norm, norm_of, write_pixels
from patchpack.plan.policies.crop import WholeImage
from patchpack.plan.policies.positions import of_image
from patchpack.plan.recipe import Recipe
from patchpack.types import BatchPlan, Grid, Header

Fetch = Callable[[object], tuple[object, object]]
"""A function from a location to (image, target). It raises `SourceError` or `TargetError` if it cannot read the location."""


def blank(plan: BatchPlan, recipe: Recipe) -> PackedBatch[np.ndarray]:
    """Return the batch of a plan, before any image is written.

    All arrays have their final shape and dtype. `num_images`, `keys` and `norm` have their final values. `patches` is not
    initialised. `targets` has a filler in every slot, the value for slots without an image. All other arrays are 0.
    """
    rows, seq_len, slots = plan.num_rows, plan.seq_len, recipe.max_images
    scheme = recipe.positions(Grid(1, 1))
    tubelet, time = (1, 0) if recipe.video is None else (recipe.video.tubelet, 1)
    batch: PackedBatch[np.ndarray] = PackedBatch(
        patches=np.empty((rows, seq_len, tubelet * plan.patch_size**2 * 3), dtype=recipe.dtype),
        position_ids=np.zeros((rows, seq_len, time + scheme.shape[1]), dtype=scheme.dtype),
        segment_ids=np.zeros((rows, seq_len), dtype=np.int32),
        num_images=np.diff(plan.offsets).astype(np.int32),
        grid_sizes=np.zeros((rows, slots, 2), dtype=np.int32),
        source_sizes=np.zeros((rows, slots, 2), dtype=np.int32),
        slot_mask=np.zeros((rows, slots), dtype=np.bool_),
        targets=targets.allocate(plan.target_kind, rows, slots),
        norm=norm_of(recipe.normalize) if recipe.dtype == "uint8" else identity_norm(),
        keys=[[h.key for h in plan.headers[a:b]] for a, b in _spans(plan)],
        patch_size=plan.patch_size,
        info=replace(
            plan.info,
            rejections=list(plan.info.rejections),
            by_source={name: dict(counts) for name, counts in plan.info.by_source.items()},
        ),
        sample_ids=np.zeros((rows, slots), dtype=np.int32),
        text_ids=None if plan.text_len is None else np.zeros((rows, plan.text_len), dtype=np.int32),
        text_segment_ids=None if plan.text_len is None else np.zeros((rows, plan.text_len), dtype=np.int32),
        times=None if recipe.video is None else np.zeros((rows, slots), dtype=np.int32),
    )
    if any(h.repeat for h in plan.headers):  # an image's random draws depend on its key and on this number
        batch.info.repeats = [[h.repeat for h in plan.headers[a:b]] for a, b in _spans(plan)]
    if not isinstance(recipe.crop, WholeImage):
        batch.info.boxes = [plan.table.box[a:b].tolist() for a, b in _spans(plan)]
    if of_image(recipe.positions):
        batch.info.positions = "image"
    if recipe.flip_prob:
        batch.info.flips = [plan.table.flip[a:b].tolist() for a, b in _spans(plan)]
    return batch


def paint(
    plan: BatchPlan,
    recipe: Recipe,
    fetch: Fetch,
    batch: PackedBatch[np.ndarray] | None = None,
    note: Callable[[Header], None] | None = None,
) -> PackedBatch[np.ndarray]:
    """Paint one planned batch: decode and resample its images, and write their pixels.

    If an image is unreadable, all images of its sample and the sample's text become padding: the tokens are 0 and have segment
    id 0, and the images' slots are masked. All other images stay in place. ``info.rejections`` names the sample. For each kind
    of warning, ``info.warnings`` has the number of readable samples with this warning.

    Args:
        plan: plan of the batch.
        recipe: recipe of the plan.
        fetch: a function from a location to (image, target).
        batch: result of `blank` for this plan. The images are written into this batch, which may be in shared memory. Default
            None, a new batch.
        note: a function that is called with the header of each image before the image is fetched, so that a crash can be
            traced to an image. Default None.

    Returns:
        `PackedBatch` of numpy arrays.
    """
    batch = blank(plan, recipe) if batch is None else batch
    layout, fresh = Layout(plan, recipe), plan.num_rows - plan.repeated_rows  # repeated rows are not counted again
    layout.write(batch, recipe)
    ends = [0] * plan.num_rows
    counts: dict[str, int] = {}
    packed = 0
    for sample in _samples(layout.images):
        row = sample[0].row
        ends[row] = sample[-1].tokens.stop
        pillow_warnings.forget()
        placed = sample[0]
        try:
            for placed in sample:
                if note is not None:
                    note(placed.header)
                _paint_image(batch, plan, recipe, fetch, placed)
        except (errors.SampleError, errors.SourceError, OSError) as error:
            for other in sample:
                wipe(batch, other)
                targets.erase(batch.targets, plan.target_kind, row, other.slot)
            if row < fresh:
                batch.info.rejections.append(_rejection(placed.header, error))
        else:
            packed += row < fresh
            if batch.info.by_source and row < fresh:
                _count(batch.info.by_source, sample)
            for kind in pillow_warnings.heard() if row < fresh else ():
                counts[kind] = counts.get(kind, 0) + 1
    for row, end in enumerate(ends):
        batch.patches[row, end:] = 0
    batch.info.packed = packed
    batch.info.warnings = dict(sorted(counts.items()))
    return batch


def _count(by_source: dict[str, dict[str, int]], sample: Sequence[PlacedImage]) -> None:
    """Count a packed sample for its source."""
    counts = by_source[source_of(sample[0].header.key)]
    counts["packed"] = counts.get("packed", 0) + 1
    counts["tokens"] = counts.get("tokens", 0) + sum(image.tokens.stop - image.tokens.start for image in sample)


def _paint_image(batch: PackedBatch[np.ndarray], plan: BatchPlan, recipe: Recipe, fetch: Fetch, placed: PlacedImage) -> None:
    header, target_size, row = placed.header, placed.resized, placed.row
    image, target = fetch(header.location)
    if recipe.video is not None:
        paint_clip(batch.patches[row, placed.tokens], image, placed, plan, recipe)
        targets.store(batch.targets, plan.target_kind, row, placed.slot, target)
        return
    picture, box = part_of_picture(image, header.size, placed.box, target_size, recipe)
    # the last step that may fail: afterwards only pixels are written
    targets.store(batch.targets, plan.target_kind, row, placed.slot, target)
    out = batch.patches[row, placed.tokens]
    change = change_of(recipe, plan.epoch, header.draw_key)
    write_pixels(
        out, picture, box, target_size, placed.flip, placed.grid, placed.kept, plan.patch_size, recipe, placed.places, change
    )


def _samples(images: list[PlacedImage]) -> Iterator[list[PlacedImage]]:
    """Yield one list per sample: the places of its images, which are side by side in one row."""
    sample: list[PlacedImage] = []
    for placed in images:
        if sample and not placed.header.part:
            yield sample
            sample = []
        sample.append(placed)
    if sample:
        yield sample


def _spans(plan: BatchPlan) -> list[tuple[int, int]]:
    edges = plan.offsets.tolist()
    return list(pairwise(edges))


def _rejection(header: Header, error: Exception) -> Rejection:
    if isinstance(error, errors.TargetError):
        stage = "target"
    elif isinstance(error, errors.DecodeError):
        stage = "decode"
    else:
        stage = "read"
    return Rejection(header.shard, header.key, header.member, stage, str(error))
