"""Rows as pictures: places, colours and hatching of images, dropped patches, padding and numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import patchpack as pp
from helpers.drawn import photo
from patchpack.batch_info import BatchInfo
from patchpack.cli.commands.preview import first_rows
from patchpack.cli.pictures import rows, sheet
from patchpack.stream.sources.opening import open_source
from patchpack.types import Size

CROSSED, HATCHED = {sheet.INK, sheet.PAPER}, {sheet.HATCH, sheet.GROUND}


def colours(picture: Image.Image, left: int, right: int) -> set[str]:
    """Colours between two columns of the bar at the bottom of a picture, but for a gap at their end."""
    part = picture.crop((left, picture.height - 17, right - 2, picture.height - 1))
    return {"#{:02x}{:02x}{:02x}".format(*colour) for _, colour in part.getcolors(100_000) or ()}


def test_an_unreadable_image_is_drawn_at_its_place_in_the_row(tmp_path: Path) -> None:
    for i in range(4):
        photo(tmp_path / f"{i}.jpg", whole=i % 2 == 0, seed=i)
    source, recipe = open_source(str(tmp_path), target=None), rows.drawable(pp.recipes.siglip2_naflex(seq_len=1280))
    found = first_rows(source, recipe, 0)
    assert found.batch.slot_mask[0, :4].tolist() == [True, False, True, False]
    spans = [{sheet.hue(0)}, CROSSED, {sheet.hue(2)}, CROSSED, HATCHED]  # each of 256 tokens, a pixel for a token
    picture = rows.draw_rows(found.batch, plan=found.plan, width=1280)
    assert [colours(picture, 256 * i, 256 * (i + 1)) for i in range(5)] == spans
    # the batch alone cannot tell the last one from padding
    picture = rows.draw_rows(found.batch, width=1280)
    assert [colours(picture, 256 * i, 256 * (i + 1)) for i in range(3)] == spans[:3]
    assert colours(picture, 768, 1280) == HATCHED


def flat_row(lengths: list[int], seq_len: int) -> pp.PackedBatch:
    """A row of black images one patch high."""
    fill = seq_len - sum(lengths)
    columns = np.concatenate([*map(np.arange, lengths), np.zeros(fill)]).astype(np.int32)
    sizes = np.array([[(1, length) for length in lengths]], dtype=np.int32)
    return pp.PackedBatch(
        patches=np.zeros((1, seq_len, 768), dtype=np.uint8),
        position_ids=np.stack([0 * columns, columns], axis=-1)[None],
        segment_ids=np.repeat([*range(1, len(lengths) + 1), 0], [*lengths, fill]).astype(np.int32)[None],
        num_images=np.array([len(lengths)], dtype=np.int32),
        grid_sizes=sizes,
        source_sizes=16 * sizes,
        slot_mask=np.ones((1, len(lengths)), dtype=np.bool_),
        targets=None,
        norm=np.zeros((2, 3), dtype=np.float32),
        keys=[[str(slot) for slot in range(len(lengths))]],
        patch_size=16,
        info=BatchInfo(),
    )


@pytest.mark.parametrize("scale", [1, 3, 0.5])
def test_dropped_patches_are_hatched_at_any_scale(scale: float) -> None:
    image = next(pp.unpack(flat_row([4], 8)))
    image = image._replace(patches=image.patches[[0, 1, 3]], position_ids=image.position_ids[[0, 1, 3]])  # the third is gone
    side = round(16 * scale)
    picture = rows.picture_of(image, 16, Size(side, 4 * side))
    for column in range(4):
        patch = picture.crop((column * side, 0, (column + 1) * side, side))
        found = {"#{:02x}{:02x}{:02x}".format(*colour) for _, colour in patch.getcolors() or ()}
        assert found == (HATCHED if column == 2 else {"#000000"}), column


def test_numbers_that_do_not_fit_their_part_of_the_bar_are_left_out() -> None:
    batch = flat_row([5] * 24 + [400], 1024)  # a pixel for a token
    pictures = [rows.draw_rows(batch, width=1024, ids=ids) for ids in (True, False)]
    bars = [picture.crop((0, picture.height - rows.BAR, 1024, picture.height)) for picture in pictures]
    assert bars[0].crop((0, 0, 120, rows.BAR)).tobytes() == bars[1].crop((0, 0, 120, rows.BAR)).tobytes()
    assert bars[0].tobytes() != bars[1].tobytes()  # the long one has its number


def test_slot_numbers_never_touch() -> None:
    picture = rows.draw_rows(flat_row([1] * 24 + [400], 1024), width=1024, height=64, ids=True)
    hues = [tuple(bytes.fromhex(h[1:])) for h in sheet.HUES]
    for y in range(picture.height - rows.BAR):  # under every image a line in its colour, and the number below its left end
        starts = [
            x for x in range(1000) if picture.getpixel((x, y)) in hues and (x == 0 or picture.getpixel((x - 1, y)) not in hues)
        ]
        if len(starts) >= 24:
            break
    room = np.diff(starts[:25])
    assert all(room[i] >= sheet.font(12).getlength(str(i)) + 2 for i in range(23))
