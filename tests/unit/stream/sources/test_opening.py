"""Folders and iterables: which samples they give, with which key and label, and what is said about the rest."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

import patchpack as pp
from helpers.opening import opened
from patchpack.stream.sources.folders import FolderSource
from patchpack.stream.sources.opening import open_source
from patchpack.types import Header, Size

RECIPE = pp.Recipe(resize=pp.resize.Native(64), patch_size=2, seq_len=64, max_images=8, rows_per_batch=1)


def pixels(value: int, height: int = 6, width: int = 4) -> Any:
    return np.full((height, width, 3), value, dtype=np.uint8)


def png(value: int, **size: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels(value, **size)).save(file, "PNG")
    return file.getvalue()


def noise_png() -> bytes:
    """A file long enough to be cut inside its pixels."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Makes files; their names are given by the test."""
    root = tmp_path / "photos"
    root.mkdir()
    return root


def fill(root: Path, *names: str) -> None:
    for value, name in enumerate(names, 1):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(value))


def headers(source: Any, **options: Any) -> list[Header]:
    events = list(open_source(source, **options).scan())
    assert all(isinstance(event, Header) for event in events), events
    return events  # type: ignore[return-value]


def labels(source: Any, **options: Any) -> dict[str, Any]:
    """Key to label, of everything in a source."""
    there = open_source(source, **options)
    return {event.key: there.reader(event.location)[1] for event in there.scan() if isinstance(event, Header)}


def rejections(source: Any, **options: Any) -> list[tuple[str, str]]:
    return [(event.key, event.stage) for event in opened(source, **options).scan() if isinstance(event, pp.Rejection)]


# ------------------------------------------------------------------------------------------------------------- folders


def test_class_subfolders_are_labels_in_sorted_order(folder: Path) -> None:
    fill(folder, "zebra/1.png", "ant/2.png", "Bear/1.png")
    assert labels(folder) == {"Bear/1.png": 0, "ant/2.png": 1, "zebra/1.png": 2}
    source = open_source(folder)
    assert isinstance(source, FolderSource)
    assert source.class_names == ["Bear", "ant", "zebra"]


def test_folders_may_be_nested(folder: Path) -> None:
    fill(folder, "a/x/1.png", "a/y/1.png", "b/1.png")
    assert labels(str(folder)) == {"a/x/1.png": 0, "a/y/1.png": 0, "b/1.png": 1}


def test_the_order_is_that_of_the_paths(folder: Path) -> None:
    fill(folder, "b/2.png", "a/9.png", "b/1.png", "a/10.png")
    assert [h.key for h in headers(folder)] == ["a/10.png", "a/9.png", "b/1.png", "b/2.png"]


def test_headers_say_size_and_place(folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "a" / "1.png").write_bytes(png(1, height=3, width=5))
    (header,) = headers(folder)
    assert header[:4] == ("a/1.png", "photos/", "1.png", (3, 5))


def test_extensions_may_be_upper_case(folder: Path) -> None:
    fill(folder, "a/1.PNG", "a/2.Png", "a/3.jpeg")
    assert len(headers(folder)) == 3


def test_other_files_are_left_alone(folder: Path) -> None:
    fill(folder, "a/1.png", "a/readme.txt", "a/1.png.bak", "a/2.gif")
    assert [h.key for h in headers(folder)] == ["a/1.png", "a/2.gif"]
    assert [h.key for h in headers(folder, image="gif")] == ["a/2.gif"]


def test_hidden_files_and_folders_are_left_alone(folder: Path) -> None:
    fill(folder, "a/1.png", "a/._1.png", ".thumbnails/1.png", "a/.trash/1.png")
    assert labels(folder) == {"a/1.png": 0}


def test_a_hidden_folder_may_be_asked_for(tmp_path: Path) -> None:
    fill(tmp_path / ".cache", "a/1.png")
    assert labels(tmp_path / ".cache") == {"a/1.png": 0}


def test_a_flat_folder_has_no_labels(folder: Path) -> None:
    fill(folder, "1.png", "2.png")
    assert labels(folder, target=None) == {"1.png": None, "2.png": None}


def test_a_flat_folder_with_labels_asked_says_what_to_do(folder: Path) -> None:
    fill(folder, "1.png")
    with pytest.raises(pp.errors.SourceError, match="no class subfolders for labels: pass target=None"):
        open_source(folder)


def test_a_file_beside_class_folders_is_a_rejection(folder: Path) -> None:
    fill(folder, "1.png", "a/1.png")
    assert rejections(folder) == [("1.png", "target")]
    assert labels(folder) == {"a/1.png": 0}
    assert labels(folder, target=None) == {"1.png": None, "a/1.png": None}


def test_a_file_that_is_no_picture_is_a_rejection(folder: Path) -> None:
    fill(folder, "a/1.png", "a/2.png")
    (folder / "a" / "1.png").write_bytes(b"no picture")
    (folder / "a" / "0.png").write_bytes(b"")
    assert rejections(folder) == [("a/0.png", "header"), ("a/1.png", "header")]


def test_a_file_that_vanishes_before_the_scan_is_a_rejection(folder: Path) -> None:
    fill(folder, "a/1.png", "a/2.png")
    source = open_source(folder)
    (folder / "a" / "1.png").unlink()
    first, second = source.scan()
    assert isinstance(first, pp.Rejection)
    assert (first.key, first.member, first.stage) == ("a/1.png", "1.png", "read")
    assert "FileNotFoundError" in first.reason
    assert isinstance(second, Header)


def test_a_file_that_vanishes_after_the_scan_is_a_rejection(folder: Path) -> None:
    fill(folder, "a/1.png", "a/2.png")
    planner = pp.Planner(folder, RECIPE)
    (plan,) = planner
    (folder / "a" / "1.png").unlink()
    batch = pp.Painter(planner, on_error="skip")[plan]
    assert batch.slot_mask[0, :2].tolist() == [False, True]
    assert [(r.key, r.stage) for r in batch.info.rejections] == [("a/1.png", "read")]


def test_a_link_that_leads_nowhere_is_a_rejection(folder: Path) -> None:
    fill(folder, "a/1.png")
    (folder / "a" / "2.png").symlink_to(folder / "elsewhere.png")
    (folder / "a" / "3.png").symlink_to(folder / "a" / "1.png")
    assert rejections(folder) == [("a/2.png", "read")]
    assert list(labels(folder)) == ["a/1.png", "a/3.png"]


def test_an_empty_class_folder_keeps_its_index(folder: Path) -> None:
    fill(folder, "ant/a.png", "zebra/z.png")
    (folder / "moth").mkdir()
    with pytest.warns(UserWarning, match=r"1 of its 3 class folders have no image \(moth\)"):
        source = open_source(folder)
    assert isinstance(source, FolderSource)
    assert source.class_names == ["ant", "moth", "zebra"]
    assert [source.reader.target(header.location) for header in source.scan() if isinstance(header, Header)] == [0, 2]


def test_a_linked_class_folder_is_followed_and_a_ring_ends(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", "x.png")
    fill(tmp_path / "root", "ant/a.png")
    (tmp_path / "root" / "bee").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "elsewhere")
    assert [h.key for h in headers(tmp_path / "root")] == ["ant/a.png", "bee/x.png"]


def test_the_name_of_this_folder_is_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(folder, "ant/a.png")
    monkeypatch.chdir(folder)
    assert open_source(".").name == f"{folder.name}/"


def test_an_empty_folder_is_refused(folder: Path) -> None:
    with pytest.raises(pp.errors.SourceError, match=r"no file with extension .*bmp;.*jpg;.*webp, it has: no files"):
        open_source(folder)


def test_shuffling_a_folder_permutes_all_of_its_files(tmp_path: Path) -> None:
    """Files are sorted by class: a shuffle in blocks would leave the classes apart."""
    for i in range(60):
        path = tmp_path / str(i // 20) / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(1))
    loader = pp.load(tmp_path, pp.recipes.square(size=32, rows_per_batch=10), shuffle=1)
    classes = [set(batch.targets[:, 0].tolist()) for batch in loader]
    assert sum(len(found) == 3 for found in classes) >= 4


def test_a_folder_without_pictures_says_what_it_has(folder: Path) -> None:
    fill(folder, "a.heic", "b.txt", "c.txt")
    with pytest.raises(pp.errors.SourceError, match=r"it has: 1 \.heic, 2 \.txt"):
        open_source(folder)


def test_folder_keys_do_not_know_where_the_folder_is(tmp_path: Path) -> None:
    for parent in ("one", "two"):
        fill(tmp_path / parent / "photos", "a/1.png", "b/2.png")
    ours, theirs = (headers(tmp_path / parent / "photos") for parent in ("one", "two"))
    assert [h.key for h in ours] == [h.key for h in theirs]
    one, two = (list(pp.load(tmp_path / parent / "photos", RECIPE)) for parent in ("one", "two"))
    assert np.array_equal(one[0].patches, two[0].patches)


# ----------------------------------------------------------------------------------------------------------- iterables

IMAGES = {
    "bytes": png(7),
    "bytearray": bytearray(png(7)),
    "memoryview": memoryview(png(7)),
    "array": pixels(7),
    "strided_array": np.repeat(pixels(7), 2, axis=1)[:, ::2],
    "pil": Image.fromarray(pixels(7)),
    "lazy_pil": Image.open(io.BytesIO(png(7))),
    "grey_pil": Image.fromarray(pixels(7)[..., 0]),
}


@pytest.mark.parametrize("name", IMAGES)
def test_what_a_sample_may_hold(name: str) -> None:
    samples = [pp.Sample("k", IMAGES[name], 3)]
    (header,) = headers(samples)
    assert header[:4] == ("k", "", "", (6, 4))
    (batch,) = pp.load(samples, RECIPE)
    assert batch.patches[0, :6].unique().tolist() == [7]
    assert batch.targets[0, 0] == 3


def test_pictures_are_upright() -> None:
    image = Image.fromarray(pixels(7))
    exif = image.getexif()
    exif[ExifTags.Base.Orientation] = 6
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif)
    for held in (file.getvalue(), Image.open(file)):
        (header,) = headers([pp.Sample("k", held)])
        assert header.size == (4, 6)


REFUSED = {
    "integers": pixels(7).astype(np.int64),
    "two_channels": pixels(7)[..., :2],
    "either_end": np.zeros((4, 4, 4), dtype=np.uint8),
    "empty_array": np.zeros((0, 4, 3), dtype=np.uint8),
    "none": None,
    "number": 5,
    "no_picture": b"no picture",
    "nothing": b"",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_sample_may_not_hold_is_a_rejection(name: str) -> None:
    loader = pp.load([pp.Sample("bad", REFUSED[name]), pp.Sample("good", pixels(1))], RECIPE, on_error="skip")
    (batch,) = loader
    assert batch.keys == [["good"]]
    (rejection,) = loader.report().rejected
    assert rejection[:4] == ("", "bad", "", "header")
    assert loader.report().seen == 2


def test_too_many_pixels_are_a_rejection() -> None:
    held = [png(1), pixels(1), Image.fromarray(pixels(1))]
    samples = [pp.Sample(f"k{i}", image) for i, image in enumerate(held)]
    assert rejections(samples, max_pixels=23) == [("k0", "header"), ("k1", "header"), ("k2", "header")]
    assert rejections(samples, max_pixels=24) == []


def test_a_repeated_key_is_a_rejection() -> None:
    samples = [pp.Sample("a", pixels(1)), pp.Sample("b", pixels(2)), pp.Sample("a", pixels(3))]
    assert rejections(samples) == [("a", "read")]
    assert list(labels(samples)) == ["a", "b"]


def test_keys_become_text() -> None:
    assert [h.key for h in headers([pp.Sample(7, pixels(1))])] == ["7"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "item", [b"bytes", ("k", pixels(1)), {"key": "k", "picture": pixels(1)}], ids=["bytes", "tuple", "dict"]
)
def test_an_item_that_is_no_sample_says_what_to_do(item: Any) -> None:
    samples = [pp.Sample("a", pixels(1)), item, pp.Sample("b", pixels(2))]
    with pytest.raises(pp.errors.SourceError, match=r"item 1 is a (bytes.*|tuple.*|dict with .*): expected a patchpack.Sample"):
        list(pp.load(samples, RECIPE))
    loader = pp.load(samples, RECIPE, on_error="skip")
    assert [key for batch in loader for row in batch.keys for key in row] == ["a", "b"]
    assert [(r.key, r.stage) for r in loader.report().rejected] == [("1", "read")]


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_an_empty_iterable_is_an_error_when_it_is_iterated(on_error: Any) -> None:
    loader = pp.load([], RECIPE, on_error=on_error)
    with pytest.raises(pp.errors.SourceError, match="list of samples: no image to pack, 0 samples seen"):
        list(loader)


def test_an_iterable_without_one_picture_names_the_first_reason() -> None:
    loader = pp.load([pp.Sample("a", b"x"), pp.Sample("b", b"y")], RECIPE, on_error="skip")
    with pytest.raises(
        pp.errors.SourceError, match="no image to pack, 2 samples seen, 2 rejected; the first: a: expected a readable"
    ):
        list(loader)
    assert (loader.report().seen, len(loader.report().rejected), loader.report().waiting) == (2, 2, 0)


def generator() -> Iterator[pp.Sample]:
    for i in range(5):
        yield pp.Sample(f"k{i}", pixels(i + 1), i)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_generator_is_read_once(num_workers: int) -> None:
    loader = pp.load(generator(), RECIPE, num_workers=num_workers)
    assert [key for batch in loader for row in batch.keys for key in row] == [f"k{i}" for i in range(5)]
    with pytest.raises(
        pp.errors.SourceError, match="generator of samples, which can be read once: no image to pack, 0 samples"
    ):
        list(loader)


@pytest.mark.parametrize("source", [5, None, b"abc", 0.5], ids=["int", "none", "bytes", "float"])
def test_what_is_no_source_is_refused(source: Any) -> None:
    with pytest.raises(
        pp.errors.SourceError, match=r"expected shards, a folder, a table, image files, an iterable of patchpack\.Sample, a"
    ):
        open_source(source)


@pytest.mark.parametrize("image", ["", ";", " . "])
def test_no_image_extension_is_refused(image: str) -> None:
    with pytest.raises(pp.errors.ConfigError, match="image must name at least one extension"):
        open_source([], image=image)


# ---------------------------------------------------------------------------------------------- samples sent to a worker


def sent(sample: pp.Sample) -> Any:
    """What a worker's reader makes of a sample's location."""
    source = open_source([sample])
    (header,) = source.scan()
    reader, location = pickle.loads(pickle.dumps((source.reader, header.location)))  # type: ignore[union-attr]
    return reader(location)


@pytest.mark.parametrize("name", IMAGES)
def test_every_image_can_be_sent(name: str) -> None:
    image, target = sent(pp.Sample("k", IMAGES[name], {"a": 1}))
    assert target == {"a": 1}
    assert np.asarray(Image.open(io.BytesIO(image)) if isinstance(image, bytes | bytearray) else image).flat[0] == 7


def test_a_broken_picture_arrives_as_its_error() -> None:
    """A PIL image decodes itself when it is pickled. If that raised, the plan would be lost and its worker wait for ever."""
    with pytest.raises(pp.errors.DecodeError, match="expected a complete PNG of 40 x 40 pixels"):
        sent(pp.Sample("k", Image.open(io.BytesIO(noise_png()[:-2000]))))


def test_a_target_that_cannot_be_pickled_arrives_as_an_error() -> None:
    with pytest.raises(pp.errors.SourceError, match="cannot be sent to a worker: "):
        sent(pp.Sample("k", pixels(1), target=lambda: 1))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_broken_picture_costs_its_slot_alone(num_workers: int) -> None:
    broken = Image.open(io.BytesIO(noise_png()[:-2000]))
    samples = [pp.Sample("a", pixels(1), 1), pp.Sample("b", broken, 2), pp.Sample("c", pixels(3), 3)]
    loader = pp.load(
        samples, RECIPE.replace(resize=pp.resize.Native(400), seq_len=500), num_workers=num_workers, on_error="skip"
    )
    (batch,) = loader
    assert batch.slot_mask[0, :3].tolist() == [True, False, True]
    assert [(r.key, r.stage) for r in loader.report().rejected] == [("b", "decode")]


def transparent() -> dict[str, Image.Image]:
    """Pictures whose files say more than their pixels: what is transparent, and which way is up."""
    wide, grey = Image.fromarray(pixels(90)), Image.fromarray(pixels(90)[..., 0])
    palette = wide.quantize(4)
    deep = Image.fromarray(np.full((4, 6), 40_000, dtype=np.uint16))
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    forms: list[tuple[str, Image.Image, dict[str, Any]]] = [
        ("palette", palette, {"transparency": palette.getpixel((0, 0))}),
        ("grey", grey, {"transparency": 90}),
        ("rgb", wide, {"transparency": (90, 90, 90)}),
        ("deep", deep, {"transparency": 40_000}),
        ("bits", palette, {"bits": 2, "transparency": palette.getpixel((0, 0))}),
        ("turned", wide, {"exif": turned}),
    ]
    opened = {}
    for name, image, options in forms:
        file = io.BytesIO()
        image.save(file, "PNG", **options)
        opened[name] = Image.open(io.BytesIO(file.getvalue()))
    return opened


@pytest.mark.parametrize("name", transparent())
def test_a_picture_sent_is_the_picture_painted_here(name: str) -> None:
    recipe = RECIPE.replace(background=(10, 20, 30))
    (here,) = pp.load([pp.Sample("k", transparent()[name])], recipe)
    (there,) = pp.load([pp.Sample("k", transparent()[name])], recipe, num_workers=1)
    assert np.array_equal(here.patches, there.patches)
    assert here.source_sizes[0, 0].tolist() == there.source_sizes[0, 0].tolist()


# ------------------------------------------------------------------------------------------------- sources of your own


class Own(pp.Source):
    """A source of one's own: three pictures; the label of the first cannot be read, the last is not of the size it said."""

    name = "own"

    def __init__(self) -> None:
        self.reader = self

    def scan(self) -> Iterator[Header]:
        for i in range(3):
            yield Header(f"k{i}", "", "", Size(6, 4), i)

    def __call__(self, location: int) -> tuple[Any, Any]:
        return pixels(location + 1, width=4 if location < 2 else 6, height=6 if location < 2 else 4), self.target(location)

    def target(self, location: int) -> int:
        if location == 0:
            raise pp.errors.SourceError("the label is gone")
        return location


def test_a_source_of_ones_own_is_taken_as_it_is() -> None:
    loader = pp.load(Own(), RECIPE, on_error="skip")
    (batch,) = loader
    assert batch.targets[0, :3].tolist() == [-100, 1, -100]
    assert [str(r) for r in loader.report().rejected] == [
        "k0: the label is gone [read]",
        "k2: expected 6 x 4 pixels (height x width), as the header said, got 4 x 6 [decode]",
    ]


# ------------------------------------------------------------------------------------------------ sources opened before


def below(folder: Path) -> Path:
    fill(folder, "a/1.png", "b/2.png", "b/3.png")
    return folder


def plus_1000(label: int) -> int:
    return label + 1000


SMALLER = RECIPE.replace(max_pixels=1000)  # other limits than those of a source that no recipe reads yet


@pytest.mark.parametrize("recipe", [RECIPE, SMALLER], ids=["the same limits", "other limits"])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_opened_source_keeps_its_function(folder: Path, recipe: pp.Recipe, num_workers: int) -> None:
    source = pp.open_source(str(below(folder)), map_target=plus_1000)
    (batch,) = pp.load(source, recipe, num_workers=num_workers)
    assert batch.targets[0, :3].tolist() == [1000, 1001, 1001]
    (batch,) = pp.load(pp.open_source(str(folder)), recipe, map_target=plus_1000, num_workers=num_workers)
    assert batch.targets[0, :3].tolist() == [1000, 1001, 1001]


def test_a_source_is_opened_once_and_read_by_recipes_with_limits_of_their_own(folder: Path) -> None:
    source = pp.open_source(str(below(folder)))
    fill(folder, "b/2.png")
    (folder / "a/1.png").write_bytes(noise_png())  # 40 x 40
    assert pp.load(source, RECIPE, on_error="skip").report().seen == 0
    loader = pp.load(source, SMALLER, on_error="skip")
    list(loader)
    assert [(loss.key, loss.stage) for loss in loader.report().rejected] == [("a/1.png", "header")]
    loader = pp.load(source, RECIPE, on_error="skip")
    list(loader)
    assert loader.report().rejected == []


@pytest.mark.parametrize(
    "option",
    [
        {"target": "json"},
        {"target": "cls"},
        {"image": "png"},
        {"classes": ["a", "b"]},
        {"sizes": [[1, 1]]},
        {"frames": "*.png"},
    ],
    ids=str,
)
def test_an_option_beside_an_opened_source_is_refused(folder: Path, option: dict[str, Any]) -> None:
    source = pp.open_source(str(below(folder)))
    with pytest.raises(pp.errors.ConfigError, match=f"{next(iter(option))}= cannot be used, because photos/ is already opened"):
        pp.load(source, RECIPE, **option)


def test_two_functions_for_one_label_are_refused(folder: Path) -> None:
    source = pp.open_source(str(below(folder)), map_target=plus_1000)
    with pytest.raises(pp.errors.ConfigError, match="map_target= cannot be used, because photos/ was opened with another one"):
        pp.load(source, RECIPE, map_target=plus_1000)


def test_frames_of_an_opened_source_need_a_recipe_for_clips() -> None:
    row = {"__key__": "k", "0.png": png(1), "1.png": png(2), "cls": 3}
    source = pp.open_source([row], frames="*.png")
    with pytest.raises(pp.errors.ConfigError, match="makes clips, but the recipe"):
        pp.load(source, RECIPE)


def test_a_misspelt_option_of_a_planner_is_refused(folder: Path) -> None:
    below(folder)
    with pytest.raises(pp.errors.ConfigError, match="taget= is no option of Planner; did you mean 'target'"):
        pp.Planner(str(folder), RECIPE, taget=None)  # type: ignore[call-arg]
    with pytest.raises(pp.errors.ConfigError, match="taget= is no option of open_source; did you mean 'target'"):
        pp.replay(str(folder), RECIPE, "a/1.png", taget=None)  # type: ignore[call-arg]


def test_a_timeout_of_a_planner_is_a_number(folder: Path) -> None:
    with pytest.raises(pp.errors.ConfigError, match="timeout must be a number, got 'x'"):
        pp.Planner(str(below(folder)), RECIPE, timeout="x")  # type: ignore[arg-type]
