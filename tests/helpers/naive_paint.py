"""Slow reference implementations of painting, for one image at a time, in loops, and independent of the fast code."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

import patchpack as pp
from patchpack import rng
from patchpack.plan.table import plan_table
from patchpack.types import Grid

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class Painted(NamedTuple):
    """What an image should be once it is taken out of its batch."""

    patches: Any
    position_ids: Any
    grid: tuple[int, ...]
    source_size: tuple[int, int]


def paint_alone(sample: pp.Sample, recipe: pp.Recipe, *, epoch: int = 0, ordinal: int = 0, patch_size: int = 0) -> Painted:
    """One image as if there were no others: planned for its size, resized, cut, thinned."""
    picture = open_picture(sample.image)
    p = patch_size or recipe.patch_sizes[0]
    key_hash = rng.key_hash([sample.key])
    plan = plan_table(recipe, [picture.shape[:2]], key_hash, epoch=epoch, seen=ordinal, patch_size=p)
    rows, cols = plan.grid[0].tolist()
    per_image = isinstance(recipe.normalize, pp.normalize.PerImage)
    values = standardize(picture) if per_image else picture
    values = resize(values, plan.box[0].tolist(), plan.resized[0].tolist(), recipe.resample, recipe.resample_order)
    values = pad(values, rows * p, cols * p)
    if recipe.dtype != "uint8" and not per_image:
        mean, std = (np.array(c, dtype=np.float64) * 255 for c in (recipe.normalize.mean, recipe.normalize.std))
        values = (values - mean) / std
    kept = keep(recipe.seed, epoch, int(key_hash[0]), rows * cols, int(plan.num_tokens[0]))
    cut = patches(values, p)
    ids = recipe.positions(Grid(rows, cols))
    return Painted(
        np.stack([cut[i] for i in kept]).astype(recipe.dtype), np.stack([ids[i] for i in kept]), (rows, cols), picture.shape[:2]
    )


def open_picture(image: Any) -> Any:
    """uint8 [H, W, 3] of an array, a PIL image, or the bytes of a file without an orientation or transparency."""
    if isinstance(image, bytes):
        image = Image.open(io.BytesIO(image))
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("RGB"))
    return image


def standardize(picture: Any) -> Any:
    """Every value minus the mean of all, over their deviation, which is at least 1 / sqrt(how many)."""
    values = [int(v) for v in picture.reshape(-1)]
    mean = sum(values) / len(values)
    deviation = (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5
    return ((picture - mean) / max(deviation, len(values) ** -0.5)).astype(np.float32)


def resize(values: Any, box: Sequence[int], target: Sequence[int], kernel: str, order: str = "pillow") -> Any:
    """The box cut out, then resized by Pillow, channel by channel; horizontal first is one side after the other."""
    top, left, height, width = box
    part = values[top : top + height, left : left + width]
    planes = [Image.fromarray(np.ascontiguousarray(part[:, :, c])) for c in range(3)]
    if order == "horizontal_first":
        planes = [plane.resize((target[1], height), FILTERS[kernel]) for plane in planes]
    return np.stack([np.asarray(plane.resize((target[1], target[0]), FILTERS[kernel])) for plane in planes], axis=2)


def triangle(x: float) -> float:
    """The bilinear kernel, of radius 1."""
    return max(0.0, 1.0 - abs(x))


def cubic(x: float) -> float:
    """Keys' kernel with a = −1/2, of radius 2."""
    x = abs(x)
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * -0.5 if x < 2 else 0.0


KERNELS: dict[str, tuple[Callable[[float], float], float]] = {"bilinear": (triangle, 1.0), "bicubic": (cubic, 2.0)}


def resample(pixels: Any, size: Sequence[int], kernel: str, *, vertical_first: bool = False) -> Any:
    """uint8 [H, W, C] at another size: two passes of 22-bit weights, each rounded to 8 bits."""
    for axis in (0, 1) if vertical_first else (1, 0):
        pixels = one_pass(np.moveaxis(pixels, axis, 0), size[axis], kernel)
        pixels = np.moveaxis(pixels, 0, axis)
    return pixels


def one_pass(lines: Any, n: int, kernel: str) -> Any:
    """n lines of pixels from some: each the weighted mean of those under the kernel, stretched to a step if that is more."""
    function, radius = KERNELS[kernel]
    step = len(lines) / n
    stretch = max(step, 1.0)
    out = []
    for i in range(n):
        centre = (i + 0.5) * step
        first = max(0, int(centre - radius * stretch + 0.5))
        last = min(len(lines), int(centre + radius * stretch + 0.5))
        weights = [function((k - centre + 0.5) * (1.0 / stretch)) for k in range(first, last)]
        total = 0.0
        for weight in weights:
            total += weight
        fixed = [math.floor(abs(w / total) * 2**22 + 0.5) * (-1 if w < 0 else 1) for w in weights]
        sums = [0 * lines[0].astype(int) + 2**21] + [w * lines[first + k].astype(int) for k, w in enumerate(fixed)]
        out.append(np.clip(sum(sums) // 2**22, 0, 255).astype(np.uint8))
    return np.stack(out)


def pad(values: Any, height: int, width: int) -> Any:
    """Zeros below and to the right."""
    out = np.zeros((height, width, 3), dtype=values.dtype)
    for y in range(values.shape[0]):
        for x in range(values.shape[1]):
            out[y, x] = values[y, x]
    return out


def patches(image: Any, p: int) -> list[Any]:
    """Patches in raster order; inside one: line by line, pixel by pixel, channel by channel."""
    height, width, _ = image.shape
    cut = []
    for top in range(0, height, p):
        for left in range(0, width, p):
            lines = [image[top + y, left + x] for y in range(p) for x in range(p)]
            cut.append(np.concatenate(lines))
    return cut


def keep(seed: int, epoch: int, key_hash: int, num_patches: int, num_tokens: int) -> list[int]:
    """Every patch draws a number; the smallest stay, in raster order."""
    if num_tokens == num_patches:
        return list(range(num_patches))
    draws = rng.uniforms(seed, epoch, np.array([key_hash], dtype=np.uint64), rng.Stage.KEEP, num_patches)[0].tolist()
    return sorted(sorted(range(num_patches), key=lambda i: draws[i])[:num_tokens])


def greedy(lengths: Sequence[int], seq_len: int, max_images: int) -> list[list[int]]:
    """NaViT appendix A.3: an image is added to the first sequence that still has room for it, else to a new one."""
    rows: list[list[int]] = []
    for image, length in enumerate(lengths):
        for row in rows:
            if sum(lengths[i] for i in row) + length <= seq_len and len(row) < max_images:
                row.append(image)
                break
        else:
            rows.append([image])
    return rows


def paint_clip_alone(key: str, frames: Sequence[Any], recipe: pp.Recipe, *, epoch: int = 0, ordinal: int = 0) -> Painted:
    """One clip of uint8 frames as if there were no others; its grid is (times, rows, cols)."""
    p, tubelet, most = recipe.patch_sizes[0], recipe.video.tubelet, recipe.video.num_frames
    count = min(len(frames), most or len(frames))
    taken = [frames[math.floor((i + 0.5) * len(frames) / count)] for i in range(count)]
    while len(taken) % tubelet:
        taken.append(taken[-1])
    times = len(taken) // tubelet
    key_hash, size = rng.key_hash([key]), frames[0].shape[:2]
    plan = plan_table(recipe, [size], key_hash, epoch=epoch, seen=ordinal, frames=[len(frames)])
    rows, cols = plan.grid[0].tolist()
    cut = []
    for frame in taken:
        values = resize(frame, plan.box[0].tolist(), plan.resized[0].tolist(), recipe.resample, recipe.resample_order)
        values = pad(values, rows * p, cols * p)
        cut.append(patches(values[:, ::-1] if plan.flip[0] else values, p))
    tokens, ids = [], []
    of_grid = recipe.positions(Grid(rows, cols))
    for time in range(times):
        for place in range(rows * cols):
            tokens.append(np.concatenate([cut[time * tubelet + i][place] for i in range(tubelet)]))
            ids.append([time, *of_grid[place].tolist()])
    kept = keep(recipe.seed, epoch, int(key_hash[0]), len(tokens), int(plan.num_tokens[0]))
    return Painted(
        np.stack([tokens[i] for i in kept]), np.array([ids[i] for i in kept], dtype=of_grid.dtype), (times, rows, cols), size
    )
