"""The peers: other packages' ways to prepare images, run as their users run them.

File bytes go through Pillow to a processor, in batches. Sizes are set to 256 patches of 16 x 16 pixels. No peer is a
dependency. `find` says which peers are installed, and why others cannot run. Weights are not needed, because processors are
made with the defaults of their classes.
"""

from __future__ import annotations

import importlib
import io
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image

import patchpack as pp
from bench.images.rounds import Contender, Made
from bench.pictures import Pictures

PATCH, BUDGET, SEQ_LEN = 16, 256, 1024
_MEAN = _STD = (0.5, 0.5, 0.5)

Process = Callable[[list[Any]], Any]
"""A list of images to a batch."""


def find(pictures: Pictures, batch_size: int) -> tuple[list[Contender], list[Contender], dict[str, str]]:
    """Return peers that start from file bytes, peers that start from decoded images, and for each missing peer the reason."""
    make_torchvision_importable()
    from_bytes: list[Contender] = []
    decoded: list[Contender] = []
    missing: dict[str, str] = {}
    for name, make in MAKERS.items():
        try:
            process, count = make(pictures)
        except Exception as error:  # not installed, or another version of it
            missing[name] = f"{type(error).__name__}: {error}".split("\n")[0][:300]
            continue
        from_bytes.append(Contender(name, _over(lambda: map(_opened, pictures.files), process, batch_size), count))
        if name in DECODED:
            decoded.append(Contender(f"{name}, from PIL", _over(lambda: pictures.pil, process, batch_size), count))
        if name == "Siglip2 fast":
            tensors = [torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy()) for image in pictures.pil]
            decoded.append(Contender(f"{name}, from uint8 tensors", _over(_giving(tensors), process, batch_size), count))
    return from_bytes, decoded, missing


def make_torchvision_importable() -> None:
    """Make a torchvision that was built for another device importable beside a CPU torch.

    Without this call the import fails, because two of torchvision's operators have no schema. With empty schemas its Python
    half works. The transforms use only this half.
    """
    try:
        importlib.import_module("torchvision")
    except ImportError:
        return
    except RuntimeError:
        global _schemas  # they live as long as their library
        _schemas = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            _schemas.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


_schemas: Any = None


def _opened(sample: pp.Sample) -> Image.Image:
    return Image.open(io.BytesIO(sample.image)).convert("RGB")


def _giving(images: Sequence[Any]) -> Callable[[], Iterable[Any]]:
    return lambda: images


def _over(images: Callable[[], Iterable[Any]], process: Process, batch_size: int) -> Callable[[], Iterator[Any]]:
    def batches() -> Iterator[Any]:
        todo = iter(images())
        while batch := list(islice(todo, batch_size)):
            yield process(batch)

    return batches


# ------------------------------------------------------------------------------------------------------------ transformers


def _processor(name: str, fast: bool, **options: Any) -> Process:
    """Return a processor of transformers: the fast one on torchvision, or the one on Pillow and numpy."""
    transformers = importlib.import_module("transformers")
    if int(transformers.__version__.split(".")[0]) < 5:  # there the plain name is the slow form
        raise ImportError(f"transformers 5 or later is expected, this is {transformers.__version__}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        processor = getattr(transformers, name if fast else f"{name}Pil")(**options)
    return lambda images: processor(images=images, return_tensors="pt")


def _siglip2(fast: bool) -> Any:
    def make(pictures: Pictures) -> tuple[Process, Any]:
        return _processor("Siglip2ImageProcessor", fast, patch_size=PATCH, max_num_patches=BUDGET), _count_siglip2

    return make


def _count_siglip2(batch: Any) -> Made:
    mask = batch["pixel_attention_mask"]
    return Made(mask.shape[0], int(mask.sum()), mask.numel())


def _qwen2(fast: bool) -> Any:
    def make(pictures: Pictures) -> tuple[Process, Any]:
        limits = {"min_pixels": 4 * (2 * PATCH) ** 2, "max_pixels": BUDGET * PATCH**2}
        return _processor("Qwen2VLImageProcessor", fast, patch_size=PATCH, **limits), _count_qwen2

    return make


def _count_qwen2(batch: Any) -> Made:
    grids = batch["image_grid_thw"]
    tokens = int(grids.prod(-1).sum())
    return Made(len(grids), tokens, batch["pixel_values"].shape[0])


def _pix2struct(fast: bool) -> Any:
    def make(pictures: Pictures) -> tuple[Process, Any]:
        return _processor("Pix2StructImageProcessor", fast, max_patches=BUDGET), _count_pix2struct

    return make


def _count_pix2struct(batch: Any) -> Made:
    mask = batch["attention_mask"]
    return Made(mask.shape[0], int(mask.sum()), mask.numel())


# -------------------------------------------------------------------------------------------------------------------- timm


def _timm(pictures: Pictures) -> tuple[Process, Any]:
    """Return the transform and the collation that `timm.data.create_loader` sets up for NaFlex evaluation."""
    data = importlib.import_module("timm.data")
    collate = importlib.import_module("timm.data.naflex_dataset").NaFlexCollator(BUDGET)
    transform = data.create_transform(
        224, naflex=True, patchify=True, patch_size=PATCH, max_seq_len=BUDGET, interpolation="bilinear", mean=_MEAN, std=_STD
    )
    return lambda images: collate([(transform(image), 0) for image in images]), _count_timm


def _count_timm(batch: Any) -> Made:
    valid = batch[0]["patch_valid"]
    return Made(valid.shape[0], int(valid.sum()), valid.numel())


# ------------------------------------------------------------------------------------------- vit-pytorch, torchvision, numpy


def _vit_pytorch(pictures: Pictures) -> tuple[Process, Any]:
    """Return the way of vit-pytorch's NaViT: torchvision resizes, vit-pytorch groups images into rows.

    Images are then cut into patches, half of the patches are dropped, and rows are padded as vit-pytorch's NaViT does it.
    """
    group = importlib.import_module("vit_pytorch.na_vit").group_images_by_max_seq_len
    functional = importlib.import_module("torchvision.transforms.functional")
    targets = _targets(pictures)
    pad = torch.nn.utils.rnn.pad_sequence

    def process(images: list[Any]) -> Any:
        tensors = []
        for image in images:
            resized = functional.resize(image, targets[image.size], antialias=True)
            tensors.append(functional.normalize(functional.to_tensor(resized), _MEAN, _STD))
        rows, segments = [], []
        for images_of_row in group(tensors, PATCH, calc_token_dropout=0.5, max_seq_len=SEQ_LEN):
            patches = [_half(_tensor_patches(tensor)) for tensor in images_of_row]
            rows.append(torch.cat(patches))
            segments.append(torch.cat([torch.full((len(p),), i + 1) for i, p in enumerate(patches)]))
        return pad(rows, batch_first=True), pad(segments, batch_first=True)

    return process, _count_segments


def _tensor_patches(image: torch.Tensor) -> torch.Tensor:
    channels, height, width = image.shape
    blocks = image.reshape(channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return blocks.permute(1, 3, 0, 2, 4).reshape(-1, channels * PATCH * PATCH)


def _half(patches: torch.Tensor) -> torch.Tensor:
    kept = max(1, int(0.5 * len(patches)))
    return patches[torch.randn(len(patches)).topk(kept).indices]


def _count_segments(batch: Any) -> Made:
    segments = batch[1]
    return Made(int(segments.amax(1).sum()), int((segments > 0).sum()), segments.numel())


def _torchvision(pictures: Pictures) -> tuple[Process, Any]:
    """Return the classic square transform: shorter side to 256, the middle 224 x 224, 196 tokens.

    The rest of the picture is lost.
    """
    transforms = importlib.import_module("torchvision.transforms")
    square = transforms.Compose(
        [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), transforms.Normalize(_MEAN, _STD)]
    )
    tokens = (224 // PATCH) ** 2
    return lambda images: torch.stack([square(i) for i in images]), lambda b: Made(len(b), tokens * len(b), tokens * len(b))


def _pillow_numpy(pictures: Pictures) -> tuple[Process, Any]:
    """Return what one writes by hand: Pillow's resize, numpy's transpose, one padded float32 array per batch.

    Sizes are known before.
    """
    targets = _targets(pictures)

    def process(images: list[Any]) -> Any:
        out = np.zeros((len(images), BUDGET, PATCH * PATCH * 3), dtype=np.float32)
        mask = np.zeros((len(images), BUDGET), dtype=bool)
        for i, image in enumerate(images):
            height, width = targets[image.size]
            pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)
            pixels = (pixels / 255 - 0.5) / 0.5
            blocks = pixels.reshape(height // PATCH, PATCH, width // PATCH, PATCH, 3).transpose(0, 2, 1, 3, 4)
            patches = blocks.reshape(-1, out.shape[2])
            out[i, : len(patches)], mask[i, : len(patches)] = patches, True
        return torch.from_numpy(out), torch.from_numpy(mask)

    return process, lambda batch: Made(len(batch[1]), int(batch[1].sum()), batch[1].numel())


def _targets(pictures: Pictures) -> dict[tuple[int, int], tuple[int, int]]:
    """Return the (height, width) to which a picture is resized, by its (width, height).

    The peers then need not compute the size, which is to their advantage.
    """
    sizes = sorted({image.size for image in pictures.pil})
    grids = pp.resize.NaFlex(BUDGET)([(height, width) for width, height in sizes], PATCH)
    return {size: (PATCH * rows, PATCH * cols) for size, (rows, cols) in zip(sizes, grids.tolist(), strict=True)}


MAKERS: dict[str, Callable[[Pictures], tuple[Process, Any]]] = {
    "Siglip2 fast": _siglip2(True),
    "Siglip2 PIL": _siglip2(False),
    "Qwen2-VL fast": _qwen2(True),
    "Qwen2-VL PIL": _qwen2(False),
    "Pix2Struct fast": _pix2struct(True),
    "Pix2Struct PIL": _pix2struct(False),
    "timm NaFlex": _timm,
    "vit-pytorch style, half dropped": _vit_pytorch,
    "torchvision 224": _torchvision,
    "Pillow + numpy": _pillow_numpy,
}
DECODED = ("Siglip2 fast", "timm NaFlex", "Pillow + numpy")  # these peers also run on decoded images
