"""Sizes to batches, as they go: grids, token counts, rows, batches. One instance plans one epoch of one stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from patchpack import rng
from patchpack.errors import ConfigError
from patchpack.plan._integers import require_int
from patchpack.plan.recipe import Recipe
from patchpack.plan.rows import Line, Rows
from patchpack.plan.table import plan_table
from patchpack.types import BatchPlan, Event, Header, PlanTable, Rejection, ShardFault, TargetKind

Tail = Literal["short", "drop", "pad", "wrap"]
TAILS: tuple[Tail, ...] = ("short", "drop", "pad", "wrap")
_BARREN_PASSES = 10  # a rule that draws may refuse every image of a small source in one pass and take some in the next


class EpochPlanner:
    """Turns the headers of one epoch into `BatchPlan`s.

    Feed it events in the order of the source, then `finish`. Plans do not depend on how the events are cut into blocks.
    One plan is held back, so that the last batch carries whatever was counted after it.

    Args:
        recipe: the policies; a batch has ``recipe.rows`` rows.
        epoch: of the draws.
        seen: samples met in earlier epochs, which is the ordinal of the first one here, for drop schedules.
        target_kind: carried by every plan.
        name: of the source, for messages.
        tail: the last rows of an epoch where they do not fill a batch: ``"short"`` leaves it short, ``"drop"`` drops its
            images and counts them, ``"pad"`` adds empty rows, ``"wrap"`` repeats the first rows of the epoch.
        max_steps: end the epoch after this many batches; what waits then is dropped and counted. None: with the source.
        stream, num_streams: where several planners share an epoch: this one is fed every num_streams-th sample and plans every
            num_streams-th step, of ``max_steps`` in all.
        lookahead, lookahead_bytes: what may wait in open rows, see `Rows`.

    Raises:
        ConfigError: a tail or a number that cannot work.
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
    ) -> None:
        if tail not in TAILS:
            raise ConfigError(f"tail is one of {', '.join(TAILS)}, got {tail!r}")
        if tail == "wrap" and len(recipe.patch_sizes) > 1:
            raise ConfigError("tail='wrap' cannot repeat rows that were planned for another patch size: use 'pad' or 'drop'")
        for argument, value in (("max_steps", max_steps), ("lookahead", lookahead), ("lookahead_bytes", lookahead_bytes)):
            if value is not None:
                require_int(argument, value, 1, 1 << 50)
        self._recipe, self._epoch, self._target_kind, self._name = recipe, epoch, target_kind, name
        self._tail, self._max_steps, self._num_streams = tail, max_steps, num_streams
        self._lookahead = (lookahead, lookahead_bytes)
        self._first_rows: list[list[Line]] = []  # kept for tail="wrap"
        self._dropped: dict[str, int] = {}
        self._first_ordinal = seen + stream
        self._step = stream
        self._seen = self._rejected = 0
        self._news: dict[str, list[Any]] = {"rejections": [], "shard_errors": []}
        self._first_rejection: Rejection | None = None
        self._pass = self._barren_passes = 0  # over a source that is repeated
        self._fruitful = False  # this pass brought an image that the recipe takes
        self._held: BatchPlan | None = None
        self._patch_size = self._patch_size_now()
        self._rows = self._new_rows()

    @property
    def seen(self) -> int:
        """Samples taken so far in this epoch."""
        return self._seen

    @property
    def done(self) -> bool:
        """True once ``max_steps`` batches are planned: nothing more will be taken."""
        return self._max_steps is not None and self._step >= self._max_steps

    @property
    def barren(self) -> bool:
        """True once whole passes over a repeated source brought nothing that the recipe takes: more would not either."""
        return self._barren_passes >= (_BARREN_PASSES if self._recipe.resize.draws else 1)

    def feed(self, events: Iterable[Event]) -> Iterator[BatchPlan]:
        """Take a block of events; the plans this completed."""
        todo = deque(events)
        while todo and not self.done:
            patch_size = self._patch_size  # a new one plans the rest of the block again
            samples = (event for event in todo if not isinstance(event, ShardFault))
            lines = iter(self._plan([(self._seen + i, e) for i, e in enumerate(samples) if isinstance(e, Header)]))
            while todo and not self.done and patch_size == self._patch_size:
                event = todo.popleft()
                if isinstance(event, ShardFault):
                    self._news["shard_errors"].append(event._asdict())
                    continue
                self._seen += 1
                if isinstance(event, Header) and event.repeat > self._pass:
                    self._barren_passes = 0 if self._fruitful else self._barren_passes + 1
                    self._pass, self._fruitful = event.repeat, False
                if isinstance(event, Rejection):
                    self._reject(event)
                else:
                    self._push(self._seen - 1, next(lines))
                while len(self._rows) >= self._recipe.rows and not self.done:
                    yield from self._complete_batch()

    def finish(self) -> Iterator[BatchPlan]:
        """End of the epoch: the remaining plans, the last one as ``tail`` says.

        Raises:
            PackingError: the packer kept an item back.
        """
        while not self.done:
            self._rows.flush()  # again after each batch: a new patch size opens rows anew
            if not len(self._rows) or (self._tail == "drop" and len(self._rows) < self._recipe.rows):
                break
            yield from self._complete_batch()
        if not self.done:
            left = self._rows.take(len(self._rows))  # empty but for tail="drop"
            self._drop("tail", sum(len(row) for row in left))
        else:
            self._drop("steps_per_epoch", len(self._rows.waiting()))
        if self._held is None:
            yield self._fatal_plan()
        else:
            info = self._held.info
            info = {**info, "seen": self._seen, **{name: info[name] + news for name, news in self._news.items()}}
            yield replace(self._held, info={**info, "dropped": self._dropped})
            if self._max_steps is not None and not self.done:
                self._news, self._dropped = {"rejections": [], "shard_errors": []}, {}
                why = (
                    f"a whole pass had no image that {self._recipe.resize!r} takes at patch_size={self._patch_size}"
                    if self.barren
                    else "it can be read only once. Give a source that can be read again (a list, files), or fewer steps"
                )
                yield self._make_plan([], fatal=f"{self._name} ended after {self._step} of {self._max_steps} steps: {why}")

    def _drop(self, rule: str, images: int) -> None:
        if images:
            self._dropped[rule] = self._dropped.get(rule, 0) + images

    def _patch_size_now(self) -> int:
        return self._recipe.patch_size_at(self._epoch, self._step)

    def _new_rows(self) -> Rows:
        recipe = self._recipe
        self._seq_len = recipe.row_len(self._patch_size)
        return Rows(recipe.packer, self._seq_len, recipe.max_images, *self._lookahead)

    def _start_step(self) -> None:
        patch_size = self._patch_size_now()
        if patch_size == self._patch_size or self.done:
            return
        self._patch_size = patch_size
        # rows made for another patch size are void: their images go, in arrival order, through a fresh packer
        again, self._rows = self._rows.waiting(), self._new_rows()
        for position, line in again:
            self._push(position, self._plan([(position, line.header)])[0])

    def _plan(self, headers: list[tuple[int, Header]]) -> list[Line]:
        """Decide about headers, given with their positions in the stream."""
        if not headers:
            return []
        hashes = rng.key_hash(h.draw_key for _, h in headers)
        sizes = np.array([h.size for _, h in headers], dtype=np.int64)
        ordinals = self._first_ordinal + self._num_streams * np.array([p for p, _ in headers], dtype=np.int64)
        table = plan_table(self._recipe, sizes, hashes, epoch=self._epoch, seen=ordinals, patch_size=self._patch_size)
        columns = zip(*(column.tolist() for column in table), strict=True)
        return [
            Line(header, key_hash, *decided)
            for (_, header), key_hash, decided in zip(headers, hashes.tolist(), columns, strict=True)
        ]

    def _push(self, position: int, line: Line) -> None:
        if not 1 <= line.num_tokens <= self._seq_len:
            header, refusal = line.header, self._refusal(line)
            self._reject(Rejection(header.shard, header.key, header.member, "plan", refusal))
        else:
            self._fruitful = True
            self._rows.push(position, line)

    def _refusal(self, line: Line) -> str:
        size = line.header.size
        if line.num_tokens == 0:
            return f"{self._recipe.resize!r} refuses a size of {size.height} x {size.width} (height x width)"
        return (
            f"{size.height} x {size.width} (height x width) becomes {line.num_tokens} tokens, a row holds "
            f"seq_len={self._seq_len}; raise seq_len or use a policy with a bound"
        )

    def _reject(self, rejection: Rejection) -> None:
        self._rejected += 1
        self._first_rejection = self._first_rejection or rejection
        self._news["rejections"].append(rejection._asdict())

    def _complete_batch(self) -> Iterator[BatchPlan]:
        plan = self._batch(self._rows.take(self._recipe.rows))
        self._step += self._num_streams
        self._start_step()
        if self._held is not None:
            yield self._held
        self._held = plan

    def _batch(self, lines: list[list[Line]]) -> BatchPlan:
        missing = self._recipe.rows - len(lines)
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

    def _make_plan(self, rows: list[list[Line]], fatal: str | None = None, repeated_rows: int = 0) -> BatchPlan:
        lines = [line for row in rows for line in row]
        fresh = [line for row in rows[: len(rows) - repeated_rows] for line in row]
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int32)
        news, self._news = self._news, {"rejections": [], "shard_errors": []}
        info = {
            "step": self._step,
            "epoch": self._epoch,
            "seen": self._seen,
            "planned": len(fresh),
            "altered": sum(line.cut > 0 for line in fresh),
            "dropped": self._dropped if fatal else {},
            **news,
        }
        return BatchPlan(
            step=self._step,
            epoch=self._epoch,
            patch_size=self._patch_size,
            seq_len=self._seq_len,
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
