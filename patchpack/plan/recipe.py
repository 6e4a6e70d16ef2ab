"""The recipe: a complete, reproducible description of how images become batches."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np

from patchpack import rng
from patchpack._arrays import UInt8Array
from patchpack.errors import ConfigError
from patchpack.plan._integers import require_int, set_tuples
from patchpack.plan.packing import Lookahead, PackerFactory
from patchpack.plan.policies.crop import CropPolicy, WholeImage
from patchpack.plan.policies.drop import DropPolicy, NoDrop
from patchpack.plan.policies.normalize import HALF, MeanStd, PerImage
from patchpack.plan.policies.positions import Absolute, PositionScheme
from patchpack.plan.policies.resize import ResizePolicy
from patchpack.plan.policies.video import Video

DTYPES = ("uint8", "float32", "float16")
KERNELS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")

ORDERS = ("pillow", "horizontal_first")
DECODES = ("exact", "draft", "simplejpeg")
DEEPS = ("header", "range")
ICCS = ("ignore", "srgb")
_ALLOWED = {
    "resample": KERNELS, "dtype": DTYPES, "resample_order": ORDERS, "decode": DECODES, "deep": DEEPS, "icc": ICCS,
}  # fmt: skip
_SUCH_AS = {
    "resize": "patchpack.resize.NaFlex(256)", "crop": "patchpack.crop.RandomResizedCrop()",
    "drop": "patchpack.drop.Constant(0.5)", "positions": "patchpack.positions.Absolute()",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings that decide the content of a batch, except the images. A recipe's `repr` can be pasted back as code.

    Attributes:
        resize: rule that chooses the grid of patches from the size of an image.
        crop: rule that chooses the part of an image that is read. The resize policy receives the size of this part. Default
            `WholeImage`, all of the image.
        flip_prob: probability that an image is mirrored left to right, 0 … 1. Default 0.
        drop: rule that decides how many patches of a grid are kept. Default `NoDrop`, every patch is kept.
        positions: rule that gives the position ids of a grid. Default `Absolute`, row and column.
        packer: factory of the packer that turns token counts into rows. Default `Lookahead()`.
        patch_size: pixels per side of a patch, 1 … 4096. From a tuple of sizes, one size is drawn at random for each step. All
            ranks use the same size in a step (FlexiViT). Default 16.
        seq_len: tokens per row. With None a row has ``resize.bound(patch_size)`` tokens and holds one image. Default 1024.
        max_images: slots per row: the most images that a row can hold (NaViT's Emax). Default 64.
        rows_per_batch: rows per batch. Default 8.
        resample: antialiased resampling kernel: "nearest", "box", "bilinear", "hamming", "bicubic" or "lanczos". Default
            "bilinear".
        resample_order: order of the kernel's horizontal and vertical pass, which changes the pixels a bit. "pillow" (default)
            gives the pixels of the installed Pillow. Up to version 12 Pillow runs the horizontal pass first. From version 13
            on its order depends on the sizes. "horizontal_first" gives the same pixels with every version of Pillow.
        decode: method of decoding. "exact" (default) decodes every pixel of the file with Pillow. "simplejpeg" gives the same
            pixels in less time, and needs ``pip install patchpack[simplejpeg]``. "draft" decodes a JPEG at 1/2, 1/4 or 1/8 of
            its size if that leaves at least twice as many pixels per side as the resized image has. The pixels of "draft"
            differ slightly (docs/howto/decoding.md).
        deep: scaling of images with more than 8 bits. "header" (default) divides by the value that the file's header gives for
            white. "range" scales from the image's smallest value to its largest.
        icc: treatment of an embedded colour profile. "ignore" (default) uses the stored colours. "srgb" converts them to sRGB.
        formats: names of further file formats to accept, such as ``("HEIF",)``. Each of these formats needs a plugin: one that
            comes with Pillow, or one that you registered with Pillow. Default none.
        augment: a custom function ``(pixels, generator) -> pixels``, called before mirroring and padding. The function receives
            the resized image, uint8 ``[height, width, 3]``, and a `numpy.random.Generator` for this image and epoch. It returns
            a uint8 array of the same shape. It may overwrite the image that it receives. It must be picklable if workers are
            spawned. Default None, which is faster because only kept patches are resampled.
        video: `Video` settings: which frames of a clip are read. Every token is then a tubelet (a patch through several
            frames), and position ids begin with the time (see `PackedBatch.times`). Default None, clips are refused.
        normalize: normalisation of the pixel values, `MeanStd` (after resizing) or `PerImage` (before resizing). Default
            `MeanStd` with ``(x / 255 − 0.5) / 0.5``.
        dtype: dtype of the patches: "uint8" (normalise later, on the device), "float32" or "float16" (normalised by the
            painter). Default "uint8".
        seed: seed of every random draw, 0 … 2**64 − 1. Default 0.
        background: colour behind transparent pixels: (red, green, blue), each 0 … 255. Default white.
        max_pixels: limit on the pixels of an image. A larger image is refused at its header, before it is decoded. Default 64
            million.
        max_bytes: limit on the bytes of an image file. A larger file is refused. If the size of the file is known in advance,
            the file is not read at all. Default 512 MiB, which holds 64 million pixels of 16-bit colour with alpha,
            uncompressed.

    Raises:
        ConfigError: a setting, or a combination of settings, cannot work. It is raised at construction.
    """

    resize: ResizePolicy
    crop: CropPolicy = field(default_factory=WholeImage)
    flip_prob: float = 0.0
    drop: DropPolicy = field(default_factory=NoDrop)
    positions: PositionScheme = field(default_factory=Absolute)
    packer: PackerFactory = field(default_factory=Lookahead)
    patch_size: int | tuple[int, ...] = 16
    seq_len: int | None = 1024
    max_images: int = 64
    rows_per_batch: int = 8
    resample: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = "bilinear"
    resample_order: Literal["pillow", "horizontal_first"] = "pillow"
    decode: Literal["exact", "draft", "simplejpeg"] = "exact"
    deep: Literal["header", "range"] = "header"
    icc: Literal["ignore", "srgb"] = "ignore"
    formats: tuple[str, ...] = ()
    augment: Callable[[UInt8Array, np.random.Generator], UInt8Array] | None = None
    video: Video | None = None
    normalize: MeanStd | PerImage = HALF
    dtype: Literal["uint8", "float32", "float16"] = "uint8"
    seed: int = 0
    background: tuple[int, int, int] = (255, 255, 255)
    max_pixels: int = 64_000_000
    max_bytes: int = 1 << 29

    def __post_init__(self) -> None:
        set_tuples(self, "patch_size", "formats", "background")
        for name, protocol in (
            ("resize", ResizePolicy), ("crop", CropPolicy), ("drop", DropPolicy), ("positions", PositionScheme),
        ):  # fmt: skip
            policy = getattr(self, name)
            if isinstance(policy, type):  # a class has all methods of its instances, but would fail at the first image
                raise ConfigError(f"{name} must be an instance: {policy.__name__}(...), got the class itself")
            if not isinstance(policy, protocol):
                raise ConfigError(f"{name} must be a {protocol.__name__}, such as {_SUCH_AS[name]}, got {policy!r}")
        if isinstance(self.packer, type) or not callable(self.packer):
            raise ConfigError(f"packer must be a function of (seq_len, max_images), such as Lookahead(64), got {self.packer!r}")
        for name, high in (
            ("max_images", 1 << 20),
            ("rows_per_batch", 1 << 20),
            ("max_pixels", 1 << 40),
            ("max_bytes", 1 << 40),
        ):
            require_int(name, getattr(self, name), 1, high)
        require_int("seed", self.seed, 0, (1 << 64) - 1)
        if isinstance(self.flip_prob, bool) or not isinstance(self.flip_prob, (int, float)) or not 0 <= self.flip_prob <= 1:
            raise ConfigError(
                f"flip_prob must be a number in 0 … 1, the share of images that are mirrored, got {self.flip_prob!r}"
            )
        if self.seq_len is not None:
            require_int("seq_len", self.seq_len, 1, 1 << 30)
        if not self.patch_sizes:
            raise ConfigError("patch_size must be at least one size, got ()")
        for p in self.patch_sizes:
            require_int("patch_size", p, 1, 4096)
        for name, allowed in _ALLOWED.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
        if self.decode == "simplejpeg" and find_spec("simplejpeg") is None:
            raise ConfigError(
                "decode='simplejpeg' needs simplejpeg: pip install 'patchpack[simplejpeg]', or use decode='exact'"
            )
        if not isinstance(self.formats, tuple) or not all(
            isinstance(name, str) and name and name == name.upper() for name in self.formats
        ):
            raise ConfigError(f"formats must be a tuple of Pillow's names in capitals, such as ('HEIF',), got {self.formats!r}")
        if isinstance(self.normalize, PerImage):
            if self.dtype == "uint8":
                raise ConfigError("normalize=PerImage() makes floats: set dtype='float32' or 'float16'")
        elif not isinstance(self.normalize, MeanStd):
            raise ConfigError(f"normalize must be MeanStd(...) or PerImage(), got {self.normalize!r}")
        if self.augment is not None and (isinstance(self.augment, type) or not callable(self.augment)):
            raise ConfigError(f"augment must be a function (pixels, generator) -> pixels, or None, got {self.augment!r}")
        if self.augment is not None and isinstance(self.normalize, PerImage):
            raise ConfigError(
                "augment needs uint8 pixels, but normalize=PerImage() resizes standardised floats: use normalize=MeanStd(...)"
            )
        if self.video is not None and not isinstance(self.video, Video):
            raise ConfigError(f"video must be Video(...), or None for images alone, got {self.video!r}")
        if self.video is not None and isinstance(self.normalize, PerImage):
            raise ConfigError(
                "normalize=PerImage() would standardise each frame of a clip by itself: use normalize=MeanStd(...) with video"
            )
        if not isinstance(self.background, tuple) or len(self.background) != 3:
            raise ConfigError(f"background must be three integers in 0 … 255, red, green and blue, got {self.background!r}")
        for colour in self.background:
            require_int("background (red, green and blue)", colour, 0, 255)
        for p in self.patch_sizes:
            self._check_bound(p)

    def _check_bound(self, patch_size: int) -> None:
        bound = self._bound(patch_size)
        if self.seq_len is None:
            if bound is None:
                raise ConfigError(
                    f"seq_len=None needs a resize policy with a bound, and {self.resize!r} has no bound: set seq_len"
                )
            if self.video is not None and self.video.num_frames is None:
                raise ConfigError(f"seq_len=None needs clips with a fixed number of frames: set num_frames in {self.video!r}")
            if self.max_images != 1:
                raise ConfigError(f"seq_len=None makes rows of one image: set max_images=1, got {self.max_images}")
        elif bound is not None and bound > self.seq_len:
            clips = "" if self.video is None else f" of {self.video!r}"
            raise ConfigError(
                f"seq_len={self.seq_len} cannot hold one image: at patch_size={patch_size} {self.resize!r} may produce up to "
                f"{bound} patches{clips}. Raise seq_len to at least {bound}, or lower the policy's budget."
            )

    def _bound(self, patch_size: int) -> int | None:
        """Return the most tokens of one image, or of one clip if `video` is set. Return None if there is no limit."""
        bound = self.resize.bound(patch_size)
        return bound if bound is None or self.video is None else bound * (self.video.max_times or 1)

    @property
    def patch_sizes(self) -> tuple[int, ...]:
        """All patch sizes this recipe may use."""
        return self.patch_size if isinstance(self.patch_size, tuple) else (self.patch_size,)

    @property
    def redraws(self) -> bool:
        """True if a size that is refused in one pass over a source may be accepted in the next pass."""
        return bool(self.resize.draws or self.crop.draws)

    def patch_size_at(self, epoch: int, step: int) -> int:
        """Return the patch size of one step. The size depends on seed, epoch and step alone, so all ranks get one size."""
        sizes = self.patch_sizes
        if len(sizes) == 1:
            return sizes[0]
        u = rng.uniforms(self.seed, epoch, np.array([step], dtype=np.uint64), rng.Stage.PATCH_SIZE, 1)
        return sizes[int(u[0, 0] * len(sizes))]

    def row_len(self, patch_size: int) -> int:
        """Return the tokens per row at a patch size: `seq_len`, or the most tokens of one image if `seq_len` is None."""
        if self.seq_len is not None:
            return self.seq_len
        bound = self._bound(patch_size)
        assert bound is not None  # checked at construction
        return bound

    def replace(self, **changes: Any) -> Recipe:
        """Return a copy of the recipe with some fields changed. The copy is checked like a new recipe."""
        try:
            return replace(self, **changes)
        except TypeError as error:
            raise ConfigError(f"{error}; the fields of a recipe are {', '.join(self.__dataclass_fields__)}") from None

    def for_eval(self, max_patches: int | None = None, patch_size: int | None = None) -> Recipe:
        """Return the recipe for evaluation: without random draws, dropping, cropping, mirroring or augmentation.

        A resolution that is drawn per image is replaced by a fixed resolution (see `NaViT.eval_resolution`).

        Args:
            max_patches: new budget per image in patches. Default None keeps the budget of the resize policy.
            patch_size: one of the recipe's patch sizes. Default None: the smallest patch size at which an image has at most
                `max_patches` patches. If `max_patches` is None too, the patch size is 16 if the recipe has 16, else the
                smallest.

        Raises:
            ConfigError: the resize policy has no budget to change, or it draws random numbers and has no method `for_eval`.
        """
        p = patch_size if patch_size is not None else self._eval_patch_size(max_patches)
        policy: Any = self.resize
        if hasattr(policy, "for_eval"):
            policy = policy.for_eval(p, max_patches)
        elif max_patches is not None and hasattr(policy, "max_patches"):
            policy = replace(policy, max_patches=max_patches)
        elif max_patches is not None and hasattr(policy, "max_pixels"):
            pixels = max_patches * p * p
            policy = replace(policy, max_pixels=pixels, min_pixels=min(policy.min_pixels, pixels))
        elif max_patches is not None and (policy.bound(p) or math.inf) > max_patches:
            raise ConfigError(
                f"{policy!r} has no budget, so for_eval(max_patches={max_patches}) cannot set it: leave max_patches out"
            )
        if policy.draws:
            raise ConfigError(
                f"{policy!r} makes random draws: give it a method for_eval(patch_size, max_patches) that returns a policy "
                f"without"
            )
        return self.replace(resize=policy, crop=WholeImage(), flip_prob=0.0, augment=None, drop=NoDrop(), patch_size=p)

    def _eval_patch_size(self, max_patches: int | None) -> int:
        sizes = sorted(self.patch_sizes)
        if len(sizes) == 1:
            return sizes[0]
        if max_patches is None:
            return 16 if 16 in sizes else sizes[0]
        fitting = [p for p in sizes if (self.resize.bound(p) or math.inf) <= max_patches]
        return fitting[0] if fitting else sizes[-1]
