"""`patchpack.load`: from a source and a recipe to a loader of packed batches."""

from __future__ import annotations

import inspect
import multiprocessing
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.distributed as distributed

from patchpack.errors import ConfigError
from patchpack.plan.online.planner import FUSE, Tail
from patchpack.plan.recipe import Recipe
from patchpack.stream.loader import PATIENCE, Loader, require_options
from patchpack.stream.planning.index_planner import IndexPlanner
from patchpack.stream.planning.planner import Planner
from patchpack.stream.policy import Fuse, OnError
from patchpack.stream.sample.items import ToSample
from patchpack.stream.sample.labels import MapTarget
from patchpack.stream.sample.names import IMAGE, LABEL
from patchpack.stream.sample.text import TEXT, Tokenize
from patchpack.stream.sources.indexed import is_index
from patchpack.stream.sources.map_style import SizeOf


def load(
    source: Any,
    recipe: Recipe,
    *,
    image: str | Sequence[str] = IMAGE,
    frames: str | None = None,
    target: str | tuple[str, ...] | None = LABEL,
    to_sample: ToSample | None = None,
    map_target: MapTarget | None = None,
    classes: Sequence[str] | None = None,
    text: str = TEXT,
    tokenize: Tokenize | None = None,
    text_len: int | None = None,
    sizes: Any = None,
    size_of: SizeOf | None = None,
    shuffle: bool | int = 0,
    epoch: int = 0,
    steps_per_epoch: int | None = None,
    tail: Tail = "short",
    balance: bool = False,
    rank: int | None = None,
    world_size: int | None = None,
    num_workers: int = 0,
    num_threads: int = 0,
    on_error: OnError = "raise",
    quarantine: str | Path | None = None,
    fuse: Fuse = FUSE,
    timeout: float = PATIENCE,
    worker_restarts: int = 0,
    **dataloader_options: Any,
) -> Loader:
    """Return a loader of packed batches of torch tensors from a source of images.

    Args:
        source: webdataset shards (path, brace pattern, glob, or a list of them), a folder, image files, a dataset with items by
            number (torch, Hugging Face), an iterable of `Sample`, webdataset dicts, Hugging Face rows, or pairs
            (image, target). An index also works, and its epochs are planned as a whole: rows are fuller, ``len()`` is exact,
            all ranks have the same number of steps, and a state is a step. See `EpochPlan`.
        recipe: sizes, augmentation and packing of the samples, see `patchpack.recipes`.
        image: extensions of the image member or file, or columns of a row, as a list or separated by ``;``. A pattern
            (``*.jpg``) stands for all members of a sample that match, see `Sample`. If you leave it out, a row's image may also
            be in column ``image``, and a folder's images are all files in a format that can be decoded.
        frames: for a sample in shards or a webdataset dict, patterns of the members (``*.jpg``) that are the frames of a clip.
            Frames are in order, numbers in their names by value. For a row, its column of frames. A sample without frames is an
            image.
        target: extension of the label member (``cls``, ``txt``, ``json``, ``npy``) or of the file beside an image of a folder,
            or the column of a row. Several give a dict of labels, None gives unlabelled images. A name that you pass is used
            or refused. If you leave it out, a row's label may also be in ``label``, and the label of a folder's image is the
            number of its class subfolder.
        to_sample: ``(number, item) -> Sample``, for items of any other kind.
        map_target: decoded label → target, e.g. a look-up. An exception in it rejects the sample.
        classes: names of the class folders in the order of their numbers, for a folder that may lack some, such as a
            validation split. None takes the folders that exist, sorted. An image in another folder is rejected.
        text: with ``tokenize``, the extension of the text member or of the file beside an image of a folder, or the column of a
            row (``text``, if there is no ``txt``). ``"json:caption"`` is a field of the JSON object in that member.
        tokenize: text → token ids, at least one. Batches then have ``text_ids``. None reads no text. It runs once per sample
            and epoch while headers are read, because a row has room for ``text_len`` tokens. It must be picklable if processes
            are spawned. An exception in it rejects the sample. A text longer than ``text_len`` is rejected and never cut, so
            cut texts in here.
        text_len: tokens of text per row, in addition to those of images.
        sizes: int ``[n, 2]``, oriented height and width of every item of a dataset by number, if they are known.
        size_of: number → (height, width), instead of ``sizes``, if that is cheap. Without either, an item that does not come as
            file bytes must be decoded to find its size. Each worker then plans its own share, and batches depend on the number
            of workers.
        shuffle: False or 0 for the source's order. A number permutes shards, and headers in blocks of this many, by (seed,
            epoch); files of a folder and items of a dataset are permuted as a whole. True permutes an index as a whole too, and
            uses blocks of 1024 for shards, streams and other iterables.
        epoch: number of the epoch, for the draws, the shuffling, and a source with a ``set_epoch`` (a stream of `datasets`).
            See `Loader.set_epoch`.
        steps_per_epoch: exactly this many batches on every rank, the source repeated as needed. None for one pass. Images
            that still wait when an epoch ends this way are dropped, and counted under ``steps_per_epoch``.
        tail: handling of the last rows of a pass if they do not fill a batch. ``"short"`` makes a shorter batch, ``"drop"``
            drops and counts their images, ``"pad"`` adds empty rows, ``"wrap"`` repeats the first rows (repeats are not
            counted).
        balance: for an index, deal rows so that ranks have nearly equal work in each step.
        rank: number of this process's share of the source, from 0. None takes it from `torch.distributed` if that is
            initialised, else 0. Whole shards are dealt if every rank can have one, else samples by position. With
            ``tail="pad"`` and no ``steps_per_epoch`` every rank plans all headers and takes its own rows: all ranks together
            see every image once, in equal steps.
        world_size: number of shares. None takes it from `torch.distributed` if that is initialised, else 1.
        num_workers: painting processes, default 0. They do not change batches (but see `size_of`). One more process reads
            headers ahead.
        num_threads: painting threads of this process, instead of `num_workers`, default 0. They do not change batches. No data
            is sent between processes, but all threads share one interpreter. Use a few threads, and a dataset that several
            threads may read.
        on_error: ``"raise"`` stops at the first unusable sample and names it. ``"skip"`` counts and names it in
            `Loader.report` and continues. A function of a `Rejection` (or `ShardFault`) returns True to continue.
        quarantine: a file to which every unusable sample and shard is appended, one line of JSON each.
        fuse: raise after this many unusable samples in a row, even with ``on_error="skip"``, default 100. A share in (0, 1)
            raises instead if more than that share of at least 100 samples is unusable. None never raises.
        timeout: seconds without a batch from any worker, or without a header from the process that reads them, default 600.
            After that they count as frozen, and an error names what each was doing. 0 waits for ever.
        worker_restarts: how often in an epoch workers may be started again if one died or all are frozen, default 0. The new
            workers paint the unfinished batches, and nothing is lost or doubled. Each restart gives a warning.
        **dataloader_options: options of `torch.utils.data.DataLoader`: ``pin_memory``, ``prefetch_factor``, ... Random numbers
            that a dataset of yours draws in workers are seeded by the recipe's seed, epoch, rank and worker. A ``generator``
            seeds them in torch's way instead. A resume in the middle of an epoch does not repeat them.

    Returns:
        A `Loader`. Iterate it, then read ``loader.report()``. Its ``len()`` is ``steps_per_epoch``, and a `TypeError` without.

    Raises:
        SourceError, ConfigError: arguments are checked as far as possible before iteration. `Loader.__iter__` lists the errors
            while iterating.
    """
    require_options(dataloader_options, inspect.signature(load).parameters)
    rank, world_size = _place(rank, world_size)
    ours: dict[str, Any] = {
        "num_workers": num_workers, "num_threads": num_threads, "on_error": on_error, "quarantine": quarantine, "fuse": fuse,
        "timeout": timeout, "worker_restarts": worker_restarts,
    }  # fmt: skip
    if is_index(source):
        for name, value, default in (
            ("image", image, IMAGE), ("frames", frames, None), ("target", target, LABEL),
            ("to_sample", to_sample, None), ("sizes", sizes, None), ("size_of", size_of, None), ("classes", classes, None),
        ):  # fmt: skip
            if value is not default and value != default:
                raise ConfigError(f"{name} is decided when an index is built and cannot be passed with it")
        if tokenize is not None or text_len is not None or text != TEXT:
            raise ConfigError("an index holds no texts, and rows are planned with them: load the shards themselves")
        indexed = IndexPlanner(
            source,
            recipe,
            shuffle=shuffle,
            epoch=epoch,
            steps_per_epoch=steps_per_epoch,
            tail=tail,
            rank=rank,
            world_size=world_size,
            balance=balance,
            map_target=map_target,
        )
        return Loader(indexed, **ours, **dataloader_options)
    if balance:
        raise ConfigError("balance=True needs an index: rows of a stream are dealt as they come")
    if world_size > 1 and steps_per_epoch is None and tail != "pad":
        warnings.warn(
            f"{world_size} ranks without steps_per_epoch: they may make different numbers of steps, and the first to end "
            f"leaves the others waiting for ever. Set steps_per_epoch to train, or tail='pad' to evaluate.",
            stacklevel=2,
        )
    # with workers, headers are read outside the training thread too
    context = dataloader_options.get("multiprocessing_context") or multiprocessing.get_context()
    planner = Planner(
        source,
        recipe,
        image=image,
        frames=frames,
        target=target,
        to_sample=to_sample,
        map_target=map_target,
        classes=classes,
        text=text,
        tokenize=tokenize,
        text_len=text_len,
        sizes=sizes,
        size_of=size_of,
        shuffle=shuffle,
        epoch=epoch,
        steps_per_epoch=steps_per_epoch,
        tail=tail,
        rank=rank,
        world_size=world_size,
        scanner=context if num_workers else None,
    )
    return Loader(planner, **ours, **dataloader_options)


def _place(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Return this process's rank and the number of ranks: as given, else from torch.distributed, else one rank."""
    if (rank is None) != (world_size is None):
        raise ConfigError(f"rank and world_size go together, got rank={rank}, world_size={world_size}")
    if rank is not None and world_size is not None:
        return rank, world_size
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
