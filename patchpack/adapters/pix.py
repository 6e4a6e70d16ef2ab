"""The adapter and the processor for Pix2Struct in transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch

from patchpack.adapters.inputs import ModelInputs
from patchpack.adapters.pad import padded, rows_and_cols
from patchpack.adapters.prepare import Prepared, paint
from patchpack.adapters.process import Processor, like
from patchpack.adapters.settings import Family, Settings, is_number
from patchpack.batch._types import ArrayT
from patchpack.batch.packed import PackedBatch
from patchpack.errors import ConfigError
from patchpack.plan import recipes
from patchpack.plan.recipe import Recipe


def pix2struct(batch: PackedBatch[ArrayT], *, max_patches: int | None = None, patch_size: int | None = None) -> ModelInputs:
    """Return the arguments of ``Pix2StructVisionModel`` and of ``Pix2StructForConditionalGeneration``.

    Each patch carries its row and column, so patches may have been dropped.

    Args:
        batch: a batch made with ``recipes.pix2struct``. The model was trained on images that are standardised one by one, as in
            this recipe.
        max_patches: number of tokens per image in the result. None (default) takes the length of the longest image.
        patch_size: patch size of the model. It must equal the patch size of the batch. None (default) skips the comparison.

    Returns:
        A dict for N readable images, in (row, slot) order. ``flattened_patches`` is float32
        ``[N, max_patches, 2 + patch_size**2 * 3]``. Each flattened patch begins with its row and column, which count from 1 and
        are 0 at padding. ``attention_mask`` is float32 ``[N, max_patches]``, 0 at padding.

    Raises:
        ConfigError: an image lost patches and its positions are fractions, or the patch sizes differ.
        ShapeError: an image has more than `max_patches` patches.
    """
    images = padded(batch, length=max_patches, patch_size=patch_size)
    ids = rows_and_cols(images, "Pix2Struct") + images.token_mask[:, :, None]
    return ModelInputs(
        flattened_patches=torch.cat([ids.to(torch.float32), images.patches], dim=-1),
        attention_mask=images.token_mask.to(torch.float32),
    )


@dataclass(frozen=True, kw_only=True)
class Pix2StructProcessor(Processor):
    """A processor that gives the results of transformers' ``Pix2StructImageProcessor`` on Pillow, but faster. See `pix2struct`.

    This processor and the Pillow backend divide by the population standard deviation, as the paper's code does. The
    torchvision backend divides by the sample standard deviation. No header text is rendered above the image (``is_vqa``).

    Attributes:
        patch_size: pixels per side of a square patch (default 16).
        max_patches: largest number of patches per image, and length of the arrays (default 2048).
    """

    patch_size: int = 16
    max_patches: int = 2048

    is_vqa: ClassVar[bool] = False  # read by the processor of text and images: no header is rendered
    model_input_names: ClassVar[list[str]] = ["flattened_patches", "attention_mask"]
    _FAMILY: ClassVar[Family] = Family(
        "Pix2StructImageProcessor", r"Pix2StructImageProcessor\w*", ("max_patches", "patch_size", "is_vqa")
    )
    _UNDONE: ClassVar[Mapping[str, tuple[object, ...]]] = {
        "size": (), "resample": ("bilinear", 2), "image_mean": (), "image_std": (),
    }  # fmt: skip

    @classmethod
    def like(cls, processor: object, **changes: object) -> Pix2StructProcessor:
        """Return a processor that has the settings of another processor, except for the fields in `changes`.

        Args:
            processor: an image processor of transformers, or a processor of text and images that contains an image processor.
                Also the folder of a saved processor, the ``processor_config.json`` or ``preprocessor_config.json`` in that
                folder, or the dict in such a file.
            **changes: values of single fields, used in place of the settings of `processor`.

        Raises:
            ConfigError: `processor` has no such settings, or has a step besides resizing and standardising.
        """
        return like(cls, processor, changes)

    @cached_property
    def recipe(self) -> Recipe:  # type: ignore[override]  # made at the first access
        """A recipe for `load` and `pack_images` that gives the same patches as this processor.

        Pass the batches of `load` or `pack_images` to the adapter `pix2struct`.
        """
        return recipes.pix2struct(max_patches=self.max_patches, patch_size=self.patch_size)

    def _arrays(self, prepared: Prepared) -> dict[str, np.ndarray]:
        n, length = len(prepared.pictures), self.max_patches
        flattened = np.zeros((n, length, 2 + self.patch_size**2 * 3), dtype=np.float32)
        for i, count in enumerate(prepared.num_patches):
            paint(prepared, i, self.recipe, flattened[i, :count, 2:])
            rows, cols = divmod(np.arange(count), prepared.grids[i, 1])
            flattened[i, :count, 0], flattened[i, :count, 1] = rows + 1, cols + 1
        return {"flattened_patches": flattened, "attention_mask": prepared.mask(length).astype(np.float32)}

    def _stated(self) -> dict[str, object]:
        return {
            "do_normalize": True,
            "do_convert_rgb": True,
            "is_vqa": False,
            "max_patches": self.max_patches,
            "patch_size": {"height": self.patch_size, "width": self.patch_size},
        }

    def _fields(self, settings: Settings) -> dict[str, object]:
        taken: dict[str, Any] = settings.whole(max_patches="max_patches")
        if is_number(settings.get("patch_size")):
            taken |= settings.whole(patch_size="patch_size")
        elif settings.get("patch_size") is not None:
            sides = settings.entries("patch_size", ("height", "width"))
            height, width = sides.get("height"), sides.get("width")
            if height != width:
                raise ConfigError(f"patch_size must have equal height and width, got {height} x {width}")
            taken["patch_size"] = height
        return taken
