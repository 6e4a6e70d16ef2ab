"""The planner of a source, which decides every batch from headers alone and can save its position."""

from __future__ import annotations

import inspect
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from multiprocessing.context import BaseContext
from typing import Any, NamedTuple

from torch.utils.data import Sampler
from typing_extensions import Unpack

from patchpack.errors import ConfigError
from patchpack.plan._integers import require_bool, require_epoch, require_int, require_number
from patchpack.plan.online.batches import Tail
from patchpack.plan.online.losses import MAX_IN_A_ROW
from patchpack.plan.packing import Lookahead
from patchpack.plan.recipe import Recipe
from patchpack.stream.planning.order import require_place
from patchpack.stream.planning.probe import require_recipe
from patchpack.stream.planning.resume import require_same, require_whole, with_checksum
from patchpack.stream.sample.fields import Limits
from patchpack.stream.sample.options import unknown_option
from patchpack.stream.sample.source import Source
from patchpack.stream.sources.opening import DEFAULTS as SOURCE_DEFAULTS
from patchpack.stream.sources.opening import SourceOptions, open_within
from patchpack.types import BatchPlan


class PlanOptions(NamedTuple):
    """The arguments of a `Planner` that `StreamPlanner` and `IndexPlanner` use in different ways. See `Planner` for each."""

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

    The planner makes all decisions in one process, so the number of workers cannot change a batch. The rows of a stream are
    planned while the stream is read. With an index, each epoch is planned as a whole. So rows are fuller, ``len()`` is exact,
    all ranks have the same number of steps, and a saved state holds only the number of a step.

    Args:
        source: the samples, in any form that `open_source` accepts.
        recipe: sizes, augmentation and packing of the samples. The recipe's packer is not used for an index.
        shuffle: False or 0 keeps the source's order (default). A number n permutes the shards, and the samples inside each
            block of n samples. True uses the block size that `load` describes.
        epoch: number of the epoch, default 0. The random draws and the shuffling depend on this number. A source with a method
            ``set_epoch`` is set to this epoch. See `set_epoch`.
        steps_per_epoch: exact number of batches of an epoch. The source is repeated if it is too short. Default None: an epoch
            is one pass over the source.
        tail: handling of the last rows if they do not fill a batch, default ``"short"``. `load` describes the values.
        balance: True distributes the rows of an index so that all ranks have nearly equal work in each step. Default False.
        rank: number of this process among `world_size` processes, default 0. Each rank reads whole shards if there is a
            shard for every rank, and otherwise every world_size-th sample.
            With ``tail="pad"`` and no ``steps_per_epoch`` (evaluation) every rank plans the whole source and yields only its
            own rows of each batch. Then all ranks together see every image once, in equal numbers of steps.
        world_size: number of processes that share the source, default 1.
        seen: number of samples met in earlier epochs, default 0. Drop schedules depend on this number. The number grows with
            every epoch that is iterated to its end.
        packer: a `Lookahead` without ``max_cut``. The rows of an index are packed with its options. Other sources do not use
            it. Default None: the options are chosen from the sizes.
        text_len: tokens of text per row, for a source with ``tokenize``. Default None.
        max_in_a_row: number of rejections in a row after which the planning of a stream stops, default 100. None sets no limit.
        scanner: a multiprocessing context, or the name of a start method. Headers of shards and folders are then read ahead in
            a separate process. Default None: headers are read in this process, between batches. The choice does not change the
            plans.
        timeout: seconds without a header after which the process that reads headers counts as frozen. Default 0: no limit.
        states_kept: number of latest plans for which `state_dict` can give a state. At most this many plans may be waiting for
            their batch. Default 64.
        **reading: options of `open_source`.

    Attributes:
        recipe: the given recipe.
        source: the `Source` that is planned.
        already_reported: number of samples that were reported before the first step of this iteration.

    Raises:
        SourceError: the source cannot be read. It is raised at construction.
        ConfigError: an option cannot work. It is raised at construction.
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
        """Return a planner of the class that suits the source."""
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
        for name in reading:
            if name not in SOURCE_DEFAULTS:
                raise unknown_option("Planner", name, [*SOURCE_DEFAULTS, *inspect.signature(Planner.__init__).parameters])
        self.recipe = require_recipe(recipe)
        self.source = open_within(Limits.of(recipe), source, **reading)
        require_epoch(epoch)
        if steps_per_epoch is not None:
            require_int("steps_per_epoch", steps_per_epoch, 1, 1 << 50)
            steps_per_epoch = int(steps_per_epoch)  # a state holds it, and JSON has no numbers of numpy
        require_bool("balance", balance)
        require_number("timeout", timeout)
        if timeout < 0:
            raise ConfigError(f"timeout is a number of seconds, 0 for no limit, got {timeout!r}")
        require_int("seen", seen, 0, 1 << 62)
        require_int("states_kept", states_kept, 1, 1 << 62)
        if isinstance(scanner, str) and scanner not in multiprocessing.get_all_start_methods():
            known = ", ".join(map(repr, multiprocessing.get_all_start_methods()))
            raise ConfigError(f"scanner is a multiprocessing context, None, or one of {known} here, got {scanner!r}")
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
        """Check and keep the options. Raises `ConfigError` for an option that does not suit the kind of source."""
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
        """True if images are decoded to find their sizes. Each worker then plans its own batches."""
        return self.source.decodes_to_scan

    def __iter__(self) -> Iterator[BatchPlan]:
        """Yield the plans of one epoch.

        If there is nothing to pack, yield a single plan with `BatchPlan.fatal` set.
        """
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
        """Set the number of the next epoch. Random draws and shuffling depend on this number.

        When an iteration begins, a source with a method ``set_epoch`` is set to the same epoch. If `epoch` is the epoch of a
        loaded state, the next iteration continues from that state.
        """
        require_epoch(epoch)
        if epoch != self.epoch:
            self.seen += self._forget_state()
        self.epoch = int(epoch)
        self._start_run()

    def state_dict(self, step: int | None = None, *, finished: bool = False) -> dict[str, Any]:
        """Return the position after the first `step` batches of the last iteration's epoch.

        The state is JSON-safe: a few kB, no pixels, no paths.

        Args:
            step: number of batches of the epoch that are done, including batches before a resume. For a stream, the plan of the
                last of these batches must be among the last `states_kept` plans. Default None: the number of batches before the
                iteration began.
            finished: True if that epoch is over. After the state is loaded, the next iteration starts a new epoch.

        Raises:
            ConfigError: there is no state for that step.
        """
        return {**self.belongs_to(), **with_checksum(self._position(step, finished))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make the next iteration continue after the last plan of the state.

        A stream is read again from a little before the state. Reading starts at the shard, or at the block of shuffled headers,
        that holds the oldest image still waiting for a row. A source without parts (an iterable) is read from its beginning,
        with a warning. For an index, the batches before the state are not planned again. With an index, `world_size` may change
        on two conditions. First, rows must not depend on `world_size`: `balance` is False, and the recipe has one patch size.
        Second, the number of rows that all ranks together have delivered must be a multiple of the new `world_size` times
        `rows_per_batch`.

        Raises:
            ConfigError: the state is damaged, or an argument, a field of the recipe or a property of the source differs. The
                error names the difference.
        """
        require_same(state, self.belongs_to())
        require_whole(state, self.position_fields)
        self._restore(state)

    def plan(self) -> Sequence[BatchPlan]:
        """Return the plan of the current epoch of an index, an `EpochPlan`. Raises `ConfigError` for any other source."""
        raise ConfigError(f"{self.source.name} is planned while it is read: only the epoch of an index is planned as a whole")

    def count_epoch(self, seen: int) -> None:
        """Set the number of samples met so far, after an epoch that workers planned."""
        self.seen = seen

    @property
    def position_fields(self) -> tuple[str, ...]:
        """The fields of a state that hold the position in an epoch."""
        raise NotImplementedError

    def belongs_to(self) -> dict[str, Any]:
        """Return the fields of a state that identify its run.

        A run that continues must have equal values in all of these fields.
        """
        raise NotImplementedError

    @property
    def _shuffle(self) -> int:
        raise NotImplementedError

    def _start_run(self) -> None:
        """Record where the next iteration begins."""
        raise NotImplementedError

    def _forget_state(self) -> int:
        """Forget a loaded state, because another epoch begins.

        If the state was saved at the end of its epoch, return the number of samples in that epoch. Otherwise return 0.
        """
        raise NotImplementedError

    def _position(self, step: int | None, finished: bool) -> dict[str, Any]:
        """Return the values of `position_fields`, see `state_dict`."""
        raise NotImplementedError

    def _restore(self, state: Mapping[str, Any]) -> None:
        """Take the values of `position_fields` from a state."""
        raise NotImplementedError
