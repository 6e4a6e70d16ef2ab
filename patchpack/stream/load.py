"""`patchpack.load`: from a source and a recipe to a loader of packed batches."""

from __future__ import annotations

import inspect
import multiprocessing
import warnings
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch.distributed as distributed
from typing_extensions import Unpack

from patchpack.errors import ConfigError
from patchpack.plan.online.batches import Tail
from patchpack.plan.recipe import Recipe
from patchpack.stream.dataloader_options import DATALOADER_OPTIONS, DECIDED, require_options
from patchpack.stream.loader import Loader
from patchpack.stream.painting.transports import plans_ahead
from patchpack.stream.planning.order import require_place
from patchpack.stream.planning.planner import Planner
from patchpack.stream.policy import ErrorPolicy, OnError
from patchpack.stream.sample.names import nearest
from patchpack.stream.sources.indexed import IndexSource, is_index
from patchpack.stream.sources.opening import DEFAULTS as SOURCE_DEFAULTS
from patchpack.stream.sources.opening import SourceOptions

POLICY_OPTIONS = {field.name for field in fields(ErrorPolicy)} - {"on_error"}


def load(
    source: Any,
    recipe: Recipe,
    *,
    shuffle: bool | int = 0,
    epoch: int = 0,
    steps_per_epoch: int | None = None,
    tail: Tail = "short",
    balance: bool = False,
    text_len: int | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    num_workers: int = 0,
    num_threads: int = 0,
    on_error: OnError | ErrorPolicy = "raise",
    dataloader: Mapping[str, Any] | None = None,
    **reading: Unpack[SourceOptions],
) -> Loader:
    """Return a loader of packed batches of torch tensors from a source of images.

    Args:
        source: the images, in one of these forms: webdataset shards (a path, brace pattern, glob, or a list of these), a folder
            or a list of folders, image files, a table with a column of paths (CSV, JSON Lines, Parquet, a DataFrame), a dataset
            with items by number (torch, Hugging Face), an iterable, an index, or a `Source` from `open_source`. The items of an
            iterable are `Sample`s, webdataset dicts, Hugging Face rows, or pairs (image, target). The epochs of an index are
            planned as a whole. Then rows are fuller, ``len()`` is exact, all ranks have the same number of steps, and a saved
            state only holds the number of a step.
        recipe: sizes, augmentation and packing of the samples, see `patchpack.recipes`.
        shuffle: False or 0 keeps the source's order (default). A number n permutes shards, and samples inside blocks of n, by
            (seed, epoch). True uses blocks of 1024 for shards and iterables, and permutes an index as a whole. Files of a
            folder, rows of a table and items of a dataset by number are permuted as a whole, with True and with any n.
        epoch: number of the epoch, default 0. The random draws and the shuffling depend on it. A source with a method
            ``set_epoch`` (a stream of `datasets`) is set to this epoch. See `Loader.set_epoch`.
        steps_per_epoch: exact number of batches of an epoch on every rank. The source is repeated if it is too short. Images
            that still wait for a row when the epoch ends are dropped, and counted under ``steps_per_epoch``. Default None: an
            epoch is one pass over the source.
        tail: handling of the last rows of a pass if they do not fill a batch. ``"short"`` (default) makes a shorter batch,
            ``"drop"`` drops and counts their images, ``"pad"`` adds empty rows, ``"wrap"`` repeats the first rows (repeats are
            not counted).
        balance: True deals the rows of an index so that ranks have nearly equal work in each step. Default False.
        text_len: tokens of text per row, in addition to the tokens of images. It goes together with ``tokenize``. Default None:
            no texts.
        rank: number of this process among `world_size` processes, from 0. Default None: that of `torch.distributed` if that is
            initialised, else 0. Each rank reads whole shards if every rank can have one, else every world_size-th sample. With
            ``tail="pad"`` and no ``steps_per_epoch`` every rank plans all samples and takes its own rows. Then all ranks
            together see every image once, in equal numbers of steps.
        world_size: number of processes that share the source. Default None: that of `torch.distributed` if that is initialised,
            else 1.
        num_workers: number of processes that paint batches, default 0. It does not change batches (except as `size_of` says).
            One more process reads headers ahead.
        num_threads: number of threads of this process that paint batches, instead of `num_workers`, default 0. It does not
            change batches. No data is sent between processes, but all threads share one interpreter, so use a few threads only.
            Several threads must be able to read the dataset at the same time.
        on_error: ``"raise"`` stops at the first unusable sample and names it. ``"skip"`` counts and names unusable samples in
            `Loader.report` and continues. A function of a `Rejection` (or `ShardFault`) returns True to continue. An
            `ErrorPolicy` holds one of these with a log file, limits, a timeout and restarts of workers. Default ``"raise"``.
        dataloader: options of `torch.utils.data.DataLoader` by name, such as ``{"pin_memory": True, "prefetch_factor": 4}``.
            If your dataset draws random numbers in workers, they are seeded by the recipe's seed, epoch, rank and worker. With
            a ``generator`` here they are seeded in torch's way instead. A resume in the middle of an epoch does not repeat
            these random numbers.
        **reading: options of `open_source`: ``image``, ``frames``, ``target``, ``to_sample``, ``map_target``, ``classes``,
            ``sizes``, ``size_of``, ``text``, ``tokenize``, ``root``, ``keys``. These options say which members of every sample
            are read, and how.

    Returns:
        A `Loader`. Iterate it, then read ``loader.report()``. Its ``len()`` is exact for an index, else ``steps_per_epoch``.
        Otherwise ``len()`` raises `TypeError`.

    Raises:
        SourceError, ConfigError: the source cannot be read, or an argument cannot work. Arguments are checked as far as
            possible before iteration. `Loader.__iter__` lists the errors while iterating.
    """
    options = require_options(dataloader)
    require_known(reading)
    policy = ErrorPolicy.of(on_error)
    rank, world_size = _place(rank, world_size)
    index = is_index(source) or isinstance(source, IndexSource)
    if not index and world_size > 1 and steps_per_epoch is None and tail != "pad":
        warnings.warn(
            f"{world_size} ranks without steps_per_epoch: they may make different numbers of steps, and the first to end "
            f"leaves the others waiting for ever. Set steps_per_epoch to train, or tail='pad' to evaluate.",
            stacklevel=2,
        )
    # with workers, headers are read outside the training thread too
    context = options.get("multiprocessing_context") or multiprocessing.get_context()
    planner = Planner(
        source,
        recipe,
        shuffle=shuffle,
        epoch=epoch,
        steps_per_epoch=steps_per_epoch,
        tail=tail,
        balance=balance,
        rank=rank,
        world_size=world_size,
        text_len=text_len,
        max_in_a_row=policy.max_in_a_row,
        scanner=context if num_workers else None,
        timeout=policy.timeout,
        states_kept=plans_ahead(num_workers, num_threads, options) + 2,  # and one for the current batch
        **reading,
    )
    return Loader(planner, num_workers=num_workers, num_threads=num_threads, on_error=policy, dataloader=options)


def require_known(options: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for an option that `load` does not have.

    The error says where the option belongs, or names a similar option.
    """
    for name in options:
        if name in SOURCE_DEFAULTS:
            continue
        if name in DECIDED:
            require_options({name: None})
        if name in DATALOADER_OPTIONS:
            raise ConfigError(f"{name}= is an option of torch's DataLoader: pass dataloader={{{name!r}: ...}}")
        if name in POLICY_OPTIONS:
            raise ConfigError(f"{name}= is part of an error policy: pass on_error=patchpack.ErrorPolicy('skip', {name}=...)")
        known = [*SOURCE_DEFAULTS, *inspect.signature(load).parameters, *DATALOADER_OPTIONS]
        raise ConfigError(f"{name}= is no option of load{nearest(name, known)}")


def _place(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Return this process's rank and the number of ranks. A value that is not given comes from torch.distributed.

    Without torch.distributed there is one rank.
    """
    if (rank is None) != (world_size is None):
        raise ConfigError(f"rank and world_size go together, got rank={rank}, world_size={world_size}")
    if rank is not None and world_size is not None:
        require_place(rank, world_size)
        return rank, world_size
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
