"""Texts beside images end to end: every kind of source, workers, a resume in the middle, faults."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import patchpack as pp
from helpers.captioned import (
    COUNT,
    RECIPE,
    TEXT_LEN,
    caption,
    ids,
    members,
    naive_texts,
    png,
    texts_of,
    tokenize,
    write_folder,
    write_tar,
)  # fmt: skip

OPTIONS: dict[str, Any] = {"tokenize": tokenize, "text_len": TEXT_LEN, "target": None}
EXPECTED = {i: ids(i) for i in range(COUNT)}

pytestmark = [  # webdataset and datasets leave open files to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def shard(folder: Path, kind: str = "txt", name: str = "s.tar", mode: str = "w") -> str:
    return write_tar(folder / name, {f"{i:03d}": members(i, kind) for i in range(COUNT)}, mode)


def rows(**columns: Any) -> Any:
    images = [{"bytes": png(i), "path": None} for i in range(COUNT)]
    return datasets.Dataset.from_dict({"image": images, **columns}).cast_column("image", datasets.Image())


class Pictures(Dataset[Any]):
    """A picture and its caption."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, i: int) -> Any:
        return Image.open(io.BytesIO(png(i))), caption(i)


CAPTIONS = [caption(i) for i in range(COUNT)]
OBJECTS = [{"caption": text, "url": "x"} for text in CAPTIONS]
SOURCES: dict[str, tuple[Callable[[Path], Any], dict[str, Any]]] = {
    "shard": (shard, {}),
    "shard of JSON": (lambda folder: shard(folder, "json"), {"text": "json:caption"}),
    "text that is a label too": (shard, {"target": "txt"}),
    "compressed shard": (lambda folder: shard(folder, name="s.tar.gz", mode="w:gz"), {}),
    "folder": (write_folder, {}),
    "pictures with captions": (lambda _: Pictures(), {}),
    "pictures of known sizes": (lambda _: Pictures(), {"size_of": lambda i: (1, 1)}),
    "Samples": (lambda _: [pp.Sample(str(i), png(i), None, caption(i)) for i in range(COUNT)], {}),
    "webdataset dicts": (lambda _: [{"__key__": str(i), **members(i)} for i in range(COUNT)], {}),
    "rows": (lambda _: rows(text=CAPTIONS), {}),
    "rows of a column": (lambda _: rows(Title=CAPTIONS), {"text": "title"}),
    "rows of objects": (lambda _: rows(meta=OBJECTS), {"text": "meta:caption"}),
    "rows of JSON": (lambda _: rows(meta=[json.dumps(one) for one in OBJECTS]), {"text": "meta:caption"}),
    "streamed rows": (lambda _: rows(text=CAPTIONS).to_iterable_dataset(), {}),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_every_text_once_beside_its_image(kind: str, tmp_path: Path) -> None:
    make, options = SOURCES[kind]
    loader = pp.load(make(tmp_path), RECIPE, shuffle=8, **{**OPTIONS, **options})
    batches = list(loader)
    assert texts_of(batches) == EXPECTED
    number = {key: i for i, key in enumerate(sorted({key for b in batches for row in b.keys for key in row}, key=_number))}
    for batch in batches:
        pp.validate(batch)
        token, segment = naive_texts(batch, {key: ids(i) for key, i in number.items()}, TEXT_LEN)
        assert np.array_equal(batch.text_ids, token)
        assert np.array_equal(batch.text_segment_ids, segment)
    assert loader.report().packed == COUNT


def _number(key: str) -> int:
    return int(Path(key).stem)


def digests(batches: Any) -> list[str]:
    return [pp.digest(batch) for batch in batches]


@pytest.mark.parametrize("way", [{"num_workers": 2}, {"num_threads": 2}], ids=str)
def test_workers_and_threads_change_nothing(way: dict[str, int], tmp_path: Path) -> None:
    source = shard(tmp_path)
    here = digests(pp.load(source, RECIPE, shuffle=8, **OPTIONS))
    assert digests(pp.load(source, RECIPE, shuffle=8, **OPTIONS, **way)) == here


def test_workers_that_plan_for_themselves() -> None:
    assert texts_of(pp.load(Pictures(), RECIPE, num_workers=2, **OPTIONS)) == EXPECTED


def test_ranks_share_an_evaluation(tmp_path: Path) -> None:
    source = shard(tmp_path)
    shares = [list(pp.load(source, RECIPE, tail="pad", rank=rank, world_size=2, **OPTIONS)) for rank in range(2)]
    assert texts_of([batch for share in shares for batch in share]) == EXPECTED
    assert all(batch.text_ids.shape == (2, TEXT_LEN) for share in shares for batch in share)


@pytest.mark.parametrize("tail", ["short", "wrap"])
@pytest.mark.parametrize("step", [0, 1, 3])
def test_resumed_is_as_if_never_stopped(step: int, tail: Any, tmp_path: Path) -> None:
    source = shard(tmp_path)
    recipe = RECIPE.replace(rows_per_batch=1)
    options: dict[str, Any] = {**OPTIONS, "shuffle": 8, "tail": tail, "epoch": 2}
    loader = pp.load(source, recipe, **options)
    whole, states = [], []
    for batch in loader:
        whole.append(pp.digest(batch))
        states.append(json.loads(json.dumps(loader.state_dict())))
    assert len(whole) > 4
    again = pp.load(source, recipe, **options)
    again.load_state_dict(states[step])
    assert digests(again) == whole[step + 1 :]


def longer(text: str) -> list[int]:
    return [*tokenize(text), 1]


longer.__qualname__ = tokenize.__qualname__  # a function of another name is refused before


CHANGED: dict[str, tuple[dict[str, Any], str]] = {
    "text_len": ({"text_len": TEXT_LEN + 1}, "text_len differs: the state was saved with 24, this loader has 25"),
    "no text": (
        {"tokenize": None, "text_len": None},
        "tokenize differs: the state was saved with tokenize, this loader has None",
    ),
}


@pytest.mark.parametrize(("change", "why"), CHANGED.values(), ids=CHANGED)
def test_a_state_of_other_texts_is_refused(change: dict[str, Any], why: str, tmp_path: Path) -> None:
    source = shard(tmp_path)
    loader = pp.load(source, RECIPE, **OPTIONS)
    next(iter(loader))
    state = loader.state_dict()
    with pytest.raises(pp.errors.ConfigError, match=why):
        pp.load(source, RECIPE, **{**OPTIONS, **change}).load_state_dict(state)


def test_a_tokenizer_that_has_changed_is_found_at_a_resume(tmp_path: Path) -> None:
    source = shard(tmp_path)
    loader = pp.load(source, RECIPE, **OPTIONS)
    next(iter(loader))
    again = pp.load(source, RECIPE, **{**OPTIONS, "tokenize": longer})
    again.load_state_dict(loader.state_dict())
    with pytest.raises(pp.errors.SourceError, match="tokenize returns other tokens"):
        next(iter(again))


# ------------------------------------------------------------------------------------------------------------- pipelines


def test_a_stage_of_a_pipeline_and_its_resume(tmp_path: Path) -> None:
    import webdataset as wds

    stream = wds.WebDataset(shard(tmp_path), shardshuffle=False)
    stage = pp.Pack(RECIPE, resumable=True, **OPTIONS)
    batches = list(DataLoader(stage.over(stream), batch_size=None))
    assert texts_of(batches) == EXPECTED
    assert isinstance(batches[0].text_ids, torch.Tensor)
    for batch in batches[:2]:
        stage.delivered(batch)
    again = pp.Pack(RECIPE, resumable=True, **OPTIONS)
    again.load_state_dict(stage.state_dict())
    rest = DataLoader(again.over(wds.WebDataset(shard(tmp_path), shardshuffle=False)), batch_size=None)
    assert digests(rest) == digests(batches[2:])
    with pytest.raises(pp.errors.ConfigError, match="text_len differs"):
        pp.Pack(RECIPE, resumable=True, **{**OPTIONS, "text_len": 9}).load_state_dict(stage.state_dict())


def test_decoded_members_and_many_captions_of_one_image() -> None:
    """What webdataset's ``decode()`` left, and a function of the user's that takes one of several."""
    item = {"__key__": "a", "png": png(0), "json": {"captions": ["x", "y z"]}}

    def second(number: int, item: Any) -> pp.Sample:
        return pp.Sample(item["__key__"], item["png"], None, item["json"]["captions"][1])

    (batch,) = pp.Pack(RECIPE, to_sample=second, **OPTIONS)([item])
    assert batch.text_ids[0, :3].tolist() == [*tokenize("y z"), 0]


# ----------------------------------------------------------------------------------------------------------------- faults


def boom(text: str) -> Any:
    return [] if text == "empty" else tokenize(text) if text != "boom" else 1 / 0


BROKEN: dict[str, dict[str, bytes]] = {
    "missing": {"png": png(1), "cls": b"0"},
    "not UTF-8": {"png": png(1), "txt": b"\xff"},
    "raises": {"png": png(1), "txt": b"boom"},
    "no token": {"png": png(1), "txt": b"empty"},
    "too long": {"png": png(1), "txt": b"w " * 25},
    "too large": {"png": png(1), "txt": b" " * 5000 + b"w"},
    "cut": {"png": png(1)[:44], "txt": b"w w w"},
}
WHY = {
    "missing": ("target", "no text"),
    "not UTF-8": ("target", "text 'txt' is not UTF-8"),
    "raises": ("target", "tokenize failed for str 'boom': ZeroDivisionError"),
    "no token": ("target", "tokenize must return at least one token, such as an end token, got none for str 'empty'"),
    "too long": ("plan", "its text has 25 tokens, more than the text_len=24 of a row"),
    "too large": ("target", "max_bytes"),
    "cut": ("decode", ""),
}


def write_broken(kind: str, folder: Path) -> Any:
    samples = {"good": members(0), **BROKEN, "last": members(2)}
    if kind == "shard":
        return write_tar(folder / "s.tar", samples)
    if kind == "compressed shard":
        return write_tar(folder / "s.tar.gz", samples, "w:gz")
    if kind == "dicts":
        return [{"__key__": key, **entries} for key, entries in samples.items() if key != "too large"]
    for key, entries in samples.items():
        for extension, data in entries.items():
            (folder / f"{key}.{extension}").write_bytes(data)
    return str(folder)


@pytest.mark.parametrize("kind", ["shard", "compressed shard", "folder", "dicts"])
def test_every_fault_is_named_and_nobody_elses_text_moves(kind: str, tmp_path: Path) -> None:
    source = write_broken(kind, tmp_path)
    recipe = RECIPE.replace(max_bytes=4000)
    loader = pp.load(source, recipe, on_error="skip", **{**OPTIONS, "tokenize": boom})
    batches = list(loader)
    found = {Path(r.key).stem: (r.stage, r.reason) for r in loader.report().rejected}
    expected = {name: why for name, why in WHY.items() if not (kind == "dicts" and name == "too large")}
    assert found.keys() == expected.keys()
    for name, (stage, reason) in expected.items():
        assert found[name][0] == stage, name
        assert reason in found[name][1], name
    assert texts_of(batches) == {0: ids(0), 2: ids(2)}
    for batch in batches:
        pp.validate(batch)
        assert int(pp.text.mask(batch).sum()) == len(ids(0)) + len(ids(2))  # the cut picture's text is gone
    report = loader.report()
    assert (report.seen, report.packed, report.waiting) == (len(expected) + 2, 2, 0)


def test_the_member_at_fault_is_named(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", {"a": {"png": png(1), "txt": b"\xff"}})
    with pytest.raises(pp.errors.TargetError, match=r"s.tar/a \(a.txt\): text 'txt' is not UTF-8.*\[target\]"):
        list(pp.load(path, RECIPE, **OPTIONS))
    path = write_tar(tmp_path / "t.tar", {"a": {"png": png(1)}})
    with pytest.raises(pp.errors.TargetError, match=r"t.tar/a \(a.png\): no text member 'txt', it has: png"):
        list(pp.load(path, RECIPE, **OPTIONS))


def test_without_tokenize_no_text_is_read(tmp_path: Path) -> None:
    """Bytes that are no text trouble nobody, and batches are what they were."""
    path = write_tar(tmp_path / "s.tar", {"a": {"png": png(1), "txt": b"\xff"}, "b": {"png": png(2)}})
    (batch,) = pp.load(path, RECIPE, target=None)
    assert batch.keys == [["s.tar/a", "s.tar/b"]]
    assert batch.text_ids is batch.text_segment_ids is None


def test_images_that_belong_together_and_one_text(tmp_path: Path) -> None:
    pages = {f"{i}.png": png(i) for i in (3, 1)}
    path = write_tar(tmp_path / "s.tar", {"doc": {**pages, "txt": b"two w"}, "one": {"0.png": png(5), "txt": b"w"}})
    (batch,) = pp.load(path, RECIPE, image="*.png", **OPTIONS)
    assert batch.sample_ids[0].tolist() == [1, 1, 2, 0, 0]
    assert batch.text_segment_ids[0, :4].tolist() == [1, 1, 3, 0]
    broken = {"1.png": png(1), "2.png": png(2)[:44], "txt": b"two w"}
    path = write_tar(tmp_path / "t.tar", {"doc": broken, "one": {"0.png": png(5), "txt": b"w"}})
    loader = pp.load(path, RECIPE, image="*.png", on_error="skip", **OPTIONS)
    (batch,) = loader
    assert batch.text_segment_ids[0, :4].tolist() == [0, 0, 3, 0]
    assert batch.text_ids[0, :3].tolist() == [0, 0, *tokenize("w")]
    assert [r.key for r in loader.report().rejected] == ["t.tar/doc"]


def test_packed_shards_keep_texts(tmp_path: Path) -> None:
    """A step as it is written and read again; what writes them plans from an index, which has none."""
    from patchpack.stream.packed.steps import END, Place, read_step, write_step

    batch = next(iter(pp.load(shard(tmp_path), RECIPE, **OPTIONS)))
    arrays = batch._replace(**{n: v.numpy() for n, v in batch._asdict().items() if isinstance(v, torch.Tensor)})
    place = Place("p", 0, 0)
    for given in (arrays, arrays._replace(text_ids=None, text_segment_ids=None)):
        data = b"".join(map(bytes, write_step(given, place, None))) + END  # type: ignore[arg-type]
        assert pp.digest(read_step(torch.frombuffer(bytearray(data), dtype=torch.uint8), place)) == pp.digest(given)
    for wrong in (None, arrays.text_ids[:, 1:], arrays.text_ids[:1], arrays.text_ids[0]):
        data = b"".join(map(bytes, write_step(arrays._replace(text_ids=wrong), place, None))) + END  # type: ignore[arg-type]
        with pytest.raises(pp.errors.ShardError, match="text_ids"):
            read_step(torch.frombuffer(bytearray(data), dtype=torch.uint8), place)
