"""An epoch planned at once: its order, its rows, its steps, and what is left over, on cases small enough to check by hand."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import patchpack as pp
from bench import lists
from helpers.standin import of_sizes
from patchpack import rng
from patchpack.plan.packing.choice import choose_lookahead
from patchpack.plan.shuffle import shuffled_lines
from patchpack.plan.table import GridTable, plan_table
from patchpack.plan.whole_epoch.epoch import EpochRows, plan_rows
from patchpack.plan.whole_epoch.row_maker import _Images
from patchpack.plan.whole_epoch.samples import Sizes
from patchpack.stream.planning.epoch_plan import EpochPlan

ONES = pp.Recipe(resize=pp.resize.Native(16), patch_size=8, seq_len=16, max_images=2, rows_per_batch=2)  # 8 x 8 is one token


def table(sizes: Any, starts: Any = None) -> Sizes:
    sizes = np.asarray(sizes, dtype=np.int32).reshape(-1, 2)
    hashes = rng.key_hash(str(i) for i in range(len(sizes)))
    again = lambda lines, number: rng.key_hash(f"{i}#{number}" for i in lines.tolist())  # noqa: E731
    return Sizes(sizes, hashes, np.array([0, len(sizes)] if starts is None else starts, dtype=np.int64), again)


def squares(*tokens: int) -> Sizes:
    """Images of so many tokens in a row."""
    return table([(8, 8 * n) for n in tokens])


def rows_of(rows: EpochRows, rank: int = 0) -> list[list[list[int]]]:
    """Lines of the rows of each step."""
    lines = [rows.order[rows.items[a:b]].tolist() for a, b in pairwise(rows.offsets.tolist())]
    return [[lines[r] if r >= 0 else [] for r in rows.rows_of(step, rank)] for step in range(len(rows.steps))]


# --------------------------------------------------------------------------------------------------------------- order


def test_without_shuffling_lines_come_as_they_are() -> None:
    assert shuffled_lines(np.array([0, 3, 5]), seed=0, epoch=0, shuffle=0).tolist() == [0, 1, 2, 3, 4]


def test_shards_are_permuted_and_samples_within_blocks() -> None:
    starts = np.arange(0, 1001, 10)
    lines = shuffled_lines(starts, seed=1, epoch=0, shuffle=20)
    assert sorted(lines.tolist()) == list(range(1000))
    for i in range(0, 1000, 20):
        assert len(set((lines[i : i + 20] // 10).tolist())) == 2
    shards = [int(block[0]) // 10 for block in lines.reshape(-1, 20)]
    assert shards != sorted(shards)
    assert any(lines[:10] // 10 != lines[0] // 10)


def test_orders_differ_by_epoch_pass_and_seed_and_are_the_same_again() -> None:
    options = {"seed": 0, "epoch": 0, "shuffle": 50, "number": 0}
    first = shuffled_lines(np.array([0, 30, 90, 100]), **options).tolist()
    assert shuffled_lines(np.array([0, 30, 90, 100]), **options).tolist() == first
    for name in ("seed", "epoch", "number"):
        assert shuffled_lines(np.array([0, 30, 90, 100]), **{**options, name: 1}).tolist() != first


@pytest.mark.parametrize(("shuffle", "start"), [(1000, 199_000), (70_000, 140_000)])
def test_every_block_of_a_large_index_has_its_own_permutation(shuffle: int, start: int) -> None:
    lines = shuffled_lines(np.array([0, 200_000]), seed=4, epoch=2, shuffle=shuffle, number=1)
    block = rng.permutation(4, 2, rng.Stage.HEADERS, (1 << 40) + start, min(shuffle, 200_000 - start))
    assert lines[start : start + shuffle].tolist() == (start + block).tolist()


def test_blocks_may_be_permuted_many_at_a_time() -> None:
    together = rng.permutation(3, 1, rng.Stage.HEADERS, 70, 1003, block=10)
    one_by_one = [i + rng.permutation(3, 1, rng.Stage.HEADERS, 70 + i, min(10, 1003 - i)) for i in range(0, 1003, 10)]
    assert together.tolist() == np.concatenate(one_by_one).tolist()
    assert rng.permutation(0, 0, rng.Stage.SHARDS, 0, 0).tolist() == []


# ---------------------------------------------------------------------------------------------------------------- rows


def test_rows_in_the_order_of_the_index() -> None:
    rows = plan_rows(ONES, squares(9, 9, 7, 7, 16, 3))
    assert rows_of(rows) == [[[0, 2], [1, 3]], [[4], [5]]]
    assert rows.num_tokens.tolist() == [9, 7, 9, 7, 16, 3]
    assert (rows.dropped, rows.refused.tolist(), rows.seen) == ({}, [], 6)
    assert rows.images().tolist() == [[4], [2]]


def test_ranks_take_every_other_row() -> None:
    rows = plan_rows(ONES.replace(rows_per_batch=1), squares(9, 9, 7, 7, 16, 3), num_ranks=2)
    assert rows_of(rows, 0) == [[[0, 2]], [[4]]]
    assert rows_of(rows, 1) == [[[1, 3]], [[5]]]
    assert rows.images().tolist() == [[2, 2], [1, 1]]


def test_policies_decide_about_each_image_once() -> None:
    met: list[tuple[int, int]] = []

    @dataclass(frozen=True)
    class Listening(pp.resize.Native):
        def __call__(self, sizes: Any, patch_size: int, u: Any = None) -> Any:
            met.extend(map(tuple, sizes.tolist()))
            return super().__call__(sizes, patch_size, u)

    sizes = [(8, 8 * n) for n in (9, 7, 5, 3)]
    index = of_sizes(sizes)
    plan = EpochPlan(index, ONES.replace(resize=Listening(16)), packer=pp.packing.Lookahead())
    met.clear()
    assert sorted(size for batch in plan for size in batch.table.resized.tolist()) == sorted(map(list, sizes))
    assert met == []


def test_grids_of_more_than_16_bits() -> None:
    """Columns have 16 bits as long as these suffice, and more from the block that needs them on. They grow where they must."""
    blocks = [np.array([[1, n], [2, 3]]) for n in (5, 65_535, 70_000, 6)]
    images, met = _Images(expected=3), []
    for number, grid in enumerate(blocks):
        part = GridTable(grid, grid.prod(axis=1)).compact()
        images.append(np.array([2 * number, 2 * number + 1]), part)
        met.append(images.grids.grid.dtype)
    assert met == [np.uint16, np.uint16, blocks[0].dtype, blocks[0].dtype]
    assert np.array_equal(images.grids.grid, np.concatenate(blocks))
    assert np.array_equal(images.grids.num_tokens, np.concatenate(blocks).prod(axis=1))
    assert images.positions.tolist() == list(range(8))
    assert images.grids.crop is None


FIVE = squares(*[16] * 5)


@pytest.mark.parametrize(
    ("tail", "ranks", "expected"),
    [
        ("short", 1, [[[0], [1]], [[2], [3]], [[4]]]),
        ("drop", 1, [[[0], [1]], [[2], [3]]]),
        ("pad", 1, [[[0], [1]], [[2], [3]], [[4], []]]),
        ("wrap", 1, [[[0], [1]], [[2], [3]], [[4], [0]]]),
        ("short", 3, [[[0], [3]]]),
        ("short", 4, [[[0], [4]]]),
        ("pad", 4, [[[0], [4]]]),
        ("wrap", 4, [[[0], [4]]]),
        ("drop", 2, [[[0], [2]]]),
    ],
)
def test_tails_on_the_first_rank(tail: Any, ranks: int, expected: Any) -> None:
    assert rows_of(plan_rows(ONES, FIVE, tail=tail, num_ranks=ranks)) == expected


@pytest.mark.parametrize(
    ("tail", "expected", "images"),
    [("short", [[2]], 1), ("pad", [[2], []], 1), ("wrap", [[2], [0]], 1), ("drop", None, 0)],
)
def test_tails_on_the_last_rank(tail: Any, expected: Any, images: int) -> None:
    rows = plan_rows(ONES, FIVE, tail=tail, num_ranks=3)
    found = rows_of(rows, 2)
    assert found == ([] if expected is None else [expected])
    assert rows.images()[:, 2].sum() == images
    assert rows.dropped == ({"tail": 5} if tail == "drop" else {})


def test_a_short_tail_gives_a_rank_without_rows_an_empty_one() -> None:
    rows = plan_rows(ONES.replace(rows_per_batch=1), FIVE, num_ranks=4)
    assert [rows_of(rows, rank) for rank in range(4)] == [[[[0]], [[4]]], [[[1]], [[]]], [[[2]], [[]]], [[[3]], [[]]]]


def test_wrapped_rows_are_the_first_and_count_once() -> None:
    rows = plan_rows(ONES, squares(16, 16, 16), tail="wrap", num_ranks=4)
    assert [row for rank in range(4) for row in rows_of(rows, rank)[0]] == [[0], [1], [1], [2], [2], [0], [0], [1]]
    assert [rows.repeated_of(0, rank) for rank in range(4)] == [1, 1, 1, 2]
    assert rows.images().tolist() == [[1, 1, 1, 0]]


@dataclass(frozen=True)
class OnePerPatch:
    """Native grids with no bound; sizes of 100 pixels are refused."""

    draws = 0

    def bound(self, patch_size: int) -> None:
        return None

    def __call__(self, sizes: Any, patch_size: int, u: Any) -> Any:
        grids = np.maximum(1, sizes // patch_size).astype(np.int32)
        grids[sizes[:, 1] == 100] = 0
        return grids


def test_what_no_row_takes_is_refused_with_its_reason() -> None:
    recipe = ONES.replace(resize=OnePerPatch(), max_pixels=8 * 200)
    rows = plan_rows(recipe, table([(8, 8), (8, 136), (8, 100), (8, 208), (8, 128)]))
    assert rows_of(rows) == [[[0], [4]]]
    assert (rows.refused.tolist(), rows.refused_tokens.tolist()) == ([1, 2, 3], [17, 0, -1])
    assert rows.dropped == {}


def test_every_refusal_is_told_in_one_step_for_any_number_of_ranks() -> None:
    recipe = ONES.replace(resize=OnePerPatch(), rows_per_batch=1)
    sizes = table([(8, 100) if i % 3 == 0 else (8, 128) for i in range(50)])
    for ranks in (1, 2, 3, 7):
        rows = plan_rows(recipe, sizes, num_ranks=ranks)
        told = [i for step in range(len(rows.steps)) for i in rows.refused[rows.refused_in(step)].tolist()]
        assert told == rows.refused.tolist() == list(range(0, 50, 3))
    one, two = plan_rows(recipe, sizes), plan_rows(recipe, sizes, num_ranks=2)
    assert one.refused_in(2).start == two.refused_in(1).start > 0


def test_nothing_to_pack_makes_no_step() -> None:
    rows = plan_rows(ONES.replace(resize=OnePerPatch()), table([(8, 100)] * 3), steps_per_epoch=4)
    assert (len(rows.steps), rows.refused.tolist(), rows.seen) == (0, [0, 1, 2], 3)
    assert len(plan_rows(ONES, squares()).steps) == 0
    assert len(plan_rows(ONES, squares(), steps_per_epoch=2).steps) == 0


# --------------------------------------------------------------------------------------------------------------- steps


def test_steps_cut_an_epoch_and_name_what_is_left() -> None:
    rows = plan_rows(ONES, squares(*[16] * 9), steps_per_epoch=2)
    assert rows_of(rows) == [[[0], [1]], [[2], [3]]]
    assert rows.dropped == {"steps_per_epoch": 5}


def test_steps_that_need_a_part_of_another_pass_count_what_they_met_of_it() -> None:
    rows = plan_rows(ONES, squares(16, 16, 16), steps_per_epoch=2)
    assert rows_of(rows) == [[[0], [1]], [[2], [0]]]
    assert (rows.seen, rows.dropped, rows.items.tolist()) == (4, {}, [0, 1, 2, 3])


def test_steps_repeat_an_epoch_in_another_order_with_other_draws() -> None:
    recipe = pp.recipes.navit(seq_len=256, rows_per_batch=4)
    sizes = table(np.random.default_rng(0).integers(100, 600, (40, 2)))
    rows = plan_rows(recipe, sizes, steps_per_epoch=20, shuffle=40)
    assert len(rows.steps) == 20
    lines, passes = rows.order[rows.items], rows.items // 40
    times = np.bincount(lines)
    assert times.max() - times[times > 0].min() <= 2
    first = dict(zip(lines[passes == 0].tolist(), rows.num_tokens[passes == 0].tolist(), strict=True))
    second = dict(zip(lines[passes == 1].tolist(), rows.num_tokens[passes == 1].tolist(), strict=True))
    assert len(first) == len(second) == 40
    assert sum(first[line] != second[line] for line in first) > 20
    assert rows.order[:40].tolist() != rows.order[40:80].tolist()
    assert rows.seen == len(rows.items) + rows.dropped.get("steps_per_epoch", 0)


def test_an_ordinal_is_a_position() -> None:
    recipe = ONES.replace(drop=pp.drop.Scheduled(midpoint=13, width=1e-3), resize=pp.resize.Native(16))
    rows = plan_rows(recipe, squares(*[10] * 6), seen=10, shuffle=6)
    kept = dict(zip(rows.items.tolist(), rows.num_tokens.tolist(), strict=True))
    assert [kept[i] for i in range(6)] == [8, 8, 8, 5, 2, 2]


# ------------------------------------------------------------------------------------------------- several patch sizes


def test_every_row_is_planned_at_the_patch_size_of_its_step() -> None:
    recipe = pp.recipes.flexivit(rows_per_batch=2)
    rng_ = np.random.default_rng(0)
    sizes = table(rng_.integers(50, 500, (700, 2)))
    rows = plan_rows(recipe, sizes, epoch=2, shuffle=100)
    steps = rows_of(rows)
    assert sorted(line for step in steps for row in step for line in row) == list(range(700))
    for number, step in enumerate(steps):
        p = recipe.patch_size_at(2, number)
        for row in step:
            tokens = plan_table(recipe, sizes.sizes[row], sizes.key_hash[row], epoch=2, patch_size=p).num_tokens
            assert tokens.sum() <= recipe.row_len(p)
        assert number == len(steps) - 1 or len(step) == 2


def test_patch_sizes_mix_in_rows_that_are_full() -> None:
    recipe = pp.Recipe(
        resize=pp.resize.NaViT((64, 200)), patch_size=(8, 16, 32), seq_len=1024, max_images=256, rows_per_batch=4
    )
    sizes = table(np.random.default_rng(0).integers(50, 500, (20_000, 2)))
    rows = plan_rows(recipe, sizes, shuffle=1000)
    assert len(np.unique(rows.items)) == 20_000
    assert rows.num_tokens.sum() / 1024 / (len(rows.offsets) - 1) > 0.995
    exact = plan_rows(recipe, sizes, shuffle=1000, steps_per_epoch=300, num_ranks=2)
    assert len(exact.steps) == 300


# ------------------------------------------------------------------------------------------------------------- balance


def test_balance_moves_rows_within_windows_only_and_evens_ranks() -> None:
    recipe = pp.Recipe(resize=pp.resize.Native(1024), seq_len=1024, rows_per_batch=2)
    sizes = table(np.exp(np.random.default_rng(0).normal(5.5, 0.6, (60_000, 2))).astype(int))
    plain, even = (plan_rows(recipe, sizes, num_ranks=4, balance=balance, tail="pad") for balance in (False, True))
    assert np.array_equal(plain.items, even.items)
    window = 630  # steps of 8 rows: 2520 batches of 2
    assert len(plain.steps) > 2 * window
    for start in range(0, len(plain.steps), window):
        part = slice(start, start + window)
        assert sorted(plain.steps[part].ravel().tolist()) == sorted(even.steps[part].ravel().tolist())
    costs = np.append(np.add.reduceat(plain.num_tokens.astype(np.int64) ** 2, plain.offsets[:-1]), 0)

    def waits(steps: Any) -> float:
        load = costs[steps].reshape(len(steps), -1, 4).sum(axis=1)
        return float((1 - load.mean(axis=1) / load.max(axis=1)).mean())

    assert waits(even.steps) < 0.25 * waits(plain.steps)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tail": "long"}, "tail must be one of short, drop, pad, wrap, got 'long'"),
        ({"shuffle": -1}, "shuffle must be in 0 … 1099511627776"),
        ({"shuffle": True}, "the samples permuted at a time .* got True"),
        ({"steps_per_epoch": 0}, "steps_per_epoch must be an integer in 1"),
        ({"packer": pp.packing.FirstFit()}, "packer must be Lookahead"),
        ({"packer": pp.packing.Lookahead(max_cut=0.1)}, "a planned epoch never shortens samples"),
        ({"recipe": pp.recipes.flexivit(), "tail": "wrap"}, "tail='wrap' cannot repeat rows"),
        ({"recipe": pp.recipes.flexivit(), "balance": True}, "use one patch size"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(pp.errors.ConfigError, match=message):
        plan_rows(options.pop("recipe", ONES), squares(1), **options)


# ---------------------------------------------------------------------------------------------------------------- fill


def test_the_pool_holds_the_images_of_eight_rows() -> None:
    assert choose_lookahead(np.full(1000, 10), seq_len=1000, max_images=1000) == pp.packing.Lookahead(800)
    assert choose_lookahead(np.full(1000, 500), seq_len=1000, max_images=64) == pp.packing.Lookahead(64)
    assert choose_lookahead(np.full(1000, 1), seq_len=1 << 20, max_images=1 << 20) == pp.packing.Lookahead(4096)
    assert choose_lookahead(np.empty(0, dtype=np.int64), seq_len=10, max_images=5) == pp.packing.Lookahead(1)


@pytest.mark.parametrize("seed", range(3))
def test_a_comb_of_lengths_gets_prices_from_the_lesson_that_helps_most(seed: int) -> None:
    comb = lists.make("coco", 16384, 4096, seed)
    options = choose_lookahead(comb, seq_len=4096, max_images=64)
    assert options.prices is not None
    other = lists.make("coco", 50_000, 4096, 99)
    packing = pp.packing.pack_stream(other, seq_len=4096, packer=options)
    assert other.sum() / 4096 / packing.num_rows > 0.976
