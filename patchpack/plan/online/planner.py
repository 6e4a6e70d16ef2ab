"""The online planner, which plans batches from sizes while samples arrive. An instance plans one epoch of one stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from patchpack.batch_info import BatchInfo
from patchpack.errors import ConfigError
from patchpack.losses import Rejection, ShardFault
from patchpack.plan._integers import require_epoch, require_limits
from patchpack.plan.online.batches import TAILS, Batches, HeldPlan, Tail
from patchpack.plan.online.budget import Budget
from patchpack.plan.online.decisions import SampleDecision, decide
from patchpack.plan.online.losses import MAX_IN_A_ROW, Losses
from patchpack.plan.online.passes import Passes
from patchpack.plan.online.refusals import refused, too_few_steps, too_many_errors
from patchpack.plan.online.rows import Rows
from patchpack.plan.online.saved import positions_of, require_same_samples, samples_to_json, shortened_again
from patchpack.plan.recipe import Recipe
from patchpack.types import BatchPlan, Event, Header, TargetKind


class OnlinePlanner:
    """A planner that turns the headers of one epoch into `BatchPlan`s.

    Call `feed` with events in the order of the source, then `finish`. Plans do not depend on how the events are cut into
    blocks. The planner holds back its newest plan, so that the last batch can also report the losses after the batch.

    Args:
        recipe: recipe of the batches. A batch has ``recipe.rows_per_batch`` rows.
        epoch: number of the epoch, on which the random draws depend, 0 … 2**32 − 1. Default 0.
        seen: number of samples read in earlier epochs, which drop schedules need. Default 0.
        target_kind: the kind of the source's targets. Every plan carries it. Default None, no targets.
        name: name of the source, for messages.
        tail: treatment of the last rows of an epoch if they do not fill a batch. ``"short"``, the default, leaves the batch
            short. ``"drop"`` drops the images of this batch and counts them. ``"pad"`` adds empty rows. ``"wrap"`` repeats the
            first rows of the epoch.
        max_steps: number of batches after which the epoch ends. Samples that still wait then are dropped and counted. Default
            None: the epoch ends with the source.
        stream: number of this planner among the planners that share an epoch, from 0. Default 0.
        num_streams: number of planners that share an epoch. Each planner receives every num_streams-th sample, and plans every
            num_streams-th of the `max_steps` steps. Default 1.
        lookahead: largest number of samples that may wait in open rows. If more wait, the fullest rows are closed. Default
            None, no limit.
        lookahead_bytes: largest number of bytes (`Header.num_bytes`) that the samples in open rows may hold. If they hold
            more, the fullest rows are closed. Default None, no limit.
        max_in_a_row: number of consecutive unusable samples after which the epoch ends with a plan that has `fatal` set. None
            for no limit. Default 100.
        text_len: text tokens per row, in addition to the tokens of images (see `Header.text`). Default None, without texts.
        sources: names of the sources of a mix, which keys begin with. Default empty, no mix.

    Raises:
        ConfigError: `tail` is unknown, or a number is out of its range.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        epoch: int = 0,
        seen: int = 0,
        target_kind: TargetKind = None,
        name: str = "the source",
        tail: Tail = "short",
        max_steps: int | None = None,
        stream: int = 0,
        num_streams: int = 1,
        lookahead: int | None = None,
        lookahead_bytes: int | None = None,
        max_in_a_row: int | None = MAX_IN_A_ROW,
        text_len: int | None = None,
        sources: Sequence[str] = (),
    ) -> None:
        if tail not in TAILS:
            raise ConfigError(f"tail must be one of {', '.join(TAILS)}, got {tail!r}")
        if tail == "wrap" and len(recipe.patch_sizes) > 1:
            raise ConfigError("tail='wrap' cannot repeat rows that were planned for another patch size: use 'pad' or 'drop'")
        require_epoch(epoch)
        require_limits(max_steps=max_steps, lookahead=lookahead, lookahead_bytes=lookahead_bytes, max_in_a_row=max_in_a_row)
        self._recipe, self._epoch, self._name = recipe, epoch, name
        self._tail, self._max_steps, self._num_streams = tail, max_steps, num_streams
        self._lookahead, self._max_in_a_row = (lookahead, lookahead_bytes), max_in_a_row
        self._budget = Budget(recipe.max_images, text_len)
        self._batches = Batches(recipe, epoch, tail, target_kind, text_len)
        self._account = Losses(sources)
        self._first_ordinal = seen + stream
        self._step, self._passes = stream, Passes(recipe)
        self._held: HeldPlan | None = None
        self._ended = self._finished = False  # no more events are fed; no more plans are made
        self._fatal: str | None = None  # why fewer steps were planned than requested
        self._begin(recipe.patch_size_at(epoch, stream))

    def __repr__(self) -> str:
        return f"OnlinePlanner({self._name}, epoch {self._epoch}, step {self._step}, {self.seen} seen)"

    @property
    def seen(self) -> int:
        """Number of samples read so far in this epoch."""
        return self._account.seen

    @property
    def done(self) -> bool:
        """True if ``max_steps`` batches are planned. The planner then takes no more samples."""
        return self._max_steps is not None and self._step >= self._max_steps

    @property
    def finished(self) -> bool:
        """True if the last plan of the epoch has been made. After that, `seen` does not change any more."""
        return self._finished

    @property
    def nothing_usable(self) -> bool:
        """True if the most recent passes over a repeated source had no usable sample, and another pass would not help."""
        return self._passes.nothing_usable

    @property
    def too_many_errors(self) -> bool:
        """True if ``max_in_a_row`` consecutive samples could not be used."""
        return self._max_in_a_row is not None and self._account.in_a_row >= self._max_in_a_row

    @property
    def takes_more(self) -> bool:
        """True if samples that are fed now would still be planned."""
        return not (self.done or self.nothing_usable or self.too_many_errors or self._ended or self._finished)

    def feed(self, events: Iterable[Event]) -> Iterator[BatchPlan]:
        """Take a block of events, and yield the plans that these events complete."""
        todo, account = deque(events), self._account
        yield from self._complete_batches()  # batches that were complete when a state was saved
        while todo and not self.done and not self.too_many_errors:
            patch_size = self._patch_size  # with a new patch size, the rest of the block is decided again
            samples = (event for event in todo if not isinstance(event, ShardFault))
            decisions = iter(self._decide([(account.seen + i, e) for i, e in enumerate(samples) if isinstance(e, Header)]))
            while todo and not self.done and not self.too_many_errors and patch_size == self._patch_size:
                event = todo.popleft()
                if isinstance(event, ShardFault):
                    account.fault(event)
                    continue
                account.seen += 1
                if isinstance(event, Header):
                    self._passes.reach(event.repeat)
                if isinstance(event, Rejection):
                    account.reject(event)
                else:
                    self._push(next(decisions))
                yield from self._complete_batches()

    def finish(self) -> Iterator[BatchPlan]:
        """End the epoch and yield the remaining plans. The last plan follows ``tail``.

        Raises:
            PackingError: the packer did not return an item.
        """
        if self._finished:
            if self._fatal:
                yield self._make_plan([], fatal=self._fatal)
            return
        self._ended = True
        if self.too_many_errors:
            yield from self._stop()
            return
        while not self.done:
            self._rows.flush()  # again after each batch, because a new patch size opens new rows
            if not len(self._rows) or (self._tail == "drop" and len(self._rows) < self._recipe.rows_per_batch):
                break
            yield from self._complete_batch()
        account = self._account
        if not self.done:
            left = self._rows.take(len(self._rows))  # empty unless tail is "drop"
            account.drop("tail", [decision for row in left for decision in row])
        else:
            account.drop("steps_per_epoch", self._rows.waiting())
        held, self._held, self._finished = self._held, None, True
        if held is None:
            yield self._make_plan([], fatal=f"{self._name}: no image to pack, {account}")
            return
        dropped, account.dropped = account.dropped, {}
        if self._max_steps is not None and not self.done:
            why = too_few_steps(self._recipe, self._patch_size, account.first_fault, nothing_usable=self.nothing_usable)
            self._fatal = f"{self._name} ended after {self._step} of {self._max_steps} steps: {why}"
        yield replace(held.plan, info=replace(account.added_to(held.plan.info, list), dropped=dropped))
        if self._fatal:
            yield self._make_plan([], fatal=self._fatal)

    def _stop(self) -> Iterator[BatchPlan]:
        """Yield the plan that was held back, then a plan with `fatal` set. Samples that wait in rows stay in the rows."""
        self._finished = True
        self._fatal = too_many_errors(self._name, self._account)
        held, self._held = self._held, None
        if held is not None:
            yield replace(held.plan, info=self._account.added_to(held.plan.info, self._rows.waiting))
        yield self._make_plan([], fatal=self._fatal)

    def _begin(self, patch_size: int) -> None:
        """Open new rows for a patch size."""
        self._patch_size, self._seq_len = patch_size, self._recipe.row_len(patch_size)
        self._rows = Rows(self._recipe.packer, self._seq_len, self._budget, *self._lookahead)

    def _start_step(self) -> None:
        patch_size = self._recipe.patch_size_at(self._epoch, self._step)
        if patch_size == self._patch_size or self.done:
            return
        # rows of another patch size cannot be used: a new packer gets the images of these rows in arrival order
        again = self._rows.waiting()
        self._begin(patch_size)
        for decision in self._decide([(decision.position, decision.header) for decision in again]):
            self._push(decision)

    def _decide(self, headers: list[tuple[int, Header]], patch_size: int | None = None) -> list[SampleDecision]:
        """Return the decisions about samples, which are given as pairs (position in the stream, header)."""
        ordinals = self._first_ordinal + self._num_streams * np.array([p for p, _ in headers], dtype=np.int64)
        return decide(self._recipe, headers, epoch=self._epoch, ordinals=ordinals, patch_size=patch_size or self._patch_size)

    def _push(self, decision: SampleDecision) -> None:
        rejection = refused(decision, self._recipe, self._seq_len, self._budget.text_len)
        if rejection is not None:
            self._account.reject(rejection)
        else:
            self._passes.take()
            self._account.in_a_row = 0
            self._rows.push(decision)

    def _complete_batches(self) -> Iterator[BatchPlan]:
        while len(self._rows) >= self._recipe.rows_per_batch and not self.done:
            yield from self._complete_batch()

    def _complete_batch(self) -> Iterator[BatchPlan]:
        rows = self._rows.take(self._recipe.rows_per_batch)
        whole, repeated_rows = self._batches.completed(rows)
        held, self._held = self._held, HeldPlan(self._make_plan(whole, repeated_rows=repeated_rows), rows)
        self._step += self._num_streams
        self._start_step()
        if held is not None:
            yield held.plan

    def _make_plan(self, rows: list[list[SampleDecision]], fatal: str | None = None, repeated_rows: int = 0) -> BatchPlan:
        fresh = [decision for row in rows[: len(rows) - repeated_rows] for decision in row]
        info = self._account.info(self._step, self._epoch, fresh, self._rows.waiting, fatal=fatal is not None)
        return self._batches.plan(rows, self._patch_size, info, fatal=fatal, repeated_rows=repeated_rows)

    # ----------------------------------------------------------------------------------------------------------- resume

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the planner after the last plan that it returned. The state is small and JSON-safe.

        The state holds the position, the hash of the key, and the size of each waiting sample. After the last plan of the
        epoch, the state says only that planning has finished.
        """
        state = {"step": self._step, "patch_size": self._patch_size, "account": self._account.state_dict()}
        if self._finished:
            return {**state, "finished": True, "fatal": self._fatal}
        held = self._held
        rows = [*self._batches.first_rows, *(held.rows if held else []), self._rows.waiting()]
        return {
            **state,
            "ended": self._ended,
            "pass": self._passes.state(),
            "rows": self._rows.state_dict(),
            "waiting": [decision.position for decision in self._rows.waiting()],
            "first_rows": positions_of(self._batches.first_rows),
            "held": held and held.to_json(),
            **samples_to_json(rows, with_texts=self._budget.text_len is not None),
        }

    def load_state_dict(self, state: dict[str, Any], headers: Mapping[int, Header]) -> None:
        """Continue from a state of `state_dict`. The next event to feed is the sample at position ``state["account"]["seen"]``.

        Args:
            state: state of a planner that was made with the arguments of this planner.
            headers: mapping from each position in ``state["samples"]`` to the header of this sample.

        Raises:
            SourceError: a header is missing, belongs to another sample, or has another size. Or the token ids of texts changed.
        """
        self._step = state["step"]
        self._account.load_state_dict(state["account"])
        self._begin(state["patch_size"])
        if state.get("finished"):
            self._finished, self._fatal = True, state["fatal"]
            return
        require_same_samples(state, headers, self._name, with_texts=self._budget.text_len is not None)

        def again(rows: list[list[tuple[int, int]]], patch_size: int) -> list[list[SampleDecision]]:
            wanted = [(p, headers[p]) for p in sorted({p for row in rows for p, _ in row})]
            return shortened_again(rows, self._decide(wanted, patch_size))

        self._ended = state["ended"]
        self._passes.restore(state["pass"])
        self._rows.load_state_dict(state["rows"], self._decide([(p, headers[p]) for p in state["waiting"]]))
        self._batches.first_rows = again(state["first_rows"], self._patch_size)
        if held := state["held"]:
            rows = again(held["rows"], held["patch_size"])
            info, filled = BatchInfo.from_json(held["info"]), self._batches.filled(rows)
            plan = self._batches.plan(filled, held["patch_size"], info, repeated_rows=held["repeated_rows"])
            self._held = HeldPlan(plan, rows)
