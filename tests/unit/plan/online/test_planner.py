"""Headers to plans: what one plan holds, what becomes of what does not fit, and policies that break their word."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from patchpack import recipes, rng, testing
from patchpack.batch_info import BatchInfo
from patchpack.errors import ConfigError, PackingError
from patchpack.losses import Rejection, ShardFault
from patchpack.plan.online.planner import OnlinePlanner
from patchpack.plan.packing import FirstFit, GreedyPacker, Item, NextFit, Row
from patchpack.plan.policies.drop import Beta, Scheduled
from patchpack.plan.policies.resize import NaFlex, Native, NaViT, Pix2Struct, SmartResize, Square
from patchpack.plan.recipe import Recipe
from patchpack.plan.table import plan_table
from patchpack.types import BatchPlan, Event, Header, Size, TargetSpec

SIZES = [(480, 640), (375, 500), (100, 100), (33, 900), (1080, 1920), (7, 7), (224, 224), (640, 427)]


def header(i: int, height: int, width: int) -> Header:
    return Header(f"s.tar/{i:03d}", "s.tar", f"{i:03d}.jpg", Size(height, width), ("offset", i))


def headers(sizes: Iterable[tuple[int, int]]) -> list[Header]:
    return [header(i, *size) for i, size in enumerate(sizes)]


def plans_of(recipe: Recipe, events: Iterable[Event], **options: Any) -> list[BatchPlan]:
    planner = OnlinePlanner(recipe, **options)
    return [*planner.feed(events), *planner.finish()]


def rows_of(plan: BatchPlan) -> list[list[str]]:
    return [[h.key[-3:] for h in plan.headers[a:b]] for a, b in zip(plan.offsets[:-1], plan.offsets[1:], strict=True)]


def table_of(recipe: Recipe, sizes: Any, **options: Any) -> Any:
    return plan_table(recipe, sizes, rng.key_hash(f"s.tar/{i:03d}" for i in range(len(sizes))), **options)


def bad(key: str, stage: str = "header") -> Rejection:
    return Rejection("s.tar", f"s.tar/{key}", f"{key}.jpg", stage, "not an image")


# ---------------------------------------------------------------------------------------------------------- plan_table


def test_a_table_has_its_shapes_and_dtypes() -> None:
    table = table_of(recipes.navit(), SIZES)
    shapes = {name: (column.shape, column.dtype) for name, column in table._asdict().items()}
    assert shapes == {
        "box": ((8, 4), np.int32),
        "resized": ((8, 2), np.int32),
        "flip": ((8,), np.bool_),
        "grid": ((8, 2), np.int32),
        "num_tokens": ((8,), np.int32),
        "times": ((8,), np.int32),
    }


def test_a_table_without_a_place_reads_whole_images() -> None:
    table = table_of(Recipe(resize=Pix2Struct(64), patch_size=8), SIZES)
    assert table.box.tolist() == [[0, 0, h, w] for h, w in SIZES]
    assert np.array_equal(table.resized, table.grid * 8)
    assert np.array_equal(table.num_tokens, table.grid.prod(axis=1))
    assert not table.flip.any()


def test_a_table_asks_the_policy_for_its_place() -> None:
    table = table_of(Recipe(resize=Native(64)), [(75, 101), (9, 3)])
    assert table.box.tolist() == [[5, 2, 64, 96], [0, 0, 9, 3]]
    assert table.resized.tolist() == [[64, 96], [9, 3]]
    assert table.grid.tolist() == [[4, 6], [1, 1]]


def test_a_refused_size_has_no_grid_and_no_tokens() -> None:
    for policy in (SmartResize(3136, 50_000), Native(64, oversize="reject")):
        table = table_of(Recipe(resize=policy, drop=Beta()), [(100, 100), (1, 9000), (64, 64)])
        assert table.grid[1].tolist() == [0, 0]
        assert table.num_tokens[1] == 0
        assert table.num_tokens[[0, 2]].min() >= 1


def test_a_table_of_nothing() -> None:
    table = table_of(recipes.navit(), np.empty((0, 2), dtype=np.int64))
    assert [len(column) for column in table] == [0] * 6


def test_policies_draw_from_their_own_stages() -> None:
    recipe = recipes.navit(seed=5)
    hashes = rng.key_hash(f"s.tar/{i:03d}" for i in range(8))
    u, v = (rng.uniforms(5, 3, hashes, stage, 1) for stage in (rng.Stage.RESIZE, rng.Stage.DROP))
    table = plan_table(recipe, SIZES, hashes, epoch=3)
    grids = NaViT((64, 256))(np.array(SIZES), 16, u)
    assert np.array_equal(table.grid, grids)
    assert np.array_equal(table.num_tokens, Beta(0.5, 0.9)(grids, v))


def test_seen_is_an_ordinal_or_the_first_of_them() -> None:
    recipe = Recipe(resize=Square(160), drop=Scheduled(midpoint=1003, width=1e-3, low=0.2, high=0.8))
    assert table_of(recipe, SIZES, seen=1000).num_tokens.tolist() == [80, 80, 80, 50, 20, 20, 20, 20]
    assert table_of(recipe, SIZES, seen=np.arange(8) + 1000).num_tokens.tolist() == [80, 80, 80, 50, 20, 20, 20, 20]
    assert table_of(recipe, SIZES, seen=[2000, 0] * 4).num_tokens.tolist() == [20, 80] * 4


def test_the_first_of_several_patch_sizes_is_the_default() -> None:
    recipe = recipes.flexivit()
    assert table_of(recipe, SIZES).grid[0].tolist() == [5, 5]
    assert table_of(recipe, SIZES, patch_size=8).grid[0].tolist() == [30, 30]


@dataclass(frozen=True)
class BrokenResize:
    fault: str
    draws = 0

    def bound(self, patch_size: int) -> int:
        return 30

    def __call__(self, sizes: Any, patch_size: int, u: Any) -> Any:
        grids = np.full((len(sizes), 2), 5)
        if self.fault == "overshoots":
            grids[3] = (6, 7)
        if self.fault == "half":
            grids[3] = (0, 5)
        if self.fault == "negative":
            grids[3] = (-2, -2)
        if self.fault == "huge":
            grids[3] = ((1 << 32) + 1, 1)
        return {"flat": grids.ravel(), "short": grids[:-1], "floats": grids * 1.0, "none": None}.get(self.fault, grids)

    def place(self, sizes: Any, grids: Any, patch_size: int) -> Any:
        box = np.zeros((len(sizes), 2 if self.fault == "box" else 4), dtype=np.int32)
        return box, grids * (0.5 if self.fault == "target" else 1)


BROKEN_RESIZE = {
    "overshoots": r"made 42 patches of a \[33, 900\] image \(height, width\) at patch_size=16, more than its own bound of 30",
    "half": r"made the grid \[0, 5\] of a \[33, 900\] image",
    "negative": r"made the grid \[-2, -2\] of a \[33, 900\] image",
    "huge": "must return integers of 32 bits, got 4294967297",
    "flat": r"must return integers \[8, 2\], got int64 \[16\]",
    "short": r"must return integers \[8, 2\], got int64 \[7, 2\]",
    "floats": r"must return integers \[8, 2\], got float64 \[8, 2\]",
    "none": r"must return integers \[8, 2\], got object \[\]",
    "box": r"place must return integers \[8, 4\], got int32 \[8, 2\]",
    "target": r"place must return integers \[8, 2\], got float64 \[8, 2\]",
}


@pytest.mark.parametrize(("fault", "message"), BROKEN_RESIZE.items(), ids=BROKEN_RESIZE)
def test_a_broken_resize_policy_is_named(fault, message) -> None:
    recipe = Recipe(resize=BrokenResize(fault))
    with pytest.raises(ConfigError, match=rf"^BrokenResize\(fault='{fault}'\).*{message}"):
        table_of(recipe, SIZES)
    with pytest.raises(ConfigError, match=message):
        plans_of(recipe, headers(SIZES))


@dataclass(frozen=True)
class BrokenDrop:
    fault: str
    draws = 0

    def __call__(self, grids: Any, u: Any, seen: Any) -> Any:
        kept = grids.prod(axis=1)
        kept[3] = {"nothing": 0, "more": kept[3] + 1, "negative": -1}.get(self.fault, kept[3])
        return {"table": grids, "floats": kept * 0.5, "one for all": kept[0]}.get(self.fault, kept)


BROKEN_DROP = {
    "nothing": r"keeps 0 of the 64 patches of grid \[2, 32\]: it must keep at least 1",
    "more": r"keeps 65 of the 64 patches of grid \[2, 32\]",
    "negative": "keeps -1 of the 64 patches",
    "table": r"must return integers \[8\], got int32 \[8, 2\]",
    "floats": r"must return integers \[8\], got float64 \[8\]",
    "one for all": r"must return integers \[8\], got int64 \[\]",
}


@pytest.mark.parametrize(("fault", "message"), BROKEN_DROP.items(), ids=BROKEN_DROP)
def test_a_broken_drop_policy_is_named(fault, message) -> None:
    with pytest.raises(ConfigError, match=rf"^BrokenDrop\(fault='{fault}'\).*{message}"):
        table_of(Recipe(resize=NaFlex(64), drop=BrokenDrop(fault)), SIZES)


def test_a_drop_policy_never_meets_a_refused_grid() -> None:
    met = []

    class Watching:
        draws = 0

        def __call__(self, grids: Any, u: Any, seen: Any) -> Any:
            met.append(grids.min())
            return grids.prod(axis=1)

    table_of(Recipe(resize=Native(64, oversize="reject"), drop=Watching()), [(9000, 9000), (16, 16)])
    assert met == [1]


# ------------------------------------------------------------------------------------------------------------- a plan

SMALL = Recipe(
    resize=NaFlex(16), seq_len=40, max_images=3, rows_per_batch=2, packer=NextFit()
)  # squares: 16 tokens, two to a row
SQUARES = headers([(100, 100)] * 9)


def test_rows_and_batches_come_as_the_packer_closes_them() -> None:
    plans = plans_of(SMALL, SQUARES)
    assert [rows_of(plan) for plan in plans] == [
        [["000", "001"], ["002", "003"]],
        [["004", "005"], ["006", "007"]],
        [["008"]],
    ]
    assert [plan.num_rows for plan in plans] == [2, 2, 1]


def test_a_plan_says_what_it_is() -> None:
    kind = TargetSpec("int64")
    plans = plans_of(SMALL, SQUARES, epoch=4, target_kind=kind)
    assert [(plan.step, plan.epoch, plan.patch_size, plan.seq_len) for plan in plans] == [(i, 4, 16, 40) for i in range(3)]
    assert {plan.target_kind for plan in plans} == {kind}
    assert {plan.fatal for plan in plans} == {None}
    assert plans[0].headers == tuple(SQUARES[:4])
    assert np.array_equal(plans[0].key_hash, rng.key_hash(h.key for h in SQUARES[:4]))
    assert plans[0].offsets.tolist() == [0, 2, 4]
    assert (plans[0].offsets.dtype, plans[0].key_hash.dtype) == (np.int32, np.uint64)


def test_the_lines_of_a_plan_are_those_of_the_table() -> None:
    (plan,) = plans_of(recipes.navit(seed=3), headers(SIZES), epoch=2)
    order = [int(h.key[-3:]) for h in plan.headers]
    assert sorted(order) == list(range(8))
    expected = table_of(recipes.navit(seed=3), SIZES, epoch=2).take(order)
    for name, column in expected._asdict().items():
        assert np.array_equal(getattr(plan.table, name), column), name
        assert getattr(plan.table, name).dtype == column.dtype


def test_a_plan_is_picklable_and_its_info_json() -> None:
    events = [*SQUARES, bad("x"), ShardFault("s.tar", "cut")]
    for plan in plans_of(SMALL, events):
        again = pickle.loads(pickle.dumps(plan))
        assert (again.headers, again.info) == (plan.headers, plan.info)
        assert BatchInfo.from_json(json.loads(json.dumps(plan.info.to_json()))) == plan.info


def test_a_plan_of_many_images_is_a_few_kilobytes() -> None:
    (plan,) = plans_of(recipes.navit(), headers(SIZES * 12))
    assert len(pickle.dumps(plan)) / len(plan.headers) < 200


def test_one_plan_is_held_back() -> None:
    planner = OnlinePlanner(SMALL)
    assert [len(list(planner.feed([h]))) for h in SQUARES] == [0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert [plan.step for plan in planner.finish()] == [1, 2]


# ------------------------------------------------------------------------------------------------------------ accounts


def test_counters_say_how_far_the_planner_was() -> None:
    infos = [plan.info for plan in plans_of(SMALL, SQUARES, epoch=2)]
    assert [(i.step, i.epoch, i.seen, i.planned, i.dropped) for i in infos] == [
        (0, 2, 5, 4, {}), (1, 2, 9, 4, {}), (2, 2, 9, 1, {}),
    ]  # fmt: skip


def test_rejections_ride_with_the_next_plan() -> None:
    events = [bad("a"), *SQUARES[:5], bad("b", "read"), *SQUARES[5:8], ShardFault("s.tar", "cut"), SQUARES[8]]
    plans = plans_of(SMALL, events)
    assert [[(r.key, r.stage) for r in plan.info.rejections] for plan in plans] == [
        [("s.tar/a", "header")], [("s.tar/b", "read")], [],
    ]  # fmt: skip
    assert [plan.info.shard_errors for plan in plans] == [[], [ShardFault("s.tar", "cut")], []]
    assert [plan.info.seen for plan in plans] == [6, 11, 11]


def test_the_last_plan_carries_what_came_after_it() -> None:
    plans = plans_of(SMALL, [*SQUARES[:4], bad("a"), ShardFault("t.tar", "gone"), bad("b")])
    assert len(plans) == 1
    assert [r.key for r in plans[0].info.rejections] == ["s.tar/a", "s.tar/b"]
    assert plans[0].info.shard_errors == [ShardFault("t.tar", "gone")]
    assert plans[0].info.seen == 6
    assert plans[0].info.planned == 4


def test_a_finished_plan_learns_what_came_after_it() -> None:
    """Its rows were full, and closed, before the last events came."""
    plans = plans_of(SMALL.replace(seq_len=32), [*SQUARES[:4], bad("a"), bad("b")])
    assert len(plans) == 1
    assert (plans[0].info.seen, plans[0].info.planned) == (6, 4)
    assert [r.key for r in plans[0].info.rejections] == ["s.tar/a", "s.tar/b"]


def test_a_state_in_which_the_plan_held_back_says_every_counter_is_read() -> None:
    """Earlier versions wrote such states; today's leave out what is the default."""
    events = [bad("a"), *SQUARES[:5], bad("b"), *SQUARES[5:]]
    planner = OnlinePlanner(SMALL, epoch=2)
    assert list(planner.feed(events[:7])) == []
    state = json.loads(json.dumps(planner.state_dict()))
    said = state["held"]["info"]
    assert said == {"epoch": 2, "seen": 6, "planned": 4, "rejections": [bad("a")._asdict()]}
    state["held"]["info"] = {"step": 0, "shortened": 0, "dropped": {}, "shard_errors": [], **said}
    again = OnlinePlanner(SMALL, epoch=2)
    again.load_state_dict(state, {position: SQUARES[position - 1] for position, *_ in state["samples"]})
    infos = [[plan.info for plan in [*one.feed(events[7:]), *one.finish()]] for one in (planner, again)]
    assert infos[0] == infos[1]
    assert [rejection.key for info in infos[1] for rejection in info.rejections] == ["s.tar/a", "s.tar/b"]


def test_images_of_a_void_row_are_planned_again_in_their_order() -> None:
    """A step at p 8 takes the first of the rows that were full; the others go back to the images they were made of."""
    recipe = Recipe(
        resize=Pix2Struct(32),
        drop=Scheduled(midpoint=8, width=-1),
        patch_size=(4, 8),
        seq_len=32,
        rows_per_batch=1,
        packer=FirstFit(9),
        max_images=9,
    )
    todo = headers(SIZES * 3)
    plans = plans_of(recipe, todo, seen=2)
    assert len({plan.patch_size for plan in plans}) == 2
    for plan in plans:
        lines = [int(h.key[-3:]) for h in plan.headers]
        expected = table_of(recipe, SIZES * 3, seen=2, patch_size=plan.patch_size).take(lines)
        assert lines == sorted(lines)
        assert plan.table.resized.tolist() == expected.resized.tolist()
        assert plan.table.num_tokens.tolist() == expected.num_tokens.tolist()
    assert sorted(h.key for plan in plans for h in plan.headers) == [h.key for h in todo]


def test_seen_counts_samples_and_not_faults() -> None:
    planner = OnlinePlanner(SMALL, seen=10)
    plans = [*planner.feed([SQUARES[0], bad("a"), ShardFault("s.tar", "cut"), SQUARES[1]]), *planner.finish()]
    assert plans[-1].info.seen == 3
    assert planner.seen == 3


def test_a_refused_size_is_a_rejection_of_the_plan() -> None:
    (plan,) = plans_of(recipes.qwen2_vl(), headers([(224, 224), (10, 4000), (98, 98)]))
    assert rows_of(plan) == [["000", "002"]]
    assert plan.info.rejections == [
        Rejection(
            shard="s.tar",
            key="s.tar/001",
            member="001.jpg",
            stage="plan",
            reason=f"{recipes.qwen2_vl().resize!r} refuses a size of 10 x 4000 (height x width)",
        )
    ]


@dataclass(frozen=True)
class OnePerPatch:
    """Native grids with no bound."""

    draws = 0

    def bound(self, patch_size: int) -> None:
        return None

    def __call__(self, sizes: Any, patch_size: int, u: Any) -> Any:
        return np.maximum(1, sizes // patch_size).astype(np.int32)


def test_an_image_over_seq_len_is_a_rejection_of_the_plan() -> None:
    recipe = Recipe(resize=OnePerPatch(), seq_len=100)
    (plan,) = plans_of(recipe, headers([(160, 160), (160, 176), (16, 16)]))
    assert rows_of(plan) == [["000"], ["002"]]
    (rejection,) = plan.info.rejections
    assert (rejection.key, rejection.stage) == ("s.tar/001", "plan")
    assert rejection.reason.startswith("160 x 176 (height x width) becomes 110 tokens, a row holds seq_len=100")


NOTHING = {
    "nothing at all": ([], "photos: no image to pack, 0 samples seen, 0 rejected"),
    "only rejections": (
        [bad("a"), bad("b", "read")],
        "photos: no image to pack, 2 samples seen, 2 rejected; the first: s.tar/a (a.jpg): not an image [header]",
    ),
    "only refused sizes": (
        headers([(1, 900), (900, 1)]),
        "photos: no image to pack, 2 samples seen, 2 rejected; the first: s.tar/000 (000.jpg): SmartResize(min_pixels=3136, "
        "max_pixels=1003520, merge=2, min_side=None) refuses a size of 1 x 900 (height x width) [plan]",
    ),
    "only a fault": ([ShardFault("s.tar", "cut")], "photos: no image to pack, 0 samples seen, 0 rejected; s.tar: cut"),
}


@pytest.mark.parametrize(("events", "fatal"), NOTHING.values(), ids=NOTHING)
def test_a_source_with_nothing_usable_ends_in_one_fatal_plan(events, fatal) -> None:
    (plan,) = plans_of(recipes.qwen2_vl(), events, name="photos", epoch=1)
    assert plan.fatal == fatal
    assert (plan.num_rows, plan.headers, plan.step, plan.epoch) == (0, (), 0, 1)
    assert [len(column) for column in plan.table] == [0] * 6
    assert plan.info.seen == len([e for e in events if not isinstance(e, ShardFault)])
    assert len(plan.info.rejections) == plan.info.seen
    assert len(plan.info.shard_errors) == len(events) - plan.info.seen


# ------------------------------------------------------------------------------------------------------------ schedule


def test_a_schedule_follows_the_ordinal_over_all_epochs() -> None:
    """Every sample has an ordinal, one that is refused or cannot be read too: it is a position, whoever counts."""
    recipe = Recipe(
        resize=Native(100, oversize="reject"), drop=Scheduled(midpoint=13, width=1e-3, low=0.2, high=0.8),
        seq_len=100, rows_per_batch=99, packer=NextFit(), max_images=1,
    )  # fmt: skip
    events: list[Event] = list(headers([(160, 160), (999, 999)] + [(160, 160)] * 4))
    events.insert(1, bad("x"))
    (plan,) = plans_of(recipe, events, seen=10)
    assert [h.key[-3:] for h in plan.headers] == ["000", "002", "003", "004", "005"]
    assert plan.table.num_tokens.tolist() == [80, 50, 20, 20, 20]


# -------------------------------------------------------------------------------------------------- broken packers


class BrokenPacker(GreedyPacker):
    """First-fit with one fault in what it hands out."""

    def __init__(self, seq_len: int, max_images: int, fault: str) -> None:
        super().__init__(
            2 * seq_len if fault == "overfills" else seq_len, 99 if fault == "slots" else max_images, open_rows=2, best=False
        )
        self.fault = fault

    def __repr__(self) -> str:
        return f"BrokenPacker({self.fault!r})"

    def push(self, item: Item) -> list[Row]:
        return [self.spoil(row) for row in super().push(item)]

    def flush(self) -> list[Row]:
        return [self.spoil(row) for row in super().flush()] if self.fault != "keeps" else []

    def spoil(self, row: Row) -> Row:
        items = row.items
        spoiled = {
            "loses": items[:1],
            "doubles": (*items, items[0]),
            "invents": (*items, Item(999, 1)),
            "repeats": (Item(0, 16),),
            "empty": (),
        }
        return Row(spoiled.get(self.fault, items))


BROKEN_PACKERS = {
    "keeps": r"BrokenPacker\('keeps'\) did not return 3 items at flush, the first is s.tar/006",
    "loses": r"BrokenPacker\('loses'\) did not return 4 items at flush, the first is s.tar/001",
    "doubles": r"closed a row that is empty or has repeated or unknown items: \[0, 1, 0\]",
    "invents": r"repeated or unknown items: \[0, 1, 999\]",
    "repeats": r"repeated or unknown items: \[0\]",
    "empty": r"a row that is empty or has repeated or unknown items: \[\]",
    "overfills": r"BrokenPacker\('overfills'\) put 64 tokens and 4 images in a row of seq_len=40 and max_images=4",
    "slots": r"BrokenPacker\('slots'\) put 8 tokens and 8 images in a row of seq_len=40 and max_images=4",
}


@pytest.mark.parametrize(("fault", "message"), BROKEN_PACKERS.items(), ids=BROKEN_PACKERS)
def test_a_broken_packer_is_named(fault, message) -> None:
    def make(seq_len: int, max_images: int) -> BrokenPacker:
        return BrokenPacker(seq_len, max_images, fault)

    budget = 1 if fault == "slots" else 16
    recipe = Recipe(resize=NaFlex(budget), seq_len=40, max_images=4, rows_per_batch=99, packer=make)
    with pytest.raises(PackingError, match=message):
        plans_of(recipe, headers([(100, 100)] * (8 if fault == "slots" else 9)))


class CuttingPacker(GreedyPacker):
    """Next-fit whose last item of a row loses what it takes to end the row full, if that is allowed."""

    def __init__(self, seq_len: int, max_images: int, max_cut: float, *, cuts: float) -> None:
        super().__init__(2 * seq_len, max_images, open_rows=1, best=False)
        self.goal, self.max_cut, self.cuts = seq_len, max_cut, cuts

    def push(self, item: Item) -> list[Row]:
        open_tokens = sum(i.num_tokens for row in self._rows for i in row.items)
        room = self.goal - open_tokens
        if item.num_tokens - int(self.cuts * item.num_tokens) <= room:
            closed = super().push(item._replace(num_tokens=min(room, item.num_tokens)))
            return closed + (self.flush() if item.num_tokens >= room else [])
        return self.flush() + super().push(item)


def test_a_packer_may_shorten_items_to_end_rows_full_and_they_are_counted() -> None:
    recipe = Recipe(resize=Native(100), seq_len=100, rows_per_batch=1, packer=lambda s, m: CuttingPacker(s, m, 0.1, cuts=0.1))
    todo = headers([(16 * 6, 16 * 10), (16 * 7, 16 * 6), (16 * 10, 16 * 10)])  # 60, 42, 100 tokens
    plans = plans_of(recipe, todo)
    assert [plan.table.num_tokens.tolist() for plan in plans] == [[60, 40], [100]]
    assert [plan.table.grid.tolist() for plan in plans] == [[[6, 10], [7, 6]], [[10, 10]]]
    assert [plan.info.shortened for plan in plans] == [1, 0]
    testing.check_packer(lambda s, m: CuttingPacker(s, m, 0.1, cuts=0.1))


def test_an_item_is_shortened_no_more_than_allowed() -> None:
    for max_cut, allowed in ((0.1, 38), (0.0, 42)):
        recipe = Recipe(
            resize=Native(100), seq_len=100, rows_per_batch=1, packer=lambda s, m, c=max_cut: CuttingPacker(s, m, c, cuts=0.5)
        )
        with pytest.raises(PackingError, match=rf"made 25 of the 42 tokens of an item: it must keep {allowed} … 42"):
            plans_of(recipe, headers([(16 * 5, 16 * 15), (16 * 7, 16 * 6)]))


# --------------------------------------------------------------------------------------------------- several patch sizes


def test_flexivit_changes_its_patch_size_from_step_to_step() -> None:
    recipe = recipes.flexivit(rows_per_batch=3)
    plans = plans_of(recipe, headers(SIZES * 4), epoch=5)
    assert [plan.patch_size for plan in plans] == [recipe.patch_size_at(5, step) for step in range(11)]
    assert len({plan.patch_size for plan in plans}) > 3
    for plan in plans:
        side = 240 // plan.patch_size
        assert plan.seq_len == side**2
        assert plan.table.grid.tolist() == [[side, side]] * len(plan.headers)
        assert plan.table.resized.tolist() == [[240, 240]] * len(plan.headers)
    assert sorted(h.key for plan in plans for h in plan.headers) == [h.key for h in headers(SIZES * 4)]


def test_a_size_refused_at_one_patch_size_only() -> None:
    """80 x 80 is 100 patches of 8 and 16 of 20: whether it is refused depends on the step at which its turn comes."""
    recipe = Recipe(
        resize=Native(64, oversize="reject"), patch_size=(8, 20), seq_len=64, rows_per_batch=1, max_images=1, packer=FirstFit(4)
    )
    events = headers([(80, 80)] * 30)
    plans = plans_of(recipe, events)
    rejected = [r.key for plan in plans for r in plan.info.rejections]
    packed = [h.key for plan in plans for h in plan.headers]
    assert {plan.patch_size for plan in plans} == {20}
    assert rejected
    assert sorted(packed + rejected) == [h.key for h in events]


# ------------------------------------------------------------------------------------------------ lookahead, streams


def held(plans: list[BatchPlan]) -> list[str]:
    return [h.key for plan in plans for h in plan.headers]


def test_a_lookahead_bounds_the_images_that_wait() -> None:
    recipe = Recipe(resize=Native(64), seq_len=64, patch_size=16, rows_per_batch=1, packer=FirstFit(open_rows=8))
    todo = headers([(16 * (1 + i % 5), 16 * (1 + i % 3)) for i in range(200)])
    for lookahead in (1, 3, 10):
        planner = OnlinePlanner(recipe, lookahead=lookahead)
        plans = []
        for header in todo:
            plans += planner.feed([header])
            assert (
                len(planner.state_dict()["waiting"]) <= lookahead
            )  # no row is closed and left (rows_per_batch=1): all are open
        plans += planner.finish()
        assert sorted(held(plans)) == [h.key for h in todo]


def test_a_lookahead_in_bytes_closes_the_fullest_rows_and_packs_the_rest_anew() -> None:
    recipe = Recipe(resize=Native(100), seq_len=100, patch_size=16, rows_per_batch=1, packer=FirstFit(open_rows=8))
    tokens = [(10, 6), (10, 5), (9, 5), (10, 3), (10, 7), (10, 3)]
    todo = [h._replace(num_bytes=10) for h in headers([(16 * rows, 16 * cols) for rows, cols in tokens])]
    plans = plans_of(recipe, todo, lookahead_bytes=40)
    # the fifth image is one too many: the row of 50 + 45 closes, 60 + 30 and 70 wait on, and 70 + 30 is full
    assert [held([plan]) for plan in plans] == [
        ["s.tar/001", "s.tar/002"],
        ["s.tar/004", "s.tar/005"],
        ["s.tar/000", "s.tar/003"],
    ]


def test_a_lookahead_that_was_exceeded_is_brought_down_to_three_quarters() -> None:
    """Or every image from then on would have everything packed anew."""
    recipe = Recipe(resize=Native(64), seq_len=64, patch_size=16, rows_per_batch=1, packer=FirstFit(open_rows=8))
    planner = OnlinePlanner(recipe, lookahead=4)
    assert not list(planner.feed(headers([(16 * 8, 16 * 5)] * 4)))
    assert len(list(planner.feed([header(9, 16 * 8, 16 * 5)]))) == 1  # two rows closed, one plan is held back


def test_a_lookahead_that_is_not_met_changes_nothing() -> None:
    todo = headers([(16 * (1 + i % 5), 16 * (1 + i % 3)) for i in range(100)])
    recipe = Recipe(resize=Native(64), seq_len=64, patch_size=16, rows_per_batch=2)
    bounded = OnlinePlanner(recipe, lookahead=10_000, lookahead_bytes=1)  # headers hold no bytes
    assert held([*bounded.feed(todo), *bounded.finish()]) == held(plans_of(recipe, todo))


@pytest.mark.parametrize("num_streams", [1, 2, 3])
def test_streams_share_steps_and_ordinals(num_streams: int) -> None:
    """Every num_streams-th sample and step; the drop of an image does not depend on how many streams there are."""
    recipe = Recipe(
        resize=Native(16),
        drop=Scheduled(midpoint=13, width=3, low=0.2, high=0.8),
        seq_len=16,
        patch_size=8,
        rows_per_batch=2,
        max_images=1,
    )
    todo: list[Event] = list(headers([(32, 32)] * 20))
    todo[4] = bad("x")
    tokens: dict[str, int] = {}
    steps = []
    for stream in range(num_streams):
        planner = OnlinePlanner(recipe, stream=stream, num_streams=num_streams, max_steps=7)
        plans = [*planner.feed(todo[stream::num_streams]), *planner.finish()]
        steps += [plan.step for plan in plans]
        for plan in plans:
            tokens |= zip(held([plan]), plan.table.num_tokens.tolist(), strict=True)
    assert sorted(steps) == list(range(7))
    alone = plans_of(recipe, todo)
    expected = {k: n for plan in alone for k, n in zip(held([plan]), plan.table.num_tokens.tolist(), strict=True)}
    assert len(set(expected.values())) > 2
    assert all(expected[key] == n for key, n in tokens.items())


@pytest.mark.parametrize("argument", ["lookahead", "lookahead_bytes", "max_steps"])
def test_bounds_below_one_are_refused(argument: str) -> None:
    with pytest.raises(ConfigError, match=f"{argument} must be an integer in 1"):
        OnlinePlanner(SMALL, **{argument: 0})
