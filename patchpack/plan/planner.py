"""Sizes to batches, as they go: grids, token counts, rows, batches. One instance plans one epoch of one stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np

from patchpack import rng
from patchpack.errors import ConfigError, PackingError
from patchpack.plan._integers import require_int
from patchpack.plan.packing import Item, Row
from patchpack.plan.recipe import Recipe
from patchpack.plan.table import plan_table
from patchpack.types import BatchPlan, Event, Header, PlanTable, Rejection, ShardFault, TargetKind

Tail = Literal["short", "drop", "pad", "wrap"]
TAILS: tuple[Tail, ...] = ("short", "drop", "pad", "wrap")


class EpochPlanner:
    """Turns the headers of one epoch into `BatchPlan`s.

    Feed it events in the order of the source, then `finish`. Plans do not depend on how the events are cut into blocks.
    One plan is held back, so that the last batch carries whatever was counted after it.

    Args:
        recipe: the policies; a batch has ``recipe.rows`` rows.
        epoch: of the draws.
        seen: ordinal of the first image over all epochs, for drop schedules.
        target_kind: carried by every plan.
        name: of the source, for messages.
        tail: the last rows of an epoch where they do not fill a batch: ``"short"`` leaves it short, ``"drop"`` drops its
            images and counts them, ``"pad"`` adds empty rows, ``"wrap"`` repeats the first rows of the epoch.
        max_steps: end the epoch after this many batches; what waits then is dropped and counted. None: with the source.
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
    ) -> None:
        if tail not in TAILS:
            raise ConfigError(f"tail is one of {', '.join(TAILS)}, got {tail!r}")
        if tail == "wrap" and len(recipe.patch_sizes) > 1:
            raise ConfigError("tail='wrap' cannot repeat rows that were planned for another patch size: use 'pad' or 'drop'")
        if max_steps is not None:
            require_int("max_steps", max_steps, 1, 1 << 40)
        self._recipe, self._epoch, self._target_kind, self._name = recipe, epoch, target_kind, name
        self._tail, self._max_steps = tail, max_steps
        self._first_rows: list[list[_Line]] = []  # kept for tail="wrap"
        self._dropped: dict[str, int] = {}
        self._first_ordinal = self._ordinal = seen  # over all epochs, for drop schedules
        self._step = 0
        self._seen = self._rejected = 0
        self._waiting: dict[int, _Line] = {}  # pushed, not in a plan yet; ids ascend in arrival order
        self._ready: deque[Row] = deque()
        self._queued: set[int] = set()  # ids in the ready rows
        self._news: dict[str, list[Any]] = {"rejections": [], "shard_errors": []}
        self._first_rejection: Rejection | None = None
        self._held: BatchPlan | None = None
        self._patch_size = 0
        self._start_step()

    @property
    def planned(self) -> int:
        """Headers taken so far in this epoch: how far the ordinals of a drop schedule have moved."""
        return self._ordinal - self._first_ordinal

    @property
    def done(self) -> bool:
        """True once ``max_steps`` batches are planned: nothing more will be taken."""
        return self._max_steps is not None and self._step >= self._max_steps

    def feed(self, events: Iterable[Event]) -> Iterator[BatchPlan]:
        """Take a block of events; the plans this completed."""
        todo = deque(events)
        while todo and not self.done:
            patch_size = self._patch_size  # a new one plans the rest of the block again
            lines = iter(self._plan([e for e in todo if isinstance(e, Header)], self._ordinal))
            while todo and not self.done and patch_size == self._patch_size:
                event = todo.popleft()
                if isinstance(event, ShardFault):
                    self._news["shard_errors"].append(event._asdict())
                    continue
                self._seen += 1
                if isinstance(event, Rejection):
                    self._reject(event)
                else:
                    self._push(self._ordinal, next(lines))
                    self._ordinal += 1
                while len(self._ready) >= self._recipe.rows and not self.done:
                    yield from self._complete_batch()

    def finish(self) -> Iterator[BatchPlan]:
        """End of the epoch: the remaining plans, the last one as ``tail`` says.

        Raises:
            PackingError: the packer kept an item back.
        """
        while not self.done:
            self._take(self._packer.flush())  # again after each batch: a new patch size opens rows anew
            if not self._ready or (self._tail == "drop" and len(self._ready) < self._recipe.rows):
                break
            yield from self._complete_batch()
        if self.done:
            self._drop("steps_per_epoch", len(self._waiting))
        elif self._tail == "drop":
            self._drop("tail", sum(len(row.items) for row in self._ready))
            for row in self._ready:
                for item in row.items:
                    del self._waiting[item.id]
        if self._waiting and not self.done:
            keys = [line.header.key for line in self._waiting.values()]
            raise PackingError(f"{self._packer!r} lost {len(keys)} items at flush, the first is {keys[0]}")
        if self._held is None:
            yield self._fatal_plan()
        else:
            info = self._held.info
            info = {**info, "seen": self._seen, **{name: info[name] + news for name, news in self._news.items()}}
            yield replace(self._held, info={**info, "dropped": self._dropped})
            if self._max_steps is not None and not self.done:
                self._news, self._dropped = {"rejections": [], "shard_errors": []}, {}
                yield self._make_plan(
                    [],
                    fatal=f"{self._name} ended after {self._step} of {self._max_steps} steps: it can be read only once. Give a "
                    f"source that can be read again (a list, files), or fewer steps",
                )

    def _drop(self, rule: str, images: int) -> None:
        if images:
            self._dropped[rule] = self._dropped.get(rule, 0) + images

    def _start_step(self) -> None:
        patch_size = self._recipe.patch_size_at(self._epoch, self._step)
        if patch_size == self._patch_size or self.done:
            return
        self._patch_size = patch_size
        self._packer = self._recipe.packer(self._recipe.row_len(patch_size), self._recipe.max_images)
        # rows made for another patch size are void: their images go, in arrival order, through the fresh packer
        self._ready.clear()
        self._queued.clear()
        again, self._waiting = sorted(self._waiting.items()), {}
        for ordinal, line in again:
            self._push(ordinal, self._plan([line.header], ordinal)[0])

    def _plan(self, headers: list[Header], ordinal: int) -> list[_Line]:
        if not headers:
            return []
        hashes = rng.key_hash(h.draw_key for h in headers)
        sizes = np.array([h.size for h in headers], dtype=np.int64)
        table = plan_table(self._recipe, sizes, hashes, epoch=self._epoch, seen=ordinal, patch_size=self._patch_size)
        columns = zip(*(column.tolist() for column in table), strict=True)
        return [
            _Line(header, key_hash, *decided)
            for header, key_hash, decided in zip(headers, hashes.tolist(), columns, strict=True)
        ]

    def _push(self, ordinal: int, line: _Line) -> None:
        refusal = self._refusal(line)
        if refusal:
            header = line.header
            self._reject(Rejection(header.shard, header.key, header.member, "plan", refusal))
            return
        self._waiting[ordinal] = line
        self._take(self._packer.push(Item(ordinal, line.num_tokens)))

    def _refusal(self, line: _Line) -> str | None:
        size, recipe = line.header.size, self._recipe
        if line.num_tokens == 0:
            return f"{recipe.resize!r} refuses a size of {size.height} x {size.width} (height x width)"
        seq_len = recipe.row_len(self._patch_size)
        if line.num_tokens > seq_len:
            return (
                f"{size.height} x {size.width} (height x width) becomes {line.num_tokens} tokens, a row holds "
                f"seq_len={seq_len}; raise seq_len or use a policy with a bound"
            )
        return None

    def _reject(self, rejection: Rejection) -> None:
        self._rejected += 1
        self._first_rejection = self._first_rejection or rejection
        self._news["rejections"].append(rejection._asdict())

    def _take(self, rows: Sequence[Row]) -> None:
        """Check rows a packer closed against its contract, then queue them."""
        seq_len, max_images = self._recipe.row_len(self._patch_size), self._recipe.max_images
        for row in rows:
            ids = [item.id for item in row.items]
            if not ids or len(set(ids)) != len(ids) or any(i not in self._waiting or i in self._queued for i in ids):
                raise PackingError(f"{self._packer!r} closed a row with empty, doubled or invented items: {ids}")
            tokens = sum(self._waiting[i].num_tokens for i in ids)
            if tokens > seq_len or len(ids) > max_images:
                raise PackingError(
                    f"{self._packer!r} put {tokens} tokens and {len(ids)} images in a row of {seq_len} and {max_images}"
                )
            self._ready.append(row)
            self._queued.update(ids)

    def _complete_batch(self) -> Iterator[BatchPlan]:
        rows = [self._ready.popleft() for _ in range(min(self._recipe.rows, len(self._ready)))]
        plan = self._batch(rows)
        self._step += 1
        self._start_step()
        if self._held is not None:
            yield self._held
        self._held = plan

    def _batch(self, rows: list[Row]) -> BatchPlan:
        lines = [[self._waiting.pop(item.id) for item in row.items] for row in rows]
        self._queued.difference_update(item.id for row in rows for item in row.items)
        missing = self._recipe.rows - len(rows)
        if self._tail == "wrap":
            if len(self._first_rows) < self._recipe.rows:
                self._first_rows += lines[: self._recipe.rows - len(self._first_rows)]
            again = [self._first_rows[i % len(self._first_rows)] for i in range(missing)]
            return self._make_plan(lines + again, repeated_rows=missing)
        return self._make_plan(lines + [[]] * missing if self._tail == "pad" else lines)

    def _fatal_plan(self) -> BatchPlan:
        reason = f"{self._name}: no image to pack, {self._seen} samples seen, {self._rejected} rejected"
        if self._first_rejection is not None:
            reason += f"; the first: {self._first_rejection}"
        if self._dropped:
            reason += f", dropped: {self._dropped}"
        return self._make_plan([], fatal=reason)

    def _make_plan(self, rows: list[list[_Line]], fatal: str | None = None, repeated_rows: int = 0) -> BatchPlan:
        lines = [line for row in rows for line in row]
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int32)
        news, self._news = self._news, {"rejections": [], "shard_errors": []}
        info = {
            "step": self._step,
            "epoch": self._epoch,
            "seen": self._seen,
            "planned": sum(len(row) for row in rows[: len(rows) - repeated_rows]),
            "dropped": self._dropped if fatal else {},
            **news,
        }
        return BatchPlan(
            step=self._step,
            epoch=self._epoch,
            patch_size=self._patch_size,
            seq_len=self._recipe.row_len(self._patch_size),
            offsets=offsets,
            table=PlanTable(
                box=np.array([line.box for line in lines], dtype=np.int32).reshape(-1, 4),
                target=np.array([line.target for line in lines], dtype=np.int32).reshape(-1, 2),
                flip=np.array([line.flip for line in lines], dtype=np.bool_),
                grid=np.array([line.grid for line in lines], dtype=np.int32).reshape(-1, 2),
                num_tokens=np.array([line.num_tokens for line in lines], dtype=np.int32),
            ),
            key_hash=np.array([line.key_hash for line in lines], dtype=np.uint64),
            headers=tuple(line.header for line in lines),
            target_kind=self._target_kind,
            info=info,
            fatal=fatal,
            repeated_rows=repeated_rows,
        )


class _Line(NamedTuple):
    """One image between its header and its batch."""

    header: Header
    key_hash: int
    box: list[int]
    target: list[int]
    flip: bool
    grid: list[int]
    num_tokens: int
