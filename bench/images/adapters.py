"""What do the processors of `patchpack.adapters` cost beside the original processors, from decoded pictures to the same
tensors?

    python -m bench.images.adapters [SHARDS ...] [--images 96] [--batch 8] [--rounds 7] [--quick] [--json FILE]

The figures are CPU time on one thread. The processors take turns in rounds (`bench.images.rounds`). Ratios are taken inside a
round. The output has their medians and quartiles over the rounds. Both processors start from Pillow images of mode RGB in
memory and end with batches of torch tensors. Both have the same settings: 256 patches of 16 x 16 pixels, or of 14 x 14 for
Qwen2-VL.

Beside each ratio stand the largest difference between the two batches' pixel values, and whether everything else (names, masks,
grids, ids, shapes, dtypes) is equal. The Pillow backends resample as patchpack does. The torchvision backends differ by a grey
level or two, and with bicubic resampling rarely by more. A peer is another package's processor. Peers that are not installed
are named in the output (``pip install -e '.[bench-images]'``).
"""

from __future__ import annotations

import argparse
import importlib
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from bench import threads
from bench.images.machine import environment
from bench.images.peers import make_torchvision_importable
from bench.images.rounds import Contender, ratios, spread, take_turns, try_all
from bench.pictures import SHARDS, default_shards, read_pictures
from patchpack import adapters

BUDGET = 256
TARGET = 1.4  # times as fast as the peer
Process = Callable[[list[Any]], Any]


def siglip2(pil: bool) -> tuple[Process, Process]:
    """Return the peer's processor for SigLIP 2, and ours with the same settings."""
    theirs = _transformers("Siglip2ImageProcessor", pil, max_num_patches=BUDGET)
    return _called(theirs), adapters.Siglip2Processor.like(theirs)


def qwen2_vl(pil: bool) -> tuple[Process, Process]:
    """Return the peer's processor for Qwen2-VL, Qwen2.5-VL and Qwen3-VL, and ours with the same settings."""
    theirs = _transformers("Qwen2VLImageProcessor", pil, size={"shortest_edge": 56**2, "longest_edge": BUDGET * 14**2})
    return _called(theirs), adapters.QwenVLProcessor.like(theirs)


def pix2struct(pil: bool) -> tuple[Process, Process]:
    """Return the peer's processor for Pix2Struct, and ours with the same settings."""
    theirs = _transformers("Pix2StructImageProcessor", pil, max_patches=BUDGET)
    return _called(theirs), adapters.Pix2StructProcessor.like(theirs)


def timm_naflex(pil: bool) -> tuple[Process, Process]:
    """Return timm's evaluation transform on Pillow with its collation, and our processor with the same settings."""
    make_torchvision_importable()
    data = importlib.import_module("timm.data")
    collate = importlib.import_module("timm.data.naflex_dataset").NaFlexCollator(BUDGET)
    ours = adapters.TimmNaFlexProcessor(max_seq_len=BUDGET)
    transform = data.create_transform(
        224,
        naflex=True,
        patchify=True,
        patch_size=16,
        max_seq_len=BUDGET,
        interpolation="bicubic",
        mean=ours.mean,
        std=ours.std,
    )

    def theirs(images: list[Any]) -> Any:
        inputs, _ = collate([(transform(image), 0) for image in images])
        return {name: value for name, value in inputs.items() if name != "seq_len"}

    return theirs, ours


def _transformers(name: str, pil: bool, **options: Any) -> Any:
    make_torchvision_importable()
    transformers = importlib.import_module("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(transformers, f"{name}Pil" if pil else name)(**options)


def _called(processor: Any) -> Process:
    return lambda images: processor(images=images, return_tensors="pt")


PEERS: dict[str, tuple[Callable[[bool], tuple[Process, Process]], bool]] = {
    "Siglip2 Pillow": (siglip2, True),
    "Siglip2 torchvision": (siglip2, False),
    "Qwen2-VL Pillow": (qwen2_vl, True),
    "Qwen2-VL torchvision": (qwen2_vl, False),
    "Pix2Struct Pillow": (pix2struct, True),
    "Pix2Struct torchvision": (pix2struct, False),
    "timm NaFlex": (timm_naflex, True),
}


def compare(theirs: Any, ours: Any) -> dict[str, Any]:
    """Return the largest difference of floating-point values, and whether everything else is equal."""
    largest, equal = 0.0, set(theirs) == set(ours)
    for name, value in theirs.items():
        mine = ours[name]
        if mine.shape != value.shape or mine.dtype != value.dtype:
            equal = False
        elif value.is_floating_point():
            largest = max(largest, float((mine - value).abs().max()))
        else:
            equal &= torch.equal(mine, value)
    return {"largest difference": largest, "rest equal": equal}


def measure(images: list[Any], batch_size: int, rounds: int) -> dict[str, Any]:
    """Return times, ratios and tensor differences for every peer, and for each missing peer the reason."""
    groups = [images[i : i + batch_size] for i in range(0, len(images), batch_size)]
    contenders, quality, missing = [], {}, {}
    for name, (make, pil) in PEERS.items():
        try:
            theirs, ours = make(pil)
            found = [compare(theirs(group), ours(group)) for group in groups]
        except Exception as error:  # not installed, or another version of it
            missing[name] = f"{type(error).__name__}: {error}".split("\n")[0][:300]
            continue
        quality[name] = {
            "largest difference": max(f["largest difference"] for f in found),
            "rest equal": all(f["rest equal"] for f in found),
        }
        contenders += [Contender(name, _over(theirs, groups)), Contender(f"{name}, ours", _over(ours, groups))]
    able, _, failed = try_all(contenders, len(images))
    times = take_turns(able, len(images), rounds)
    peers = {}
    for name in quality:
        ratio = spread(ratios(times, name, f"{name}, ours"), 2)
        peers[name] = {
            "theirs ms": spread(times[name]),
            "ours ms": spread(times[f"{name}, ours"]),
            "ratio": ratio,
            "met": ratio["median"] >= TARGET,
            **quality[name],
        }
    return {"peers": peers, "missing": {**missing, **failed}}


def _over(process: Process, groups: list[list[Any]]) -> Callable[[], Iterator[Any]]:
    return lambda: map(process, groups)


def show(results: dict[str, Any]) -> None:
    """Print the results as a table."""
    print(json.dumps(results["environment"]))
    print(json.dumps(results["pictures"]))
    print(f"\n{'ms per image':26} {'theirs':>8} {'ours':>8}   ratio  quartiles      largest difference   rest")
    for name, line in results["peers"].items():
        low, high = line["ratio"]["quartiles"]
        rest = "equal" if line["rest equal"] else "differs"
        print(
            f"{name:26} {line['theirs ms']['median']:8.3f} {line['ours ms']['median']:8.3f} {line['ratio']['median']:7.2f}  "
            f"{low:5.2f} … {high:5.2f}  {line['largest difference']:18.1e}   {rest}{'' if line['met'] else '   not met'}"
        )
    for name, why in results["missing"].items():
        print(f"{name:26} missing: {why}")


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print and return the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="*", help=SHARDS)
    parser.add_argument("--images", type=int, default=96, help="pictures held in memory (default: 96)")
    parser.add_argument("--batch", type=int, default=8, help="images in a call (default: 8)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of every contender (default: 7)")
    parser.add_argument("--quick", action="store_true", help="few pictures, few rounds: to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    options = parser.parse_args(arguments)
    images, rounds = (min(options.images, 16), min(options.rounds, 2)) if options.quick else (options.images, options.rounds)
    torch.set_num_threads(1)
    pictures = read_pictures(options.shards or default_shards(), images)
    results: dict[str, Any] = {"environment": environment(), "pictures": pictures.describe()}
    results |= measure(pictures.pil, options.batch, rounds)
    show(results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    return results


if __name__ == "__main__":
    threads.limit_to_one()
    main()
