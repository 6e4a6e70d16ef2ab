"""What is true of the plans of any source: nothing lost, nothing over-filled, and no draw moved by what stands around it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from helpers import naive
from patchpack import recipes, rng, testing
from patchpack.losses import Rejection, ShardFault
from patchpack.plan.online.planner import OnlinePlanner
from patchpack.plan.packing import BestFit, FirstFit, NextFit
from patchpack.plan.policies.drop import Beta, NoDrop, Scheduled
from patchpack.plan.policies.resize import LongestSide, NaFlex, Native, NaViT, Pix2Struct, Square
from patchpack.plan.recipe import Recipe
from patchpack.plan.table import plan_table
from patchpack.types import BatchPlan, Event, Header, Size


@dataclass(frozen=True)
class OnePerPatch:
    """Native grids with no bound: an image may be over seq_len."""

    draws = 0

    def bound(self, patch_size: int) -> None:
        return None

    def __call__(self, sizes: Any, patch_size: int, u: Any = None) -> Any:
        return np.maximum(1, sizes // patch_size).astype(np.int32)


def events(max_size: int = 50) -> st.SearchStrategy[list[Event]]:
    """What a scan may yield: mostly headers, now and then a rejection or a fault; a key may come twice."""
    keys = st.integers(0, 200).map(lambda i: f"s.tar/{i}")
    sizes = testing.sizes(300).map(lambda size: Size(*size))
    header = st.tuples(keys, sizes, st.integers(), st.integers(0, 2)).map(lambda h: Header(h[0], "s.tar", "x.jpg", *h[1:]))
    rejection = st.builds(
        Rejection, st.just("s.tar"), keys, st.just("x.jpg"), st.sampled_from(["read", "header"]), st.just("torn")
    )
    fault = st.just(ShardFault("s.tar", "cut"))
    event = st.integers(0, 9).flatmap(lambda kind: {0: rejection, 1: fault}.get(kind, header))
    return st.integers(0, max_size).flatmap(lambda n: st.lists(event, min_size=n, max_size=n))


def several_patch_sizes() -> st.SearchStrategy[Recipe]:
    """Recipes whose patch size changes from step to step, with policies that see it."""
    policies = st.sampled_from(
        [NaFlex(40), Pix2Struct(30), Native(60, oversize="reject"), Native(60, edge="pad"), NaViT((16, 32)), LongestSide(32),
         OnePerPatch()]
    )  # fmt: skip
    return st.builds(
        # rows hold one to a few images, so that many are waiting when a step changes the patch size
        lambda resize, extra, **fields: Recipe(resize=resize, seq_len=64 + extra, patch_size=(4, 8), **fields),
        policies,
        st.integers(0, 32),
        drop=st.sampled_from([NoDrop(), Beta(0.2, 0.9), Scheduled(30, 10)]),
        packer=st.sampled_from([FirstFit(), FirstFit(3), BestFit(), BestFit(3), NextFit()]),
        max_images=st.integers(1, 5),
        rows_per_batch=st.integers(1, 2),
        seed=st.integers(0, 2**64 - 1),
    )


def any_recipe() -> st.SearchStrategy[Recipe]:
    return st.one_of(testing.recipes(), several_patch_sizes(), st.just(recipes.flexivit(rows_per_batch=2)))


def planned(recipe: Recipe, todo: Sequence[Event], cuts: Sequence[int] = (), **options: Any) -> list[BatchPlan]:
    planner = OnlinePlanner(recipe, **options)
    plans = []
    for start, stop in zip([0, *cuts], [*cuts, len(todo)], strict=True):
        plans += planner.feed(todo[start:stop])
    return [*plans, *planner.finish()]


def comparable(plan: BatchPlan) -> Any:
    return (
        plan.step, plan.epoch, plan.patch_size, plan.seq_len, plan.offsets.tolist(), [column.tolist() for column in plan.table],
        plan.key_hash.tolist(), plan.headers, plan.info, plan.fatal,
    )  # fmt: skip


def only_headers(todo: Sequence[Event]) -> list[Header]:
    return [event for event in todo if isinstance(event, Header)]


def slices(plan: BatchPlan) -> list[slice]:
    return [slice(a, b) for a, b in zip(plan.offsets[:-1], plan.offsets[1:], strict=True)]


@given(any_recipe(), events(), st.data())
def test_plans_do_not_depend_on_how_events_are_cut_into_blocks(recipe, todo, data) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(todo)), max_size=6)))
    whole = [comparable(plan) for plan in planned(recipe, todo, epoch=2, seen=5)]
    assert [comparable(plan) for plan in planned(recipe, todo, cuts, epoch=2, seen=5)] == whole
    assert [comparable(plan) for plan in planned(recipe, todo, range(1, len(todo)), epoch=2, seen=5)] == whole


def with_states(planner: OnlinePlanner, todo: Sequence[Event]) -> Iterator[tuple[BatchPlan, str]]:
    """Plans, each with the state after it."""
    for start in range(0, len(todo), 7):
        for plan in planner.feed(todo[start : start + 7]):
            yield plan, json.dumps(planner.state_dict())
    for plan in planner.finish():
        yield plan, json.dumps(planner.state_dict())


def resumed(planner: OnlinePlanner, state: Any, todo: Sequence[Event]) -> list[BatchPlan]:
    """The rest of the plans, by a planner that has only the state, and the events to look into."""
    samples = [i for i, event in enumerate(todo) if not isinstance(event, ShardFault)]
    wanted = {position: todo[samples[position]] for position, *_ in state.get("samples", ())}
    planner.load_state_dict(state, wanted)  # type: ignore[arg-type]  # headers they are
    if state.get("finished"):
        return list(planner.finish())
    seen = state["account"]["seen"]
    rest = [] if state["ended"] else todo[samples[seen - 1] + 1 :]
    return [*planner.feed(rest), *planner.finish()]


@given(any_recipe(), events(), st.sampled_from(["short", "drop", "pad", "wrap"]), st.none() | st.integers(1, 12))
def test_a_planner_goes_on_where_another_stopped(recipe, todo, tail, max_steps) -> None:
    if tail == "wrap" and len(recipe.patch_sizes) > 1:
        tail = "pad"
    options = {"epoch": 2, "seen": 5, "tail": tail, "max_steps": max_steps}
    whole = [(comparable(plan), state) for plan, state in with_states(OnlinePlanner(recipe, **options), todo)]
    for i, (plan, state) in enumerate(whole):
        if plan[-1] is None:  # else it was fatal, and nobody goes on
            rest = resumed(OnlinePlanner(recipe, **options), json.loads(state), todo)
            assert [comparable(plan) for plan in rest] == [plan for plan, _ in whole[i + 1 :]]


@given(any_recipe(), events())
def test_every_header_is_in_one_row_or_one_rejection(recipe, todo) -> None:
    plans = planned(recipe, todo)
    packed = [id(h) for plan in plans for h in plan.headers]  # the very header: keys may repeat
    rejected = [r.key for plan in plans for r in plan.info.rejections if r.stage == "plan"]
    assert len(set(packed)) == len(packed)
    assert sorted(rejected) == sorted(h.key for h in only_headers(todo) if id(h) not in packed)
    assert len(packed) + len(rejected) == len(only_headers(todo))


@given(any_recipe(), events())
def test_every_event_that_is_no_header_is_told_once(recipe, todo) -> None:
    plans = planned(recipe, todo)
    told = [r for plan in plans for r in plan.info.rejections if r.stage != "plan"]
    faults = [f for plan in plans for f in plan.info.shard_errors]
    assert told == [event for event in todo if isinstance(event, Rejection)]
    assert faults == [event for event in todo if isinstance(event, ShardFault)]


@given(any_recipe(), events())
def test_no_row_exceeds_seq_len_or_max_images(recipe, todo) -> None:
    for plan in planned(recipe, todo):
        assert plan.seq_len == recipe.row_len(plan.patch_size)
        assert plan.num_rows <= recipe.rows_per_batch
        for row in slices(plan):
            assert 0 < plan.table.num_tokens[row].sum() <= plan.seq_len
            assert 0 < len(plan.headers[row]) <= recipe.max_images


@given(any_recipe(), events())
def test_seen_is_packed_and_rejected_and_waiting(recipe, todo) -> None:
    plans = planned(recipe, todo)
    packed = rejected = last = 0
    for plan in plans:
        info = plan.info
        packed += info.planned
        rejected += len(info.rejections)
        assert info.planned == len(plan.headers) == plan.offsets[-1]
        assert info.seen >= max(last, packed + rejected)
        last = info.seen
    assert last == packed + rejected == sum(not isinstance(event, ShardFault) for event in todo)


@given(any_recipe(), events())
def test_steps_count_and_patch_sizes_follow_them(recipe, todo) -> None:
    for step, plan in enumerate(planned(recipe, todo, epoch=3)):
        assert (plan.step, plan.info.step, plan.epoch) == (step, step, 3)
        assert plan.patch_size == recipe.patch_size_at(3, step)


@given(any_recipe(), events())
def test_only_the_last_plan_is_short_or_fatal(recipe, todo) -> None:
    plans = planned(recipe, todo)
    assert all(plan.num_rows == recipe.rows_per_batch and plan.fatal is None for plan in plans[:-1])
    assert (plans[-1].fatal is None) == (plans[-1].num_rows > 0)


@given(any_recipe(), events(), st.integers(0, 1 << 30))
@example(recipes.flexivit(rows_per_batch=2), [Header(str(i), "", "", Size(30, 40), i) for i in range(20)], 0)
def test_a_plan_holds_the_table_of_its_images_at_its_patch_size(recipe, todo, seen) -> None:
    """Whatever was thrown away and planned again on the way: size, key, epoch, ordinal and patch size decide."""
    samples = [event for event in todo if not isinstance(event, ShardFault)]  # an unreadable one has its ordinal too
    ordinals: dict[int, int] = {id(sample): seen + i for i, sample in enumerate(samples)}
    for plan in planned(recipe, todo, epoch=7, seen=seen):
        if plan.fatal:
            continue
        hashes = rng.key_hash(h.key if h.repeat == 0 else f"{h.key}#{h.repeat}" for h in plan.headers)
        mine = np.array([ordinals[id(h)] for h in plan.headers])
        sizes = [h.size for h in plan.headers]
        expected = plan_table(recipe, sizes, hashes, epoch=7, seen=mine, patch_size=plan.patch_size)
        assert np.array_equal(plan.key_hash, hashes)
        assert [column.tolist() for column in plan.table] == [column.tolist() for column in expected]


@given(several_patch_sizes(), events())
def test_rows_keep_the_order_of_arrival(recipe, todo) -> None:
    place = {id(h): i for i, h in enumerate(only_headers(todo))}
    for plan in planned(recipe, todo):
        for row in slices(plan):
            order = [place[id(h)] for h in plan.headers[row]]
            assert order == sorted(order)


@given(
    lengths=st.lists(st.integers(1, 30), max_size=60),
    open_rows=st.integers(1, 5),
    best=st.booleans(),
    max_images=st.integers(1, 6),
    rows=st.integers(1, 4),
)
def test_batches_are_the_rows_of_the_packer_in_order(lengths, open_rows, best, max_images, rows) -> None:
    packer = BestFit(open_rows) if best else FirstFit(open_rows)
    recipe = Recipe(resize=OnePerPatch(), patch_size=1, seq_len=30, max_images=max_images, rows_per_batch=rows, packer=packer)
    todo = [Header(str(i), "", "", Size(1, n), None) for i, n in enumerate(lengths)]
    expected = naive.online(lengths, 30, max_images, open_rows=open_rows, best=best)
    plans = [plan for plan in planned(recipe, todo) if plan.fatal is None]
    made = [[[int(h.key) for h in plan.headers[row]] for row in slices(plan)] for plan in plans]
    assert made == [expected[i : i + rows] for i in range(0, len(expected), rows)]


# ---------------------------------------------------------------------------------------------------------- plan_table


@given(any_recipe(), testing.size_tables(max_side=300), st.integers(0, (1 << 32) - 1), st.data())
def test_a_line_of_the_table_depends_on_its_image_alone(recipe, sizes, epoch, data) -> None:
    hashes = rng.key_hash(str(i) for i in range(len(sizes)))
    seen = np.arange(len(sizes)) * 7
    p = recipe.patch_sizes[-1]
    whole = plan_table(recipe, sizes, hashes, epoch=epoch, seen=seen, patch_size=p)
    order = data.draw(st.lists(st.integers(0, len(sizes) - 1), max_size=8))
    part = plan_table(recipe, sizes[order], hashes[order], epoch=epoch, seen=seen[order], patch_size=p)
    assert [column.tolist() for column in part] == [column.tolist() for column in whole.take(order)]


@given(testing.recipes(), events(), st.data())
def test_draws_do_not_move_with_the_place_in_the_stream(recipe, todo, data) -> None:
    """The same images in another order, among others, after others: the same grids and the same token counts."""
    if isinstance(recipe.drop, Scheduled):
        recipe = recipe.replace(drop=Beta())
    shuffled = data.draw(st.permutations(todo))

    def decided(stream: Sequence[Event]) -> dict[tuple[str, int, Size], tuple[list[int], int]]:
        plans = planned(recipe, stream, epoch=1)
        return {
            (h.key, h.repeat, h.size): (plan.table.grid[i].tolist(), int(plan.table.num_tokens[i]))
            for plan in plans
            for i, h in enumerate(plan.headers)
        }

    here, there = decided(todo), decided(shuffled[: len(todo) // 2])
    assert there.items() <= here.items()
    assert decided(shuffled) == here


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 2))
def test_seed_and_epoch_move_the_draws(seed, epoch) -> None:
    sizes, hashes = np.full((64, 2), 500), rng.key_hash(str(i) for i in range(64))
    recipe = recipes.navit(seed=seed)
    here = plan_table(recipe, sizes, hashes, epoch=epoch)
    for other, later in (
        (recipe, epoch + 1),
        (recipe.replace(seed=seed ^ 1), epoch),
        (recipe.replace(seed=seed ^ (1 << 63)), epoch),
    ):
        assert not np.array_equal(plan_table(other, sizes, hashes, epoch=later).num_tokens, here.num_tokens)


@given(testing.sizes(300), st.integers(0, 1000), st.integers(0, 5))
def test_a_schedule_uses_the_ordinal(size, first, before) -> None:
    """Its image's number over all epochs: what stands before it counts, its place in a block does not."""
    recipe = Recipe(resize=Square(64), patch_size=4, seq_len=256, drop=Scheduled(500, 100), packer=NextFit())
    todo = [Header(str(i), "", "", Size(*size), None) for i in range(before + 1)]
    plans = planned(recipe, todo, seen=first)
    tokens = {h.key: int(plan.table.num_tokens[i]) for plan in plans for i, h in enumerate(plan.headers)}
    expected = recipe.drop(np.full((before + 1, 2), 16), None, np.arange(first, first + before + 1))
    assert [tokens[str(i)] for i in range(before + 1)] == expected.tolist()
