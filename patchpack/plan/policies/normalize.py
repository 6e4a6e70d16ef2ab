"""Normalisation of pixel values: by a fixed mean and standard deviation, or by each image's own."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite

from patchpack.errors import ConfigError


@dataclass(frozen=True)
class MeanStd:
    """The normalisation ``(x / 255 − mean) / std`` per channel, after resizing.

    Attributes:
        mean, std: three numbers each (red, green, blue), on the 0–1 scale, std > 0. Default 0.5.
    """

    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        if (
            len(self.mean) != 3
            or len(self.std) != 3
            or not all(map(isfinite, self.mean))
            or not all(0 < s < inf for s in self.std)
        ):
            raise ConfigError(f"mean and std must be three finite numbers each, std > 0, got mean={self.mean}, std={self.std}")


@dataclass(frozen=True)
class PerImage:
    """The normalisation ``(x − mean) / max(std, 1 / sqrt(N))`` over all N values of one image, *before* resizing.

    It uses the population standard deviation, as in google-research/pix2struct ``preprocessors.py``
    (TF per_image_standardization). Its patches are float32 or float16, because the values of the resized image are not on the
    0–255 scale.
    """


HALF = MeanStd()
IMAGENET = MeanStd((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = MeanStd((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
