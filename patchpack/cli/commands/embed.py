"""``patchpack embed``: a vector for every image of a source.

Vectors are written in parts, so that a killed run can continue.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

import patchpack as pp
from patchpack.cli.arguments import SOURCE, add_image, add_model, add_recipe, add_rows, add_seq_len, describe, recipe_of
from patchpack.cli.opening import open_typed
from patchpack.cli.terminal import count_of, progress, say, say_losses
from patchpack.losses import Rejection
from patchpack.stream.jobs.atomic import replace_file

if TYPE_CHECKING:
    from patchpack.model import ViT

PROGRESS = "progress.json"
DTYPES = {"float32": np.float32, "float16": np.float16}


class Part(NamedTuple):
    """The results of some batches. Each part is written to its own files.

    Attributes:
        vectors: the vectors of n images, ``[n, width]``.
        keys: key of the image of each vector.
        rejected: the unusable images among the images of these batches.
    """

    vectors: npt.NDArray[Any]
    keys: list[str]
    rejected: list[Rejection]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        parser,
        "Runs a model over every image once, at its own aspect ratio and with all of its patches, and writes vectors\n"
        "and keys to a folder in parts. If it was killed, run it again: it goes on where it stopped.",
        "patchpack embed photos/ --model siglip2_b16 --weights siglip2_b16_naflex.npz -o vectors/",
        "patchpack embed 'train-{0000..0003}.tar' --model naflexvit_b16 --weights naflex.pt --device cuda -o vectors/",
    )
    parser.add_argument("source", metavar="SOURCE", help=SOURCE)
    add_image(parser)
    add_model(parser)
    parser.add_argument(
        "-o", "--out", required=True, metavar="DIR", help="write to this folder, new or of a run that did not finish"
    )
    add_recipe(parser, "siglip2_naflex")
    add_seq_len(parser)
    add_rows(parser)
    parser.add_argument("--device", default="cpu", help="run the model on this device of torch (default: cpu)")
    parser.add_argument("--dtype", default="float32", help="write vectors as float32 or float16 (default: float32)")
    parser.add_argument(
        "--part-size", type=int, default=10_000, metavar="N", help="write a part as soon as it holds N images (default: 10000)"
    )
    parser.add_argument(
        "--num-workers", type=int, default=0, metavar="N", help="paint in N processes (default: 0, in this process)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Embed a source from its beginning, or from where an earlier run stopped. Return the exit status.

    For each part the folder gets up to three files. ``part-000000.npy`` holds the vectors, ``[n, width]``.
    ``part-000000.jsonl`` holds the key of each vector, in the same order. ``part-000000.rejected.jsonl`` names unusable images,
    if there are any. ``progress.json`` counts the finished parts.

    Raises:
        ConfigError: the folder holds a run with other arguments, the part size is below 1, or the dtype is unknown.
    """
    recipe, dtype, part_size = recipe_of(arguments), arguments.dtype, arguments.part_size
    if part_size < 1 or dtype not in DTYPES:
        raise pp.errors.ConfigError(
            f"--part-size is at least 1 and --dtype one of {', '.join(DTYPES)}, got {part_size}, {dtype!r}"
        )
    console, start, folder = Console(), time.perf_counter(), Path(arguments.out)
    network = _model(console, arguments.model, arguments.weights, arguments.device)
    opened, _ = open_typed(arguments.source, image=arguments.image, target=None)
    loader = pp.load(opened, recipe.for_eval(), on_error="skip", num_workers=arguments.num_workers, rank=0, world_size=1)
    about = {"model": arguments.model, "weights": _digest(arguments.weights), "dtype": dtype, "part_size": part_size}
    about |= loader.planner.belongs_to()  # the source, its samples, what is read of them, and the recipe
    folder.mkdir(parents=True, exist_ok=True)
    state = _read_progress(folder, about)
    if state["finished"]:
        say(console, f"{folder} is finished: {_counts(state)}")
        return 0
    if state["parts"]:
        loader.load_state_dict(state["loader"])
        say(console, f"going on after {_counts(state)}")
    first, before = state["parts"], state["images"]
    with progress(console, SpinnerColumn(), TextColumn("{task.completed:,} images"), TimeElapsedColumn()) as bar:
        task = bar.add_task("", total=None)
        for part in _parts(loader, network, arguments.device, DTYPES[dtype], part_size):
            _write(folder, f"part-{state['parts']:06d}", part)
            state |= {
                "parts": state["parts"] + 1,
                "images": state["images"] + len(part.keys),
                "rejected": state["rejected"] + len(part.rejected),
                "loader": loader.state_dict(),
            }
            _write_text(folder / PROGRESS, json.dumps(state, indent=1))  # last: the files that it counts must exist
            bar.update(task, completed=state["images"])
    report, seconds = loader.report(), time.perf_counter() - start
    _write_text(folder / PROGRESS, json.dumps(state | {"finished": True, "loader": None}, indent=1))
    say_losses(console, report.rejected, report.shard_errors)
    done = state["images"] - before
    say(console, f"{seconds:.1f} s, {done / seconds:.0f} images/s")
    written = count_of(state["parts"] - first, "part")
    say(console, f"wrote {written} to {folder}: {_counts(state)}; next: np.load('{folder}/part-000000.npy')")
    return 0


def _model(console: Console, name: str, weights: str | None, device: str) -> ViT:
    from patchpack.cli.models import load_model  # torch takes seconds to import

    model = load_model(name, weights).to(device)
    if weights is None:
        say(console, f"{name} has random weights: pass --weights for vectors that mean something")
    return model


def _embedded(batch: pp.PackedBatch, network: ViT, device: str) -> npt.NDArray[np.float32]:
    import torch

    with torch.inference_mode():
        pooled = network(pp.standardize(batch.to(device))).float().cpu()
        vectors: npt.NDArray[np.float32] = pooled[batch.slot_mask].numpy()  # a copy
    return vectors


def _parts(loader: pp.Loader, network: ViT, device: str, dtype: Any, part_size: int) -> Iterator[Part]:
    """Yield the vectors of the loader's batches in parts.

    Whenever a part is yielded, the loader's state is the state after this part.

    Raises `SourceError` if no image of the source can be used.
    """
    vectors, keys, reported = [], [], 0
    for batch in loader:
        vectors.append(_embedded(batch, network, device).astype(dtype))
        keys += [batch.keys[row][slot] for row, slot in batch.slot_mask.nonzero().tolist()]
        del batch
        if len(keys) >= part_size:
            rejected = loader.report().rejected
            yield Part(np.concatenate(vectors), keys, rejected[reported:])
            vectors, keys, reported = [], [], len(rejected)
    rejected = loader.report().rejected[reported:]
    if keys or rejected:
        yield Part(np.concatenate(vectors) if vectors else np.zeros((0, 0), dtype), keys, rejected)


def _write(folder: Path, name: str, part: Part) -> None:
    if part.keys:
        replace_file(folder / f"{name}.npy", lambda file: np.save(file, part.vectors))
        _write_text(folder / f"{name}.jsonl", _lines(part.keys))
    if part.rejected:
        _write_text(folder / f"{name}.rejected.jsonl", _lines([rejection._asdict() for rejection in part.rejected]))


def _lines(values: list[Any]) -> str:
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


def _write_text(path: Path, text: str) -> None:
    def fill(file: BinaryIO) -> None:
        file.write(text.encode("utf-8", "backslashreplace"))

    replace_file(path, fill)


def _read_progress(folder: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Return the progress of an earlier run. Raise `ConfigError` if that run had other arguments."""
    path = folder / PROGRESS
    if not path.exists():
        return {**about, "parts": 0, "images": 0, "rejected": 0, "loader": None, "finished": False}
    try:
        state: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise pp.errors.ConfigError(f"{path} is damaged ({error}): choose another folder, or delete this one") from None
    for name, value in json.loads(json.dumps(about)).items():  # as JSON holds it
        if state.get(name) != value:
            raise pp.errors.ConfigError(
                f"{folder} was begun with {name}={state.get(name)!r}, this run has {value!r}: take another folder"
            )
    return state


def _counts(state: dict[str, Any]) -> str:
    return f"{count_of(state['images'], 'image')} in {count_of(state['parts'], 'part')}, {state['rejected']:,} rejected"


def _digest(weights: str | None) -> str | None:
    if weights is None:
        return None
    digest = blake2b(digest_size=8)
    with open(weights, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
