"""Folders: which files are images, where labels come from, which numbers classes have, and what is counted of the rest."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import patchpack as pp
from patchpack.cli import main

RECIPE = pp.Recipe(resize=pp.resize.NaFlex(4), patch_size=16, seq_len=8, rows_per_batch=1)


def image(kind: str = "png", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 16), "teal").save(file, kind, **options)
    return file.getvalue()


def fill(root: Path, **files: bytes) -> Path:
    """Write files by path; `__` stands for a slash, `_` before a last part for its dot."""
    for name, data in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def loaded(source: Any, **options: Any) -> tuple[dict[str, Any], pp.Report]:
    """Return key to label of what is packed, and the report."""
    loader = pp.load(source, RECIPE, on_error="skip", **options)
    return {found.key: found.target for batch in loader for found in pp.unpack(batch)}, loader.report()


# -------------------------------------------------------------------------------------------------------------- which files

KINDS = {
    "jpg": "jpeg", "jpeg": "jpeg", "jfif": "jpeg", "PNG": "png", "bmp": "bmp", "tif": "tiff", "TIFF": "tiff", "gif": "gif",
    "webp": "webp",
}  # fmt: skip


def test_every_format_that_can_be_decoded_is_read_by_default(tmp_path: Path) -> None:
    for extension, kind in KINDS.items():
        (tmp_path / f"a.{extension}").write_bytes(image(kind))
    found, report = loaded(str(tmp_path), target=None)
    assert sorted(found) == sorted(f"a.{extension}" for extension in KINDS)
    assert report.ignored == {}


@pytest.mark.parametrize("kind", ["jpeg", "png", "gif", "bmp", "tiff", "webp"])
def test_a_file_without_extension_is_known_by_its_first_bytes(tmp_path: Path, kind: str) -> None:
    fill(tmp_path, photo=image(kind), LICENSE=b"text", empty=b"")
    found, report = loaded(str(tmp_path), target=None)
    assert list(found) == ["photo"]
    assert report.ignored == {"no extension": 2}


def test_what_is_no_image_is_counted_by_extension(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.heic", "b.HEIC", "a.json", "b.jpg?w=640", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"{}")
    (tmp_path / "a.png").write_bytes(image())
    found, report = loaded(str(tmp_path), target=None)
    assert list(found) == ["a.png"]
    assert report.ignored == {".db": 1, ".heic": 2, ".jpg?w=640": 1, ".json": 1}
    assert "ignored 2 files" in str(report)
    assert ".heic" in str(report)
    main(["inspect", str(tmp_path), "--no-target"])
    assert ".heic" in capsys.readouterr().out


def test_extensions_that_are_asked_for_are_the_only_ones(tmp_path: Path) -> None:
    fill(tmp_path, a_DOT_png=image(), b_DOT_gif=image("gif"), c=image())
    found, report = loaded(str(tmp_path), target=None, image="gif")
    assert list(found) == ["b.gif"]
    assert report.ignored == {".png": 1, "no extension": 1}


def test_an_animation_is_its_first_frame_and_counted(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (20, 16), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    found, report = loaded(str(tmp_path), target=None)
    assert list(found) == ["a.gif"]
    assert sum(report.warnings.values()) == 1


def test_a_path_that_comes_twice_is_named(tmp_path: Path) -> None:
    fill(tmp_path, a_DOT_png=image(), b_DOT_png=image())
    files = [str(tmp_path / name) for name in ("a.png", "b.png", "a.png")]
    found, report = loaded(files, target=None)
    assert sorted(found) == ["a.png", "b.png"]
    assert [(r.key, r.stage) for r in report.rejected] == [("a.png", "read")]
    assert (report.seen, report.packed) == (3, 2)


# ------------------------------------------------------------------------------------------------------------------- labels

BESIDE = {
    "json": (json.dumps({"a": 3}).encode(), {"a": 3}),
    "txt": (b"a cat", "a cat"),
    "cls": (b"7", 7),
}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("extension", BESIDE)
def test_a_label_that_is_named_is_in_the_file_beside_the_image(tmp_path: Path, extension: str, workers: int) -> None:
    """Any name took the numbers of the folders."""
    data, value = BESIDE[extension]
    for folder in ("00000", "00001"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(image())
        (tmp_path / folder / f"a.{extension}").write_bytes(data)
    found, report = loaded(str(tmp_path), target=extension, num_workers=workers)
    assert list(found) == ["00000/a.png", "00001/a.png"]
    for label in found.values():
        assert ({name: int(number) for name, number in label.items()} if isinstance(label, dict) else label) == value
    assert report.ignored == {}


def test_several_labels_beside_an_image_are_a_dict(tmp_path: Path) -> None:
    fill(tmp_path, a_DOT_png=image(), a_DOT_cls=b"3", a_DOT_txt=b"x")
    found, _ = loaded(str(tmp_path), target=("cls", "txt"))
    assert found == {"a.png": {"cls": 3, "txt": "x"}}


def test_an_image_without_its_label_is_a_rejection(tmp_path: Path) -> None:
    fill(tmp_path, a_DOT_png=image(), a_DOT_cls=b"3", b_DOT_png=image(), c_DOT_png=image(), c_DOT_cls=b"x")
    found, report = loaded(str(tmp_path), target="cls")
    assert found == {"a.png": 3}
    assert [(r.key, r.stage) for r in report.rejected] == [("b.png", "target"), ("c.png", "target")]


def test_a_label_that_no_image_has_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, cat__a_DOT_png=image())
    with pytest.raises(pp.errors.TargetError, match=r"no label file a\.nonsense beside the image"):
        list(pp.load(str(tmp_path), RECIPE, target="nonsense"))


# ------------------------------------------------------------------------------------------------------------------ classes


def classes_of(tmp_path: Path, *names: str) -> str:
    for name in names:
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "0.png").write_bytes(image())
    return str(tmp_path)


def test_a_split_that_lacks_a_class_keeps_the_numbers_of_the_others(tmp_path: Path) -> None:
    train = pp.load(classes_of(tmp_path / "train", "cat", "dog", "emu"), RECIPE)
    assert train.classes == ["cat", "dog", "emu"]
    found, report = loaded(classes_of(tmp_path / "val", "dog", "emu"), classes=train.classes)
    assert found == {"dog/0.png": 1, "emu/0.png": 2}
    assert report.rejected == []


def test_a_folder_that_is_not_among_the_classes_is_a_rejection(tmp_path: Path) -> None:
    found, report = loaded(classes_of(tmp_path, "cat", "dogs"), classes=["dog", "cat"])
    assert found == {"cat/0.png": 1}
    (rejection,) = report.rejected
    assert (rejection.key, rejection.stage) == ("dogs/0.png", "target")
    assert "did you mean 'dog'?" in rejection.reason


@pytest.mark.parametrize("classes", ["cat", ["cat", "cat"], [1, 2], {"cat": 5}], ids=str)
def test_classes_that_are_not_different_names_are_refused(tmp_path: Path, classes: Any) -> None:
    with pytest.raises(pp.errors.ConfigError, match="classes= must be a list of different names"):
        pp.load(classes_of(tmp_path, "cat"), RECIPE, classes=classes)


@pytest.mark.parametrize("source", [lambda folder: [pp.Sample("a", image(), 0)], lambda folder: pp.samples.shards("val")])
def test_classes_of_a_source_without_folders_are_refused(tmp_path: Path, source: Callable[[Path], Any]) -> None:
    with pytest.raises(pp.errors.ConfigError, match="classes= is for folders of image files"):
        pp.load(source(tmp_path), RECIPE, classes=["a"])


def test_classes_beside_another_label_are_refused(tmp_path: Path) -> None:
    for target in (None, "json"):
        with pytest.raises(pp.errors.ConfigError, match="classes= is for labels from class folders, but target="):
            pp.load(classes_of(tmp_path, "cat"), RECIPE, classes=["cat"], target=target)


def test_classes_belong_to_a_saved_state(tmp_path: Path) -> None:
    folder = classes_of(tmp_path, "cat", "dog")
    state = pp.load(folder, RECIPE, classes=["cat", "dog"]).state_dict()
    with pytest.raises(pp.errors.ConfigError, match="samples or shards"):
        pp.load(folder, RECIPE, classes=["dog", "cat"]).load_state_dict(state)


def test_a_folder_of_splits_is_warned_of(tmp_path: Path) -> None:
    folder = classes_of(tmp_path, "train/cat", "val/cat")
    with pytest.warns(UserWarning, match=r"look like splits\. If they are splits, load one of them"):
        pp.load(folder, RECIPE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pp.load(folder, RECIPE, target=None)
        pp.load(f"{folder}/train", RECIPE)


def test_unlabelled_images_have_no_classes(tmp_path: Path) -> None:
    assert pp.load(classes_of(tmp_path, "cat"), RECIPE, target=None).classes is None
    assert pp.load(pp.samples.shards("val"), RECIPE).classes is None


# -------------------------------------------------------------------------------------------- links, hidden files, odd classes


def test_two_names_of_one_class_folder_are_two_classes(tmp_path: Path) -> None:
    """The one that was walked first took the other's images."""
    fill(tmp_path, cat__1_DOT_png=image(), cat__2_DOT_png=image(), dog__1_DOT_png=image())
    (tmp_path / "animal").symlink_to(tmp_path / "cat")
    found, report = loaded(str(tmp_path))
    assert found == {"animal/1.png": 0, "animal/2.png": 0, "cat/1.png": 1, "cat/2.png": 1, "dog/1.png": 2}
    assert report.seen == 5


def test_links_that_lead_back_up_end(tmp_path: Path) -> None:
    fill(tmp_path, a__1_DOT_png=image(), b__2_DOT_png=image())
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b" / "other").symlink_to(tmp_path / "a")
    found, _ = loaded(str(tmp_path), target=None)
    assert sorted(found) == ["a/1.png", "b/2.png", "b/other/1.png"]


def test_hidden_files_are_counted(tmp_path: Path) -> None:
    fill(tmp_path, a__1_DOT_png=image())
    (tmp_path / "a" / ".2.png").write_bytes(image())
    found, report = loaded(str(tmp_path))
    assert list(found) == ["a/1.png"]
    assert report.ignored["hidden"] == 1


def test_a_hidden_file_that_is_named_is_read(tmp_path: Path) -> None:
    (tmp_path / ".2.png").write_bytes(image())
    assert list(loaded([str(tmp_path / ".2.png")], target=None)[0]) == [".2.png"]


DOUBTFUL = {
    "splits": (["train/cat/1.png", "val/cat/1.png"], r"class folders \(train, val\) look like splits.*such as .*train"),
    "splits, one flat": (
        ["train/cat/1.png", "val/cat/1.png", "test/1.png"],
        r"class folders \(test, train, val\) look like splits",
    ),
    "deeper": (["a/cat/1.png", "b/cat/1.png"], r"class folders \(a, b\) have their images in subfolders"),
    "deeper, a stray file": (["a/cat/1.png", "a/notes.txt", "b/cat/1.png"], "in subfolders"),
    "labels beside images": (["images/1.png", "labels/1.txt"], r"1 of its 2 class folders have no image \(labels\)"),
    "what systems leave": (
        ["cat/1.png", "__MACOSX/cat/._1.png", "__pycache__/x.pyc"],
        r"2 of its 3 .*\(__MACOSX, __pycache__\)",
    ),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_folders_that_are_hardly_classes_are_warned_of(tmp_path: Path, name: str) -> None:
    paths, said = DOUBTFUL[name]
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(image())
    with pytest.warns(UserWarning, match=said):
        pp.load(str(tmp_path), RECIPE)
    names = sorted({path.split("/")[0] for path in paths})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pp.load(str(tmp_path), RECIPE, classes=names)
        pp.load(str(tmp_path), RECIPE, target=None)


def test_class_folders_that_are_surely_classes_are_not_warned_of(tmp_path: Path) -> None:
    fill(tmp_path, test__1_DOT_png=image(), cat__1_DOT_png=image(), cat__deep__2_DOT_png=image())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pp.load(str(tmp_path), RECIPE)
