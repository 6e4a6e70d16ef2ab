"""The settings for clips: which frames of a clip are used, and how many tubelets they make.

A clip is cut into tubelets of ``t x p x p`` pixels (ViViT 2103.15691). A token is a patch through t frames. An image is a
clip of one frame, and packing does not distinguish the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from patchpack.plan._integers import Int64, ceil_div, require_int


@dataclass(frozen=True)
class Video:
    """The settings for clips: frames per token, and frames per clip.

    A clip of T frames is cut into ``n = min(T, num_frames)`` equal parts, and the middle frame of each part is used. The middle
    of part i is frame ``floor((2 i + 1) T / (2 n))``. If n is not a multiple of `tubelet`, the last frame is repeated, as in
    Qwen2-VL. The frame of an image is repeated `tubelet` times.

    Attributes:
        tubelet: number of frames per token, >= 1. Default 2.
        num_frames: most frames that are used of a clip, >= 1. Default None, all frames.

    Raises:
        ConfigError: `tubelet` or `num_frames` is not an integer, or below 1.

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
        """Largest number of tubelets that a clip has along time: ``ceil(num_frames / tubelet)``, or None without a limit."""
        return None if self.num_frames is None else -(-self.num_frames // self.tubelet)

    def times(self, frames: npt.ArrayLike) -> Int64:
        """Return the number of tubelets along time of each clip, int64 ``[n]``: ``ceil(min(frames, num_frames) / tubelet)``."""
        return ceil_div(frames if self.num_frames is None else np.minimum(frames, self.num_frames), self.tubelet)

    def frame_numbers(self, frames: int) -> Int64:
        """Return the numbers of the used frames, int64 ``[times * tubelet]``, of a clip that has `frames` frames."""
        taken = frames if self.num_frames is None else min(frames, self.num_frames)
        numbers: Int64 = (2 * np.arange(taken, dtype=np.int64) + 1) * frames // (2 * taken)
        return np.pad(numbers, (0, -taken % self.tubelet), mode="edge")


def with_time(ids: np.ndarray, times: int) -> np.ndarray:
    """Return the position ids of a clip, ``[times * n, 1 + A]``. The argument `ids` has the ids for one time, ``[n, A]``.

    The first id of a token is the number of its time, from 0.
    """
    steps = np.repeat(np.arange(times, dtype=ids.dtype), len(ids))
    return np.concatenate([steps[:, None], np.tile(ids, (times, 1))], axis=1)
