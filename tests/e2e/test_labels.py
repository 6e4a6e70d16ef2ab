"""Labels of one's own end to end: boxes of several lengths, tags, None, 1 then 0.5, and fields of JSON, in every source."""

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
from helpers.captioned import png, write_tar
from patchpack.cli import main
from patchpack.types import TargetSpec

COUNT = 12
RECIPE = pp.Recipe(resize=pp.resize.Native(12, edge="pad"), patch_size=4, seq_len=20, max_images=5, rows_per_batch=2)

pytestmark = [  # webdataset and datasets leave open files to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def about(i: int) -> dict[str, Any]:
    """The JSON of a sample: a class, a score that is 1 or a fraction, boxes, tags, and a label that may be missing."""
    return {
        "Class": i,
        "score": 1 if i % 2 == 0 else 0.5,
        "boxes": [[float(i), 0.0, 1.0, k + 0.5] for k in range(i % 4)],
        "tags": [f"t{k}" for k in range(i % 3)],
        "known": None if i % 3 == 1 else i,
    }


def members(i: int) -> dict[str, bytes]:
    return {"png": png(i), "cls": str(i).encode(), "json": json.dumps(about(i)).encode()}


def shard(folder: Path, name: str = "s.tar", mode: str = "w") -> str:
    return write_tar(folder / name, {f"{i:03d}": members(i) for i in range(COUNT)}, mode)


def in_folder(folder: Path) -> Path:
    for i in range(COUNT):
        for extension, data in members(i).items():
            (folder / f"{i:03d}.{extension}").write_bytes(data)
    return folder


def rows(column: list[Any]) -> Any:
    images = [{"bytes": png(i), "path": None} for i in range(COUNT)]
    data = {"image": images, "json": column, "cls": list(range(COUNT))}
    return datasets.Dataset.from_dict(data).cast_column("image", datasets.Image())


class Rows(Dataset[Any]):
    """Rows by number, with decoded pictures."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, i: int) -> Any:
        return {"image": Image.open(io.BytesIO(png(i))), "cls": i, "json": about(i)}


SOURCES: dict[str, Callable[[Path], Any]] = {
    "shard": shard,
    "compressed shard": lambda folder: shard(folder, "s.tar.gz", "w:gz"),
    "folder": in_folder,
    "webdataset dicts": lambda _: [{"__key__": f"{i:03d}", **members(i)} for i in range(COUNT)],
    "decoded webdataset dicts": lambda _: [
        {"__key__": f"{i:03d}", "png": png(i), "cls": i, "json": about(i)} for i in range(COUNT)
    ],
    "rows of JSON": lambda _: rows([json.dumps(about(i)) for i in range(COUNT)]),
    "map-style": lambda _: Rows(),
}
LABELS: dict[str, tuple[Any, Any, Callable[[int], Any]]] = {  # target, target_kind, the target of sample i
    "a class": ("json:Class", None, lambda i: i),
    "1, then 0.5": ("json:score", "float", lambda i: about(i)["score"]),
    "boxes": ("json:boxes", "object", lambda i: about(i)["boxes"]),
    "tags": ("json:tags", "object", lambda i: about(i)["tags"]),
    "None among them": ("json:known", "object", lambda i: about(i)["known"]),
    "a class and boxes": (
        ("json:tags", "cls", "json:boxes"),  # not in the order of the alphabet
        {"json:tags": "object", "cls": "int", "json:boxes": "object"},
        lambda i: {"cls": i, "json:boxes": about(i)["boxes"], "json:tags": about(i)["tags"]},
    ),
    "a dict as one object": (
        ("json:Class", "json:known"),
        "object",
        lambda i: {"json:Class": i, "json:known": about(i)["known"]},
    ),
}


def options(name: str) -> dict[str, Any]:
    target, kind, _ = LABELS[name]
    return {"target": target, "target_kind": kind}


def plain(target: Any) -> Any:
    if isinstance(target, dict):
        return {name: plain(value) for name, value in target.items()}
    return target.tolist() if hasattr(target, "tolist") else target


def targets_of(batches: Any) -> dict[int, Any]:
    """Targets by number of the sample. Every batch is checked."""
    found: dict[int, Any] = {}
    for batch in batches:
        pp.validate(batch)
        for image in pp.unpack(batch):
            found[int(Path(image.key).stem)] = plain(image.target)
    return found


def expected(name: str) -> dict[int, Any]:
    return {i: LABELS[name][2](i) for i in range(COUNT)}


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("name", LABELS)
def test_every_source_has_every_label(name: str, kind: str, tmp_path: Path) -> None:
    loader = pp.load(SOURCES[kind](tmp_path), RECIPE, shuffle=8, **options(name))
    assert targets_of(loader) == expected(name)
    assert loader.report().packed == COUNT


@pytest.mark.parametrize("streamed", [False, True])
def test_a_field_of_a_column_of_objects(streamed: bool) -> None:
    objects = [{"Class": i, "boxes": about(i)["boxes"]} for i in range(COUNT)]
    data = rows(objects).rename_column("json", "Meta")
    kind = {"meta:Class": "int", "meta:boxes": "object"}
    loader = pp.load(data.to_iterable_dataset() if streamed else data, RECIPE, target=tuple(kind), target_kind=kind)
    assert targets_of(loader) == {i: {"meta:Class": i, "meta:boxes": about(i)["boxes"]} for i in range(COUNT)}
    assert loader.classes is None


@pytest.mark.parametrize("name", LABELS)
def test_an_index_and_its_packed_shards_have_every_label(name: str, tmp_path: Path) -> None:
    path = shard(tmp_path)
    built = pp.Index.build(path, **options(name))
    built.save(tmp_path / "s.index")
    index = pp.Index.open(tmp_path / "s.index")
    assert (index.target_kind, index.fingerprint) == (built.target_kind, built.fingerprint)
    batches = list(pp.load(index, RECIPE, shuffle=True))
    assert targets_of(batches) == expected(name)
    packed = pp.PackedShards.write(index, RECIPE, tmp_path / "packed", shuffle=True)
    packed.verify()
    assert [pp.digest(batch) for batch in packed] == [pp.digest(batch) for batch in batches]
    assert targets_of(packed) == expected(name)


@pytest.mark.parametrize("name", ["boxes", "a class and boxes"])
@pytest.mark.parametrize("way", [{"num_workers": 2}, {"num_threads": 2}], ids=str)
def test_workers_and_threads_change_nothing(name: str, way: dict[str, int], tmp_path: Path) -> None:
    path = shard(tmp_path)
    here = [pp.digest(batch) for batch in pp.load(path, RECIPE, shuffle=8, **options(name))]
    loader = pp.load(path, RECIPE, shuffle=8, **options(name), **way)
    assert [pp.digest(batch) for batch in loader] == here


def test_workers_that_plan_for_themselves_have_the_declared_kind() -> None:
    name = "a class and boxes"
    assert targets_of(pp.load(Rows(), RECIPE, num_workers=2, **options(name))) == expected(name)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", LABELS)
def test_a_stage_has_every_label(name: str, workers: int) -> None:
    if workers and name not in ("1, then 0.5", "a class and boxes"):
        return
    items = SOURCES["webdataset dicts"](Path())
    stage = pp.Pack(RECIPE, **options(name))
    assert targets_of(DataLoader(stage.over(items), batch_size=None, num_workers=workers)) == expected(name)


@pytest.mark.filterwarnings("ignore:.*has no positions to begin at")
@pytest.mark.parametrize("source", ["shard", "index", "webdataset dicts"])
def test_a_resumed_run_has_the_rest_of_the_labels(source: str, tmp_path: Path) -> None:
    name = "a class and boxes"
    read = options(name)
    if source == "index":
        data, read = pp.Index.build(shard(tmp_path), **read), {}
    else:
        data = SOURCES[source](tmp_path)
    whole = [pp.digest(batch) for batch in pp.load(data, RECIPE, shuffle=4, **read)]
    loader = pp.load(data, RECIPE, shuffle=4, **read)
    next(iter(loader))
    state = json.loads(json.dumps(loader.state_dict()))
    again = pp.load(data, RECIPE, shuffle=4, **read)
    again.load_state_dict(state)
    assert [pp.digest(batch) for batch in again] == whole[1:]


def test_a_state_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    path = shard(tmp_path)
    index = pp.Index.build(path, target="json:score", target_kind="float")
    for source in (path, index):
        read = {"target": "json:score"} if source is path else {}
        state = pp.load(source, RECIPE, **read, target_kind="float").state_dict()
        pp.load(source, RECIPE, **read, target_kind="float").load_state_dict(state)
        for kind in ("object", None):
            with pytest.raises(pp.errors.ConfigError, match=r"target_kind differs: the state was saved with 'float', this"):
                pp.load(source, RECIPE, **read, target_kind=kind).load_state_dict(state)
    stage = pp.Pack(RECIPE, target_kind="float", resumable=True)
    with pytest.raises(pp.errors.ConfigError, match="target_kind differs"):
        pp.Pack(RECIPE, target_kind="int", resumable=True).load_state_dict(stage.state_dict())


def test_the_kind_of_an_index_can_be_declared_when_it_is_loaded(tmp_path: Path) -> None:
    index = pp.Index.build(shard(tmp_path), target="json:score")
    loader = pp.load(index, RECIPE, on_error="skip")
    assert len(targets_of(loader)) == COUNT // 2
    assert "pass target_kind='float'" in loader.report().rejected[0].reason
    assert targets_of(pp.load(index, RECIPE, target_kind="float")) == expected("1, then 0.5")
    doubled = pp.load(index, RECIPE, target_kind=("float", (2,)), map_target=lambda score: [score, 2 * score])
    assert targets_of(doubled) == {i: [about(i)["score"], 2 * about(i)["score"]] for i in range(COUNT)}


def test_the_fingerprint_of_an_index_depends_on_labels_and_on_the_declared_kind(tmp_path: Path) -> None:
    path = shard(tmp_path)
    score: dict[str, Any] = {"target": "json:score"}
    kinds: list[dict[str, Any]] = [{}, {"target_kind": "float"}, {"target_kind": "object"}]
    asked: list[dict[str, Any]] = [*({**score, **kind} for kind in kinds), {"target": "json"}, {"target": "json:Class"}]
    found = [pp.Index.build(path, **one).fingerprint for one in asked]
    assert len(set(found)) == len(found)
    assert pp.Index.build(path, **asked[1]).fingerprint == found[1]
    updated = pp.Index.build(path, **asked[1], update=pp.Index.build(path, target="json:score"))
    assert updated.fingerprint == found[1]


def test_a_declared_kind_needs_no_readable_label(tmp_path: Path) -> None:
    """The first batch of float labels was of integers where the first label was 1."""

    class Counting(Rows):
        read = 0

        def __getitem__(self, i: int) -> Any:
            Counting.read += 1
            return super().__getitem__(i)

    planner = pp.Planner(Counting(), RECIPE, sizes=[(4, 4)] * COUNT, shuffle=True, target="json:score", target_kind="float")
    assert {str(plan.target_kind) for plan in planner} == {"TargetSpec(dtype='float32', shape=(), declared=True)"}
    assert Counting.read == 0


def test_a_replayed_image_has_the_label_of_the_run(tmp_path: Path) -> None:
    path = shard(tmp_path)
    image = pp.replay(path, RECIPE, "s.tar/003", **options("a class and boxes"))
    assert plain(image.target) == expected("a class and boxes")[3]
    assert image.target["cls"].dtype == np.int64


def test_adapters_keep_dicts_of_arrays_and_objects(tmp_path: Path) -> None:
    from patchpack.adapters.pad import padded

    for batch in pp.load(shard(tmp_path), RECIPE, **options("a class and boxes")):
        one = padded(batch.to("cpu"))
        numbers = [int(Path(key).stem) for key in one.keys]
        assert isinstance(one.targets, dict)
        assert one.targets["cls"].tolist() == numbers
        assert one.targets["json:boxes"] == [about(i)["boxes"] for i in numbers]


# ------------------------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize("kind", SOURCES)
def test_a_missing_field_is_a_rejection_with_the_nearest_name(kind: str, tmp_path: Path) -> None:
    loader = pp.load(SOURCES[kind](tmp_path), RECIPE, target="json:class", on_error=pp.ErrorPolicy("skip", max_in_a_row=None))
    with pytest.raises(pp.errors.SourceError, match="no image to pack"):
        list(loader)
    rejected = loader.report().rejected
    assert len(rejected) == COUNT
    for rejection in rejected:
        assert rejection.stage == "target"
        assert "label 'json' has no field 'class', it has: 'Class', 'score', " in rejection.reason
        assert rejection.reason.endswith("did you mean 'Class'?")


BROKEN = {
    "no JSON": (b"{", "label 'json' is not JSON: "),
    "no UTF-8": (b"\xff", "label 'json' is not UTF-8: "),
    "a list": (b"[1]", r"label 'json' has no field 'score', it has: list \[1\]"),
    "nested too deeply": (b"[" * 100_000, "label 'json' is not JSON: "),
}


@pytest.mark.parametrize("kind", ["shard", "compressed", "folder", "dicts"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_label_costs_its_sample_alone(name: str, kind: str, tmp_path: Path) -> None:
    data, reason = BROKEN[name]
    samples = {f"{i:03d}": {"png": png(i), "json": data if i == 1 else b'{"score": 1}'} for i in range(3)}
    source: Any = tmp_path
    if kind == "folder":
        for key, one in samples.items():
            for extension, content in one.items():
                (tmp_path / f"{key}.{extension}").write_bytes(content)
    elif kind == "dicts":
        source = [{"__key__": key, **one} for key, one in samples.items()]
    else:
        source = write_tar(
            tmp_path / f"a.tar{'.gz' if kind == 'compressed' else ''}", samples, "w:gz" if kind[0] == "c" else "w"
        )
    loader = pp.load(source, RECIPE, target="json:score", on_error="skip")
    assert targets_of(loader) == {0: 1, 2: 1}
    (rejection,) = loader.report().rejected
    assert rejection.stage == "target"
    with pytest.raises(pp.errors.TargetError, match=reason):
        raise rejection.as_error()


def test_a_missing_member_is_named(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"0": {"png": png(0), "meta.json": b"{}"}})
    with pytest.raises(
        pp.errors.TargetError, match=r"no label member 'json', it has: meta\.json, png; did you mean 'meta.json'"
    ):
        list(pp.load(path, RECIPE, target="json:score"))
    with pytest.raises(pp.errors.ConfigError, match=r"target='meta:score' needs column 'meta'; the data set's columns are"):
        pp.load(rows([json.dumps(about(i)) for i in range(COUNT)]), RECIPE, target="meta:score")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no kind": ({"target_kind": "integer"}, r"target_kind must be 'int', 'float', 'object', a pair .* got 'integer'"),
    "a type": ({"target_kind": int}, r"target_kind must be .* got <class 'int'>"),
    "a shape of an object": ({"target_kind": ("object", (4,))}, "target_kind must be"),
    "a length": ({"target_kind": ("float", 4)}, "target_kind must be"),
    "an empty dict": ({"target_kind": {}}, "target_kind must be"),
    "no labels": ({"target": None, "target_kind": "int"}, r"target_kind='int' is for labels, and .* reads none: leave it out"),
    "one kind for several": (
        {"target": ("cls", "json:score"), "target_kind": "float"},
        r"target_kind='float' is for one label.*: pass target_kind=\{'cls': 'float', 'json:score': 'float'\}",
    ),
    "another name": (
        {"target": ("cls", "json:score"), "target_kind": {"cls": "int", "json:scores": "float"}},
        "name every label once; did you mean",
    ),
    "a name left out": (
        {"target": ("cls", "json:score"), "target_kind": {"cls": "int"}},
        "names no kind of 'json:score'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_kind_that_no_label_can_have_is_refused_before_reading(name: str, tmp_path: Path) -> None:
    given, said = REFUSED[name]
    path = shard(tmp_path)
    for make in (
        lambda: pp.load(path, RECIPE, **given),
        lambda: pp.Index.build(path, **given),
        lambda: pp.Pack(RECIPE, **given),
    ):
        with pytest.raises(pp.errors.ConfigError, match=said):
            make()


def test_a_kind_is_refused_for_images_without_labels_and_twice() -> None:
    with pytest.raises(pp.errors.ConfigError, match="target_kind='int' is for labels, and images reads none"):
        pp.pack_images([png(1)], RECIPE, target_kind="int")
    source = pp.open_source([(png(1), 1)], target_kind="float")
    assert pp.load(source, RECIPE, target_kind="float").planner.source is not source
    with pytest.raises(pp.errors.ConfigError, match="was opened with target_kind='float': pass one of them"):
        pp.load(source, RECIPE, target_kind="int")


class Own(pp.Source):
    """A source of one's own."""

    name = "own"

    def __init__(self) -> None:
        self.items = pp.open_source([(png(i), about(i)["score"]) for i in range(COUNT)])
        self.reader = self.items.reader

    def scan(self) -> Any:
        return self.items.scan()


def test_a_source_of_ones_own_takes_a_kind() -> None:
    source = Own()
    assert targets_of(pp.load(source, RECIPE, target_kind="float")) == expected("1, then 0.5")
    assert source.target_kind is None


def test_tensors_stay_tensors_and_objects_lists(tmp_path: Path) -> None:
    (batch, *_) = pp.load(shard(tmp_path), RECIPE, **options("a class and boxes"))
    assert isinstance(batch.targets, dict)
    assert isinstance(batch.targets["cls"], torch.Tensor)
    assert isinstance(batch.targets["json:boxes"], list)
    moved = batch.to("cpu")
    assert moved.targets["json:boxes"] == batch.targets["json:boxes"]
    file = io.BytesIO()
    torch.save(moved, file)
    file.seek(0)
    assert pp.digest(torch.load(file)) == pp.digest(batch)


# ------------------------------------------------------------------------------------------------------------- command line


def test_an_index_of_the_command_line_keeps_the_declared_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = shard(tmp_path), tmp_path / "s.index"
    assert main(["index", path, "-o", str(out), "--target", "json:boxes", "--target-kind", "object"]) == 0
    index = pp.Index.open(out)
    assert index.fingerprint == pp.Index.build(path, **options("boxes")).fingerprint
    assert targets_of(pp.load(index, RECIPE)) == expected("boxes")
    assert main(["index", path, "--update", str(out), "-o", str(out)]) == 0
    assert pp.Index.open(out).fingerprint == index.fingerprint
    assert main(["index", path, "--update", str(out), "-o", str(out), "--target-kind", "float"]) == 0
    assert pp.Index.open(out).target_kind == TargetSpec("float32", (), True)
    capsys.readouterr()


def test_sources_of_a_mix_may_declare_the_kind_of_their_labels() -> None:
    def of(label: object, **options: Any) -> pp.Source:
        return pp.open_source([pp.Sample(f"s{n}", np.zeros((9, 8, 3), np.uint8), label) for n in range(4)], **options)

    recipe = pp.Recipe(resize=pp.resize.NaFlex(4), patch_size=4, seq_len=8, rows_per_batch=2, max_images=2)
    both = pp.Mix([(of(1, target_kind="float"), 1), (of(0.5, target_kind="float"), 1)], stop="last")
    assert {batch.targets.dtype for batch in pp.load(both, recipe)} == {torch.float32}
    one = pp.Mix([(of(1), 1), (of(0.5, target_kind="float"), 1)], stop="last")
    with pytest.raises(pp.errors.ConfigError, match=r"those of '0' are int64, those of '1' are float32.* target_kind="):
        list(pp.load(one, recipe))
    assert {batch.targets.dtype for batch in pp.load(one, recipe, target_kind="float")} == {torch.float32}
