"""The way from plans to painted batches: the interface of all ways, and the simplest one, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader, Dataset, Sampler

from patchpack.report import BatchInfo
from patchpack.stream.painting.painter import SendingPainter
from patchpack.stream.planning.planner import Planner
from patchpack.stream.planning.resume import require_same

if TYPE_CHECKING:
    from patchpack.stream.loader import Loader


class Transport:
    """Painting in this process, when a batch is requested. Other transports are subclasses.

    Args:
        planner: makes the plans.

    Attributes:
        dataset: the dataset of the loader.
        sampler: the sampler of the loader, None if the dataset is a stream.
    """

    dataset: Dataset[Any]
    sampler: Sampler[Any] | None

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self.dataset, self.sampler = SendingPainter(planner), planner

    def begin(self) -> None:
        """Prepare an iteration."""

    def sent(self, loader: Loader) -> Iterator[Any]:
        """Yield batches, or `SharedBatch`es, of one epoch of the loader."""
        return DataLoader.__iter__(loader)

    def arrived(self, info: BatchInfo) -> int:
        """Note that a batch has arrived. Return the samples that its stream reported before this iteration."""
        return self._planner.already_reported

    def one_ends_all(self) -> bool:
        """Return True if a stream without a usable image ends the epoch, although others may have some."""
        return True

    def all_delivered(self) -> None:
        """Note that the last batch of the epoch is delivered."""

    def set_epoch(self, epoch: int) -> None:
        """Draw and shuffle for another epoch from the next iteration on."""
        self._planner.set_epoch(epoch)

    def state_dict(self, step: int | None, *, finished: bool) -> dict[str, Any]:
        """Return the state after `step` batches, see `Planner.state_dict`."""
        return {**self._planner.state_dict(step, finished=finished), "streams": 1}

    def load_state_dict(self, loader: Loader, state: Mapping[str, Any]) -> None:
        """Continue the loader after the state, see `Planner.load_state_dict`."""
        require_same(state, {"streams": 1})
        self._planner.load_state_dict(state)
