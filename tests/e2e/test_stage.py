"""`pp.Pack` in pipelines as their libraries document them, and the kinds of items a stream may yield."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections import Counter
from collections.abc import Iterator
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import webdataset as wds
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset

import patchpack as pp
from patchpack import rng
from patchpack.plan.table import plan_table
from patchpack.testing import check_batch

TRAIN = pp.samples.shards("train")
RECIPE = pp.recipes.navit(seq_len=256, rows_per_batch=2)
EXTENSIONS = "jpg;png;webp"

pytestmark = [  # webdataset leaves its open shards to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def keys_of(batches: Any) -> list[str]:
    return [key for batch in batches for row in batch.keys for key in row]


def pipeline(**options: Any) -> Any:
    return wds.WebDataset(TRAIN, shardshuffle=False, **options)


def png(value: int = 0, size: tuple[int, int] = (40, 30)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(file, "png")
    return file.getvalue()


# ---------------------------------------------------------------------------------------------- webdataset's pipelines


def test_a_webdataset_pipeline_packs_every_sample_with_its_label() -> None:
    batches = list(pipeline().compose(pp.Pack(RECIPE, image=EXTENSIONS)))
    for batch in batches:
        check_batch(batch)
    loaded = {i.key: int(i.target) for b in pp.load(TRAIN, RECIPE) for i in pp.unpack(b)}
    staged = {i.key: int(i.target) for b in batches for i in pp.unpack(b)}
    assert staged == loaded  # the same keys too: shard file name and stem
    report = pp.Report.collect(batches)
    assert (report.seen, report.packed, report.waiting) == (420, 420, 0)


def test_the_users_own_stages_are_kept() -> None:
    stream = (
        pipeline()
        .shuffle(100, rng=__import__("random").Random(0))
        .decode("pil")
        .map(lambda sample: {**sample, "cls": int(sample["cls"]) + 100})
        .compose(pp.Pack(RECIPE, image=EXTENSIONS))
    )
    batches = list(stream)
    targets = np.concatenate([b.targets[b.slot_mask] for b in batches])
    assert Counter(targets.tolist()) == dict.fromkeys(range(100, 110), 42)
    assert keys_of(batches) != keys_of(pp.load(TRAIN, RECIPE))


def test_a_resampled_stream_has_no_end_and_draws_anew() -> None:
    stream = wds.WebDataset(TRAIN[:1], resampled=True, shardshuffle=False).compose(pp.Pack(RECIPE, image=EXTENSIONS))
    kept: dict[str, set[Any]] = {}
    for number, batch in enumerate(stream):
        for image in pp.unpack(batch):
            kept.setdefault(image.key, set()).add((*image.grid, len(image.patches)))
        if number == 50:
            break
    assert max(map(len, kept.values())) >= 3  # the same picture, other resolutions


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_that_split_the_shards_are_not_split_again(workers: int) -> None:
    stream = pipeline(workersplitter=wds.split_by_worker).compose(pp.Pack(RECIPE, image=EXTENSIONS))
    batches = list(DataLoader(stream, batch_size=None, num_workers=workers))
    assert all(isinstance(batch.patches, torch.Tensor) for batch in batches)
    assert len(keys_of(batches)) == len(set(keys_of(batches))) == 420
    report = pp.Report.collect(batches)
    assert (report.seen, report.packed, report.waiting) == (420, 420, 0)


def test_the_stage_travels_to_a_worker() -> None:
    stage = pickle.loads(pickle.dumps(pp.Pack(RECIPE, target=None, tail="pad")))
    (batch,) = stage([pp.Sample("a", png())])
    assert batch.keys == [["a"], []]


# ------------------------------------------------------------------------------------------------------ kinds of items


class Stream(IterableDataset[Any]):
    def __init__(self, *items: Any) -> None:
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)


ITEMS = {
    "Sample": (pp.Sample("0", png(), 7), {}),
    "webdataset bytes": ({"__key__": "0", "png": png(), "cls": b"7"}, {}),
    "webdataset decoded": ({"__key__": "0", "png": Image.open(io.BytesIO(png())), "cls": 7}, {}),
    "row with PIL": ({"image": Image.open(io.BytesIO(png())), "label": 7}, {}),
    "row with bytes": ({"image": {"bytes": png(), "path": None}, "label": 7}, {}),
    "row with another column": ({"image": {"bytes": png(), "path": None}, "label": 3, "fine": 7}, {"target": "fine"}),
    "pair": ((np.zeros((30, 40, 3), np.uint8), 7), {}),
    "pair with PIL": ((Image.new("RGB", (40, 30)), 7), {}),
}


@pytest.mark.parametrize(("item", "options"), ITEMS.values(), ids=ITEMS.keys())
@pytest.mark.parametrize("through", ["load", "Pack"])
def test_what_a_stream_may_yield(item: Any, options: dict[str, Any], through: str) -> None:
    stream = Stream(item)
    batches = pp.load(stream, RECIPE, **options) if through == "load" else pp.Pack(RECIPE, **options)(stream)
    ((image,),) = [list(pp.unpack(batch)) for batch in batches]
    assert (image.key, int(image.target), image.source_size) == ("0", 7, (30, 40))


def test_a_path_in_a_row_is_read(tmp_path: Any) -> None:
    (tmp_path / "a.png").write_bytes(png())
    row = {"image": {"bytes": None, "path": str(tmp_path / "a.png")}, "label": 1}
    (batch,) = pp.load([row], RECIPE)
    assert batch.source_sizes[0, 0].tolist() == [30, 40]


def test_a_function_makes_samples_of_anything() -> None:
    def convert(number: int, item: Any) -> pp.Sample:
        return pp.Sample(f"photo-{number}", item["jpeg_bytes"], item["score"])

    (batch,) = pp.load([{"jpeg_bytes": png(), "score": 0.5}] * 2, RECIPE, to_sample=convert)
    assert batch.keys == [["photo-0", "photo-1"]]
    assert batch.targets[0, :2].tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (3, "item 0 is a int: expected a patchpack.Sample, a webdataset dict, a row"),
        ({"pixels": 1}, "item 0 is a dict with 'pixels'"),
        ((0.5, 1), "item 0 is a tuple of a float"),
        (("key", np.zeros((8, 9, 3), np.uint8)), "item 0 is a tuple of a str, a ndarray"),
    ],
)
def test_an_item_of_no_known_kind_says_what_would_do(item: Any, message: str) -> None:
    with pytest.raises(pp.errors.SourceError, match=message):
        list(pp.load([item], RECIPE))


def test_a_function_that_makes_something_else_is_named() -> None:
    with pytest.raises(pp.errors.SourceError, match="got a dict for item 0"):
        list(pp.load([1], RECIPE, to_sample=lambda number, item: {}))  # type: ignore[arg-type, return-value]


def test_a_missing_or_broken_label_is_a_counted_rejection() -> None:
    items = [
        {"__key__": "none", "png": png()},
        {"__key__": "good", "png": png(), "cls": b"1"},
        {"__key__": "text", "png": png(), "cls": b"cat"},
    ]
    batches = list(pp.Pack(RECIPE, on_error="skip")(items))
    report = pp.Report.collect(batches)
    assert [(r.key, r.stage) for r in report.rejected] == [("none", "target"), ("text", "target")]
    assert (report.seen, report.packed, report.waiting) == (3, 1, 0)
    with pytest.raises(pp.errors.TargetError, match="none: no label member 'cls'"):
        list(pp.Pack(RECIPE)(items))


@pytest.mark.parametrize("through", ["load", "Pack"])
def test_an_item_without_its_image_is_a_counted_rejection(through: str) -> None:
    items = [
        {"__key__": "none", "gif": b"", "cls": b"0"},
        {"image": {"bytes": None, "path": "nowhere/a.png"}, "label": 1},
        {"image": None, "label": 1},
        {"__key__": "good", "png": png(), "cls": b"1"},
    ]
    if through == "load":
        loader = pp.load(items, RECIPE, on_error="skip")
        batches, report = list(loader), loader.report()
    else:
        batches = list(pp.Pack(RECIPE, on_error="skip")(items))
        report = pp.Report.collect(batches)
    assert keys_of(batches) == ["good"]
    assert [(r.key, r.stage) for r in report.rejected] == [("none", "header"), ("1", "read"), ("2", "header")]
    assert "no image member (jpg;jpeg;png;webp), it has: gif" in report.rejected[0].reason
    assert "nowhere/a.png" in report.rejected[1].reason
    assert (report.seen, report.packed, report.waiting) == (4, 1, 0)


def test_a_stream_without_a_readable_image_raises_under_any_policy() -> None:
    with pytest.raises(pp.errors.SourceError, match="the stream: no image to pack, 1 samples seen, 1 rejected"):
        list(pp.Pack(RECIPE, on_error="skip")([pp.Sample("bad", b"", 0)]))


def test_options_are_checked_at_construction() -> None:
    for options, message in (
        ({"on_error": "ignore"}, "on_error is 'raise', 'skip', a function"),
        ({"tail": "cut"}, "tail must be one of"),
        ({"image": ""}, "image must name at least one extension"),
    ):
        with pytest.raises(pp.errors.ConfigError, match=message):
            pp.Pack(RECIPE, **options)


def test_steps_from_a_source_that_can_be_read_once_end_with_an_error_not_in_silence() -> None:
    once = (pp.Sample(str(i), png(), i) for i in range(40))
    loader = pp.load(once, RECIPE, steps_per_epoch=1000)
    batches = iter(loader)
    first = next(batches)
    with pytest.raises(pp.errors.SourceError, match=r"ended after \d+ of 1000 steps: it can be read only once"):
        list(batches)
    assert keys_of([first])
    assert (loader.report().packed, loader.report().waiting) == (40, 0)


# ------------------------------------------------------------------------------------------------ several labels, mapped


def two_labels(tmp_path: Any, *, lost: str = "") -> str:
    path = str(tmp_path / "two.tar")
    with tarfile.open(path, "w") as tar:
        for i in range(4):
            for name, data in ((f"{i}.png", png(i)), (f"{i}.cls", str(i).encode()), (f"{i}.json", b"[%d, 0.5]" % i)):
                if name != lost:
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", ["seekable", "stream"])
def test_several_labels_come_as_a_dict(kind: str, workers: int, tmp_path: Any) -> None:
    path = two_labels(tmp_path)
    source = path if kind == "seekable" else f"pipe:cat {path}"
    (batch,) = pp.load(source, RECIPE, target=("cls", "json"), num_workers=workers)
    assert {name: values.dtype for name, values in batch.targets.items()} == {"cls": torch.int64, "json": torch.float32}
    assert batch.targets["cls"][batch.slot_mask].tolist() == [0, 1, 2, 3]
    assert batch.targets["json"][batch.slot_mask].tolist() == [[i, 0.5] for i in range(4)]
    assert (batch.targets["cls"][~batch.slot_mask] == -100).all()


def test_several_labels_of_a_pipeline_and_of_rows(tmp_path: Any) -> None:
    stream = wds.WebDataset(two_labels(tmp_path), shardshuffle=False).compose(pp.Pack(RECIPE, target=("cls", "json")))
    (batch,) = stream
    assert batch.targets["json"][batch.slot_mask].tolist() == [[i, 0.5] for i in range(4)]
    rows = [{"image": {"bytes": png()}, "fine": 3, "coarse": 1}]
    (batch,) = pp.load(rows, RECIPE, target=("fine", "coarse"))
    assert {name: int(values[0, 0]) for name, values in batch.targets.items()} == {"fine": 3, "coarse": 1}


def test_one_of_several_labels_missing_is_named(tmp_path: Any) -> None:
    loader = pp.load(two_labels(tmp_path, lost="2.json"), RECIPE, target=("cls", "json"), on_error="skip")
    (batch,) = loader
    assert batch.targets["cls"][batch.slot_mask].tolist() == [0, 1, 3]
    assert [(r.key, r.stage) for r in loader.report().rejected] == [("two.tar/2", "target")]
    assert "no label member 'json'" in loader.report().rejected[0].reason


@pytest.mark.parametrize("workers", [0, 1])
def test_targets_may_be_mapped(workers: int, tmp_path: Any) -> None:
    (batch,) = pp.load(two_labels(tmp_path), RECIPE, map_target={0: 7, 1: 8, 2: 9, 3: 9}.get, num_workers=workers)
    assert batch.targets[batch.slot_mask].tolist() == [7, 8, 9, 9]
    (packed,) = pp.Pack(RECIPE, map_target=lambda label: label * 2)([pp.Sample("a", png(), 21)])
    assert int(packed.targets[0, 0]) == 42


def test_a_map_that_fails_is_a_rejection_with_the_key(tmp_path: Any) -> None:
    vocabulary = {0: 0, 1: 1, 3: 3}
    loader = pp.load(two_labels(tmp_path), RECIPE, map_target=vocabulary.__getitem__, on_error="skip")
    (batch,) = loader
    assert batch.targets[0, :4].tolist() == [0, 1, -100, 3]
    (rejection,) = loader.report().rejected
    assert (rejection.key, rejection.stage) == ("two.tar/2", "target")
    assert "map_target failed for 2: KeyError: 2" in rejection.reason


def test_no_label_named_is_an_error() -> None:
    with pytest.raises(pp.errors.ConfigError, match="target must name at least one label"):
        pp.load(TRAIN, RECIPE, target=())


# --------------------------------------------------------------------------------------------------- globs and files


def test_globs_lists_and_single_files(tmp_path: Any) -> None:
    for name in ("a.png", "b.png", "c.JPG"):
        (tmp_path / name).write_bytes(png())
    flat = RECIPE.for_eval()
    for source, keys in (
        (str(tmp_path / "*.png"), ["a.png", "b.png"]),
        (tmp_path / "c.JPG", ["c.JPG"]),
        ([tmp_path / "c.JPG", tmp_path / "a.png"], ["c.JPG", "a.png"]),
    ):
        assert keys_of(pp.load(source, flat, target=None)) == keys
    shards = str(tmp_path / "s-*.tar")
    for i, shard in enumerate(TRAIN):
        (tmp_path / f"s-{i}.tar").symlink_to(shard)
    assert len(keys_of(pp.load(shards, RECIPE))) == 420


def test_files_that_do_not_fit_are_named(tmp_path: Any) -> None:
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "notes.txt").write_text("hello")
    for source, message in (
        (str(tmp_path / "*.gif"), "no file matches"),
        (str(tmp_path / "notes.txt"), "neither a folder nor a tar file"),
        ([str(tmp_path / "a.png"), TRAIN[0]], "a list holds shards or images, not both"),
        (str(tmp_path / "missing.png"), "1 of 1 files are missing"),
    ):
        with pytest.raises(pp.errors.SourceError, match=message):
            pp.load(source, RECIPE, target=None)


# --------------------------------------------------------------------------------- as webdataset and datasets document it


def test_an_endless_resampled_pipeline_with_the_users_stages() -> None:
    """``resampled=True``, ``.shuffle``, ``.map``, ``.with_epoch``: the training pipeline of webdataset's own documentation."""

    def keep_caption(sample: dict[str, Any]) -> dict[str, Any]:
        return {**sample, "caption": f"image {sample['__key__']}"}

    stage = pp.Pack(RECIPE, image=EXTENSIONS)
    stream = (
        wds.WebDataset(TRAIN, resampled=True, shardshuffle=False, seed=3)
        .shuffle(100)
        .map(keep_caption)
        .compose(stage)
        .with_epoch(40)
    )
    batches = list(DataLoader(stream, batch_size=None))
    assert len(batches) == 40
    for batch in batches:
        check_batch(batch)
    counted = Counter(keys_of(batches))
    assert max(counted.values()) > 1  # drawn with replacement
    report = pp.Report.collect(batches)
    assert report.seen == report.packed + report.waiting
    assert len(keys_of(batches)) == report.packed


def test_decoded_pairs_through_webdatasets_loader() -> None:
    """``.decode("pil").to_tuple(...)`` under `wds.WebLoader`, as its documentation shows."""
    stream = (
        wds.WebDataset(TRAIN, shardshuffle=100, seed=1, workersplitter=wds.split_by_worker)
        .shuffle(50)
        .decode("pil")
        .to_tuple(EXTENSIONS, "cls")
        .compose(pp.Pack(RECIPE))
    )
    batches = list(wds.WebLoader(stream, batch_size=None, num_workers=2))
    report = pp.Report.collect(batches)
    assert (report.seen, report.packed, report.waiting) == (420, 420, 0)
    labels = Counter(int(image.target) for batch in batches for image in pp.unpack(batch))
    assert labels == Counter(int(image.target) for batch in pp.load(TRAIN, RECIPE) for image in pp.unpack(batch))


def huggingface_stream(count: int = 40, shards: int = 4) -> Any:
    columns = {"image": [{"bytes": png(i, (20 + i, 30)), "path": None} for i in range(count)], "label": list(range(count))}
    dataset = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    return dataset.to_iterable_dataset(num_shards=shards)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_huggingface_stream_with_its_shuffle_and_map(workers: int) -> None:
    stream = huggingface_stream().cast_column("image", datasets.Image(decode=False))
    stream = stream.shuffle(seed=1, buffer_size=10).map(lambda row: {**row, "label": row["label"] + 100})
    loader = DataLoader(pp.Pack(RECIPE).over(stream), batch_size=None, num_workers=workers)
    orders = []
    for epoch in range(2):
        stream.set_epoch(epoch)
        batches = list(loader)
        labels = [int(image.target) for batch in batches for image in pp.unpack(batch)]
        assert sorted(labels) == list(range(100, 140))
        assert pp.Report.collect(batches).packed == 40
        orders.append(labels)
    assert orders[0] != orders[1]


def test_the_loaders_epoch_reaches_a_streams_own_shuffling() -> None:
    loader = pp.load(huggingface_stream().shuffle(seed=1, buffer_size=10), RECIPE, num_workers=1)
    orders = []
    for epoch in (0, 1, 0):
        loader.set_epoch(epoch)
        orders.append([int(image.target) for batch in loader for image in pp.unpack(batch)])
        assert sorted(orders[-1]) == list(range(40))
    assert orders[0] == orders[2] != orders[1]


def test_a_decoded_huggingface_stream_packs_as_well() -> None:
    batches = list(pp.Pack(RECIPE)(huggingface_stream()))
    assert sorted(int(image.target) for batch in batches for image in pp.unpack(batch)) == list(range(40))


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores
def test_what_knows_nothing_of_workers_is_dealt_to_them(workers: int) -> None:
    samples = [pp.Sample(str(i), png(i), i) for i in range(10)]
    batches = list(DataLoader(pp.Pack(RECIPE).over(samples), batch_size=None, num_workers=workers))
    assert sorted(keys_of(batches), key=int) == [str(i) for i in range(10)]


def test_a_worker_without_a_shard_says_why() -> None:
    loader = DataLoader(pp.Pack(RECIPE).over([pp.Sample("0", png(), 0)]), batch_size=None, num_workers=2)
    with pytest.raises(
        pp.errors.SourceError, match="0 samples seen, 0 rejected; fewer shards than workers leave a worker without any"
    ):
        list(loader)


# ------------------------------------------------------------------------------------------------ epochs, memory, replay


def sizes_in(batches: Any) -> list[Any]:
    return [image.grid for batch in batches for image in pp.unpack(batch)]


@pytest.mark.parametrize(("workers", "context"), [(0, None), (1, "fork"), pytest.param(1, "spawn", marks=pytest.mark.slow)])
def test_an_epoch_reaches_workers_that_run_already(workers: int, context: str | None) -> None:
    stage = pp.Pack(RECIPE)
    samples = [pp.Sample(str(i), png(i, (200, 300)), i) for i in range(20)]
    options = {"persistent_workers": True, "multiprocessing_context": context} if workers else {}
    loader = DataLoader(stage.over(samples), batch_size=None, num_workers=workers, **options)
    first = sizes_in(loader)
    assert first == sizes_in(loader)
    stage.set_epoch(1)
    assert sizes_in(loader) != first
    assert sizes_in(loader) == sizes_in(pp.Pack(RECIPE, epoch=1)(samples))


class Outstanding:
    """Counts the images that were asked for and are not painted yet."""

    def __init__(self, count: int, side: int) -> None:
        self.given, self.count, self.side = 0, count, side

    def __iter__(self) -> Iterator[pp.Sample]:
        for i in range(self.count):
            self.given += 1
            yield pp.Sample(str(i), np.zeros((self.side, 20 + i % 40, 3), np.uint8), i)


@pytest.mark.parametrize("lookahead", [{"lookahead": 8}, {"lookahead_bytes": 8 * 100 * 60 * 3}])
def test_a_lookahead_bounds_what_is_held(lookahead: dict[str, int]) -> None:
    recipe = RECIPE.replace(rows_per_batch=1, resize=pp.resize.NaViT((32, 64)))
    held: dict[bool, list[int]] = {}
    for bounded in (False, True):
        samples, delivered = Outstanding(400, 100), 0
        held[bounded] = []
        for batch in pp.Pack(recipe, **(lookahead if bounded else {}))(samples):
            held[bounded].append(samples.given - delivered)
            delivered += batch.info.packed
        assert delivered == 400
    one_batch = 64
    assert max(held[True]) <= 16 + 2 * one_batch + 12  # a block, this batch and the one held back, 8 to 12 in open rows
    assert max(held[True]) < max(held[False]) / 2


def test_what_was_drawn_can_be_drawn_again() -> None:
    """The numbers in ``info.repeats`` and the keys are all it takes."""
    samples = [pp.Sample("same", png(i, (200, 300)), i) for i in range(12)]
    for batch in pp.Pack(RECIPE, epoch=5)(samples):
        for row, (keys, numbers) in enumerate(zip(batch.keys, batch.info.repeats or [], strict=True)):
            for slot, (key, number) in enumerate(zip(keys, numbers, strict=True)):
                draw_key = f"{key}#{number}" if number else key
                table = plan_table(RECIPE, [(300, 200)], rng.key_hash([draw_key]), epoch=5)
                assert table.grid[0].tolist() == batch.grid_sizes[row, slot].tolist()
                assert table.num_tokens[0] == (batch.segment_ids[row] == slot + 1).sum()
    once = next(iter(pp.load(TRAIN, RECIPE)))
    assert once.info.repeats is None


def test_a_pipeline_that_is_split_by_rank_is_not_split_again() -> None:
    mine = pipeline(nodesplitter=wds.split_by_node)
    with pytest.raises(pp.errors.ConfigError, match="WebDataset of samples is split by rank already, and would be split again"):
        pp.load(mine, RECIPE, rank=0, world_size=2, steps_per_epoch=1)
    assert len(keys_of(pp.load(mine, RECIPE, image=EXTENSIONS))) == 420


def test_streams_that_are_not_at_their_end_add_up_what_waits() -> None:
    stage = pp.Pack(RECIPE.replace(rows_per_batch=1))
    samples = [pp.Sample(str(i), png(i, (200, 300)), i) for i in range(30)]
    for streams in (1, 2):
        loader = DataLoader(stage.over(samples), batch_size=None, num_workers=2 if streams == 2 else 0)
        first = [batch for batch, _ in zip(loader, range(streams), strict=False)]
        report = pp.Report.collect(first)
        assert report.waiting == sum(batch.info.seen - batch.info.packed for batch in first) > 0
        assert report.seen == report.packed + report.waiting
