"""Files over a limit of bytes are refused unread in every source; sizes that turn out wrong, in every way to decode."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import patchpack as pp
from helpers.hard_images import Hard, saved, tiled_tiff, turned, two_sizes, write_shard
from helpers.opening import opened
from patchpack.image.decode import decode, open_image
from patchpack.image.formats import MAX_BYTES, MAX_PIXELS
from patchpack.losses import Rejection
from patchpack.paint.part import part_of_picture
from patchpack.stream.sources.opening import open_source
from patchpack.stream.tar import shards
from patchpack.stream.tar.members import HELD_BYTES
from patchpack.types import Header, Size

LIMIT = 5000
RECIPE = pp.recipes.square(size=32, rows_per_batch=4, max_bytes=LIMIT)
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))


def of_bytes(count: int) -> bytes:
    """A PNG of so many bytes: what follows its end does not matter."""
    data = saved(PICTURE, "PNG")
    assert len(data) <= count
    return data.ljust(count, b"\0")


FILES = [
    Hard("a.png", of_bytes(LIMIT), (30, 40)),
    Hard("b.png", of_bytes(LIMIT + 1), None),
    Hard("c.png", of_bytes(4500), (30, 40)),
]
REASON = f"expected a file of at most max_bytes={LIMIT} bytes, got {LIMIT + 1}"


def in_shard(tmp_path: Path) -> Any:
    return write_shard(tmp_path / "a.tar", FILES)


def in_stream(tmp_path: Path) -> Any:
    return f"pipe:cat {in_shard(tmp_path)}"


def in_folder(tmp_path: Path) -> Any:
    for file in FILES:
        (tmp_path / "folder" / "0").mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / "0" / file.name).write_bytes(file.data)
    return tmp_path / "folder"


def in_rows(tmp_path: Path) -> Any:
    folder = in_folder(tmp_path)
    return [{"image": {"bytes": None, "path": str(folder / "0" / file.name)}, "label": 0} for file in FILES]


SOURCES: dict[str, Callable[[Path], Any]] = {
    "shard": in_shard,
    "stream": in_stream,
    "folder": in_folder,
    "rows with paths": in_rows,
    "samples": lambda _: [pp.Sample(file.name, file.data, 0) for file in FILES],
    "views": lambda _: [pp.Sample(file.name, memoryview(file.data).cast("b"), 0) for file in FILES],  # type: ignore[arg-type]
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_file_of_too_many_bytes_is_refused_in_every_source(source: str, tmp_path: Path) -> None:
    loader = pp.load(SOURCES[source](tmp_path), RECIPE, on_error="skip")
    (batch,) = loader
    assert batch.info.packed == 2
    (rejection,) = loader.report().rejected
    assert (rejection.stage, rejection.reason) == ("header", REASON)
    assert "001" in rejection.key or "b.png" in rejection.key or rejection.key == "1"


def test_where_sizes_are_known_the_bytes_are_counted_when_they_come() -> None:
    rows = [(file.data, 0) for file in FILES]
    loader = pp.load(rows, RECIPE, sizes=[[30, 40]] * 3, on_error="skip")
    list(loader)
    assert [(r.key, r.stage, r.reason) for r in loader.report().rejected] == [("1", "decode", REASON)]


def test_a_stage_of_a_pipeline_has_the_limit_too() -> None:
    samples = (pp.Sample(file.name, file.data, 0) for file in FILES)
    (batch,) = pp.Pack(RECIPE, on_error="skip")(samples)
    assert [(r.stage, r.reason) for r in batch.info.rejections] == [("header", REASON)]


def test_an_index_has_a_limit_of_its_own_and_keeps_the_recipes(tmp_path: Path) -> None:
    path = in_shard(tmp_path)
    narrow, wide = pp.Index.build(path, max_bytes=LIMIT), pp.Index.build(path)
    narrow.save(tmp_path / "narrow.index")
    assert pp.Index.open(tmp_path / "narrow.index").members.limits.max_bytes == LIMIT
    assert narrow.fingerprint != wide.fingerprint
    with pytest.raises(pp.errors.ConfigError, match=r"max_.* differs: the index to update was made for"):
        pp.Index.build(path, update=narrow)
    assert [(r.stage, r.reason) for r in narrow.rejections] == [("header", REASON)]
    assert wide.num_bytes.tolist() == [LIMIT, LIMIT + 1, 4500]
    for index in (narrow, wide):
        for rank in (0, 1):  # the first one tells
            loader = pp.load(index, RECIPE.replace(rows_per_batch=1), on_error="skip", rank=rank, world_size=2, tail="pad")
            list(loader)
            assert [(r.stage, r.reason) for r in loader.report().rejected] == [("header", REASON)] * (rank == 0)


def test_nothing_of_such_a_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = in_shard(tmp_path)
    large = pp.Index.build(path).headers([1])[0].location.image
    reads: list[tuple[int, int]] = []

    def watched(file: int, length: int, offset: int) -> bytes:
        reads.append((offset, offset + length))
        return os.pread(file, length, offset)

    monkeypatch.setattr(shards, "read_at", watched)
    events = list(opened(path, max_bytes=LIMIT).scan())
    assert [type(event) for event in events] == [Header, Rejection, Header]
    assert reads
    assert not any(begin < sum(large) and stop > large[0] for begin, stop in reads)


def test_of_a_stream_such_a_member_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    make = shards._inline_event

    def watched(group: Any, *others: Any) -> Any:
        held.append([len(m.data or b"") for name, m in group.members.items() if name == "png"])
        return make(group, *others)

    monkeypatch.setattr(shards, "_inline_event", watched)
    list(opened(in_stream(tmp_path), max_bytes=LIMIT).scan())
    assert held == [[LIMIT], [0], [4500]]


def test_a_file_that_grew_since_it_was_planned_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = in_folder(tmp_path)
    reader = opened(folder, max_bytes=LIMIT).reader
    assert len(reader("0/a.png")[0]) == LIMIT
    (folder / "0" / "a.png").write_bytes(of_bytes(LIMIT + 1))
    with pytest.raises(pp.errors.DecodeError, match=REASON):
        reader("0/a.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    folder = in_folder(tmp_path)
    os.mkfifo(folder / "0" / "pipe.png")
    (folder / "0" / "device.png").symlink_to("/dev/zero")
    events = {e.key: e for e in open_source(folder).scan() if isinstance(e, Rejection)}
    assert {key: (e.stage, e.reason) for key, e in events.items()} == dict.fromkeys(
        ("0/pipe.png", "0/device.png"), ("read", "OSError: is not a regular file")
    )


def test_the_limit_leaves_room_for_the_largest_picture_uncompressed() -> None:
    assert 8 * MAX_PIXELS <= MAX_BYTES == pp.recipes.navit().max_bytes <= HELD_BYTES
    assert pp.recipes.navit().max_pixels == MAX_PIXELS
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(pp.errors.ConfigError, match="max_bytes"):
            RECIPE.replace(max_bytes=wrong)


def test_pixels_of_a_tile_count_as_those_of_a_picture() -> None:
    """It is decoded whole: a file of 154 bytes would take as many as it announces."""
    with pytest.raises(pp.errors.DecodeError, match=r"at most 64000000 pixels, got an image in tiles of 16384 x 16384"):
        open_image(tiled_tiff(10, 16_384))
    assert open_image(tiled_tiff(10, 256), max_pixels=65_536).size == (10, 10)
    with pytest.raises(pp.errors.DecodeError, match="got an image in tiles of 256 x 256"):
        open_image(tiled_tiff(10, 256), max_pixels=65_535)


# ------------------------------------------------------------------------------------------------- sizes that are wrong


GREY = PICTURE.convert("L")
# 30 x 40 as one looks at it, in every form and on every way through the decoder
FORMS: dict[str, Any] = {
    "jpeg": saved(PICTURE, "JPEG"),
    "jpeg on its side": saved(PICTURE.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=turned(6)),
    "grey jpeg": saved(GREY, "JPEG"),
    "png": saved(PICTURE, "PNG"),
    "tiff": saved(PICTURE, "TIFF"),
    "bytearray": bytearray(saved(PICTURE, "JPEG")),
    "memoryview": memoryview(saved(PICTURE, "PNG")),
    "array": np.asarray(PICTURE),
    "array, every other row": np.asarray(PICTURE).repeat(2, axis=0)[::2],
    "PIL": PICTURE,
    "PIL, grey": GREY,
}


@pytest.mark.parametrize("decode", ["exact", "draft", "simplejpeg"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("form", FORMS)
def test_a_picture_of_another_size_is_refused_with_both(form: str, dtype: Any, decode: Any) -> None:
    recipe = pp.recipes.square(size=16, dtype=dtype, decode=decode)
    part, box = part_of_picture(FORMS[form], Size(30, 40), (0, 0, 30, 40), (16, 16), recipe)
    assert box == (0, 0, 30, 40)
    assert part is not None
    for height, width in ((40, 30), (31, 40), (30, 39), (1, 1), (3000, 4000)):
        with pytest.raises(pp.errors.DecodeError) as error:
            part_of_picture(FORMS[form], Size(height, width), (0, 0, height, width), (16, 16), recipe)
        assert f"expected {height} x {width} pixels (height x width), as the header said, got 30 x 40" in str(error.value)


@pytest.mark.parametrize("decode", ["exact", "draft", "simplejpeg"])
@pytest.mark.parametrize("form", ["jpeg", "png", "array", "PIL"])
def test_sizes_that_lie_cost_only_their_image(form: str, decode: Any) -> None:
    rows = [(FORMS[form], label) for label in range(4)]
    recipe = pp.recipes.siglip2_naflex(max_patches=16, rows_per_batch=1, decode=decode)
    honest, lying = (
        list(pp.load(rows, recipe, sizes=[[30, 40], [30, 40], size, [30, 40]], on_error="skip"))
        for size in ([30, 40], [40, 30])
    )
    (batch,) = lying
    (rejection,) = batch.info.rejections
    assert (rejection.key, rejection.stage) == ("2", "decode")
    assert rejection.reason == "expected 40 x 30 pixels (height x width), as the header said, got 30 x 40"
    assert batch.slot_mask[0, :4].tolist() == [True, True, False, True]
    for key in "013":
        ours, theirs = (next(i for i in pp.unpack(b[0]) if i.key == key) for b in (lying, honest))
        assert pp.digest(ours) == pp.digest(theirs)
    assert not batch.patches[0][batch.segment_ids[0] == 0].any()


@pytest.mark.parametrize("way", ["exact", "draft", "simplejpeg"])
def test_a_jpeg_with_two_frame_headers_is_refused(way: Any) -> None:
    data = two_sizes(saved(PICTURE, "JPEG"))
    with pytest.raises(pp.errors.DecodeError, match="expected a complete JPEG"):
        decode(data)
    recipe = pp.recipes.square(size=16, decode=way)
    for size in (Size(30, 40), Size(30, 60)):
        with pytest.raises(pp.errors.DecodeError):
            part_of_picture(data, size, (0, 0, *size), (16, 16), recipe)
