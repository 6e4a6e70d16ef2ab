"""What is true of every stream of images with texts: no row over any limit, every text once and beside its own image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import patchpack as pp
from helpers.captioned import naive_texts
from patchpack.errors import DecodeError
from patchpack.paint.painter import paint
from patchpack.plan.online.budget import Budget
from patchpack.plan.online.planner import OnlinePlanner
from patchpack.plan.packing import pack_stream
from patchpack.types import BatchPlan, Header, Size

PACKERS = [
    pp.packing.FirstFit(3),
    pp.packing.BestFit(4),
    pp.packing.NextFit(),
    pp.packing.Lookahead(),
    pp.packing.Lookahead(7, 20),
    pp.packing.Lookahead(5, max_cut=0.3),
]


@st.composite
def streams(draw: Any) -> tuple[pp.Recipe, int, list[list[tuple[int, int]]], list[list[int]]]:
    """A recipe, text_len, and samples: sides of their images, in patches of one pixel, and the tokens of their texts."""
    recipe = pp.Recipe(
        resize=pp.resize.Native(30, oversize="reject"), patch_size=1, seq_len=draw(st.integers(30, 60)),
        max_images=draw(st.integers(1, 9)), rows_per_batch=draw(st.integers(1, 3)), packer=draw(st.sampled_from(PACKERS)),
    )  # fmt: skip
    text_len = draw(st.integers(1, 40))
    image = st.tuples(st.integers(1, 7), st.integers(1, 5))
    images = st.one_of(st.lists(image, min_size=1, max_size=1), st.lists(image, min_size=1, max_size=4))
    token = st.integers(-(2**31), 2**31 - 1)
    short = st.lists(token, min_size=1, max_size=3)
    samples = draw(st.lists(st.tuples(images, st.one_of(short, st.lists(token, max_size=text_len + 2))), max_size=40))
    return recipe, text_len, [sizes for sizes, _ in samples], [text for _, text in samples]


def headers_of(sizes: list[list[tuple[int, int]]], texts: list[list[int]]) -> list[Header]:
    made = []
    for i, (images, text) in enumerate(zip(sizes, texts, strict=True)):
        parts = [Header(f"s{i}", "", "", Size(*size), (i, part), part=part) for part, size in enumerate(images)]
        made.append(parts[0]._replace(rest=tuple(parts[1:]), text=np.array(text, np.int32).tobytes()))
    return made


def planned(recipe: pp.Recipe, text_len: int | None, headers: list[Header]) -> list[BatchPlan]:
    planner = OnlinePlanner(recipe, text_len=text_len, max_in_a_row=None)
    return [*planner.feed(headers), *planner.finish()]


def fetch_of(sizes: list[list[tuple[int, int]]], broken: set[int]) -> Any:
    def fetch(location: tuple[int, int]) -> tuple[Any, None]:
        i, part = location
        if i in broken and part == len(sizes[i]) - 1:
            raise DecodeError("broken")
        return np.full((*sizes[i][part], 3), 1, np.uint8), None

    return fetch


@given(streams(), st.sets(st.integers(0, 39)))
def test_batches_equal_their_twin_and_keep_every_limit(stream: Any, broken: set[int]) -> None:
    recipe, text_len, sizes, texts = stream
    text_of = {f"s{i}": text for i, text in enumerate(texts)}
    seen: list[str] = []
    refused: dict[str, str] = {}
    for plan in planned(recipe, text_len, headers_of(sizes, texts)):
        whole, batch = (paint(plan, recipe, fetch_of(sizes, bad)) for bad in (set(), broken))
        for one in (whole, batch):
            pp.validate(one)
            assert (one.segment_ids > 0).sum(1).max(initial=0) <= recipe.row_len(1)
            assert (pp.text.mask(one)).sum(1).max(initial=0) <= text_len
        token, segment = naive_texts(whole, text_of, text_len)
        assert np.array_equal(whole.text_ids, token)
        assert np.array_equal(whole.text_segment_ids, segment)
        # a text is wiped with its sample, and no other one moves
        gone = np.isin(segment - 1, [-1])
        for row, keys in enumerate(whole.keys):
            for slot, key in enumerate(keys):
                if int(key[1:]) in broken:
                    gone[row] |= segment[row] == slot + 1
        assert np.array_equal(batch.text_ids, np.where(gone, 0, token))
        assert np.array_equal(batch.text_segment_ids, np.where(gone, 0, segment))
        for image in pp.unpack(whole):
            assert image.text_ids.tolist() == text_of[image.key]
        for row, samples in zip(whole.keys, whole.sample_ids, strict=True):
            seen += [key for slot, key in enumerate(row) if slot == 0 or samples[slot] != samples[slot - 1]]
        refused |= {r.key: r.reason for r in whole.info.rejections}
    assert len(seen) == len(set(seen))
    assert set(seen) | set(refused) == set(text_of)
    for i, (images, text) in enumerate(zip(sizes, texts, strict=True)):
        tokens = [rows * cols for rows, cols in images]
        fits = max(tokens) <= 30 and sum(tokens) <= recipe.row_len(1) and len(images) <= recipe.max_images
        assert (f"s{i}" in seen) == (fits and 1 <= len(text) <= text_len)
        if fits and len(text) > text_len:
            assert f"its text has {len(text)} tokens, more than the text_len={text_len} of a row" in refused[f"s{i}"]


@given(streams())
def test_texts_are_in_nobodys_way_where_there_is_no_text_len(stream: Any) -> None:
    recipe, _, sizes, texts = stream
    with_texts, without = (planned(recipe, None, headers_of(sizes, t)) for t in (texts, [[] for _ in texts]))
    keys = [[header.key for plan in plans for header in plan.headers] for plans in (with_texts, without)]
    assert keys[0] == keys[1]
    assert all(paint(plan, recipe, fetch_of(sizes, set())).text_ids is None for plan in with_texts)


@given(st.integers(1, 50), st.integers(1, 50), st.data())
def test_what_is_within_the_capacity_is_within_both_limits_and_single_limits_are_exact(
    max_images: int, text_len: int, data: Any
) -> None:
    budget = Budget(max_images, text_len)
    pairs = st.tuples(st.integers(1, max_images), st.integers(1, text_len))
    row = data.draw(st.lists(pairs, max_size=60))
    left, taken = budget.capacity, []
    for images, text in row:
        charge = budget.charge(images, text)
        assert 1 <= charge <= budget.capacity
        if charge <= left:
            left -= charge
            taken.append((images, text))
    assert sum(images for images, _ in taken) <= max_images
    assert sum(text for _, text in taken) <= text_len
    # where one limit alone counts nothing is rounded away
    assert (budget.charge(max_images, 1), budget.charge(1, text_len)) == (budget.capacity,) * 2
    assert budget.capacity % max_images == budget.capacity % text_len == 0


@pytest.mark.parametrize(("share", "most"), [(1.1, 0.5), (1.5, 0.1)])
def test_captions_cost_little_fill(share: float, most: float) -> None:
    """Captions of 5 … 77 tokens, rows with so many times the text they hold on average: points of fill against no texts."""
    rng = np.random.default_rng(0)
    lengths = np.clip(np.rint(np.exp(rng.normal(4.0, 0.6, 20_000))), 4, 400).astype(int)
    texts = np.clip(np.rint(np.exp(rng.normal(2.9, 0.6, 20_000))), 5, 77).astype(int)
    plain = pack_stream(lengths, seq_len=1024, max_images=64, packer=pp.packing.Lookahead(64)).num_rows
    text_len = round(share * texts.sum() / plain)
    budget = Budget(64, text_len)
    slots = [budget.charge(1, int(n)) for n in texts]
    captioned = pack_stream(
        lengths, seq_len=1024, max_images=budget.capacity, slots=slots, packer=pp.packing.Lookahead(64)
    ).num_rows
    assert 100 * lengths.sum() / 1024 * (1 / plain - 1 / captioned) <= most
