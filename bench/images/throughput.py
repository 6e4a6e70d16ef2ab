"""What does an image cost from file bytes to its slot in a packed batch, beside bare decoding and beside other packages
(peers)?

    python -m bench.images.throughput [SHARDS ...] [--images 200] [--rounds 7] [--quick] [--json FILE] [--parts rates large ...]

Everything goes through the public API. The figures are CPU time on one thread, with the pictures in memory. Contenders take
turns in rounds (`bench.images.rounds`). Ratios are taken inside a round. The output has medians and quartiles over the rounds.
T is Pillow's open and load of the same bytes. Peers that are not installed are named with the reason
(``pip install -e '.[bench-images]'``). The parts are:

* ``rates``: from bytes to batches and from decoded pictures to batches, with patchpack and with the peers. Counts of the
  results stand beside the times. The stages of patchpack are timed one by one.
* ``scaling``: two workers against one thread, beside two processes that only decode (wall time).
* ``large``: JPEGs of 12 megapixels: patchpack against Pillow's decode and resize, and the peak memory of a stream of such
  files.
* ``start``: seconds to import, to ``--help``, and to a first batch.

The output is tables. ``--json`` writes the same figures with quartiles. The targets are the project's own, for photographs of
0.2 megapixels.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import patchpack as pp
from bench import threads
from bench.images import children, scaling
from bench.images.machine import environment
from bench.images.peers import BUDGET, PATCH
from bench.images.peers import find as find_peers
from bench.images.rounds import Contender, Made, Times, differences, ratios, spread, take_turns, try_all
from bench.pictures import SHARDS, Pictures, default_shards, enlarged, read_pictures
from patchpack.image.size import read_size
from patchpack.types import BatchPlan

PARTS = ("rates", "scaling", "large", "start")

HALF = pp.recipes.siglip2_naflex(max_patches=BUDGET, drop=pp.drop.Beta(0.5, 0.9))
WHOLE = pp.recipes.siglip2_naflex(max_patches=BUDGET, dtype="float32")
WHOLE_UINT8 = WHOLE.replace(dtype="uint8")
RECIPES = {"uint8, half dropped": HALF, "float32, none dropped": WHOLE, "uint8, none dropped": WHOLE_UINT8}
# ways to paint large files: name → changed fields of the recipe
MODES: dict[str, dict[str, Any]] = {"exact": {}, "draft": {"decode": "draft"}}

T = "T: Pillow open + load"
# number, contender above, contender below, "<=" or ">=", target of the ratio
TARGETS = [
    (1, "ours, uint8, half dropped", T, "<=", 1.15),
    (1, "ours, float32, none dropped", T, "<=", 1.32),
    (2, "Siglip2 fast", "ours, uint8, half dropped", ">=", 1.7),
    (2, "Siglip2 PIL", "ours, uint8, half dropped", ">=", 2.4),
    (2, "Pix2Struct fast", "ours, uint8, half dropped", ">=", 3.2),
    (2, "Pix2Struct PIL", "ours, uint8, half dropped", ">=", 3.2),
    (2, "timm NaFlex", "ours, uint8, half dropped", ">=", 2.1),
    (2, "Siglip2 fast", "ours, float32, none dropped", ">=", 1.45),
    (3, "Siglip2 fast, from PIL", "ours, uint8, half dropped, from arrays", ">=", 4.0),
    (3, "Siglip2 fast, from PIL", "ours, float32, none dropped, from arrays", ">=", 2.1),
]


def count_ours(batch: pp.PackedBatch) -> Made:
    """Count the contents of a batch of patchpack."""
    return Made(int(batch.slot_mask.sum()), int(pp.token_mask(batch).sum()), batch.segment_ids.numel())


def our_contenders(pictures: Pictures) -> tuple[list[Contender], list[Contender]]:
    """Return T and patchpack's contenders that start from file bytes, and patchpack's contenders that start from decoded
    pictures.
    """
    from_bytes = [Contender(T, lambda: _bare(pictures.files, pictures.formats))]
    decoded = []
    for name, recipe in RECIPES.items():
        from_bytes.append(_loading(f"ours, {name}", pictures.files, recipe))
        decoded.append(_loading(f"ours, {name}, from arrays", pictures.arrays, recipe))
    pil = [pp.Sample(s.key, image, s.target) for s, image in zip(pictures.files, pictures.pil, strict=True)]
    decoded.append(_loading("ours, uint8, half dropped, from PIL", pil, HALF))
    return from_bytes, decoded


def _loading(name: str, source: Any, recipe: pp.Recipe) -> Contender:
    return Contender(name, lambda: pp.load(source, recipe, on_error="skip"), count_ours)


def _bare(files: Sequence[pp.Sample], formats: tuple[str, ...]) -> Iterator[None]:
    for sample in files:
        Image.open(io.BytesIO(sample.image), formats=formats).load()
    yield None


def our_stages(pictures: Pictures, shards: Sequence[str], recipe: pp.Recipe) -> list[Contender]:
    """Return contenders for single stages: planning and painting, each from bytes and from pixels, and reading file and label
    on disk.
    """
    planners = {form: pp.Planner(getattr(pictures, form), recipe) for form in ("files", "arrays")}
    stages = []
    for form, planner in planners.items():
        painter, plans = pp.Painter(planner, on_error="skip"), list(planner)
        stages.append(Contender(f"plan {form}", _again(planner)))
        stages.append(Contender(f"paint {form}", _painting(painter, plans)))
    on_disk = pp.Planner(list(shards), recipe)
    locations = [header.location for plan in on_disk for header in plan.headers][: len(pictures)]
    stages.append(Contender("fetch", lambda: map(on_disk.source.reader, locations)))
    return stages


def _again(planner: pp.Planner) -> Any:
    return lambda: planner


def _painting(painter: pp.Painter, plans: list[BatchPlan]) -> Any:
    return lambda: map(painter.__getitem__, plans)


def breakdown(times: Times, whole: str) -> dict[str, Any]:
    """Return microseconds per image by stage, as differences inside a round. `whole` names the loader with the same recipe."""
    parts = {
        "header (bytes to size)": differences(times, "plan files", "plan arrays"),
        "plan (draws, grids, rows)": times["plan arrays"],
        "decode": differences(times, "paint files", "paint arrays"),
        "resample + write": times["paint arrays"],
        "rest (loader, tensors)": differences(times, whole, "plan files", "paint files"),
        "all, from bytes in memory": times[whole],
        "fetch from shards on disk, on top": times["fetch"],
    }
    return {name: spread([1e3 * ms for ms in values], 1) for name, values in parts.items()}


def rates(pictures: Pictures, shards: Sequence[str], rounds: int, batch_size: int, *, peers: bool = True) -> dict[str, Any]:
    """Measure the first part: contenders in turns, targets and stages."""
    from_bytes, decoded = our_contenders(pictures)
    missing: dict[str, str] = {}
    if peers:
        peers_from_bytes, peers_decoded, missing = find_peers(pictures, batch_size)
        from_bytes += peers_from_bytes
        decoded += peers_decoded
    able, quality, failed = try_all([*from_bytes, *decoded, *our_stages(pictures, shards, HALF)], len(pictures))
    times = take_turns(able, len(pictures), rounds)
    shown = [contender.name for contender in (*from_bytes, *decoded) if contender.name in times]
    return {
        "contenders": {
            name: {"ms": spread(times[name]), "over T": spread(ratios(times, name, T)), **quality.get(name, {})}
            for name in shown
        },
        "missing": {**missing, **failed},
        "targets": [_judged(times, *target) for target in TARGETS if target[1] in times and target[2] in times],
        "stages, us, uint8 half dropped": breakdown(times, "ours, uint8, half dropped"),
    }


def _judged(times: Times, figure: int, above: str, below: str, sign: str, target: float) -> dict[str, Any]:
    measured = spread(ratios(times, above, below))
    met = measured["median"] <= target if sign == "<=" else measured["median"] >= target
    return {"figure": figure, "ratio": f"{above} / {below}", **measured, "target": f"{sign} {target}", "met": met}


def large(pictures: Pictures, *, count: int, rounds: int, stream: int) -> dict[str, Any]:
    """Measure files of 12 megapixels: patchpack's time against Pillow's, and the memory of a stream."""
    files = enlarged(pictures, count)
    grids = {sample.key: pp.resize.NaFlex(BUDGET)([read_size(sample.image)], PATCH)[0] for sample in files}

    def pillow() -> Iterator[None]:
        for sample in files:
            height, width = (int(n) * PATCH for n in grids[sample.key])
            image = Image.open(io.BytesIO(sample.image), formats=("JPEG",)).convert("RGB")
            image.resize((width, height), Image.Resampling.BILINEAR)
        yield None

    contenders = [Contender(T, lambda: _bare(files, ("JPEG",))), Contender("Pillow decode + resize", pillow)]
    contenders += [_loading(f"ours, {mode}", files, WHOLE_UINT8.replace(**changes)) for mode, changes in MODES.items()]
    contenders, _, missing = try_all(contenders, count)
    times = take_turns(contenders, count, rounds)
    return {
        "files": {"count": count, "MB, mean": round(sum(len(sample.image) for sample in files) / count / 1e6, 2)},
        "contenders": {
            name: {"ms": spread(values, 1), "over Pillow": spread(ratios(times, name, "Pillow decode + resize"))}
            for name, values in times.items()
        },
        "missing": missing,
        "stream": {
            f"{mode}, {kind}": children.peak_memory(files, stream, kind, changes)
            for mode, changes in MODES.items()
            for kind in ("folder", "iterable")
        },
    }


def show(results: dict[str, Any]) -> None:
    """Print the results as tables."""
    print(json.dumps(results["environment"]))
    print(json.dumps(results["pictures"]))
    if part := results.get("rates"):
        print(f"\n{'':44} {'ms':>8}  quartiles        {'over T':>7}  {'lost':>4} {'tokens':>6} {'fill %':>6}")
        for name, line in part["contenders"].items():
            low, high = line["ms"]["quartiles"]
            quality = f"{line['images lost']:>4} {line['tokens per image']:>6} {line['fill %']:>6}" if "fill %" in line else ""
            print(f"{name:44} {line['ms']['median']:8.3f}  {low:6.3f} … {high:6.3f} {line['over T']['median']:8.3f}  {quality}")
        for name, why in part["missing"].items():
            print(f"{name:44} missing: {why}")
        print("\nstages, microseconds per image (uint8, half dropped)")
        for name, line in part["stages, us, uint8 half dropped"].items():
            print(f"  {name:36} {line['median']:8.1f}  {line['quartiles'][0]:8.1f} … {line['quartiles'][1]:.1f}")
        print("\ntargets")
        for line in part["targets"]:
            mark = "met    " if line["met"] else "not met"
            print(f"  {line['figure']}  {mark} {line['median']:6.2f}  {line['target']:>7}  {line['ratio']}")
    for name in ("scaling", "large", "start"):
        if name in results:
            print(f"\n{name}")
            _show_tree(results[name])


def _show_tree(tree: dict[str, Any], indent: str = "  ") -> None:
    for name, value in tree.items():
        if isinstance(value, dict) and "median" not in value:
            print(f"{indent}{name}")
            _show_tree(value, indent + "  ")
        else:
            values = value if isinstance(value, list) else [value]
            shown = [f"{v['median']} ({v['quartiles'][0]} … {v['quartiles'][1]})" if isinstance(v, dict) else v for v in values]
            print(f"{indent}{name:{60 - len(indent)}}", *shown)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print and return the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="*", help=SHARDS)
    parser.add_argument("--images", type=int, default=200, help="pictures held in memory (default: 200)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of every contender (default: 7)")
    parser.add_argument("--batch", type=int, default=8, help="images in a batch of the peers (default: 8)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (default: all)")
    parser.add_argument("--no-peers", action="store_true", help="ours and T alone")
    parser.add_argument("--quick", action="store_true", help="few pictures, few rounds: to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    options = parser.parse_args(arguments)
    images, rounds = (min(options.images, 48), min(options.rounds, 3)) if options.quick else (options.images, options.rounds)
    torch.set_num_threads(1)
    shards = options.shards or default_shards()
    pictures = read_pictures(shards, images)
    results: dict[str, Any] = {"environment": environment(), "pictures": {"shards": len(shards), **pictures.describe()}}
    if "rates" in options.parts:
        results["rates"] = rates(pictures, shards, rounds, options.batch, peers=not options.no_peers)
    if "scaling" in options.parts:
        recipes = {name: RECIPES[name] for name in ("uint8, half dropped", "float32, none dropped")}
        steps = 8 if options.quick else 32
        results["scaling"] = scaling.measure(shards, pictures, recipes, rounds=min(rounds, 5), steps=steps)
    if "large" in options.parts:
        count, stream = (2, 8) if options.quick else (8, 200)
        results["large"] = large(pictures, count=count, rounds=min(rounds, 3), stream=stream)
    if "start" in options.parts:
        results["start"] = children.start_up(shards, repeats=2 if options.quick else 4)
    show(results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    return results


if __name__ == "__main__":
    threads.limit_to_one()
    main()
