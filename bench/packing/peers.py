"""Other packages' packers behind one interface. Each is called through its public functions, as its users call it.

A packer takes lengths. It returns the work to time, and a function that reads the result. Making the inputs (lists, tensors,
tokens) and reading the result are not timed. A peer that cannot be imported is left out, with the reason.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchpack.plan.packing import FirstFit, Item, NextFit, PackerFactory

Int64 = npt.NDArray[np.int64]
BINS = 32  # rows that grain keeps open


class Rows(NamedTuple):
    """The result of a packer.

    Attributes: items: int64, the item indices, row after row: at most n if the packing is right. An item with missing tokens is
        left out.
        ends: int64 ``[rows]``, the position in `items` at which each row ends.
        closed: int64 ``[rows]``, index of the item whose push closed the row, or n for the end of the stream. None offline.
    """

    items: Int64
    ends: Int64
    closed: Int64 | None = None


Run = Callable[[], Any]
Prepare = Callable[[Int64, int], tuple[Run, Callable[[Any], Rows]]]


class Packer(NamedTuple):
    """A packer: its name, whether it packs items as they arrive, and the smallest number of items on which it is timed."""

    name: str
    online: bool
    prepare: Prepare
    fewest: int = 4000


def rows_of(rows: Iterable[Sequence[int]], closed: Sequence[int] | None = None) -> Rows:
    """Return `Rows` from a sequence of indices per row."""
    parts = [np.asarray(row, dtype=np.int64) for row in rows]
    ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
    items = np.concatenate([np.empty(0, dtype=np.int64), *parts])
    return Rows(items, ends, None if closed is None else np.asarray(closed, dtype=np.int64))


def pushed(name: str, factory: PackerFactory) -> Packer:
    """Return one of patchpack's packers, to which items are pushed one by one."""

    def prepare(lengths: Int64, seq_len: int) -> tuple[Run, Callable[[Any], Rows]]:
        items = [Item(i, n) for i, n in enumerate(lengths.tolist())]

        def run() -> Any:
            packer, rows, closed = factory(seq_len, 1 << 20), [], []
            for i, item in enumerate(items):
                for row in packer.push(item):
                    rows.append(row)
                    closed.append(i)
            last = packer.flush()
            return rows + last, closed + [len(items)] * len(last)

        return run, lambda made: rows_of(([item.id for item in row.items] for row in made[0]), made[1])

    return Packer(name, True, prepare)


def _binpacking() -> list[Packer]:
    """Return the packer that places the longest item first, into the emptiest row with room. It searches all rows for that."""
    import binpacking

    def prepare(lengths: Int64, seq_len: int) -> tuple[Run, Callable[[Any], Rows]]:
        sizes = dict(enumerate(lengths.tolist()))
        return lambda: binpacking.to_constant_volume(sizes, seq_len), lambda bins: rows_of(list(row) for row in bins)

    return [Packer("binpacking", False, prepare, 1000)]


def _prtpy() -> list[Packer]:
    """Return first-fit-decreasing and best-fit-decreasing, with a loop over all rows per item."""
    import prtpy
    from prtpy.packing.best_fit import decreasing as best_fit_decreasing

    def packer(name: str, algorithm: Any) -> Packer:
        def prepare(lengths: Int64, seq_len: int) -> tuple[Run, Callable[[Any], Rows]]:
            sizes = dict(enumerate(lengths.tolist()))
            return lambda: prtpy.pack(algorithm=algorithm, binsize=seq_len, items=sizes), rows_of

        return Packer(name, False, prepare, 500)

    return [packer("prtpy FFD", prtpy.packing.first_fit_decreasing), packer("prtpy BFD", best_fit_decreasing)]


def _trl() -> list[Packer]:
    """Return best-fit-decreasing over batches of 1000 items.

    It copies one int32 per token, the smallest payload that it takes.
    """
    import datasets
    import pyarrow as pa
    from trl.data_utils import pack_dataset

    datasets.disable_progress_bars()
    datasets.disable_caching()

    def prepare(lengths: Int64, seq_len: int) -> tuple[Run, Callable[[Any], Rows]]:
        ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        tokens = pa.ListArray.from_arrays(ends, np.repeat(np.arange(len(lengths), dtype=np.int32), lengths))
        dataset = datasets.Dataset(pa.table({"input_ids": tokens}))
        keep = {"keep_in_memory": True}

        def read(packed: Any) -> Rows:
            column = packed.data.column("input_ids").combine_chunks()
            return rows_of(_whole(row.values.to_numpy(), lengths) for row in column)

        return lambda: pack_dataset(dataset, seq_len, strategy="bfd", map_kwargs=keep), read

    return [Packer("TRL bfd", False, prepare)]


def _grain() -> list[Packer]:
    """Return first-fit and best-fit over 32 open rows.

    They copy one int32 per token, the smallest payload that they take, and make two more per token.
    """
    import grain

    class Source:
        def __init__(self, lengths: Int64) -> None:
            self.tokens = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
            self.starts = np.concatenate([[0], np.cumsum(lengths)]).tolist()
            self.last = -1

        def __len__(self) -> int:
            return len(self.starts) - 1

        def __getitem__(self, i: int) -> dict[str, npt.NDArray[np.int32]]:
            self.last = i
            return {"tokens": self.tokens[self.starts[i] : self.starts[i + 1]]}

    def packer(name: str, dataset: Any) -> Packer:
        def prepare(lengths: Int64, seq_len: int) -> tuple[Run, Callable[[Any], Rows]]:
            source = Source(lengths)

            def stream() -> Any:
                items = grain.MapDataset.source(source).to_iter_dataset(grain.ReadOptions(num_threads=0))
                return iter(dataset(items, length_struct={"tokens": seq_len}, num_packing_bins=BINS, shuffle_bins=False))

            def run() -> None:
                for _ in stream():
                    pass

            def read(_: Any) -> Rows:  # packs a second time, because keeping the rows would be timed, too
                rows, closed = [], []
                for row in stream():
                    rows.append(_whole(row["tokens"][row["tokens_segment_ids"] > 0], lengths))
                    closed.append(source.last if source.last < len(lengths) - 1 else len(lengths))
                return rows_of(rows, closed)

            return run, read

        return Packer(name, True, prepare)

    fits = grain.experimental
    return [
        packer(f"grain first-fit, {BINS} bins", fits.FirstFitPackIterDataset),
        packer(f"grain best-fit, {BINS} bins", fits.BestFitPackIterDataset),
    ]


def _vit_pytorch() -> list[Packer]:
    """Return next-fit over images of 1 × n patches of one pixel.

    Only the file with the packer is loaded, because the package imports torchvision. The torchvision wheel on PyPI fails to
    import beside a CPU torch.
    """
    import torch

    package = importlib.util.find_spec("vit_pytorch")
    if package is None or not package.submodule_search_locations:
        raise ImportError("No module named 'vit_pytorch'")
    spec = importlib.util.spec_from_file_location("_na_vit", package.submodule_search_locations[0] + "/na_vit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and annotations look up their module here
    spec.loader.exec_module(module)

    def prepare(lengths: Int64, seq_len: int) -> tuple[Run, Callable[[Any], Rows]]:
        pixel = torch.empty(1)
        images = [pixel.expand(3, 1, n) for n in lengths.tolist()]
        index = {id(image): i for i, image in enumerate(images)}

        def read(groups: Any) -> Rows:
            rows = [[index[id(image)] for image in group] for group in groups]
            return rows_of(rows, [max(row, default=-1) + 1 for row in rows])

        return lambda: module.group_images_by_max_seq_len(images, 1, max_seq_len=seq_len), read

    return [Packer("vit-pytorch grouper", True, prepare, 30_000)]


def _whole(tokens: Any, lengths: Int64) -> Int64:
    """Return the items of which no token is missing. Each token is the index of its item."""
    items, first, counts = np.unique(np.asarray(tokens), return_index=True, return_counts=True)
    whole = counts == lengths[items]
    return np.asarray(items[whole][np.argsort(first[whole])], dtype=np.int64)


def ours() -> list[Packer]:
    """Return patchpack's greedy packers. NaViT uses first-fit with 16 open rows."""
    return [pushed("next-fit", NextFit()), pushed("first-fit, 16 open rows", FirstFit(16))]


LOADERS = {"binpacking": _binpacking, "prtpy": _prtpy, "TRL": _trl, "grain": _grain, "vit-pytorch": _vit_pytorch}


def find(name: str = "") -> tuple[list[Packer], dict[str, str]]:
    """Return the peers that can be imported, and for each other peer the reason. With a packer's name, try its package only."""
    found: list[Packer] = []
    missing: dict[str, str] = {}
    for project, load in LOADERS.items():
        if name and not name.startswith(project):
            continue
        try:
            found += load()
        except Exception as error:  # a foreign package may raise any error while it is imported
            missing[project] = f"not installed: {type(error).__name__}: {error}".splitlines()[0]
    return found, missing
