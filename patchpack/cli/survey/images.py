"""A pass over a source that decodes every image, to find sizes, kinds, and samples that cannot be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from patchpack.errors import SampleError, SourceError, TargetError
from patchpack.image.decode import open_image, to_rgb
from patchpack.losses import Rejection, ShardFault
from patchpack.stream.sample.source import Source
from patchpack.types import Event, Header

OFF_SQUARE = 1.2  # NaViT counts images whose aspect ratio deviates by more than 20 %


SizeTable = npt.NDArray[np.int32] | npt.NDArray[np.int64]  # [n, 2], height and width in pixels


def aspects_of(sizes: SizeTable) -> npt.NDArray[np.float64]:
    """Return width / height of every image."""
    heights, widths = sizes.T
    aspects: npt.NDArray[np.float64] = widths / heights
    return aspects


def native_tokens_of(sizes: SizeTable) -> npt.NDArray[np.int64]:
    """Return the number of patches of 16 x 16 pixels that cover every image."""
    tokens: npt.NDArray[np.int64] = np.prod(-(-sizes // 16), axis=1)
    return tokens


class Survey(NamedTuple):
    """The images of a source.

    Attributes:
        sizes: sizes of the readable images.
        keys: keys of the images, on which random draws depend, one per size.
        formats: number of images of each file format.
        modes: number of images of each Pillow mode.
        rejected: samples that cannot be used.
        faults: shards that could not be read to their end.
        complete: False if the pass stopped at the limit of samples.
        ignored: number of files of a folder, by extension, that are not images.
    """

    sizes: SizeTable
    keys: list[str]
    formats: Counter[str]
    modes: Counter[str]
    rejected: list[Rejection]
    faults: list[ShardFault]
    complete: bool
    ignored: Mapping[str, int] = MappingProxyType({})

    @property
    def aspects(self) -> npt.NDArray[np.float64]:
        """Width / height of every image."""
        return aspects_of(self.sizes)

    @property
    def off_square(self) -> npt.NDArray[np.bool_]:
        """A mask: True for images with one side more than 20 % longer than the other."""
        # in integers: 1.2 has no exact float
        off: npt.NDArray[np.bool_] = 10 * self.sizes.max(axis=1) > round(10 * OFF_SQUARE) * self.sizes.min(axis=1)
        return off

    @property
    def native_tokens(self) -> npt.NDArray[np.int64]:
        """Number of patches of 16 x 16 pixels that cover every image."""
        return native_tokens_of(self.sizes)


def survey(source: Source, events: Iterable[Event]) -> Survey:
    """Decode every image once. Return sizes and kinds of the readable images, and the reasons why others cannot be read.

    Args:
        source: the source.
        events: headers, rejections and faults of the source's scan.
    """
    sizes, keys, rejected, faults = [], [], [], []
    formats: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    for event in events:
        if isinstance(event, Rejection):
            rejected.append(event)
        elif isinstance(event, ShardFault):
            faults.append(event)
        else:
            for header in event.images:
                try:
                    format_name, mode = _kind_of(source, header)
                except (SampleError, SourceError, OSError) as error:
                    stage = "target" if isinstance(error, TargetError) else "decode"
                    rejected.append(Rejection(header.shard, header.key, header.member, stage, str(error)))
                    continue
                sizes.append(header.size)
                keys.append(header.draw_key)
                formats[format_name] += 1
                modes[mode] += 1
    table = np.array(sizes, dtype=np.int64).reshape(-1, 2)
    return Survey(table, keys, formats, modes, rejected, faults, complete=True, ignored=source.ignored)


def _kind_of(source: Source, header: Header) -> tuple[str, str]:
    data, _ = source.reader(header.location)
    picture = open_image(data)
    kind = picture.format or "?", picture.mode
    to_rgb(picture)  # the pixels may be damaged below a valid header
    return kind
