"""Cases of deciding: what recipes make of sizes and of pictures, and how lengths are packed."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from helpers.behaviour import data, names, parts
from helpers.behaviour.cases import loaded
from helpers.behaviour.recipes import DEFAULTS, PACKERS, PRESETS, RECIPES, p
from helpers.behaviour.registry import add
from helpers.behaviour.values import Parts


def decided(out: Parts, make: Callable[[], Any]) -> None:
    """Add what a recipe decides about sizes, without a picture."""
    made = make()
    sizes = np.random.default_rng(3).integers(1, 900, (300, 2))
    sizes[:8] = [(1, 1), (1, 899), (899, 1), (16, 16), (224, 224), (8, 500), (640, 480), (65, 33)]
    keys = [f"image {i}" for i in range(len(sizes))]
    hashes = names.call("key_hash", keys)
    for epoch, patch_size in product((0, 3), names.read(made, "patch_sizes")):
        table = names.call("plan_table", made, sizes, hashes, epoch=epoch, seen=5, patch_size=patch_size)
        parts.add_table(out, table)
        for size, key in zip(sizes[:40].tolist(), keys, strict=False):
            try:
                plan = names.call("plan_image", size, made, key=key, epoch=epoch, patch_size=patch_size)
            except names.find("PatchpackError") as error:
                out.add("image plans", names.kind_of(error))
            else:
                out.add("image plans", [names.read(plan, label) for label in names.IMAGE_PLAN])
    parts.add_study(out, names.call("study", sizes, made, epoch=1, keys=keys))
    out.add("patch sizes", [names.read(made, "patch_size_at")(2, step) for step in range(20)])
    out.add("bounds", [names.read(made, "row_len")(patch_size) for patch_size in names.read(made, "patch_sizes")])


def photographs() -> list[str]:
    """Write the drawn photographs as shards and keep a few of each."""
    from helpers.photographs import write_shards

    folder = Path("photographs")
    if folder.exists():
        return sorted(map(str, folder.glob("few-*.tar")))
    folder.mkdir()
    found = []
    for path in write_shards(folder):
        with tarfile.open(path) as tar:
            files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]  # regular files
        stems = list(dict.fromkeys(name.partition(".")[0] for name in files))[:4]
        kept = {stem: {name.partition(".")[2]: files[name] for name in files if name.startswith(f"{stem}.")} for stem in stems}
        found.append(data.write_tar(f"{folder}/few-{len(found)}.tar", kept))
    return found


def over_recipes() -> None:
    """Enter the cases of recipes."""
    for name, make in RECIPES.items():
        add(f"recipe/{name}/decisions", decided, make)
        add(f"recipe/{name}/batches", loaded, "shards", {"recipe": make, "on_error": "skip", "shuffle": 16})
    for name in DEFAULTS:
        add(f"preset/{name}/decisions", decided, p(f"recipes.{name}"))
    for name, make in PRESETS.items():
        add(f"preset/{name}/batches", loaded, photographs, {"recipe": make, "on_error": "skip"})
        add(f"preset/{name}/eval", loaded, photographs, {"recipe": evaluation(make), "on_error": "skip", "tail": "pad"})


def evaluation(make: Callable[[], Any]) -> Callable[[], Any]:
    """Return how to make the recipe of an evaluation."""
    return lambda: names.read(make(), "for_eval")()


def pushed(out: Parts, make: Callable[[], Any]) -> None:
    """Push items into a packer, go on in another one from its state, and add the rows as they close."""
    factory, rng = make(), np.random.default_rng(5)
    packer = factory(100, 6)
    for number, length in enumerate(rng.integers(1, 101, 150).tolist()):
        if number == 70:
            state = names.read(packer, "state_dict")()
            packer = factory(100, 6)
            names.read(packer, "load_state_dict")(state)
        item = names.call("Item", number, length, 1 + number % 3)
        out.add("rows", [[list(one) for one in names.read(row, "items")] for row in names.read(packer, "push")(item)])
    out.add("rest", [[list(one) for one in names.read(row, "items")] for row in names.read(packer, "flush")()])


def lengths(seed: int = 9) -> Any:
    """Return lengths of images as they come."""
    rng = np.random.default_rng(seed)
    return np.clip(np.rint(rng.lognormal(3.2, 0.7, 400)), 1, 128).astype(np.int64)


def packed(out: Parts, label: str, words: dict[str, Any]) -> None:
    """Pack lengths, with and without a limit on the items of a row."""
    for limit in (None, 3):
        made = names.call(label, lengths(), seq_len=128, max_images=limit, **words)
        parts.add_packing(out, names.read(made, "packing") if label == "pack_tight" else made)


def counted(out: Parts, method: str) -> None:
    """Pack a histogram of lengths."""
    made = names.call("pack_histogram", np.bincount(lengths()), seq_len=128, max_images=9, method=method)
    out.add("patterns", [names.read(made, label) for label in ("lengths", "repeats", "offsets", "rows", "num_rows")])


def balanced(out: Parts) -> None:
    """Deal rows to ranks."""
    rows = names.call("pack_lengths", lengths(), seq_len=128)
    for ranks, window in ((2, 64), (4, 8), (3, 1)):
        steps = names.call("balance", rows, lengths(), num_ranks=ranks, window=window, seed=3, epoch=1)
        costs = names.call("row_costs", rows, lengths(), cost=names.call("AttentionCost", 64 * ranks))
        out.add("steps", steps)
        out.add("costs", costs)
        out.add("imbalance", names.call("imbalance", steps, costs))


def priced(out: Parts) -> None:
    """Learn what lengths are worth, and pack by it."""
    prices = names.call("learn_prices", lengths(), seq_len=128)
    out.add("prices", None if prices is None else [names.read(prices, label) for label in ("seq_len", "units", "steps")])
    packer = names.call("Lookahead", 16, prices=prices)
    parts.add_packing(out, names.call("pack_stream", lengths(), seq_len=128, max_images=20, packer=packer))
    out.add("bounds", [names.call("lower_bound", lengths(), seq_len=128, max_images=limit) for limit in (None, 3)])
    out.add("bounds", names.call("lower_bound", lengths(), seq_len=128, lp=True))


def over_packing() -> None:
    """Enter the cases of packing."""
    for name, make in PACKERS.items():
        add(f"packer/{name}", pushed, make)
    for method in ("first_fit", "best_fit", "next_fit", "spread", "best_fit_decreasing", "spfhp", "lpfhp"):
        add(f"packing/{method}", packed, "pack_lengths", {"method": method})
    add("packing/spread with slots", packed, "pack_lengths", {"slots": 1 + lengths() % 3, "seed": 4})
    add("packing/stream", packed, "pack_stream", {})
    add("packing/tight", packed, "pack_tight", {"gap": 0.02})
    for method in ("spread", "best_fit_decreasing", "spfhp", "nnlshp"):
        add(f"packing/histogram {method}", counted, method)
    add("packing/balance", balanced)
    add("packing/prices", priced)


def enter() -> None:
    """Enter the cases."""
    over_recipes()
    over_packing()
