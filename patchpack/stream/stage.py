"""The stage `patchpack.Pack`, which plans and paints inside your own pipeline, in the process that runs the pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from patchpack.batch.packed import PackedBatch
from patchpack.errors import ConfigError, SourceError
from patchpack.paint.painter import paint
from patchpack.paint.target_kinds import KindOption, declared_by, parse_kind
from patchpack.plan._integers import require_bool, require_epoch
from patchpack.plan.online.batches import Tail
from patchpack.plan.online.planner import OnlinePlanner
from patchpack.plan.recipe import Recipe
from patchpack.stream.planning.order import Mark, Order, OrderedSource
from patchpack.stream.planning.probe import probe_targets, require_recipe
from patchpack.stream.planning.resume import (
    STATE,
    Marks,
    kind_of,
    recipe_fields,
    require_same,
    require_whole,
    restore,
    snapshot,
    with_checksum,
)
from patchpack.stream.planning.stream_planner import LOOKAHEAD_BYTES
from patchpack.stream.policy import ErrorJudge, ErrorPolicy, OnError
from patchpack.stream.sample.fields import Limits
from patchpack.stream.sample.items import ToSample
from patchpack.stream.sample.labels import MappedReader, MapTarget, map_name
from patchpack.stream.sample.names import IMAGE, LABEL
from patchpack.stream.sample.parsing import parse_members, require_callable, require_unnamed
from patchpack.stream.sample.source import ReadSample, tell_epoch
from patchpack.stream.sample.text import TEXT, Tokenize, parse_text, require_text_len
from patchpack.stream.sources.declared import require_possible
from patchpack.stream.sources.inline import InlineReader
from patchpack.stream.sources.iterables import IterableSource, Numbers
from patchpack.stream.sources.shares import Share, in_order, require_items
from patchpack.stream.staged_items import StagedItems
from patchpack.stream.workers.shared_batch import share
from patchpack.types import BatchPlan, TargetKind

_BLOCK = 16  # items planned at a time
_LOOKAHEAD = 4096
_PLACE = ("epoch", "streams", "states")  # in a state: positions of the streams


class Pack:
    """A stage of your pipeline that turns samples into `PackedBatch`es of numpy arrays.

    The stage is for pipelines that can only be read from their beginning. For webdataset write
    ``stream.compose(pp.Pack(recipe))``. For any other stream ``pp.Pack(recipe).over(stream)`` makes a torch dataset. A call of
    the stage with an iterable returns a generator of batches. The stage is picklable.

    The stream of each worker is packed separately, so batches depend on how the pipeline splits itself over ranks and workers.
    The stage never splits a pipeline that splits itself. An item without a key gets its number in the stream as key, or
    ``"<worker>/<number>"`` if there are several workers. A key may repeat (webdataset's ``resampled=True``). Random draws still
    differ, because they depend on the key and on the sample's number in the stream.

    Args:
        recipe: sizes, augmentation and packing of the samples.
        image: member of a webdataset dict, or column of a row. See `patchpack.stream.sample.items.as_sample`.
        frames: members or column that hold the frames of a clip. Default None: no clips.
        target: member or column that holds the label. With several names the target is a dict of labels. None reads no labels.
        to_sample: a function ``(number, item) -> Sample``, for items of another kind. Default None.
        map_target: a function from the decoded label to the target. Default None.
        text: member or column that holds the text, see `load`.
        tokenize: a function from a text to its token ids, see `load`. Default None: no texts.
        target_kind: kind of all targets, see `open_source`. Default None: the first readable target of each stream decides.
        text_len: number of tokens of text per row, see `load`. Default None: no texts.
        epoch: number of the epoch. Random draws depend on this number. Default 0. See `set_epoch`.
        lookahead: number of images that may wait in unfinished rows, default 4096. If more wait, the fullest rows are closed.
            The stage also holds two batches and a block of 16 items.
        lookahead_bytes: number of bytes that the waiting images may take, in the form in which the pipeline yields them,
            default 256 MiB. If they take more, the fullest rows are closed.
        tail: handling of the last rows of a stream that ends, default ``"short"``. `load` describes the values.
        on_error: ``"raise"``, ``"skip"``, a function, or an `ErrorPolicy`, see `load`. Under ``"skip"`` rejections are in
            ``batch.info``, see `Report.collect`. Each stream counts separately. Default ``"raise"``.
        resumable: True stores the state of the stream in the ``info.state`` of every batch. The method `delivered` needs this
            state. A state takes some kB. Default False.

    Raises:
        ConfigError: an option cannot work. It is raised at construction.
        SourceError: an item is of an unknown kind, or a stream has no usable image. It is raised while iterating.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        image: str | Sequence[str] = IMAGE,
        frames: str | None = None,
        target: str | tuple[str, ...] | None = LABEL,
        to_sample: ToSample | None = None,
        map_target: MapTarget | None = None,
        text: str = TEXT,
        tokenize: Tokenize | None = None,
        target_kind: KindOption = None,
        text_len: int | None = None,
        epoch: int = 0,
        lookahead: int = _LOOKAHEAD,
        lookahead_bytes: int = LOOKAHEAD_BYTES,
        tail: Tail = "short",
        on_error: OnError | ErrorPolicy = "raise",
        resumable: bool = False,
    ) -> None:
        self._policy = ErrorPolicy.of(on_error).require_default("Pack", "timeout", "worker_restarts")
        self._judge = ErrorJudge(self._policy)
        self._recipe = require_recipe(recipe)
        members = parse_members(image, target, frames, Limits.of(recipe))
        require_callable(map_target=map_target, to_sample=to_sample)
        require_unnamed(members, to_sample)
        self._members = replace(members, text=parse_text(text, tokenize))
        self._kind = parse_kind(target_kind)
        if self._kind is not None and map_target is None:
            require_possible(members, self._kind, "this stage")
        require_text_len(self._members.text, text_len)
        self._text, self._text_len = None if tokenize is None else text, text_len
        self._to_sample = to_sample
        self._reader: ReadSample = InlineReader() if map_target is None else MappedReader(InlineReader(), map_target)
        self._tail, self._lookahead = tail, (lookahead, lookahead_bytes)
        require_epoch(epoch)
        self._epoch = share(
            torch.tensor([epoch, epoch > 0])
        )  # and whether the user set it; workers that outlive an epoch see changes too
        require_bool("resumable", resumable)
        self._resumable = resumable
        self._states: dict[int, Mapping[str, Any]] = {}  # by stream: the state of its last delivered batch
        self._num_streams = 1
        self._resume: dict[int, Mapping[str, Any]] = {}
        self._planner(None)  # raises now for wrong arguments

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the next epoch. Random draws depend on this number. Workers that are already running see it too.

        The stage does not shuffle. If the pipeline has a method ``set_epoch``, each later iteration first calls it with the
        stage's epoch.
        """
        require_epoch(epoch)
        if epoch != self.epoch:
            self._states, self._resume = {}, {}
        self._epoch.copy_(torch.tensor([epoch, True]))

    @property
    def epoch(self) -> int:
        """Number of the next epoch. Random draws depend on this number."""
        return int(self._epoch[0])

    def _tell_epoch(self, items: Any) -> None:
        if self._epoch[1]:  # else the user may have set the pipeline's epoch
            tell_epoch(items, self.epoch)

    def delivered(self, batch: PackedBatch[np.ndarray]) -> None:
        """Record, in the training process, that training has used a batch.

        `state_dict` then returns the state after this batch.
        """
        if batch.info.state is None:
            raise ConfigError("this batch carries no state: make the stage with resumable=True")
        self._resume = {}  # already running: the next epoch starts at its beginning
        self._states[batch.info.worker] = batch.info.state
        self._num_streams = batch.info.streams

    def state_dict(self) -> dict[str, Any]:
        """Return the position of every stream after its last `delivered` batch.

        The state is JSON-safe, takes some kB per stream, and holds no pixels.

        Raises:
            ConfigError: the stage was made without ``resumable=True``, so its batches carry no state.
        """
        if not self._resumable:
            raise ConfigError("this stage does not know its position: make it with resumable=True, and call delivered(batch)")
        return {
            **self._belongs_to(),
            **with_checksum(
                {
                    "epoch": self.epoch,
                    "streams": self._num_streams,
                    "states": {str(stream): state for stream, state in self._states.items()},
                }
            ),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make the next iteration of every stream continue after its last delivered batch.

        Call this method before the DataLoader starts its workers. A pipeline has no positions, so it is read again from its
        beginning, and samples that were packed are skipped without decoding. Each stream then makes the batches that it would
        have made without the interruption. Torch always takes the first batch from its first worker. So several workers deliver
        their batches in the original order only if the state was saved after the same number of batches from every worker.

        Raises:
            ConfigError: the state is damaged, or an argument or a field of the recipe differs. The error names the difference.
                The number of streams is compared when the streams start.
        """
        require_same(state, self._belongs_to())
        require_whole(state, _PLACE)
        self._epoch.copy_(torch.tensor([state["epoch"], state["epoch"] > 0]))
        self._num_streams = state["streams"]
        self._states = {int(stream): saved for stream, saved in state["states"].items()}
        self._resume = dict(self._states)

    def _belongs_to(self) -> dict[str, Any]:
        return {
            "state": STATE,
            **recipe_fields(self._recipe),
            **self._members.item_names(self._to_sample),
            "map_target": map_name(self._reader),
            "target_kind": declared_by(self._kind),
            "tail": self._tail,
            "lookahead": list(self._lookahead),
            "text": self._text,
            "text_len": self._text_len,
        }

    def over(self, items: Iterable[Any]) -> IterableDataset[PackedBatch[np.ndarray]]:
        """Return a torch dataset of the batches that the stage makes of `items`, for ``DataLoader(..., batch_size=None)``.

        Torch expects an `IterableDataset` (such as those of webdataset and `datasets`) to divide itself among workers. Any
        other iterable is divided here: worker w of n takes items w, w + n, … Iteration over a map-style dataset stops after
        ``len(dataset)`` items.

        Raises:
            ConfigError: `items` is a path, or cannot be iterated.
        """
        require_items(items)
        return StagedItems(self, items)

    def __call__(self, items: Iterable[Any]) -> Iterator[PackedBatch[np.ndarray]]:
        """Yield the batches of the items, in order."""
        require_items(items)
        self._judge.begin()
        worker = get_worker_info()
        number, num_streams = (worker.id, worker.num_workers) if worker else (0, 1)
        numbers = Numbers(stream=f"{number}/" if num_streams > 1 else "")
        if isinstance(items, Share):
            numbers = Numbers(items.number, items.num_shares)
        source = IterableSource(in_order(items), self._members, to_sample=self._to_sample, repeating=True, numbers=numbers)
        self._tell_epoch(source)
        if self._resume and num_streams != self._num_streams:
            raise ConfigError(f"the state is of {self._num_streams} streams, here are {num_streams}: use as many workers")
        resume = self._resume.pop(number, None)
        marks, ordered = Marks(Mark()), OrderedSource(source, Order())
        events = marks.without(ordered.scan())
        if resume is not None:
            kind = kind_of(resume)
            planner = self._planner(kind)
            restore(resume, planner, ordered, events)
        else:
            kind, probed = probe_targets(events, self._reader, self._kind, max_in_a_row=self._policy.max_in_a_row)
            planner, events = self._planner(kind), iter(probed)

        def painted(plan: BatchPlan) -> PackedBatch[np.ndarray]:
            batch = self._paint(plan)
            if self._resumable:
                batch.info.streams, batch.info.state = num_streams, snapshot(planner, marks, kind)
            return batch

        while planner.takes_more and (block := list(islice(events, _BLOCK))):
            yield from map(painted, planner.feed(block))
        yield from map(painted, planner.finish())

    def _planner(self, kind: TargetKind) -> OnlinePlanner:
        lookahead, lookahead_bytes = self._lookahead
        return OnlinePlanner(
            self._recipe,
            epoch=self.epoch,
            target_kind=kind,
            name="the stream",
            tail=self._tail,
            lookahead=lookahead,
            lookahead_bytes=lookahead_bytes,
            max_in_a_row=self._policy.max_in_a_row,
            text_len=self._text_len,
        )

    def _paint(self, plan: BatchPlan) -> PackedBatch[np.ndarray]:
        batch = paint(plan, self._recipe, self._reader)
        worker = get_worker_info()
        batch.info.worker = worker.id if worker else 0
        error = self._judge.judge(batch.info)
        if error is None and plan.fatal:
            hint = "; fewer shards than workers leave a worker without any" if worker and not plan.info.seen else ""
            error = SourceError(plan.fatal + hint)
        if error is not None:
            raise error
        return batch
