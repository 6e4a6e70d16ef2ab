"""Processors: every kind of image and setting, one image at a time or many, and errors that name the image or the setting.

What transformers makes of them is asked with a small stand-in for it here, and of itself in ``tests/e2e``.
"""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import sys
import typing
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import patchpack as pp
from helpers.mixed_images import pictures
from patchpack.adapters import Pix2StructProcessor, QwenVLProcessor, Siglip2Processor, TimmNaFlexProcessor, native

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
    with pytest.raises(pp.errors.ConfigError, match=r"return_tensors must be 'pt'.*got 'tf'"):
        processor(image, return_tensors="tf")


def test_a_call_may_change_a_field() -> None:
    image = pictures()["picture-02"]
    assert same(Siglip2Processor()(image, max_num_patches=20), PROCESSORS[0](image))
    assert same(QwenVLProcessor()(images=[image], max_pixels=20 * 28**2), PROCESSORS[1](image))
    with pytest.raises(
        pp.errors.ConfigError,
        match=r"Siglip2Processor has no option max_patches=9; a call takes images, return_tensors and patch_size",
    ):
        PROCESSORS[0](image, max_patches=9)


@every
def test_no_image_at_all(processor: Any) -> None:
    assert all(len(value) == 0 for value in processor([]).values())


@every
def test_errors_name_the_image(processor: Any, tmp_path: Path) -> None:
    image = pictures()["picture-03"]
    with pytest.raises(pp.errors.DecodeError, match="image 1: expected a readable"):
        processor([image, b"no image"])
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)).save(file, "jpeg")
    with pytest.raises(pp.errors.DecodeError, match="image 2: expected a complete JPEG"):
        processor([image, image, file.getvalue()[:3000]])
    with pytest.raises(pp.errors.DecodeError, match=r"image 1: expected file bytes, a uint8 .* got ndarray float32"):
        processor([image, np.zeros((3, 8, 9), dtype=np.float32)])
    with pytest.raises(pp.errors.SourceError, match=r"none\.jpg: FileNotFoundError"):
        processor([image, tmp_path / "none.jpg"])


def test_images_are_fetched_from_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)  # whose work it is to open a URL
    image, path = pictures()["picture-03"], tmp_path / "one.png"
    image.save(path)
    found = PROCESSORS[0].fetch_images([image, [str(path), path], ["https://example.org/a.png"], "x" * 5000])
    assert found[0] is image
    assert same(PROCESSORS[0](found[1]), PROCESSORS[0]([image, image]))
    assert found[2:] == [["https://example.org/a.png"], "x" * 5000]
    path.write_bytes(b"no image")
    with pytest.raises(pp.errors.DecodeError, match=r"one\.png: expected a readable image, got UnidentifiedImageError"):
        PROCESSORS[0].fetch_images(path)


def test_a_size_that_qwen_refuses_is_named() -> None:
    image = pictures()["picture-03"]
    with pytest.raises(pp.errors.SizeError, match=r"image 1: SmartResize.* refuses a size of 1 x 201"):
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
    assert QwenVLProcessor.like({"merge_size": 2}).recipe == pp.recipes.qwen2_vl()


def test_like_pix2struct_and_timm(tmp_path: Path) -> None:
    for size in ({"height": 8, "width": 8}, SimpleNamespace(height=8, width=8)):
        assert Pix2StructProcessor.like({"patch_size": size, "max_patches": 7}) == Pix2StructProcessor(
            patch_size=8, max_patches=7
        )
    config = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "interpolation": "bilinear", "crop_pct": 1.0}
    timm = TimmNaFlexProcessor.like(config, max_seq_len=100)
    assert timm.recipe.normalize == pp.normalize.IMAGENET
    assert (timm.interpolation, timm.max_seq_len) == ("bilinear", 100)
    for model in (SimpleNamespace(pretrained_cfg=config), {"architecture": "naflexvit", "pretrained_cfg": config}):
        assert TimmNaFlexProcessor.like(model, max_seq_len=100) == timm
    written(tmp_path, config={"architecture": "naflexvit", "pretrained_cfg": config})
    assert TimmNaFlexProcessor.like(tmp_path, max_seq_len=100) == timm


@pytest.mark.parametrize(
    ("make", "config", "named"),
    [
        (Siglip2Processor, {"do_normalize": False}, "do_normalize=False"),
        (Siglip2Processor, {"do_resize": False}, "do_resize=False"),
        (Siglip2Processor, {"rescale_factor": 1.0}, r"rescale_factor=1\.0"),
        (Siglip2Processor, {"resample": 9}, "resample=9"),
        (QwenVLProcessor, {"do_center_crop": True}, "do_center_crop=True"),
        (Pix2StructProcessor, {"is_vqa": True}, "is_vqa=True"),
        (Pix2StructProcessor, {"patch_size": {"height": 8, "width": 16}}, "equal height and width, got 8 x 16"),
    ],
)
def test_what_is_not_done_here_is_refused(make: Any, config: dict[str, Any], named: str) -> None:
    with pytest.raises(pp.errors.ConfigError, match=named):
        make.like(config)


def qwen_file() -> dict[str, Any]:
    """What Qwen2.5-VL's own processor states of itself, with limits that are no defaults."""
    return {
        "image_processor_type": "Qwen2VLImageProcessor", "size": {"shortest_edge": 3136, "longest_edge": 20 * 28**2},
        "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2, "image_mean": list(pp.normalize.CLIP.mean),
        "image_std": list(pp.normalize.CLIP.std), "resample": 3, "do_resize": True, "crop_size": None, "do_pad": None,
    }  # fmt: skip


CARRIERS: dict[str, Any] = {
    "its dict": lambda folder: qwen_file(),
    "its object": lambda folder: SimpleNamespace(**qwen_file()),
    "a processor of text and images": lambda folder: SimpleNamespace(image_processor=SimpleNamespace(**qwen_file())),
    "the dict of that": lambda folder: {"processor_class": "Qwen2_5_VLProcessor", "image_processor": qwen_file()},
    "a folder": lambda folder: written(folder, preprocessor_config=qwen_file()),
    "a folder as text": lambda folder: str(written(folder, preprocessor_config=qwen_file())),
    "a file": lambda folder: written(folder, preprocessor_config=qwen_file()) / "preprocessor_config.json",
    "a folder since transformers 5": lambda folder: written(folder, processor_config={"image_processor": qwen_file()}),
    "its file": lambda folder: written(folder, processor_config={"image_processor": qwen_file()}) / "processor_config.json",
    "both, nested first": lambda folder: written(
        folder, processor_config={"image_processor": qwen_file()}, preprocessor_config=qwen_file() | {"patch_size": 7}
    ),
    "both, one without": lambda folder: written(folder, processor_config={"x": 1}, preprocessor_config=qwen_file()),
    "a drop-in": lambda folder: PROCESSORS[1],
    "one that holds a drop-in": lambda folder: SimpleNamespace(image_processor=PROCESSORS[1]),
    "whole numbers as others write them": lambda folder: qwen_file() | {"patch_size": 14.0, "merge_size": np.int64(2)},
    "limits of another name": lambda folder: qwen_file() | {"size": {"min_pixels": 3136, "max_pixels": 20 * 28**2}},
    "limits as an object": lambda folder: qwen_file() | {
        "size": SimpleNamespace(shortest_edge=3136, longest_edge=20 * 28**2, height=None)
    },
}  # fmt: skip


def written(folder: Path, **files: Any) -> Path:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("carrier", CARRIERS)
def test_like_takes_all_that_carries_settings(carrier: str, tmp_path: Path) -> None:
    assert QwenVLProcessor.like(CARRIERS[carrier](tmp_path)) == PROCESSORS[1]
    assert QwenVLProcessor.like(CARRIERS[carrier](tmp_path), merge_size=1).merge_size == 1


@pytest.mark.parametrize(
    ("make", "given", "named"),
    [
        (QwenVLProcessor, 5, "takes the settings of Qwen2VLImageProcessor: the object, .* got 5$"),
        (QwenVLProcessor, None, "got None$"),
        (QwenVLProcessor, {}, "a dict with some of size, min_pixels, .* got an empty dict$"),
        (QwenVLProcessor, {"learning_rate": 1, "steps": 2}, "got a dict of learning_rate, steps$"),
        (QwenVLProcessor, {"image_processor": {"a": 1}}, "whose image_processor is a dict of a$"),
        (QwenVLProcessor, [qwen_file()], "got a list$"),
        (QwenVLProcessor, SimpleNamespace(patch_size=14, temporal_patch_size=2), "got a SimpleNamespace$"),  # a model's
        (QwenVLProcessor, pp.recipes.qwen2_vl(), "got a Recipe$"),  # its max_pixels is a limit of decoding
        (QwenVLProcessor, PROCESSORS[0], "got a Siglip2Processor. Another class may make other arguments"),
        (Siglip2Processor, PROCESSORS[1], "takes the settings of Siglip2ImageProcessor: .* got a QwenVLProcessor"),
        (TimmNaFlexProcessor, PROCESSORS[1], "got a QwenVLProcessor"),
        (Siglip2Processor, qwen_file(), r"a dict of .*\(Qwen2VLImageProcessor\)"),
        (QwenVLProcessor, qwen_file() | {"image_processor_type": "Glm4vImageProcessor"}, r"\(Glm4vImageProcessor\)"),
        (QwenVLProcessor, {"size": {"height": 224, "width": 224}, "image_mean": [0.5] * 3}, "size=.*among shortest_edge"),
        (QwenVLProcessor, {"size": 224}, "size=224 is not supported"),
        (QwenVLProcessor, {"image_mean": [0.5, 0.5]}, r"image_mean=\[0.5, 0.5\] .*three numbers"),
        (QwenVLProcessor, {"image_std": "x"}, "image_std='x' .*three numbers"),
        (Siglip2Processor, {"size": {"height": 2, "width": 2}, "image_std": [1] * 3}, "size=.*is derived from max_num_patches"),
        (Pix2StructProcessor, {"patch_size": 16}, "got a dict of patch_size$"),
        (TimmNaFlexProcessor, {"input_size": (3, 2, 2)}, "got a dict of input_size$"),
        (TimmNaFlexProcessor, np.zeros(3), "mean=<built-in method"),
        (QwenVLProcessor, {"max_pixels": "100"}, "max_pixels='100' .*a whole number"),
        (QwenVLProcessor, {"size": {"longest_edge": 0.5}}, "max_pixels=0.5 .*a whole number"),
        (Pix2StructProcessor, {"max_patches": [1]}, r"max_patches=\[1\] .*a whole number"),
        (QwenVLProcessor, "Qwen/Qwen2.5-VL-3B-Instruct", r"no file or folder .*AutoImageProcessor\.from_pretrained\('Qwen/"),
    ],
)  # fmt: skip
def test_like_refuses_what_carries_none(make: Any, given: Any, named: str) -> None:
    with pytest.raises(pp.errors.ConfigError, match=named):
        make.like(given)


def test_like_refuses_folders_and_files_that_carry_none(tmp_path: Path) -> None:
    with pytest.raises(pp.errors.ConfigError, match=r"has no settings of an image processor.*the folder holds no files"):
        QwenVLProcessor.like(tmp_path)
    written(tmp_path, processor_config={"processor_class": "Qwen2VLProcessor"}, tokenizer_config={})
    with pytest.raises(pp.errors.ConfigError, match=r"holds processor_config\.json, tokenizer_config\.json"):
        QwenVLProcessor.like(tmp_path)
    with pytest.raises(pp.errors.ConfigError, match=r"tokenizer_config\.json with an empty dict"):
        QwenVLProcessor.like(tmp_path / "tokenizer_config.json")
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(pp.errors.ConfigError, match=r"preprocessor_config\.json is not JSON"):
        QwenVLProcessor.like(tmp_path)


@every
def test_saved_and_read_again(processor: Any, tmp_path: Path) -> None:
    (path,) = processor.save_pretrained(tmp_path / "new")
    assert os.listdir(tmp_path / "new") == ["config.json" if "Timm" in repr(processor) else "preprocessor_config.json"]
    assert type(processor).from_pretrained(tmp_path / "new") == type(processor).like(path) == processor
    assert type(processor).from_dict(json.loads(processor.to_json_string())) == processor
    assert pickle.loads(pickle.dumps(processor)) == copy.deepcopy(processor) == processor
    with pytest.raises(pp.errors.ConfigError, match="push_to_hub"):
        processor.save_pretrained(tmp_path, push_to_hub=True)


@every
def test_patches_are_counted_from_a_size(processor: Any) -> None:
    for image in pictures().values():
        inputs = processor(image)
        wanted = inputs[{"TimmNaFlexProcessor": "patch_valid", "QwenVLProcessor": "image_grid_thw"}.get(
            type(processor).__name__, processor.model_input_names[1])]  # fmt: skip
        wanted = wanted.prod() if "image_grid_thw" in inputs else wanted.sum()
        assert processor.get_number_of_image_patches(image.height, image.width) == int(wanted)
    with pytest.raises(pp.errors.SizeError, match=r"the image: .* refuses a size of 1 x 201"):
        PROCESSORS[1].get_number_of_image_patches(1, 201)
    assert PROCESSORS[1].get_number_of_image_patches(900, 900, {"max_pixels": 4 * 28**2, "return_tensors": "pt"}) == 16


# ------------------------------------------------------------------------------------------------------- as transformers calls

COMMON: dict[str, Any] = {
    "do_resize": True, "do_rescale": True, "do_normalize": True, "do_convert_rgb": True, "do_pad": None,
    "do_center_crop": False,
    "rescale_factor": 1 / 255, "crop_size": None, "pad_size": None, "data_format": "channels_first", "input_data_format": None,
    "default_to_square": False, "disable_grouping": True, "image_seq_length": None, "device": "cpu",
}  # fmt: skip
THEIRS = PROCESSORS[:3]


@pytest.mark.parametrize("processor", THEIRS, ids=lambda p: type(p).__name__)
def test_options_at_their_defaults_change_nothing(processor: Any) -> None:
    image = pictures()["picture-02"]
    wanted = processor(image)
    assert same(processor(images=[image], **COMMON), wanted)
    assert same(processor.preprocess(image), wanted)
    assert same(processor(image, device=torch.device("cpu")), wanted)
    assert processor(image, device="meta")[processor.model_input_names[0]].device.type == "meta"
    none = processor(image, return_tensors=None, device="cpu")
    assert all(isinstance(value, np.ndarray) for value in none.values())
    assert same(none, wanted)


def test_options_are_obeyed() -> None:
    image = pictures()["picture-02"]
    small = QwenVLProcessor(max_pixels=20 * 28**2)(image)
    for size in ({"shortest_edge": 3136, "longest_edge": 20 * 28**2}, {"min_pixels": 3136, "max_pixels": 20 * 28**2}):
        assert same(QwenVLProcessor()(image, size=size), small)
    nearest = Siglip2Processor(max_num_patches=20, resample="nearest")(image)
    for code in (0, Image.Resampling.NEAREST, "nearest"):
        assert same(PROCESSORS[0](image, resample=code), nearest)
    assert same(PROCESSORS[2](image, resample=2, patch_size={"height": 8, "width": 8}), PROCESSORS[2](image, patch_size=8))
    plain = Siglip2Processor(max_num_patches=20, image_mean=(0.0, 0.0, 0.0), image_std=(1.0, 1.0, 1.0))(image)
    assert same(PROCESSORS[0](image, image_mean=0, image_std=[1, 1, 1]), plain)
    assert same(PROCESSORS[1](image, max_pixels=None), small)


@pytest.mark.parametrize(
    ("processor", "options"),
    [
        (processor, {name: value})
        for processor in THEIRS
        for name, value in {
            "do_resize": False, "do_rescale": False, "do_normalize": False, "do_convert_rgb": False, "do_pad": True,
            "do_center_crop": True, "rescale_factor": 1, "crop_size": 8, "pad_size": {"height": 9, "width": 9},
            "data_format": "channels_last", "input_data_format": "rows", "image_seq_length": 3, "resample": 99,
            "header_text": "no", "is_vqa": True, "size": {"height": 1, "width": 2},
        }.items()
    ]
    + [(PROCESSORS[2], {"image_mean": [0.5] * 3}), (PROCESSORS[2], {"resample": 3}), (PROCESSORS[3], {"do_resize": True})],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else type(given).__name__,
)  # fmt: skip
def test_an_option_that_cannot_be_done_is_refused_by_name(processor: Any, options: dict[str, Any]) -> None:
    with pytest.raises(pp.errors.ConfigError, match=next(iter(options))):
        processor(pictures()["picture-02"], **options)


def test_settings_cannot_be_written_to_without_effect() -> None:
    processor = QwenVLProcessor()
    with pytest.raises(TypeError, match="item assignment"):
        processor.size["longest_edge"] = 28**2  # type: ignore[index]
    with pytest.raises(AttributeError, match="size"):
        processor.size = {"longest_edge": 28**2}  # type: ignore[misc]
    with pytest.raises(AttributeError, match="max_pixels"):
        processor.max_pixels = 28**2  # type: ignore[misc]


def test_arrays_on_a_device_are_refused() -> None:
    for tensors in ("np", None):
        with pytest.raises(pp.errors.ConfigError, match="device='meta' needs return_tensors='pt'"):
            PROCESSORS[0](pictures()["picture-02"], return_tensors=tensors, device="meta")
    with pytest.raises(pp.errors.ConfigError, match="device='nowhere' is not a device that torch knows"):
        PROCESSORS[0](pictures()["picture-02"], device="nowhere")


@every
def test_batches_and_grey_arrays(processor: Any) -> None:
    batch = np.random.default_rng(5).integers(0, 256, (2, 3, 30, 40), dtype=np.uint8)
    wanted = processor(list(batch))
    last = np.ascontiguousarray(batch.transpose(0, 2, 3, 1))
    for same_images in (batch, last, torch.from_numpy(batch), torch.from_numpy(last), [batch[:1], batch[1]], batch[None]):
        assert same(processor(same_images), wanted)
    grey = batch[0, 0]
    alike = processor(np.stack([grey] * 3, axis=2))
    for image in (grey, grey[None], grey[:, :, None], grey[None, :, :, None], torch.from_numpy(grey), Image.fromarray(grey)):
        assert same(processor(image), alike)


def test_an_order_of_axes_that_shapes_leave_open_can_be_told() -> None:
    thin = np.random.default_rng(5).integers(0, 256, (3, 30, 3), dtype=np.uint8)
    last, first = PROCESSORS[0](thin), PROCESSORS[0](thin.transpose(1, 2, 0))
    assert same(PROCESSORS[0](thin, input_data_format="channels_last"), last)
    assert same(PROCESSORS[0](thin, input_data_format="channels_first"), first)
    assert same(PROCESSORS[0](thin), last)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two modules of transformers with just what is used of them, imported after the processors were made."""
    base: Any = type("BaseImageProcessor", (), {"_auto_class": None, "to_dict": lambda self: 1 / 0, "known": lambda self: self})
    utils, kwargs = ModuleType("transformers.image_processing_utils"), ModuleType("transformers.processing_utils")
    utils.BaseImageProcessor = base  # type: ignore[attr-defined]
    kwargs.ImagesKwargs = typing.TypedDict("ImagesKwargs", {"do_pad": bool}, total=False)  # type: ignore[attr-defined]
    monkeypatch.setattr(native, "_made", {})
    for module in (ModuleType("transformers"), utils, kwargs):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return base


def test_a_processor_is_one_of_transformers_once_that_is_imported(stand_in: Any) -> None:
    processor = QwenVLProcessor(max_pixels=20 * 28**2)
    assert isinstance(processor, stand_in)
    assert isinstance(processor, QwenVLProcessor)
    assert set(processor.valid_kwargs.__annotations__) >= {"do_pad", "max_pixels", "merge_size"}  # type: ignore[attr-defined]
    assert isinstance(processor, stand_in)  # of its own class by now
    assert processor._auto_class is None  # type: ignore[attr-defined]
    assert processor.known() is processor  # type: ignore[attr-defined]
    assert processor == QwenVLProcessor(max_pixels=20 * 28**2)
    assert hash(processor) == hash(PROCESSORS[1])
    assert processor.to_dict()["image_processor_type"] == "Qwen2VLImageProcessor"
    assert QwenVLProcessor.like(processor, merge_size=1).merge_size == 1
    assert pickle.loads(pickle.dumps(processor)) == copy.deepcopy(processor) == processor
    with pytest.raises(AttributeError, match="no attribute 'max_patches'"):
        processor.max_patches  # type: ignore[attr-defined]  # noqa: B018
    assert not isinstance(TimmNaFlexProcessor(), stand_in)


def test_without_transformers_or_with_a_broken_one_a_processor_is_itself(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(sys.modules["transformers.processing_utils"], "ImagesKwargs")
    before = QwenVLProcessor()
    assert before.__class__ is QwenVLProcessor
    monkeypatch.setitem(sys.modules, "transformers", None)
    for processor in (QwenVLProcessor(), before):
        assert not isinstance(processor, stand_in)
        with pytest.raises(AttributeError, match="valid_kwargs"):
            processor.valid_kwargs  # noqa: B018


HALVES = [127.5] * 3


@pytest.mark.parametrize("kind", [Siglip2Processor, QwenVLProcessor], ids=lambda kind: kind.__name__)
def test_means_to_255_are_refused(kind: Any) -> None:
    """transformers would rescale by 1 / 255 and then subtract 127.5: every pixel near -1, in silence."""
    said = "MeanStd takes numbers on the 0-1 scale, .* divide by 255"
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    with pytest.raises(pp.errors.ConfigError, match=said):
        kind()(image, image_mean=HALVES, image_std=HALVES)
    with pytest.raises(pp.errors.ConfigError, match=said):
        kind.like({**kind().to_dict(), "image_mean": HALVES})
    with pytest.raises(pp.errors.ConfigError, match=said):
        kind.like(kind().to_dict(), image_std=HALVES)
    with pytest.raises(pp.errors.ConfigError, match="rescale_factor=1 is not supported"):
        kind()(image, image_mean=HALVES, image_std=HALVES, rescale_factor=1)
    with pytest.raises(pp.errors.ConfigError, match="mean must be three numbers"):
        kind(image_mean=0.5)(image)


def test_a_number_that_is_text_is_refused_by_name() -> None:
    with pytest.raises(pp.errors.ConfigError, match="max_pixels must be a number, got '3'"):
        QwenVLProcessor.like(QwenVLProcessor().to_dict(), max_pixels="3")
