"""Clips to steps of time: which frames are taken of a clip, and how many tubelets they make.

A clip is cut into tubelets of ``t x p x p`` pixels (ViViT 2103.15691): a token is a patch through t frames. An image is a clip
of one frame, and packing knows of neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from patchpack.plan._integers import Int64, ceil_div, require_int


@dataclass(frozen=True)
class Video:
    """How a recipe takes clips.

    Of T frames ``n = min(T, num_frames)`` are taken, the i-th being number ``floor((2 i + 1) T / (2 n))``: the middles of n
    equal parts, so all T where n = T. Where n is no multiple of the tubelet the last of them is repeated, as Qwen2-VL does; an
    image is its one frame t times.

    Attributes:
        tubelet: frames per token, t.
        num_frames: at most so many frames are taken of a clip; None for all.

    Raises:
        ConfigError: a number that is none, or below 1.

    Example:
        >>> Video(tubelet=2, num_frames=4).frame_numbers(10).tolist()
        [1, 3, 6, 8]
        >>> Video(tubelet=2).frame_numbers(3).tolist()
        [0, 1, 2, 2]
    """

    tubelet: int = 2
    num_frames: int | None = None

    def __post_init__(self) -> None:
        require_int("tubelet", self.tubelet, 1, 1 << 10)
        if self.num_frames is not None:
            require_int("num_frames", self.num_frames, 1, 1 << 20)

    @property
    def max_times(self) -> int | None:
        """Tubelets along time of the longest clip, ``ceil(num_frames / t)``; None where nothing limits it."""
        return None if self.num_frames is None else -(-self.num_frames // self.tubelet)

    def times(self, frames: Any) -> Int64:
        """Tubelets along time of clips of so many frames ``[n]``, int64: ``ceil(min(T, num_frames) / t)``."""
        return ceil_div(frames if self.num_frames is None else np.minimum(frames, self.num_frames), self.tubelet)

    def frame_numbers(self, frames: int) -> Int64:
        """Numbers of the frames that tubelets are cut from, int64 ``[times * t]``, of a clip of so many frames, >= 1."""
        taken = frames if self.num_frames is None else min(frames, self.num_frames)
        numbers: Int64 = (2 * np.arange(taken, dtype=np.int64) + 1) * frames // (2 * taken)
        return np.pad(numbers, (0, -taken % self.tubelet), mode="edge")


def with_time(ids: npt.NDArray[Any], times: int) -> npt.NDArray[Any]:
    """Position ids ``[n, A]`` of one step of time, as those of all: ``[times * n, 1 + A]``, the number of the step in front."""
    steps = np.repeat(np.arange(times, dtype=ids.dtype), len(ids))
    return np.concatenate([steps[:, None], np.tile(ids, (times, 1))], axis=1)
