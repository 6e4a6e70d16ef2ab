"""What does a packed row save in a training step, which attention is fastest over it, and what is attention's share of a block?

    OMP_NUM_THREADS=1 python -m bench.model.attention [--part steps backends share] [--rounds 5] [--device cpu] [-o FILE.png]

The output is JSON. CPU figures are seconds of process time. In every round all candidates take turns. The lowest time counts.

`steps` measures forward and backward of the same images (24 native, 96 sampled) by one model of two blocks. The sizes of the
images are drawn from ImageNet's sizes, or from the sizes of the package's samples if ImageNet's list is not installed. *Padded*
is a batch as other libraries make it: one image per row, rows as long as the longest of eight images, and masked attention.
Everything except attention is computed on padding, too. *Packed* rows hold 1024 tokens. There are three kinds of sizes:

* `native`: each image has its own size, with at most 1024 tokens.
* `sampled`: each image has a resolution drawn from U(64, 256).
* `sampled and dropped`: in addition, half of an image's tokens are dropped on average, in packed and in padded rows. A third
  candidate is *padded square*, with every image at 256 × 256 pixels: training without drawn resolutions and dropping.

`backends` measures forward and backward of attention alone, with four heads of 16 channels and images of equal expected length
in a row. `share` measures attention's share of a block's forward pass under a dense mask, with 1, 2, 4 and 8 images of 256
tokens per row. Beside the share stands the formula ``n / (6 d + n)``, with n tokens attended per query, width d and MLP ratio
4.

`--device cuda` measures a ViT-B/16 in bfloat16 in place of all this: packed rows (varlen, flex, dense) against padded rows
(dense), in tokens/s.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

import patchpack as pp
from bench import lists
from patchpack.model import ViT, cross_entropy, presets
from patchpack.model.attention import NAMED
from patchpack.model.block import Block, BlockStyle
from patchpack.model.layout import Layout
from patchpack.model.positions import FactorizedPositions

IMAGES = {"native": 24, "sampled": 96, "sampled and dropped": 96}
TOGETHER, SEQ_LEN = 8, 1024
NAVIT = BlockStyle(bias=False, qk_norm=True)
ROWS = ((256, 16), (1024, 64), (4096, 64))  # row length, images per row
SHARE_WIDTHS, SHARE_IMAGES = (64, 128, 256, 512, 1024), (1, 2, 4, 8)


def samples(count: int) -> list[pp.Sample]:
    """Return pictures of noise in ImageNet's sizes."""
    random = np.random.default_rng(0)
    wh = lists.sizes("imagenet")
    shrunk = np.minimum(wh[random.integers(0, len(wh), count)][:, ::-1], 1024)
    return [pp.Sample(str(i), random.integers(0, 256, (h, w, 3), dtype=np.uint8), i % 10) for i, (h, w) in enumerate(shrunk)]


def recipes() -> dict[str, pp.Recipe]:
    """Return the recipes of the three kinds of sizes, for packed rows."""
    common = {"seq_len": SEQ_LEN, "max_images": 64, "rows_per_batch": 2}
    sampled = pp.resize.NaViT((64, 256))
    return {
        "native": pp.recipes.navit(resize=pp.resize.Native(SEQ_LEN), drop=pp.drop.NoDrop(), **common),
        "sampled": pp.recipes.navit(resize=sampled, drop=pp.drop.NoDrop(), **common),
        "sampled and dropped": pp.recipes.navit(resize=sampled, drop=pp.drop.Beta(0.5, 0.9), **common),
    }


def padded(recipe: pp.Recipe) -> pp.Recipe:
    """Return a recipe with one image per row. Rows are as long as the longest image of a batch."""
    return recipe.replace(seq_len=None, max_images=1, rows_per_batch=TOGETHER, packer=pp.packing.FirstFit())


def trimmed(batch: pp.PackedBatch) -> pp.PackedBatch:
    """Cut the rows of a batch to the length of the longest row."""
    longest = int((batch.segment_ids > 0).sum(1).max())
    return batch._replace(
        patches=batch.patches[:, :longest],
        position_ids=batch.position_ids[:, :longest],
        segment_ids=batch.segment_ids[:, :longest],
    )


def small(width: int, *, static: bool = False) -> ViT:
    torch.manual_seed(0)
    return ViT(
        patch_size=16, width=width, depth=2, heads=width // 16, num_classes=10, style=NAVIT, static=static,
        positions=FactorizedPositions(width=width, max_len=128),
    )  # fmt: skip


def step(model: ViT, batches: list[pp.PackedBatch]) -> None:
    """Run forward and backward of all images."""
    for batch in batches:
        cross_entropy(model(batch), batch.targets).backward()  # type: ignore[no-untyped-call]
    model.zero_grad()


def least(candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the lowest CPU seconds of each candidate. Each round runs all candidates. The first run of each does not count."""
    best = dict.fromkeys(candidates, float("inf"))
    for run in candidates.values():
        run()
    for _ in range(rounds):
        for name, run in candidates.items():
            start = time.process_time()
            run()
            best[name] = min(best[name], time.process_time() - start)
    return best


def steps(rounds: int, widths: tuple[int, ...] = (64, 192)) -> dict[str, Any]:
    """Measure training steps on packed and on padded rows."""
    found: dict[str, Any] = {}
    square = pp.recipes.square(size=256, seq_len=None, max_images=1, rows_per_batch=TOGETHER)
    for name, recipe in recipes().items():
        some = samples(IMAGES[name])
        arms = {"packed": list(pp.load(some, recipe)), "padded": [trimmed(batch) for batch in pp.load(some, padded(recipe))]}
        if recipe.drop != pp.drop.NoDrop():
            arms["padded square"] = list(pp.load(some, square))
        for batches in arms.values():
            assert {key for batch in batches for row in batch.keys for key in row} == {sample.key for sample in some}
        found[name] = {arm: {"fill": round(filled(batches), 3)} for arm, batches in arms.items()}
        for width in widths:
            models = {arm: small(width, static=arm != "packed") for arm in arms}
            runs = {arm: partial(step, models[arm], batches) for arm, batches in arms.items()}
            took = least(runs, rounds)
            for arm, seconds in took.items():
                found[name][arm][f"width {width}"] = {
                    "ms per image": round(seconds * 1e3 / len(some), 2), "of packed": round(seconds / took["packed"], 2)
                }  # fmt: skip
    return found


def filled(batches: list[pp.PackedBatch]) -> float:
    """Return real tokens / all tokens."""
    return sum(int(pp.token_mask(b).sum()) for b in batches) / sum(b.segment_ids.numel() for b in batches)


def backends(rounds: int) -> dict[str, Any]:
    """Return the ms of each attention."""
    found: dict[str, Any] = {}
    for seq_len, count in ROWS:
        cuts = np.sort(np.random.default_rng(0).choice(seq_len - 1, count - 1, replace=False)) + 1
        lengths = np.diff([0, *cuts, seq_len])
        layout = Layout.of(torch.from_numpy(np.repeat(np.arange(1, count + 1), lengths))[None], count)
        q, k, v = torch.randn(3, seq_len, 4, 16, generator=torch.Generator().manual_seed(0)).requires_grad_().unbind(0)

        took = least({name: partial(attend, name, (q, k, v), layout) for name in ("loop", "bucketed", "dense")}, rounds)
        found[f"{seq_len} / {count}"] = {name: round(seconds * 1e3, 2) for name, seconds in took.items()}
    return found


def attend(name: str, qkv: tuple[Tensor, ...], layout: Layout) -> None:
    """Run forward and backward of one attention."""
    torch.autograd.grad(NAMED[name](*qkv, layout).sum(), qkv)


def share(rounds: int) -> dict[str, Any]:
    """Return attention's share of a block in %, as measured and by the formula."""
    found: dict[str, Any] = {}
    for width in SHARE_WIDTHS:
        found[str(width)] = {}
        for images in SHARE_IMAGES:
            layout = Layout.of(torch.arange(1, images + 1).repeat_interleave(256)[None], images)
            block = Block(width=width, heads=max(1, width // 64), mlp_dim=4 * width, attend=NAMED["dense"], style=BlockStyle())
            x = torch.randn(256 * images, width)
            qkv = torch.randn(3, len(x), block.heads, width // block.heads).unbind(0)
            with torch.no_grad():
                took = least({"block": partial(block, x, layout), "attention": partial(NAMED["dense"], *qkv, layout)}, rounds)
            found[str(width)][str(images)] = {
                "measured": round(100 * took["attention"] / took["block"], 1),
                "formula": round(100 * 256 * images / (6 * width + 256 * images), 1),
            }
    return found


def on_cuda(rounds: int) -> dict[str, Any]:
    """Return the tokens/s of a training step of a ViT-B/16."""
    some = samples(256)
    recipe = recipes()["native"].replace(rows_per_batch=16)
    device = torch.device("cuda")
    moved = {
        "packed": [pp.standardize(batch.to(device)) for batch in pp.load(some, recipe)],
        "padded": [
            pp.standardize(trimmed(batch).to(device)) for batch in pp.load(some, padded(recipe).replace(rows_per_batch=32))
        ],
    }
    real = sum(int(pp.token_mask(batch).sum()) for batch in moved["packed"])
    found: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "real tokens": real}
    for name, arm, attention in (
        ("packed, varlen", "packed", "varlen"), ("packed, flex", "packed", "flex"), ("packed, dense", "packed", "dense"),
        ("padded, dense", "padded", "dense"),
    ):  # fmt: skip
        torch.manual_seed(0)
        model = presets.navit_b16(num_classes=10, attention=attention, static=arm == "padded").to(device)
        best = float("inf")
        for _ in range(rounds + 1):  # the first one compiles
            torch.cuda.synchronize()
            start = time.perf_counter()
            with torch.autocast("cuda", dtype=torch.bfloat16):
                step(model, moved[arm])
            torch.cuda.synchronize()
            best = min(best, time.perf_counter() - start)
        found[name] = {"real tokens/s": round(real / best)}
    return found


def draw(found: dict[str, Any], path: str) -> None:
    """Draw attention's share against width."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    widths = [int(width) for width in found]
    for i, images in enumerate(SHARE_IMAGES):
        colour = plt.get_cmap("viridis")(i / len(SHARE_IMAGES))
        lines = [found[str(width)][str(images)] for width in widths]
        axes.plot(widths, [line["measured"] for line in lines], "o-", color=colour, label=f"{images} × 256 tokens")
        axes.plot(widths, [line["formula"] for line in lines], "--", color=colour, lw=1)
    axes.plot([], [], "--", color="grey", lw=1, label="n / (6 d + n)")
    axes.set(xscale="log", xlabel="width d", ylabel="attention's share of a block, %", ylim=(0, 100))
    axes.set_xticks(widths, [str(width) for width in widths])
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, title="images to a row")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts: dict[str, Callable[[int], dict[str, Any]]] = {"steps": steps, "backends": backends, "share": share}
    parser.add_argument("--part", nargs="+", choices=[*parts], default=[*parts])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("-o", "--out", help="draw the shares: .png, .pdf or .svg")
    args = parser.parse_args()
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    if args.device == "cuda":
        found["cuda"] = on_cuda(args.rounds)
    else:
        found |= {name: parts[name](args.rounds) for name in args.part}
    print(json.dumps(found, indent=1, ensure_ascii=False))
    if args.out and "share" in found:
        draw(found["share"], args.out)


if __name__ == "__main__":
    main()
