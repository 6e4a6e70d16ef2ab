"""The painting of a clip's tubelets (patches through several frames). A frame is decoded only if one of its patches is kept."""

from __future__ import annotations

import numpy as np

from patchpack.errors import DecodeError, SourceError
from patchpack.image.picture import frame_at, frame_count, frames_of
from patchpack.paint.augment import change_of
from patchpack.paint.layout import PlacedImage
from patchpack.paint.part import part_of_picture
from patchpack.paint.resample import write_pixels
from patchpack.plan.recipe import Recipe
from patchpack.types import BatchPlan


def paint_clip(out: np.ndarray, image: object, placed: PlacedImage, plan: BatchPlan, recipe: Recipe) -> None:
    """Write the kept tubelets of a clip. An image counts as a clip of one frame.

    All frames are cropped, mirrored and augmented in the same way. A repeated frame is decoded once and copied. The frames of
    one tubelet are a step of time. If no tubelet of a step is kept, the frames of this step are not decoded.

    Args:
        out: contiguous array ``[len(placed.kept), t * patch_size**2 * 3]`` of the recipe's dtype. The function writes into this
            array. t is the number of frames in a tubelet.
        image: the clip or image, a value of `Sample.image` but not a list.
        placed: the place of the clip in the batch.
        plan: plan of the batch.
        recipe: recipe of the batch, with `video`.

    Raises:
        SourceError: a frame cannot be read. The message has the number of the frame.
        DecodeError: a frame cannot be decoded, or its size differs from the plan. The message has the number of the frame. This
            error is also raised if the number of frames differs from the plan.
    """
    assert recipe.video is not None  # without it no image is a clip
    frames = frames_of(image)
    alone = frames is None
    frames = [image] if frames is None else frames
    count = frame_count(frames)
    if count != placed.header.frames:
        raise DecodeError(f"expected {placed.header.frames} frames, as the header said, got {count}")
    tubelet, per_step = recipe.video.tubelet, placed.grid.num_patches
    numbers = recipe.video.frame_numbers(count).reshape(-1, tubelet).tolist()
    edges = np.searchsorted(placed.kept, np.arange(placed.times + 1) * per_step).tolist()
    for step, of_tubelet in enumerate(numbers):
        begin, end = edges[step : step + 2]
        if begin == end:
            continue
        own, kept = out[begin:end], placed.kept[begin:end] - step * per_step
        places = placed.places[step * placed.grid.rows : (step + 1) * placed.grid.rows]
        places = places if begin == 0 else np.where(places < 0, places, places - begin)
        for at, number in enumerate(of_tubelet):
            if at and number == of_tubelet[at - 1]:
                by_frame = own.reshape(len(own), tubelet, -1)
                by_frame[:, at] = by_frame[:, at - 1]
                continue
            try:
                picture, box = part_of_picture(frame_at(frames, number), placed.header.size, placed.box, placed.resized, recipe)
            except (DecodeError, SourceError) as error:
                if alone:
                    raise
                raise type(error)(f"frame {number} of {count}: {error}") from error
            change = change_of(recipe, plan.epoch, placed.header.draw_key)  # made again, so that every frame has the same draws
            write_pixels(
                own, picture, box, placed.resized, placed.flip, placed.grid, kept, plan.patch_size, recipe, places, change,
                frame=(at, tubelet),
            )  # fmt: skip
