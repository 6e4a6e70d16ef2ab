"""The adapter and the processor for NaFlexViT in timm."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from patchpack.adapters.inputs import ModelInputs
from patchpack.adapters.pad import padded, require_whole, rows_and_cols
from patchpack.adapters.prepare import Prepared, paint
from patchpack.adapters.process import Kernel, Processor, Triple, like
from patchpack.adapters.settings import Family, Settings
from patchpack.batch._types import ArrayT
from patchpack.batch.packed import PackedBatch
from patchpack.plan import recipes
from patchpack.plan.policies.normalize import MeanStd
from patchpack.plan.recipe import Recipe


def timm_naflex(batch: PackedBatch[ArrayT], *, max_seq_len: int | None = None, patch_size: int | None = None) -> ModelInputs:
    """Return the dict that ``NaFlexVit`` takes: call ``model(inputs)``, not ``model(**inputs)``.

    The model infers the grid of an image from its largest row and column numbers, so no patch may have been dropped. The model
    itself can drop patches (``patch_drop_rate``).

    Args:
        batch: a batch made with ``recipes.siglip2_naflex`` or with another recipe that drops no patches.
        max_seq_len: number of tokens per image in the result. None (default) takes the length of the longest image.
        patch_size: patch size of the model. It must equal the patch size of the batch. None (default) skips the comparison.

    Returns:
        A dict for N readable images, in (row, slot) order. ``patches`` is float32 ``[N, max_seq_len, patch_size**2 * 3]``.
        ``patch_coord`` is int64 ``[N, max_seq_len, 2]``, (row, col) of each patch. ``patch_valid`` is bool
        ``[N, max_seq_len]``, False at padding.

    Raises:
        ConfigError: an image lost patches, or the patch sizes differ.
        ShapeError: an image has more than `max_seq_len` patches.
    """
    images = padded(batch, length=max_seq_len, patch_size=patch_size)
    require_whole(images.keys, images.num_tokens, images.grid_sizes, "timm's NaFlexViT")
    return ModelInputs(
        patches=images.patches, patch_coord=rows_and_cols(images, "timm's NaFlexViT"), patch_valid=images.token_mask
    )


@dataclass(frozen=True, kw_only=True)
class TimmNaFlexProcessor(Processor):
    """A processor that gives the results of timm's evaluation transform and collation for NaFlex, but faster.

    See `timm_naflex`.

    Attributes:
        patch_size: pixels per side of a patch (default 16).
        max_seq_len: largest number of patches per image, and length of the arrays (default 576).
        mean: mean per channel on the 0–1 scale (default 0.5 each).
        std: standard deviation per channel on the 0–1 scale (default 0.5 each).
        interpolation: resampling kernel, a name that `Recipe` accepts (default ``"bicubic"``).
    """

    patch_size: int = 16
    max_seq_len: int = 576
    mean: Triple = (0.5, 0.5, 0.5)
    std: Triple = (0.5, 0.5, 0.5)
    interpolation: Kernel = "bicubic"

    model_input_names: ClassVar[list[str]] = ["patches", "patch_coord", "patch_valid"]
    _FAMILY: ClassVar[Family] = Family(
        "timm.data.resolve_model_data_config(model)", r"timm\..*",
        ("mean", "std", "interpolation", "max_seq_len"), "pretrained_cfg", ("config.json",),
    )  # fmt: skip
    _NATIVE: ClassVar[bool] = False

    @classmethod
    def like(cls, processor: object, **changes: object) -> TimmNaFlexProcessor:
        """Return a processor that has the settings of another processor or model, except for the fields in `changes`.

        Args:
            processor: the dict from ``timm.data.resolve_model_data_config(model)``, the model, or a folder with its
                ``config.json``.
            **changes: values of single fields, used in place of the settings of `processor`.

        Raises:
            ConfigError: `processor` has no such settings, or has a step besides resizing and normalising.
        """
        return like(cls, processor, changes)

    @cached_property
    def recipe(self) -> Recipe:  # type: ignore[override]  # made at the first access
        """A recipe for `load` and `pack_images` that gives the same patches as this processor.

        Pass the batches of `load` or `pack_images` to the adapter `timm_naflex`.
        """
        return recipes.siglip2_naflex(
            max_patches=self.max_seq_len,
            patch_size=self.patch_size,
            normalize=MeanStd(self.mean, self.std),
            resample=self.interpolation,
            dtype="float32",
        )

    def _arrays(self, prepared: Prepared) -> dict[str, np.ndarray]:
        n, length = len(prepared.pictures), self.max_seq_len
        patches = np.zeros((n, length, self.patch_size**2 * 3), dtype=np.float32)
        coord = np.zeros((n, length, 2), dtype=np.int64)
        for i, count in enumerate(prepared.num_patches):
            paint(prepared, i, self.recipe, patches[i, :count])
            coord[i, :count, 0], coord[i, :count, 1] = divmod(np.arange(count), prepared.grids[i, 1])
        return {"patches": patches, "patch_coord": coord, "patch_valid": prepared.mask(length)}

    def to_dict(self) -> dict[str, object]:
        """Return the settings under timm's names. `like` accepts this dict."""
        return self._stated()

    def _stated(self) -> dict[str, object]:
        return {
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
            "patch_size": self.patch_size,
            "max_seq_len": self.max_seq_len,
        }

    def _fields(self, settings: Settings) -> dict[str, object]:
        taken = settings.whole(patch_size="patch_size", max_seq_len="max_seq_len")
        return {**taken, **settings.colours("mean", "std", "interpolation")}
