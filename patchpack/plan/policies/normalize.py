"""The normalisation of pixel values: by a fixed mean and standard deviation, or by the mean and deviation of each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from patchpack.errors import ConfigError
from patchpack.plan._integers import require_number, set_tuples


@dataclass(frozen=True)
class MeanStd:
    """The normalisation ``(x / 255 − mean) / std`` per channel, after resizing.

    Attributes:
        mean: three numbers in 0 … 1, for red, green and blue. Default 0.5 each.
        std: three numbers above 0, at most 1. Default 0.5 each.

    Raises:
        ConfigError: a number is out of its range, for example because it is on the 0–255 scale.
    """

    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        set_tuples(self, "mean", "std")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != 3:
                raise ConfigError(f"{name} must be three numbers, for red, green and blue, got {values!r}")
            for value in values:
                require_number(name, value)
        if not all(0 <= m <= 1 for m in self.mean) or not all(0 < s <= 1 for s in self.std):
            raise ConfigError(
                f"MeanStd takes numbers on the 0-1 scale, mean in 0 … 1 and std above 0, at most 1: divide by 255 what is on "
                f"the 0-255 scale; got mean={self.mean}, std={self.std}"
            )


@dataclass(frozen=True)
class PerImage:
    """The normalisation ``(x − mean) / max(std, 1 / sqrt(N))`` over all N values of one image, *before* resizing.

    The deviation is the population standard deviation, as in google-research/pix2struct ``preprocessors.py`` (TF
    per_image_standardization). Patches must be float32 or float16, because standardised values are not integers.
    """


HALF = MeanStd()
IMAGENET = MeanStd((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = MeanStd((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
