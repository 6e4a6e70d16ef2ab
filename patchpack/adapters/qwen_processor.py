"""The processor of Qwen2-VL, Qwen2.5-VL and Qwen3-VL, from images to patches in the order of `qwen_vl`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import torch

from patchpack.adapters.prepare import Prepared, paint
from patchpack.adapters.process import STEPS, Kernel, Processor, Triple, colours_of, like
from patchpack.adapters.qwen import grid_of_times, reorder
from patchpack.adapters.settings import Family, Settings
from patchpack.paint.resample import norm_of
from patchpack.plan.policies.normalize import CLIP, MeanStd
from patchpack.plan.policies.resize import SmartResize
from patchpack.plan.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class QwenVLProcessor(Processor):
    """A processor that gives the results of transformers' ``Qwen2VLImageProcessor`` on Pillow, but faster. See `qwen_vl`.

    Qwen2.5-VL and Qwen3-VL use the same processor. The defaults are Qwen2-VL's settings. For Qwen3-VL set
    ``patch_size=16, min_pixels=256**2, max_pixels=4096**2`` and 0.5 for every mean and deviation, or call `like` with the
    model's folder.

    Attributes:
        min_pixels: smallest number of pixels of a resized image, ``size["shortest_edge"]`` in transformers (default 56²).
        max_pixels: largest number of pixels of a resized image, ``size["longest_edge"]`` in transformers (default 1280 · 28²).
        patch_size: pixels per side of a patch (default 14).
        temporal_patch_size: frames per patch (default 2).
        merge_size: patches per side of a block that the model merges (default 2).
        image_mean: mean per channel on the 0–1 scale (default: the mean that CLIP uses).
        image_std: standard deviation per channel on the 0–1 scale (default: the deviation that CLIP uses).
        resample: resampling kernel, a name that `Recipe` accepts (default ``"bicubic"``).
    """

    min_pixels: int = 56**2
    max_pixels: int = 28**2 * 1280
    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2
    image_mean: Triple = CLIP.mean
    image_std: Triple = CLIP.std
    resample: Kernel = "bicubic"

    model_input_names: ClassVar[list[str]] = ["pixel_values", "image_grid_thw"]
    _FAMILY: ClassVar[Family] = Family(
        "Qwen2VLImageProcessor",
        r"Qwen\w*ImageProcessor\w*",
        ("size", "min_pixels", "max_pixels", "merge_size", "image_mean", "image_std", "resample"),
    )

    @classmethod
    def like(cls, processor: object, **changes: object) -> QwenVLProcessor:
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

    @property
    def size(self) -> Mapping[str, int]:
        """The limits `min_pixels` and `max_pixels` with the names that transformers uses, as a read-only dict."""
        return MappingProxyType({"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels})

    @cached_property
    def recipe(self) -> Recipe:  # type: ignore[override]  # made at the first access
        """A recipe for `load` and `pack_images` that gives the same patches as this processor.

        Pass the batches of `load` or `pack_images` to the adapter `qwen_vl`.
        """
        resize = SmartResize(self.min_pixels, self.max_pixels, self.merge_size)
        return Recipe(
            resize=resize,
            patch_size=self.patch_size,
            seq_len=resize.bound(self.patch_size),
            rows_per_batch=2,
            resample=self.resample,
            normalize=MeanStd(self.image_mean, self.image_std),
        )

    def _arrays(self, prepared: Prepared) -> dict[str, np.ndarray]:
        counts, channels = prepared.num_patches, self.patch_size**2 * 3
        pixels = torch.empty((sum(counts), self.temporal_patch_size * channels))
        scratch = np.empty((max(counts, default=0), channels), dtype=np.uint8)  # one image in raster order
        norm, begin, first = torch.from_numpy(norm_of(self.recipe.normalize)), 0, np.zeros(1, dtype=np.int64)
        for i, count in enumerate(counts):
            paint(prepared, i, self.recipe, scratch[:count])
            mine = pixels[begin : begin + count]
            grid = prepared.grids[i : i + 1]
            reorder(torch.from_numpy(scratch), first, grid, norm, self.merge_size, self.temporal_patch_size, mine)
            begin += count
        return {
            "pixel_values": pixels.numpy(),
            "image_grid_thw": grid_of_times(prepared.grids, np.ones(len(counts), dtype=np.int64)).numpy(),
        }

    def _stated(self) -> dict[str, object]:
        return {
            **STEPS,
            **colours_of(self),
            "size": dict(self.size),
            "patch_size": self.patch_size,
            "temporal_patch_size": self.temporal_patch_size,
            "merge_size": self.merge_size,
        }

    def _fields(self, settings: Settings) -> dict[str, object]:
        edges = {"shortest_edge": "min_pixels", "longest_edge": "max_pixels"}
        size = settings.entries("size", (*edges, *edges.values()))
        limits = Settings({edges.get(name, name): pixels for name, pixels in size.items()})
        names = ("min_pixels", "max_pixels", "patch_size", "temporal_patch_size", "merge_size")
        taken = limits.whole(min_pixels="min_pixels", max_pixels="max_pixels")
        taken |= settings.whole(**{name: name for name in names})  # as in transformers, these take precedence over size
        return {**taken, **settings.colours()}
