"""The targets (labels) of a batch: one kind for a whole source, and a filler in every slot without an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import numpy as np

from patchpack._shown import shown
from patchpack.batch._types import Objects, Targets
from patchpack.errors import TargetError
from patchpack.paint.target_kinds import advice, in_words, reason_for
from patchpack.types import TargetKind, TargetSpec

if TYPE_CHECKING:
    import torch

_CLASS = ("int64", ())
FILLERS = {"int64": -100, "float32": float("nan"), "object": None}


def infer_kind(target: object) -> TargetKind:
    """Infer the kind of all targets of a source from the first target.

    Integers and bools become int64, and floats become float32. Arrays and tensors of numbers keep their shape. The width of the
    numbers in bits and the device of a tensor do not matter. A dict of numbers, arrays or tensors becomes a dict of kinds. Any
    other target stays an object. If `target` is None, the kind is None: there are no targets.

    Raises:
        TargetError: `target` is a dict of numbers with a key that is not a string, or `target` is an array with masked values.
    """
    if target is None:
        return None
    if isinstance(target, Mapping):
        specs = {name: _infer(value) for name, value in target.items()}
        if not specs or any(spec.dtype == "object" for spec in specs.values()):
            return TargetSpec("object")
        if not _has_names(target):
            raise TargetError(f"the names of a dict of labels are strings, got {shown(target)}")
        return specs
    return _infer(target)


def allocate(kind: TargetKind, rows: int, slots: int) -> Targets[np.ndarray]:
    """Allocate the targets of an empty batch. Every slot gets the filler: −100 for int64, NaN for float32, None for objects.

    Args:
        kind: kind of the targets.
        rows: number of rows of the batch.
        slots: number of slots of a row.

    Returns:
        For numbers, an array ``[rows, slots, ...]``. For objects, a nested list. For a dict, a dict of arrays and nested lists.
        None if `kind` is None.
    """
    if kind is None:
        return None
    if isinstance(kind, dict):
        return {name: _filled(spec, rows, slots) for name, spec in kind.items()}
    return _filled(kind, rows, slots)


def _filled(kind: TargetSpec, rows: int, slots: int) -> np.ndarray | Objects:
    if kind.dtype == "object":
        return [[None] * slots for _ in range(rows)]
    return np.full((rows, slots, *kind.shape), FILLERS[kind.dtype], dtype=kind.dtype)


def store(targets: Targets[np.ndarray], kind: TargetKind, row: int, slot: int, value: object) -> None:
    """Write one target into its slot.

    Args:
        targets: result of `allocate`.
        kind: kind of the targets.
        row: row of the slot.
        slot: number of the slot in the row.
        value: the target.

    Raises:
        TargetError: `value` does not have this kind. The error says which ``target_kind`` takes the value. Then nothing is
            written.
    """
    if kind is None:
        if value is not None:
            raise TargetError(
                f"expected no target, as the first sample had none, got {shown(value)}: pass target_kind='object' if only some "
                f"samples have labels, or replace None by a number in map_target="
            )
    elif isinstance(kind, dict):
        if not isinstance(value, Mapping) or not _has_names(value) or set(value) != set(kind):
            raise TargetError(
                f"expected a dict of the targets {', '.join(sorted(kind))}, {reason_for(kind)}, got {shown(value)}: pass "
                f"target_kind='object' for labels of any type"
            )
        checked = {name: _as(spec, value[name], kind, name) for name, spec in kind.items()}
        for name, entry in checked.items():
            _put(_by_name(targets)[name], row, slot, entry)
    else:
        _put(_alone(targets), row, slot, _as(kind, value, kind))


def erase(targets: Targets[np.ndarray], kind: TargetKind, row: int, slot: int) -> None:
    """Replace the target in a slot by the filler, which was there before `store`.

    Args:
        targets: result of `allocate`.
        kind: kind of the targets.
        row: row of the slot.
        slot: number of the slot in the row.
    """
    if isinstance(kind, dict):
        for name, spec in kind.items():
            _put(_by_name(targets)[name], row, slot, FILLERS[spec.dtype])
    elif kind is not None:
        _put(_alone(targets), row, slot, FILLERS[kind.dtype])


def _put(targets: np.ndarray | Objects, row: int, slot: int, value: object) -> None:
    if isinstance(targets, list):
        targets[row][slot] = value
    else:
        targets[row, slot] = value


# The type of targets follows from their kind (see `allocate`), which a type checker cannot know.


def _by_name(targets: Targets[np.ndarray]) -> dict[str, np.ndarray | Objects]:
    return cast("dict[str, np.ndarray | Objects]", targets)


def _alone(targets: Targets[np.ndarray]) -> np.ndarray | Objects:
    return cast("np.ndarray | Objects", targets)


def _infer(value: object) -> TargetSpec:
    if value is None or isinstance(value, (str, bytes, Mapping)):
        return TargetSpec("object")
    try:
        array = np.asarray(_without_torch(value))
    except TargetError:
        raise
    except Exception:  # ragged, or a tensor without plain numbers
        return TargetSpec("object")
    if array.dtype.kind in "biu":
        fits = array.dtype != np.uint64 or array.max(initial=0) <= np.iinfo(np.int64).max
        return TargetSpec("int64", array.shape) if fits else TargetSpec("object")
    if array.dtype.kind == "f":
        return TargetSpec("float32", array.shape)
    return TargetSpec("object")


def _as(spec: TargetSpec, value: object, whole: TargetKind, name: str | None = None) -> object:
    """Return a target in the form in which its slot holds it.

    Args:
        spec: kind of the target.
        value: the target.
        whole: kind of all targets, for errors.
        name: name of the target among several. Default None: there is one target.
    """
    if type(value) is int and spec[:2] == _CLASS and -(1 << 63) <= value < 1 << 63:  # the usual label, without the conversion
        return value
    if spec.dtype == "object":
        if value is None and not spec.declared:  # the filler of empty slots
            raise TargetError(
                f"expected a target, {reason_for(whole)}, got None: pass target_kind={in_words(whole)}, which also takes None"
            )
        return value
    got = _infer(value)
    # an int is a valid float, but a float is not a class index
    if got.shape != spec.shape or (got.dtype != spec.dtype and not (spec.dtype == "float32" and got.dtype == "int64")):
        shape = f" {list(spec.shape)}" if spec.shape else ""
        label = "" if name is None else f" {name!r}"
        raise TargetError(
            f"expected a target{label} of kind {spec.dtype}{shape} {reason_for(whole)}, got {shown(value)}: "
            f"{advice(whole, name, value, got)}"
        )
    numbers = _without_torch(value)
    with np.errstate(over="ignore"):
        stored = np.asarray(numbers, dtype=spec.dtype)
    if spec.dtype == "float32" and np.any(np.isinf(stored) & np.isfinite(np.asarray(numbers, dtype=np.float64))):
        raise TargetError(f"expected a target within the range of float32, got {shown(value)}")
    if spec.dtype == "float32" and got.dtype == "int64" and not _is_exact(np.asarray(numbers), stored):
        raise TargetError(
            f"expected a target that float32 holds exactly, got the integer {shown(value)}: give labels as integers"
        )
    return stored


def _has_names(target: Mapping[object, object]) -> bool:
    return all(isinstance(name, str) for name in target)


def _is_exact(integers: np.ndarray, floats: np.ndarray) -> bool:
    """Return True if `floats` are equal to the integers from which they were made."""
    if not integers.size or (integers.dtype.kind != "b" and integers.min() >= -(1 << 24) and integers.max() <= 1 << 24):
        return True
    return [int(value) for value in floats.ravel()] == [int(value) for value in integers.ravel()]


def _without_torch(value: object) -> object:
    """Convert torch tensors, alone or in lists, to numpy arrays. Return any other value unchanged.

    Tensors of floats become float64, because numpy has no bfloat16, and float64 holds every value of narrower floats.
    """
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise TargetError(f"a label with masked values has no number there, got {shown(value)}: fill them first")
    if isinstance(value, (list, tuple)):
        return [_without_torch(entry) for entry in value]
    if not (hasattr(value, "detach") and hasattr(value, "is_floating_point")):
        return value
    tensor = cast("torch.Tensor", value).detach().cpu()
    return (tensor.double() if tensor.is_floating_point() else tensor).numpy()
