"""The function `patchpack.load`, which makes a loader of packed batches from a source and a recipe."""

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
from patchpack.stream.sample.options import unknown_option
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
        source: the images, in one of these forms: webdataset shards (a path, brace pattern, glob, or a list of these), a
            folder or a list of folders, image files, a table with a column of paths (CSV, JSON Lines, Parquet, a DataFrame), a
            map-style dataset (torch, Hugging Face), an iterable, an index, or a `Source`, from `open_source` or of a class of
            your own. The items of an iterable are `Sample`s, webdataset dicts, Hugging Face rows, or pairs (image, target).
            With an index, each epoch is planned as a whole. So rows are fuller, ``len()`` is exact, all ranks have the same
            number of steps, and a saved state holds only the number of a step.
        recipe: sizes, augmentation and packing of the samples, see `patchpack.recipes`.
        shuffle: False or 0 keeps the source's order (default). A number n permutes the shards, and the samples inside each
            block of n samples, as a function of (seed, epoch). True uses blocks of 1024 samples for shards and iterables, and
            permutes an index as a whole. Folders, tables and map-style datasets are always permuted as a whole, with True and
            with any n, also if they are indexed.
        epoch: number of the epoch, default 0. The random draws and the shuffling depend on this number. A source with a method
            ``set_epoch`` (such as a streaming dataset of `datasets`) is set to this epoch. See `Loader.set_epoch`.
        steps_per_epoch: exact number of batches of an epoch on every rank. The source is repeated if it is too short. Images
            that still wait for a row when the epoch ends are dropped. The report counts these images under the name
            ``steps_per_epoch``. Default None: an epoch is one pass over the source.
        tail: handling of the last rows of a pass if they do not fill a batch. ``"short"`` (default) makes a shorter batch,
            ``"drop"`` leaves out the rows and counts their images as dropped, ``"pad"`` adds empty rows, ``"wrap"`` repeats the
            first rows (repeats are not counted).
        balance: True distributes the rows of an index so that all ranks have nearly equal work in each step. Default False.
        text_len: tokens of text per row, in addition to the tokens of images. Pass it together with ``tokenize``. Default None:
            no texts.
        rank: number of this process among `world_size` processes, from 0. Default None: the rank in `torch.distributed` if that
            is initialised, else 0. Each rank reads whole shards if there is a shard for every rank, and otherwise every
            world_size-th sample. With ``tail="pad"`` and no ``steps_per_epoch``, every rank plans all samples and paints only
            its own rows. Then all ranks together see every image once, in equal numbers of steps.
        world_size: number of processes that share the source. Default None: the world size in `torch.distributed` if that is
            initialised, else 1.
        num_workers: number of processes that paint batches, default 0. The number does not change batches, with one exception
            that `open_source` describes at ``size_of``. With workers, one more process reads headers ahead.
        num_threads: number of threads of this process that paint batches, instead of `num_workers`, default 0. The number does
            not change batches. No data is sent between processes, but all threads share one interpreter, so use a few threads
            only. Several threads must be able to read the dataset at the same time.
        on_error: ``"raise"`` stops at the first unusable sample and names it. ``"skip"`` counts and names unusable samples in
            `Loader.report` and continues. A function is called with each `Rejection` and `ShardFault`, and returns True to
            continue. An `ErrorPolicy` combines one of these three with a log file, limits, a timeout and restarts of workers.
            Default ``"raise"``.
        dataloader: options of `torch.utils.data.DataLoader` by name, such as ``{"pin_memory": True, "prefetch_factor": 4}``.
            Random numbers that your own dataset draws in workers are seeded from the recipe's seed, the epoch, the rank and the
            worker. If you pass a ``generator`` here, torch seeds them in its own way. A resume in the middle of an epoch does
            not repeat these random numbers.
        **reading: options of `open_source`: ``image``, ``frames``, ``target``, ``to_sample``, ``map_target``, ``classes``,
            ``sizes``, ``size_of``, ``text``, ``tokenize``, ``target_kind``, ``root``, ``keys``. These options say which members
            of every sample are read, and how.

    Returns:
        A `Loader`. Iterate over it, then call ``loader.report()``. For an index, ``len(loader)`` is exact. For any other
        source, ``len(loader)`` is ``steps_per_epoch``. If ``steps_per_epoch`` is None, ``len(loader)`` raises `TypeError`.

    Raises:
        SourceError: the source cannot be read.
        ConfigError: an argument cannot work. Arguments are checked as far as possible before iteration. `Loader.__iter__` lists
            the errors that iteration raises.
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
        raise unknown_option("load", name, known)


def _place(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Return the rank of this process and the number of ranks. If both arguments are None, torch.distributed gives both values.

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
