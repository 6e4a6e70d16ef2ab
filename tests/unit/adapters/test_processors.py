"""Processors: every kind of image and setting, one image at a time or many, and errors that name the image."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import patchpack as pp
from helpers.mixed_images import pictures
from patchpack.adapters import Pix2StructProcessor, QwenVLProcessor, Siglip2Processor, TimmNaFlexProcessor

PROCESSORS: list[Any] = [
    Siglip2Processor(max_num_patches=20),
    QwenVLProcessor(max_pixels=20 * 28**2),
    Pix2StructProcessor(max_patches=20),
    TimmNaFlexProcessor(max_seq_len=20),
]
every = pytest.mark.parametrize("processor", PROCESSORS, ids=lambda p: type(p).__name__)


def same(a: Any, b: Any) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@every
def test_every_kind_of_image(processor: Any, tmp_path: Path) -> None:
    image = pictures()["picture-01"]
    file = io.BytesIO()
    image.save(file, "png")
    path = tmp_path / "one.png"
    path.write_bytes(file.getvalue())
    array = np.asarray(image)
    first = array.transpose(2, 0, 1)
    wanted = processor(image)
    tensors = [torch.from_numpy(values.copy()) for values in (array, first)]
    for same_image in (array, first, *tensors, file.getvalue(), path, str(path)):
        assert same(processor([same_image]), wanted)


@every
def test_a_list_is_its_images(processor: Any) -> None:
    images = list(pictures().values())
    whole = processor(images)
    assert same(processor([images[:3], [images[3], images[4:]]]), whole)  # as a prompt with several images nests them
    alone = [processor(image) for image in images]
    for name, value in whole.items():
        assert np.array_equal(value, torch.cat([inputs[name] for inputs in alone]))


@pytest.mark.parametrize(
    "processor", [p for p in PROCESSORS if not isinstance(p, QwenVLProcessor)], ids=lambda p: type(p).__name__
)
def test_a_mask_has_the_patches_of_an_image_and_no_more(processor: Any) -> None:
    images = list(pictures().values())
    inputs = processor(images)
    mask = next(inputs[name] for name in ("pixel_attention_mask", "attention_mask", "patch_valid") if name in inputs)
    sizes = np.array([image.size[::-1] for image in images])
    counts = processor.recipe.resize(sizes, processor.patch_size, None).prod(axis=1)
    assert counts.min() < 20  # or nothing is padded
    assert mask.tolist() == [[1] * n + [0] * (20 - n) for n in counts.tolist()]


@every
def test_numpy_on_request(processor: Any) -> None:
    image = pictures()["picture-02"]
    arrays = processor(image, return_tensors="np")
    assert all(isinstance(value, np.ndarray) for value in arrays.values())
    assert same(arrays, processor(image))
    with pytest.raises(pp.ConfigError, match=r"return_tensors is 'pt'.*got 'tf'"):
        processor(image, return_tensors="tf")


def test_a_call_may_change_a_field() -> None:
    image = pictures()["picture-02"]
    assert same(Siglip2Processor()(image, max_num_patches=20), PROCESSORS[0](image))
    assert same(QwenVLProcessor()(images=[image], max_pixels=20 * 28**2), PROCESSORS[1](image))
    with pytest.raises(
        pp.ConfigError, match=r"Siglip2Processor does not know do_pad=True; a call takes images, return_tensors and"
    ):
        PROCESSORS[0](image, do_pad=True)


@every
def test_no_image_at_all(processor: Any) -> None:
    assert all(len(value) == 0 for value in processor([]).values())


@every
def test_errors_name_the_image(processor: Any, tmp_path: Path) -> None:
    image = pictures()["picture-03"]
    with pytest.raises(pp.DecodeError, match="image 1: expected a readable"):
        processor([image, b"no image"])
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)).save(file, "jpeg")
    with pytest.raises(pp.DecodeError, match="image 2: expected a complete JPEG"):
        processor([image, image, file.getvalue()[:3000]])
    with pytest.raises(pp.DecodeError, match=r"image 1: expected file bytes, a uint8 .* got ndarray float32"):
        processor([image, np.zeros((3, 8, 9), dtype=np.float32)])
    with pytest.raises(pp.SourceError, match=r"none\.jpg: FileNotFoundError"):
        processor([image, tmp_path / "none.jpg"])


def test_a_size_that_qwen_refuses_is_named() -> None:
    image = pictures()["picture-03"]
    with pytest.raises(pp.SizeError, match=r"image 1: SmartResize.* refuses a size of 1 x 201"):
        PROCESSORS[1]([image, np.zeros((1, 201, 3), dtype=np.uint8)])


# ------------------------------------------------------------------------------------------------------------------- settings


def test_like_an_object_and_like_its_file() -> None:
    """Of Siglip2 as its class has them, of Qwen3-VL as its file states them."""
    theirs = SimpleNamespace(
        patch_size=14, max_num_patches=99, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6],
        resample=Image.Resampling.BICUBIC, do_resize=True, do_rescale=True, do_normalize=True, rescale_factor=1 / 255,
        do_convert_rgb=None,
    )  # fmt: skip
    assert Siglip2Processor.like(theirs) == Siglip2Processor(
        patch_size=14, max_num_patches=99, image_mean=(0.1, 0.2, 0.3), image_std=(0.4, 0.5, 0.6), resample="bicubic"
    )
    file = {
        "size": {"longest_edge": 16777216, "shortest_edge": 65536}, "patch_size": 16, "temporal_patch_size": 2, "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "image_processor_type": "Qwen2VLImageProcessorFast",
    }  # fmt: skip
    qwen3 = QwenVLProcessor.like(file)
    assert (qwen3.min_pixels, qwen3.max_pixels, qwen3.patch_size) == (65536, 16777216, 16)
    assert qwen3.recipe.resize == pp.recipes.qwen3_vl().resize
    assert QwenVLProcessor.like({"min_pixels": 3136, "max_pixels": 12845056}).max_pixels == 12845056
    assert QwenVLProcessor.like({"min_pixels": 3136, "size": {"shortest_edge": 9, "longest_edge": 10**6}}) == QwenVLProcessor(
        min_pixels=3136, max_pixels=10**6
    )
    assert QwenVLProcessor.like({}).recipe == pp.recipes.qwen2_vl()


def test_like_pix2struct_and_timm() -> None:
    for size in ({"height": 8, "width": 8}, SimpleNamespace(height=8, width=8)):
        assert Pix2StructProcessor.like({"patch_size": size, "max_patches": 7}) == Pix2StructProcessor(
            patch_size=8, max_patches=7
        )
    config = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "interpolation": "bilinear", "crop_pct": 1.0}
    timm = TimmNaFlexProcessor.like(config, max_seq_len=100)
    assert timm.recipe.normalize == pp.IMAGENET
    assert (timm.interpolation, timm.max_seq_len) == ("bilinear", 100)


@pytest.mark.parametrize(
    ("make", "config", "named"),
    [
        (Siglip2Processor, {"do_normalize": False}, "do_normalize=False"),
        (Siglip2Processor, {"do_resize": False}, "do_resize=False"),
        (Siglip2Processor, {"rescale_factor": 1.0}, r"rescale_factor=1\.0"),
        (Siglip2Processor, {"resample": 9}, "resample=9"),
        (QwenVLProcessor, {"do_center_crop": True}, "do_center_crop=True"),
        (Pix2StructProcessor, {"is_vqa": True}, "is_vqa=True"),
        (Pix2StructProcessor, {"patch_size": {"height": 8, "width": 16}}, "square here, not 8 x 16"),
    ],
)
def test_what_is_not_done_here_is_refused(make: Any, config: dict[str, Any], named: str) -> None:
    with pytest.raises(pp.ConfigError, match=named):
        make.like(config)
