"""Arguments of existing models, from packed batches and from the processors, against what the peers' own processors make.

`adapter_tensors.npz` holds theirs of twenty pictures, see `make_adapter_tensors.py`; `pixels_*.npz` those of ten others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import PIL
import pytest
import torch

import patchpack as pp
from helpers.goldens import load, pixels
from helpers.mixed_images import pictures
from patchpack import adapters

PILLOW_13 = pytest.mark.skipif(
    int(PIL.__version__.split(".")[0]) < 13,
    reason="these pixels are Pillow 13's, which orders its two passes by the sizes; older ones round otherwise",
)

ATOL = 1e-4
KEYS, IMAGES = zip(*pictures().items(), strict=True)


class Case(NamedTuple):
    processor: Any
    adapter: Callable[..., Any]
    pixels: str


CASES = {
    "siglip2": Case(adapters.Siglip2Processor(max_num_patches=40), adapters.siglip2, "pixel_values"),
    "qwen2_vl": Case(
        adapters.QwenVLProcessor(min_pixels=4 * 28**2, max_pixels=12 * 28**2), adapters.qwen_vl, "pixel_values"
    ),
    "qwen3_vl": Case(
        adapters.QwenVLProcessor(
            min_pixels=4 * 32**2, max_pixels=12 * 32**2, patch_size=16, image_mean=pp.normalize.HALF.mean,
            image_std=pp.normalize.HALF.std
        ),
        adapters.qwen_vl,
        "pixel_values",
    ),
    "pix2struct": Case(adapters.Pix2StructProcessor(max_patches=40), adapters.pix2struct, "flattened_patches"),
    "timm_naflex": Case(adapters.TimmNaFlexProcessor(max_seq_len=40), adapters.timm_naflex, "patches"),
}  # fmt: skip
LENGTHS = {"siglip2": "max_num_patches", "pix2struct": "max_patches", "timm_naflex": "max_seq_len"}


@pytest.fixture(scope="module")
def theirs() -> dict[str, Any]:
    return load("adapter_tensors")


def from_batches(name: str, recipe: pp.Recipe, samples: list[pp.Sample]) -> dict[str, dict[str, Any]]:
    """Key → the arguments of that image alone: packed among the others, and taken out by the adapter."""
    found = {}
    for batch in pp.load(samples, recipe, target=None):
        inputs = CASES[name].adapter(batch, **({LENGTHS[name]: 40} if name in LENGTHS else {}))
        found |= dict(zip(adapters.keys(batch), by_image(inputs), strict=True))
    return found


def by_image(inputs: Any) -> Iterator[dict[str, Any]]:
    if "image_grid_thw" not in inputs:
        for i in range(len(next(iter(inputs.values())))):
            yield {name: value[i] for name, value in inputs.items()}
        return
    start = 0
    for grid in inputs["image_grid_thw"]:
        stop = start + int(grid.prod())
        yield {"pixel_values": inputs["pixel_values"][start:stop], "image_grid_thw": grid}
        start = stop


def check(name: str, got: dict[str, Any], wanted: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Of one image: pixels to a tolerance, the rest exactly."""
    for field, value in wanted.items():
        if field == "ids":
            assert np.array_equal(got["flattened_patches"][:, :2], value)
            continue
        mine = np.asarray(got[field])
        if field != CASES[name].pixels:
            assert np.array_equal(mine, value)
            assert mine.dtype == value.dtype
            continue
        mine = mine[:, 2:] if name == "pix2struct" else mine
        products = mine.astype(np.float64) @ theirs[f"vectors{mine.shape[1]}"].astype(np.float64)
        np.testing.assert_allclose(products, value, rtol=0, atol=ATOL)


@PILLOW_13
@pytest.mark.parametrize("way", ["processor", "batches, float", "batches, uint8"])
@pytest.mark.parametrize("name", CASES)
def test_twenty_pictures(name: str, way: str, theirs: dict[str, Any]) -> None:
    case = CASES[name]
    if way == "processor":
        got = dict(zip(KEYS, by_image(case.processor(list(IMAGES))), strict=True))
    else:
        recipe = case.processor.recipe
        if name != "pix2struct":
            recipe = recipe.replace(dtype="uint8" if way == "batches, uint8" else "float32")
        recipe = recipe.replace(seq_len=500, rows_per_batch=2, max_images=16)
        got = from_batches(name, recipe, [pp.Sample(key, image) for key, image in zip(KEYS, IMAGES, strict=True)])
    assert sorted(got) == list(KEYS)
    fields = {field.split("/")[1]: value for field, value in theirs.items() if field.startswith(f"{name}/")}
    for key, wanted in zip(KEYS, by_image(fields), strict=True):
        check(name, got[key], wanted, theirs)


TEN = {  # file → (name of the case, a processor of the same settings)
    "pixels_siglip2_pil_p16_n36": ("siglip2", adapters.Siglip2Processor(max_num_patches=36)),
    "pixels_qwen2vl_pil_p14": ("qwen2_vl", CASES["qwen2_vl"].processor),
    "pixels_pix2struct_pil_norm": ("pix2struct", adapters.Pix2StructProcessor(max_patches=30)),
    "pixels_timm_naflex_bicubic_p16_n36": (
        "timm_naflex",
        adapters.TimmNaFlexProcessor(max_seq_len=36, mean=pp.normalize.IMAGENET.mean, std=pp.normalize.IMAGENET.std),
    ),
}  # fmt: skip
TORCHVISION = {  # the same, and by how many grey levels its pixels differ
    "pixels_siglip2_torchvision_p16_n36": (*TEN["pixels_siglip2_pil_p16_n36"], 1),
    "pixels_siglip2_torchvision_p14_n50": ("siglip2", adapters.Siglip2Processor(patch_size=14, max_num_patches=50), 1),
    "pixels_qwen2vl_torchvision_p14": (*TEN["pixels_qwen2vl_pil_p14"], 1),
    "pixels_qwen2vl_torchvision_p16": (
        "qwen2_vl",
        adapters.QwenVLProcessor(min_pixels=4 * 32**2, max_pixels=12 * 32**2, patch_size=16),
        1,
    ),
    "pixels_pix2struct_torchvision_norm": (*TEN["pixels_pix2struct_pil_norm"], 0),
}


def own_pixels(name: str, mine: dict[str, Any]) -> Any:
    """The pixels of one image, as the files have them: without ids, and of a Qwen model one of two equal frames."""
    values = mine[CASES[name].pixels]
    if name == "pix2struct":
        return values[:, 2:]
    if name == "qwen2_vl":
        frames = values.reshape(len(values), 3, 2, -1)
        assert torch.equal(frames[:, :, 0], frames[:, :, 1])
        return frames[:, :, 0]
    return values


def ten_pictures(file: str, name: str, processor: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Of each picture: itself, its pixels, and the peer's, of the tokens that the file has. All else is compared here."""
    images, peer = load("images"), pixels(file)
    assert peer.keys() == images.keys()
    for picture, mine, theirs in zip(images.values(), by_image(processor(list(images.values()))), peer.values(), strict=True):
        mask = np.ones(len(mine[CASES[name].pixels]), dtype=bool)
        for field, wanted in theirs.items():
            if field == "rowcol":
                assert np.array_equal(mine["flattened_patches"][:, :2], wanted)
            elif field == "image_grid_thw":
                assert np.array_equal(mine[field], wanted[0])
            elif field not in ("pixels", "rows"):
                assert np.array_equal(mine[field], wanted)
                mask = wanted > 0 if "mask" in field or "valid" in field else mask
        values = own_pixels(name, mine)
        assert len(theirs["rows"]) == mask.sum() or file in TORCHVISION or name == "pix2struct"
        assert not values[~mask].any()
        yield picture, values[theirs["rows"].astype(np.int64)].numpy(), theirs["pixels"]


@PILLOW_13
@pytest.mark.parametrize("file", TEN)
def test_ten_pictures(file: str) -> None:
    for _, values, expected in ten_pictures(file, *TEN[file]):
        np.testing.assert_allclose(values, expected, rtol=0, atol=ATOL)


@PILLOW_13
@pytest.mark.parametrize("file", TORCHVISION)
def test_torchvision_backends_differ_by_a_grey_level(file: str) -> None:
    name, processor, levels = TORCHVISION[file]
    for picture, values, expected in ten_pictures(file, name, processor):
        level = 0.0
        if name == "pix2struct":  # theirs divides by the sample deviation
            expected = expected * (picture.size / (picture.size - 1)) ** 0.5
        else:
            level = 1 / 255 / min(processor.image_std)
        np.testing.assert_allclose(values, expected, rtol=0, atol=levels * level + ATOL)
