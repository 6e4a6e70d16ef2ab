"""A name or a function that a user gives is used, or refused with the cure: in every kind of source and item."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

import patchpack as pp
from helpers.captioned import write_tar

RECIPE = pp.Recipe(resize=pp.resize.NaFlex(4), patch_size=16, seq_len=16, rows_per_batch=1)


def png(height: int = 16) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, height), "teal").save(file, "png")
    return file.getvalue()


def picture() -> Image.Image:
    return Image.new("RGB", (32, 16))


NAMELESS: dict[str, Any] = {
    "a pair": (picture(), 1),
    "a patchpack.Sample": pp.Sample("a", png(), 1),
}


@pytest.mark.parametrize("options", [{"image": "tif"}, {"target": "jsn"}, {"image": "tif", "target": "jsn"}], ids=str)
@pytest.mark.parametrize("what", NAMELESS)
def test_a_name_for_an_item_without_names_is_refused(what: str, options: dict[str, str]) -> None:
    """It was not used, and nothing said so."""
    said = f"item 0 is {what}, which has no names, so .*{list(options.values())[-1]}.* cannot be used"
    with pytest.raises(pp.errors.SourceError, match=said):
        list(pp.load([NAMELESS[what]], RECIPE, **options))
    with pytest.raises(pp.errors.SourceError, match=said):
        list(pp.Pack(RECIPE, **options)([NAMELESS[what]]))
    assert list(pp.load([NAMELESS[what]], RECIPE, target=None))


@pytest.mark.parametrize("image", [picture(), [picture(), picture()]], ids=["an image", "a list of images"])
def test_a_name_for_images_alone_is_refused(image: Any) -> None:
    with pytest.raises(pp.errors.SourceError, match="which has no names, so image='tif' cannot be used"):
        list(pp.load([image], RECIPE, target=None, image="tif"))


@pytest.mark.parametrize("options", [{"image": "tif"}, {"target": "jsn"}], ids=str)
def test_a_name_beside_to_sample_is_refused(options: dict[str, str]) -> None:
    for make in (lambda **given: pp.load([1], RECIPE, **given), lambda **given: pp.Pack(RECIPE, **given)):
        with pytest.raises(pp.errors.ConfigError, match=r"cannot be used, because to_sample= makes the (image|label)"):
            make(to_sample=lambda number, item: pp.Sample(str(number), picture(), 1), **options)


def test_to_sample_of_files_is_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"0": {"png": png(), "cls": b"0"}})
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(png())
    for source in (tmp_path / "a.tar", tmp_path):
        with pytest.raises(pp.errors.ConfigError, match="to_sample= is for the items of a dataset or an iterable"):
            pp.load(source, RECIPE, to_sample=lambda number, item: item, classes=None)


@pytest.mark.parametrize("name", ["map_target", "to_sample", "size_of"])
def test_what_is_no_function_is_refused(name: str) -> None:
    with pytest.raises(pp.errors.ConfigError, match=f"{name} must be a function, got a dict"):
        pp.load([NAMELESS["a pair"]], RECIPE, **{name: {0: 1}})


class Keyed(torch.utils.data.Dataset[Any]):
    """Samples with keys of their own."""

    def __init__(self, key: str) -> None:
        self.key = key

    def __len__(self) -> int:
        return 2

    def __getitem__(self, number: int) -> pp.Sample:
        return pp.Sample(self.key.format(number), picture(), number)


@pytest.mark.parametrize("sizes", [None, np.array([[16, 32]] * 2)], ids=["read", "known"])
def test_a_key_that_would_not_be_used_is_refused(sizes: Any) -> None:
    """The number took its place."""
    with pytest.raises(
        pp.errors.SourceError, match=r"item 0 is a Sample with the key 'img0', but the key of an item of this dataset must"
    ):
        list(pp.load(Keyed("img{}"), RECIPE, sizes=sizes))
    assert [batch.keys for batch in pp.load(Keyed("{}"), RECIPE, sizes=sizes)] == [[["0", "1"]]]


@pytest.mark.parametrize("key", [None, b"k"])
def test_a_key_that_is_no_text_is_refused(key: Any) -> None:
    with pytest.raises(TypeError, match="the key of a sample must be a str, got"):
        pp.Sample(key, picture())


def test_the_label_beside_an_image_is_no_image(tmp_path: Path) -> None:
    """Masks were packed as images, each with itself as its label."""
    for number in range(2):
        (tmp_path / f"{number}.jpg").write_bytes(png(16 * (number + 1)))
        (tmp_path / f"{number}.png").write_bytes(png())
    (batch,) = pp.load(tmp_path, RECIPE, target="png")
    assert batch.keys == [["0.jpg", "1.jpg"]]
    write_tar(tmp_path / "a.tar", {"0": {"jpg": png(), "png": b"label"}})
    (batch,) = pp.load(tmp_path / "a.tar", RECIPE, target="png")
    assert batch.targets[0][0] == b"label"
    (batch,) = pp.load([tmp_path / "0.png"], RECIPE, image="png", target="png")  # as the user says
    assert batch.targets[0][0] == png()


UNORDERED: dict[str, Any] = {
    "set": {"cat", "dog"},
    "frozen set": frozenset({"cat"}),
    "dict": {"cat": 0},
    "text": "cat",
    "nothing": [],
}


@pytest.mark.parametrize("classes", UNORDERED.values(), ids=UNORDERED)
def test_classes_without_an_order_are_refused(tmp_path: Path, classes: Any) -> None:
    """A set numbered them in the order of its hashes."""
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(png())
    with pytest.raises(pp.errors.ConfigError, match="classes= must be a list of different names of folders"):
        pp.load(tmp_path, RECIPE, classes=classes)
    assert pp.load(tmp_path, RECIPE, classes=np.array(["dog", "cat"])).classes == ["dog", "cat"]


def test_a_list_of_files_keeps_its_order(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(png())
    order = [tmp_path / f"{number}.png" for number in (3, 0, 2, 1, 0)]
    loader = pp.load(order, RECIPE, target=None, on_error="skip")
    assert [key for batch in loader for row in batch.keys for key in row] == ["3.png", "0.png", "2.png", "1.png"]
    assert [rejection.key for rejection in loader.report().rejected] == ["0.png"]


def test_a_file_that_is_there_is_no_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x{1..2}.png", "x1.png", "x2.png", "pipe:z.png"):
        Path(name).write_bytes(png())
    for path in (Path("x{1..2}.png"), "x{1..2}.png", Path("pipe:z.png")):
        loader = pp.load([path], RECIPE, target=None)
        assert [key for batch in loader for row in batch.keys for key in row] == [str(path)]


def test_options_that_are_none_are_refused_by_name() -> None:
    with pytest.raises(pp.errors.ConfigError, match="fuse= is no option of load"):
        pp.pack_images([picture()], RECIPE, fuse=3)
    with pytest.raises(pp.errors.ConfigError, match="num_workers must be an integer in 0"):
        pp.load([NAMELESS["a pair"]], RECIPE, num_workers=-1)
    with pytest.raises(pp.errors.ConfigError, match="QwenVLProcessor has no field max_pixel; did you mean 'max_pixels'"):
        pp.adapters.QwenVLProcessor.like(pp.adapters.QwenVLProcessor(), max_pixel=3)
    for std in ((0.0, 1.0, 1.0), (float("nan"), 1.0, 1.0)):
        with pytest.raises(pp.errors.ConfigError, match="MeanStd takes numbers on the 0-1 scale"):
            pp.normalize.MeanStd((0.5, 0.5, 0.5), std)
    table = datasets.Dataset.from_dict({"image": [{"bytes": png(), "path": None}]}).cast_column("image", datasets.Image())
    with pytest.raises(pp.errors.SourceError, match="a Column is one column of a data set: pass the data set"):
        pp.load(table["image"], RECIPE, target=None)


NO_PAIRS = [((picture(), 1, 2), "which is 3 members, not a pair"), ((1, picture()), "a int, a Image")]


@pytest.mark.parametrize(("item", "said"), NO_PAIRS, ids=["three", "swapped"])
def test_what_is_no_pair_says_so(item: Any, said: str) -> None:
    with pytest.raises(pp.errors.SourceError, match=said) as caught:
        list(pp.load([item], RECIPE))
    assert "target=None" not in str(caught.value)
