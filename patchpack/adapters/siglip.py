"""The adapter and the processor for SigLIP 2 (NaFlex) in transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch

from patchpack.adapters.inputs import ModelInputs
from patchpack.adapters.pad import padded, require_whole
from patchpack.adapters.prepare import Prepared, paint
from patchpack.adapters.process import STEPS, Kernel, Processor, Triple, colours_of, like
from patchpack.adapters.settings import Family, Settings, not_done
from patchpack.batch._types import ArrayT
from patchpack.batch.packed import PackedBatch
from patchpack.plan import recipes
from patchpack.plan.policies.normalize import MeanStd
from patchpack.plan.recipe import Recipe


def siglip2(batch: PackedBatch[ArrayT], *, max_num_patches: int | None = None, patch_size: int | None = None) -> ModelInputs:
    """Return the arguments of ``Siglip2VisionModel``.

    The model resizes its position table to the grid of each image, and takes token k as patch k in raster order. So no patch
    may have been dropped. The batch's position ids are not used.

    Args:
        batch: a batch made with ``recipes.siglip2_naflex`` or with another recipe that drops no patches.
        max_num_patches: number of tokens per image in the result. None (default) takes the length of the longest image. The
            model's outputs do not depend on this number.
        patch_size: patch size of the model. It must equal the patch size of the batch. None (default) skips the comparison.

    Returns:
        A dict for N readable images, in (row, slot) order. ``pixel_values`` is float32
        ``[N, max_num_patches, patch_size**2 * 3]``. ``pixel_attention_mask`` is int32 ``[N, max_num_patches]``, 0 at padding.
        ``spatial_shapes`` is int64 ``[N, 2]``, (rows, cols) of each image.

    Raises:
        ConfigError: an image lost patches, or the patch sizes differ.
        ShapeError: an image has more than `max_num_patches` patches.
    """
    images = padded(batch, length=max_num_patches, patch_size=patch_size)
    require_whole(images.keys, images.num_tokens, images.grid_sizes, "SigLIP 2")
    return ModelInputs(
        pixel_values=images.patches,
        pixel_attention_mask=images.token_mask.to(torch.int32),
        spatial_shapes=images.grid_sizes.long(),
    )


@dataclass(frozen=True, kw_only=True)
class Siglip2Processor(Processor):
    """A processor that gives the results of transformers' ``Siglip2ImageProcessor`` on Pillow, but faster. See `siglip2`.

    Attributes:
        patch_size: pixels per side of a patch (default 16).
        max_num_patches: largest number of patches per image, and length of the arrays (default 256).
        image_mean: mean per channel on the 0–1 scale (default 0.5 each).
        image_std: standard deviation per channel on the 0–1 scale (default 0.5 each).
        resample: resampling kernel, a name that `Recipe` accepts (default ``"bilinear"``).
    """

    patch_size: int = 16
    max_num_patches: int = 256
    image_mean: Triple = (0.5, 0.5, 0.5)
    image_std: Triple = (0.5, 0.5, 0.5)
    resample: Kernel = "bilinear"

    model_input_names: ClassVar[list[str]] = ["pixel_values", "pixel_attention_mask", "spatial_shapes"]
    _FAMILY: ClassVar[Family] = Family(
        "Siglip2ImageProcessor",
        r"Siglip2ImageProcessor\w*",
        ("max_num_patches", "image_mean", "image_std", "resample"),
    )
    _UNDONE: ClassVar[Mapping[str, tuple[object, ...]]] = {"size": ()}

    @classmethod
    def like(cls, processor: object, **changes: object) -> Siglip2Processor:
        """Return a processor that has the settings of another processor, except for the fields in `changes`.

        Args:
            processor: an image processor of transformers, or a processor of text and images that contains an image processor.
                Also the folder of a saved processor, the ``processor_config.json`` or ``preprocessor_config.json`` in that
                folder, or the dict in such a file.
            **changes: values of single fields, used in place of the settings of `processor`.

        Raises:
            ConfigError: `processor` has no such settings, or has a step besides resizing and normalising.
        """
        return like(cls, processor, changes)

    @cached_property
    def recipe(self) -> Recipe:  # type: ignore[override]  # made at the first access
        """A recipe for `load` and `pack_images` that gives the same patches as this processor.

        Pass the batches of `load` or `pack_images` to the adapter `siglip2`.
        """
        return recipes.siglip2_naflex(
            max_patches=self.max_num_patches,
            patch_size=self.patch_size,
            normalize=MeanStd(self.image_mean, self.image_std),
            resample=self.resample,
            dtype="float32",
        )

    def _arrays(self, prepared: Prepared) -> dict[str, np.ndarray]:
        n, length = len(prepared.pictures), self.max_num_patches
        pixels = np.zeros((n, length, self.patch_size**2 * 3), dtype=np.float32)
        for i, count in enumerate(prepared.num_patches):
            paint(prepared, i, self.recipe, pixels[i, :count])
        mask = prepared.mask(length).astype(np.int32)
        return {"pixel_values": pixels, "pixel_attention_mask": mask, "spatial_shapes": prepared.grids}

    def _stated(self) -> dict[str, object]:
        return {**STEPS, **colours_of(self), "patch_size": self.patch_size, "max_num_patches": self.max_num_patches}

    def _fields(self, settings: Settings) -> dict[str, object]:
        if settings.get("size") is not None:  # SigLIP 1 resizes to a square and has this setting
            raise not_done("size", settings.get("size"), "the size is derived from max_num_patches")
        taken = settings.whole(patch_size="patch_size", max_num_patches="max_num_patches")
        return {**taken, **settings.colours()}
