"""Recipe(formats=...): formats for which the user registered a Pillow plugin, from every source, and from no other recipe."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset as wds
from PIL import Image, ImageFile

import patchpack as pp
from helpers.reprs import NAMES
from patchpack.image.decode import decode
from patchpack.image.size import read_size, read_size_at

MAGIC = b"toyIMAGE"
RECIPE = pp.recipes.siglip2_naflex(max_patches=16, seq_len=64, rows_per_batch=1)
ASKED = RECIPE.replace(formats=("TOY",))


class ToyImage(ImageFile.ImageFile):
    """Sides, and the pixels as they are."""

    format, format_description = "TOY", "a format that Pillow does not know"

    def _open(self) -> None:
        assert self.fp is not None
        _, width, height = struct.unpack("<8sII", self.fp.read(16))
        self._size, self._mode = (width, height), "RGB"
        self.tile = [ImageFile._Tile("raw", (0, 0, width, height), 16, ("RGB", 0, 1))]


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    Image.register_open("TOY", ToyImage, lambda start: start.startswith(MAGIC))
    Image.register_extension("TOY", ".toy")
    yield
    Image.ID.remove("TOY")
    del Image.OPEN["TOY"], Image.EXTENSION[".toy"]


def toy(number: int = 0, height: int = 60, width: int = 90) -> bytes:
    pixels = np.full((height, width, 3), (10 + number, 20, 30), dtype=np.uint8)
    return struct.pack("<8sII", MAGIC, width, height) + pixels.tobytes()


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (90, 60)).save(file, "PNG")
    return file.getvalue()


def of(loader: Any) -> list[list[int]]:
    """The first pixel of every packed image."""
    return sorted(i.patches[0, :3].tolist() for batch in loader for i in pp.unpack(batch))


EXPECTED = [[10, 20, 30], [11, 20, 30]]


def test_a_header_is_read() -> None:
    assert read_size(toy(), formats=("TOY",)) == (60, 90)
    for height in (1, 200):  # in the first part of the file, and a longer file
        data = toy(height=height)
        assert read_size_at(lambda at, n, data=data: data[at : at + n], len(data), formats=("TOY",)) == (height, 90)
    assert decode(toy(), formats=("TOY",))[0, 0].tolist() == [10, 20, 30]
    with pytest.raises(pp.errors.DecodeError, match=r"expected at most 99 pixels"):
        read_size(toy(), max_pixels=99, formats=("TOY",))
    with pytest.raises(
        pp.errors.DecodeError, match=r"readable JPEG, .*AVIF or TOY file, got 17 bytes that start with b'no image"
    ):
        read_size(b"no image at all, ", formats=("TOY",))


def test_no_recipe_takes_a_format_it_does_not_name() -> None:
    loader = pp.pack_images({"bytes": toy(), "png": png()}, RECIPE, on_error="skip")
    assert of(loader) == [[0, 0, 0]]
    (rejection,) = loader.report().rejected
    assert rejection.reason.startswith("expected a readable JPEG")


@pytest.mark.parametrize("decode", ["exact", "draft"])
@pytest.mark.parametrize("workers", [0, 1])
def test_images_in_memory(decode: Any, workers: int) -> None:
    recipe = ASKED.replace(decode=decode)
    assert of(pp.pack_images([toy(), toy(1)], recipe, num_workers=workers)) == EXPECTED
    assert of(pp.load([(toy(i), i) for i in range(2)], recipe, tail="pad", num_workers=workers)) == EXPECTED


def test_two_files_in_a_tuple_are_two_images() -> None:
    assert of(pp.load([(toy(), toy(1))], ASKED, target=None, tail="pad")) == EXPECTED


@pytest.mark.parametrize("painters", [{}, {"num_workers": 1}, {"num_threads": 1}])
def test_folders_take_the_plugins_extensions_and_first_bytes(tmp_path: Path, painters: Any) -> None:
    (tmp_path / "a").mkdir()
    for number, name in enumerate(("0.toy", "1")):
        (tmp_path / "a" / name).write_bytes(toy(number))
    assert of(pp.load(tmp_path, ASKED, tail="pad", **painters)) == EXPECTED
    (tmp_path / "a/2.png").write_bytes(png())
    assert of(pp.load(tmp_path, RECIPE, tail="pad")) == [[0, 0, 0]]
    assert of(pp.pack_images(sorted((tmp_path / "a").iterdir()), ASKED)) == [[0, 0, 0], *EXPECTED]


def test_shards_and_indexes(tmp_path: Path) -> None:
    shard = str(tmp_path / "s-0.tar")
    with wds.TarWriter(shard) as writer:
        for i in range(2):
            writer.write({"__key__": f"{i:04}", "toy": toy(i), "cls": i})
    for painters in ({}, {"num_workers": 1}, {"num_threads": 1}):
        assert of(pp.load(shard, ASKED, image="toy", tail="pad", **painters)) == EXPECTED
    index = pp.Index.build(shard, image="toy", formats=("TOY",))
    index.save(tmp_path / "i.idx")
    opened = pp.Index.open(tmp_path / "i.idx")
    assert of(pp.load(opened, ASKED, tail="pad")) == EXPECTED
    assert opened.fingerprint == index.fingerprint
    with pytest.raises(
        pp.errors.ConfigError, match=r"formats differs: the index to update was made for \('TOY',\), this one is"
    ):
        pp.Index.build(shard, image="toy", update=opened)
    assert pp.Index.build(shard, image="toy", formats=("TOY",), update=opened).fingerprint == index.fingerprint


def test_a_replay_reads_them_too() -> None:
    image = pp.replay([pp.Sample("a", toy(1))], ASKED, "a", epoch=0, step=0, target=None)
    assert image.patches[0, :3].tolist() == [11, 20, 30]


@pytest.mark.parametrize("formats", [["toy"], ("toy",), "TOY", ("",), (7,)])
def test_formats_are_names_in_capitals(formats: Any) -> None:
    with pytest.raises(pp.errors.ConfigError, match="formats must be a tuple of Pillow's names"):
        RECIPE.replace(formats=formats)


def test_a_format_that_nobody_registered_is_refused_at_the_start() -> None:
    recipe = RECIPE.replace(formats=("TOYS",))
    for begin in (
        lambda: pp.load([pp.Sample("a", toy())], recipe),
        lambda: pp.pack_images([toy()], recipe),
        lambda: decode(toy(), formats=("TOYS",)),
        lambda: pp.Index.build("s.tar", formats=("TOYS",)),
    ):
        with pytest.raises(pp.errors.ConfigError, match="Pillow has no plugin for 'TOYS' in this process: register one first"):
            begin()


def test_a_recipe_that_reads_otherwise_is_another_recipe() -> None:
    loader = pp.load([pp.Sample(str(i), png()) for i in range(3)], RECIPE, target=None, tail="pad")
    next(iter(loader))
    state = loader.state_dict()
    for change in ({"formats": ("TOY",)}, {"deep": "range"}, {"icc": "srgb"}):
        changed = RECIPE.replace(**change)
        (name,) = change
        assert eval(repr(changed), NAMES) == changed
        with pytest.raises(pp.errors.ConfigError, match=f"recipe.{name} differs"):
            pp.load([pp.Sample(str(i), png()) for i in range(3)], changed, target=None, tail="pad").load_state_dict(state)


@pytest.mark.parametrize("change", [{"deep": "auto"}, {"icc": True}])
def test_other_values_are_refused(change: Any) -> None:
    with pytest.raises(pp.errors.ConfigError, match="must be one of"):
        RECIPE.replace(**change)
