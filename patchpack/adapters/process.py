"""What the processors share: images in, each painted straight to its place; and settings read off another processor."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from patchpack.adapters.inputs import ModelInputs
from patchpack.errors import ConfigError, SampleError, SizeError, SourceError
from patchpack.paint.picture import part_of_picture
from patchpack.paint.resample import FILTERS, write_pixels
from patchpack.plan.recipe import Recipe
from patchpack.stream.folders import FileReader
from patchpack.stream.header import picture_size
from patchpack.stream.pictures import channels_last
from patchpack.types import Grid, Size

Kernel = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
Triple = tuple[float, float, float]
Returned = Literal["pt", "np"]


class Prepared(NamedTuple):
    """Images that are known to fit, before a pixel is made.

    Attributes:
        pictures: what a `Sample` may hold.
        names: of the images in errors.
        sizes: oriented, of the pictures.
        grids: int64 ``[N, 2]``.
    """

    pictures: list[Any]
    names: list[str]
    sizes: list[Size]
    grids: npt.NDArray[np.int64]

    @property
    def num_patches(self) -> list[int]:
        """``rows * cols`` of each."""
        counts: list[int] = self.grids.prod(axis=1).tolist()
        return counts

    def mask(self, length: int) -> npt.NDArray[np.bool_]:
        """bool ``[N, length]``, true where a patch is."""
        mask: npt.NDArray[np.bool_] = np.arange(length) < np.array(self.num_patches, dtype=np.int64)[:, None]
        return mask


class Processor(ABC):
    """A processor that is called as those of transformers are: images in, arguments of a model out. Subclasses are dataclasses.

    Attributes:
        recipe: the same for `load` and `pack_images`, whose batches the adapter takes.
    """

    recipe: Recipe

    def __call__(self, images: Any, *, return_tensors: Returned = "pt", **changes: Any) -> ModelInputs:
        """Arguments for one image or a list of them, in their order; the adapter of the same model says what they are.

        Args:
            images: PIL images, uint8 arrays or tensors ``[H, W, 3]`` or ``[3, H, W]``, file bytes, or paths.
            return_tensors: ``"pt"`` or ``"np"``.
            **changes: fields of the processor, for this call.

        Raises:
            SourceError, DecodeError: an image that cannot be read, by its number or path.
            SizeError: one whose shape the model does not take.
            ConfigError: what is no field.
        """
        processor = _changed(self, changes) if changes else self
        arrays = processor._arrays(prepare(images, processor.recipe))
        if return_tensors not in ("pt", "np"):
            raise ConfigError(f"return_tensors is 'pt' (torch) or 'np' (numpy), got {return_tensors!r}")
        return ModelInputs({n: torch.from_numpy(a) if return_tensors == "pt" else a for n, a in arrays.items()})

    def fetch_images(self, images: Any) -> Any:
        """What transformers' processors of images and text ask beside: the images as they are, no URL is fetched."""
        return images

    @abstractmethod
    def _arrays(self, prepared: Prepared) -> dict[str, npt.NDArray[Any]]:
        """The model's arguments by name."""


def prepare(images: Any, recipe: Recipe) -> Prepared:
    """Headers, sizes and grids of one image or a list of them; lists in it are walked.

    Args:
        images: PIL images, uint8 arrays or tensors ``[H, W, 3]`` or ``[3, H, W]``, file bytes, or paths.
        recipe: whose resize policy draws nothing.

    Raises:
        SourceError: a path that cannot be read.
        DecodeError: no image.
        SizeError: a size that the resize policy refuses.
    """
    pictures, names, sizes = [], [], []
    read = FileReader("", None, recipe.max_bytes)
    limits = {"max_pixels": recipe.max_pixels, "max_bytes": recipe.max_bytes, "formats": recipe.formats}
    for i, image in enumerate(_flat(images)):
        path = isinstance(image, (str, os.PathLike))
        names.append(os.fspath(image) if path else f"image {i}")
        pictures.append(_naming(names[i], read, os.fspath(image))[0] if path else channels_last(image))
        sizes.append(_naming(names[i], picture_size, pictures[i], **limits))
    table = np.array(sizes, dtype=np.int64).reshape(-1, 2)
    grids = np.asarray(recipe.resize(table, recipe.patch_sizes[0], None), dtype=np.int64)
    refused = np.flatnonzero(grids.min(axis=1, initial=1) == 0)
    if len(refused):
        i = int(refused[0])
        raise SizeError(
            f"{names[i]}: {recipe.resize!r} refuses a size of {sizes[i].height} x {sizes[i].width} (height x width)"
        )
    return Prepared(pictures, names, sizes, grids)


def paint(prepared: Prepared, i: int, recipe: Recipe, out: npt.NDArray[Any]) -> None:
    """All patches of one image into ``out [rows * cols, patch_size**2 * 3]``, of the recipe's dtype. Raises `DecodeError`."""
    grid, p, size = Grid(*prepared.grids[i].tolist()), recipe.patch_sizes[0], prepared.sizes[i]
    target = (grid.rows * p, grid.cols * p)
    picture, box = _naming(
        prepared.names[i], part_of_picture, prepared.pictures[i], size, (0, 0, size.height, size.width), target, recipe
    )
    write_pixels(out, picture, box, target, False, grid, np.arange(grid.num_patches), p, recipe)


def _changed(processor: Any, changes: dict[str, Any]) -> Any:
    """A processor with some fields changed, as a call may ask for. Raises `ConfigError` for what is no field of it."""
    known = [field.name for field in fields(processor)]
    unknown = sorted(changes.keys() - set(known))
    if unknown:
        raise ConfigError(
            f"{type(processor).__name__} does not know {unknown[0]}={changes[unknown[0]]!r}; a call takes images, "
            f"return_tensors and {', '.join(known)}"
        )
    return replace(processor, **changes)


# ---------------------------------------------------------------------------------------------- settings of other processors


class Settings:
    """Fields of somebody's processor, an object or the content of its ``preprocessor_config.json``.

    What it does beside resizing to patches and normalising is refused, not passed over.
    """

    _DONE = ("do_resize", "do_rescale", "do_normalize")
    _NOT_DONE = ("do_center_crop", "do_pad", "is_vqa")

    def __init__(self, processor: Any) -> None:
        self._get: Callable[[str], Any] = (
            processor.get if isinstance(processor, Mapping) else lambda name: getattr(processor, name, None)
        )
        for names, wanted in ((self._DONE, True), (self._NOT_DONE, False)):
            for name in names:
                if self._get(name) is not None and bool(self._get(name)) is not wanted:
                    raise ConfigError(f"{name}={self._get(name)!r} is not done here: keep the processor that does it")
        scale = self._get("rescale_factor")
        if scale is not None and abs(scale - 1 / 255) > 1e-9:
            raise ConfigError(f"rescale_factor={scale!r} is not done here: it is 1 / 255")

    def take(self, **fields: str) -> dict[str, Any]:
        """Our name → theirs, of those that they have."""
        found = {ours: self._get(theirs) for ours, theirs in fields.items()}
        return {name: value for name, value in found.items() if value is not None}

    def entry(self, field: str, name: str) -> Any:
        """One entry of a field that is a dict or an object; None without."""
        value = self._get(field)
        return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)

    def colours(self) -> dict[str, Any]:
        """Mean, deviation and kernel."""
        taken: dict[str, Any] = {
            name: tuple(map(float, value)) for name, value in self.take(image_mean="image_mean", image_std="image_std").items()
        }
        if (resample := self._get("resample")) is not None:
            kernels = {int(number): name for name, number in FILTERS.items()}
            if int(getattr(resample, "value", resample)) not in kernels:
                raise ConfigError(f"resample={resample!r} is not one of {', '.join(FILTERS)}")
            taken["resample"] = kernels[int(getattr(resample, "value", resample))]
        return taken


# --------------------------------------------------------------------------------------------------------------------- images


def _flat(images: Any) -> list[Any]:
    if not isinstance(images, (list, tuple)):
        return [images]
    return [one for image in images for one in _flat(image)]


def _naming(name: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    try:
        return function(*arguments, **options)
    except (SampleError, SourceError) as error:
        raise type(error)(f"{name}: {error}") from error
