"""Property checks of policies, packers and batches. A check that fails shows the smallest example that hypothesis found."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchpack._arrays import Int64Array
from patchpack.batch import _arrays
from patchpack.batch._types import ArrayT
from patchpack.batch.packed import PackedBatch
from patchpack.batch.unpack import unpack
from patchpack.batch.validate import validate
from patchpack.batch.views import attention_mask, pool_mask, ragged, token_mask
from patchpack.plan import packing
from patchpack.plan.packing import Item, PackerFactory, Row, fewest_tokens
from patchpack.plan.policies import crop, resize
from patchpack.testing.strategies import grids, lengths, size_tables, uniform_tables


def check_resize_policy(policy: resize.ResizePolicy, *, patch_size: int = 16, examples: int = 100) -> None:
    """Assert that a resize policy keeps its protocol.

    The policy returns integer grids ``[n, 2]`` of at least one patch, or (0, 0) to refuse a size. A grid never has more patches
    than the policy's `bound`. Row i of the result depends on row i of the input alone. A second call returns the same grids.
    Inputs stay unchanged. If the policy has a method `place`, boxes lie inside the image and resized sizes inside the grid.

    Args:
        policy: the policy to check.
        patch_size: pixels per side of a patch (default 16).
        examples: number of random tables of sizes to try (default 100).

    Raises:
        AssertionError: the policy breaks a rule. The message shows the smallest example found.
    """
    bound = policy.bound(patch_size)

    def check(table: npt.NDArray[np.int64], u: npt.NDArray[np.float64] | None) -> None:
        before = table.copy()
        answer = policy(table, patch_size, u)
        _expect(np.array_equal(table, before), f"{policy!r} changes the sizes it is given")
        _expect(_is_int(answer, table.shape), f"{policy!r} must return integers {list(table.shape)}, got {answer!r}")
        whole = np.all(answer > 0, axis=1) | np.all(answer == 0, axis=1)
        _expect(whole.all(), f"{policy!r} makes grids that are neither at least 1 x 1 nor 0 x 0: {answer[~whole].tolist()}")
        patches = np.asarray(answer, dtype=np.int64).prod(axis=1)
        if bound is not None and patches.max() > bound:
            worst = int(patches.argmax())
            raise AssertionError(
                f"{policy!r} makes {patches[worst]} patches of {table[worst].tolist()}, more than its bound of {bound}"
            )
        _expect(np.array_equal(policy(table, patch_size, u), answer), f"{policy!r} returns something else in a second call")
        for i in range(len(table)):
            alone = policy(table[i : i + 1], patch_size, None if u is None else u[i : i + 1])
            _expect(
                np.array_equal(alone[0], answer[i]),
                f"{policy!r}: row {i} depends on other rows: {answer[i].tolist()} with them, {alone[0].tolist()} alone",
            )
        if isinstance(policy, resize.PlacingPolicy):
            box, resized = policy.place(table, answer, patch_size)
            inside = (box[:, :2] >= 0).all() and (box[:, 2:] >= 1).all() and (box[:, :2] + box[:, 2:] <= table).all()
            _expect(inside, f"{policy!r} makes a box outside the image: {box.tolist()} in {table.tolist()}")
            fits = (resized >= 1).all(axis=1) & (resized <= answer * patch_size).all(axis=1) | (patches == 0)
            _expect(fits.all(), f"{policy!r} resizes an image to more than its grid: {resized.tolist()}")

    _run(check, size_tables(), policy.draws, examples)


def check_crop_policy(policy: crop.CropPolicy, *, patch_size: int = 16, examples: int = 100) -> None:
    """Assert that a crop policy keeps its protocol.

    The policy returns integer boxes ``[n, 4]`` of at least one pixel, inside their images. Row i of the result depends on row i
    of the input alone. A second call returns the same boxes. Inputs stay unchanged.

    Args:
        policy: the policy to check.
        patch_size: pixels per side of a patch (default 16).
        examples: number of random tables of sizes to try (default 100).

    Raises:
        AssertionError: the policy breaks a rule. The message shows the smallest example found.
    """

    def check(table: npt.NDArray[np.int64], u: npt.NDArray[np.float64] | None) -> None:
        before = table.copy()
        box = policy(table, patch_size, u)
        _expect(np.array_equal(table, before), f"{policy!r} changes the sizes it is given")
        _expect(_is_int(box, (len(table), 4)), f"{policy!r} must return integers {[len(table), 4]}, got {box!r}")
        inside = (box[:, :2] >= 0).all() and (box[:, 2:] >= 1).all() and (box[:, :2] + box[:, 2:] <= table).all()
        _expect(inside, f"{policy!r} makes a box outside the image: {box.tolist()} in {table.tolist()}")
        _expect(np.array_equal(policy(table, patch_size, u), box), f"{policy!r} returns something else in a second call")
        for i in range(len(table)):
            alone = policy(table[i : i + 1], patch_size, None if u is None else u[i : i + 1])
            _expect(
                np.array_equal(alone[0], box[i]),
                f"{policy!r}: row {i} depends on other rows: {box[i].tolist()} with them, {alone[0].tolist()} alone",
            )

    _run(check, size_tables(), policy.draws, examples)


def check_drop_policy(policy: Any, *, examples: int = 100) -> None:
    """Assert that a drop policy keeps its protocol.

    The policy returns the numbers of patches to keep, integers ``[n]``, each at least one and at most all patches. Row i of the
    result depends on row i of the input alone.

    Args:
        policy: the policy to check.
        examples: number of random tables of grids to try (default 100).

    Raises:
        AssertionError: the policy breaks a rule. The message shows the smallest example found.
    """

    def check(table: npt.NDArray[np.int64], u: npt.NDArray[np.float64] | None) -> None:
        seen = 1000 * np.arange(len(table), dtype=np.int64)
        kept = policy(table, u, seen)
        patches = table.prod(axis=1)
        _expect(_is_int(kept, patches.shape), f"{policy!r} must return integers [{len(table)}], got {kept!r}")
        fine = (kept >= 1) & (kept <= patches)
        _expect(
            fine.all(), f"{policy!r} keeps {kept[~fine].tolist()} of {patches[~fine].tolist()} patches: it must keep 1 to all"
        )
        for i in range(len(table)):
            alone = policy(table[i : i + 1], None if u is None else u[i : i + 1], seen[i : i + 1])
            _expect(alone[0] == kept[i], f"{policy!r}: row {i} depends on other rows: {kept[i]} with them, {alone[0]} alone")

    tables = st.lists(grids(), min_size=1, max_size=12).map(lambda rows: np.array(rows, dtype=np.int64))
    _run(check, tables, policy.draws, examples)


def check_packer(factory: PackerFactory, *, seq_len: int = 64, max_images: int = 7, examples: int = 100) -> None:
    """Assert that a packer keeps its protocol.

    Every item is returned exactly once, unchanged or shortened as far as ``max_cut`` allows. No row is empty or exceeds
    ``seq_len`` tokens or ``max_images`` slots. `flush` returns all remaining items. The state may be saved as JSON at any
    point. A packer restored from the state returns the same rows from this point on.

    Args:
        factory: a function of `seq_len` and `max_images` that returns a new packer.
        seq_len: tokens per row (default 64).
        max_images: slots per row (default 7).
        examples: number of random sequences of items to try (default 100).

    Raises:
        AssertionError: the packer breaks a rule. The message shows the smallest example found.
    """

    @_settings(examples)
    @given(lengths(seq_len), st.integers(0, 60))
    def check(counts: list[int], cut: int) -> None:
        items = [Item(i, n) for i, n in enumerate(counts)]
        packer = factory(seq_len, max_images)
        rows = [row for item in items[:cut] for row in packer.push(item)]
        restored = factory(seq_len, max_images)
        restored.load_state_dict(json.loads(json.dumps(packer.state_dict())))
        rest, again = (_pack_rest(p, items[cut:]) for p in (packer, restored))
        _expect(_ids(rest) == _ids(again), f"{factory!r} returns other rows after load_state_dict")
        rows += rest
        came = sorted(item for row in rows for item in row.items)
        missing = sorted(set(items) - {items[item.id] for item in came if item.id < len(items)})
        _expect(not missing, f"{factory!r} loses items: {missing}")
        _expect(
            [item.id for item in came] == [item.id for item in items],
            f"{factory!r} repeats items or returns unknown ones: {came}",
        )
        for item, pushed in zip(came, items, strict=True):
            least = fewest_tokens(pushed.num_tokens, packer)
            kept = item.num_slots == pushed.num_slots and least <= item.num_tokens <= pushed.num_tokens
            _expect(kept, f"{factory!r} makes {item} of {pushed}; it must keep at least {least} tokens")
        for row in rows:
            within = row.items and row.num_tokens <= seq_len and row.num_slots <= max_images
            _expect(
                within,
                f"{factory!r} returns a row of {row.num_tokens} tokens and {row.num_slots} slots: it must not be empty and may "
                f"have {seq_len} tokens and {max_images} slots at most",
            )
        _expect(not packer.flush(), f"{factory!r} still holds rows after flush")

    check()


def check_batch(batch: PackedBatch[ArrayT]) -> None:
    """Assert that a batch keeps the rules that `PackedBatch` documents, and that its views agree.

    The batch passes `validate`. Attention mask, pool mask and ``cu_seqlens`` describe the same partition. `unpack` returns
    every token once.

    Raises:
        AssertionError: two views of the batch disagree.
        ShapeError: the batch breaks a rule of `validate`.
    """
    validate(batch)
    mask, attention, pool = (_arrays.to_numpy(view(batch)) for view in (token_mask, attention_mask, pool_mask))
    shares = pool.astype(np.float32)  # numpy multiplies float matrices fast, and float32 adds this many ones exactly
    together = shares.transpose(0, 2, 1) @ shares > 0
    _expect(np.array_equal(attention, together), "attention_mask and pool_mask disagree")
    _expect(np.array_equal(pool.any(axis=1), mask), "pool_mask and token_mask disagree")
    flat = ragged(batch)
    lengths_by_slot = pool.sum(axis=2)
    cumulative = _arrays.to_numpy(flat.cu_seqlens)
    _expect(np.array_equal(np.diff(cumulative), lengths_by_slot[lengths_by_slot > 0]), "cu_seqlens and pool_mask disagree")
    _expect(len(flat.patches) == mask.sum(), "ragged patches and token_mask disagree")
    images = list(unpack(batch))
    _expect(sum(len(image.patches) for image in images) == mask.sum(), "unpack loses or repeats tokens")
    keys = [batch.keys[image.row][image.slot] for image in images]
    _expect(keys == [image.key for image in images], "unpack returns wrong keys")


def _run(check: Callable[..., None], tables: st.SearchStrategy[Int64Array], draws: int, examples: int) -> None:
    @_settings(examples)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        table = data.draw(tables, label="table")
        check(table, data.draw(uniform_tables(len(table), draws), label="u"))

    run()


def _settings(examples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )


def _pack_rest(packer: packing.Packer, items: Sequence[Item]) -> list[Row]:
    return [row for item in items for row in packer.push(item)] + packer.flush()


def _ids(rows: list[Row]) -> list[list[int]]:
    return [[item.id for item in row.items] for row in rows]


def _is_int(answer: object, shape: tuple[int, ...]) -> bool:
    return isinstance(answer, np.ndarray) and np.issubdtype(answer.dtype, np.integer) and answer.shape == shape


def _expect(holds: object, message: str) -> None:
    if not holds:
        raise AssertionError(message)
