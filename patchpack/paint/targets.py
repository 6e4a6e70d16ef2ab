"""The targets (labels) of a batch: one dtype and shape for a whole source, and a filler in every slot without an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import numpy as np

from patchpack._shown import shown
from patchpack.batch._types import Objects, Targets
from patchpack.errors import TargetError
from patchpack.types import TargetKind, TargetSpec

if TYPE_CHECKING:
    import torch

_CLASS = TargetSpec("int64")
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
        For numbers, an array ``[rows, slots, ...]``. For a dict, a dict of such arrays. For objects, a nested list. None if
        `kind` is None.
    """
    if kind is None:
        return None
    if isinstance(kind, dict):
        return {name: _filled(spec, rows, slots) for name, spec in kind.items()}
    if kind.dtype == "object":
        return [[None] * slots for _ in range(rows)]
    return _filled(kind, rows, slots)


def _filled(kind: TargetSpec, rows: int, slots: int) -> np.ndarray:
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
        TargetError: `value` does not have the kind that was inferred from the first sample. Then nothing is written.
    """
    if kind is None:
        if value is not None:
            raise TargetError(f"expected no target, as the first sample had none, got {shown(value)}")
    elif isinstance(kind, dict):
        if not isinstance(value, Mapping) or not _has_names(value) or set(value) != set(kind):
            raise TargetError(
                f"expected a dict of the targets {', '.join(sorted(kind))}, as the first sample had, got {shown(value)}"
            )
        checked = {name: _as(spec, value[name]) for name, spec in kind.items()}
        for name, entry in checked.items():
            _by_name(targets)[name][row, slot] = entry
    elif kind.dtype == "object":
        if value is None:  # the filler of empty slots
            raise TargetError("expected a target, as the first sample had, got None")
        _objects(targets)[row][slot] = value
    else:
        _array(targets)[row, slot] = _as(kind, value)


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
            _by_name(targets)[name][row, slot] = FILLERS[spec.dtype]
    elif kind is not None and kind.dtype == "object":
        _objects(targets)[row][slot] = None
    elif kind is not None:
        _array(targets)[row, slot] = FILLERS[kind.dtype]


# The type of targets follows from their kind (see `allocate`), which a type checker cannot know.


def _by_name(targets: Targets[np.ndarray]) -> dict[str, np.ndarray]:
    return cast("dict[str, np.ndarray]", targets)


def _objects(targets: Targets[np.ndarray]) -> Objects:
    return cast("Objects", targets)


def _array(targets: Targets[np.ndarray]) -> np.ndarray:
    return cast("np.ndarray", targets)


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


def _as(spec: TargetSpec, value: object) -> object:
    if type(value) is int and spec == _CLASS and -(1 << 63) <= value < 1 << 63:  # the usual label, without the conversion
        return value
    got = _infer(value)
    # an int is a valid float, but a float is not a class index
    if got.shape != spec.shape or (got.dtype != spec.dtype and not (spec.dtype == "float32" and got.dtype == "int64")):
        shape = f" {list(spec.shape)}" if spec.shape else ""
        raise TargetError(f"expected a target of kind {spec.dtype}{shape} as the first sample had, got {shown(value)}")
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
