"""What do the rules look like? This script draws the figures of docs/explain from the sample shards.

The library paints or plans everything in the figures. Nothing is sketched by hand.

    python -m bench.images.figures docs/images                                        # all figures, one minute of CPU time
    python -m bench.images.figures docs/images --only resize-rules attention-blocks   # some figures
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, ListedColormap
from matplotlib.figure import Figure
from PIL import Image

import patchpack as pp
from patchpack.batch.unpack import PackedImage
from patchpack.cli.pictures.sheet import FAINT, GROUND, HUES, INK, SOFT
from patchpack.paint.patchify import unpatchify
from patchpack.plan.table import plan_table

STYLE = {
    "font.family": ["DejaVu Sans"], "font.size": 10, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": FAINT,
    "axes.titlesize": 10.5, "axes.titlelocation": "left", "xtick.color": SOFT, "ytick.color": SOFT,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
}  # fmt: skip
HEAT = LinearSegmentedColormap.from_list("heat", ["#ffffff", "#cfe3f1", "#56b4e9", "#0072b2", "#0b2d4d"])
DROPPED = np.array([236, 239, 242])
IMAGES = {"shape-00110": "78 × 99", "shape-00056": "123 × 67", "shape-00069": "29 × 99", "shape-00098": "24 × 24"}
EPOCHS = 40  # passes over the samples in the figures of packing: 16,800 images
ONE_IMAGE = {"patch_size": 8, "seq_len": 4096, "max_images": 1, "rows_per_batch": 1, "dtype": "uint8"}


def samples(*splits: str) -> dict[str, Any]:
    """Return the samples of some splits, as the loader reads them, by the stem of the key."""
    import webdataset as wds

    found = {}
    for split in splits or ("train",):
        for sample in wds.WebDataset(pp.samples.shards(split), shardshuffle=False):
            found[sample["__key__"]] = next(sample[name] for name in ("jpg", "png", "webp") if name in sample)
    return found


def sizes() -> np.ndarray:
    """Return height and width of the training samples, ``[420, 2]``."""
    return np.array([Image.open(io.BytesIO(data)).size[::-1] for data in samples("train").values()])


def painted(data: bytes, recipe: pp.Recipe) -> tuple[np.ndarray, PackedImage]:
    """Return the pixels of an image as a batch holds them, grey where a patch was dropped. Return the packed image, too."""
    image = next(pp.unpack(next(iter(pp.pack_images([data], recipe)))))
    rows, cols = image.grid
    p = recipe.patch_sizes[0]
    patches = np.tile(DROPPED.astype(np.uint8), (rows * cols, p * p))
    ids = np.asarray(image.position_ids)
    patches[ids[:, 0] * cols + ids[:, 1]] = np.asarray(image.patches)
    return unpatchify(patches, (rows, cols), p), image


def resize() -> Figure:
    """Draw four samples under every resize rule, at one scale."""
    rules = {
        "NaViT(64)": pp.resize.NaViT(64), "Pix2Struct(64)": pp.resize.Pix2Struct(64), "NaFlex(64)": pp.resize.NaFlex(64),
        "SmartResize": pp.resize.SmartResize(2048, 4096), "LongestSide(64)": pp.resize.LongestSide(64),
        "Square(64)": pp.resize.Square(64),
        "Native(64)": pp.resize.Native(64), "Native(64, pad)": pp.resize.Native(64, edge="pad"),
    }  # fmt: skip
    files = samples()
    pictures = [[(np.asarray(Image.open(io.BytesIO(files[key])).convert("RGB")), None) for key in IMAGES]]
    for rule in rules.values():
        recipe = pp.Recipe(resize=rule, **ONE_IMAGE)
        pictures.append([(pixels, image.grid) for pixels, image in (painted(files[key], recipe) for key in IMAGES)])
    names = ("file", *rules)
    heights = [max(column[i][0].shape[0] for column in pictures) for i in range(len(IMAGES))]
    columns = zip(names, pictures, strict=True)
    widths = [max(7 * len(name), *(pixels.shape[1] for pixels, _ in column)) for name, column in columns]
    figure = Figure(figsize=(13.2, 13.2 * (sum(heights) + 4 * 21 + 14) / (sum(widths) + 9 * 9)))
    gap, lead, total_w, total_h = 9, 21, sum(widths) + 9 * 9, sum(heights) + 4 * 21 + 14
    left = 4
    for name, column, width in zip(names, pictures, widths, strict=True):
        top = 14
        figure.text(left / total_w, 1 - 8 / total_h, name, weight="bold", va="center", size=10)
        for (pixels, grid), height, size in zip(column, heights, IMAGES.values(), strict=True):
            h, w = pixels.shape[:2]
            axes = figure.add_axes((left / total_w, 1 - (top + h + 2) / total_h, w / total_w, h / total_h))
            axes.imshow(pixels, interpolation="nearest", aspect="auto", extent=(0, w, h, 0))
            if grid:
                axes.set_xticks(np.arange(0, w + 1, 8)), axes.set_yticks(np.arange(0, h + 1, 8))
                axes.grid(color="white", linewidth=0.5, alpha=0.65)
            axes.tick_params(length=0, labelbottom=False, labelleft=False)
            for spine in axes.spines.values():
                spine.set(visible=True, color=FAINT, linewidth=0.8)
            text = size if grid is None else f"{grid[0]} × {grid[1]} = {grid[0] * grid[1]}"
            figure.text(left / total_w, 1 - (top + h + 9) / total_h, text, color=SOFT, size=9, va="center")
            top += height + lead
        left += width + gap
    return figure


def drop() -> Figure:
    """Draw the densities of the drop rate under the three kinds of drop policies, and what remains of a picture."""
    figure = Figure(figsize=(11, 6.1), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(8, 5))
    u = (np.arange(20_000) + 0.5) / 20_000
    beta, by_resolution, scheduled = above.subplots(1, 3)
    means = np.arange(0.05, 0.9, 0.05)
    edges = np.linspace(0, 0.9, 46)
    density = np.array([np.histogram(pp.drop.Beta(m, 0.9).rates(u), edges, density=True)[0] for m in means])
    mesh = beta.pcolormesh(edges, np.append(means, 0.9) - 0.025, np.minimum(density, 4), cmap=HEAT, vmin=0, vmax=4)
    beta.plot(means, means, color="#d55e00", linewidth=1.2)
    beta.set(xlabel="drop rate of an image", ylabel="mean", title="Beta(mean, max_rate=0.9)")
    above.colorbar(mesh, ax=beta, label="density, 4 and more", fraction=0.05)

    policy = pp.drop.ByResolution(0.1, 0.9, fewest=16, most=576)
    patches = np.arange(8, 640, 8)
    edges = np.linspace(0, 1, 101)
    density = np.array([np.histogram(policy.rates(np.full(len(u), n), u), edges, density=True)[0] for n in patches])
    by_resolution.pcolormesh(np.append(patches, 640) - 4, edges, density.T, cmap=HEAT)
    by_resolution.set(xlabel="patches of an image", ylabel="drop rate", title="ByResolution(0.1, 0.9, 16, 576)", xlim=(0, 640))

    seen = np.linspace(0, 10e6, 400)
    curves = {
        "width = −0.5 M": (pp.drop.Scheduled(5e6, -5e5), HUES[0], "-"),
        "width = −2 M": (pp.drop.Scheduled(5e6, -2e6), HUES[0], "--"),
        "width = +0.5 M": (pp.drop.Scheduled(5e6, 5e5), HUES[3], "-"),
    }
    for label, (schedule, colour, dash) in curves.items():
        scheduled.plot(seen / 1e6, schedule.rates(seen), color=colour, linestyle=dash, label=label)
    scheduled.set(xlabel="images seen, millions", ylabel="drop rate", title="Scheduled(midpoint=5 M, width)", ylim=(0, 1))
    scheduled.legend(fontsize=9, loc="lower center", bbox_to_anchor=(0.5, -0.02))

    data = samples()["shape-00110"]
    panels = below.subplots(1, 5)
    for panel, rate in zip(panels, (0, 0.25, 0.5, 0.75, 0.9), strict=True):
        pixels, image = painted(data, pp.Recipe(resize=pp.resize.NaViT(96), drop=pp.drop.Constant(rate), **ONE_IMAGE))
        panel.imshow(pixels, interpolation="nearest")
        panel.set_title(f"rate {rate}: {len(image.patches)} of {image.grid[0] * image.grid[1]}")
        panel.set_axis_off()
    return figure


def mask() -> Figure:
    """Draw which tokens attend to which in three rows of 256 tokens: padded, packed, and packed with dropped tokens."""
    dropped = pp.recipes.navit(seq_len=256, rows_per_batch=1, resize=pp.resize.NaViT((64, 192)))
    whole = dropped.replace(drop=pp.drop.NoDrop())
    made = {"one image to a row": whole.replace(max_images=1), "packed": whole, "packed, tokens dropped": dropped}
    cmap, ticks = ListedColormap([GROUND, *HUES]), (0, 64, 128, 192, 256)
    figure = Figure(figsize=(11, 4.1), layout="constrained")
    for panel, (title, recipe) in zip(figure.subplots(1, 3, sharey=True), made.items(), strict=True):
        batch = next(iter(pp.load(pp.samples.shards("train"), recipe)))
        allowed = np.asarray(pp.attention_mask(batch))[0]
        segment = np.asarray(batch.segment_ids)[0].astype(int)
        colours = np.where(allowed, (segment[:, None] - 1) % 8 + 1, 0)
        panel.imshow(colours, cmap=cmap, vmin=0, vmax=8, interpolation="nearest")
        count = int(batch.num_images[0])
        shares = f"{100 * pp.fill_rate(batch):.1f} % full, {100 * allowed.mean():.0f} % of pairs"
        panel.set_title(f"{title}\n{count} image{'s' * (count > 1)}, {shares}", pad=8)
        panel.set(xlabel="key", xticks=ticks, yticks=ticks, xlim=(0, 256), ylim=(256, 0))
        for spine in panel.spines.values():
            spine.set_visible(True)
    figure.axes[0].set_ylabel("query")
    return figure


def lookahead() -> Figure:
    """Draw how full rows are against the number of waiting images, for three recipes and two packers."""
    shapes = np.tile(sizes(), (EPOCHS, 1))[np.random.default_rng(0).permutation(420 * EPOCHS)]
    keys = np.arange(len(shapes), dtype=np.uint64)
    recipes = {
        "navit, 256 tokens": pp.recipes.navit(seq_len=256),
        "navit without dropping, 256": pp.recipes.navit(seq_len=256, drop=pp.drop.NoDrop()),
        "native, p 8, 256": pp.Recipe(resize=pp.resize.Native(256), patch_size=8, seq_len=256),
    }
    waiting = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    axes = figure.subplots()
    for colour, (name, recipe) in zip((HUES[0], HUES[3], HUES[2]), recipes.items(), strict=True):
        lengths = plan_table(recipe, shapes, keys).num_tokens.astype(np.int64)
        fills = {}
        for kind, packer in (("Lookahead", pp.packing.Lookahead), ("FirstFit", pp.packing.FirstFit)):
            fills[kind] = [fill(lengths, packer(n)) for n in waiting]
            print(name, kind, dict(zip(waiting, (round(100 * f, 2) for f in fills[kind]), strict=True)))
        axes.plot(waiting, padding(fills["Lookahead"]), "o-", color=colour, markersize=4.5, label=name)
        axes.plot(waiting, padding(fills["FirstFit"]), "s--", color=colour, markersize=3.5, alpha=0.6)
    axes.set_xscale("log", base=2), axes.set_yscale("log")
    axes.set_xticks(waiting, [str(n) for n in waiting])
    axes.set_yticks((0.005, 0.01, 0.1, 1, 10, 30), ("≤ 0.005", "0.01", "0.1", "1", "10", "30"))
    axes.minorticks_off()
    axes.grid(axis="y", color=GROUND)
    axes.set(xlabel="images that wait (Lookahead), rows that are open (FirstFit)", ylabel="padding, % of all tokens")
    axes.plot([], [], "o-", color=SOFT, label="Lookahead(waiting)", markersize=4.5)
    axes.plot([], [], "s--", color=SOFT, label="FirstFit(open rows)", markersize=3.5, alpha=0.6)
    axes.legend(fontsize=9)
    return figure


def padding(fills: list[float]) -> np.ndarray:
    """Return the share of padding in percent. No value is below the lower end of the axis."""
    return np.maximum(100 * (1 - np.array(fills)), 0.005)


def fill(lengths: np.ndarray, packer: Any) -> float:
    """Return the fill rate of rows of 256 tokens and 64 slots that a packer makes from a stream.

    The last ten rows are left out.
    """
    made, rows = packer(256, 64), []
    for i, n in enumerate(lengths.tolist()):
        rows += made.push(pp.packing.Item(i, n))
    rows += made.flush()
    full = [sum(item.num_tokens for item in row.items) for row in rows]
    return float(np.mean(full[: max(1, len(full) - 10)])) / 256


def lengths() -> Figure:
    """Draw the tokens per image of three recipes, with the bound of each recipe and a row length that holds it."""
    shapes = np.tile(sizes(), (EPOCHS, 1))
    keys = np.arange(len(shapes), dtype=np.uint64)
    recipes = {
        "navit: U(64, 256), tokens dropped": pp.recipes.navit(seq_len=1024),
        "navit without dropping": pp.recipes.navit(seq_len=1024, drop=pp.drop.NoDrop()),
        "siglip2_naflex(max_patches=256)": pp.recipes.siglip2_naflex(seq_len=1024),
    }
    figure = Figure(figsize=(7.6, 4.6), layout="constrained")
    panels = figure.subplots(3, 1, sharex=True)
    for axes, colour, (name, recipe) in zip(panels, (HUES[0], HUES[3], HUES[2]), recipes.items(), strict=True):
        tokens = plan_table(recipe, shapes, keys).num_tokens
        bound = recipe.resize.bound(16)
        axes.hist(tokens, np.arange(0.5, 260, 4), color=colour, weights=np.full(len(tokens), 100 / len(tokens)))
        axes.axvline(tokens.mean(), color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_title(f"{name}: mean {tokens.mean():.0f}, bound {bound}; {1024 / tokens.mean():.0f} images to a row of 1024")
        axes.set_ylabel("% of images")
        axes.axvline(bound + 0.5, color=FAINT, linewidth=1.2)
    axes.set(xlabel="tokens per image (dashed: mean, grey: what the rule promises never to exceed)", xlim=(0, 264))
    return figure


def kernels() -> Figure:
    """Draw a kernel for patches of 16 pixels at other sizes, by plain resizing and by pseudo-inverse, with a constant patch's
    token.
    """
    import torch

    from patchpack.model.kernel import resize_kernel

    y, x = torch.meshgrid(torch.linspace(-1, 1, 16), torch.linspace(-1, 1, 16), indexing="ij")
    kernel = torch.exp(-(x**2 + y**2) * 2) * (1 + torch.cos(7 * (x + 0.6 * y))) / 64
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    panels = figure.subplots(2, 5)
    for line, method, name in zip(panels, ("plain", "pi"), ("plain resize", "PI-resize"), strict=True):
        for panel, p in zip(line, (8, 12, 16, 24, 32), strict=True):
            made = resize_kernel(kernel, (p, p), method=method)
            panel.imshow(made, cmap="viridis", interpolation="nearest", vmin=0)
            panel.set_title(f"p {p}: white × {made.sum() / kernel.sum():.2f}")
            panel.set(xticks=(), yticks=())
        line[0].set_ylabel(name)
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    "resize-rules": resize, "drop-rates": drop, "attention-blocks": mask, "fill-lookahead": lookahead, "token-lengths": lengths,
    "kernels": kernels,
}  # fmt: skip


def save(figure: Figure, path: Path) -> None:
    """Write a PNG of 256 colours that holds no dates and no versions."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=120, facecolor="white", metadata={"Software": None})
    Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(path, path.stat().st_size // 1000, "kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="a folder")
    parser.add_argument("--only", nargs="+", choices=FIGURES, default=list(FIGURES))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        for name in asked.only:
            save(FIGURES[name](), asked.out / f"{name}.png")


if __name__ == "__main__":
    main()
