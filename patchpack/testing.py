"""Our properties for your policies: strategies for sizes, grids, lengths and recipes, and checks built on them.

    from patchpack.testing import check_resize_policy
    check_resize_policy(MyPolicy())

Needs the ``testing`` extra (hypothesis). A check that fails raises `AssertionError` with the smallest example found.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchpack.paint import _arrays
from patchpack.paint.batch import attention_mask, pool_mask, ragged, token_mask
from patchpack.paint.unpack import unpack
from patchpack.paint.validate import validate
from patchpack.plan import drop, packing, positions, resize
from patchpack.plan.packing import Item, PackerFactory, Row, fewest_tokens
from patchpack.plan.recipe import Recipe
from patchpack.types import PackedBatch

# ---------------------------------------------------------------------------------------------------------- strategies


def sizes(max_side: int = 20_000) -> st.SearchStrategy[tuple[int, int]]:
    """(height, width) in pixels: ordinary photographs, single pixels, thin strips."""
    side = st.one_of(st.integers(1, 40), st.integers(1, 2000), st.integers(1, max_side))
    return st.tuples(side, side)


def size_tables(max_images: int = 12, max_side: int = 20_000) -> st.SearchStrategy[npt.NDArray[np.int64]]:
    """int64 ``[n, 2]`` tables of sizes, n >= 1."""
    tables = st.lists(sizes(max_side), min_size=1, max_size=max_images)
    return tables.map(lambda rows: np.array(rows, dtype=np.int64))


def grids(max_side: int = 64) -> st.SearchStrategy[tuple[int, int]]:
    """(rows, cols) of patches."""
    return st.tuples(st.integers(1, max_side), st.integers(1, max_side))


def lengths(seq_len: int, max_items: int = 60) -> st.SearchStrategy[list[int]]:
    """Token counts that fit a row: small ones, any, and nearly full ones, or small ones alone; as often many as few."""
    small = st.integers(1, max(1, seq_len // 8))
    length = st.one_of(small, st.integers(1, seq_len), st.integers(max(1, seq_len - 3), seq_len))
    counts = st.integers(0, max_items)  # a plain list of up to 60 has five items on average
    return counts.flatmap(lambda n: st.one_of(*(st.lists(each, min_size=n, max_size=n) for each in (small, length))))


def uniform_tables(n: int, draws: int) -> st.SearchStrategy[npt.NDArray[np.float64] | None]:
    """Uniforms for n images, float64 ``[n, draws]`` in [0, 1) with the ends among them; None for no draws."""
    if draws == 0:
        return st.none()
    u = st.one_of(st.just(0.0), st.just(1 - 2.0**-53), st.floats(0, 1, exclude_max=True))
    rows = st.lists(st.lists(u, min_size=draws, max_size=draws), min_size=n, max_size=n)
    return rows.map(lambda table: np.array(table, dtype=np.float64).reshape(n, draws))


def resize_policies(patch_size: int = 16) -> st.SearchStrategy[Any]:
    """The resize policies of this package with random parameters."""
    budget = st.integers(1, 300)
    pixels = st.tuples(st.integers(1, 40_000), st.integers(0, 200_000)).map(lambda p: (p[0], p[0] + p[1]))
    span = st.tuples(st.integers(1, 300), st.integers(0, 300)).map(lambda r: (r[0], r[0] + r[1]))
    return st.one_of(
        st.builds(resize.Pix2Struct, budget, exact=st.booleans()),
        st.builds(resize.NaFlex, budget, upscale=st.booleans(), search=st.sampled_from(["exact", "bisection"])),
        st.builds(
            lambda p, m, s: resize.SmartResize(p[0], p[1], merge=m, min_side=s),
            pixels,
            st.integers(1, 3),
            st.sampled_from([None, 28]),
        ),
        st.builds(resize.NaViT, span, sampling=st.sampled_from(["uniform", "normal"]), on=st.sampled_from(["side", "area"])),
        st.builds(resize.LongestSide, st.integers(1, 400), upscale=st.booleans()),
        st.builds(lambda n: resize.Square(n * patch_size), st.integers(1, 16)),
        st.builds(
            resize.Native,
            budget,
            edge=st.sampled_from(["crop", "pad"]),
            oversize=st.sampled_from(["shrink", "reject"]),
        ),
    )


def drop_policies() -> st.SearchStrategy[Any]:
    """The drop policies of this package with random parameters."""
    rate = st.floats(0, 0.95)
    return st.one_of(
        st.just(drop.NoDrop()),
        st.builds(drop.Constant, rate),
        st.builds(lambda m, share: drop.Beta(m * share, m), st.floats(0.05, 1.0), st.floats(0.05, 0.95)),
        st.builds(drop.ByResolution, rate, rate, st.integers(1, 50), st.integers(51, 500), st.floats(0, 0.1)),
        st.builds(drop.Scheduled, st.floats(0, 1e6), st.sampled_from([-1e4, -1.0, 1.0, 1e5])),
    )


def packer_factories() -> st.SearchStrategy[PackerFactory]:
    """The online packers of this package with random lookahead."""
    rows = st.integers(1, 12)
    return st.one_of(st.builds(packing.FirstFit, rows), st.builds(packing.BestFit, rows), st.just(packing.NextFit()))


def recipes(patch_size: int = 4) -> st.SearchStrategy[Recipe]:
    """Small recipes (patch_size pixels per patch, rows of a few hundred tokens) over every kind of policy."""

    def build(policy: Any, extra: int, **fields: Any) -> Recipe:
        return Recipe(resize=policy, seq_len=policy.bound(patch_size) + extra, patch_size=patch_size, **fields)

    policies = resize_policies(patch_size).filter(lambda p: p.bound(patch_size) <= 2000)
    schemes = st.sampled_from(
        [positions.Absolute(), positions.Fractional(), positions.Fractional(True, True), positions.Raster()]
    )
    return st.builds(
        build,
        policies,
        st.integers(0, 200),
        drop=drop_policies(),
        positions=schemes,
        packer=packer_factories(),
        max_images=st.integers(1, 9),
        rows=st.integers(1, 4),
        dtype=st.sampled_from(["uint8", "float32"]),
        seed=st.integers(0, 2**64 - 1),
    )


# -------------------------------------------------------------------------------------------------------------- checks


def check_resize_policy(policy: Any, *, patch_size: int = 16, examples: int = 100) -> None:
    """A resize policy keeps its protocol.

    int ``[n, 2]`` grids of at least one patch, or (0, 0); never above its own bound; row i depends on row i alone; the same
    answer twice; inputs untouched; a `place` stays inside the image and inside the grid.
    """
    bound = policy.bound(patch_size)

    def check(table: npt.NDArray[np.int64], u: npt.NDArray[np.float64] | None) -> None:
        before = table.copy()
        answer = policy(table, patch_size, u)
        _expect(np.array_equal(table, before), f"{policy!r} changes the sizes it is given")
        _expect(_is_int(answer, table.shape), f"{policy!r} must return integers {list(table.shape)}, got {answer!r}")
        whole = np.all(answer > 0, axis=1) | np.all(answer == 0, axis=1)
        _expect(whole.all(), f"{policy!r} makes a grid that is neither whole nor refused: {answer[~whole].tolist()}")
        patches = np.asarray(answer, dtype=np.int64).prod(axis=1)
        if bound is not None and patches.max() > bound:
            worst = int(patches.argmax())
            raise AssertionError(
                f"{policy!r} makes {patches[worst]} patches of {table[worst].tolist()}, above its bound of {bound}"
            )
        _expect(np.array_equal(policy(table, patch_size, u), answer), f"{policy!r} answers differently the second time")
        for i in range(len(table)):
            alone = policy(table[i : i + 1], patch_size, None if u is None else u[i : i + 1])
            _expect(
                np.array_equal(alone[0], answer[i]),
                f"{policy!r}: row {i} depends on other rows: {answer[i].tolist()} among them, alone {alone[0].tolist()}",
            )
        if isinstance(policy, resize.PlacingPolicy):
            box, target = policy.place(table, answer, patch_size)
            inside = (box[:, :2] >= 0).all() and (box[:, 2:] >= 1).all() and (box[:, :2] + box[:, 2:] <= table).all()
            _expect(inside, f"{policy!r} places a box outside the image: {box.tolist()} in {table.tolist()}")
            fits = (target >= 1).all(axis=1) & (target <= answer * patch_size).all(axis=1) | (patches == 0)
            _expect(fits.all(), f"{policy!r} places a target outside its grid: {target.tolist()}")

    _run(check, size_tables(), policy.draws, examples)


def check_crop_policy(policy: Any, *, patch_size: int = 16, examples: int = 100) -> None:
    """A crop policy keeps its protocol.

    int ``[n, 4]`` boxes of at least a pixel within their images; row i depends on row i alone; the same answer twice; inputs
    untouched.
    """

    def check(table: npt.NDArray[np.int64], u: npt.NDArray[np.float64] | None) -> None:
        before = table.copy()
        box = policy(table, patch_size, u)
        _expect(np.array_equal(table, before), f"{policy!r} changes the sizes it is given")
        _expect(_is_int(box, (len(table), 4)), f"{policy!r} must return integers {[len(table), 4]}, got {box!r}")
        inside = (box[:, :2] >= 0).all() and (box[:, 2:] >= 1).all() and (box[:, :2] + box[:, 2:] <= table).all()
        _expect(inside, f"{policy!r} makes a box outside the image: {box.tolist()} in {table.tolist()}")
        _expect(np.array_equal(policy(table, patch_size, u), box), f"{policy!r} answers differently the second time")
        for i in range(len(table)):
            alone = policy(table[i : i + 1], patch_size, None if u is None else u[i : i + 1])
            _expect(
                np.array_equal(alone[0], box[i]),
                f"{policy!r}: row {i} depends on other rows: {box[i].tolist()} among them, alone {alone[0].tolist()}",
            )

    _run(check, size_tables(), policy.draws, examples)


def check_drop_policy(policy: Any, *, examples: int = 100) -> None:
    """A drop policy keeps its protocol: int ``[n]``, at least one patch and at most all, row i depends on row i alone."""

    def check(table: npt.NDArray[np.int64], u: npt.NDArray[np.float64] | None) -> None:
        seen = 1000 * np.arange(len(table), dtype=np.int64)
        kept = policy(table, u, seen)
        patches = table.prod(axis=1)
        _expect(_is_int(kept, patches.shape), f"{policy!r} must return integers [{len(table)}], got {kept!r}")
        fine = (kept >= 1) & (kept <= patches)
        _expect(fine.all(), f"{policy!r} keeps {kept[~fine].tolist()} of {patches[~fine].tolist()} patches: 1 … all may stay")
        for i in range(len(table)):
            alone = policy(table[i : i + 1], None if u is None else u[i : i + 1], seen[i : i + 1])
            _expect(alone[0] == kept[i], f"{policy!r}: row {i} depends on other rows: {kept[i]} among others, alone {alone[0]}")

    tables = st.lists(grids(), min_size=1, max_size=12).map(lambda rows: np.array(rows, dtype=np.int64))
    _run(check, tables, policy.draws, examples)


def check_packer(factory: PackerFactory, *, seq_len: int = 64, max_images: int = 7, examples: int = 100) -> None:
    """A packer keeps its protocol.

    Every item comes back exactly once and unchanged, or shortened as far as ``max_cut`` allows; no row is empty or above
    ``seq_len`` tokens or ``max_images`` slots;
    nothing stays after `flush`; state goes through JSON in the middle and the rest comes out the same.
    """

    @_settings(examples)
    @given(lengths(seq_len), st.integers(0, 60))
    def check(counts: list[int], cut: int) -> None:
        items = [Item(i, n) for i, n in enumerate(counts)]
        packer = factory(seq_len, max_images)
        rows = [row for item in items[:cut] for row in packer.push(item)]
        twin = factory(seq_len, max_images)
        twin.load_state_dict(json.loads(json.dumps(packer.state_dict())))
        rest, again = (_pack_rest(p, items[cut:]) for p in (packer, twin))
        _expect(_ids(rest) == _ids(again), f"{factory!r} goes on differently after load_state_dict")
        rows += rest
        came = sorted(item for row in rows for item in row.items)
        missing = sorted(set(items) - {items[item.id] for item in came if item.id < len(items)})
        _expect(not missing, f"{factory!r} loses items: {missing}")
        _expect([item.id for item in came] == [item.id for item in items], f"{factory!r} doubles or invents items: {came}")
        for item, pushed in zip(came, items, strict=True):
            least = fewest_tokens(pushed.num_tokens, packer)
            kept = item.num_slots == pushed.num_slots and least <= item.num_tokens <= pushed.num_tokens
            _expect(kept, f"{factory!r} makes {item} of {pushed}; it may keep {least} tokens at the least")
        for row in rows:
            within = row.items and row.num_tokens <= seq_len and row.num_slots <= max_images
            _expect(within, f"{factory!r} closes a row of {row.num_tokens} tokens and {row.num_slots} slots")
        _expect(not packer.flush(), f"{factory!r} still holds rows after flush")

    check()


def check_batch(batch: PackedBatch) -> None:
    """A batch keeps every statement `PackedBatch` makes, and its views agree.

    `validate`; attention mask, pool mask and ``cu_seqlens`` describe one partition; every token is unpacked once.
    """
    validate(batch)
    mask, attention, pool = (_arrays.to_numpy(view(batch)) for view in (token_mask, attention_mask, pool_mask))
    together = np.einsum("bes,bet->bst", pool.astype(np.int64), pool.astype(np.int64)) > 0
    _expect(np.array_equal(attention, together), "attention_mask and pool_mask disagree")
    _expect(np.array_equal(pool.any(axis=1), mask), "pool_mask and token_mask disagree")
    flat = ragged(batch)
    lengths_by_slot = pool.sum(axis=2)
    cumulative = _arrays.to_numpy(flat.cu_seqlens)
    _expect(np.array_equal(np.diff(cumulative), lengths_by_slot[lengths_by_slot > 0]), "cu_seqlens and pool_mask disagree")
    _expect(len(flat.patches) == mask.sum(), "ragged patches and token_mask disagree")
    images = list(unpack(batch))
    _expect(sum(len(image.patches) for image in images) == mask.sum(), "unpack loses or doubles tokens")
    keys = [batch.keys[image.row][image.slot] for image in images]
    _expect(keys == [image.key for image in images], "unpack hands out wrong keys")


def _run(check: Callable[..., None], tables: st.SearchStrategy[Any], draws: int, examples: int) -> None:
    @_settings(examples)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        table = data.draw(tables, label="table")
        check(table, data.draw(uniform_tables(len(table), draws), label="u"))

    run()


def _settings(examples: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )


def _pack_rest(packer: packing.Packer, items: Sequence[Item]) -> list[Row]:
    return [row for item in items for row in packer.push(item)] + packer.flush()


def _ids(rows: list[Row]) -> list[list[int]]:
    return [[item.id for item in row.items] for row in rows]


def _is_int(answer: Any, shape: tuple[int, ...]) -> bool:
    return isinstance(answer, np.ndarray) and np.issubdtype(answer.dtype, np.integer) and answer.shape == shape


def _expect(holds: Any, message: str) -> None:
    if not holds:
        raise AssertionError(message)
