"""How far from the exact pixels is decode="draft", and what do "draft" and "simplejpeg" save?

    OMP_NUM_THREADS=1 python -m bench.images.decode [SHARDS ...] [--images 200] [--large 4] [--rounds 5]

The painter resamples every image to at most 256 patches of 16 x 16 pixels, with the bilinear kernel. No patch is dropped. There
are two sets of images: photographs as they are, and JPEGs of 12 megapixels (4000 x 3000, quality 90, 4:2:0) made from the
photographs. A JPEG shows either one enlarged photograph, which is smoother than what a camera writes, or many photographs side
by side, which is rougher. Reading a file's bytes costs the same at any scale. So the more bytes a file has per
pixel (``bytes per pixel``), the less "draft" saves.

* The difference between "draft" and "exact" is in levels of 256: mean and maximum over all values of the set. Beside them
  stands the PSNR in dB. ``scaled`` counts the images that were decoded at a smaller size. All other images are exact.
  ``mean of scaled`` and ``psnr of scaled`` cover the scaled images only.
* ``--budgets`` prints other figures: for several numbers of patches, kernels and crops, how many photographs were decoded at a
  smaller size, and the worst, the quartiles and the best of their PSNR.
* The time is CPU ms per image on one thread, from file bytes to patches. The modes take turns in every round. The median of
  each image counts. ``decode`` is decoding alone. ``T`` is Pillow's open and load.

The output is JSON. ``--picture FILE`` draws three pictures made by formula, each exact, as a draft, and as eight times the
difference of the two.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import platform
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image

import patchpack as pp
from bench.images.resample import files
from bench.pictures import SHARDS, default_shards
from patchpack.image.draft import scale_for
from patchpack.image.size import read_size
from patchpack.paint.part import part_of_picture
from patchpack.paint.patchify import unpatchify
from patchpack.paint.resample import write_pixels
from patchpack.plan.table import plan_table
from patchpack.samples import CLASS_NAMES
from patchpack.samples.draw import Spec, render
from patchpack.types import Grid, Size

RECIPE = pp.recipes.siglip2_naflex(max_patches=256)
MODES = ("exact", "draft", "simplejpeg") if find_spec("simplejpeg") else ("exact", "draft")
P = 16


def enlarged(photographs: list[bytes]) -> bytes:
    """Return a JPEG of 12 megapixels that shows the first photograph, enlarged."""
    return saved(Image.open(io.BytesIO(photographs[0])).convert("RGB").resize((4000, 3000), Image.Resampling.BICUBIC))


def tiled(photographs: list[bytes]) -> bytes:
    """Return a JPEG of 12 megapixels that shows photographs as they are, 9 in a row, each cut to 448 x 336 pixels."""
    canvas = Image.new("RGB", (4000, 3000))
    for at in range(81):
        tile = Image.open(io.BytesIO(photographs[at % len(photographs)])).convert("RGB")
        canvas.paste(
            tile.resize((448, 336)) if tile.width < 448 or tile.height < 336 else tile.crop((0, 0, 448, 336)),
            (at % 9 * 448, at // 9 * 336),
        )
    return saved(canvas)


def saved(picture: Image.Image) -> bytes:
    """Return a picture as the bytes of a JPEG file."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()


def planned(data: bytes) -> tuple[Size, tuple[int, int, int, int], tuple[int, int], Grid]:
    """Return size, box, resized size and grid of one image, as the recipe plans them."""
    size = read_size(data)
    table = plan_table(RECIPE, [size], np.zeros(1, dtype=np.uint64))
    grid = Grid(*table.grid[0].tolist())
    return size, tuple(table.box[0].tolist()), tuple(table.resized[0].tolist()), grid


def painted(data: bytes, mode: str, plan: Any) -> np.ndarray:
    """Return all patches of one image."""
    size, box, target, grid = plan
    recipe = RECIPE.replace(decode=mode)
    picture, box = part_of_picture(data, size, box, target, recipe)
    out = np.empty((grid.num_patches, P * P * 3), dtype=np.uint8)
    write_pixels(out, picture, box, target, False, grid, np.arange(grid.num_patches), P, recipe)
    return out


def loaded(data: bytes) -> Image.Image:
    """Open and load an image with Pillow."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def difference(images: list[bytes]) -> dict[str, Any]:
    """Return how much "draft" differs from "exact" on some images."""
    levels, scaled = [], []
    for data in images:
        plan = planned(data)
        levels.append(np.abs(painted(data, "draft", plan).astype(np.int16) - painted(data, "exact", plan)))
        scaled.append(scale_for(plan[1], plan[2]) > 1)
    answer = {"images": len(images), "scaled": sum(scaled), **distance(levels, "")}
    if 0 < sum(scaled) < len(images):
        answer.update(distance([of for of, smaller in zip(levels, scaled, strict=True) if smaller], " of scaled"))
    return answer


def distance(levels: list[np.ndarray], which: str) -> dict[str, Any]:
    """Return mean, maximum and PSNR of differences."""
    values = sum(of.size for of in levels)
    squares = sum(int((of.astype(np.int64) ** 2).sum()) for of in levels)
    return {
        f"mean{which}": round(sum(int(of.sum()) for of in levels) / values, 3),
        f"max{which}": max(int(of.max()) for of in levels),
        f"psnr{which}": round(10 * math.log10(255**2 * values / squares), 2) if squares else None,
    }


def by_budget(images: list[bytes]) -> dict[str, Any]:
    """Return the PSNR of single photographs by number of patches, kernel and crop, with public functions only."""
    answer = {}
    whole, part = pp.crop.WholeImage(), pp.crop.RandomResizedCrop()
    cases = [(n, kernel, whole) for kernel in ("bilinear", "bicubic") for n in (256, 128, 64, 36, 16, 4)]
    cases += [(36, kernel, whole) for kernel in ("lanczos", "hamming", "box", "nearest")]
    cases += [(n, "bilinear", part) for n in (36, 16)]
    for patches, kernel, crop in cases:
        recipe = pp.recipes.siglip2_naflex(max_patches=patches, seq_len=256, rows_per_batch=1, resample=kernel, crop=crop)
        exact, fast = (
            {image.key: image.patches.numpy().astype(np.int64) for batch in batches for image in pp.unpack(batch)}
            for batches in (pp.pack_images(images, recipe.replace(decode=mode)) for mode in ("exact", "draft"))
        )
        squares = [float(((fast[key] - exact[key]) ** 2).mean()) for key in exact]
        found = [10 * math.log10(255**2 / square) for square in squares if square]
        ends = np.percentile(found, [0, 25, 50, 75, 100]).round(1).tolist() if found else None
        name = f"{patches} patches, {kernel}" + ("" if crop is whole else f", {type(crop).__name__}")
        answer[name] = {"images": len(exact), "smaller": len(found), "worst, quartiles, best": ends}
    return answer


def timing(images: list[bytes], rounds: int) -> dict[str, Any]:
    """Return the CPU ms per image of each mode."""
    rows = []
    for data in images:
        plan = planned(data)
        run: dict[str, Callable[[], Any]] = {"T": lambda data=data: loaded(data)}
        for mode in MODES:
            recipe = RECIPE.replace(decode=mode)
            run[mode] = lambda data=data, mode=mode, plan=plan: painted(data, mode, plan)
            run[f"{mode}, decode"] = lambda data=data, plan=plan, recipe=recipe: part_of_picture(data, *plan[:3], recipe)
        times: dict[str, list[float]] = {name: [] for name in run}
        for turn in range(rounds + 1):
            for name, do in run.items():
                start = time.thread_time()
                do()
                if turn:  # the first one warms the caches
                    times[name].append(1e3 * (time.thread_time() - start))
        rows.append({name: float(np.median(values)) for name, values in times.items()})
    ms = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    faster = {name: round(ms["exact" + name.removeprefix(name.split(",")[0])] / ms[name], 3) for name in ms if name != "T"}
    return {
        "images": len(images),
        "bytes per pixel": round(sum(map(len, images)) / sum(math.prod(read_size(data)) for data in images), 3),
        "ms": {name: round(value, 3) for name, value in ms.items()},
        "in T": {name: round(value / ms["T"], 3) for name, value in ms.items()},
        "times exact": {name: value for name, value in faster.items() if not name.startswith("exact")},
    }


def drawn(kind: str) -> Image.Image:
    """Draw 1800 x 2400 pixels by formula: edges, a landscape with details of all scales (as photographs have), or ever finer
    rings.
    """
    height, width = 1800, 2400
    if kind == "edges":
        return render(Spec(3, CLASS_NAMES.index("triangles"), "jpg", height, width))
    if kind == "rings":
        y, x = np.mgrid[:height, :width] / height - 0.5
        rings = 127.5 + 127.5 * np.cos(700 * (y**2 + (x - 0.15) ** 2))
        return Image.fromarray(np.stack([rings, rings, rings[::-1]], axis=2).astype(np.uint8))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]) + 1 / width
    layers = np.random.default_rng(5).normal(size=(3, height, width))
    layers = np.stack([np.fft.irfft2(np.fft.rfft2(layer) / frequency**1.15, (height, width)) for layer in layers])
    layers = (0.8 * layers[:1] + 0.35 * layers) / layers.std()  # mostly grey
    return Image.fromarray(np.clip(128 + 62 * layers.transpose(1, 2, 0), 0, 255).astype(np.uint8))


def side_by_side(path: Path) -> dict[str, Any]:
    """Draw "exact", "draft" and their difference into a file. Return the differences."""
    rows, answer = [], {}
    for kind in ("landscape", "edges", "rings"):
        data = saved(drawn(kind))
        plan = planned(data)
        exact, fast = (unpatchify(painted(data, mode, plan), plan[3], P).astype(np.int16) for mode in ("exact", "draft"))
        answer[kind] = {"scale": scale_for(plan[1], plan[2]), **distance([np.abs(fast - exact)], "")}
        gap = np.full((exact.shape[0], 8, 3), 255)
        rows.append(np.concatenate([exact, gap, fast, gap, np.minimum(8 * np.abs(fast - exact), 255)], axis=1)[:112])
        rows.append(np.full((8, rows[0].shape[1], 3), 255))
    Image.fromarray(np.concatenate(rows[:-1]).astype(np.uint8)).save(path, optimize=True)
    return answer


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shards", nargs="*", default=default_shards(), help=SHARDS)
    parser.add_argument("--images", type=int, default=200, help="photographs as they are")
    parser.add_argument("--large", type=int, default=4, help="JPEGs of 12 megapixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--budgets", action="store_true", help="PSNR of single photographs at several budgets")
    parser.add_argument("--picture", type=Path, help="draw this PNG instead")
    options = parser.parse_args()
    if options.picture:
        print(json.dumps(side_by_side(options.picture), indent=2))
        return
    photographs = list(files(options.shards, options.images))
    if not photographs:
        raise SystemExit("no JPEG files: name shards that hold some")
    if options.budgets:
        print(json.dumps(by_budget(photographs), indent=2))
        return
    sets = {"photographs": photographs}
    for make in (enlarged, tiled):
        starts = range(0, options.large * 9, 9)
        sets[f"12 megapixels, {make.__name__}"] = [make(photographs[at:] + photographs[:at]) for at in starts]
    answer = {
        "machine": {"cpu": platform.machine(), "threads": os.environ.get("OMP_NUM_THREADS"), "pillow": PIL.__version__},
        "difference": {name: difference(images) for name, images in sets.items()},
        "time": {name: timing(images, options.rounds) for name, images in sets.items()},
    }
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main()
