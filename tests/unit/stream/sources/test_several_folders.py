"""Several folders in a list: their order, keys and classes, and the lists that are refused."""

from __future__ import annotations

import io
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import patchpack as pp
from helpers.opening import opened
from patchpack.stream.sources.opening import open_source
from patchpack.types import Header

RECIPE = pp.Recipe(resize=pp.resize.NaFlex(4), patch_size=16, seq_len=8, rows_per_batch=1)


def fill(root: Path, *names: str) -> str:
    file = io.BytesIO()
    Image.new("RGB", (20, 16), "teal").save(file, "png")
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(file.getvalue())
    return str(root)


def labels(source: Any, **options: Any) -> dict[str, Any]:
    there = open_source(source, **options)
    return {event.key: there.reader(event.location)[1] for event in there.scan() if isinstance(event, Header)}


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    return [fill(tmp_path / "b", "emu/2.png", "cat/1.png"), fill(tmp_path / "a", "dog/1.png", "cat/1.png", "cat/2.png")]


def test_folders_come_in_the_order_of_the_list_with_their_classes_together(folders: list[str]) -> None:
    expected = {"b/cat/1.png": 0, "b/emu/2.png": 2, "a/cat/1.png": 0, "a/cat/2.png": 0, "a/dog/1.png": 1}
    assert labels(folders) == expected
    assert list(labels(folders)) == list(expected)
    assert open_source(folders).class_names == ["cat", "dog", "emu"]
    assert labels([Path(folder) for folder in folders]) == expected
    assert labels([folder + os.sep for folder in folders]) == expected


def test_folders_behind_a_pattern(folders: list[str], tmp_path: Path) -> None:
    assert list(labels(f"{tmp_path}/*")) == ["a/cat/1.png", "a/cat/2.png", "a/dog/1.png", "b/cat/1.png", "b/emu/2.png"]
    assert list(labels(f"{tmp_path}/[b]")) == ["b/cat/1.png", "b/emu/2.png"]  # the keys do not depend on the number of folders


def test_a_list_of_one_folder_is_that_folder(folders: list[str]) -> None:
    assert labels(folders[:1]) == labels(folders[0]) == {"cat/1.png": 0, "emu/2.png": 1}


def test_classes_that_are_given(folders: list[str]) -> None:
    assert labels(folders, classes=["emu", "cat"]) == {
        "b/cat/1.png": 1, "b/emu/2.png": 0, "a/cat/1.png": 1, "a/cat/2.png": 1,
    }  # fmt: skip
    loader = pp.load(folders, RECIPE, classes=["emu", "cat"], on_error="skip")
    assert [image.key for batch in loader for image in pp.unpack(batch)] == list(labels(folders, classes=["emu", "cat"]))
    (rejection,) = loader.report().rejected
    assert rejection[:4] == ("a/", "a/dog/1.png", "1.png", "target")
    assert loader.classes == ["emu", "cat"]
    with pytest.raises(pp.errors.ConfigError, match="classes= is for labels from class folders, but target=None"):
        open_source(folders, classes=["cat"], target=None)


def test_other_labels_and_texts_are_beside_the_images(folders: list[str]) -> None:
    for folder in folders:
        for path in Path(folder).rglob("*.png"):
            path.with_suffix(".txt").write_text(path.parent.name)
    assert labels(folders, target=None) == dict.fromkeys(labels(folders))
    assert set(labels(folders, target="txt").values()) == {"cat", "dog", "emu"}
    (batch,) = pp.load(folders, RECIPE.replace(seq_len=32), target=None, tokenize=lambda text: [len(text)], text_len=8)
    assert batch.text_ids[0, :5].tolist() == [3] * 5
    assert open_source(folders).ignored == {".txt": 5}
    assert open_source(folders, target="txt").ignored == {}


def test_files_that_are_not_read_are_counted_together(folders: list[str]) -> None:
    for folder in folders:
        (Path(folder) / "Thumbs.db").write_bytes(b"")
    (Path(folders[0]) / "b.heic").write_bytes(b"")
    assert open_source(folders).ignored == {".db": 2, ".heic": 1}


def test_folders_of_one_name_have_the_folders_above_in_their_keys(tmp_path: Path) -> None:
    one, two = fill(tmp_path / "x" / "train", "cat/1.png"), fill(tmp_path / "y" / "train", "cat/1.png")
    assert list(labels([one, two])) == ["x/train/cat/1.png", "y/train/cat/1.png"]


def test_a_folder_that_comes_twice_is_refused(folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c").symlink_to(folders[0])
    monkeypatch.chdir(tmp_path)
    for other in (folders[0], folders[0] + "/", "b", "./b", str(tmp_path / "c")):
        with pytest.raises(
            pp.errors.SourceError, match=r"folder .* is listed twice.*: its images would repeat within one pass"
        ):
            open_source([folders[0], folders[1], other])
    for order in (["b", "b/cat"], ["b/cat", "a", "b"]):
        with pytest.raises(pp.errors.SourceError, match="folder b/cat is inside the folder b: its images would repeat"):
            open_source(order)
    fill(tmp_path / "bb", "cat/1.png")
    assert len(labels(["b", "bb"])) == 3  # a longer name is no folder inside


def test_a_folder_that_lacks_what_the_others_have_is_refused(folders: list[str], tmp_path: Path) -> None:
    flat = fill(tmp_path / "flat", "1.png")
    with pytest.raises(pp.errors.SourceError, match="flat has no class subfolders for labels: pass target=None"):
        open_source([*folders, flat])
    (tmp_path / "empty").mkdir()
    with pytest.raises(pp.errors.SourceError, match="empty has no file with extension"):
        open_source([*folders, tmp_path / "empty"], target=None)
    with pytest.raises(pp.errors.SourceError, match=r"b is a folder and .*1\.png is not: pass a list of folders"):
        open_source([folders[0], f"{flat}/1.png"])
    with pytest.raises(pp.errors.SourceError, match=r"b is a folder and .*no is not"):
        open_source([folders[0], str(tmp_path / "no")])


def test_folders_that_are_hardly_classes_are_warned_of(folders: list[str], tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_source(folders)  # a class that only one folder has is no fault
    splits = fill(tmp_path / "c", "train/cat/1.png", "val/cat/1.png")
    with pytest.warns(UserWarning, match="look like splits"):
        open_source([*folders, splits])


def test_limits_of_a_recipe_do_not_change_the_user_s_source(folders: list[str]) -> None:
    source = open_source(folders)
    assert sum(isinstance(event, Header) for event in opened(source, max_pixels=1).scan()) == 0
    assert sum(isinstance(event, Header) for event in source.scan()) == 5


def test_a_state_belongs_to_the_same_folders(folders: list[str]) -> None:
    state = pp.load(folders, RECIPE).state_dict()
    pp.load(folders, RECIPE).load_state_dict(state)
    with pytest.raises(pp.errors.ConfigError, match="source differs"):
        pp.load(folders[::-1], RECIPE).load_state_dict(state)
    fill(Path(folders[1]), "cat/3.png")
    with pytest.raises(pp.errors.ConfigError, match="samples or shards differs"):
        pp.load(folders, RECIPE).load_state_dict(state)


def test_every_part_is_one_file_in_any_order(folders: list[str]) -> None:
    source = pickle.loads(pickle.dumps(open_source(folders)))
    keys = [event.key for event in source.scan()]
    assert [event.key for event in source.scan_parts([4, 0, 2, 2])] == [keys[n] for n in (4, 0, 2, 2)]
    assert (source.num_parts, source.one_sample_per_part, str(source)) == (5, True, "Source(2 folders (b/ …))")
