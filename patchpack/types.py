"""The data types that planning (integers) and painting (pixels) exchange. All of them are immutable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from patchpack._shown import briefly
from patchpack.batch_info import BatchInfo
from patchpack.losses import Rejection, ShardFault

if TYPE_CHECKING:
    import os
    from typing import Any

    from PIL.Image import Image as PILImage
    from torch import Tensor

    Picture = bytes | str | os.PathLike[str] | npt.NDArray[Any] | Tensor | PILImage  # the forms of a single image

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float64]


class Size(NamedTuple):
    """Height and width of an image in pixels, after EXIF orientation."""

    height: int
    width: int


class Grid(NamedTuple):
    """Rows and columns of patches that an image is cut into."""

    rows: int
    cols: int

    @property
    def num_patches(self) -> int:
        """Number of patches, ``rows * cols``."""
        return self.rows * self.cols


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """The frames of a clip, as a value of `Sample.image`, for a recipe with `video`.

    An array ``[T, H, W, 3]`` may be given in its place. All frames have one size. Frames are requested lazily, each at most
    once, so a custom sequence may decode on access. With workers the sequence must be picklable.

    Attributes:
        frames: sequence of at least one frame: any object with ``len(frames)`` and ``frames[i]``. A frame has any form that
            `Sample.image` may have for a single image.
    """

    frames: Sequence[Picture]

    def __repr__(self) -> str:
        return f"Clip({counted(len(self.frames), 'frame')})"


@dataclass(frozen=True, slots=True)
class Sample:
    """One image, or several images that belong together, with a key and a label.

    Attributes:
        key: name of the sample in reports, unique within one pass over the source. The sample's random draws depend on the key.
        image: a single image, a clip, or a list of these. A single image is one of these values:

            * a path, a `str` or `os.PathLike`: only the header is read to plan, and the worker that paints reads the file. A
              relative path starts from the working folder at the time when the sample is read.
            * a data URI (``data:image/png;base64,…``), or the base64 of an image file.
            * the bytes of an image file.
            * a PIL image.
            * a numpy array or torch tensor ``[H, W]``, ``[H, W, 1 | 3 | 4]`` or ``[1 | 3 | 4, H, W]``, of uint8, uint16, or
              floats in [0, 1]. Four channels are RGB and alpha, which is composed over the recipe's `background`.

            A clip is a `Clip`, or an array with an axis of frames in front. A list holds several images or clips that belong
            together, such as the pages of a document. All images of a list are packed into one row in the order of the list, or
            all are rejected.
        target: class index, float, array of a fixed shape, dict of these, or any other object. Default None, no target.
        text: text that belongs to the image, such as a caption. It is used only with ``tokenize``. Default None.
    """

    key: str
    image: Picture | Clip | Sequence[Picture | Clip]
    target: object = None
    text: str | None = None

    def __post_init__(self) -> None:
        if self.key is None or isinstance(self.key, (bytes, bytearray)):
            raise TypeError(f"the key of a sample must be a str, got {self.key!r}")

    def __repr__(self) -> str:
        said = f"key={self.key!r}, image={briefly(self.image)}, target={briefly(self.target)}"
        return f"Sample({said}{'' if self.text is None else f', text={briefly(self.text)}'})"


class PlanTable(NamedTuple):
    """The decisions about n images, as the columns of a table. Line i has the decisions about image i.

    Attributes:
        box: int32 ``[n, 4]``, (top, left, height, width) of the part that is read, in source pixels after orientation.
        resized: int32 ``[n, 2]``, (height, width) in pixels that the box is resampled to.
        flip: bool ``[n]``, True if the image is mirrored left to right after resampling.
        grid: int32 ``[n, 2]``, (rows, cols) of patches before dropping. (0, 0) if the policy refuses the size.
        num_tokens: int32 ``[n]``, number of kept patches, ``1 … times * rows * cols``. 0 if the policy refuses the size.
        times: int32 ``[n]``, number of tubelets (patches through several frames) along time, 1 for an image.
    """

    box: IntArray
    resized: IntArray
    flip: npt.NDArray[np.bool_]
    grid: IntArray
    num_tokens: IntArray
    times: IntArray

    def take(self, lines: npt.NDArray[np.intp] | Sequence[int]) -> PlanTable:
        """Return a table with only the given lines, in the given order."""
        index = np.asarray(lines, dtype=np.intp)
        return PlanTable._make(column[index] for column in self)

    def part(self, start: int, stop: int) -> PlanTable:
        """Return the lines ``start … stop − 1``. The columns are views of this table's columns."""
        box, resized, flip, grid, num_tokens, times = self
        lines = slice(start, stop)
        return PlanTable(box[lines], resized[lines], flip[lines], grid[lines], num_tokens[lines], times[lines])

    @classmethod
    def concatenate(cls, tables: Sequence[PlanTable]) -> PlanTable:
        """Return a new table with the lines of all tables, in order."""
        return cls._make(map(np.concatenate, zip(_NO_LINES, *tables, strict=True)))


_NO_LINES = PlanTable(
    box=np.empty((0, 4), dtype=np.int32),
    resized=np.empty((0, 2), dtype=np.int32),
    flip=np.empty(0, dtype=np.bool_),
    grid=np.empty((0, 2), dtype=np.int32),
    num_tokens=np.empty(0, dtype=np.int32),
    times=np.empty(0, dtype=np.int32),
)


class Header(NamedTuple):
    """The key, the size and the location of one image: the planner's input.

    Attributes:
        key: the sample's key.
        shard: name of the container in reports, "" without a container.
        member: name of the image file inside the container, "" without a file.
        size: height and width in pixels, after orientation.
        location: location of the image and its target, in the form that the source's reader expects. It is picklable.
        repeat: number of the pass over the source within the epoch, from 0. Default 0.
        num_bytes: bytes of memory that `location` holds until the image is painted. Default 0, for an image in a file.
        part: number of the image within its sample, from 0. Default 0.
        rest: headers of the sample's other images, in order. Only the first image of a sample has them. Default empty.
        text: token ids of the sample's text, as the bytes of an int32 array. Only the first image of a sample has them. Default
            empty.
        frames: number of frames of a clip. Default 1, an image.
    """

    key: str
    shard: str
    member: str
    size: Size
    location: object
    repeat: int = 0
    num_bytes: int = 0
    part: int = 0
    rest: tuple[Header, ...] = ()
    text: bytes = b""
    frames: int = 1

    @property
    def num_text(self) -> int:
        """Number of tokens of the text."""
        return len(self.text) // 4

    @property
    def draw_key(self) -> str:
        """The key on which the image's random draws depend: the sample's key, then `repeat` and `part` unless they are 0."""
        key = f"{self.key}#{self.repeat}" if self.repeat else self.key
        return f"{key}[{self.part}]" if self.part else key

    @property
    def images(self) -> tuple[Header, ...]:
        """Headers of all images of the sample. This header is the first of them."""
        return (self, *self.rest)

    def in_pass(self, repeat: int) -> Header:
        """Return the header of this sample for pass number `repeat` over the source."""
        rest = tuple(other._replace(repeat=repeat) for other in self.rest)
        return self._replace(repeat=repeat, rest=rest)


class Inline(NamedTuple):
    """The location of a sample that cannot be read again. The location holds the image and the target themselves."""

    image: object
    target: object


class TargetSpec(NamedTuple):
    """The kind of a target: int64 or float32 arrays of one shape, or any other object (``dtype == "object"``).

    Attributes:
        dtype: ``"int64"``, ``"float32"`` or ``"object"``.
        shape: shape of the target of one image. Default (), a number.
        declared: True if the user passed the kind as ``target_kind``. Default False: the first readable target has this kind. A
            declared object may be None.
    """

    dtype: str
    shape: tuple[int, ...] = ()
    declared: bool = False


Event = Header | Rejection | ShardFault  # what a source's scan yields, in order
TargetKind = TargetSpec | dict[str, TargetSpec] | None  # a dict for samples with several targets; None: no targets


@dataclass(frozen=True)
class BatchPlan:
    """The plan of one batch, with everything that a worker needs to paint the batch. A plan is picklable and has a few kB.

    Row r of the batch holds the images ``offsets[r] … offsets[r + 1] − 1``, in slot order.

    Attributes:
        step: number of the batch in its epoch, from 0.
        epoch: number of the epoch, on which the random draws depend.
        patch_size: pixels per side of a patch in this batch.
        seq_len: tokens per row.
        offsets: int32 ``[rows + 1]``, begin and end of each row in `table`.
        table: decisions about the n images of the batch, one line per image.
        key_hash: uint64 ``[n]``, hash of each image's `Header.draw_key`.
        headers: key, size and location of each image.
        target_kind: kind of the source's targets. This kind decides the dtype of the targets of empty slots.
        info: counters, and losses since the previous plan. It becomes `PackedBatch.info`.
        fatal: reason why no batch can be made, for example that the source has no readable image. Default None, a normal batch.
        repeated_rows: number of rows at the end that repeat earlier rows of the epoch (``tail="wrap"``). These rows are not
            counted again. Default 0.
        text_len: text tokens per row. Default None, without texts.
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
        """Return a plan with only the given rows, in the given order. The new plan shares `info` with this plan."""
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
        """Number of rows in the batch."""
        return len(self.offsets) - 1

    def __repr__(self) -> str:
        rows, images = counted(self.num_rows, "row"), counted(len(self.headers), "image")
        what = self.fatal or f"{rows} x {self.seq_len} tokens, {images}, patch {self.patch_size}"
        return f"BatchPlan(step {self.step} of epoch {self.epoch}: {what})"


def counted(number: int, noun: str) -> str:
    """Return a number and its noun: "1 row", "3 rows"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
