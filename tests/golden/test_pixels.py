"""Pixels as the published processors make them, from their own output, through the public path."""

from __future__ import annotations

from typing import Any

import numpy as np
import PIL
import pytest

import patchpack as pp
from helpers.goldens import load, pixels
from patchpack.batch.unpack import PackedImage

PILLOW_13 = pytest.mark.skipif(
    int(PIL.__version__.split(".")[0]) < 13,
    reason="these pixels are Pillow 13's, which orders its two passes by the sizes; older ones round otherwise",
)

ATOL = 1e-4  # what peers with the same backend differ by; ids, masks and grids are exact


@pytest.fixture(scope="module")
def images() -> dict[str, Any]:
    return load("images")


def painted(images: dict[str, Any], recipe: pp.Recipe) -> dict[str, PackedImage]:
    """Every image, packed with the others and taken out again."""
    samples = [pp.Sample(name, image) for name, image in images.items()]
    out = {image.key: image for batch in pp.load(samples, recipe) for image in pp.unpack(batch)}
    assert out.keys() == images.keys()
    return out


def assert_close(patches: Any, expected: Any) -> None:
    np.testing.assert_allclose(patches.numpy(), expected, rtol=0, atol=ATOL)


def test_pix2struct(images: dict[str, Any]) -> None:
    peers = pixels("pixels_pix2struct_pil_norm")
    ours = painted(images, pp.recipes.pix2struct(max_patches=30))
    for name, peer in peers.items():
        image, valid = ours[name], peer["attention_mask"] == 1
        assert len(image.patches) == valid.sum()
        assert np.array_equal(image.position_ids + 1, peer["rowcol"][valid])
        assert not peer["rowcol"][~valid].any()
        assert_close(image.patches[peer["rows"].tolist()], peer["pixels"])


@PILLOW_13
def test_siglip2_naflex(images: dict[str, Any]) -> None:
    peers = pixels("pixels_siglip2_pil_p16_n36")
    ours = painted(images, pp.recipes.siglip2_naflex(max_patches=36, dtype="float32"))
    for name, peer in peers.items():
        image, valid = ours[name], peer["pixel_attention_mask"] == 1
        assert len(image.patches) == valid.sum()
        assert tuple(image.grid) == tuple(peer["spatial_shapes"])
        assert_close(image.patches, peer["pixels"])


@PILLOW_13
def test_qwen2_vl(images: dict[str, Any]) -> None:
    peers = pixels("pixels_qwen2vl_pil_p14")
    recipe = pp.recipes.qwen2_vl(min_pixels=4 * 28**2, max_pixels=12 * 28**2, dtype="float32")
    ours = painted(images, recipe)
    for name, peer in peers.items():
        image = ours[name]
        assert [1, *image.grid] == peer["image_grid_thw"][0].tolist()
        rows, cols = image.position_ids.numpy().T
        # row of blocks, column of blocks, row in the block, column in the block
        order = np.lexsort((cols % 2, rows % 2, cols // 2, rows // 2))
        channel_first = image.patches.reshape(-1, 14 * 14, 3).permute(0, 2, 1)
        assert_close(channel_first[order], peer["pixels"])


@PILLOW_13
def test_timm_naflex(images: dict[str, Any]) -> None:
    peers = pixels("pixels_timm_naflex_bicubic_p16_n36")
    recipe = pp.Recipe(
        resize=pp.resize.NaFlex(36), seq_len=100, resample="bicubic", normalize=pp.normalize.IMAGENET, dtype="float32"
    )
    ours = painted(images, recipe)
    for name, peer in peers.items():
        image, valid = ours[name], peer["patch_valid"]
        assert len(image.patches) == valid.sum()
        assert np.array_equal(image.position_ids, peer["patch_coord"][valid])
        assert_close(image.patches, peer["pixels"])


@PILLOW_13
def test_big_visions_naflex(images: dict[str, Any]) -> None:
    """Grids and ids are equal. Theirs are resampled in float32, ours to grey levels as Pillow does: within one level."""
    peers = pixels("naflex_pixels_bigvision")
    recipe = pp.recipes.siglip2_naflex(max_patches=40, patch_size=8, seq_len=100)
    for name, image in painted({name: images[name] for name in peers}, recipe).items():
        assert np.array_equal(image.position_ids, peers[name]["ids"])
        np.testing.assert_allclose(image.patches.numpy().astype(np.float64), peers[name]["pixels"], rtol=0, atol=1)


def test_normalising_later_is_the_same(images: dict[str, Any]) -> None:
    """uint8 patches normalised on the device are the float patches of the painter."""
    recipe = pp.recipes.siglip2_naflex(max_patches=36)
    samples = [pp.Sample(name, image) for name, image in images.items()]
    late = [pp.standardize(batch.to("cpu")) for batch in pp.load(samples, recipe)]
    early = list(pp.load(samples, recipe.replace(dtype="float32")))
    for ours, theirs in zip(late, early, strict=True):
        np.testing.assert_allclose(ours.patches, theirs.patches, rtol=0, atol=1e-6)
        assert np.array_equal(ours.norm, theirs.norm)
