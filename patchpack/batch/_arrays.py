"""Operations that numpy and torch spell differently. This module calls methods of tensors, so it never imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast, overload

import numpy as np

from patchpack.batch._types import ArrayT

if TYPE_CHECKING:
    import torch


@overload
def to_numpy(value: np.ndarray | torch.Tensor) -> np.ndarray: ...
@overload
def to_numpy(value: object) -> object: ...
def to_numpy(value: object) -> object:
    if isinstance(value, dict):
        return {name: to_numpy(entry) for name, entry in value.items()}
    if not hasattr(value, "detach"):
        return value
    value = cast("torch.Tensor", value).detach().cpu()
    return value.float().numpy() if str(value.dtype) == "torch.bfloat16" else value.numpy()


def arange(like: ArrayT, n: int) -> ArrayT:
    if isinstance(like, np.ndarray):
        return np.arange(n)
    numbers: ArrayT = like.new_ones(n, dtype=int).cumsum(0) - 1  # type: ignore[call-overload]  # torch takes int for int64
    return numbers


def stable_argsort(mask: ArrayT) -> ArrayT:
    return np.argsort(mask, kind="stable") if isinstance(mask, np.ndarray) else mask.byte().argsort(stable=True)


def stack(columns: list[ArrayT]) -> ArrayT:
    if isinstance(columns[0], np.ndarray):
        return np.stack(columns, axis=1)
    both = columns[0].new_empty((len(columns[0]), len(columns)))
    for i, column in enumerate(columns):
        both[:, i] = column
    return both


def concatenate(parts: list[ArrayT]) -> ArrayT:
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    whole = parts[0].new_empty((sum(len(part) for part in parts), *parts[0].shape[1:]))
    start = 0
    for part in parts:
        whole[start : start + len(part)] = part
        start += len(part)
    return whole


def nonzero(mask: ArrayT) -> ArrayT:
    return np.argwhere(mask) if isinstance(mask, np.ndarray) else mask.nonzero()


def cumulative(lengths: ArrayT) -> ArrayT:
    """Return 0, followed by the cumulative sums of N lengths, as int32 ``[N + 1]``."""
    if isinstance(lengths, np.ndarray):
        return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    sums = lengths.new_zeros(len(lengths) + 1)
    sums[1:] = lengths.cumsum(0)
    return sums.int()


def is_floating(value: np.ndarray | torch.Tensor) -> bool:
    return bool(np.issubdtype(value.dtype, np.floating)) if isinstance(value, np.ndarray) else bool(value.is_floating_point())


def full_of_nan(like: ArrayT, n: int) -> ArrayT:
    """Return an array ``[n, ...]`` that is full of NaN. It has the dtype and the further axes of `like`."""
    shape = (n, *like.shape[1:])
    return np.full(shape, np.nan, like.dtype) if isinstance(like, np.ndarray) else like.new_full(shape, float("nan"))
