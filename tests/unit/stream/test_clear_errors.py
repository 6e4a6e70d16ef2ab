"""What a user may pass in error: the message says what was expected, what came, and what to do. And shuffle=True."""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import patchpack as pp
from helpers.captioned import write_tar
from patchpack.stream.planning.epoch_plan import EpochPlan

RECIPE = pp.Recipe(resize=pp.resize.NaFlex(4), patch_size=4, seq_len=8, rows_per_batch=2, max_images=2)
COUNT = 40


def png(number: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("L", (9, 8), number).save(file, "PNG")
    return file.getvalue()


SAMPLES = [pp.Sample(f"s{n}", np.full((8, 9, 3), n, np.uint8), n) for n in range(COUNT)]


class Numbers(Dataset[Any]):
    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, number: int) -> Any:
        return SAMPLES[number].image, number


def keys(loader: Any) -> list[str]:
    return [key for batch in loader for row in batch.keys for key in row]


# ------------------------------------------------------------------------------------------------------------- shuffle


@pytest.mark.parametrize("wrong", ["yes", None, 1.5, [10], b"1", "True"])
@pytest.mark.parametrize("make", [pp.load, pp.Planner], ids=["load", "Planner"])
def test_a_shuffle_that_is_neither_truth_nor_number_is_refused(make, wrong) -> None:
    with pytest.raises(
        pp.errors.ConfigError, match=r"shuffle must be True, False, or the number of samples permuted at a time"
    ):
        make(SAMPLES, RECIPE, shuffle=wrong)


@pytest.mark.parametrize("wrong", [-1, 1 << 50])
def test_a_shuffle_out_of_range_is_refused(wrong) -> None:
    with pytest.raises(pp.errors.ConfigError, match="shuffle is the number of headers permuted at a time"):
        pp.load(SAMPLES, RECIPE, shuffle=wrong)


@pytest.mark.parametrize("source", [SAMPLES, Numbers()], ids=["an iterable", "a dataset"])
def test_shuffle_true_is_a_shuffle_and_false_is_none(source) -> None:
    plain, told = keys(pp.load(source, RECIPE)), keys(pp.load(source, RECIPE, shuffle=True, epoch=1))
    assert keys(pp.load(source, RECIPE, shuffle=False)) == plain == keys(pp.load(source, RECIPE, shuffle=0))
    assert sorted(told) == sorted(plain)
    assert told != plain
    assert told == keys(pp.load(source, RECIPE, shuffle=1024, epoch=1))  # the block that is documented
    assert told == keys(pp.load(source, RECIPE, shuffle=np.bool_(True), epoch=1))
    assert told != keys(pp.load(source, RECIPE, shuffle=True, epoch=2))
    assert pp.load(source, RECIPE, shuffle=True).state_dict()["shuffle"] == 1024


@pytest.fixture
def shards(tmp_path: Path) -> str:
    for shard in range(2):
        write_tar(tmp_path / f"a-{shard}.tar", {str(n): {"png": png(n), "cls": b"%d" % n} for n in range(20)})
    return str(tmp_path / "a-*.tar")


def test_shuffle_true_permutes_an_index_as_a_whole(shards: str) -> None:
    index = pp.Index.build(shards)
    for make in (pp.load, pp.Planner, EpochPlan):
        whole, told = (make(index, RECIPE, epoch=2, shuffle=shuffle) for shuffle in (COUNT, True))
        if make is pp.load:
            assert keys(told) == keys(whole) != keys(make(index, RECIPE))
            assert told.state_dict() == whole.state_dict()
        else:
            assert [plan.key_hash.tolist() for plan in told] == [plan.key_hash.tolist() for plan in whole]
        with pytest.raises(pp.errors.ConfigError, match="shuffle must be True, False, or the number of samples"):
            make(index, RECIPE, shuffle="yes")
    with pytest.raises(pp.errors.ConfigError, match="shuffle must be True, False, or the number of samples"):
        pp.PackedShards.write(index, RECIPE, "nowhere", shuffle=1.5)


# ------------------------------------------------------------------------------------------------------------ messages


@pytest.mark.parametrize("names", [["jpg", "png"], ("png",), [".PNG", "jpg"], "jpg;png"])
def test_names_of_images_may_be_a_list(shards: str, names) -> None:
    assert len(keys(pp.load(shards, RECIPE, image=names))) == COUNT
    assert len(keys(pp.load(pp.Index.build(shards, image=names), RECIPE))) == COUNT
    assert len(keys(pp.Pack(RECIPE, image=names)([{"__key__": "a", "png": png(), "cls": 1}]))) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image": 5}, "image must be a name, several joined with ';', or a list of names, such as .*, got 5"),
        ({"image": ["jpg", 5]}, r"image must be a name, .*, got \['jpg', 5\]"),
        ({"image": []}, "image must name at least one extension"),
        ({"target": 5}, "target must be a name, a list of names for a dict of labels, or None for no labels, got 5"),
        ({"target": ["a", 5]}, "target must be a name, .*, got 5"),
        ({"text": 5, "tokenize": len, "text_len": 5}, "text must name a member or column, such as 'txt'"),
    ],
    ids=str,
)
def test_a_name_that_is_no_text_is_refused(options, said) -> None:
    with pytest.raises(pp.errors.ConfigError, match=said):
        pp.load(SAMPLES, RECIPE, **options)


def test_a_loader_that_would_stack_batches_is_told_batch_size_none() -> None:
    said = r"this DataLoader would stack 1 batches, which are packed already: pass batch_size=None to DataLoader"
    stage = pp.Pack(RECIPE).over(SAMPLES)
    with pytest.raises(pp.errors.ConfigError, match=said):
        next(iter(DataLoader(stage)))
    planner = pp.Planner(SAMPLES, RECIPE)
    with pytest.raises(pp.errors.ConfigError, match=said):
        next(iter(DataLoader(pp.Painter(planner, RECIPE), sampler=planner)))
    batch = next(iter(DataLoader(stage, batch_size=None)))
    assert isinstance(batch.patches, torch.Tensor)


@pytest.mark.parametrize(
    "source",
    [
        ["http://127.0.0.1:9/a.jpg"], "https://host/a.PNG?size=large", ["s3://bucket/a.tar", "s3://bucket/b.jpeg"],
        ["gs://bucket/a.webp#1"],
    ],
    ids=str,
)  # fmt: skip
def test_urls_of_images_are_refused(source) -> None:
    with pytest.raises(
        pp.errors.SourceError, match=r"is the URL of an image, but single images are read from this machine only"
    ):
        pp.load(source, RECIPE, target=None, on_error="skip")


def named(module: str, name: str) -> Any:
    """Something that looks like another library's table."""

    def columns(self: Any) -> list[str]:
        return ["image", "label"]

    special = {"__module__": f"{module}.core", "__len__": lambda self: 2, "__getitem__": lambda self, n: n, "columns": columns}
    return type(name, (), special)()


@pytest.mark.parametrize(
    ("table", "cure"),
    [
        (
            named("pandas", "DataFrame"),
            r'pass datasets\.Dataset\.from_pandas\(df\), or its rows as dicts, df\.to_dict\("records"\)',
        ),
        (type("GeoDataFrame", (type(named("pandas", "DataFrame")),), {})(), r"datasets\.Dataset\.from_pandas"),
        (named("polars", "DataFrame"), r"df\.to_dicts\(\)"),
        (named("polars", "LazyFrame"), r"df\.collect\(\)\.to_dicts\(\)"),
        (named("pyarrow", "Table"), r"table\.to_pylist\(\)"),
    ],
    ids=["pandas", "a table made of one", "polars", "lazy", "arrow"],
)
def test_tables_are_refused_with_the_cure(table, cure) -> None:
    with pytest.raises(pp.errors.SourceError, match=cure):
        pp.load(table, RECIPE)


def test_rows_of_a_table_are_read() -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"image": [png(1), png(2)], "label": [1, 2]})
    with pytest.raises(pp.errors.SourceError, match=r"a pandas DataFrame has columns, not samples"):
        pp.load(table, RECIPE)
    batch = next(iter(pp.load(table.to_dict("records"), RECIPE)))
    assert sorted(batch.targets[batch.slot_mask].tolist()) == [1, 2]


def test_shards_with_colons_between_are_refused_with_a_list() -> None:
    with pytest.raises(
        pp.errors.SourceError, match=r"got a\.tar::b\.tar: pass several shards as a list, \['a\.tar', 'b\.tar'\]"
    ):
        pp.load("a.tar::b.tar", RECIPE)
    with pytest.raises(pp.errors.SourceError, match=r"shards as a list, \['s3://x/a\.tar\.gz', 's3://y/b\.tgz'\]"):
        pp.load("s3://x/a.tar.gz::s3://y/b.tgz", RECIPE)


@pytest.mark.parametrize("source", ["a.tar", ["a.tar", "b.tar"], "photos", "a.jpg", ["a.jpg"], "x/*.tar"], ids=str)
def test_a_relative_path_that_is_missing_names_the_working_folder(source, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pp.errors.SourceError) as caught:
        pp.load(source, RECIPE)
    assert f"(working directory {os.getcwd()})" in str(caught.value)


@pytest.mark.parametrize("name", ["a.tar", "a.jpg", "x/*.tar"])
def test_an_absolute_path_that_is_missing_names_none(name: str, tmp_path: Path) -> None:
    with pytest.raises(pp.errors.SourceError) as caught:
        pp.load(str(tmp_path / name), RECIPE)
    assert "working directory" not in str(caught.value)


def test_a_picture_whose_file_was_closed_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    with Image.open(tmp_path / "a.png") as picture:
        pass
    loader = pp.pack_images([picture], RECIPE, on_error="skip")
    assert [int(batch.slot_mask.sum()) for batch in loader] == [0]
    (rejection,) = loader.report().rejected
    assert rejection.reason.endswith("got a file that was closed before its pixels were read (call load() before it is closed)")


@pytest.mark.parametrize("epoch", ["2", 1.5, -1, True, 1 << 32])
def test_an_epoch_that_is_none_is_refused(shards: str, epoch: Any) -> None:
    said = "epoch must be an integer in 0 … 4294967295, got"
    for make in (pp.load, pp.Planner):
        with pytest.raises(pp.errors.ConfigError, match=said):
            make(SAMPLES, RECIPE, epoch=epoch)
        with pytest.raises(pp.errors.ConfigError, match=said):
            make(SAMPLES, RECIPE).set_epoch(epoch)
    index = pp.Index.build(shards)
    for stage in (lambda **options: pp.Pack(RECIPE, **options), lambda **options: pp.load(index, RECIPE, **options)):
        with pytest.raises(pp.errors.ConfigError, match=said):
            stage(epoch=epoch)
        with pytest.raises(pp.errors.ConfigError, match=said):
            stage().set_epoch(epoch)


@pytest.mark.parametrize("steps", [0, -1, 2.5, "3"])
def test_a_number_of_steps_that_is_none_is_refused_by_its_name(shards: str, steps: Any) -> None:
    for source in (SAMPLES, shards, pp.Index.build(shards)):
        with pytest.raises(pp.errors.ConfigError, match="steps_per_epoch"):
            pp.load(source, RECIPE, steps_per_epoch=steps)


def test_a_field_of_a_label_is_told_map_target(shards: str) -> None:
    with pytest.raises(pp.errors.ConfigError, match=r"target='json', map_target=lambda label: label\['score'\]"):
        pp.load(shards, RECIPE, target="json:score")


def test_an_iterator_that_was_read_says_so() -> None:
    loader = pp.load(iter(SAMPLES), RECIPE)
    assert len(keys(loader)) == COUNT
    with pytest.raises(pp.errors.SourceError, match="of samples, which can be read once: no image to pack, 0 samples seen"):
        list(loader)
    with pytest.raises(pp.errors.SourceError, match="list of samples: no image to pack"):
        list(pp.load([], RECIPE))


def test_a_shard_of_which_nothing_can_be_read_says_why(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"0": {"png": png(), "cls": b"0"}})
    (tmp_path / "cut.tar.gz").write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes())[:60])
    with pytest.raises(pp.errors.SourceError, match=r"no image to pack, .*; cut\.tar\.gz: .*[Cc]ompressed file ended"):
        list(pp.load(str(tmp_path / "cut.tar.gz"), RECIPE, on_error="skip"))


def test_folders_and_files_that_cannot_be_meant_say_what_to_do(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(png())
    with pytest.raises(pp.errors.SourceError, match="is a folder, but a list must hold files: pass one folder"):
        pp.load([tmp_path / "a", tmp_path / "b"], RECIPE, target=None)
    (tmp_path / "x.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(pp.errors.SourceError, match=r"x\.heic is .*; HEIC needs a plugin of Pillow, see Recipe\.formats"):
        pp.load(tmp_path / "x.heic", RECIPE, target=None)
    with pytest.raises(pp.errors.ConfigError, match=r"classes= must be a list of different names of folders, got \[\]"):
        pp.load(tmp_path, RECIPE, classes=[])
    assert sorted(keys(pp.load(f"file://{tmp_path}", RECIPE))) == ["a/1.png", "b/1.png"]


def test_a_shard_under_another_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its samples came twice."""
    write_tar(tmp_path / "a.tar", {"0": {"png": png(), "cls": b"0"}})
    (tmp_path / "link.tar").symlink_to("a.tar")
    monkeypatch.chdir(tmp_path)
    for other in (str(tmp_path / "a.tar"), "link.tar", "./a.tar"):
        with pytest.raises(pp.errors.SourceError, match=f"shard .*{other[-8:]} is listed twice"):
            pp.load(["a.tar", other], RECIPE)
