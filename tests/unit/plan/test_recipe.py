"""A recipe says everything, refuses at construction what could not work, and can be written down and read back."""

from __future__ import annotations

import math
import pickle
from collections import Counter
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import naive
from helpers.reprs import NAMES
from patchpack import recipes, rng, testing
from patchpack.errors import ConfigError
from patchpack.plan.packing import FirstFit, Lookahead
from patchpack.plan.policies.drop import Beta, NoDrop, Scheduled
from patchpack.plan.policies.normalize import CLIP, HALF, MeanStd, PerImage
from patchpack.plan.policies.positions import Absolute, Fractional
from patchpack.plan.policies.resize import LongestSide, NaFlex, Native, NaViT, Pix2Struct, SmartResize, Square
from patchpack.plan.recipe import Recipe
from patchpack.plan.recipes import FLEXIVIT_PATCH_SIZES, PRESETS

presets = pytest.mark.parametrize("name", PRESETS)


@dataclass(frozen=True)
class Unbounded:
    """One patch per patch_size pixels, however many."""

    draws = 0

    def bound(self, patch_size: int) -> int | None:
        return None

    def __call__(self, sizes: Any, patch_size: int, u: Any = None) -> Any:
        return np.maximum(1, sizes // patch_size).astype(np.int32)


@dataclass(frozen=True)
class Drawing(Unbounded):
    draws = 1


# ------------------------------------------------------------------------------------------------------------- presets

PUBLISHED = {
    # resize, patch_size, seq_len, max_images, resample, normalize, dtype
    "navit": (NaViT((64, 256)), 16, 1024, 64, "bilinear", HALF, "uint8"),
    "pix2struct": (Pix2Struct(2048), 16, 2048, 64, "bilinear", PerImage(), "float32"),
    "siglip2_naflex": (NaFlex(256, search="bisection"), 16, 1024, 64, "bilinear", HALF, "uint8"),
    "qwen2_vl": (SmartResize(3136, 1_003_520), 14, 5120, 64, "bicubic", CLIP, "uint8"),
    "qwen3_vl": (SmartResize(65_536, 16_777_216), 16, 65_536, 64, "bicubic", HALF, "uint8"),
    "paddleocr_vl": (SmartResize(147_456, 2_359_296, min_side=28), 14, 12_036, 64, "bicubic", HALF, "uint8"),
    "flexivit": (Square(240), FLEXIVIT_PATCH_SIZES, None, 1, "bilinear", HALF, "uint8"),
    "square": (Square(224), 16, None, 1, "bilinear", HALF, "uint8"),
}


@presets
def test_a_preset_is_what_was_published(name) -> None:
    recipe = recipes.get(name)
    given_values = (
        recipe.resize, recipe.patch_size, recipe.seq_len, recipe.max_images, recipe.resample, recipe.normalize, recipe.dtype,
    )  # fmt: skip
    assert given_values == PUBLISHED[name]


def test_a_longer_navit_row_has_more_slots() -> None:
    """Or it would run out of slots before it is full of tokens: 56 tokens an image in the mean."""
    assert [recipes.navit(seq_len=n).max_images for n in (256, 1024, 4096)] == [64, 64, 256]
    assert recipes.navit(seq_len=4096, max_images=8).max_images == 8


def test_only_navit_drops() -> None:
    assert {name: recipes.get(name).drop for name in PRESETS} == dict.fromkeys(PRESETS, NoDrop()) | {"navit": Beta(0.5, 0.9)}


@presets
def test_a_preset_can_be_changed_on_the_way(name) -> None:
    recipe = recipes.get(name, seed=7, rows_per_batch=3)
    assert (recipe.seed, recipe.rows_per_batch) == (7, 3)
    assert recipe.replace(seed=0, rows_per_batch=recipes.get(name).rows_per_batch) == recipes.get(name)


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (recipes.pix2struct(max_patches=4096), {"resize": Pix2Struct(4096), "seq_len": 4096}),
        (recipes.siglip2_naflex(max_patches=4096), {"resize": NaFlex(4096, search="bisection"), "seq_len": 4096}),
        (recipes.siglip2_naflex(max_patches=128), {"resize": NaFlex(128, search="bisection"), "seq_len": 1024}),
        (recipes.qwen2_vl(max_pixels=56**2 * 4), {"seq_len": SmartResize(56**2, 56**2 * 4).bound(14)}),
        (recipes.qwen2_vl(patch_size=16), {"patch_size": 16, "seq_len": SmartResize(3136, 1_003_520).bound(16)}),
        (recipes.qwen2_vl(patch_size=(16, 14)), {"patch_size": (16, 14), "seq_len": 5120}),
        (recipes.qwen2_vl(seq_len=8192), {"seq_len": 8192}),
        (recipes.flexivit(patch_size=16), {"patch_size": 16}),
        (recipes.flexivit(size=480), {"resize": Square(480)}),
        (recipes.square(size=384, patch_size=32), {"resize": Square(384), "patch_size": 32}),
        (recipes.navit(resize=NaViT((64, 512)), drop=NoDrop()), {"resize": NaViT((64, 512)), "drop": NoDrop()}),
    ],
)
def test_preset_options(recipe, expected) -> None:
    assert {name: getattr(recipe, name) for name in expected} == expected


# ------------------------------------------------------------------------------------------------ written down, read back


@presets
def test_the_repr_of_a_preset_is_the_preset(name) -> None:
    recipe = recipes.get(name)
    assert eval(repr(recipe), NAMES) == recipe


@given(testing.recipes())
def test_the_repr_of_a_recipe_is_the_recipe(recipe) -> None:
    assert eval(repr(recipe), NAMES) == recipe


@given(testing.recipes())
def test_a_recipe_survives_pickle(recipe) -> None:
    again = pickle.loads(pickle.dumps(recipe))
    assert again == recipe
    assert hash(again) == hash(recipe)


@presets
def test_equal_recipes_have_equal_hashes(name) -> None:
    assert hash(recipes.get(name)) == hash(recipes.get(name))
    assert recipes.get(name, seed=1) != recipes.get(name)


def test_a_recipe_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        recipes.navit().seed = 1


def test_replace_changes_and_checks() -> None:
    recipe = recipes.navit()
    assert recipe.replace(seq_len=4096).seq_len == 4096
    assert recipe.replace(seq_len=4096).replace(seq_len=1024) == recipe
    with pytest.raises(ConfigError, match=r"seq_len=255 .* 256 patches"):
        recipe.replace(seq_len=255)
    with pytest.raises(
        ConfigError, match=r"sequence_length.*the fields of a recipe are resize, crop, flip_prob, drop, .*max_pixels"
    ):
        recipe.replace(sequence_length=4096)


# -------------------------------------------------------------------------------------------------------------- refusals

R = Pix2Struct(256)
REFUSED = {
    "resize is no policy": ({"resize": 256}, "resize must be a ResizePolicy, such as .* got 256"),
    "resize has no bound": ({"resize": lambda sizes, patch_size, u: sizes}, "resize must be a ResizePolicy"),
    "resize is a class": ({"resize": NaFlex}, r"resize must be an instance: NaFlex\(...\)"),
    "drop is a rate": ({"drop": 0.5}, "drop must be a DropPolicy, such as .* got 0.5"),
    "drop is a class": ({"drop": NoDrop}, r"drop must be an instance: NoDrop\(...\)"),
    "positions are a name": ({"positions": "absolute"}, "positions must be a PositionScheme, such as .* got 'absolute'"),
    "positions are a class": ({"positions": Absolute}, r"positions must be an instance: Absolute\(...\)"),
    "packer is a name": ({"packer": "first_fit"}, r"packer must be a function .* such as Lookahead.* got 'first_fit'"),
    "packer is a class": ({"packer": FirstFit}, "packer must be a function .* got <class"),
    "max_images 0": ({"max_images": 0}, "max_images must be an integer in 1 … 1048576, got 0"),
    "max_images float": ({"max_images": 2.0}, "max_images must be an integer .* got 2.0"),
    "rows 0": ({"rows_per_batch": 0}, "rows_per_batch must be an integer .* got 0"),
    "rows truth": ({"rows_per_batch": True}, "rows_per_batch must be an integer .* got True"),
    "max_pixels 0": ({"max_pixels": 0}, "max_pixels must be an integer .* got 0"),
    "seed negative": ({"seed": -1}, "seed must be an integer in 0 … 18446744073709551615, got -1"),
    "seed too large": ({"seed": 1 << 64}, "got 18446744073709551616"),
    "seed none": ({"seed": None}, "seed must be an integer .* got None"),
    "seq_len 0": ({"seq_len": 0}, "seq_len must be an integer in 1 … 1073741824, got 0"),
    "seq_len float": ({"seq_len": 1024.0}, "seq_len must be an integer .* got 1024.0"),
    "patch_size 0": ({"patch_size": 0}, "patch_size must be an integer in 1 … 4096, got 0"),
    "patch_size float": ({"patch_size": 16.0}, "patch_size must be an integer .* got 16.0"),
    "patch_size of a list": ({"patch_size": [[8], 16]}, r"patch_size must be an integer .* got \[8\]"),
    "patch_size empty": ({"patch_size": ()}, "patch_size must be at least one size"),
    "one patch_size of several": ({"patch_size": (8, 4097)}, "patch_size must be an integer .* got 4097"),
    "resample": ({"resample": "cubic"}, "resample must be one of .*'bicubic'.* got 'cubic'"),
    "resample_order": (
        {"resample_order": "vertical_first"}, "resample_order must be one of .*'horizontal_first'.* got 'vertical_first'",
    ),
    "dtype": ({"dtype": "bfloat16"}, "dtype must be one of .*'float16'.* got 'bfloat16'"),
    "normalize": ({"normalize": "imagenet"}, r"normalize must be MeanStd\(...\) or PerImage\(\), got 'imagenet'"),
    "normalize is a class": ({"normalize": PerImage}, "normalize must be .* got <class"),
    "per image in bytes": ({"normalize": PerImage()}, "set dtype='float32' or 'float16'"),
    "background of two": ({"background": (255, 255)}, r"background must be three integers .* got \(255, 255\)"),
    "background too bright": ({"background": (0, 0, 256)}, "background .* got 256"),
    "bound over seq_len": ({"seq_len": 255}, "seq_len=255 .* patch_size=16 .* 256 patches. Raise seq_len to at least 256"),
    "no seq_len, no bound": ({"resize": Unbounded(), "seq_len": None, "max_images": 1}, "None needs .* a bound, and Unbounded"),
    "no seq_len, several images": ({"seq_len": None, "max_images": 2}, "set max_images=1, got 2"),
    "no divisor": ({"resize": Square(225), "seq_len": None, "max_images": 1}, r"a multiple of patch_size=16, got 225"),
    "no divisor for one of several": ({"resize": Square(240), "patch_size": (16, 14)}, r"a multiple of patch_size=14, got 240"),
    "bound at one of several": ({"resize": Square(240), "seq_len": 600, "patch_size": (16, 8)}, "=600 .* patch_size=8 .* 900"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_what_could_not_work_is_refused_at_construction(changes, message) -> None:
    Recipe(resize=R)
    with pytest.raises(ConfigError, match=message):
        Recipe(**{"resize": R, **changes})


def test_positional_arguments_are_refused() -> None:
    with pytest.raises(TypeError):
        Recipe(R)


@pytest.mark.parametrize(
    ("mean", "std"),
    [((0.5, 0.5), (0.5,) * 3), ((0.5,) * 3, (0.5,) * 4), ((0.5,) * 3, (0.5, 0.0, 0.5)), ((0.5,) * 3, (0.5, 0.5, -1))],
)
def test_mean_and_std_are_three_numbers(mean, std) -> None:
    with pytest.raises(ConfigError, match=r"(mean|std) must be three numbers|MeanStd takes numbers on the 0-1 scale"):
        MeanStd(mean, std)


def test_an_unbounded_policy_needs_a_seq_len_only() -> None:
    recipe = Recipe(resize=Unbounded(), seq_len=64)
    assert recipe.row_len(16) == 64


@pytest.mark.parametrize("name", ["seq_len", "rows_per_batch", "seed", "patch_size"])
def test_numpy_integers_are_integers(name) -> None:
    assert getattr(Recipe(resize=R, **{name: np.int64(256)}), name) == 256


# ------------------------------------------------------------------------------------------------------------ by name


@pytest.mark.parametrize("ask", [recipes.get, lambda name: getattr(recipes, name)], ids=["get", "attribute"])
def test_an_unknown_recipe_suggests_a_name(ask) -> None:
    with pytest.raises(ConfigError, match=r"one of navit, pix2struct, .*square, got 'navitt'. Did you mean 'navit'\?"):
        ask("navitt")
    with pytest.raises(ConfigError, match=r"one of navit, .*got 'zzz'"):
        ask("zzz")


def test_an_unknown_recipe_is_a_missing_attribute() -> None:
    assert not hasattr(recipes, "navitt")
    assert getattr(recipes, "navitt", None) is None
    assert hasattr(recipes, "navit")


@presets
def test_an_unknown_field_is_named(name) -> None:
    with pytest.raises(ConfigError, match=r"a recipe has no field 'seqlen'; its fields are resize, .*seq_len"):
        recipes.get(name, seqlen=4096)


def test_presets_are_reached_by_their_own_names() -> None:
    assert list(PRESETS) == list(PUBLISHED)
    assert all(recipes.get(name) == getattr(recipes, name)() for name in PRESETS)


# --------------------------------------------------------------------------------------------------------- patch sizes


def test_patch_sizes_are_a_tuple() -> None:
    assert Recipe(resize=R, patch_size=14).patch_sizes == (14,)
    assert Recipe(resize=R, patch_size=(14, 16)).patch_sizes == (14, 16)


def test_one_patch_size_is_not_drawn() -> None:
    assert {recipes.square().patch_size_at(epoch, step) for epoch in range(3) for step in range(10)} == {16}


def test_ten_patch_sizes_are_roughly_uniform() -> None:
    recipe = recipes.flexivit()
    counts = Counter(recipe.patch_size_at(0, step) for step in range(3000))
    assert set(counts) == set(FLEXIVIT_PATCH_SIZES)
    assert all(250 < count < 350 for count in counts.values())  # deviation 16


def test_a_patch_size_is_a_function_of_seed_epoch_and_step() -> None:
    def drawn(seed: int, epoch: int) -> list[int]:
        return [recipes.flexivit(seed=seed).patch_size_at(epoch, step) for step in range(50)]

    assert drawn(0, 0) == drawn(0, 0)
    assert len({tuple(drawn(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4
    assert recipes.flexivit().replace(rows_per_batch=5, dtype="float32").patch_size_at(
        2, 3
    ) == recipes.flexivit().patch_size_at(2, 3)


def test_patch_sizes_never_change() -> None:
    drawn = [recipes.flexivit().patch_size_at(0, step) for step in range(12)]
    assert drawn == [12, 16, 30, 24, 24, 12, 20, 30, 10, 20, 8, 48]
    assert drawn == [FLEXIVIT_PATCH_SIZES[int(10 * naive.uniform(0, 0, step, rng.Stage.PATCH_SIZE, 0))] for step in range(12)]


@pytest.mark.parametrize("patch_size", FLEXIVIT_PATCH_SIZES)
def test_a_row_without_seq_len_is_one_image(patch_size) -> None:
    assert recipes.flexivit().row_len(patch_size) == (240 // patch_size) ** 2


# ---------------------------------------------------------------------------------------------------------- evaluation


@pytest.mark.parametrize(
    ("name", "max_patches"),
    [(name, budget) for name in PRESETS for budget in (None, 64, 256) if (name, budget) != ("square", 64)],
)
def test_nothing_is_drawn_in_evaluation(name, max_patches) -> None:
    recipe = recipes.get(name).for_eval(max_patches)
    assert recipe.resize.draws == 0
    assert recipe.drop == NoDrop()
    assert isinstance(recipe.patch_size, int)
    unchanged = {f.name for f in fields(Recipe)} - {"resize", "drop", "patch_size"}
    assert all(getattr(recipe, field) == getattr(recipes.get(name), field) for field in unchanged)


@pytest.mark.parametrize("name", ["navit", "pix2struct", "siglip2_naflex", "flexivit"])
@pytest.mark.parametrize("max_patches", [36, 64, 256, 1000])
def test_evaluation_keeps_its_budget(name, max_patches) -> None:
    recipe = recipes.get(name).for_eval(max_patches)
    assert recipe.resize.bound(recipe.patch_size) <= max_patches


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen3_vl", "paddleocr_vl"])
def test_evaluation_of_a_smart_resize_sets_its_area(name) -> None:
    """An area, not a count: thin images may still exceed it, and `bound` says by how much."""
    recipe = recipes.get(name).for_eval(256)
    assert recipe.resize.max_pixels == 256 * recipe.patch_size**2
    assert recipe.resize.min_pixels <= recipe.resize.max_pixels
    photos = np.array([(480, 640), (1080, 1920), (3000, 4000), (500, 500)])
    assert recipe.resize(photos, recipe.patch_size, None).prod(axis=1).max() <= 256


FOR_EVAL = {
    "navit, highest": (recipes.navit(), {}, {"resize": NaViT(256), "drop": NoDrop()}),
    "navit, stated": (
        recipes.navit(resize=NaViT((64, 256), eval_resolution=192)), {}, {"resize": NaViT(192, eval_resolution=192)},
    ),
    "navit, budget": (recipes.navit(), {"max_patches": 100}, {"resize": NaViT(160)}),
    "pix2struct, its own": (recipes.pix2struct(), {}, {"resize": Pix2Struct(2048)}),
    "pix2struct, budget": (recipes.pix2struct(), {"max_patches": 512}, {"resize": Pix2Struct(512)}),
    "naflex, options stay": (
        Recipe(resize=NaFlex(256, upscale=False)), {"max_patches": 64}, {"resize": NaFlex(64, upscale=False)},
    ),
    "native": (Recipe(resize=Native(256, edge="pad")), {"max_patches": 64}, {"resize": Native(64, edge="pad")}),
    "qwen": (recipes.qwen2_vl(), {"max_patches": 1024}, {"resize": SmartResize(3136, 1024 * 196)}),
    "qwen below its minimum": (recipes.qwen2_vl(), {"max_patches": 8}, {"resize": SmartResize(8 * 196, 8 * 196)}),
    "flexivit, 16 of several": (recipes.flexivit(), {}, {"patch_size": 16}),
    "flexivit, finest without 16": (recipes.flexivit(patch_size=(24, 12, 20)), {}, {"patch_size": 12}),
    "flexivit, finest within": (recipes.flexivit(), {"max_patches": 300}, {"patch_size": 15}),
    "flexivit, exactly within": (recipes.flexivit(), {"max_patches": 256}, {"patch_size": 15}),
    "flexivit, all within": (recipes.flexivit(), {"max_patches": 900}, {"patch_size": 8}),
    "flexivit, asked for": (recipes.flexivit(), {"patch_size": 30}, {"patch_size": 30}),
    "schedule": (recipes.navit(drop=Scheduled(1e6, -1e5)), {}, {"drop": NoDrop()}),
    "square within": (recipes.square(), {"max_patches": 196}, {"resize": Square(224)}),
    "several sizes, none within": (
        Recipe(resize=NaFlex(1024), patch_size=(8, 16)), {"max_patches": 256}, {"resize": NaFlex(256), "patch_size": 16},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("recipe", "arguments", "expected"), FOR_EVAL.values(), ids=FOR_EVAL)
def test_for_eval(recipe, arguments, expected) -> None:
    answer = recipe.for_eval(**arguments)
    assert {name: getattr(answer, name) for name in expected} == expected


NOT_FOR_EVAL = {
    "square over": (recipes.square(), {"max_patches": 195}, r"Square\(size=224\) has no budget, .*max_patches=195"),
    "flexivit over": (recipes.flexivit(), {"max_patches": 24}, r"Square\(size=240\) has no budget, .*max_patches=24"),
    "longest side over": (Recipe(resize=LongestSide(512)), {"max_patches": 64}, r"LongestSide\(.* has no budget"),
    "flexivit, no divisor": (recipes.flexivit(), {"patch_size": 14}, r"a multiple of patch_size=14, got 240"),
    "budget over seq_len": (recipes.pix2struct(), {"max_patches": 4096}, "seq_len=2048 cannot hold .* 4096"),
    "a policy that draws": (Recipe(resize=Drawing()), {}, r"Drawing\(\) makes random draws: give it a method for_eval"),
}


@pytest.mark.parametrize(("recipe", "arguments", "message"), NOT_FOR_EVAL.values(), ids=NOT_FOR_EVAL)
def test_for_eval_says_what_it_cannot_do(recipe, arguments, message) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe.for_eval(**arguments)


@given(testing.recipes(), st.integers(1, 400))
def test_evaluation_draws_nothing_or_refuses(recipe, max_patches) -> None:
    assert recipe.for_eval().resize.draws == 0
    try:
        answer = recipe.for_eval(max_patches)
    except ConfigError:
        return
    assert answer.resize.draws == 0
    if not isinstance(answer.resize, SmartResize):
        assert answer.resize.bound(answer.patch_size) <= max_patches


def test_defaults() -> None:
    recipe = Recipe(resize=R)
    assert (recipe.drop, recipe.positions, recipe.packer) == (NoDrop(), Absolute(), Lookahead())
    assert replace(recipe, positions=Fractional()).positions == Fractional()
    assert math.prod(recipe.background) == 255**3


# ------------------------------------------------------------------------------------------------------------ decoding


def test_decode_is_one_of_three() -> None:
    assert Recipe(resize=NaFlex(256)).decode == "exact"
    with pytest.raises(ConfigError, match=r"decode must be one of \('exact', 'draft', 'simplejpeg'\), got 'fast'"):
        Recipe(resize=NaFlex(256), decode="fast")


def test_simplejpeg_without_its_package_is_refused_at_construction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patchpack.plan.recipe.find_spec", lambda _: None)
    assert Recipe(resize=NaFlex(256), decode="draft").decode == "draft"
    with pytest.raises(ConfigError, match=r"pip install 'patchpack\[simplejpeg\]'"):
        Recipe(resize=NaFlex(256), decode="simplejpeg")
