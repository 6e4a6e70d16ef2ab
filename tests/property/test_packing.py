"""What is true of every list of lengths: nothing lost, nothing over-filled, and the same as the obvious loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from helpers import naive
from helpers.profiles import examples, weight
from patchpack import testing
from patchpack.plan.packing import BestFit, FirstFit, Item, NextFit, Row, pack_lengths

METHODS = {"first_fit": naive.first_fit, "best_fit": naive.best_fit, "next_fit": naive.next_fit}
CAPS = st.one_of(st.none(), st.integers(1, 12))

methods = pytest.mark.parametrize("method", METHODS)
packable = st.integers(1, 80).flatmap(lambda seq_len: st.tuples(st.just(seq_len), testing.lengths(seq_len)))


def packed(seq_len, lengths, cap, method) -> list[list[int]]:
    packing = pack_lengths(lengths, seq_len=seq_len, max_images=cap, method=method)
    return [packing.row(r).tolist() for r in range(packing.num_rows)]


def streamed(factory, seq_len, lengths, cap) -> list[list[int]]:
    packer = factory(seq_len, cap)
    rows: list[Row] = [row for i, n in enumerate(lengths) for row in packer.push(Item(i, n))] + packer.flush()
    return [[item.id for item in row.items] for row in rows]


@methods
@weight(4)
@given(packable, CAPS)
@example((10, [6, 6, 2, 2, 1]), None)
@example((10, []), None)
@example((10, [10]), 1)
def test_offline_methods_equal_their_twins(method, problem, cap) -> None:
    assert packed(*problem, cap, method) == METHODS[method](problem[1], problem[0], cap)


@methods
@given(packable, CAPS)
def test_every_index_is_packed_once(method, problem, cap) -> None:
    rows = packed(*problem, cap, method)
    assert sorted(i for row in rows for i in row) == list(range(len(problem[1])))


@methods
@given(packable, CAPS)
def test_no_row_exceeds_seq_len_or_max_images(method, problem, cap) -> None:
    seq_len, lengths = problem
    for row in packed(seq_len, lengths, cap, method):
        assert 0 < sum(lengths[i] for i in row) <= seq_len
        assert cap is None or len(row) <= cap


@methods
@given(packable, CAPS)
def test_rows_keep_the_order_of_arrival(method, problem, cap) -> None:
    rows = packed(*problem, cap, method)
    assert all(row == sorted(row) for row in rows)
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)


@given(packable, CAPS)
def test_no_earlier_row_had_room_under_first_fit(problem, cap) -> None:
    seq_len, lengths = problem
    rows = packed(seq_len, lengths, cap, "first_fit")
    for r, row in enumerate(rows):
        for i in row:
            for earlier in rows[:r]:
                then = [j for j in earlier if j < i]
                assert sum(lengths[j] for j in then) + lengths[i] > seq_len or len(then) == cap


@pytest.mark.parametrize("method", ["first_fit", "best_fit"])
@given(packable)
def test_at_most_one_row_ends_at_most_half_full(method, problem) -> None:
    seq_len, lengths = problem
    rows = packed(seq_len, lengths, None, method)
    assert sum(2 * sum(lengths[i] for i in row) <= seq_len for row in rows) <= 1


@methods
@given(packable)
def test_never_more_than_twice_the_tokens(method, problem) -> None:
    seq_len, lengths = problem
    rows = packed(seq_len, lengths, None, method)
    assert len(rows) <= 2 * sum(lengths) / seq_len + 1


@methods
@given(packable)
def test_a_cap_nobody_meets_changes_nothing(method, problem) -> None:
    assert packed(*problem, max(1, len(problem[1])), method) == packed(*problem, None, method)


def test_offline_methods_equal_their_twins_on_a_long_list() -> None:
    lengths = (np.random.default_rng(0).beta(1, 3, 1500) * 255 + 1).astype(np.int64).tolist()
    for method, twin in METHODS.items():
        for cap in (None, 4):
            assert packed(256, lengths, cap, method) == twin(lengths, 256, cap)


# -------------------------------------------------------------------------------------------------------------- online

ONLINE = [FirstFit(), FirstFit(1), FirstFit(3), FirstFit(1000), BestFit(), BestFit(1), BestFit(3), BestFit(1000), NextFit()]


@pytest.mark.parametrize("factory", ONLINE, ids=repr)
@pytest.mark.parametrize(("seq_len", "max_images"), [(64, 7), (64, 1), (1, 1), (300, 64)])
def test_packers_keep_the_protocol(factory, seq_len, max_images) -> None:
    testing.check_packer(factory, seq_len=seq_len, max_images=max_images, examples=examples(1 / 2))


@pytest.mark.parametrize("best", [False, True])
@given(packable, st.integers(1, 8), st.integers(1, 6))
def test_online_packers_equal_their_twin(best, problem, cap, open_rows) -> None:
    seq_len, lengths = problem
    factory = BestFit(open_rows) if best else FirstFit(open_rows)
    assert streamed(factory, seq_len, lengths, cap) == naive.online(lengths, seq_len, cap, open_rows=open_rows, best=best)


@given(packable, st.integers(1, 12))
def test_unbounded_first_fit_is_offline_first_fit(problem, cap) -> None:
    seq_len, lengths = problem
    online = streamed(FirstFit(1 << 30), seq_len, lengths, cap)
    assert sorted(online) == sorted(packed(seq_len, lengths, cap, "first_fit"))


@given(packable, st.integers(1, 12))
def test_next_fit_is_offline_next_fit(problem, cap) -> None:
    seq_len, lengths = problem
    assert streamed(NextFit(), seq_len, lengths, cap) == packed(seq_len, lengths, cap, "next_fit")


@given(packable, st.integers(1, 12), st.integers(1, 6))
def test_no_more_rows_are_open_than_stated(problem, cap, open_rows) -> None:
    seq_len, lengths = problem
    packer = FirstFit(open_rows)(seq_len, cap)
    for i, n in enumerate(lengths):
        packer.push(Item(i, n))
        assert len(packer.state_dict()["rows"]) <= open_rows
