"""Plans of batches, made from rows. At the end of an epoch, the option `tail` may add rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from patchpack.batch_info import BatchInfo
from patchpack.plan.online.decisions import SampleDecision, batch_plan
from patchpack.plan.online.saved import positions_of
from patchpack.plan.recipe import Recipe
from patchpack.types import BatchPlan, TargetKind

Tail = Literal["short", "drop", "pad", "wrap"]
TAILS: tuple[Tail, ...] = ("short", "drop", "pad", "wrap")


class HeldPlan(NamedTuple):
    """A plan that is held back, with its rows, until the losses after the plan are counted."""

    plan: BatchPlan
    rows: list[list[SampleDecision]]

    def to_json(self) -> dict[str, Any]:
        """Return the step, the patch size, the info and the rows of the plan, as JSON-safe values."""
        plan = self.plan
        return {"step": plan.step, "patch_size": plan.patch_size, "info": plan.info.to_json(),
                "rows": positions_of(self.rows), "repeated_rows": plan.repeated_rows}  # fmt: skip


class Batches:
    """An object that makes the plans of all batches of one epoch.

    Args:
        recipe: recipe, which gives the number of rows of a batch and the tokens of a row.
        epoch: number of the epoch.
        tail: treatment of rows that do not fill a batch, see `OnlinePlanner`.
        target_kind: kind of the source's targets.
        text_len: text tokens per row, None without texts.

    Attributes:
        first_rows: the first rows of the epoch, at most as many as a batch has. These rows are kept only if `tail` is
            ``"wrap"``.
    """

    def __init__(self, recipe: Recipe, epoch: int, tail: Tail, target_kind: TargetKind, text_len: int | None) -> None:
        self._recipe, self._epoch, self._tail = recipe, epoch, tail
        self._target_kind, self._text_len = target_kind, text_len
        self.first_rows: list[list[SampleDecision]] = []

    def completed(self, rows: list[list[SampleDecision]]) -> tuple[list[list[SampleDecision]], int]:
        """Return two values: the rows of the next batch, with rows that `tail` adds, and the number of repeated rows."""
        if self._tail == "wrap":
            self.first_rows += rows[: max(0, self._recipe.rows_per_batch - len(self.first_rows))]
        whole = self.filled(rows)
        return whole, len(whole) - len(rows) if self._tail == "wrap" else 0

    def filled(self, rows: list[list[SampleDecision]]) -> list[list[SampleDecision]]:
        """Return the rows of a batch, followed by the rows that `tail` adds."""
        per_batch = self._recipe.rows_per_batch
        if self._tail == "wrap":
            return rows + [self.first_rows[i % len(self.first_rows)] for i in range(per_batch - len(rows))]
        return rows + [[]] * (per_batch - len(rows)) if self._tail == "pad" else rows

    def plan(
        self,
        rows: Sequence[Sequence[SampleDecision]],
        patch_size: int,
        info: BatchInfo,
        *,
        fatal: str | None = None,
        repeated_rows: int = 0,
    ) -> BatchPlan:
        """Return the plan of a batch.

        Args:
            rows: rows of the batch.
            patch_size: pixels per side of a patch.
            info: info of the batch. It gives the number of the step.
            fatal: reason why no further batch can be made. Default None, a normal batch.
            repeated_rows: number of rows at the end that repeat rows of another batch. Default 0.
        """
        return batch_plan(
            rows,
            step=info.step,
            epoch=self._epoch,
            patch_size=patch_size,
            seq_len=self._recipe.row_len(patch_size),
            target_kind=self._target_kind,
            info=info,
            text_len=self._text_len,
            fatal=fatal,
            repeated_rows=repeated_rows,
        )
