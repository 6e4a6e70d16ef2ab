"""What a user may pass in error: the message says what was expected, what came, and what to do. And shuffle=True."""

from __future__ import annotations

import gzip
import io
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import patchpack as pp
from helpers.captioned import write_tar
from helpers.standin import of_sizes
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
        next(iter(DataLoader(pp.Painter(planner), sampler=planner)))
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


def test_a_lazy_table_is_refused_with_the_cure() -> None:
    lazy = type("LazyFrame", (), {"__module__": "polars.lazyframe.frame"})()
    with pytest.raises(pp.errors.SourceError, match=r"a polars LazyFrame has no rows yet: pass df\.collect\(\)"):
        pp.load(lazy, RECIPE)


def test_rows_with_images_are_read_as_dicts() -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"image": [png(1), png(2)], "label": [1, 2]})
    with pytest.raises(
        pp.errors.SourceError, match=r'holds bytes, not paths: pass .*, or its rows as dicts, df\.to_dict\("rec'
    ):
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


@pytest.mark.parametrize("target", ["json:", ":score", "", ("cls", "json:")])
def test_a_label_without_a_member_or_a_field_is_refused(shards: str, target: Any) -> None:
    with pytest.raises(pp.errors.ConfigError, match="target must name a member or column, such as 'cls', or a field, such as"):
        pp.load(shards, RECIPE, target=target)


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
    with pytest.raises(pp.errors.SourceError, match=r"a is a folder and .*1\.png is not: pass a list of folders"):
        pp.load([tmp_path / "a", tmp_path / "b" / "1.png"], RECIPE, target=None)
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


# -------------------------------------------------------------------------------------------- options of the wrong kind


@pytest.mark.parametrize("make", [pp.load, pp.Planner], ids=["load", "Planner"])
@pytest.mark.parametrize(
    ("rank", "world_size", "said"),
    [("1", 2, "rank must be an integer, got '1'"), (0.0, 1, "rank must be an integer, got 0.0"), (True, 2, "rank must"),
     (1, "2", "world_size must be an integer, got '2'"), (2, 2, "need 0 <= rank < world_size, got rank=2")],
)  # fmt: skip
def test_a_rank_is_an_integer(make: Any, rank: Any, world_size: Any, said: str) -> None:
    with pytest.raises(pp.errors.ConfigError, match=said):
        make(SAMPLES, RECIPE, rank=rank, world_size=world_size, tail="pad")


@pytest.mark.parametrize("balance", ["no", 1, None, ""])
def test_balance_is_true_or_false(balance: Any) -> None:
    with pytest.raises(pp.errors.ConfigError, match="balance must be True or False, got"):
        pp.load(SAMPLES, RECIPE, balance=balance)
    with pytest.raises(pp.errors.ConfigError, match="balance must be True or False, got"):
        pp.load(of_sizes([(8, 9)] * 4), RECIPE, balance=balance)


def test_a_log_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(pp.errors.ConfigError, match="is a folder: give the path of a file to append to"):
        pp.ErrorPolicy("skip", log=tmp_path)
    for log in ("", 3, b"bad.jsonl", True):
        with pytest.raises(pp.errors.ConfigError, match="log must be the path of a file, or None, got"):
            pp.ErrorPolicy("skip", log=log)  # type: ignore[arg-type]


def test_values_and_dtypes_of_another_kind_are_refused() -> None:
    batch = next(iter(pp.load(SAMPLES, RECIPE)))
    for values in ([1, 2], 3, "x"):
        with pytest.raises(pp.errors.ShapeError, match="values must be an array or a tensor, got a"):
            list(pp.unpack(batch, values))
    for name in ("dense", "several"):
        with pytest.raises(pp.errors.ConfigError, match=f"{name} must be True or False, got 'no'"):
            list(pp.unpack(batch, **{name: "no"}))  # type: ignore[call-overload]
    with pytest.raises(pp.errors.ConfigError, match=r"dtype must be a floating-point dtype of torch, .* got 'float16'"):
        pp.standardize(batch, dtype="float16")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------ indexes and packs


def in_a_shard(path: Path) -> str:
    return write_tar(path, {str(number): {"png": png(number), "cls": b"1"} for number in range(2)})


def test_an_index_to_update_says_what_differs(tmp_path: Path) -> None:
    shard = in_a_shard(tmp_path / "a.tar")
    index = pp.Index.build(shard)
    for options, said in (
        ({"target": None}, "target differs: the index to update was made for cls, this one is to be for None"),
        ({"image": "png"}, "image differs: the index to update was made for jpg;jpeg;png;webp, this one is to be for png"),
        ({"max_pixels": 9}, "max_pixels differs"),
        ({"max_bytes": 9999}, "max_bytes differs"),
    ):
        with pytest.raises(pp.errors.ConfigError, match=said):
            pp.Index.build(shard, update=index, **options)
    with pytest.raises(pp.errors.ConfigError, match=r"update must be an earlier Index, got 'x.index': patchpack\.Index\.open"):
        pp.Index.build(shard, update="x.index")  # type: ignore[arg-type]


def test_a_saved_index_as_a_source_says_what_opens_it(tmp_path: Path) -> None:
    path = tmp_path / "train.index"
    pp.Index.build(in_a_shard(tmp_path / "a.tar")).save(path)
    with pytest.raises(pp.errors.SourceError, match=r"a saved index is opened by patchpack\.Index\.open\('.*train\.index'\)"):
        pp.load(path, RECIPE)


@pytest.mark.parametrize("options", [{"target": "cls"}, {"image": "jpg;jpeg;png;webp"}, {"text": "txt"}])
def test_a_name_beside_an_index_is_refused_though_it_is_the_default(options: dict[str, str]) -> None:
    name = next(iter(options))
    if name == "text":  # `text` has no default that stands for other names
        pp.load(of_sizes([(8, 9)] * 4), RECIPE, **options)
        return
    with pytest.raises(pp.errors.ConfigError, match=f"{name}= cannot be passed with an index"):
        pp.load(of_sizes([(8, 9)] * 4), RECIPE, **options)


@pytest.mark.parametrize("source", [pp.PackedShards, pp.PackedShards.__new__(pp.PackedShards)], ids=["class", "object"])
def test_packed_shards_hold_batches_already(source: Any) -> None:
    with pytest.raises(pp.errors.SourceError, match="packed shards hold batches already"):
        pp.load(source, RECIPE)


# ---------------------------------------------------------------------------------------------------- names of images


@pytest.mark.parametrize(
    ("image", "hint"),
    [("*.png", "did you mean 'png'?"), ("pngg", "did you mean 'png'?"), ("jpg;*png*", None), ("xyz", "it has: cls, png [")],
)
def test_a_name_that_no_image_has_is_told_the_nearest(tmp_path: Path, image: str, hint: str | None) -> None:
    shard = in_a_shard(tmp_path / "a.tar")
    if hint is None:
        assert sum(batch.info.packed for batch in pp.load(shard, RECIPE, image=image)) == 2
        return
    with pytest.raises(pp.errors.PatchpackError, match=re.escape(hint)):
        list(pp.load(shard, RECIPE, image=image))
    dicts = [{"__key__": "k", "png": SAMPLES[0].image, "cls": 1}]
    with pytest.raises(pp.errors.PatchpackError, match=re.escape(hint.replace("it has: cls, png", "it has: png, cls"))):
        list(pp.load(dicts, RECIPE, image=image))


class Several(Numbers):
    def __getitem__(self, number: int) -> Any:
        return [SAMPLES[number].image] * 2, number


class Clips(Numbers):
    def __getitem__(self, number: int) -> Any:
        return pp.Clip([SAMPLES[number].image] * 2), number


@pytest.mark.parametrize("options", [{"sizes": [(8, 9)] * COUNT}, {"size_of": lambda number: (8, 9)}], ids=["sizes", "size_of"])
def test_sizes_of_items_that_are_several_images_or_clips_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(pp.errors.DecodeError, match="item 0 is 2 images, and sizes= and size_of= give the size of one image"):
        list(pp.load(Several(), RECIPE, **options))
    clips = pp.Recipe(
        resize=pp.resize.NaFlex(4), patch_size=4, seq_len=8, rows_per_batch=2, video=pp.Video(num_frames=2, tubelet=1)
    )
    with pytest.raises(pp.errors.DecodeError, match="item 0 is a clip, and sizes= and size_of= give the size of one image"):
        list(pp.load(Clips(), clips, **options))


# --------------------------------------------------------------------------------------------------------- pack_images


class Broken:
    """An iterator that raises for its second image and continues."""

    def __init__(self) -> None:
        self.number = -1

    def __iter__(self) -> Broken:
        return self

    def __next__(self) -> Any:
        self.number += 1
        if self.number == 1:
            raise ValueError("broken")
        if self.number == 4:
            raise StopIteration
        return SAMPLES[self.number].image


def broken_generator() -> Any:
    yield SAMPLES[0].image
    raise ValueError("broken")


@pytest.mark.parametrize("keys", [None, ["a", "b", "c", "d"]])
def test_an_image_for_which_the_iterator_raises_is_one_rejection(keys: list[str] | None) -> None:
    loader = pp.pack_images(Broken(), RECIPE, keys=keys, on_error="skip")
    packed = [key for batch in loader for row in batch.keys for key in row]
    report = loader.report()
    assert packed == (["0", "2", "3"] if keys is None else ["a", "c", "d"])
    assert [(r.key, r.stage, r.reason) for r in report.rejected] == [
        ("1" if keys is None else "b", "read", "item 1 raised ValueError: broken")
    ]
    with pytest.raises(pp.errors.SourceError, match="item 1 raised ValueError: broken"):
        list(pp.pack_images(Broken(), RECIPE))


def test_a_generator_of_images_that_raises_ends_as_a_fault() -> None:
    loader = pp.pack_images(broken_generator(), RECIPE, keys=["a", "b", "c"], on_error="skip")
    assert [key for batch in loader for row in batch.keys for key in row] == ["a"]
    (fault,) = loader.report().shard_errors
    assert fault.reason == "item 1 raised ValueError: broken; the iterable returned no item after this error"


def test_a_key_that_is_none_is_refused_as_such() -> None:
    images = [SAMPLES[0].image, SAMPLES[1].image]
    with pytest.raises(pp.errors.ConfigError, match="got None as the key of image 0"):
        list(pp.pack_images(images, RECIPE, keys=[None, "b"]))  # type: ignore[list-item]
    with pytest.raises(pp.errors.ConfigError, match="got 1 keys and more images"):
        list(pp.pack_images(images, RECIPE, keys=["b"]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, r: pp.Planner(s, r, shufle=True), r"shufle= is no option of Planner; did you mean 'shuffle'"),
        (lambda s, r: pp.Planner(s, r, num_workers=2), r"num_workers= is no option of Planner: it belongs to load"),
        (lambda s, r: pp.load(s, r, max_images=3), r"max_images= is a field of the recipe: pass recipe.replace\(max_images="),
        (lambda s, r: pp.load(s, r, seq_len=5), r"seq_len= is a field of the recipe"),
        (lambda s, r: pp.load(s, r, label="x"), r"label= is no option of load: the label is named by target="),
        (lambda s, r: pp.load(s, r, transform=len), r"transform= is no option of load: pass recipe.replace\(augment="),
        (lambda s, r: pp.Planner(s, r, timeout=-1), r"timeout is a number of seconds, 0 for no limit, got -1"),
        (lambda s, r: pp.Planner(s, r, seen=-1), r"seen must be an integer in 0 … "),
        (lambda s, r: pp.Planner(s, r, seen="a"), r"seen must be an integer in 0 … .*, got 'a'"),
        (lambda s, r: pp.Planner(s, r, scanner="thread"), r"scanner is a multiprocessing context, None, or one of .*'spawn'"),
        (lambda s, r: pp.Planner(s, r, states_kept=0), r"states_kept must be an integer in 1 … "),
        (lambda s, r: pp.load(s, r, on_error=pp.ErrorPolicy), r"on_error must be an instance: ErrorPolicy\(\.\.\.\)"),
        (
            lambda s, r: pp.load(s, r, on_error="ignore"),
            r"'skip', a function .*, or a patchpack.ErrorPolicy; got 'ignore'",
        ),
        (lambda s, r: r.replace(drop=0.5), r"drop must be a DropPolicy, such as patchpack.drop.Constant\(0.5\), got 0.5"),
        (lambda s, r: r.replace(dtype="bfloat16"), r"^dtype must be one of .*, got 'bfloat16'"),
        (lambda s, r: pp.resize.NaViT(48, 400), r"a range of resolutions is a pair: NaViT\(\(48, 400\)\)"),
        (lambda s, r: pp.load(s, r).load_state_dict({}), r"the state says nothing of "),
    ],
)
def test_mistakes_at_the_door_say_where_the_name_belongs(call: Any, message: str) -> None:
    with pytest.raises(pp.errors.ConfigError, match=message):
        call(pp.samples.shards("train")[:1], pp.recipes.navit(seq_len=256))


def test_the_examples_of_policies_work() -> None:
    from patchpack.plan.recipe import _SUCH_AS

    for name, text in _SUCH_AS.items():
        pp.Recipe(**{"resize": pp.resize.NaFlex(256), "seq_len": 256, name: eval(text, {"patchpack": pp})})


def test_a_function_for_losses_answers_true_or_false() -> None:
    loader = pp.load([pp.Sample("a", b"no image")], pp.recipes.navit(seq_len=256), target=None, on_error=lambda loss: None)
    with pytest.raises(pp.errors.ConfigError, match=r"on_error returned None for a: .*: return True to continue"):
        list(loader)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool, torch.complex64, "float32"])
def test_patches_are_standardised_to_floats_only(dtype: Any) -> None:
    batch = next(iter(pp.load(pp.samples.shards("train")[:1], pp.recipes.navit(seq_len=256))))
    with pytest.raises(pp.errors.ConfigError, match="must be a floating-point dtype of torch"):
        pp.standardize(batch, dtype)
