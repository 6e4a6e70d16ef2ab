"""Every shipped policy keeps its protocol and its bound; and the public checks catch policies that do not."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, assume, example, given, settings, target
from hypothesis import strategies as st

from helpers import naive
from helpers.profiles import examples, weight
from patchpack import testing
from patchpack.plan import packing
from patchpack.plan.packing import Item, Row
from patchpack.plan.policies import drop
from patchpack.plan.policies.resize import LongestSide, NaFlex, Native, NaViT, Pix2Struct, SmartResize, Square
from patchpack.testing import checks


@pytest.fixture
def unshrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first example that fails is enough here, and finding the smallest takes most of the time."""
    settings_of = checks._settings
    phases = [Phase.explicit, Phase.generate]
    monkeypatch.setattr(checks, "_settings", lambda examples: settings(settings_of(examples), phases=phases))


RESIZE = [
    (Pix2Struct(1), 16), (Pix2Struct(2), 16), (Pix2Struct(300), 14), (Pix2Struct(2048, exact=True), 16),
    (NaFlex(1), 16), (NaFlex(7), 32), (NaFlex(256, search="bisection"), 16), (NaFlex(1024, upscale=False), 8),
    (SmartResize(1, 1), 14), (SmartResize(1, 1 << 39, merge=1), 16), (SmartResize(3136, 1_003_520), 14),
    (SmartResize(10_000, 12_100, merge=3), 7), (SmartResize(1 << 24, 1 << 24), 16),
    (SmartResize(1, 2000, merge=1, min_side=28), 28),
    (SmartResize(384**2, 1536**2, min_side=28), 14), (SmartResize(400, 400, merge=1, min_side=500), 3),
    (NaViT(64), 16), (NaViT((64, 256)), 16), (NaViT((1, 40), sampling="normal"), 16), (NaViT((64, 384), on="area"), 14),
    (NaViT((32_000, 32_768), sampling="normal", mean=0.5, on="area"), 30),
    (LongestSide(1), 16), (LongestSide(1024), 16), (LongestSide(100, upscale=True), 14),
    (Square(240), 15), (Square(16), 16),
    (Native(1), 16), (Native(256), 16), (Native(256, edge="pad"), 14), (Native(64, oversize="reject"), 32),
    (Native(64, edge="pad", oversize="reject"), 8),
]  # fmt: skip

DROP = [
    drop.NoDrop(), drop.Constant(0.0), drop.Constant(0.5), drop.Constant(0.999), drop.Beta(), drop.Beta(0.05, 1.0),
    drop.Beta(0.89, 0.9), drop.ByResolution(0.4, 0.6, 16, 576), drop.ByResolution(0.95, 0.1, 1, 2, std=0.3),
    drop.Scheduled(3000, 700), drop.Scheduled(3000, -700, 0.0, 0.99), drop.Scheduled(0, 1e-9),
]  # fmt: skip


@pytest.mark.parametrize(("policy", "patch_size"), RESIZE, ids=lambda value: repr(value))
def test_resize_policies_keep_the_protocol(policy, patch_size) -> None:
    testing.check_resize_policy(policy, patch_size=patch_size, examples=examples())


@pytest.mark.parametrize("policy", DROP, ids=repr)
def test_drop_policies_keep_the_protocol(policy) -> None:
    testing.check_drop_policy(policy, examples=examples())


@given(testing.drop_policies(), st.data())
def test_any_drop_policy_keeps_one_to_all(policy, data) -> None:
    table = np.array(data.draw(st.lists(testing.grids(), min_size=1, max_size=5)))
    u = data.draw(testing.uniform_tables(len(table), policy.draws))
    kept = policy(table, u, np.arange(len(table)))
    assert np.all((kept >= 1) & (kept <= table.prod(axis=1)))


# --------------------------------------------------------------------------------------------------------------- bound


def count(policy: Any, size: tuple[int, int], patch_size: int, u: float = 0.0) -> int:
    return int(policy(np.array([size]), patch_size, np.array([[u]]))[0].prod(dtype=np.int64))


@weight(4)
@given(
    policy=testing.resize_policies(patch_size=8),
    size=testing.sizes(),
    u=st.sampled_from([0.0, 0.5, 1 - 2.0**-53]),
)
def test_no_policy_exceeds_its_bound(policy, size, u) -> None:
    share = count(policy, size, 8, u) / policy.bound(8)
    target(share)
    assert share <= 1


ASPECTS = [1.0, 1.3, 1.99, 2.0, 3.0, 10.0, 33.0, 100.0, 199.0, 199.9, 200.0]


@weight(4)
@given(
    low=st.integers(1, 1 << 20),
    more=st.one_of(st.just(0), st.integers(0, 1 << 21)),
    f=st.sampled_from([1, 2, 7, 14, 16]),
    merge=st.integers(1, 3),
    min_side=st.sampled_from([None, 1, 28, 100]),
    short=st.integers(1, 400),
    aspect=st.one_of(st.sampled_from(ASPECTS), st.floats(1, 200)),
)
@example(low=1, more=0, f=1, merge=1, min_side=None, short=1, aspect=200.0)
@example(low=3136, more=1_000_384, f=14, merge=2, min_side=None, short=14, aspect=200.0)
def test_smart_resize_stays_within_its_bound_where_it_is_thin(low, more, f, merge, min_side, short, aspect) -> None:
    policy = SmartResize(low, low + more, merge=merge, min_side=min_side)
    area = min(200.0, max(1.0, low / (f * merge) ** 2))  # near this aspect one side is just over one block, or just under
    sides = [math.floor(short * a) - less for a in (aspect, area) for less in (0, 1)]
    sizes = np.array([(short, max(1, side)) for side in sides])
    sizes = np.concatenate([sizes, sizes[:, ::-1]])
    made = policy(sizes, f, None).prod(axis=1, dtype=np.int64).max()
    bound = policy.bound(f)
    target(made / bound)
    assert made <= bound


def most(policy: Any, patch_size: int, sides: list[int], others: list[int]) -> int:
    sizes = np.array([(h, w) for h in sides for w in others])
    u = np.full((len(sizes), 1), 1 - 2.0**-53)
    return int(policy(sizes, patch_size, u).prod(axis=1, dtype=np.int64).max())


SIDES = list(range(1, 400))
REACHED = [
    (Pix2Struct(64), 16), (Pix2Struct(37), 16), (NaFlex(64), 16), (NaFlex(37), 16), (NaFlex(36, upscale=False), 16),
    (NaViT(128), 16), (NaViT((16, 100)), 16), (LongestSide(200), 16), (LongestSide(64, upscale=True), 16), (Square(64), 16),
    (Native(64), 16), (Native(64, edge="pad"), 16), (Native(64, oversize="reject"), 16),
    (SmartResize(1, 64 * 32**2), 16), (SmartResize(1, 300 * 32**2), 16), (SmartResize(40 * 196, 41 * 196, merge=1), 14),
]  # fmt: skip


THIN = {
    "a side clamped to one block": (SmartResize(1, 190 * 16**2, merge=1), 16, (16, 3200), 194),
    "a minimum of whole blocks, both sides rounded up": (SmartResize(100 * 28**2, 101 * 28**2, merge=1), 28, (19, 1900), 202),
    "one line of a minimum": (SmartResize(40 * 14**2, 41 * 14**2, merge=1), 14, (3, 600), 90),
    "blocks of four": (SmartResize(100 * 28**2, 101 * 28**2), 14, (1900, 19), 808),
    "one block": (SmartResize(1, 1), 16, (500, 500), 4),
}


@pytest.mark.parametrize(("policy", "patch_size", "size", "bound"), THIN.values(), ids=THIN)
def test_the_bound_of_a_smart_resize_is_reached_by_thin_images(policy, patch_size, size, bound) -> None:
    assert count(policy, size, patch_size) == policy.bound(patch_size) == bound


@pytest.mark.parametrize(("policy", "patch_size"), REACHED, ids=lambda value: repr(value))
def test_bounds_are_reached(policy, patch_size) -> None:
    wide = [*range(1, 13), 16, 24, 31, 32, 45, 64]
    assert policy.bound(patch_size) in (
        most(policy, patch_size, SIDES[::3], SIDES[::3]),
        most(policy, patch_size, wide, [side * 200 for side in wide] + [side * 180 for side in wide]),
    )


# ---------------------------------------------------------------------------------------------------- fast equals slow


@given(size=testing.sizes(5000), p=st.integers(1, 64), budget=st.integers(1, 150), upscale=st.booleans())
@example(size=(1, 1), p=100, budget=9, upscale=True)  # s* is exactly 100
@example(size=(1, 1), p=101, budget=9, upscale=True)
@example(size=(48, 30), p=32, budget=150, upscale=True)
def test_naflex_is_the_exhaustive_optimum(size, p, budget, upscale) -> None:
    policy = NaFlex(budget, upscale=upscale)
    assert tuple(policy(np.array([size]), p, None)[0]) == naive.naflex(*size, p, budget, upscale=upscale)


@given(size=testing.sizes(5000), p=st.integers(1, 64), budget=st.integers(1, 5000), upscale=st.booleans())
@example(size=(4205, 3037), p=16, budget=256, upscale=True)  # ends a column below the optimum
@example(size=(1, 1), p=16, budget=4096, upscale=True)  # ends at a scale of 100
def test_naflex_by_bisection_equals_its_twin(size, p, budget, upscale) -> None:
    found = tuple(NaFlex(budget, upscale=upscale, search="bisection")(np.array([size]), p, None)[0])
    assert found == naive.naflex_by_bisection(*size, p, budget, upscale=upscale)
    rows, cols = (int(n) for n in NaFlex(budget, upscale=upscale)(np.array([size]), p, None)[0])
    assert found[0] in (rows - 1, rows)  # never more than the exact one
    assert found[1] in (cols - 1, cols)


@given(size=testing.sizes(), p=st.integers(1, 64), budget=st.integers(1, 1 << 24))
def test_pix2struct_exact_equals_its_twin(size, p, budget) -> None:
    assert tuple(Pix2Struct(budget, exact=True)(np.array([size]), p, None)[0]) == naive.pix2struct(*size, budget)


@given(size=testing.sizes(), p=st.integers(1, 64), resolution=st.integers(1, 1 << 15))
@example(size=(10, 1000), p=16, resolution=64)
@example(size=(1, 20_000), p=16, resolution=17)
def test_navit_equals_its_twin(size, p, resolution) -> None:
    assert tuple(NaViT(resolution)(np.array([size]), p, None)[0]) == naive.navit(*size, p, resolution**2)


@given(
    size=testing.sizes(5000),
    p=st.integers(1, 32),
    merge=st.integers(1, 3),
    low=st.integers(1, 1 << 22),
    more=st.integers(0, 1 << 22),
    min_side=st.sampled_from([None, 1, 28, 200]),
)
@example(size=(70, 98), p=14, merge=2, low=1, more=1 << 22, min_side=None)
@example(size=(14, 2800), p=14, merge=2, low=3136, more=1 << 20, min_side=None)
def test_smart_resize_equals_its_twin(size, p, merge, low, more, min_side) -> None:
    policy = SmartResize(low, low + more, merge=merge, min_side=min_side)
    sides = policy(np.array([size]), p, None)[0] * p
    assert tuple(sides) == naive.smart_resize(*size, p * merge, low, low + more, min_side=min_side)


@given(size=testing.sizes(), p=st.integers(1, 64), longest=st.integers(1, 5000), upscale=st.booleans())
def test_longest_side_equals_its_twin(size, p, longest, upscale) -> None:
    policy = LongestSide(longest, upscale=upscale)
    assert tuple(policy(np.array([size]), p, None)[0]) == naive.longest_side(*size, p, longest, upscale=upscale)


# ------------------------------------------------------------------------------------------- what a budget is good for


@given(size=testing.sizes(), p=st.integers(1, 64), budget=st.integers(1, 5000))
@example(size=(1, 1), p=16, budget=3)  # 1 of 3: an odd budget leaves half rounded down
def test_pix2struct_exact_uses_half_its_budget(size, p, budget) -> None:
    assert count(Pix2Struct(budget, exact=True), size, p) >= budget // 2


@given(size=testing.sizes(), p=st.integers(1, 64), budget=st.integers(1, 5000))
@example(size=(224, 224), p=16, budget=25)
def test_pix2struct_float64_differs_only_where_a_root_is_whole(size, p, budget) -> None:
    for axis in (0, 1):
        floating, exact = (int(Pix2Struct(budget, exact=e)(np.array([size]), p, None)[0, axis]) for e in (False, True))
        along, across = size[axis], size[1 - axis]
        whole = exact**2 * across == budget * along
        assert floating in ((exact, exact - 1) if whole else (exact,))


@given(size=testing.sizes(4000), p=st.integers(1, 64), budget=st.integers(1, 500))
def test_naflex_cannot_be_scaled_up(size, p, budget) -> None:
    h, w = size
    rows, cols = (int(n) for n in NaFlex(budget)(np.array([size]), p, None)[0])
    assume(rows < math.ceil(100 * h / p) and cols < math.ceil(100 * w / p))
    # just above the scale at which one of both sides is whole, that side has one patch more
    by_rows, by_cols = (rows + 1) * -(-(rows * w + 1) // h), -(-(cols * h + 1) // w) * (cols + 1)
    assert budget < (by_rows if rows * w <= cols * h else by_cols)


@given(table=testing.size_tables(), budget=st.integers(1, 300), oversize=st.sampled_from(["shrink", "reject"]))
def test_native_pads_fewer_pixels_than_a_patch(table, budget, oversize) -> None:
    policy = Native(budget, edge="pad", oversize=oversize)
    answer = policy(table, 16, None)
    _, extent = policy.place(table, answer, 16)
    kept = answer[:, 0] > 0
    lost = (answer * 16 - extent)[kept]
    assert np.all((lost >= 0) & (lost < 16))


# -------------------------------------------------------------------------------------------- wrong policies are caught


@dataclass(frozen=True)
class RoundedSide:
    """A plausible policy with one fault at a time."""

    fault: str = "none"
    calls: list[int] = field(default_factory=list)
    draws = 0

    def bound(self, patch_size: int) -> int | None:
        return None if self.fault == "unbounded" else 25

    def __call__(self, sizes: Any, patch_size: int, u: Any = None) -> Any:
        longer = sizes.max(axis=1, keepdims=True)
        if self.fault == "neighbours":
            longer = np.broadcast_to(sizes.max(), longer.shape)
        grids = np.maximum(1, np.rint(sizes * 5 / longer)).astype(np.int32)
        if self.fault == "overshoots":
            grids[sizes.min(axis=1) > 1000] = 6
        if self.fault == "floats":
            return grids.astype(np.float64)
        if self.fault == "flat":
            return grids.ravel()
        if self.fault == "half refused":
            grids[sizes[:, 0] < 10, 0] = 0
        if self.fault == "negative":
            grids[sizes[:, 0] < 10] = -1
        if self.fault == "forgetful":
            self.calls.append(len(sizes))
            grids[0, 0] = 1 + len(self.calls) % 2
        if self.fault == "writes":
            sizes[:, 0] = 1
        return grids


@pytest.mark.parametrize("fault", ["none", "unbounded"])
def test_a_sound_policy_passes(fault) -> None:
    testing.check_resize_policy(RoundedSide(fault), examples=examples())


WRONG_RESIZE = {
    "overshoots": r"makes \d+ patches of \[\d+, \d+\], more than its bound of 25",
    "neighbours": r"row \d+ depends on other rows",
    "floats": "must return integers",
    "flat": "must return integers",
    "half refused": "neither at least 1 x 1 nor 0 x 0",
    "negative": "neither at least 1 x 1 nor 0 x 0",
    "forgetful": "returns something else in a second call|depends on other rows",
    "writes": "changes the sizes it is given",
}


@pytest.mark.usefixtures("unshrunk")
@pytest.mark.parametrize(("fault", "message"), WRONG_RESIZE.items(), ids=WRONG_RESIZE)
def test_a_wrong_resize_policy_is_caught(fault, message) -> None:
    with pytest.raises(AssertionError, match=message):
        testing.check_resize_policy(RoundedSide(fault))


@dataclass(frozen=True)
class MisplacingSquare(Square):
    """A square with a box that leaves the image, or a resized size that exceeds the grid."""

    wrong: str = "box"

    def place(self, sizes: Any, grids: Any, patch_size: int) -> tuple[Any, Any]:
        box = np.concatenate([np.zeros_like(sizes), sizes + (self.wrong == "box")], axis=1)
        return box, grids * patch_size + (self.wrong == "resized")


@pytest.mark.usefixtures("unshrunk")
@pytest.mark.parametrize(
    ("wrong", "message"), [("box", "makes a box outside the image"), ("resized", "resizes an image to more than its grid")]
)
def test_a_wrong_place_is_caught(wrong, message) -> None:
    with pytest.raises(AssertionError, match=message):
        testing.check_resize_policy(MisplacingSquare(32, wrong))


@dataclass(frozen=True)
class HalfDrop:
    """Keeps half of the patches, with one fault at a time."""

    fault: str = "none"
    draws = 0

    def __call__(self, grids: Any, u: Any, seen: Any) -> Any:
        kept = np.maximum(1, grids.prod(axis=1) // 2)
        if self.fault == "everything":
            return grids.prod(axis=1) // 2
        if self.fault == "more":
            return kept + 1
        if self.fault == "neighbours":
            return np.minimum(kept, kept[0])
        if self.fault == "position":
            return np.maximum(1, kept - np.arange(len(kept)))
        if self.fault == "floats":
            return kept.astype(np.float64)
        return kept


def test_a_sound_drop_policy_passes() -> None:
    testing.check_drop_policy(HalfDrop(), examples=examples())


WRONG_DROP = {
    "everything": r"keeps \[0",
    "more": r"keeps \[2.*\] of \[1",
    "neighbours": r"row \d+ depends on other rows",
    "position": r"row \d+ depends on other rows",
    "floats": "must return integers",
}


@pytest.mark.usefixtures("unshrunk")
@pytest.mark.parametrize(("fault", "message"), WRONG_DROP.items(), ids=WRONG_DROP)
def test_a_wrong_drop_policy_is_caught(fault, message) -> None:
    with pytest.raises(AssertionError, match=message):
        testing.check_drop_policy(HalfDrop(fault))


class WrongPacker(packing.GreedyPacker):
    """First-fit with four open rows, and one fault."""

    def __init__(self, seq_len: int, max_images: int, fault: str) -> None:
        room = seq_len + 1 if fault == "overfills" else seq_len
        slots = 1000 if fault == "ignores max_images" else max_images
        super().__init__(room, slots, open_rows=4, best=False)
        self.fault = fault

    def push(self, item: Item) -> list[Row]:
        return [self.spoil(row) for row in super().push(item)]

    def flush(self) -> list[Row]:
        rows = [self.spoil(row) for row in super().flush()]
        return rows[1:] if self.fault == "loses a row" else [Row(()), *rows] if self.fault == "empty row" else rows

    def spoil(self, row: Row) -> Row:
        if len(row.items) < 3:
            return row
        if self.fault == "loses":
            return Row(row.items[:-1])
        if self.fault == "doubles":
            return Row((row.items[0], *row.items[:-1], row.items[-1])) if row.num_tokens < 40 else row
        if self.fault == "shortens":
            return Row((*row.items[:-1], row.items[-1]._replace(num_tokens=1)))
        return row

    def load_state_dict(self, state: dict[str, Any]) -> None:
        rows = state["rows"]
        super().load_state_dict({"rows": rows[1:] if self.fault == "forgets" else rows})


@dataclass(frozen=True)
class Wrong:
    fault: str

    def __call__(self, seq_len: int, max_images: int) -> WrongPacker:
        return WrongPacker(seq_len, max_images, self.fault)


def test_a_sound_packer_passes() -> None:
    testing.check_packer(Wrong("none"), examples=examples())


WRONG_PACKER = {
    "loses": r"loses items: \[Item\(",
    "loses a row": r"loses items: \[Item\(",
    "doubles": "repeats items or returns unknown ones",
    "shortens": r"makes Item\(.*\) of Item\(.*\); it must keep at least \d+ tokens",
    "overfills": r"returns a row of \d+ tokens",
    "ignores max_images": r"returns a row of \d+ tokens and \d+ slots",
    "empty row": "returns a row of 0 tokens and 0 slots",
    "forgets": "returns other rows after load_state_dict",
}


@pytest.mark.usefixtures("unshrunk")
@pytest.mark.parametrize(("fault", "message"), WRONG_PACKER.items(), ids=WRONG_PACKER)
def test_a_wrong_packer_is_caught(fault, message) -> None:
    with pytest.raises(AssertionError, match=message):
        testing.check_packer(Wrong(fault))
