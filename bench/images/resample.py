"""How much faster than Pillow does patchpack resample patches, with equal bytes? What do dropped patches save?

How fast are both at 12 megapixels?

    OMP_NUM_THREADS=1 python -m bench.images.resample [shards ...] [--images 100] [--rounds 5]

The figures are CPU time on one thread, in ms per image. The candidates take turns in every round. Each starts from a picture
that was decoded just before. Decoding is not timed. The median of each image counts. The output is JSON. ``equal`` compares
every byte.

* resize: the whole picture is resized to 64, 256 or 576 patches of 16 x 16 pixels with its aspect kept, and to twice its size.
  ``ratio`` is Pillow's time over ours. Our time is without the weights, as for a size that occurred before. ``weights`` is the
  time to compute the weights.
* keep: a share of 256 patches is kept, resampled bilinearly, normalised and written. The comparison resamples all patches with
  the same kernel, and then cuts, gathers and normalises them with numpy. ``share`` is the time relative to keeping all patches.
* large: Pillow decodes a JPEG of 12 megapixels. Then Pillow or patchpack resizes it to 256 patches.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import platform
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numba
import numpy as np
import PIL
from PIL import Image

import patchpack as pp
from bench.pictures import SHARDS, default_shards
from patchpack.image.decode import decode_image
from patchpack.paint import fused
from patchpack.paint.patchify import patch_view
from patchpack.paint.resample import FILTERS, norm_of, write_pixels
from patchpack.paint.weights import RADIUS, tables
from patchpack.types import Grid

P = 16
TASKS: dict[str, int | None] = {"64 patches": 64, "256 patches": 256, "576 patches": 576, "2 x up": None}


def files(shards: Sequence[str], limit: int) -> Iterator[bytes]:
    """Yield the bytes of the first JPEG members."""
    for shard in shards:
        with tarfile.open(shard) as tar:
            for member in tar:
                if limit and member.name.lower().endswith((".jpg", ".jpeg")):
                    limit -= 1
                    yield tar.extractfile(member).read()  # type: ignore[union-attr]  # a regular file


def size_for(picture: Image.Image, patches: int | None) -> tuple[int, int]:
    """Return a (height, width) in whole patches. If `patches` is None, return twice the picture's size."""
    if patches is None:
        return 2 * picture.height, 2 * picture.width
    scale = math.sqrt(patches * P * P / (picture.height * picture.width))
    return max(P, int(picture.height * scale) // P * P), max(P, int(picture.width * scale) // P * P)


def in_turn(candidates: dict[str, Callable[[Any], Any]], fresh: Callable[[], Any], rounds: int) -> dict[str, float]:
    """Return the median ms of each candidate. All run one after the other in every round, each on a new result of `fresh`."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(rounds + 1):
        for name, run in candidates.items():
            given = fresh()
            start = time.thread_time()
            run(given)
            if turn:  # the first one warms the caches
                times[name].append(1e3 * (time.thread_time() - start))
    return {name: float(np.median(values)) for name, values in times.items()}


def mean(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean over images."""
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}


def resizing(images: list[bytes], rounds: int) -> dict[str, Any]:
    """Measure the resizing of whole pictures."""
    answer: dict[str, Any] = {}
    for kernel in RADIUS:
        for task, patches in TASKS.items():
            rows, weights, equal = [], [], True
            for data in images:
                picture = decode_image(data)
                size = size_for(picture, patches)
                anew = partial(tables.__wrapped__, picture.height, picture.width, size, kernel)
                weights.append(
                    in_turn({"weights": lambda _, anew=anew: anew()}, partial(decode_image, data), rounds)["weights"]
                )
                run = {
                    "pillow": partial(pillow_resize, size=size, kernel=kernel),
                    "ours": partial(fused.resize, size=size, kernel=kernel),
                }
                equal &= np.array_equal(np.asarray(run["pillow"](picture)), run["ours"](picture))
                rows.append(in_turn(run, partial(decode_image, data), rounds))
            times = mean(rows)
            ratio, anew = round(times["pillow"] / times["ours"], 2), round(float(np.mean(weights)), 4)
            answer[f"{kernel}, {task}"] = {**times, "weights": anew, "ratio": ratio, "equal": equal}
    return answer


def pillow_resize(picture: Image.Image, *, size: tuple[int, int], kernel: str) -> Image.Image:
    """Resize with Pillow, the peer."""
    return picture.resize(size[::-1], FILTERS[kernel])


def paint_kept(picture: Image.Image, *, out: Any, size: tuple[int, int], kept: Any, recipe: pp.Recipe) -> None:
    """Resample and write the kept patches as the painter does."""
    grid, box = Grid(size[0] // P, size[1] // P), (0, 0, picture.height, picture.width)
    write_pixels(out, picture, box, size, False, grid, kept, P, recipe)


def resize_all(picture: Image.Image, *, out: Any, size: tuple[int, int], kept: Any, recipe: pp.Recipe) -> None:
    """Resample every pixel, then cut, gather and normalise the kept patches."""
    view = patch_view(fused.resize(picture, size, recipe.resample), P)
    cols = view.shape[1]
    chosen = view.reshape(len(kept), *view.shape[2:]) if len(kept) == view.shape[0] * cols else view[kept // cols, kept % cols]
    if recipe.dtype != "uint8":
        norm = norm_of(recipe.normalize)
        chosen = (chosen.astype(np.float32) - norm[0]) / norm[1]
    out.reshape(chosen.shape)[...] = chosen


def keeping(images: list[bytes], rounds: int) -> dict[str, Any]:
    """Measure the resampling of kept patches."""
    answer: dict[str, Any] = {}
    for dtype in ("uint8", "float32", "float16"):
        recipe = pp.Recipe(resize=pp.resize.NaFlex(256), dtype=dtype)  # type: ignore[arg-type]  # one of its names
        rows, equal = [], True
        for number, data in enumerate(images):
            picture = decode_image(data)
            size = size_for(picture, 256)
            n = size[0] // P * (size[1] // P)
            order = np.random.default_rng(number).permutation(n)
            run: dict[str, Callable[[Any], Any]] = {}
            for share in (1, 0.5, 0.25):
                kept = np.sort(order[: max(1, round(share * n))])
                out = np.empty((len(kept), P * P * 3), dtype=dtype)
                ours, theirs = (partial(f, out=out, size=size, kept=kept, recipe=recipe) for f in (paint_kept, resize_all))
                ours(picture)
                painted = out.copy()
                theirs(picture)
                equal &= np.array_equal(out, painted)
                run[f"keep {share}"], run[f"resize all, keep {share}"] = ours, theirs
            rows.append(in_turn(run, partial(decode_image, data), rounds))
        times = mean(rows)
        shares = {f"share {share}": round(times[f"keep {share}"] / times["keep 1"], 3) for share in (0.5, 0.25)}
        against = round(times["keep 1"] / times["resize all, keep 1"], 3)
        answer[dtype] = {**times, **shares, "keep 1 over resize all": against, "equal": equal}
    return answer


def decode_with_pillow(data: bytes) -> Image.Image:
    """Decode with Pillow. Every exact way takes at least this time."""
    image = Image.open(io.BytesIO(data), formats=("JPEG",))
    image.load()
    return image


def large(data: bytes, rounds: int) -> dict[str, Any]:
    """Measure JPEG files of 12 megapixels, made from a photograph."""
    answer: dict[str, Any] = {}
    for height, width in ((3000, 4000), (4000, 3000)):
        file = io.BytesIO()
        decode_image(data).resize((width, height), Image.Resampling.BICUBIC).save(file, "jpeg", quality=90)
        big = file.getvalue()
        size = size_for(Image.open(io.BytesIO(big)), 256)
        for kernel in RADIUS:
            run: dict[str, Callable[[bytes], Any]] = {
                "decode": decode_with_pillow,
                "decode, pillow": lambda data, s=size, k=kernel: pillow_resize(decode_with_pillow(data), size=s, kernel=k),
                "decode, ours": lambda data, s=size, k=kernel: fused.resize(decode_image(data), s, k),
            }
            equal = np.array_equal(np.asarray(run["decode, pillow"](big)), run["decode, ours"](big))
            times = {name: round(value, 2) for name, value in in_turn(run, lambda big=big: big, rounds).items()}
            ratio = round(times["decode, pillow"] / times["decode, ours"], 3)
            answer[f"{height} x {width}, {kernel}"] = {**times, "ratio": ratio, "equal": equal}
    return answer


def main() -> None:
    """Measure all three parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="*", default=default_shards(), help=SHARDS)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    images = list(files(args.shards, args.images))
    fused.pillow_order()  # compiles
    answer = {
        "images": len(images),
        "megapixels": round(float(np.mean([math.prod(decode_image(data).size) for data in images])) / 1e6, 4),
        "resize": resizing(images, args.rounds),
        "keep": keeping(images, args.rounds),
        "large": large(images[0], args.rounds),
        "pillow": PIL.__version__,
        "numpy": np.__version__,
        "numba": numba.__version__,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
    }
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main()
