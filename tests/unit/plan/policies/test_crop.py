"""Crops and flips on the plan rail: known boxes, a twin, every planner the same, and the pixels of Pillow's crop."""

from __future__ import annotations

import hashlib
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import patchpack as pp
from helpers import naive
from helpers.profiles import examples, weight
from helpers.reprs import NAMES
from patchpack import rng
from patchpack.paint.patchify import unpatchify
from patchpack.plan.table import plan_table
from patchpack.testing import check_crop_policy

MOST = 1 - 2.0**-53  # the largest uniform
VAL = pp.samples.shards("val")
CROPPED = pp.recipes.navit(seq_len=256, rows_per_batch=2, seed=5, crop=pp.crop.RandomResizedCrop(), flip_prob=0.5)


def box(policy: Any, size: tuple[int, int], u: list[float], patch_size: int = 16) -> list[int]:
    (answer,) = policy(np.array([size], dtype=np.int64), patch_size, np.array([u], dtype=np.float64)).tolist()
    return answer


# ------------------------------------------------------------------------------------------------------------ the rules


@pytest.mark.parametrize(
    ("size", "u", "expected"),
    [
        # half of the area, log ratio in the middle: 100 * 200 * 0.54 = 10800 = 103.9², too high for 100; so the second try
        ((100, 200), [0, 0, 0.5, 0.5, 0.0, 0.5], [0, 0, 40, 40]),
        ((100, 200), [MOST, MOST, 0.0, 0.5], [60, 160, 40, 40]),
        # 0.08 of 10000 is 800, aspect 3/4: 32.66 by 24.49
        ((100, 100), [0.5, 0.5, 0.0, 0.0], [34, 38, 33, 24]),
        ((100, 100), [0.0, MOST, 0.0, 0.5], [0, 72, 28, 28]),
        # every try takes nearly all of a thin image: it does not fit, and the middle is taken
        ((100, 1000), [0.0, 0.0] + [MOST] * 20, [0, 433, 100, 133]),
        ((1000, 100), [0.9, 0.9] + [MOST, 0.0] * 10, [433, 0, 133, 100]),
        ((1, 1), [0.0, 0.0] + [0.0] * 20, [0, 0, 1, 1]),
    ],
)
def test_random_resized_crop(size: tuple[int, int], u: list[float], expected: list[int]) -> None:
    assert box(pp.crop.RandomResizedCrop(), size, u + [0.0] * (22 - len(u))) == expected


@pytest.mark.parametrize(
    ("policy", "size", "u", "expected"),
    [
        (pp.crop.RandomCrop(32), (100, 200), [0.0, 0.0], [0, 0, 32, 32]),
        (pp.crop.RandomCrop(32), (100, 200), [MOST, MOST], [68, 168, 32, 32]),
        (pp.crop.RandomCrop((20, 300)), (100, 200), [0.5, 0.5], [40, 0, 20, 200]),
        (pp.crop.BudgetCrop(16), (64, 64), [MOST, MOST], [0, 0, 64, 64]),  # 4 x 4 patches: it fits
        (pp.crop.BudgetCrop(16), (65, 64), [MOST, MOST], [1, 16, 64, 48]),  # 5 x 4 do not: isqrt(16.25), isqrt(15.75)
        (pp.crop.BudgetCrop(62), (1, 1000), [MOST, MOST], [0, 8, 1, 992]),
    ],
)
def test_random_and_budget_crop(policy: Any, size: tuple[int, int], u: list[float], expected: list[int]) -> None:
    assert box(policy, size, u) == expected


POLICIES = [
    pp.crop.WholeImage(), pp.crop.RandomResizedCrop(), pp.crop.RandomResizedCrop((1.0, 1.0), (1.0, 1.0)),
    pp.crop.RandomResizedCrop((0.001, 0.01), (0.1, 10.0)), pp.crop.RandomCrop(50), pp.crop.RandomCrop((3, 9999)),
    pp.crop.BudgetCrop(49),
]  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_protocol(policy: Any) -> None:
    check_crop_policy(policy, examples=examples(2.5))
    assert eval(repr(policy), NAMES) == policy


SIDES = st.integers(1, 5000)
UNITS = st.floats(0, 1, exclude_max=True)


@given(
    st.lists(st.tuples(SIDES, SIDES, st.lists(UNITS, min_size=22, max_size=22)), min_size=1, max_size=8),
    st.sampled_from(
        [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.5, 0.9), (1.0, 1.0)), ((0.01, 0.02), (0.2, 5.0)), ((1.0, 1.0), (2.0, 3.0))]
    ),
)
def test_random_resized_crop_is_its_twin_and_in_range(rows: list[Any], ranges: Any) -> None:
    scale, ratio = ranges
    sizes = np.array([row[:2] for row in rows], dtype=np.int64)
    boxes = pp.crop.RandomResizedCrop(scale, ratio)(sizes, 16, np.array([row[2] for row in rows])).tolist()
    for (h, w, u), found in zip(rows, boxes, strict=True):
        assert tuple(found) == naive.random_resized_crop(h, w, u, scale, ratio)
        _, _, height, width = found
        # half a pixel each way is what rounding may move a side by
        assert (width + 0.5) / max(0.5, height - 0.5) >= ratio[0]
        assert max(0.5, width - 0.5) / (height + 0.5) <= ratio[1]
        assert min(height, width) == 1 or (height - 0.5) * (width - 0.5) <= scale[1] * h * w  # no side is under a pixel


@given(SIDES, SIDES, UNITS, UNITS, st.integers(1, 300), st.sampled_from([4, 14, 16]))
def test_a_budget_crop_is_native_and_within_its_budget(h: int, w: int, a: float, b: float, budget: int, p: int) -> None:
    _, _, height, width = box(pp.crop.BudgetCrop(budget), (h, w), [a, b], p)
    assert math.ceil(height / p) * math.ceil(width / p) <= budget
    recipe = pp.Recipe(resize=pp.resize.Native(budget, edge="pad"), crop=pp.crop.BudgetCrop(budget), patch_size=p)
    table = plan_table(recipe, [(h, w)], rng.key_hash(["a"]))
    assert table.resized.tolist() == table.box[:, 2:].tolist()  # no pixel is resampled


def test_every_place_is_as_likely() -> None:
    hashes = np.arange(20_000, dtype=np.uint64)
    u = rng.uniforms(0, 0, hashes, rng.Stage.CROP, 2)
    tops, lefts = pp.crop.RandomCrop(4)(np.full((20_000, 2), (7, 8)), 16, u)[:, :2].T
    for places, count in ((tops, 4), (lefts, 5)):
        share = np.bincount(places, minlength=count) / 20_000
        assert len(share) == count
        assert np.abs(share - 1 / count).max() < 4 * math.sqrt((1 / count) / 20_000)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pp.crop.RandomResizedCrop(scale=(0.0, 1.0)), r"scale must be a range of shares.*\(0.0, 1.0\)"),
        (lambda: pp.crop.RandomResizedCrop(scale=(0.5, 0.2)), r"scale must be a range"),
        (lambda: pp.crop.RandomResizedCrop(scale=(0.5, 1.2)), r"scale must be a range"),
        (lambda: pp.crop.RandomResizedCrop(ratio=(0.0, 1.0)), r"ratio must be a range"),
        (lambda: pp.crop.RandomResizedCrop(ratio=(1.0, math.inf)), r"ratio must be a range"),
        (lambda: pp.crop.RandomResizedCrop(scale=0.5), r"scale must be a pair of numbers, got 0.5"),
        (lambda: pp.crop.RandomCrop(0), r"size must be an integer in 1"),
        (lambda: pp.crop.RandomCrop((5, 6, 7)), r"size must be a pair"),
        (lambda: pp.crop.BudgetCrop(0), r"max_patches must be"),
        (lambda: CROPPED.replace(crop=pp.crop.RandomResizedCrop), r"crop must be an instance"),
        (lambda: CROPPED.replace(crop=None), r"crop must be a CropPolicy"),
        (lambda: CROPPED.replace(flip_prob=1.5), r"flip_prob must be a number in 0 … 1.*got 1.5"),
        (lambda: CROPPED.replace(flip_prob=True), r"flip_prob must be a number"),
        (lambda: CROPPED.replace(flip_prob=float("nan")), r"flip_prob must be a number"),
        (lambda: pp.crop.RandomCrop(5)(np.ones((1, 2)), 16, None), r"draws 2 uniforms"),
    ],
)
def test_refusals(make: Any, message: str) -> None:
    with pytest.raises(pp.errors.ConfigError, match=message):
        make()


class Outside:
    draws = 0

    def __call__(self, sizes: Any, patch_size: int, u: Any) -> Any:
        return np.array([[0, 1, *size] for size in sizes.tolist()])


def test_a_box_outside_its_image_is_refused() -> None:
    with pytest.raises(pp.errors.ConfigError, match=r"\[0, 1, 5, 6\] \(top, left, height, width\) of a \[5, 6\] image"):
        plan_table(CROPPED.replace(crop=Outside()), [(5, 6)], rng.key_hash(["a"]))


# ---------------------------------------------------------------------------------------------------------- the plan


# made before there were crops: nothing that was drawn may move
BEFORE = {
    "navit": "22a31a159f96a747",
    "pix2struct": "2c9137056467731d",
    "siglip2_naflex": "77cca151a1836940",
    "qwen2_vl": "4705e3282534597f",
    "flexivit": "4f1d7d0e2aba80db",
    "square": "e9ced1d9036c2fe4",
    "native": "a0e2a12962e720a4",
}


@pytest.mark.parametrize("name", BEFORE)
def test_plans_without_crops_are_what_they_were(name: str) -> None:
    sizes = np.exp(np.random.default_rng(5).uniform(np.log(8), np.log(3000), (400, 2))).astype(np.int64)
    native = pp.Recipe(resize=pp.resize.Native(256, edge="pad"), seed=3)
    recipe = native if name == "native" else pp.recipes.get(name, seed=3)
    table = plan_table(recipe, sizes, rng.key_hash(map(str, range(400))), epoch=2, seen=7)
    columns = b"".join(np.ascontiguousarray(column).astype("<i4").tobytes() for column in table[:5])  # those there were
    digest = hashlib.sha256(columns)
    assert digest.hexdigest()[:16] == BEFORE[name]


def test_a_crop_moves_no_other_draw_and_its_size_is_what_is_resized() -> None:
    sizes, hashes = np.full((500, 2), (300, 400)), rng.key_hash(map(str, range(500)))
    plain = CROPPED.replace(crop=pp.crop.WholeImage(), flip_prob=0.0, resize=pp.resize.Square(64))
    cropped = plain.replace(crop=pp.crop.RandomCrop(100), flip_prob=0.25)
    a, b = (plan_table(recipe, sizes, hashes) for recipe in (plain, cropped))
    assert np.array_equal(a.num_tokens, b.num_tokens)  # the same draw of the drop
    assert b.box[:, 2:].tolist() == [[100, 100]] * 500
    assert not a.flip.any()
    assert abs(b.flip.mean() - 0.25) < 0.08
    smaller = plan_table(cropped.replace(resize=pp.resize.Native(256)), sizes, hashes)
    assert smaller.grid.tolist() == [[6, 6]] * 500  # of 100 pixels, not of 300 x 400
    inner = smaller.box - plan_table(cropped.replace(resize=pp.resize.Native(256, edge="pad")), sizes, hashes).box
    assert inner.tolist() == [[2, 2, -4, -4]] * 500  # the policy's own box lies in the crop's
    assert (smaller.box - b.box).tolist() == [[2, 2, -4, -4]] * 500
    for i, hashed in enumerate(hashes[:20].tolist()):  # stages of their own, which may never change
        u = [naive.uniform(CROPPED.seed, 0, hashed, 7, draw) for draw in range(2)]
        assert b.box[i, :2].tolist() == [math.floor(u[0] * 201), math.floor(u[1] * 301)]
        assert b.flip[i] == (naive.uniform(CROPPED.seed, 0, hashed, 8, 0) < 0.25)


@given(st.integers(0, 2**64 - 1), st.integers(0, 9), st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=9))
@weight(1)
def test_one_image_is_cropped_alone_as_among_others(seed: int, epoch: int, sizes: list[Any]) -> None:
    recipe = CROPPED.replace(seed=seed)
    hashes = rng.key_hash(map(str, range(len(sizes))))
    together = plan_table(recipe, sizes, hashes, epoch=epoch)
    for i, size in enumerate(sizes):
        alone = plan_table(recipe, [size], hashes[i : i + 1], epoch=epoch)
        assert [column.tolist() for column in alone] == [column.tolist() for column in together.take([i])]
    assert (together.box[:, :2] + together.box[:, 2:] <= np.array(sizes)).all()


def test_for_eval_sees_whole_images() -> None:
    recipe = CROPPED.for_eval()
    assert (recipe.crop, recipe.flip_prob) == (pp.crop.WholeImage(), 0.0)


def test_what_is_refused_names_the_crop() -> None:
    recipe = pp.recipes.qwen2_vl(crop=pp.crop.RandomCrop((1, 500)))
    with pytest.raises(
        pp.errors.SizeError, match=r"600 x 600 \(height x width\), or of what RandomCrop\(size=\(1, 500\)\) leaves"
    ):
        pp.plan_image((600, 600), recipe)


def test_a_study_knows_crops() -> None:
    study = pp.study([[480, 640]] * 200, pp.Recipe(resize=pp.resize.Native(256), crop=pp.crop.BudgetCrop(64), max_images=9))
    assert study.distortion.max == 0
    assert study.upscaled == 0
    assert study.tokens.max <= 64


# ------------------------------------------------------------------------------------------------ every way to a batch


def images_of(loader: Any) -> dict[str, Any]:
    return {image.key: pp.digest(image) for batch in loader for image in pp.unpack(batch)}


def test_workers_index_stage_and_replay_agree(tmp_path: Path) -> None:
    streamed = list(pp.load(VAL, CROPPED, epoch=1))
    found = images_of(streamed)
    assert images_of(pp.load(VAL, CROPPED, epoch=1, num_workers=2)) == found
    pp.Index.build(VAL).save(tmp_path / "val.index")
    index = pp.Index.open(tmp_path / "val.index")
    indexed = images_of(pp.load(index, CROPPED, epoch=1, shuffle=50))
    assert indexed == found
    plain = images_of(pp.load(VAL, CROPPED.replace(crop=pp.crop.WholeImage(), flip_prob=0.0), epoch=1))
    assert sum(plain[key] != found[key] for key in found) > 0.9 * len(found)
    for key in list(found)[::40]:
        assert pp.digest(pp.replay(VAL, CROPPED, key, epoch=1)) == found[key]


def test_a_batch_says_what_was_cropped() -> None:
    for batch in pp.load(VAL, CROPPED, epoch=1):
        json.dumps(batch.info.to_json())
        for row, keys in enumerate(batch.keys):
            for slot, key in enumerate(keys):
                size = batch.source_sizes[row, slot].tolist()
                plan = plan_table(CROPPED, [size], rng.key_hash([key]), epoch=1)
                assert batch.info.boxes[row][slot] == plan.box[0].tolist()
                assert batch.info.flips[row][slot] is bool(plan.flip[0])
    (batch, *_) = pp.load(VAL, CROPPED.replace(crop=pp.crop.WholeImage(), flip_prob=0.0))
    assert (batch.info.boxes, batch.info.flips) == (None, None)


# --------------------------------------------------------------------------------------------------------------- pixels


def noise(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def file_of(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "png")
    return out.getvalue()


@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("form", ["file", "array"])
def test_painted_is_pillows_crop_and_resize(resample: Any, form: str) -> None:
    recipe = pp.Recipe(
        resize=pp.resize.NaViT(96),
        crop=pp.crop.RandomResizedCrop(),
        flip_prob=0.5,
        resample=resample,
        seed=9,
        seq_len=256,
        patch_size=8,
    )
    sources = {f"{i}": noise(40 + 7 * i, 150 - 5 * i, i) for i in range(12)}
    samples = [pp.Sample(key, file_of(a) if form == "file" else a, None) for key, a in sources.items()]
    seen = set()
    for batch in pp.load(samples, recipe, target=None):
        for image in pp.unpack(batch):
            pixels = sources[image.key]
            top, left, height, width = batch.info.boxes[image.row][image.slot]
            flip = batch.info.flips[image.row][image.slot]
            part = Image.fromarray(pixels).crop((left, top, left + width, top + height))
            target = (image.grid.cols * 8, image.grid.rows * 8)
            expected = np.asarray(part.resize(target, getattr(Image.Resampling, resample.upper())))
            expected = expected[:, ::-1] if flip else expected
            assert np.array_equal(unpatchify(np.asarray(image.patches), image.grid, 8), expected)
            assert image.source_size == pixels.shape[:2]
            seen.add(flip)
    assert seen == {False, True}
