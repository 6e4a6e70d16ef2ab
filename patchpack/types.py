"""The nouns: what travels on the plan rail (integers) and on the paint rail (pixels). All immutable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchpack.errors import ConfigError
from patchpack.report import BatchInfo, Rejection, ShardFault

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float64]


class Size(NamedTuple):
    """Height and width of an image in pixels, as it is looked at (after its orientation tag)."""

    height: int
    width: int


class Grid(NamedTuple):
    """Rows and columns of patches an image is cut into."""

    rows: int
    cols: int

    @property
    def num_patches(self) -> int:
        """``rows * cols``."""
        return self.rows * self.cols


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """The frames of a clip, as `Sample.image`, for a recipe with `video`. A uint8 ``[T, H, W, 3]`` array says the same.

    Frames have one size. Only those that the recipe takes are asked for, one at a time, each once; so a sequence of one's own
    may decode them as they are asked for, and should be picklable then, if workers paint.

    Attributes:
        frames: at least one, each what an image may be: file bytes, uint8 ``[H, W, 3]``, or a PIL image. Any object with
            ``len(frames)`` and ``frames[i]``.
    """

    frames: Sequence[bytes | npt.NDArray[np.uint8] | PILImage]

    def __repr__(self) -> str:
        return f"Clip({counted(len(self.frames), 'frame')})"


@dataclass(frozen=True, slots=True)
class Sample:
    """What a source yields: one image or several that belong together, a name and a label.

    Attributes:
        key: names the sample in every report and seeds its draws; unique within one pass over the source.
        image: compressed file bytes, uint8 ``[H, W, 3]``, or a PIL image; a clip as a `Clip` or uint8 ``[T, H, W, 3]``; a list
            of these for images that belong together (the pages of a document), which are placed in one row, in this order, or
            not at all.
        target: class index, float, array of a fixed shape, dict of these, any other object, or None.
        text: what belongs to the image or images, a caption for instance; read where there is a ``tokenize``.
    """

    key: str
    image: bytes | npt.NDArray[np.uint8] | PILImage | Clip | Sequence[bytes | npt.NDArray[np.uint8] | PILImage | Clip]
    target: Any = None
    text: str | None = None

    def __post_init__(self) -> None:
        if self.key is None or isinstance(self.key, (bytes, bytearray)):
            raise TypeError(f"the key of a sample is a str, got {self.key!r}")

    def __repr__(self) -> str:
        said = f"key={self.key!r}, image={_briefly(self.image)}, target={_briefly(self.target)}"
        return f"Sample({said}{'' if self.text is None else f', text={_briefly(self.text)}'})"


class PlanTable(NamedTuple):
    """Everything decided about n images, without a pixel. Columns; line i is image i.

    Attributes:
        box: int32 ``[n, 4]`` (top, left, height, width), the part that is read, in oriented source pixels.
        target: int32 ``[n, 2]`` (height, width) in pixels that the box is resampled to.
        flip: bool ``[n]``, mirrored left to right after resampling.
        grid: int32 ``[n, 2]`` (rows, cols) before dropping; (0, 0) where the policy refuses the size.
        num_tokens: int32 ``[n]`` patches kept, ``1 … times * rows * cols``; 0 where refused.
        times: int32 ``[n]`` tubelets along time, 1 for an image.
    """

    box: IntArray
    target: IntArray
    flip: npt.NDArray[np.bool_]
    grid: IntArray
    num_tokens: IntArray
    times: IntArray

    def take(self, lines: npt.NDArray[np.intp] | Sequence[int]) -> PlanTable:
        """The same columns with only these lines, in this order."""
        index = np.asarray(lines, dtype=np.intp)
        return PlanTable._make(column[index] for column in self)


class Header(NamedTuple):
    """One line of a source's table of sizes: what the planner needs to know of an image, and where its bytes are.

    Attributes:
        key: the sample's key.
        shard: the container's name in reports, "" if there is none.
        member: the image file's name inside it, "" if there is none.
        size: oriented height and width in pixels.
        location: what the source's reader needs to fetch image and target; picklable.
        repeat: number of the pass over the source within the epoch, from 0.
        num_bytes: of memory that the location holds until the image is painted; 0 where it only says where to read.
        part: number of the image within its sample, from 0.
        rest: of a sample's first image, the others, in order.
        text: of a sample's first image, the tokens of the sample's text, int32 as bytes; empty where there is none.
        frames: of a clip, all of them; 1 for an image.
    """

    key: str
    shard: str
    member: str
    size: Size
    location: Any
    repeat: int = 0
    num_bytes: int = 0
    part: int = 0
    rest: tuple[Header, ...] = ()
    text: bytes = b""
    frames: int = 1

    @property
    def num_text(self) -> int:
        """Tokens of the text."""
        return len(self.text) // 4

    @property
    def draw_key(self) -> str:
        """What its draws are addressed by: the key, the pass where a source is repeated within an epoch, and the part."""
        key = f"{self.key}#{self.repeat}" if self.repeat else self.key
        return f"{key}[{self.part}]" if self.part else key

    @property
    def images(self) -> tuple[Header, ...]:
        """All images of the sample that this is the first of."""
        return (self, *self.rest)

    def in_pass(self, repeat: int) -> Header:
        """The same sample in another pass over its source."""
        rest = tuple(other._replace(repeat=repeat) for other in self.rest)
        return self._replace(repeat=repeat, rest=rest)


class Inline(NamedTuple):
    """Location of a sample that cannot be read again: image and target travel in the plan."""

    image: Any
    target: Any


class TargetSpec(NamedTuple):
    """Kind of a target: int64 or float32 arrays of one shape, or any other object (``dtype == "object"``)."""

    dtype: str
    shape: tuple[int, ...] = ()


Event = Header | Rejection | ShardFault  # what a source's scan yields, in order
TargetKind = TargetSpec | dict[str, TargetSpec] | None  # a dict for samples with several targets; None: no targets


@dataclass(frozen=True)
class BatchPlan:
    """All a worker needs to paint one batch: a few kB, picklable.

    Row r holds the lines ``offsets[r]:offsets[r + 1]`` of the columns, in slot order.

    Attributes:
        step: number of this batch in its epoch, from 0.
        epoch: the epoch its draws belong to.
        patch_size: pixels per side of a patch in this batch.
        seq_len: tokens per row.
        offsets: int32 ``[rows + 1]``.
        table: decisions, one line per image.
        key_hash: uint64 ``[n]``.
        headers: key, size and location, one per line.
        target_kind: what the targets of this source are, so that empty slots have a dtype.
        info: counters and rejections since the previous plan; becomes ``PackedBatch.info``.
        fatal: why there is no batch at all (no readable image in the source), else None.
        repeated_rows: rows at the end that came before in this epoch (``tail="wrap"``); they are not counted again.
        text_len: text tokens per row, None without texts.
    """

    step: int
    epoch: int
    patch_size: int
    seq_len: int
    offsets: IntArray
    table: PlanTable
    key_hash: npt.NDArray[np.uint64]
    headers: tuple[Header, ...]
    target_kind: TargetKind
    info: BatchInfo
    fatal: str | None = None
    repeated_rows: int = 0
    text_len: int | None = None

    def take_rows(self, rows: Sequence[int]) -> BatchPlan:
        """The same plan with only these rows, in this order; `info` is shared."""
        spans = [np.arange(self.offsets[r], self.offsets[r + 1]) for r in rows]
        lines = np.concatenate(spans) if spans else np.arange(0)
        offsets = np.concatenate([[0], np.cumsum([len(span) for span in spans])]).astype(np.int32)
        fresh = self.num_rows - self.repeated_rows
        return replace(
            self,
            offsets=offsets,
            table=self.table.take(lines),
            key_hash=self.key_hash[lines],
            headers=tuple(self.headers[i] for i in lines),
            repeated_rows=sum(r >= fresh for r in rows),
        )

    @property
    def num_rows(self) -> int:
        """Rows in this batch."""
        return len(self.offsets) - 1

    def __repr__(self) -> str:
        rows, images = counted(self.num_rows, "row"), counted(len(self.headers), "image")
        what = self.fatal or f"{rows} x {self.seq_len} tokens, {images}, patch {self.patch_size}"
        return f"BatchPlan(step {self.step} of epoch {self.epoch}: {what})"


class PackedBatch(NamedTuple):
    """The only thing a model sees: B rows of S tokens, up to E images per row. A painter makes numpy, a loader torch.

    Everything else (masks, ragged form, fill rate) is derived by a function, see `patchpack.paint.batch`.

    Attributes:
        patches: uint8, float32 or float16 ``[B, S, D]``, ``D = patch_size * patch_size * 3`` in (y, x, channel) order;
            zeros where padding.
        position_ids: int32 ``[B, S, A]``, or float32 if fractional; zeros where padding. A = 1 raster, 2 row and col.
        segment_ids: int32 ``[B, S]``; 0 is padding, k the row's k-th image (1-based).
        num_images: int32 ``[B]`` used slots.
        grid_sizes: int32 ``[B, E, 2]`` rows and cols before dropping; 0 in empty or unreadable slots.
        source_sizes: int32 ``[B, E, 2]`` oriented height and width of the source in pixels.
        slot_mask: bool ``[B, E]``, true where a slot holds a readable image.
        targets: aligned with slots, every image has its sample's, ``[B, E, ...]``: int64 (−100 elsewhere), float32 (NaN
            elsewhere), a dict of these, a nested list (None elsewhere), or None without targets.
        norm: float32 ``[2, 3]``, mean and std on the 0–255 scale: ``value = (patch − mean) / std``; (0, 1) when the
            patches are normalised already.
        keys: ``[B][≤ E]`` nested list of sample keys, one per image.
        patch_size: pixels per side of a patch.
        info: a `BatchInfo`: step, epoch, counters and rejections since the previous batch, and what was drawn for each image.
        sample_ids: int32 ``[B, E]``; 0 in slots that are not used, k for images of the row's k-th sample (1-based): 1, 2, 3, …
            where every sample is one image. None in a batch made by hand says the same.
        text_ids: int32 ``[B, text_len]`` tokens of the texts of a row, one after the other in slot order; zeros where padding.
            None without texts.
        text_segment_ids: int32 ``[B, text_len]``; 0 is padding, k a token of the text of the sample whose first image is the
            row's k-th image (1-based). None without texts.
        times: int32 ``[B, E]`` tubelets along time before dropping, 1 for an image; 0 in empty or unreadable slots. None where
            the recipe takes no clips. With it a token is a tubelet, ``D = t * patch_size * patch_size * 3`` in (frame, y, x,
            channel) order, tokens go by time, then row and col, and the first of A + 1 position ids is the number of the
            tubelet along time, a float where the others are fractions; 0 for an image.
    """

    patches: Any
    position_ids: Any
    segment_ids: Any
    num_images: Any
    grid_sizes: Any
    source_sizes: Any
    slot_mask: Any
    targets: Any
    norm: Any
    keys: list[list[str]]
    patch_size: int
    info: BatchInfo
    sample_ids: Any = None
    text_ids: Any = None
    text_segment_ids: Any = None
    times: Any = None

    def to(self, device: Any, *, non_blocking: bool = True) -> PackedBatch:
        """Return a new batch with every tensor on a device. Nothing is normalised and no dtype changes, see `to_device`.

        Args:
            device: anything torch takes for one. numpy arrays become tensors there.
            non_blocking: passed to ``Tensor.to``; overlaps where the batch is pinned.

        Raises:
            ConfigError: a dtype instead of a device.
        """
        torch = import_module("torch")  # a batch of numpy arrays is made and read without it
        if isinstance(device, torch.dtype):
            raise ConfigError(
                f"to({device}) would change every id too: batch.to(device) moves and changes no dtype; "
                f"patchpack.to_device(batch, device, {device}) moves and normalises patches into that dtype"
            )
        return self._each(lambda tensor: torch.as_tensor(tensor).to(device, non_blocking=non_blocking), torch.Tensor)

    def pin_memory(self) -> PackedBatch:
        """Return a new batch whose tensors are in pinned memory, from which `to` does not wait."""
        torch = import_module("torch")
        return self._each(lambda tensor: torch.as_tensor(tensor).pin_memory(), torch.Tensor)

    def _each(self, change: Callable[[Any], Any], tensor: type) -> PackedBatch:
        changed = PackedBatch._make(_changed(field, change, (tensor, np.ndarray)) for field in self._replace(keys=[]))
        return changed._replace(keys=self.keys)

    def __repr__(self) -> str:
        try:
            rows, seq_len = self.segment_ids.shape
            dtype = str(self.patches.dtype).removeprefix("torch.")
        except (AttributeError, TypeError, ValueError):  # made by hand of other things, or on its way
            return f"PackedBatch({', '.join(f'{name}={value!r}' for name, value in zip(self._fields, self, strict=True))})"
        size = f"{counted(rows, 'row')} x {seq_len} tokens"
        try:
            full = float((self.segment_ids != 0).sum()) / max(1, rows * seq_len)
            size += f", {counted(int(self.slot_mask.sum()), 'image')}, {100 * full:.1f} % full"
            size += "" if self.text_ids is None else f", {int((self.text_segment_ids != 0).sum())} text tokens"
        except (RuntimeError, TypeError, AttributeError):  # tensors without values
            pass
        device = str(getattr(self.patches, "device", "cpu"))
        where = "" if device == "cpu" else f", on {device}"
        return f"PackedBatch({size}, patch {self.patch_size}, {dtype}{where})"


def _changed(field: Any, change: Callable[[Any], Any], kinds: tuple[type, ...]) -> Any:
    """A field of a batch with all of its tensors changed; an object among the targets that is no tensor is left as it is."""
    if isinstance(field, dict):
        return {name: _changed(entry, change, kinds) for name, entry in field.items()}
    if isinstance(field, list):
        return [_changed(entry, change, kinds[:1]) for entry in field]
    return change(field) if isinstance(field, kinds) else field


def counted(number: int, noun: str) -> str:
    """A number and its noun: "1 row", "3 rows"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _briefly(value: Any) -> str:
    """An image or a label in a few words."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<{len(value)} bytes>"
    if isinstance(value, (list, tuple)) and value and not isinstance(value[0], (str, int, float)):
        more = f", … {len(value)} in all" if len(value) > 3 else ""
        return f"[{', '.join(map(_briefly, value[:3]))}{more}]"
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None and len(shape):
        return f"<{str(dtype).removeprefix('torch.')} {list(shape)}>"
    if hasattr(value, "mode") and hasattr(value, "size"):
        return f"<{value.mode} picture {value.size[1]} x {value.size[0]}>"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
