"""What is true of every planned epoch."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import patchpack as pp
from helpers.standin import of_sizes
from patchpack import rng
from patchpack.plan.table import plan_table
from patchpack.plan.whole_epoch.epoch import plan_rows
from patchpack.plan.whole_epoch.samples import Sizes
from patchpack.stream.planning.epoch_plan import EpochPlan
from patchpack.stream.planning.order import Order, OrderedSource
from patchpack.stream.sources.indexed import IndexSource
from patchpack.types import BatchPlan, Header

SHARDS = st.lists(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), max_size=15), min_size=1, max_size=5)
BASE = pp.Recipe(resize=pp.resize.Native(16), patch_size=8, seq_len=40, max_images=3, rows_per_batch=1)
DRAWN = pp.recipes.navit(resize=pp.resize.NaViT((8, 40)), patch_size=8, seq_len=40, max_images=4, rows_per_batch=1)
FLEXI = BASE.replace(resize=pp.resize.NaFlex(16), patch_size=(4, 8, 16))
CROPPED = DRAWN.replace(crop=pp.crop.RandomResizedCrop(), flip_prob=0.5)
RECIPES = st.sampled_from([BASE, DRAWN, DRAWN.replace(drop=pp.drop.Scheduled(midpoint=20, width=5)), CROPPED, FLEXI])


def plans_of(index: Any, recipe: pp.Recipe, world_size: int, **options: Any) -> list[list[BatchPlan]]:
    return [list(EpochPlan(index, recipe, rank=rank, world_size=world_size, **options)) for rank in range(world_size)]


def rows_in(plan: BatchPlan) -> list[list[str]]:
    edges = plan.offsets.tolist()
    return [[h.key for h in plan.headers[a:b]] for a, b in pairwise(edges)]


@given(SHARDS, RECIPES, st.integers(1, 3), st.integers(1, 9), st.sampled_from(["short", "drop", "pad"]), st.integers(0, 30))
def test_every_sample_once_equal_steps_no_row_over(
    shards: Any, recipe: pp.Recipe, rows: int, world_size: int, tail: Any, shuffle: int
) -> None:
    index, recipe = of_sizes(*shards), recipe.replace(rows_per_batch=rows)
    ranks = plans_of(index, recipe, world_size, tail=tail, shuffle=shuffle)
    assert len({len(plans) for plans in ranks}) == 1
    keys = [h.key for plans in ranks for plan in plans for h in plan.headers]
    assert len(keys) == len(set(keys))
    dropped = EpochPlan(index, recipe, world_size=world_size, tail=tail, shuffle=shuffle).rows.dropped
    assert len(index) == len(keys) + sum(dropped.values())
    assert not dropped or tail == "drop"
    for plan in (plan for plans in ranks for plan in plans):
        tokens = [plan.table.num_tokens[a:b].sum() for a, b in pairwise(plan.offsets.tolist())]
        assert max(tokens) <= recipe.row_len(plan.patch_size)
        assert np.diff(plan.offsets).max() <= recipe.max_images
        assert plan.num_rows == rows or (tail == "short" and plan.step == len(ranks[0]) - 1 and plan.num_rows >= 1)
        if tail == "drop":
            assert np.diff(plan.offsets).min() >= 1


@given(SHARDS, st.sampled_from([BASE, DRAWN]), st.integers(0, 30), st.sampled_from(["pad", "short"]))
def test_ranks_merged_in_step_order_are_the_same_rows(shards: Any, recipe: pp.Recipe, shuffle: int, tail: Any) -> None:
    index, merged = of_sizes(*shards), []
    for world_size in (1, 2, 3, 4):
        ranks = plans_of(index, recipe, world_size, tail=tail, shuffle=shuffle)
        merged.append([row for step in zip(*ranks, strict=True) for plan in step for row in rows_in(plan) if row])
    assert merged[1:] == merged[:1] * 3


@given(SHARDS, RECIPES, st.integers(1, 2), st.integers(1, 4), st.integers(1, 9))
def test_steps_are_exact_and_whatever_is_left_has_a_name(
    shards: Any, recipe: pp.Recipe, rows: int, world_size: int, steps: int
) -> None:
    index, recipe = of_sizes(*shards), recipe.replace(rows_per_batch=rows)
    plan = EpochPlan(index, recipe, world_size=world_size, steps_per_epoch=steps, shuffle=7)
    assert len(plan) == (steps if len(index) else 0)
    assert plan.rows.images().sum() + sum(plan.rows.dropped.values()) == plan.rows.seen >= len(index)
    assert (np.diff(plan.rows.offsets) >= 1).all()


@given(SHARDS, RECIPES, st.integers(1, 4), st.integers(0, 30), st.sampled_from([None, 3]))
def test_the_decisions_of_a_step_are_those_of_its_images_alone(
    shards: Any, recipe: pp.Recipe, world_size: int, shuffle: int, steps: int | None
) -> None:
    """Grids are decided block by block and kept. The slow twin decides everything about one batch at once."""
    index = of_sizes(*shards)
    for rank in range(world_size):
        plan = EpochPlan(index, recipe, 3, rank=rank, world_size=world_size, shuffle=shuffle, seen=11, steps_per_epoch=steps)
        for step in range(len(plan)):
            made, edges, rows = plan[step], plan.rows.offsets, plan.rows.rows_of(step, rank).tolist()
            positions = [n for r in rows if r >= 0 for n in plan.rows.items[edges[r] : edges[r + 1]].tolist()]
            sizes = np.array([header.size for header in made.headers]).reshape(-1, 2)
            hashes = rng.key_hash(header.draw_key for header in made.headers)
            ordinals = 11 + np.array(positions, dtype=np.int64)
            alone = plan_table(recipe, sizes, hashes, epoch=3, seen=ordinals, patch_size=made.patch_size)
            assert np.array_equal(made.key_hash, hashes)
            for one, other in zip(made.table, alone, strict=True):
                assert one.dtype == other.dtype
                assert np.array_equal(one, other)


@given(SHARDS, st.integers(0, 40), st.integers(0, 3), st.integers(0, 5))
def test_the_order_is_that_of_a_shuffled_source(shards: Any, shuffle: int, epoch: int, seed: int) -> None:
    index = of_sizes(*shards)
    source = OrderedSource(IndexSource(index), Order(seed=seed, epoch=epoch, shuffle=shuffle))
    rows = plan_rows(BASE.replace(seed=seed), Sizes(index.sizes, index.key_hash, index.starts), epoch=epoch, shuffle=shuffle)
    headers = [event for event in source.scan() if isinstance(event, Header)]
    assert [h.key for h in index.headers(rows.order)] == [h.key for h in headers]


@given(SHARDS, st.integers(2, 5), st.integers(0, 2))
def test_balance_keeps_the_rows_of_a_window(shards: Any, world_size: int, epoch: int) -> None:
    index = of_sizes(*shards)
    table = Sizes(index.sizes, index.key_hash, index.starts)
    plain, even = (
        plan_rows(BASE, table, epoch=epoch, num_ranks=world_size, tail="pad", balance=balance) for balance in (False, True)
    )
    assert sorted(plain.steps.ravel().tolist()) == sorted(even.steps.ravel().tolist())
    assert np.array_equal(plain.items, even.items)
    assert (even.steps[:-1] >= 0).all()
