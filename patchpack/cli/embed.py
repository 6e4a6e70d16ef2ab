"""``patchpack embed``: a vector for every image of a source, written in parts, so that a killed run goes on where it was."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

import patchpack as pp
from patchpack.cli.features import load_model
from patchpack.cli.opening import open_typed
from patchpack.cli.terminal import count_of, say, say_losses
from patchpack.model import ViT
from patchpack.report import Rejection
from patchpack.stream.jobs.atomic import replace_file
from patchpack.stream.planning.resume import recipe_fields

PROGRESS = "progress.json"
DTYPES = {"float32": np.float32, "float16": np.float16}


class Part(NamedTuple):
    """Some batches' worth of results.

    Attributes:
        vectors: ``[n, width]``.
        keys: of the vectors.
        rejected: images met meanwhile that cannot be used.
    """

    vectors: npt.NDArray[Any]
    keys: list[str]
    rejected: list[Rejection]


def run(
    source: str,
    recipe: pp.Recipe,
    out: str,
    *,
    model: str,
    weights: str | None,
    image: str,
    device: str,
    dtype: str,
    part_size: int,
    num_workers: int,
) -> int:
    """Embed a source, from its beginning or where an earlier run was; returns the exit status.

    The folder gets ``part-000000.npy`` ``[n, width]``, ``part-000000.jsonl`` with the key of each of its rows in their order,
    ``part-000000.rejected.jsonl`` where images cannot be used, and so on; ``progress.json`` says how many parts are whole.

    Args:
        source: as somebody types it.
        recipe: what to do with the images; nothing is drawn or dropped.
        out: the folder, new or of an earlier run with the same arguments.
        model, weights: see `features.load_model`.
        image: extensions of the images.
        device: of the model.
        dtype: of the vectors, one of `DTYPES`.
        part_size: vectors of a part; the batch that fills one is not cut.
        num_workers: processes that paint.

    Raises:
        ConfigError: a folder of a run with other arguments, a part of no vector, an unknown dtype.
    """
    if part_size < 1 or dtype not in DTYPES:
        raise pp.errors.ConfigError(
            f"--part-size is at least 1 and --dtype one of {', '.join(DTYPES)}, got {part_size}, {dtype!r}"
        )
    console, start, folder = Console(), time.perf_counter(), Path(out)
    network = load_model(model, weights).to(device)
    if weights is None:
        say(console, f"{model} has random weights: pass --weights for vectors that mean something")
    opened, _ = open_typed(source, image=image, target=None)
    loader = pp.load(opened, recipe.for_eval(), on_error="skip", num_workers=num_workers, rank=0, world_size=1)
    about = {"source": opened.name, "model": model, "weights": _digest(weights), "dtype": dtype, "part_size": part_size}
    about |= recipe_fields(loader.planner.recipe)
    folder.mkdir(parents=True, exist_ok=True)
    progress = _read_progress(folder, about)
    if progress["finished"]:
        say(console, f"{folder} is finished: {_told(progress)}")
        return 0
    if progress["parts"]:
        loader.load_state_dict(progress["loader"])
        say(console, f"going on after {_told(progress)}")
    columns = (SpinnerColumn(), TextColumn("{task.completed:,} images"), TimeElapsedColumn())
    first, before = progress["parts"], progress["images"]
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        for part in _parts(loader, network, device, DTYPES[dtype], part_size):
            name = f"part-{progress['parts']:06d}"
            _write(folder, name, part)
            progress |= {
                "parts": progress["parts"] + 1,
                "images": progress["images"] + len(part.keys),
                "rejected": progress["rejected"] + len(part.rejected),
                "loader": loader.state_dict(),
            }
            _write_text(folder / PROGRESS, json.dumps(progress, indent=1))  # last: what it counts is there
            bar.update(task, completed=progress["images"])
    report, seconds = loader.report(), time.perf_counter() - start
    _write_text(folder / PROGRESS, json.dumps(progress | {"finished": True, "loader": None}, indent=1))
    say_losses(console, report.rejected, report.shard_errors)
    done = progress["images"] - before
    say(console, f"{seconds:.1f} s, {done / seconds:.0f} images/s")
    written = count_of(progress["parts"] - first, "part")
    say(console, f"wrote {written} to {folder}: {_told(progress)}; next: np.load('{folder}/part-000000.npy')")
    return 0


@torch.inference_mode()
def _embedded(batch: pp.PackedBatch, network: ViT, device: str) -> Any:
    pooled = network(pp.to_device(batch, device)).float().cpu()
    return pooled[batch.slot_mask].numpy()  # a copy


def _parts(loader: pp.Loader, network: ViT, device: str, dtype: Any, part_size: int) -> Iterator[Part]:
    """What comes out of the loader, gathered; the loader's state is that after the last batch of a part while it is out.

    Raises `SourceError` for a source without one usable image.
    """
    vectors, keys, told = [], [], 0
    for batch in loader:
        vectors.append(_embedded(batch, network, device).astype(dtype))
        keys += [batch.keys[row][slot] for row, slot in batch.slot_mask.nonzero().tolist()]
        del batch
        if len(keys) >= part_size:
            rejected = loader.report().rejected
            yield Part(np.concatenate(vectors), keys, rejected[told:])
            vectors, keys, told = [], [], len(rejected)
    rejected = loader.report().rejected[told:]
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
    """Where an earlier run was. Raises `ConfigError` if it was another one."""
    path = folder / PROGRESS
    if not path.exists():
        return {**about, "parts": 0, "images": 0, "rejected": 0, "loader": None, "finished": False}
    progress: dict[str, Any] = json.loads(path.read_text("utf-8"))
    for name, value in about.items():
        if progress.get(name) != value:
            raise pp.errors.ConfigError(
                f"{folder} was begun with {name}={progress.get(name)!r}, this run has {value!r}: take another folder"
            )
    return progress


def _told(progress: dict[str, Any]) -> str:
    return (
        f"{count_of(progress['images'], 'image')} in {count_of(progress['parts'], 'part')}, {progress['rejected']:,} rejected"
    )


def _digest(weights: str | None) -> str | None:
    if weights is None:
        return None
    digest = blake2b(digest_size=8)
    with open(weights, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
