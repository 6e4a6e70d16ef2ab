"""Planned in the workers: for items that must be read, and decoded, to know their size.

Each worker plans and paints the samples of its own share; nothing crosses but finished batches. So here, and only here under
`patchpack.load`, batches depend on the number of workers; what happens to an image does not. (A drop schedule counts what was
met: after an epoch that `steps_per_epoch` ended, that includes what each stream had read ahead.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch.utils.data import IterableDataset, get_worker_info

from patchpack.stream.dataset import SendingPainter
from patchpack.stream.parcel import Parcel, share
from patchpack.stream.sampler import Planner
from patchpack.types import PackedBatch


class Resume(NamedTuple):
    """Where streams go on: the state of each, None for one that has made nothing yet; and which one's turn it is.

    Torch asks its first worker first, so that one takes the stream whose turn it is, and the others follow in order.
    """

    states: list[Mapping[str, Any] | None]
    first: int


class WorkerStreams(IterableDataset[PackedBatch | Parcel]):
    """A stream of batches per worker, which torch's loader takes in turns: stream i makes steps i, i + n, i + 2n, ...

    Args:
        planner: its source reads pixels.
        num_workers: streams, at least 1.

    Attributes:
        resume: set before the workers start, where they are to go on.

    Raises:
        ConfigError: a stream that owes steps would have no sample.
    """

    def __init__(self, planner: Planner, num_workers: int) -> None:
        planner.require_samples_for(num_workers)
        self._planner = planner
        self._painter = SendingPainter(planner)
        # shared, so that workers that outlive an epoch hear of the next one
        self._begin = share(torch.tensor([planner.epoch, planner.seen]))
        self.resume: Resume | None = None

    def begin(self, epoch: int, seen: int) -> None:
        """Tell the workers, those that run already too, which epoch comes next."""
        self._begin.copy_(torch.tensor([epoch, seen]))

    def __iter__(self) -> Iterator[PackedBatch | Parcel]:
        """This worker's batches. Their info has the worker's number and the state after them."""
        worker = get_worker_info()
        number, num_streams = (worker.id, worker.num_workers) if worker else (0, 1)
        begin = None
        if self.resume is not None:
            number = (number + self.resume.first) % num_streams
            begin, self.resume = self.resume.states[number], None  # not the next epoch's
        self._planner.epoch, self._planner.seen = self._begin.tolist()
        for plan, state in self._planner.stream(number, num_streams, begin):
            sent = self._painter[plan]
            info = sent.batch.info if isinstance(sent, Parcel) else sent.info
            info["worker"], info["state"] = number, state
            yield sent
