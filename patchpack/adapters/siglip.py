"""SigLIP 2 (NaFlex) in transformers."""

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
    """Arguments of ``Siglip2VisionModel``.

    Position tables are resized to each image's grid, and token k of an image is patch k of it in raster order, so an image
    must have all its patches; the batch's position ids are not asked.

    Args:
        batch: made by ``recipes.siglip2_naflex``, or another that drops no patches.
        max_num_patches: tokens per image; None for those of the longest one. The model's outputs do not depend on it.
        patch_size: the model's, to be compared with the batch's.

    Returns:
        ``pixel_values`` float32 ``[N, max_num_patches, patch_size**2 * 3]``, ``pixel_attention_mask`` int32
        ``[N, max_num_patches]``, ``spatial_shapes`` int64 ``[N, 2]`` (rows, cols); N readable images in (row, slot) order.

    Raises:
        ConfigError: an image that lost patches, or another patch size.
        ShapeError: an image of more than max_num_patches.
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
    """What ``Siglip2ImageProcessor`` of transformers makes, on its Pillow backend, sooner; see `siglip2`.

    Attributes:
        patch_size, max_num_patches, image_mean, image_std: as there.
        resample: kernel, see `Recipe`.
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
        """With the settings of another processor; `changes` are fields that win over them.

        Args:
            processor: one of transformers, one of text and images that holds it, the folder that either was saved to, its
                ``processor_config.json`` or ``preprocessor_config.json``, or the dict in that.
            **changes: fields of this processor.

        Raises:
            ConfigError: what carries no such settings, or a step beside resizing and normalising.
        """
        return like(cls, processor, changes)

    @cached_property
    def recipe(self) -> Recipe:  # type: ignore[override]  # made when it is asked for
        """The same for `load` and `pack_images`, whose batches the adapter takes."""
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
        if settings.get("size") is not None:  # SigLIP 1, which resizes to a square, has one
            raise not_done("size", settings.get("size"), "the size follows from max_num_patches")
        taken = settings.whole(patch_size="patch_size", max_num_patches="max_num_patches")
        return {**taken, **settings.colours()}
