"""Unpacking of a batch into its images, or of a model's outputs into values per image, each with its key."""

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
from patchpack.plan._integers import require_bool
from patchpack.types import Grid, Size

if TYPE_CHECKING:
    import torch

Per = Literal["slot", "token", "image", "ragged"]
ValueT = TypeVar("ValueT", np.ndarray, "torch.Tensor")  # results of a model, which need not be of the kind of the batch


class PackedImage(NamedTuple, Generic[Array]):
    """One image of a batch.

    Attributes:
        key: key of the image's sample.
        row: row of the image in the batch.
        slot: slot of the image in the row.
        part: number of the image within its sample, from 0.
        patches: ``[n, D]``, the patches that were not dropped, in raster order.
        position_ids: ``[n, A]``, the position ids of these patches.
        grid: rows and columns of patches before dropping.
        source_size: (height, width) of the source in pixels, after EXIF orientation.
        target: target of the image, as the batch stores it.
        text_ids: int32 ``[m]``, tokens of the text of the image's sample. None if the batch has no texts.
        times: number of tubelets along time before dropping. None if the recipe has no `video`.
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
    """Yield the readable images of a batch in row-major slot order, or a model's values for these images.

    Args:
        batch: one batch. If `values` is None, an iterable of batches works too.
        values: a model's values for this batch. Default None yields the images themselves. The shape is ``[B, E, ...]``
            for values per slot, or ``[B, S, ...]`` for values per token. A model with an adapter gives values per image,
            ``[N, ...]``. Ragged values are per token without padding, ``[T, ...]``. B, E and S are rows, slots per row and
            tokens per row. N is the number of readable images, and T the number of their tokens.
        per: meaning of the first axes of `values`: ``"slot"``, ``"token"``, ``"image"`` or ``"ragged"``. Default None infers
            ``"slot"`` or ``"token"`` from the shape, and takes ``"slot"`` if both fit. With ``dense=True``, None means
            ``"token"``.
        dense: True arranges the values of an image's tokens on its grid, with NaN for dropped patches. Default False. With
            ``dense=True, per="image"`` the shape of `values` is ``[N, L, ...]``, and an image of n tokens uses the first n
            of its L entries.
        several: True yields one list per sample, with the values of all its images. It must be True if a sample has several
            images. Default False.

    Yields:
        A `PackedImage` per image if `values` is None, else a pair ``(key, value)`` per image. If `values` are per slot or per
        image, the value of an image is ``[...]``. If `values` are per token or ragged, the value of an image of n tokens is
        ``[n, ...]``. With ``dense=True`` the value is ``[rows, cols, ...]``, or ``[times, rows, cols, ...]`` if the recipe has
        `video`.

    Raises:
        ConfigError: `per` is unknown, `per` or `dense` is given without `values`, `values` are given for several batches,
            values per slot are given with ``dense=True``, or a sample has several images while `several` is False.
        ShapeError: `values` have a wrong shape. With ``dense=True`` also if an image lost patches and its values cannot be
            arranged: the values are integers, or the positions do not show which patches are left.
    """
    require_bool("dense", dense)
    require_bool("several", several)
    if values is None and (per is not None or dense):
        raise ConfigError("per= and dense= describe values, and no values were given: pass them as unpack(batch, values, ...)")
    if not isinstance(batch, PackedBatch):
        if values is not None:
            raise ConfigError("unpack takes values for one batch only: call unpack(batch, values) for each batch")
        for one in batch:
            yield from unpack(one)
        return
    packed = cast("PackedBatch[ArrayT]", batch)  # isinstance does not say what arrays it has
    if values is None:
        for image in _readable_images(packed):
            yield _image(packed, image)
        return
    images = list(_readable_images(packed))
    per = _checked(packed, images, values, per, dense)
    more = next((image for image in images if image.part), None)
    if more is not None and not several:
        raise ConfigError(f"{more.key} has several images: pass several=True to get a list of values for each sample")
    results = [_own(image, values, per) for image in images]
    if dense:
        results = [_on_grid(packed, image, own) for image, own in zip(images, results, strict=True)]
    if not several:
        yield from ((image.key, value) for image, value in zip(images, results, strict=True))
        return
    starts: list[int] = [i for i, image in enumerate(images) if not image.part]
    for begin, end in pairwise([*starts, len(images)]):
        yield images[begin].key, results[begin:end]


class _ReadableImage(NamedTuple):
    """The place of a readable image in its batch.

    Attributes:
        tokens: indices of the image's tokens in the row.
        number: number of readable images before this image in the batch.
        start: number of tokens of the images before this image.
    """

    key: str
    row: int
    slot: int
    part: int
    tokens: npt.NDArray[np.intp]
    number: int
    start: int


def _readable_images(batch: PackedBatch[ArrayT]) -> Iterator[_ReadableImage]:
    segments, readable = _arrays.to_numpy(batch.segment_ids), _arrays.to_numpy(batch.slot_mask)
    samples = _arrays.to_numpy(sample_ids(batch))
    number = start = 0
    for row, keys in enumerate(batch.keys):
        for slot, key in enumerate(keys):
            if readable[row, slot]:
                tokens = np.flatnonzero(segments[row] == slot + 1)
                part = slot - int(np.argmax(samples[row] == samples[row, slot]))
                yield _ReadableImage(key, row, slot, part, tokens, number, start)
                number, start = number + 1, start + len(tokens)


def _image(batch: PackedBatch[ArrayT], image: _ReadableImage) -> PackedImage[ArrayT]:
    row, slot, tokens = image.row, image.slot, image.tokens
    text_ids = None
    if batch.text_ids is not None and batch.text_segment_ids is not None:
        text_ids = batch.text_ids[row][batch.text_segment_ids[row] == slot - image.part + 1]
    return PackedImage(
        image.key,
        row,
        slot,
        image.part,
        batch.patches[row][tokens],
        batch.position_ids[row][tokens],
        Grid(*batch.grid_sizes[row, slot].tolist()),
        Size(*batch.source_sizes[row, slot].tolist()),
        _target_at(batch.targets, row, slot),
        text_ids,
        None if batch.times is None else int(batch.times[row, slot]),
    )


def _checked(batch: PackedBatch[ArrayT], images: list[_ReadableImage], values: ValueT, per: Per | None, dense: bool) -> Per:
    """Check `values`, and return `per`. If `per` is None, infer it from the shape of `values`.

    The function raises the errors that `unpack` documents for `per`, `values` and `dense`.
    """
    rows, seq_len = batch.segment_ids.shape
    num_tokens = sum(len(image.tokens) for image in images)
    shapes: dict[Per, tuple[int, ...]] = {
        "slot": (rows, batch.slot_mask.shape[1]),
        "token": (rows, seq_len),
        "image": (len(images),),
        "ragged": (num_tokens,),
    }
    if per is not None and per not in shapes:
        raise ConfigError(f"per must be one of {', '.join(map(repr, shapes))}, got {per!r}")
    if dense and per == "slot":
        raise ConfigError("dense=True needs one value per token, got one per slot: use per='token', 'image' or 'ragged'")
    if not hasattr(values, "shape"):
        raise ShapeError(f"values must be an array or a tensor, got a {type(values).__name__}")
    guesses: tuple[Per, ...] = (per,) if per else ("token",) if dense else ("slot", "token")
    found: Per | None = next((g for g in guesses if tuple(values.shape[: len(shapes[g])]) == shapes[g]), None)
    if found is None:
        wanted = " or ".join(f"[{', '.join(map(str, shapes[guess]))}, ...] per {guess}" for guess in reversed(guesses))
        hint = "" if per else "; pass per='image' for outputs of a model with an adapter"
        raise ShapeError(f"values must be {wanted}, got {list(values.shape)}{hint}")
    longest = max((len(image.tokens) for image in images), default=0)
    if dense and found == "image" and (len(values.shape) < 2 or values.shape[1] < longest):
        raise ShapeError(f"dense values per image must be [{len(images)}, {longest} or more, ...], got {list(values.shape)}")
    return found


def _own(image: _ReadableImage, values: ValueT, per: Per) -> ValueT:
    own: ValueT
    if per == "slot":
        own = values[image.row, image.slot]
    elif per == "token":
        own = values[image.row][image.tokens]
    else:
        own = values[image.number] if per == "image" else values[image.start : image.start + len(image.tokens)]
    return own


def _on_grid(batch: PackedBatch[ArrayT], image: _ReadableImage, own: ValueT) -> ValueT:
    """Arrange the values of an image's n tokens, ``own[:n]``, as ``[rows, cols, ...]``. For a clip, a time axis comes first."""
    grid: list[int] = batch.grid_sizes[image.row, image.slot].tolist()
    cols = grid[1]
    if batch.times is not None:
        grid = [int(batch.times[image.row, image.slot]), *grid]
    n, patches = len(image.tokens), math.prod(grid)
    own = own[:n]
    if n == patches:
        return own.reshape(*grid, *own.shape[1:])
    if batch.info.positions == "image":
        raise ShapeError(
            f"{image.key} keeps {n} of its {patches} patches, and positions in the whole image do not tell which: pack with "
            f"positions=Absolute() for dense values"
        )
    ids = _arrays.to_numpy(batch.position_ids[image.row][image.tokens])
    if ids.dtype.kind == "f":
        raise ShapeError(
            f"{image.key} keeps {n} of its {patches} patches, and fractional positions do not tell which: pack with "
            f"positions=Absolute() for dense values"
        )
    if not _arrays.is_floating(own):
        raise ShapeError(
            f"{image.key} keeps {n} of its {patches} patches, and {own.dtype} has no NaN for the others: pass floats"
        )
    whole = _arrays.full_of_nan(own, patches)
    time, ids = (0, ids) if batch.times is None else (ids[:, 0] * (grid[1] * cols), ids[:, 1:])
    whole[time + (ids[:, 0] if ids.shape[1] == 1 else ids[:, 0] * cols + ids[:, 1])] = own
    return whole.reshape(*grid, *own.shape[1:])


def _target_at(targets: Targets[ArrayT], row: int, slot: int) -> object:
    if targets is None:
        return None
    if isinstance(targets, dict):
        return {name: values[row][slot] for name, values in targets.items()}
    return targets[row][slot]
