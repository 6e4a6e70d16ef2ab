"""The short way in: a source and a recipe to a loader of packed batches."""

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
    """Packed batches of torch tensors from a source of images.

    Args:
        source: webdataset shards (path, brace pattern, glob, or a list of them), a folder, image files, a dataset with items by
            number (torch, Hugging Face), an iterable of `Sample`, webdataset dicts, Hugging Face rows, or pairs
            (image, target); or an index, whose epochs are planned as a whole, see `EpochPlan`: rows are fuller, ``len()`` is
            exact, ranks have equally many steps, and a state is a step.
        recipe: what to do with them, see `patchpack.recipes`.
        image: extensions of the image member or file, columns of a row, as a list or with ``;`` between them; a pattern
            (``*.jpg``) for all members of a sample that fit, see `Sample`. Where you give none, a row's image may also be in
            column ``image``, and a folder's images are all files in a format that can be decoded.
        frames: of a sample in shards or a webdataset dict, patterns of members (``*.jpg``) that are the frames of a clip, in
            order, numbers in their names by value; of a row, its column of frames. A sample without any is an image.
        target: extension of the label member (``cls``, ``txt``, ``json``, ``npy``), of the file beside an image of a folder, or
            column of a row; several for a dict of labels; None for unlabelled images. A name you give is used or refused.
            Where you give none, a row's label may also be in ``label``, and a folder's image has the number of its class
            subfolder.
        to_sample: ``(number, item) -> Sample``, for items of any other kind.
        map_target: decoded label → target, e.g. a look-up; what it raises makes the sample a rejection.
        classes: names of the class folders in the order of their numbers, for a folder that may lack some, such as a
            validation split; None for the folders that are there, sorted. An image in another folder is a rejection.
        text: where ``tokenize`` is given, extension of the text member, or of the file beside an image of a folder; column of a
            row (``text``, if there is no ``txt``). ``"json:caption"`` is a field of the JSON object that is there.
        tokenize: text → token ids, at least one: batches then have ``text_ids``. None reads no text. It runs while headers are
            read, because a row has room for so many tokens, once per sample and epoch; it must be picklable where processes
            are spawned. What it raises makes the sample a rejection. Nothing is cut: a longer text than ``text_len`` is
            rejected, so cut in here.
        text_len: tokens of text per row, beside those of images.
        sizes: int ``[n, 2]`` oriented height and width of every item of a dataset by number, where they are known.
        size_of: number → (height, width) instead, where that is cheap. Without either an item that does not come as file bytes
            must be decoded to know its size: with workers each plans its own share then, and batches depend on how many.
        shuffle: False or 0 for the source's order; else shards are permuted, and headers in blocks of this many, by (seed,
            epoch); files of a folder and items of a dataset are permuted as a whole. True permutes an index as a whole too, and
            takes blocks of 1024 of shards, streams and other iterables.
        epoch: of the draws and the shuffling, and of a source with a ``set_epoch`` (a stream of `datasets`); see
            `Loader.set_epoch`.
        steps_per_epoch: exactly this many batches on every rank, the source repeated as needed; None for one pass. Images
            that still wait when an epoch ends this way are dropped, and counted under ``steps_per_epoch``.
        tail: where the last rows of a pass do not fill a batch: ``"short"`` leaves it short, ``"drop"`` drops its images and
            counts them, ``"pad"`` adds empty rows, ``"wrap"`` repeats the first rows (repeats are not counted).
        balance: of an index: deal rows so that ranks have nearly the same to do in each step.
        rank, world_size: which share of the source; None asks `torch.distributed` if it is initialised. Shards are dealt
            whole if there is one for every rank, else samples by position. With ``tail="pad"`` and no ``steps_per_epoch``
            every rank plans all headers and takes its rows: every image once over all ranks, equal steps.
        num_workers: painting processes; they change nothing about a batch (but see `size_of`). Another one reads headers ahead.
        num_threads: painting threads of this process, instead of `num_workers`; they change nothing about a batch. Nothing is
            sent between processes, but all share one interpreter: for a few threads, and a dataset that several may read.
        on_error: ``"raise"`` stops at the first sample that cannot be used, naming it; ``"skip"`` counts and names it in
            `Loader.report` and goes on; a function of a `Rejection` (or `ShardFault`) says whether to go on.
        quarantine: a file to which every sample and shard that cannot be used is appended, a line of JSON each.
        fuse: so many samples in a row that cannot be used are an error whatever `on_error` says; a share in (0, 1) instead:
            more than that of at least 100 samples. None to go on whatever comes.
        timeout: seconds without a batch from any worker, or a header from the process that reads them, after which they are
            taken for frozen: an error that names what each was at; 0 waits for ever.
        worker_restarts: how often in an epoch workers are started anew where one died or all are frozen; the new ones paint
            what was under way, and nothing is lost or doubled. Each time is warned of.
        **dataloader_options: for `torch.utils.data.DataLoader`: ``pin_memory``, ``prefetch_factor``, ... Random numbers that a
            dataset of yours draws in workers are seeded by the recipe's seed, epoch, rank and worker; a ``generator`` seeds
            them in torch's way instead. A resume in the middle of an epoch does not repeat them.

    Returns:
        A `Loader`; iterate it, then read ``loader.report()``. ``len()`` is ``steps_per_epoch``, a `TypeError` without.

    Raises:
        SourceError, ConfigError: what can be known now is checked now. While iterating, see `Loader.__iter__`.
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
    # with workers, reading headers leaves the training thread too
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
    """This process's rank and the number of ranks: as given, else as torch.distributed says, else one."""
    if (rank is None) != (world_size is None):
        raise ConfigError(f"rank and world_size go together, got rank={rank}, world_size={world_size}")
    if rank is not None and world_size is not None:
        return rank, world_size
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
