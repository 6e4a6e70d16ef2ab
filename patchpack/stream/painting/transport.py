"""The interface of transports, and the simplest transport.

A transport brings plans to the process or thread that paints, and brings the painted batches to the training loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader, Dataset, Sampler

from patchpack.batch_info import BatchInfo
from patchpack.stream.painting.painter import SendingPainter
from patchpack.stream.planning.planner import Planner
from patchpack.stream.planning.resume import require_same

if TYPE_CHECKING:
    from patchpack.stream.loader import Loader


class Transport:
    """The transport that paints in this process when a batch is requested. Other transports are subclasses.

    Args:
        planner: the planner that makes the plans.

    Attributes:
        dataset: the torch dataset that the loader reads.
        sampler: the sampler that the loader uses. None if the dataset is a stream.
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
        """Record that a batch has arrived. Return the number of samples that its stream reported before this iteration."""
        return self._planner.already_reported

    def one_ends_all(self) -> bool:
        """Return True if one stream without a usable image ends the epoch, although other streams may have usable images."""
        return True

    def all_delivered(self) -> None:
        """Record that the last batch of the epoch is delivered."""

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the next epoch. Random draws and shuffling depend on this number."""
        self._planner.set_epoch(epoch)

    def state_dict(self, step: int | None, *, finished: bool) -> dict[str, Any]:
        """Return the state after `step` batches, see `Planner.state_dict`."""
        return {**self._planner.state_dict(step, finished=finished), "streams": 1}

    def load_state_dict(self, loader: Loader, state: Mapping[str, Any]) -> None:
        """Make the loader continue after a state, see `Planner.load_state_dict`."""
        require_same(state, {"streams": 1})
        self._planner.load_state_dict(state)
