"""The heights and widths of images, from a table in a file or from the headers of a source. No image is decoded."""

from __future__ import annotations

import csv
import os
import zipfile
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rich.progress import Progress

from patchpack.cli.opening import open_typed
from patchpack.errors import ConfigError, SourceError
from patchpack.losses import Rejection, ShardFault
from patchpack.types import Header


class Sizes(NamedTuple):
    """The sizes in a table or a source.

    Attributes:
        table: int64 ``[n, 2]``, height and width in pixels.
        keys: keys of the images, on which random draws depend. None for a table, which has no keys.
        complete: False if there are more sizes than the limit.
        without_size: number of lines of a table that are left out because a side is below 1 pixel.
        rejected: samples of a source that cannot be used.
        faults: shards that could not be read to their end.
    """

    table: npt.NDArray[np.int64]
    keys: list[str] | None
    complete: bool
    without_size: int = 0
    rejected: tuple[Rejection, ...] = ()
    faults: tuple[ShardFault, ...] = ()


def read_sizes(path: str, progress: Progress, *, order: str | None, limit: int, image: str, target: str | None) -> Sizes:
    """Read a table of sizes, or the headers of a source.

    Args:
        path: a ``.npz`` or ``.csv`` file, or a source.
        progress: progress line that shows how many headers are read.
        order: ``"hw"`` or ``"wh"``, the order of the columns in a ``.npz`` file. Needed only if the array in the file has
            neither of these two names.
        limit: largest number of sizes, or of samples of a source.
        image: extensions of the images of a source.
        target: extension of the labels of a source, see `open_typed`.

    Raises:
        SourceError: the path does not exist, or the table cannot be read.
        ConfigError: the order is missing or contradicts the name of the array.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in (".npz", ".csv"):
        return _from_headers(path, progress, limit, image, target)
    try:
        table = _from_npz(path, order) if suffix == ".npz" else _from_csv(path)
    except (OSError, ValueError, zipfile.BadZipFile, csv.Error) as error:
        if isinstance(error, ConfigError):
            raise
        raise SourceError(f"{path}: cannot be read as {suffix[1:]}, {type(error).__name__}: {error}") from error
    there = (table >= 1).all(axis=1)
    return Sizes(table[there][:limit], None, bool(there.sum() <= limit), int((~there).sum()))


def _from_npz(path: str, order: str | None) -> npt.NDArray[np.int64]:
    with np.load(path, allow_pickle=False) as file:
        names = list(file)
        known = [name for name in ("hw", "wh") if name in names]
        if len(known) == 1:
            name = known[0]
            if order not in (None, name):
                raise ConfigError(f"{path} has its sizes under {name!r}, --order says {order}: leave --order out")
            order = name
        elif not known and len(names) == 1 and order is not None:
            name = names[0]
        else:
            raise ConfigError(
                f"{path} has the arrays {names}: name one 'hw' (height, width) or 'wh' (width, height), or keep a single "
                f"array and say --order hw or --order wh"
            )
        table = file[name]
    if table.ndim != 2 or table.shape[1] != 2 or table.dtype.kind not in "iu":
        raise SourceError(f"{path}: {name!r} must be integers [n, 2], got {table.dtype} {list(table.shape)}")
    sizes: npt.NDArray[np.int64] = table.astype(np.int64)
    return sizes if order == "hw" else sizes[:, ::-1]


def _from_csv(path: str) -> npt.NDArray[np.int64]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file)
        names = [name.strip().lower() for name in next(lines, [])]
        if "height" not in names or "width" not in names:
            raise SourceError(f"{path}: the first line must name the columns height and width, it is {','.join(names)!r}")
        at = names.index("height"), names.index("width")
        sizes = []
        for line in lines:
            if not line:
                continue
            try:
                sizes.append([int(line[i]) for i in at])
            except (ValueError, IndexError):
                raise SourceError(
                    f"{path}, line {lines.line_num}: height and width must be whole numbers, got {','.join(line)!r}"
                ) from None
    return np.array(sizes, dtype=np.int64).reshape(-1, 2)


def _from_headers(path: str, progress: Progress, limit: int, image: str, target: str | None) -> Sizes:
    source, _ = open_typed(path, image=image, target=target)
    sizes, keys, rejected, faults = [], [], [], []
    events = source.scan()
    with progress:
        for event in progress.track(islice(events, limit)):
            if isinstance(event, Header):
                sizes += [header.size for header in event.images]
                keys += [header.draw_key for header in event.images]
            elif isinstance(event, Rejection):
                rejected.append(event)
            else:
                faults.append(event)
    complete = next(iter(events), None) is None
    return Sizes(np.array(sizes, dtype=np.int64).reshape(-1, 2), keys, complete, 0, tuple(rejected), tuple(faults))
