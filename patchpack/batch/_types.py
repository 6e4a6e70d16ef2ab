"""The type variables of a batch, which holds either numpy arrays or torch tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, Union

import numpy as np
import typing_extensions

if TYPE_CHECKING:
    from typing import Generic as Generic

    import torch
else:

    class _NoBase:
        """A base class that only type checkers see.

        Before version 2.7, torch finds the tensors of a named tuple only if `tuple` is the only base class.
        """

        def __getitem__(self, parameter: object) -> _NoBase:
            return self

        def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type, ...]:
            return ()

    Generic = _NoBase()

ArrayT = TypeVar("ArrayT", np.ndarray, "torch.Tensor")  # in functions that take either
Array = typing_extensions.TypeVar("Array", default="torch.Tensor")  # in named tuples: a plain `PackedBatch` holds tensors
Device = Union["torch.device", str, int]  # a type in quotes has no `|` before Python 3.14
Objects = list[list[object]]  # targets that are not numbers, ``[B][E]``
Targets = Union[Array, dict[str, Union[Array, Objects]], Objects, None]  # noqa: UP007  # mypy takes `Array | …` for no alias
