"""The planner of a source, stream or index: it decides every batch from headers alone, and knows where it stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from multiprocessing.context import BaseContext
from typing import Any, NamedTuple

from torch.utils.data import Sampler
from typing_extensions import Unpack

from patchpack.errors import ConfigError
from patchpack.plan._integers import require_bool, require_epoch, require_int
from patchpack.plan.online.batches import Tail
from patchpack.plan.online.losses import MAX_IN_A_ROW
from patchpack.plan.packing import Lookahead
from patchpack.plan.recipe import Recipe
from patchpack.stream.planning.order import require_place
from patchpack.stream.planning.probe import require_recipe
from patchpack.stream.planning.resume import require_same, require_whole, with_checksum
from patchpack.stream.sample.fields import Limits
from patchpack.stream.sample.source import Source
from patchpack.stream.sources.opening import SourceOptions, open_within
from patchpack.types import BatchPlan


class PlanOptions(NamedTuple):
    """The arguments of a `Planner` that its kinds use differently, see there."""

    shuffle: bool | int
    steps_per_epoch: int | None
    tail: Tail
    balance: bool
    rank: int
    world_size: int
    packer: Lookahead | None
    text_len: int | None
    max_in_a_row: int | None
    scanner: str | BaseContext | None
    timeout: float
    states_kept: int


class Planner(Sampler[BatchPlan]):
    """A sampler of `BatchPlan`s, for ``DataLoader(painter, sampler=planner, batch_size=None)``.

    All decisions are made here, in one process, so the number of workers cannot change a batch. Rows of a stream are planned
    while it is read. The epochs of an index are planned as a whole: rows are fuller, ``len()`` is exact, all ranks have the
    same number of steps, and a state is a step.

    Args:
        source: the samples, as `open_source` takes them.
        recipe: sizes, augmentation and packing of the samples. Its packer is for streams and is not used for an index.
        shuffle: False or 0 for the source's order, else shards are permuted, and headers in blocks of this many. For True see
            `load`.
        epoch: number of the epoch, for the draws, the shuffling, and a source with a ``set_epoch``. Default 0. See `set_epoch`.
        steps_per_epoch: exactly this many batches, the source repeated as needed. None for one pass.
        tail: handling of the last rows if they do not fill a batch, default ``"short"``. See `OnlinePlanner`.
        balance: True deals the rows of an index so that ranks have nearly equal work in each step. Default False.
        rank: number of the share of the source, default 0, see `Order`. With ``tail="pad"`` and no ``steps_per_epoch``
            (evaluation) every rank plans the whole source and takes its rows of each batch: every image once, equal steps.
        world_size: number of shares, default 1.
        seen: samples met in earlier epochs, for drop schedules, default 0. It grows with every epoch iterated to its end.
        packer: `Lookahead` options without `max_cut` for an index. None chooses options that suit the sizes.
        text_len: tokens of text per row, for a source with ``tokenize``. Default None.
        max_in_a_row: the planning of a stream stops after this many rejections in a row, default 100. None never stops it.
        scanner: a multiprocessing context, or the name of a start method. Headers of shards and folders are then read ahead in
            a separate process. None reads them in this process, between batches. It does not change plans.
        timeout: seconds without a header after which the process that reads them counts as frozen. Default 0: no limit.
        states_kept: number of plans that may be on their way to a batch. `state_dict` has a state for each. Default 64.
        **reading: options of `open_source`.

    Attributes:
        recipe: the given recipe.
        source: the `Source` that is planned.
        already_reported: samples that the steps before the first one of this iteration have reported.

    Raises:
        SourceError, ConfigError: at construction.
    """

    recipe: Recipe
    source: Source
    epoch: int
    seen: int
    steps_per_epoch: int | None
    already_reported: int
    text_len: int | None
    states_kept: int

    def __new__(cls, source: Any = None, *_: Any, **__: Any) -> Planner:
        """Return the planner for the kind of the source."""
        if cls is Planner:
            for name in ("index_planner", "stream_planner"):  # imported now, because both are planners themselves
                import_module(f"patchpack.stream.planning.{name}")
            cls = next(kind for kind in Planner.__subclasses__() if kind.suits(source))
        return super().__new__(cls)

    @classmethod
    def suits(cls, source: Any) -> bool:
        """Return True if this kind of planner plans the source."""
        raise NotImplementedError

    def __init__(
        self,
        source: Any,
        recipe: Recipe,
        *,
        shuffle: bool | int = 0,
        epoch: int = 0,
        steps_per_epoch: int | None = None,
        tail: Tail = "short",
        balance: bool = False,
        rank: int = 0,
        world_size: int = 1,
        seen: int = 0,
        packer: Lookahead | None = None,
        text_len: int | None = None,
        max_in_a_row: int | None = MAX_IN_A_ROW,
        scanner: str | BaseContext | None = None,
        timeout: float = 0.0,
        states_kept: int = 64,
        **reading: Unpack[SourceOptions],
    ) -> None:
        self.recipe = require_recipe(recipe)
        self.source = open_within(Limits.of(recipe), source, **reading)
        require_epoch(epoch)
        if steps_per_epoch is not None:
            require_int("steps_per_epoch", steps_per_epoch, 1, 1 << 50)
            steps_per_epoch = int(steps_per_epoch)  # a state holds it, and JSON has no numbers of numpy
        require_bool("balance", balance)
        require_place(rank, world_size)
        self.epoch, self.seen, self.steps_per_epoch, self.text_len = int(epoch), int(seen), steps_per_epoch, text_len
        self.already_reported = 0
        rank, world_size = int(rank), int(world_size)
        self._prepare(
            PlanOptions(
                shuffle, steps_per_epoch, tail, balance, rank, world_size, packer, text_len, max_in_a_row, scanner, timeout,
                states_kept,
            )
        )  # fmt: skip

    def _prepare(self, options: PlanOptions) -> None:
        """Check and keep the options. Raises `ConfigError` for one that does not suit the kind of source."""
        raise NotImplementedError

    @property
    def rank(self) -> int:
        """The rank whose share of the source is planned."""
        raise NotImplementedError

    @property
    def world_size(self) -> int:
        """The number of ranks that share the source."""
        raise NotImplementedError

    @property
    def plans_in_workers(self) -> bool:
        """True if items are decoded to find their sizes, so that workers plan too."""
        return self.source.decodes_to_scan

    def __iter__(self) -> Iterator[BatchPlan]:
        """Yield the plans of one epoch, or a single one with `BatchPlan.fatal` set if there is nothing to pack."""
        raise NotImplementedError

    def __len__(self) -> int:
        """Return the number of batches of an epoch. Raises `TypeError` for a stream without ``steps_per_epoch``."""
        raise NotImplementedError

    def __bool__(self) -> bool:
        """Return True, because the length of a planner may not be known."""
        return True

    def __repr__(self) -> str:
        shuffled = f", shuffle={self._shuffle}" if self._shuffle else ""
        steps = "" if self.steps_per_epoch is None else f", {self.steps_per_epoch} steps"
        ranks = f", rank {self.rank} of {self.world_size}" if self.world_size > 1 else ""
        return f"Planner({self.source.name}, epoch {self.epoch}{steps}{shuffled}{ranks})"

    def set_epoch(self, epoch: int) -> None:
        """Draw and shuffle for another epoch from the next iteration on.

        A source with a ``set_epoch`` is set to the planner's epoch when an iteration begins. The same epoch as in a loaded
        state continues from that state.
        """
        require_epoch(epoch)
        if epoch != self.epoch:
            self.seen += self._forget_state()
        self.epoch = int(epoch)
        self._start_run()

    def state_dict(self, step: int | None = None, *, finished: bool = False) -> dict[str, Any]:
        """Return the position in the epoch of the last iteration after its first `step` batches.

        The state is JSON-safe: a few kB, no pixels, no paths.

        Args:
            step: batches of that epoch that are done, including those before a resume. For a stream it must be among the last
                `states_kept` plans. None for the batches before the iteration began.
            finished: True if that epoch is over. The next iteration then starts a new epoch.

        Raises:
            ConfigError: there is no state for that step.
        """
        return {**self.belongs_to(), **with_checksum(self._position(step, finished))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue, in the next iteration, after the last plan of the state.

        A stream is read again from a little before: from the shard, or the block of shuffled headers, with the oldest image
        that still waits. A source without positions (an iterable) is read from its beginning, with a warning. Of an index no
        batch before the state is planned. Another world size is possible for an index if rows do not depend on it (balance off,
        one patch size) and the rows that all ranks had together are whole steps of the new world size.

        Raises:
            ConfigError: an argument, a field of the recipe or a property of the source differs, and the error names it; or the
                state is damaged.
        """
        require_same(state, self.belongs_to())
        require_whole(state, self.position_fields)
        self._restore(state)

    def plan(self) -> Sequence[BatchPlan]:
        """Return the plan of the current epoch of an index, an `EpochPlan`. Raises `ConfigError` for any other source."""
        raise ConfigError(f"{self.source.name} is planned while it is read: only the epoch of an index is planned as a whole")

    def count_epoch(self, seen: int) -> None:
        """Set the samples met so far, after an epoch that workers planned."""
        self.seen = seen

    @property
    def position_fields(self) -> tuple[str, ...]:
        """The fields of a state that hold the position in an epoch."""
        raise NotImplementedError

    def belongs_to(self) -> dict[str, Any]:
        """Return the fields of a state that say which run it belongs to. All must be the same in the run that continues."""
        raise NotImplementedError

    @property
    def _shuffle(self) -> int:
        raise NotImplementedError

    def _start_run(self) -> None:
        """Note where the next iteration begins."""
        raise NotImplementedError

    def _forget_state(self) -> int:
        """Forget a loaded state because another epoch begins. Return the samples of its epoch if that was over, else 0."""
        raise NotImplementedError

    def _position(self, step: int | None, finished: bool) -> dict[str, Any]:
        """Return the values of `position_fields`, see `state_dict`."""
        raise NotImplementedError

    def _restore(self, state: Mapping[str, Any]) -> None:
        """Take the values of `position_fields` from a state."""
        raise NotImplementedError
