"""The conversion of one batch to a run of tar members, and back.

::

    KEY.json                everything but arrays: pack, epoch, step, keys, info, and targets that are objects
    KEY.patches.npy         every array in its memory layout, uncompressed, never a pickle
    KEY.position_ids.npy    …
    KEY.times.npy           if the recipe takes clips
    KEY.targets.npy         targets that are arrays; for a dict KEY.targets.0.npy, …, with its names and objects in the JSON

KEY is ``EPOCH-STEP``. Contents begin at multiples of 64 bytes. So if a step is read in one piece, its arrays need not be
copied. The bytes depend on the batch alone, because the tar headers have no date and no owner.
"""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from msgspec import Struct, ValidationError
from msgspec.structs import asdict

from patchpack.batch._types import Objects, Targets
from patchpack.batch.packed import PackedBatch
from patchpack.batch_info import BatchInfo
from patchpack.errors import ShardError, TargetError
from patchpack.stream.jobs.values import Count, decode
from patchpack.stream.tar.byte_reader import BLOCK
from patchpack.stream.tar.members import read_members
from patchpack.types import BatchPlan

END = bytes(2 * BLOCK)
"""The end of a tar file."""

_ARRAYS = (
    "patches", "position_ids", "segment_ids", "num_images", "grid_sizes", "source_sizes", "slot_mask", "norm", "sample_ids",
)  # fmt: skip
_OPTIONAL = ("text_ids", "text_segment_ids", "times")
_DTYPES = {
    "|u1": torch.uint8,
    "|b1": torch.bool,
    "<i4": torch.int32,
    "<i8": torch.int64,
    "<f2": torch.float16,
    "<f4": torch.float32,
}
_MAGIC = b"\x93NUMPY\x01\x00"
UNREADABLE = (ValidationError, LookupError, TypeError, ValueError, AttributeError, OverflowError, OSError, RuntimeError)


class Place(NamedTuple):
    """The three values that identify a step: the fingerprint of its pack, its epoch, and its number."""

    pack: str
    epoch: int
    step: int

    @property
    def key(self) -> str:
        """The part of the name that all members of the step share."""
        return f"{self.epoch:03d}-{self.step:07d}"


class About(Struct):
    """The JSON of a step: its `Place`, the fields of the batch that are not arrays, and its targets.

    If targets are arrays, the JSON has the names of these arrays in place of the targets.
    """

    pack: str
    epoch: Count
    step: Count
    keys: list[list[str]]
    patch_size: Count
    info: dict[str, Any]
    targets: Mapping[str, object] | None


def write_step(batch: PackedBatch[np.ndarray], place: Place, plan: BatchPlan) -> Iterator[bytes | memoryview]:
    """Yield a batch of numpy arrays as pieces of a tar file. All pieces together fill whole tar blocks.

    Args:
        batch: the painted batch.
        place: pack, epoch and step of the batch.
        plan: the plan that the batch was painted from.

    Raises:
        TargetError: a target is neither an array nor a JSON value. The error names the sample.
    """
    targets, arrays = _targets(batch, plan)
    about = asdict(About(*place, batch.keys, batch.patch_size, batch.info.to_json(), targets))
    text = json.dumps(about, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")
    yield from _member(f"{place.key}.json", text)
    for name in (*_ARRAYS, *(name for name in _OPTIONAL if getattr(batch, name) is not None)):
        yield from _array(f"{place.key}.{name}.npy", getattr(batch, name))
    for name, array in arrays:
        yield from _array(f"{place.key}.{name}.npy", array)


def read_step(data: torch.Tensor, place: Place) -> PackedBatch:
    """Return the batch of a step, as tensors.

    Args:
        data: uint8, the bytes of the step's members followed by `END`. The batch's patches are a view of `data`. The other
            arrays are copied.
        place: the expected pack, epoch and step.

    Raises:
        ShardError: the step is cut off, damaged, or of another pack.
    """
    try:
        memory: npt.NDArray[np.uint8] = data.numpy()
        members = read_members(_Memory(memory))
        begin, size = next(members).where
        about = decode(memory[begin : begin + size].tobytes(), About)
        require_place(about, place)  # the first check, because in a file of another pack every check would fail
        arrays = {_array_of(m.name, place): _tensor(data, memory, *m.where) for m in members}
        fields = {name: arrays.pop(name) for name in (*_ARRAYS, *(name for name in _OPTIONAL if name in arrays))}
        fields |= {name: value.clone() for name, value in fields.items() if name != "patches"}
        targets = _targets_from(about.targets, arrays)
        if arrays:
            raise ValueError(f"it has an array {min(arrays)}, which is not a field of a batch")
        info = BatchInfo.from_json(about.info)
        batch = PackedBatch(**fields, targets=targets, keys=about.keys, patch_size=about.patch_size, info=info)
        _require_fitting(batch)
        return batch
    except (*UNREADABLE, tarfile.TarError, EOFError, StopIteration) as error:
        raise ShardError(f"step {place.step} of epoch {place.epoch} is damaged ({type(error).__name__}: {error})") from None


def require_place(about: About, place: Place) -> None:
    """Raise `ShardError` unless the JSON of a step names the given place."""
    said = Place(about.pack, about.epoch, about.step)
    if said.pack != place.pack:
        raise ShardError(f"expected a step of pack {place.pack}, got one of {said.pack}")
    if said != place:
        raise ShardError(f"expected step {place.step} of epoch {place.epoch}, got step {said.step} of epoch {said.epoch}")


def _member(name: str, *parts: bytes | memoryview) -> Iterator[bytes | memoryview]:
    info = tarfile.TarInfo(name)
    info.size = sum(len(part) for part in parts)
    yield info.tobuf(format=tarfile.GNU_FORMAT)
    yield from parts
    yield bytes(-info.size % BLOCK)


def _array(name: str, array: np.ndarray) -> Iterator[bytes | memoryview]:
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    return _member(name, header.getvalue(), array.reshape(-1).view(np.uint8).data)


def _targets(batch: PackedBatch[np.ndarray], plan: BatchPlan) -> tuple[dict[str, object] | None, list[tuple[str, np.ndarray]]]:
    """Return the JSON entry for targets, and the targets that are arrays as pairs (member name, array)."""
    targets = batch.targets
    if targets is None:
        return None, []
    if isinstance(targets, dict):
        objects = {name: entry for name, entry in targets.items() if isinstance(entry, list)}
        for entry in objects.values():
            _require_json(entry, batch, plan)
        arrays = [(f"targets.{i}", entry) for i, entry in enumerate(targets.values()) if not isinstance(entry, list)]
        return {"dict": [[name, objects.get(name)] for name in targets] if objects else list(targets)}, arrays
    if isinstance(targets, np.ndarray):
        return {"array": "targets"}, [("targets", targets)]
    _require_json(targets, batch, plan)
    return {"objects": targets}, []


def _require_json(targets: Objects, batch: PackedBatch[np.ndarray], plan: BatchPlan) -> None:
    """Raise `TargetError` for a target that JSON cannot store unchanged. The error names the sample."""
    lines = iter(plan.headers)
    for row, keys in zip(targets, batch.keys, strict=True):
        for value, _ in zip(row, keys, strict=False):
            header = next(lines)
            if not _is_json(value):
                raise TargetError(
                    f"{header.key}: its target is {_shown(value)}, which JSON cannot store unchanged. Labels of packed shards "
                    f"must be numbers, arrays of one shape, or values that JSON can store: index .cls, .npy, .txt or .json "
                    f"members, or no labels"
                )


def _is_json(value: object) -> bool:
    """Return True if writing a value as JSON and reading it again gives the same value and type."""
    if type(value) is list:
        return all(map(_is_json, value))
    if type(value) is dict:
        return all(type(name) is str and _is_json(entry) for name, entry in value.items())
    return value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value))


def _shown(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def _targets_from(said: Any, arrays: dict[str, torch.Tensor]) -> Targets[torch.Tensor]:
    if said is None:
        return None
    ((kind, value),) = said.items()
    if kind == "dict":  # a name, or a pair of a name and its objects. A label in arrays has no objects.
        named = [(entry, None) if isinstance(entry, str) else entry for entry in value]
        return {n: arrays.pop(f"targets.{i}").clone() if kept is None else kept for i, (n, kept) in enumerate(named)}
    objects: Objects = value
    return arrays.pop("targets").clone() if kind == "array" else objects


class _Memory:
    """A byte reader of a step whose bytes are in memory."""

    def __init__(self, memory: npt.NDArray[np.uint8]) -> None:
        self._memory, self.end = memory, len(memory)

    def read(self, at: int, count: int) -> bytes:
        """Read `count` bytes at offset `at`, see `patchpack.stream.tar.byte_reader.ByteReader`."""
        return self._memory[at : at + count].tobytes()

    def reach(self, at: int) -> int:
        """Return the reachable offset, see `patchpack.stream.tar.byte_reader.ByteReader`."""
        return min(at, self.end)


def _array_of(name: str, place: Place) -> str:
    """Return the name of an array from its member name: ``targets.0`` for ``000-0000017.targets.0.npy``."""
    if not (name.startswith(f"{place.key}.") and name.endswith(".npy")):
        raise ValueError(f"it has a member {name}")
    return name[len(place.key) + 1 : -len(".npy")]


def _tensor(data: torch.Tensor, memory: npt.NDArray[np.uint8], begin: int, size: int) -> torch.Tensor:
    start = memory[begin : begin + 10].tobytes()
    if start[:8] != _MAGIC:
        raise ValueError("an array does not begin with the mark of .npy")
    length = 10 + int.from_bytes(start[8:], "little")
    dtype, shape = _array_header(memory[begin : begin + min(length, size)].tobytes())
    num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if num_bytes != size - length:
        raise ValueError(f"an array of {dtype} {list(shape)} cannot have {size - length} bytes")
    return data[begin + length : begin + size].view(_DTYPES[dtype]).reshape(shape)


@lru_cache(maxsize=256)  # headers of a pack repeat step after step, and each costs 50 µs
def _array_header(header: bytes) -> tuple[str, tuple[int, ...]]:
    file = io.BytesIO(header)
    np.lib.format.read_magic(file)
    try:
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    except Exception as error:  # Python's tokenizer may fail first, with other errors
        raise ValueError(f"an array's header cannot be read ({type(error).__name__}: {error})") from None
    if fortran or dtype.str not in _DTYPES or file.read():
        raise ValueError(f"an array of a batch cannot have the dtype {dtype}")
    return dtype.str, shape


def _require_fitting(batch: PackedBatch) -> None:
    """Raise `ValueError` unless the shapes of a batch's arrays fit together. `patchpack.validate` checks the contents too."""
    rows, seq_len = batch.segment_ids.shape
    slots = batch.slot_mask.shape[1]
    pixels = 3 * batch.patch_size**2
    tubelet = 1 if batch.times is None else max(1, batch.patches.shape[-1] // pixels)
    for name, shape in (
        ("patches", (rows, seq_len, tubelet * pixels)),
        ("position_ids", (rows, seq_len, batch.position_ids.shape[-1])),
        ("num_images", (rows,)),
        ("grid_sizes", (rows, slots, 2)),
        ("source_sizes", (rows, slots, 2)),
        ("slot_mask", (rows, slots)),
        ("norm", (2, 3)),
        ("sample_ids", (rows, slots)),
        *([("times", (rows, slots))] if batch.times is not None else []),
    ):
        got = tuple(getattr(batch, name).shape)
        if got != shape:
            raise ValueError(f"{name} must be {list(shape)}, got {list(got)}")
    if batch.text_ids is not None or batch.text_segment_ids is not None:
        shapes = [list(getattr(array, "shape", ())) for array in (batch.text_ids, batch.text_segment_ids)]
        if shapes[0] != shapes[1] or len(shapes[0]) != 2 or shapes[0][0] != rows:
            raise ValueError(f"text_ids and text_segment_ids must have equal shapes, got {shapes[0]} and {shapes[1]}")
    if len(batch.keys) != rows:
        raise ValueError(f"keys must be one list per row, got {len(batch.keys)} lists")
