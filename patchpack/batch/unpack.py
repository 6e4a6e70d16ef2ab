"""Images, and what a model says of them, taken back out of their batch, each under its key."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, TypeVar, cast, overload

import numpy as np
import numpy.typing as npt
from typing_extensions import NamedTuple

from patchpack.batch import _arrays
from patchpack.batch._types import Array, ArrayT, Generic, Targets
from patchpack.batch.packed import PackedBatch
from patchpack.batch.views import sample_ids
from patchpack.errors import ConfigError, ShapeError
from patchpack.types import Grid, Size

if TYPE_CHECKING:
    import torch

Per = Literal["slot", "token", "image", "ragged"]
ValueT = TypeVar("ValueT", np.ndarray, "torch.Tensor")  # results of a model, which need not be of the kind of the batch


class PackedImage(NamedTuple, Generic[Array]):
    """One image taken back out of a batch.

    Attributes:
        key: the sample's key.
        row, slot: where it was.
        part: number of the image among those of its sample, from 0.
        patches: ``[n, D]`` surviving patches in raster order.
        position_ids: ``[n, A]``.
        grid: rows and cols before dropping.
        source_size: oriented size of the source in pixels.
        target: its target, as stored.
        text_ids: int32 ``[m]`` tokens of its sample's text, None without texts.
        times: tubelets along time before dropping; None where the recipe takes no clips.
    """

    key: str
    row: int
    slot: int
    part: int
    patches: Array
    position_ids: Array
    grid: Grid
    source_size: Size
    target: object
    text_ids: Array | None = None
    times: int | None = None


@overload
def unpack(
    batch: PackedBatch[ArrayT] | Iterable[PackedBatch[ArrayT]],
    values: None = None,
    *,
    per: Per | None = None,
    dense: bool = False,
    several: bool = False,
) -> Iterator[PackedImage[ArrayT]]: ...
@overload
def unpack(
    batch: PackedBatch[ArrayT],
    values: ValueT,
    *,
    per: Per | None = None,
    dense: bool = False,
    several: Literal[False] = False,
) -> Iterator[tuple[str, ValueT]]: ...
@overload
def unpack(
    batch: PackedBatch[ArrayT], values: ValueT, *, per: Per | None = None, dense: bool = False, several: Literal[True]
) -> Iterator[tuple[str, list[ValueT]]]: ...
def unpack(
    batch: PackedBatch[ArrayT] | Iterable[PackedBatch[ArrayT]],
    values: ValueT | None = None,
    *,
    per: Per | None = None,
    dense: bool = False,
    several: bool = False,
) -> Iterator[PackedImage[ArrayT] | tuple[str, ValueT] | tuple[str, list[ValueT]]]:
    """Yield the readable images of a batch in row-major slot order, or the values that a model gave for them.

    Args:
        batch: the batch; without values also several of them.
        values: None, or results to hand back by key, with N images and T tokens that are readable: ``[B, E, ...]`` per slot,
            ``[B, S, ...]`` per token, ``[N, ...]`` per image, as models behind an adapter give, or ``[T, ...]``, ragged.
        per: which of these; None for a slot or a token, as the shape says (where S equals E, a slot).
        dense: lay the values of an image's tokens on its grid, NaN where a patch was dropped. Per image they are
            ``[N, L, ...]``, an image's own tokens first.
        several: samples have several images that belong together: a list of the values of its images for every sample, one
            image or more.

    Yields:
        `PackedImage`s; with values, pairs ``(key, value)``: ``[...]`` per slot or image, ``[n, ...]`` per token or ragged,
        ``[rows, cols, ...]`` if dense, ``[times, rows, cols, ...]`` where the recipe takes clips.

    Raises:
        ConfigError: a ``per`` that is none of these; values of several batches; dense values per slot; a sample of several
            images, and not ``several=True``.
        ShapeError: values of another shape. Dense, of an image that lost patches: whole numbers, or positions
            that are fractions.
    """
    if not isinstance(batch, PackedBatch):
        if values is not None:
            raise ConfigError("values belong to one batch: call unpack(batch, values) for each")
        for one in batch:
            yield from unpack(one)
        return
    packed = cast("PackedBatch[ArrayT]", batch)  # isinstance does not say what arrays it has
    if values is None:
        for spot in _spots(packed):
            yield _image(packed, spot)
        return
    spots = list(_spots(packed))
    per = _checked(packed, spots, values, per, dense)
    more = next((spot for spot in spots if spot.part), None)
    if more is not None and not several:
        raise ConfigError(f"{more.key} has several images, whose values come as a list: pass several=True")
    results = [_own(spot, values, per) for spot in spots]
    if dense:
        results = [_on_grid(packed, spot, own) for spot, own in zip(spots, results, strict=True)]
    if not several:
        yield from ((spot.key, value) for spot, value in zip(spots, results, strict=True))
        return
    starts: list[int] = [i for i, spot in enumerate(spots) if not spot.part]
    for begin, end in pairwise([*starts, len(spots)]):
        yield spots[begin].key, results[begin:end]


class _Spot(NamedTuple):
    """One readable image: its tokens are numbers in its row, `number` and `start` count images and tokens before it."""

    key: str
    row: int
    slot: int
    part: int
    tokens: npt.NDArray[np.intp]
    number: int
    start: int


def _spots(batch: PackedBatch[ArrayT]) -> Iterator[_Spot]:
    segments, readable = _arrays.to_numpy(batch.segment_ids), _arrays.to_numpy(batch.slot_mask)
    samples = _arrays.to_numpy(sample_ids(batch))
    number = start = 0
    for row, keys in enumerate(batch.keys):
        for slot, key in enumerate(keys):
            if readable[row, slot]:
                tokens = np.flatnonzero(segments[row] == slot + 1)
                part = slot - int(np.argmax(samples[row] == samples[row, slot]))
                yield _Spot(key, row, slot, part, tokens, number, start)
                number, start = number + 1, start + len(tokens)


def _image(batch: PackedBatch[ArrayT], spot: _Spot) -> PackedImage[ArrayT]:
    row, slot, tokens = spot.row, spot.slot, spot.tokens
    text_ids = None
    if batch.text_ids is not None and batch.text_segment_ids is not None:
        text_ids = batch.text_ids[row][batch.text_segment_ids[row] == slot - spot.part + 1]
    return PackedImage(
        spot.key,
        row,
        slot,
        spot.part,
        batch.patches[row][tokens],
        batch.position_ids[row][tokens],
        Grid(*batch.grid_sizes[row, slot].tolist()),
        Size(*batch.source_sizes[row, slot].tolist()),
        _target_at(batch.targets, row, slot),
        text_ids,
        None if batch.times is None else int(batch.times[row, slot]),
    )


def _checked(batch: PackedBatch[ArrayT], spots: list[_Spot], values: ValueT, per: Per | None, dense: bool) -> Per:
    """What the values are per; raises as `unpack` does."""
    rows, seq_len = batch.segment_ids.shape
    num_tokens = sum(len(spot.tokens) for spot in spots)
    shapes: dict[Per, tuple[int, ...]] = {
        "slot": (rows, batch.slot_mask.shape[1]),
        "token": (rows, seq_len),
        "image": (len(spots),),
        "ragged": (num_tokens,),
    }
    if per is not None and per not in shapes:
        raise ConfigError(f"per is one of {', '.join(map(repr, shapes))}, got {per!r}")
    if dense and per == "slot":
        raise ConfigError("dense values are of tokens, a slot has one: per='token', 'image' or 'ragged'")
    guesses: tuple[Per, ...] = (per,) if per else ("token",) if dense else ("slot", "token")
    found: Per | None = next((g for g in guesses if tuple(values.shape[: len(shapes[g])]) == shapes[g]), None)
    if found is None:
        wanted = " or ".join(f"[{', '.join(map(str, shapes[guess]))}, ...] per {guess}" for guess in reversed(guesses))
        hint = "" if per else "; per='image' for what a model behind an adapter gives"
        raise ShapeError(f"values must be {wanted}, got {list(values.shape)}{hint}")
    longest = max((len(spot.tokens) for spot in spots), default=0)
    if dense and found == "image" and (len(values.shape) < 2 or values.shape[1] < longest):
        raise ShapeError(f"dense values per image must be [{len(spots)}, {longest} or more, ...], got {list(values.shape)}")
    return found


def _own(spot: _Spot, values: ValueT, per: Per) -> ValueT:
    own: ValueT
    if per == "slot":
        own = values[spot.row, spot.slot]
    elif per == "token":
        own = values[spot.row][spot.tokens]
    else:
        own = values[spot.number] if per == "image" else values[spot.start : spot.start + len(spot.tokens)]
    return own


def _on_grid(batch: PackedBatch[ArrayT], spot: _Spot, own: ValueT) -> ValueT:
    """``[rows, cols, ...]`` of the first entries, those of the image's tokens; of clips ``[times, ...]`` of these."""
    grid: list[int] = batch.grid_sizes[spot.row, spot.slot].tolist()
    cols = grid[1]
    if batch.times is not None:
        grid = [int(batch.times[spot.row, spot.slot]), *grid]
    n, patches = len(spot.tokens), math.prod(grid)
    own = own[:n]
    if n == patches:
        return own.reshape(*grid, *own.shape[1:])
    if batch.info.positions == "image":
        raise ShapeError(
            f"{spot.key} keeps {n} of its {patches} patches, and places in the whole image do not say which: pack with "
            f"positions=Absolute() for dense values"
        )
    ids = _arrays.to_numpy(batch.position_ids[spot.row][spot.tokens])
    if ids.dtype.kind == "f":
        raise ShapeError(
            f"{spot.key} keeps {n} of its {patches} patches, and fractions do not say which: pack with "
            f"positions=Absolute() for dense values"
        )
    if not _arrays.is_floating(own):
        raise ShapeError(
            f"{spot.key} keeps {n} of its {patches} patches, and {own.dtype} has no NaN for the others: give floats"
        )
    whole = _arrays.full_of_nan(own, patches)
    time, ids = (0, ids) if batch.times is None else (ids[:, 0] * (grid[1] * cols), ids[:, 1:])
    whole[time + (ids[:, 0] if ids.shape[1] == 1 else ids[:, 0] * cols + ids[:, 1])] = own
    return whole.reshape(*grid, *own.shape[1:])


def _target_at(targets: Targets[ArrayT], row: int, slot: int) -> object:
    if targets is None:
        return None
    if isinstance(targets, dict):
        return {name: values[row, slot] for name, values in targets.items()}
    return targets[row][slot]
