"""Sizes to grids, rule by rule, on cases that can be checked by hand or are printed in a paper or its code."""

from __future__ import annotations

import math

import numpy as np
import pytest

from helpers import naive
from patchpack import rng
from patchpack.errors import ConfigError
from patchpack.plan._integers import ceil_div, isqrt
from patchpack.plan.policies.resize import (
    LongestSide,
    NaFlex,
    Native,
    NaViT,
    Pix2Struct,
    PlacingPolicy,
    ResizePolicy,
    SmartResize,
    Square,
)
from patchpack.plan.recipes import FLEXIVIT_PATCH_SIZES

SQUARES = [(side, side) for side in range(1, 1025)]


def grids(policy, sizes, patch_size=16, u=None) -> list[tuple[int, int]]:
    answer = policy(np.array(sizes, dtype=np.int64).reshape(-1, 2), patch_size, u)
    assert answer.dtype == np.int32
    assert answer.shape == (np.size(sizes) // 2, 2)
    return [tuple(line) for line in answer.tolist()]


def grid(policy, height, width, patch_size=16, u=None) -> tuple[int, int]:
    return grids(policy, [(height, width)], patch_size, u)[0]


def resized(policy, height, width, patch_size) -> tuple[int, int]:
    rows, cols = grid(policy, height, width, patch_size)
    return rows * patch_size, cols * patch_size


def uniforms(n: int, draws: int = 1) -> np.ndarray:
    return rng.uniforms(3, 0, np.arange(n, dtype=np.uint64), rng.Stage.RESIZE, draws)


# ---------------------------------------------------------------------------------------------------------- pix2struct

PIX2STRUCT = {
    "two floors": ((100, 200), 32, 10, (2, 4)),
    "fills the budget": ((512, 256), 16, 512, (32, 16)),
    "scaled down": ((2048, 1024), 16, 512, (32, 16)),
    "scaled up wide": ((1, 2), 16, 512, (16, 32)),
    "scaled up tall": ((2, 1), 16, 512, (32, 16)),
    "photo at 2048": ((375, 500), 16, 2048, (39, 52)),
    "photo at 256": ((375, 500), 16, 256, (13, 18)),
    "video frame at 2048": ((1080, 1920), 16, 2048, (33, 60)),
    "video frame at 256": ((1080, 1920), 16, 256, (12, 21)),
    "tall page": ((3000, 200), 16, 2048, (175, 11)),
    "strip at 2048": ((28, 5600), 16, 2048, (3, 640)),
    "strip at 256": ((28, 5600), 16, 256, (1, 226)),
    "a budget of one": ((375, 500), 16, 1, (1, 1)),
    "thinner than the budget": ((1, 5000), 16, 10, (1, 10)),
    "thinner than the budget, tall": ((5000, 1), 16, 10, (10, 1)),
    "one pixel": ((1, 1), 16, 4, (2, 2)),
}
EXACT = {
    "five lost a row": ((224, 224), 25, (4, 4), (5, 5)),
    "seven lost a row": ((384, 384), 49, (6, 6), (7, 7)),
    "sixteen is right": ((224, 224), 256, (16, 16), (16, 16)),
}


@pytest.mark.parametrize(("size", "patch_size", "budget", "expected"), PIX2STRUCT.values(), ids=PIX2STRUCT)
def test_pix2struct(size, patch_size, budget, expected) -> None:
    assert grid(Pix2Struct(budget), *size, patch_size) == expected


def test_pix2struct_resizes_to_whole_patches() -> None:
    assert resized(Pix2Struct(10), 100, 200, 32) == (64, 128)


@pytest.mark.parametrize(("size", "budget", "floating", "exact"), EXACT.values(), ids=EXACT)
def test_pix2struct_exact_keeps_whole_roots(size, budget, floating, exact) -> None:
    assert grid(Pix2Struct(budget), *size) == floating
    assert grid(Pix2Struct(budget, exact=True), *size) == exact


def test_pix2struct_float64_misses_9139_of_65536_squares() -> None:
    missed = 0
    for root in range(1, 65):
        exact = Pix2Struct(root**2, exact=True)(SQUARES, 16)
        assert np.all(exact == root)
        floating = Pix2Struct(root**2)(SQUARES, 16)
        assert np.all((floating == root) | (floating == root - 1))
        missed += np.any(floating != exact, axis=1).sum()
    assert missed == 9139


def test_pix2struct_exact_does_not_see_the_patch_size() -> None:
    sizes = [(375, 500), (1080, 1920), (3000, 200), (7, 7)]
    assert grids(Pix2Struct(300, exact=True), sizes, 14) == grids(Pix2Struct(300, exact=True), sizes, 31)


# -------------------------------------------------------------------------------------------------------------- naflex

NAFLEX = {  # big_vision pp/proj/image_text/ops_naflex_test.py
    "square": ((48, 48), 3, 121, (33, 33)),
    "nearly square": ((112, 109), 7, 225, (105, 105)),
    "down": ((176, 176), 11, 64, (88, 88)),
    "rect tall": ((256, 64), 16, 12, (96, 32)),
    "rect tall odd": ((256, 64), 8, 15, (56, 16)),
    "rect wide": ((63, 241), 16, 16, (32, 128)),
    "one patch high": ((16, 512), 16, 16, (16, 256)),
    "photo at 256": ((375, 500), 16, 256, (224, 288)),
    "photo at 1024": ((375, 500), 16, 1024, (432, 576)),
    "video frame at 256": ((1080, 1920), 16, 256, (192, 336)),
    "video frame at 1024": ((1080, 1920), 16, 1024, (384, 672)),
    "small at 256": ((37, 41), 16, 256, (240, 272)),
    "a hundredfold at most": ((1, 1), 16, 49, (112, 112)),
    "a hundredfold at most, more budget": ((1, 1), 16, 4096, (112, 112)),
    "below a hundredfold": ((1, 1), 16, 48, (96, 96)),
    "rect a hundredfold": ((1, 2), 16, 4096, (112, 208)),
    "a budget of one": ((1080, 1920), 16, 1, (16, 16)),
    "thinner than the budget": ((1, 5000), 16, 10, (16, 160)),
}
WITHOUT_UPSCALE = {
    "fits": ((100, 30), 16, 64, (7, 2)),
    "fits exactly": ((128, 128), 16, 64, (8, 8)),
    "one pixel": ((1, 1), 16, 64, (1, 1)),
    "does not fit": ((129, 128), 16, 64, (8, 8)),
    "video frame": ((1080, 1920), 16, 256, (12, 21)),
}


@pytest.mark.parametrize(("size", "patch_size", "budget", "expected"), NAFLEX.values(), ids=NAFLEX)
def test_naflex(size, patch_size, budget, expected) -> None:
    assert resized(NaFlex(budget), *size, patch_size) == expected


@pytest.mark.parametrize(("size", "patch_size", "budget", "expected"), WITHOUT_UPSCALE.values(), ids=WITHOUT_UPSCALE)
def test_naflex_without_upscale(size, patch_size, budget, expected) -> None:
    assert grid(NaFlex(budget, upscale=False), *size, patch_size) == expected


def test_an_image_of_a_million_pixels_is_within_the_budget_by_bisection_too() -> None:
    """The search begins at a scale of 1e-6, at which 4 million pixels are still four patches of 1; the reference keeps them."""
    sizes = np.array([[4_000_000, 1], [375, 500]])
    assert NaFlex(1, search="bisection")(sizes, 1).tolist() == [[1, 1], [1, 1]]
    assert NaFlex(256, search="bisection")(sizes[1:], 16).tolist() == [[14, 18]]


@pytest.mark.parametrize("budget", [128, 256, 576, 784, 1024])
def test_naflex_fills_its_budget(budget) -> None:
    sides = np.unique(np.geomspace(20, 4000, 60).astype(int))
    sizes = np.array([(h, w) for h in sides for w in sides])
    aspect = sizes.max(axis=1) / sizes.min(axis=1)
    fill = NaFlex(budget)(sizes, 16).prod(axis=1) / budget
    assert fill[aspect < 4].min() >= 0.84
    assert fill.min() >= 0.5


# -------------------------------------------------------------------------------------------------------- smart resize

QWEN2_VL = SmartResize(56**2, 28**2 * 1280)
SMART = {
    "photo 640": ((480, 640), (476, 644), 391),
    "photo 500": ((375, 500), (364, 504), 234),
    "square": ((224, 224), (224, 224), 64),
    "video frame": ((1080, 1920), (728, 1316), 1222),
    "12 megapixels": ((4032, 3024), (1148, 840), 1230),
    "below the minimum": ((20, 20), (56, 56), 4),
    "strip of ratio 200": ((28, 5600), (28, 5600), 200),
    "half to even, down": ((70, 70), (56, 56), 4),
    "half to even, up": ((98, 98), (112, 112), 16),
    "a side that rounds to 0": ((14, 2800), (28, 812), 29),
    "the same, tall": ((2800, 14), (812, 28), 29),
}


@pytest.mark.parametrize(("size", "expected", "merged"), SMART.values(), ids=SMART)
def test_smart_resize(size, expected, merged) -> None:
    assert resized(QWEN2_VL, *size, 14) == expected
    assert math.prod(grid(QWEN2_VL, *size, 14)) == 4 * merged


@pytest.mark.parametrize("low", [1, 56 * 56])
def test_smart_resize_leaves_an_area_that_is_exactly_a_limit(low) -> None:
    """50 x 62 rounds to 56 x 56: neither over the maximum nor below the minimum."""
    assert resized(SmartResize(low, 56 * 56), 50, 62, 14) == (56, 56)


@pytest.mark.parametrize("size", [(1, 201), (201, 1), (28, 5601), (5601, 28), (10, 40_000)])
def test_smart_resize_refuses_a_ratio_above_200(size) -> None:
    assert grid(QWEN2_VL, *size, 14) == (0, 0)


def test_smart_resize_refuses_one_image_and_keeps_its_neighbours() -> None:
    assert grids(QWEN2_VL, [(224, 224), (1, 5000), (480, 640)], 14) == [(16, 16), (0, 0), (34, 46)]


MIN_SIDE = {
    "lifted to the minimum side": ((14, 100), 28, (28, 196)),
    "lifted, half to even": ((28, 45), 56, (56, 84)),
    "lifted to a refusal it escapes": ((1, 100), 28, (28, 2800)),
    "lifted, still refused": ((1, 201), 28, (0, 0)),
    "long enough already": ((28, 100), 28, (28, 112)),
}


@pytest.mark.parametrize(("size", "min_side", "expected"), MIN_SIDE.values(), ids=MIN_SIDE)
def test_smart_resize_lifts_short_sides(size, min_side, expected) -> None:
    assert resized(SmartResize(1, 1 << 30, min_side=min_side), *size, 14) == expected


# --------------------------------------------------------------------------------------------------------------- navit


@pytest.mark.parametrize(
    ("size", "resolution", "patch_size", "expected"),
    [
        ((480, 640), 128, 16, (6, 9)),
        ((100, 400), 128, 16, (4, 16)),  # the paper's 64 x 256
        ((100, 400), 240, 16, (7, 30)),  # 120 x 480
        ((1080, 1920), 240, 20, (9, 16)),  # 180 x 320
        ((1080, 1920), 240, 16, (11, 20)),
        ((500, 500), 224, 16, (14, 14)),
        ((1, 1), 224, 14, (16, 16)),
        ((500, 500), 223, 16, (13, 13)),
        ((10, 1000), 64, 16, (1, 16)),  # not 40
        ((1000, 10), 64, 16, (16, 1)),
        ((500, 500), 15, 16, (1, 1)),
        ((1, 20_000), 8, 16, (1, 1)),
    ],
)
def test_navit_at_a_fixed_resolution(size, resolution, patch_size, expected) -> None:
    policy = NaViT(resolution)
    assert policy.draws == 0
    assert grid(policy, *size, patch_size) == expected


def test_navit_loses_less_than_a_patch_per_side() -> None:
    sides = np.unique(np.geomspace(1, 4000, 80).astype(int))
    sizes = np.array([(h, w) for h in sides for w in sides])
    for r, p in [(64, 16), (100, 7), (256, 14), (384, 32)]:
        rows, cols = NaViT(r)(sizes, p).T
        height, width = r * np.sqrt(sizes[:, 0] / sizes[:, 1]), r * np.sqrt(sizes[:, 1] / sizes[:, 0])
        thin = (height < p) | (width < p)
        for side, count in ((height, rows), (width, cols)):
            lost = (side - count * p)[~thin]
            assert lost.min() > -1e-9
            assert lost.max() < p
        assert (rows * cols).max() <= max(1, r**2 // p**2)
        assert np.minimum(rows, cols)[thin].max() == 1


def sides_drawn(policy: NaViT, n: int = 50_000) -> np.ndarray:
    """r of each draw, seen from outside: a square image in patches of one pixel."""
    return policy(np.full((n, 2), 1000), 1, uniforms(n))[:, 0] + 0.5  # the floor's mean loss


SAMPLING = {
    "uniform side": (NaViT((64, 256)), (64 + 256) / 2, 0.4),
    "uniform area": (NaViT((64, 256), on="area"), (256**3 - 64**3) * 2 / 3 / (256**2 - 64**2), 0.4),
    # mean of a standard normal around m cut to [−1, 1]: m + (φ(−1−m) − φ(1−m)) / (Φ(1−m) − Φ(−1−m))
    "normal around -0.5": (NaViT((64, 256), sampling="normal"), 160 + 96 * -0.1427, 0.4),
    "normal around 0": (NaViT((64, 256), sampling="normal", mean=0.0), 160, 0.4),
    "normal around +0.5": (NaViT((64, 256), sampling="normal", mean=0.5), 160 + 96 * 0.1427, 0.4),
    "narrow normal": (NaViT((64, 256), sampling="normal", std=0.01), 160 - 48, 0.1),
}


@pytest.mark.parametrize(("policy", "mean", "tolerance"), SAMPLING.values(), ids=SAMPLING)
def test_navit_samples_around_its_mean(policy, mean, tolerance) -> None:
    r = sides_drawn(policy)
    assert policy.draws == 1
    assert r.mean() == pytest.approx(mean, abs=tolerance)
    assert r.min() >= 64
    assert r.max() < 257


def test_navit_area_is_uniform_when_asked() -> None:
    n = 50_000
    area = sides_drawn(NaViT((64, 256), on="area")) ** 2
    assert area.mean() == pytest.approx((64**2 + 256**2) / 2, rel=0.01)
    assert np.quantile(area, 0.25) == pytest.approx(64**2 + (256**2 - 64**2) / 4, rel=0.03)
    assert len(area) == n


@pytest.mark.parametrize("on", ["side", "area"])
@pytest.mark.parametrize("sampling", ["uniform", "normal"])
def test_navit_draws_within_its_range(on, sampling) -> None:
    policy = NaViT((64, 256), sampling=sampling, on=on)
    ends = np.array([[0.0], [1 - 2.0**-53]])
    lowest, highest = grids(policy, [(500, 500)] * 2, 1, ends)
    assert lowest == (64, 64)
    assert highest in [(255, 255), (256, 256)]


def test_navit_does_not_run_without_its_draws() -> None:
    with pytest.raises(ConfigError, match=r"float64 \[n, 1\]"):
        NaViT((64, 256))(np.array([[480, 640]]), 16, None)


@pytest.mark.parametrize(
    ("policy", "max_patches", "patch_size", "resolution"),
    [
        (NaViT((64, 256)), None, 16, 256),
        (NaViT((64, 256), eval_resolution=192), None, 16, 192),
        (NaViT((64, 256), eval_resolution=192), 256, 16, 256),
        (NaViT((64, 256)), 100, 14, 140),
        (NaViT((64, 256)), 99, 14, 139),
        (NaViT(100), None, 16, 100),
    ],
)
def test_navit_for_eval(policy, max_patches, patch_size, resolution) -> None:
    fixed = policy.for_eval(patch_size, max_patches)
    assert fixed.resolution == resolution
    assert fixed.draws == 0
    assert max_patches is None or fixed.bound(patch_size) <= max_patches


# ------------------------------------------------------------------------------------------------- longest side, square

LONGEST = {
    "square over": ((2048, 2048), (64, 64)),
    "12 megapixels": ((4032, 3024), (64, 48)),
    "wide": ((1000, 2000), (32, 64)),
    "fits": ((375, 500), (24, 32)),
    "one over": ((1025, 1025), (64, 64)),
    "thin": ((1, 4000), (1, 64)),
    "ratio floors": ((3000, 1999), (64, 43)),  # 682.3 px
    "one pixel": ((1, 1), (1, 1)),
}


@pytest.mark.parametrize(("size", "expected"), LONGEST.values(), ids=LONGEST)
def test_longest_side_is_the_rule_of_pixtral(size, expected) -> None:
    assert grid(LongestSide(1024), *size) == expected


def test_longest_side_upscales_when_asked() -> None:
    assert grid(LongestSide(1024, upscale=True), 30, 40) == (48, 64)
    assert grid(LongestSide(1024), 30, 40) == (2, 3)


def test_longest_side_may_be_no_multiple_of_the_patch() -> None:
    policy = LongestSide(100)
    assert policy.bound(16) == 49
    assert grid(policy, 300, 300) == (7, 7)


def test_longest_side_floors_exactly() -> None:
    """h / (max / longest) in floats loses a pixel here and there: 1023.999… of the longer side."""
    for longest in (448, 1000, 1024):
        sizes = np.array([(h, w) for h in range(1, 3000, 97) for w in range(1, 3000, 89)])
        expected = [naive.longest_side(h, w, 1, longest) for h, w in sizes.tolist()]
        assert grids(LongestSide(longest), sizes, 1) == expected


FLEXIVIT_GRIDS = dict(zip(FLEXIVIT_PATCH_SIZES, (5, 6, 8, 10, 12, 15, 16, 20, 24, 30), strict=True))


@pytest.mark.parametrize(("patch_size", "side"), FLEXIVIT_GRIDS.items())
def test_square_of_240_has_ten_flexivit_grids(patch_size, side) -> None:
    policy = Square(240)
    assert grids(policy, [(375, 500), (1, 9000), (240, 240)], patch_size) == [(side, side)] * 3
    assert policy.bound(patch_size) == side**2


@pytest.mark.parametrize("ask", [lambda p: p.bound(16), lambda p: grid(p, 300, 400, 16)], ids=["bound", "call"])
def test_square_needs_a_divisor(ask) -> None:
    with pytest.raises(ConfigError, match=r"Square's size must be a multiple of patch_size=16, got 225"):
        ask(Square(225))


# -------------------------------------------------------------------------------------------------------------- native


@pytest.mark.parametrize(("size", "tokens"), [((224, 224), 256), ((448, 224), 512), ((336, 336), 576)])
@pytest.mark.parametrize("edge", ["crop", "pad"])
def test_native_multiples_of_14(size, tokens, edge) -> None:
    assert math.prod(grid(Native(1024, edge=edge), *size, 14)) == tokens


NATIVE = {
    # size, edge, oversize, budget -> grid, box (top, left, height, width), target
    "whole patches": ((64, 96), "crop", "shrink", 100, (4, 6), (0, 0, 64, 96), (64, 96)),
    "cropped around its centre": ((75, 101), "crop", "shrink", 100, (4, 6), (5, 2, 64, 96), (64, 96)),
    "padded": ((75, 101), "pad", "shrink", 100, (5, 7), (0, 0, 75, 101), (75, 101)),
    "a side under a patch": ((9, 101), "crop", "shrink", 100, (1, 6), (0, 2, 9, 96), (9, 96)),
    "both sides under a patch": ((9, 3), "crop", "shrink", 100, (1, 1), (0, 0, 9, 3), (9, 3)),
    "both sides under a patch, padded": ((9, 3), "pad", "shrink", 100, (1, 1), (0, 0, 9, 3), (9, 3)),
    "shrunk": ((480, 640), "crop", "shrink", 300, (15, 20), (0, 0, 480, 640), (240, 320)),
    "shrunk to whole roots": ((224, 224), "pad", "shrink", 25, (5, 5), (0, 0, 224, 224), (80, 80)),
    "the crop fits, so nothing is shrunk": ((175, 175), "crop", "shrink", 100, (10, 10), (7, 7, 160, 160), (160, 160)),
    "the padding does not fit, so all is": ((175, 175), "pad", "shrink", 100, (10, 10), (0, 0, 175, 175), (160, 160)),
    "refused": ((480, 640), "crop", "reject", 300, (0, 0), (0, 0, 480, 640), (0, 0)),
    "just not refused": ((240, 320), "crop", "reject", 300, (15, 20), (0, 0, 240, 320), (240, 320)),
}


@pytest.mark.parametrize(("size", "edge", "oversize", "budget", "expected", "box", "target"), NATIVE.values(), ids=NATIVE)
def test_native_grid_and_place(size, edge, oversize, budget, expected, box, target) -> None:
    policy = Native(budget, edge=edge, oversize=oversize)
    assert isinstance(policy, PlacingPolicy)
    sizes = np.array([(32, 32), size])  # beside another image
    answer = policy(sizes, 16, None)
    boxes, targets = policy.place(sizes, answer, 16)
    assert (boxes.dtype, targets.dtype) == (np.int32, np.int32)
    assert tuple(answer[1]) == expected
    assert tuple(boxes[1]) == box
    assert tuple(targets[1]) == target
    assert (tuple(answer[0]), tuple(boxes[0]), tuple(targets[0])) == ((2, 2), (0, 0, 32, 32), (32, 32))


# -------------------------------------------------------------------------------------------------------- all of them


def test_integer_roots_are_exact_where_float64_is_not() -> None:
    roots = [0, 1, 2, 3, 1000, (1 << 26) - 1, 1 << 26, (1 << 26) + 1, 94_906_267, 10**9 + 7, (1 << 31) - 1]
    squares = [n for root in roots for n in (root**2 - 1, root**2, root**2 + 1, root**2 + 2 * root) if 0 <= n <= 1 << 62]
    assert isqrt(squares).tolist() == [math.isqrt(n) for n in squares]


def test_ceil_div_is_exact() -> None:
    pairs = [(0, 3), (1, 3), (3, 3), (4, 3), ((1 << 62) - 1, 2), ((1 << 62) + 1, 1 << 31)]
    assert ceil_div(*zip(*pairs, strict=True)).tolist() == [-(-a // b) for a, b in pairs]


POLICIES = [
    Pix2Struct(64), Pix2Struct(64, exact=True), NaFlex(64), NaFlex(64, upscale=False, search="bisection"),
    QWEN2_VL, NaViT(128), NaViT((64, 256)),
    LongestSide(256), Square(224), Native(64), Native(64, edge="pad", oversize="reject"),
]  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_policies_keep_the_protocol(policy) -> None:
    assert isinstance(policy, ResizePolicy)
    assert isinstance(policy, PlacingPolicy) == isinstance(policy, Native)
    assert policy == type(policy)(**policy.__dict__)
    assert hash(policy) == hash(type(policy)(**policy.__dict__))


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_no_images_make_no_grids(policy) -> None:
    assert policy(np.empty((0, 2), dtype=np.int64), 16, np.empty((0, 1))).shape == (0, 2)


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("dtype", [np.int32, np.uint16, np.int64])
def test_integer_dtypes_do_not_matter(policy, dtype) -> None:
    sizes = np.array([(480, 640), (3000, 1), (65_535, 65_535), (1, 1)])
    u = uniforms(4)
    assert np.array_equal(policy(sizes.astype(dtype), 16, u), policy(sizes, 16, u))


REFUSED = {
    "pix2struct 0": (lambda: Pix2Struct(0), "got 0"),
    "pix2struct too many": (lambda: Pix2Struct((1 << 24) + 1), "got 16777217"),
    "pix2struct fraction": (lambda: Pix2Struct(2.5), "got 2.5"),
    "pix2struct float": (lambda: Pix2Struct(256.0), "got 256.0"),
    "pix2struct text": (lambda: Pix2Struct("256"), "got '256'"),
    "naflex negative": (lambda: NaFlex(-1), "got -1"),
    "naflex truth": (lambda: NaFlex(True), "got True"),
    "naflex search": (lambda: NaFlex(64, search="binary"), "search must be 'exact' or 'bisection', got 'binary'"),
    "native 0": (lambda: Native(0), "got 0"),
    "native edge": (lambda: Native(64, edge="cut"), "got 'cut' and 'shrink'"),
    "native oversize": (lambda: Native(64, oversize="drop"), "got 'crop' and 'drop'"),
    "square 0": (lambda: Square(0), "got 0"),
    "square float": (lambda: Square(224.0), "got 224.0"),
    "longest 0": (lambda: LongestSide(0), "got 0"),
    "longest float": (lambda: LongestSide(100.5), "got 100.5"),
    "longest too long": (lambda: LongestSide((1 << 20) + 1), "got 1048577"),
    "navit reversed": (lambda: NaViT((256, 64)), r"got \(256, 64\)"),
    "navit 0": (lambda: NaViT(0), "got 0"),
    "navit too large": (lambda: NaViT((64, 1 << 16)), "got 65536"),
    "navit float": (lambda: NaViT((64.0, 256.0)), "got 64.0"),
    "navit sampling": (lambda: NaViT(sampling="beta"), "sampling must be .* got 'beta'"),
    "navit on": (lambda: NaViT(on="height"), "on must be .* got 'height'"),
    "navit std": (lambda: NaViT(std=0.0), "got 0.0"),
    "navit std nan": (lambda: NaViT(std=math.nan), "got nan"),
    "navit eval": (lambda: NaViT(eval_resolution=0), "eval_resolution.* got 0"),
    "smart reversed": (lambda: SmartResize(100, 99), "min_pixels=100, max_pixels=99"),
    "smart 0": (lambda: SmartResize(0, 99), "min_pixels=0"),
    "smart huge": (lambda: SmartResize(1, 1 << 40), "max_pixels=1099511627776"),
    "smart merge": (lambda: SmartResize(1, 99, merge=0), "merge=0"),
    "smart min_side": (lambda: SmartResize(1, 99, min_side=0), "min_side=0"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_impossible_numbers_are_named_at_construction(make, message) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
