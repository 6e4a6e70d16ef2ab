"""What is true of every stream that waits in a pool: nothing lost, both caps, no long wait, as the obvious search has it."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from helpers.profiles import examples, weight
from patchpack import testing
from patchpack.plan.packing import Item, Lookahead, Packer, Prices, Row, learn_prices, pack_stream

NEAR, MOST_SLOTS, MOST_STEPS = 6, 8, 32  # where the completion begins, and what it may take when slots count


# -------------------------------------------------------------------------------------------------------------- the twin


def subsets(pool, among, room, cap):
    """Every choice that fits as (mask, tokens, slots, worth); bit k of a mask is ``among[k]``."""
    found = [(0, 0, 0, 0)]
    for k, i in enumerate(among):
        tokens, slots, worth = pool[i]
        found += [(m | 1 << k, t + tokens, s + slots, w + worth) for m, t, s, w in found]
    return [each for each in found if each[1] <= room and each[2] <= cap]


def slack(tokens, max_cut):
    return min(tokens - 1, math.floor(max_cut * tokens))


def twin_fullest(pool, seq_len, cap, max_cut):
    """Oldest first until 6 mean lengths or slots are left, then the fullest completion; of equals that of older items.

    A completion that is over, by what may be cut off an item before it, comes before one that is short by more. Of items with
    more than two slots on average 6 mean ones are left, and those are counted in 32 steps.
    """
    room, left, chosen = seq_len, cap, []
    mean = sum(tokens for tokens, _, _ in pool) / len(pool)
    all_slots = sum(slots for _, slots, _ in pool)
    wide_slots = all_slots > 2 * len(pool)
    near_slots = NEAR * all_slots / len(pool) if wide_slots else NEAR
    for i, (tokens, slots, _) in enumerate(pool):
        if chosen and (room <= NEAR * mean or left <= near_slots):
            break
        if tokens <= room and slots <= left:
            chosen.append(i)
            room, left = room - tokens, left - slots
    over = max(slack(pool[i][0], max_cut) for i in chosen)
    among = [i for i, (tokens, slots, _) in enumerate(pool) if i not in chosen and tokens <= room + over and slots <= left]
    short_of_slots = sum(slots for _, slots, _ in pool) * seq_len > sum(tokens for tokens, _, _ in pool) * cap
    every = subsets(pool, among, room + over, 1 << 40)
    best = max((c for c in every if c[1] <= room), key=lambda c: (c[1], -c[0]))
    if best[1] < room:
        wide = (c for c in every if room < c[1] < 2 * room - best[1])
        best = min(wide, key=lambda c: (c[1], c[0]), default=best)
    if short_of_slots or best[2] > left:
        step = max(1, math.ceil(left / MOST_STEPS)) if wide_slots else 1
        most = min(left // step, MOST_STEPS if wide_slots else MOST_SLOTS)
        every = subsets([(t, math.ceil(n / step), w) for t, n, w in pool], among, room + over, most)
        choices = [c for c in every if c[1] <= room]
        done = [c for c in choices if c[1] == room and (c[2] == most or not short_of_slots)]
        if done:  # looks no further than the oldest items that make a full row
            end = min(c[0].bit_length() for c in done)
            choices = [c for c in choices if c[0].bit_length() <= end]
        rank = (lambda c: (c[2], c[1], -c[0])) if short_of_slots else (lambda c: (c[1], c[2], -c[0]))
        best = max(choices, key=rank)
        if best[1] < room:
            wide = [c for c in every if room < c[1] < 2 * room - best[1] and (not short_of_slots or c[2] == best[2])]
            best = min(wide, key=lambda c: (c[1], -c[2], c[0]), default=best)
    return chosen + [i for k, i in enumerate(among) if best[0] >> k & 1]


def twin_max_value_row(pool, seq_len, cap, due, units, max_cut):
    """The row of most value, of what waits most; then whatever fits, and what fits when cut. None if it has too many slots."""
    chosen = [0] if due else []
    rest = [i for i in range(len(pool)) if i not in chosen]
    prices = [pool[i][2] for i in rest]
    order = sorted(rest, key=lambda i: (-prices.count(pool[i][2]), -pool[i][2], i))
    choices = subsets(pool, order, seq_len - sum(pool[i][0] for i in chosen), 1 << 40)
    worth = max(min(units, c[3]) for c in choices)
    mask = min(c[0] for c in choices if c[3] >= worth)
    chosen += [i for k, i in enumerate(order) if mask >> k & 1]
    for i in order:
        tokens, slots = (sum(pool[j][line] for j in chosen) + pool[i][line] for line in (0, 1))
        if i not in chosen and tokens <= seq_len and slots <= cap:
            chosen.append(i)
    tokens, slots = (sum(pool[i][line] for i in chosen) for line in (0, 1))
    more = [
        (pool[i][0], i)
        for i in rest
        if i not in chosen
        and slots + pool[i][1] <= cap
        and 0 <= tokens + pool[i][0] - seq_len < seq_len - tokens
        and tokens + pool[i][0] - seq_len <= slack(max(pool[j][0] for j in [*chosen, i]), max_cut)
    ]
    if tokens < seq_len and more:
        chosen.append(min(more)[1])
    return chosen if slots <= cap else None


def twin(seq_len, cap, items, options):
    """Rows in the order they close: at the push that fills the pool, or makes the oldest item as old as allowed."""
    table = options.table(seq_len).tolist()
    most_waiting, longest = options.limits(cap)
    waiting, rows = [], []

    def close(due):
        pool = [(*items[i], table[items[i][0]]) for i in waiting]
        cut = options.max_cut
        chosen = twin_max_value_row(pool, seq_len, cap, due, options.prices.units, cut) if options.prices else None
        if chosen is None:
            chosen = twin_fullest(pool, seq_len, cap, cut)
        over = max(0, sum(pool[k][0] for k in chosen) - seq_len)
        cut_one = max(chosen, key=lambda k: (pool[k][0], -k))
        rows.append([(waiting[k], pool[k][0] - (over if k == cut_one else 0)) for k in sorted(chosen)])
        waiting[:] = [i for i in waiting if i not in [item for item, _ in rows[-1]]]

    for i in range(len(items)):
        waiting.append(i)
        due = i - waiting[0] >= longest
        if due or len(waiting) == most_waiting:
            close(due)
    while waiting:
        close(True)
    return rows


# -------------------------------------------------------------------------------------------------------- what is drawn


@st.composite
def problems(draw, most_waiting=9, priced=None):
    """seq_len, max_images, [(tokens, slots)], options."""
    seq_len = draw(st.one_of(st.integers(1, 40), st.integers(60, 400)))
    cap = draw(st.one_of(st.integers(1, 6), st.integers(7, 40), st.integers(41, 500)))
    longest = draw(st.sampled_from([1, 3, 8]).map(lambda part: max(1, seq_len // part)))
    kinds = draw(st.lists(st.integers(1, longest), min_size=1, max_size=6))
    tokens = st.one_of(st.sampled_from(kinds), st.integers(1, longest))
    slots = draw(st.sampled_from([st.one_of(st.just(1), st.integers(1, cap)), st.integers(1, max(1, cap // 4))]))
    items = draw(st.lists(st.tuples(tokens, slots), max_size=40))
    options = Lookahead(
        draw(st.integers(1, most_waiting)),
        draw(st.one_of(st.none(), st.integers(0, 30))),
        draw(prices(seq_len)) if (draw(st.booleans()) if priced is None else priced) else None,
        draw(st.sampled_from([0.0, 0.0, 0.1, 0.34, 0.9])),
    )
    return seq_len, cap, items, options


@st.composite
def prices(draw, seq_len):
    """Any prices, sensible or not."""
    units = draw(st.integers(1, 20))
    most = min(units, seq_len, 5)
    lengths = draw(st.lists(st.integers(1, seq_len), min_size=0, max_size=most, unique=True))
    worths = draw(st.lists(st.integers(1, units), min_size=len(lengths), max_size=len(lengths), unique=True))
    return Prices(seq_len, units, tuple(zip(sorted(lengths), sorted(worths), strict=True)))


def streamed(seq_len, cap, items, options) -> list[list[tuple[int, int]]]:
    """Rows of (item, tokens left of it)."""
    lengths, slots = [tokens for tokens, _ in items], [slots for _, slots in items]
    packing = pack_stream(lengths, seq_len=seq_len, max_images=cap, slots=slots, packer=options)
    assert (packing.cuts is None) == (options.max_cut == 0)
    cuts = [0] * len(items) if packing.cuts is None else packing.cuts.tolist()
    return [[(i, lengths[i] - cuts[i]) for i in packing.row(r).tolist()] for r in range(packing.num_rows)]


def ids(rows: list[Row]) -> list[list[tuple[int, int]]]:
    return [[(item.id, item.num_tokens) for item in row.items] for row in rows]


def pushed(packer: Packer, items, start=0) -> list[list[list[tuple[int, int]]]]:
    """Rows closed by each push."""
    return [ids(packer.push(Item(start + i, *item))) for i, item in enumerate(items)]


# ------------------------------------------------------------------------------------------------------------ properties


@pytest.mark.parametrize("priced", [False, True])
@weight(12)
@given(st.data())
def test_rows_equal_their_twin(priced, data) -> None:
    problem = data.draw(problems(priced=priced))
    assert streamed(*problem) == twin(*problem)


@weight(4)
@given(problems())
@example((64, 9, [(1, 1)] * 20, Lookahead(9)))
@example((128, 40, [(64, 1), (63, 1), (65, 1), (1, 1), (128, 1), (127, 1)], Lookahead(6)))
@example((20, 8, [(1, 1)] * 12, Lookahead(12)))
def test_rows_equal_their_twin_in_named_streams(problem) -> None:
    assert streamed(*problem) == twin(*problem)


@weight(4)
@given(problems(most_waiting=30))
def test_a_list_packs_as_it_does_item_by_item(problem) -> None:
    seq_len, cap, items, options = problem
    packer = options(seq_len, cap)
    rows = [row for closed in pushed(packer, items) for row in closed]
    assert streamed(*problem) == rows + ids(packer.flush())


@weight(4)
@given(problems(most_waiting=30))
def test_every_item_is_packed_once_within_both_caps_in_order(problem) -> None:
    seq_len, cap, items, _ = problem
    rows = streamed(*problem)
    assert sorted(i for row in rows for i, _ in row) == list(range(len(items)))
    for row in rows:
        assert row == sorted(row) != []
        assert sum(tokens for _, tokens in row) <= seq_len
        assert sum(items[i][1] for i, _ in row) <= cap


@weight(4)
@given(problems(most_waiting=30))
def test_one_item_is_cut_where_that_makes_the_row_full(problem) -> None:
    seq_len, _, items, options = problem
    for row in streamed(*problem):
        cuts = {i: items[i][0] - tokens for i, tokens in row if tokens != items[i][0]}
        if cuts:
            ((i, cut),) = cuts.items()
            assert sum(tokens for _, tokens in row) == seq_len
            assert 0 < cut <= slack(items[i][0], options.max_cut)
            assert items[i][0] == max(items[j][0] for j, _ in row)


@given(problems(most_waiting=30, priced=False))
def test_the_oldest_item_is_in_the_next_row(problem) -> None:
    rows = streamed(*problem)
    for r, row in enumerate(rows):
        assert row[0][0] == min(i for later in rows[r:] for i, _ in later)


@weight(4)
@given(problems(most_waiting=30))
def test_no_item_waits_longer_than_stated(problem) -> None:
    seq_len, cap, items, options = problem
    packer, (waiting, longest) = options(seq_len, cap), options.limits(cap)
    for now, closed in enumerate(pushed(packer, items)):
        assert len(closed) <= 1
        assert all(now - i <= longest for row in closed for i, _ in row)
        ages = [age for *_, age in packer.state_dict()["waiting"]]
        assert all(age < max(longest, 1) for age in ages)
        assert len(ages) < waiting


@weight(4)
@given(problems(most_waiting=30), st.integers(0, 40))
def test_a_saved_packer_goes_on_the_same(problem, cut) -> None:
    seq_len, cap, items, options = problem
    packer, other = options(seq_len, cap), options(seq_len, cap)
    pushed(other, items[-3:], start=1000)
    pushed(packer, items[:cut])
    other.load_state_dict(json.loads(json.dumps(packer.state_dict())))
    assert other.state_dict() == packer.state_dict()
    assert pushed(other, items[cut:], start=cut) == pushed(packer, items[cut:], start=cut)
    assert other.state_dict() == packer.state_dict()
    assert other.flush() == packer.flush()


OPTIONS = [
    Lookahead(), Lookahead(1), Lookahead(5), Lookahead(20, 0), Lookahead(20, 7), Lookahead(300, 10**6),
    Lookahead(20, max_cut=0.1), Lookahead(5, 9, max_cut=0.9),
]  # fmt: skip


@pytest.mark.parametrize("factory", OPTIONS, ids=repr)
@pytest.mark.parametrize(("seq_len", "max_images"), [(64, 7), (64, 1), (1, 1), (300, 64)])
def test_packers_keep_the_protocol(factory, seq_len, max_images) -> None:
    testing.check_packer(factory, seq_len=seq_len, max_images=max_images, examples=examples(1 / 2))


@pytest.mark.parametrize("steps", [(), ((1, 3),), ((16, 1), (21, 2), (33, 4)), ((64, 1),)])
def test_priced_packers_keep_the_protocol(steps) -> None:
    for max_cut in (0.0, 0.2):
        factory = Lookahead(12, 30, Prices(64, 4, steps), max_cut)
        testing.check_packer(factory, seq_len=64, max_images=7, examples=examples(1 / 2))


# ---------------------------------------------------------------------------------------------------------------- prices


@given(st.integers(2, 60).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(max(1, n // 6), n), min_size=1))))
def test_no_row_is_worth_more_than_its_units(sample) -> None:
    """Checked over all rows at once: the row of most value by a knapsack over single units."""
    seq_len, lengths = sample
    learnt = learn_prices(lengths, seq_len=seq_len)
    if learnt is None:
        return
    table = learnt.table().tolist()
    best = [0] * (seq_len + 1)
    for room in range(1, seq_len + 1):
        best[room] = max(best[room - n] + table[n] for n in range(1, room + 1))
    assert best[seq_len] <= learnt.units <= 128
    assert table == sorted(table)


@given(st.integers(2, 60).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(max(1, n // 6), n), min_size=1))))
def test_learnt_prices_bound_the_fill(sample) -> None:
    """No row is worth more than its units, so ``sum(worth) / units`` rows are needed; and more than the tokens need."""
    seq_len, lengths = sample
    learnt = learn_prices(lengths, seq_len=seq_len)
    if learnt is not None:
        needed = learnt.table()[lengths].sum() / learnt.units
        assert sum(lengths) / seq_len <= 0.995 * needed + 1e-9
        assert pack_stream(lengths, seq_len=seq_len, packer=Lookahead(64, None, learnt)).num_rows >= needed - 1e-9
