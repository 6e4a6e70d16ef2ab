"""Samples of several images: in one row, in order, told apart, and lost as a whole or not at all."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import patchpack as pp
from helpers.painted import members as tar
from patchpack.batch.packed import PackedBatch
from patchpack.cli import main
from patchpack.plan.online.decisions import SampleDecision
from patchpack.types import Header, PlanTable, Size

# webdataset leaves its open shards to the garbage collector
WEBDATASET = (
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
)

P = 5
RECIPE = pp.Recipe(
    resize=pp.resize.Native(24, edge="pad"),
    patch_size=P,
    seq_len=64,
    max_images=8,
    rows_per_batch=2,
    packer=pp.packing.FirstFit(),
)
COUNTS = (1, 3, 2, 1, 4, 2, 5, 1, 2, 3, 6, 1)


def page(sample: int, part: int) -> Any:
    """1 to 12 patches whose colour says whose they are."""
    rows, cols = 1 + (sample + part) % 3, 1 + (2 * sample + part) % 4
    return np.full((P * rows, P * cols, 3), (sample, part, 9), dtype=np.uint8)


def png(sample: int, part: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(page(sample, part)).save(file, "png")
    return file.getvalue()


def documents(counts: Any = COUNTS, image: Any = page) -> list[pp.Sample]:
    return [pp.Sample(str(i), [image(i, part) for part in range(n)], i) for i, n in enumerate(counts)]


def told(batch: PackedBatch) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """The row of each sample, and the (sample, part) that the pixels of its images show."""
    pp.validate(batch)
    images: dict[tuple[int, int], list[tuple[int, int]]] = {}
    samples = np.asarray(batch.sample_ids)
    for image in pp.unpack(batch):
        shown = np.unique(np.asarray(image.patches).reshape(-1, 3), axis=0)
        assert len(shown) == 1
        sample, part, _ = shown[0].tolist()
        assert (image.key, image.part, np.asarray(image.target).item()) == (str(sample), part, sample)
        assert image.patches.shape[0] == image.grid.num_patches == page(sample, part).size // (3 * P * P)
        images.setdefault((image.row, int(samples[image.row, image.slot])), []).append((sample, part))
    yield from ((row, parts) for (row, _), parts in images.items())


def test_a_row_by_hand() -> None:
    counts = (2, 1, 3)
    (batch,) = pp.load(documents(counts), RECIPE.replace(rows_per_batch=1))
    pp.validate(batch)
    assert batch.sample_ids.tolist() == [[1, 1, 2, 3, 3, 3, 0, 0]]
    assert batch.keys == [["0", "0", "1", "2", "2", "2"]]
    assert batch.targets.tolist() == [[0, 0, 1, 2, 2, 2, -100, -100]]
    assert batch.num_images.tolist() == [6]
    assert (batch.info.packed, batch.info.planned, batch.info.seen) == (3, 3, 3)
    assert [parts for _, parts in told(batch)] == [[(0, 0), (0, 1)], [(1, 0)], [(2, 0), (2, 1), (2, 2)]]


def test_samples_of_one_image_are_numbered_too() -> None:
    (batch,) = pp.load([pp.Sample(str(i), page(i, 0), i) for i in range(3)], RECIPE.replace(rows_per_batch=1))
    assert batch.sample_ids.tolist() == [[1, 2, 3, 0, 0, 0, 0, 0]]


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=30),
    st.sampled_from(
        [pp.packing.FirstFit(), pp.packing.NextFit(), pp.packing.BestFit(), pp.packing.Lookahead(8), pp.packing.Lookahead(64)]
    ),
    st.integers(1, 9),
)
def test_every_sample_is_in_one_row_in_order_or_named(counts: list[int], packer: Any, max_images: int) -> None:
    recipe = RECIPE.replace(packer=packer, max_images=max_images)
    tokens = [sum(page(i, part).size // (3 * P * P) for part in range(n)) for i, n in enumerate(counts)]
    fits = [n <= max_images and size <= 64 for n, size in zip(counts, tokens, strict=True)]
    loader = pp.load(documents(counts), recipe, on_error="skip")
    if not any(fits):
        with pytest.raises(pp.errors.SourceError, match="no image to pack"):
            list(loader)
        return
    found = [parts for batch in loader for _, parts in told(batch)]
    assert sorted(found) == [[(i, part) for part in range(n)] for i, n in enumerate(counts) if fits[i]]
    report = loader.report()
    assert (report.seen, report.packed) == (len(counts), sum(fits))
    assert [(r.key, r.stage) for r in report.rejected] == [(str(i), "plan") for i, fit in enumerate(fits) if not fit]


def test_the_refusal_of_many_pages_says_what_a_row_holds() -> None:
    with pytest.raises(pp.errors.SizeError, match="0: its 9 images become 36 tokens, which must fit one row together: "
                                           "a row holds seq_len=64 tokens and max_images=8"):  # fmt: skip
        list(pp.load([pp.Sample("0", [np.zeros((8, 8, 3), np.uint8)] * 9, 0)], RECIPE))


def test_images_of_a_sample_draw_for_themselves() -> None:
    recipe = RECIPE.replace(drop=pp.drop.Beta(), packer=pp.packing.NextFit())
    same = np.random.default_rng(0).integers(0, 256, (4 * P, 6 * P, 3)).astype(np.uint8)
    (batch,) = pp.load([pp.Sample("a", [same] * 3), pp.Sample("b", same)], recipe, target=None)
    kept = [image.position_ids.tolist() for image in pp.unpack(batch)]
    assert len({str(ids) for ids in kept}) == 4
    # the first draws as if it were alone, so that a sample of one image is the same listed or not
    (alone,) = pp.load([pp.Sample("a", same)], recipe, target=None)
    assert next(iter(pp.unpack(alone))).position_ids.tolist() == kept[0]


class Remembers(pp.drop.NoDrop):
    """Drops nothing, and notes the ordinals it is told."""

    def __call__(self, grids: Any, u: Any, seen: Any) -> Any:
        met.extend(np.asarray(seen).tolist())
        return super().__call__(grids, u, seen)


met: list[int] = []


def test_schedules_hear_of_samples() -> None:
    met.clear()
    list(pp.load(documents((2, 1, 3)), RECIPE.replace(drop=Remembers())))
    assert met == [0, 0, 1, 2, 2, 2]


def broken(sample: int, part: int) -> bytes:
    data = png(sample, part)
    if (sample, part) == (4, 2):
        at = data.index(b"IDAT")
        return data[: at + 6] + b"\xff" * 8 + data[at + 14 :]  # its header says all is well
    return data[:20] if (sample, part) == (2, 1) else data


def test_one_bad_page_loses_its_sample_and_names_itself() -> None:
    whole = list(pp.load(documents(image=png), RECIPE))
    loader = pp.load(documents(image=broken), RECIPE.replace(rows_per_batch=3), on_error="skip")
    batches = list(loader)
    found = sorted(parts for batch in batches for _, parts in told(batch))
    assert found == sorted(parts for batch in whole for _, parts in told(batch) if parts[0][0] not in (2, 4))
    assert [(r.key, r.member, r.stage) for r in loader.report().rejected] == [("2", "[1]", "header"), ("4", "[2]", "decode")]
    for batch in batches:
        wiped = [(row, slot) for row, keys in enumerate(batch.keys) for slot, key in enumerate(keys) if key == "4"]
        assert len(wiped) in (0, 4)
        for at in wiped:
            assert batch.targets[at] == -100
            assert not batch.slot_mask[at]
            assert batch.sample_ids[at] > 0


def test_a_list_of_no_images_is_a_rejection() -> None:
    loader = pp.load([pp.Sample("a", []), pp.Sample("b", page(0, 0), 0)], RECIPE, on_error="skip")
    list(loader)
    assert [(r.key, r.stage, r.reason) for r in loader.report().rejected] == [
        ("a", "header", "a sample must have at least one image, got an empty list: leave the sample out")
    ]


# ------------------------------------------------------------------------------------------------------------- sources


class Items(Dataset[Any]):
    def __init__(self, image: Any, sizes: tuple[int, ...] = COUNTS) -> None:
        self._image, self._sizes = image, sizes
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, i: int) -> Any:
        self.read.append(i)
        return [self._image(i, part) for part in range(self._sizes[i])], i


def shard(folder: Path, name: str = "a.tar") -> str:
    """Pages are numbered so that 10 comes before 9 as text."""
    entries = [(f"{i:03d}.{8 + part}.png", png(i, part)) for i, n in enumerate(COUNTS) for part in range(n)]
    entries += [(f"{i:03d}.cls", str(i).encode()) for i in range(len(COUNTS))]
    data = tar(sorted(entries)) + bytes(1024)
    path = folder / name
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    return str(path)


SOURCES: dict[str, Any] = {
    "samples": lambda _: (documents(), {}),
    "pairs": lambda _: (iter([([png(i, k) for k in range(n)], i) for i, n in enumerate(COUNTS)]), {}),
    "dataset": lambda _: (Items(page), {}),
    "rows": lambda _: (
        datasets.Dataset.from_dict(
            {
                "image": [[{"bytes": png(i, k), "path": None} for k in range(n)] for i, n in enumerate(COUNTS)],
                "label": list(range(len(COUNTS))),
            }
        ).cast_column("image", datasets.Sequence(datasets.Image())),
        {},
    ),
    "shard": lambda folder: (shard(folder), {"image": "*.png"}),
    "stream": lambda folder: (shard(folder, "a.tar.gz"), {"image": "*.png"}),
    "webdataset": lambda folder: (
        webdataset.WebDataset(shard(folder), shardshuffle=False, empty_check=False),
        {"image": "*.png"},
    ),
}


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=WEBDATASET if kind == "webdataset" else ()) for kind in SOURCES])
def test_every_source_gives_the_same_rows(kind: str, tmp_path: Path) -> None:
    source, options = SOURCES[kind](tmp_path)
    expected = [list(told(batch)) for batch in pp.load(documents(), RECIPE)]
    got = []
    for batch in pp.load(source, RECIPE, **options):
        # keys differ by source; the number of the sample is in its target
        keys = [[str(int(target)) for target in row[:n]] for row, n in zip(batch.targets, batch.num_images, strict=True)]
        got.append(list(told(batch._replace(keys=keys))))
    assert got == expected


@WEBDATASET[0]
@WEBDATASET[1]
def test_the_stage_packs_them_too(tmp_path: Path) -> None:
    stream = webdataset.WebDataset(shard(tmp_path), shardshuffle=False, empty_check=False)
    batches = list(DataLoader(pp.Pack(RECIPE, image="*.png").over(stream), batch_size=None))
    assert sum(batch.info.packed for batch in batches) == len(COUNTS)
    assert [batch.sample_ids.tolist() for batch in batches] == [b.sample_ids.tolist() for b in pp.load(documents(), RECIPE)]


def test_items_that_are_read_twice_are_read_once_for_all_their_pages() -> None:
    items = Items(png)
    source = pp.load(items, RECIPE, tail="pad", rank=0, world_size=2)  # every rank reads every header, and paints its own
    painted = {int(key) for batch in source for row in batch.keys for key in row}
    assert sorted(items.read) == sorted([*range(len(COUNTS)), *painted, 0])  # once more for the kind of the targets


def test_ranks_that_evaluate_together_count_samples() -> None:
    reports = []
    for rank in range(2):
        loader = pp.load(documents(), RECIPE, tail="pad", rank=rank, world_size=2)
        assert sorted(parts for batch in loader for _, parts in told(batch))
        reports.append(loader.report())
    assert all(report.seen == report.packed for report in reports)
    assert sum(report.packed for report in reports) == len(COUNTS)


def test_workers_and_a_resume_change_nothing(tmp_path: Path) -> None:
    path = shard(tmp_path)
    here = [pp.digest(batch) for batch in pp.load(path, RECIPE, image="*.png", shuffle=4)]
    loader = pp.load(path, RECIPE, image="*.png", shuffle=4, num_workers=2)
    states = []
    there = []
    for batch in loader:
        there.append(pp.digest(batch))
        states.append(json.loads(json.dumps(loader.state_dict())))
    assert there == here
    for done, state in enumerate(states[:-1], 1):
        again = pp.load(path, RECIPE, image="*.png", shuffle=4)
        again.load_state_dict(state)
        assert [pp.digest(batch) for batch in again] == here[done:]


def test_an_index_has_one_image_per_sample(tmp_path: Path) -> None:
    with pytest.raises(pp.errors.ConfigError, match="an index has one image per sample"):
        pp.Index.build(shard(tmp_path), image="*.png")


def test_replay_shows_one_of_them() -> None:
    recipe = RECIPE.replace(drop=pp.drop.Beta())
    for image in pp.unpack(pp.load(documents(), recipe)):
        assert pp.digest(pp.replay(documents(), recipe, image.key, part=image.part)) == pp.digest(image)
    with pytest.raises(pp.errors.ConfigError, match="part of 1"):
        pp.replay(documents(), recipe, "1", part=3)


def test_repeated_passes_draw_anew() -> None:
    recipe = RECIPE.replace(drop=pp.drop.Beta())
    seen: dict[tuple[str, int], set[str]] = {}
    for batch in pp.load(documents((3, 2)), recipe, steps_per_epoch=3):
        for image in pp.unpack(batch):
            seen.setdefault((image.key, image.part), set()).add(pp.digest(image))
    assert len(seen) == 5
    assert all(len(draws) > 1 for key, draws in seen.items() if page(int(key[0]), key[1]).size > 3 * 4 * P * P)


# ------------------------------------------------------------------------------------------------------------- results


def test_results_come_back_as_lists() -> None:
    batches = pp.pack_images({"a": [page(0, 0), png(0, 1)], "b": page(1, 0), "c": [png(2, 0)]}, RECIPE.for_eval())
    found: dict[str, Any] = {}
    for batch in batches:
        with pytest.raises(pp.errors.ConfigError, match="a has several images: pass several=True to get a list"):
            next(pp.unpack(batch, batch.patches, per="token"))
        values = pp.unpack(batch, batch.patches, per="token", several=True)
        found |= {key: [np.asarray(one).reshape(-1, 3)[0, :2].tolist() for one in parts] for key, parts in values}
    assert found == {"a": [[0, 0], [0, 1]], "b": [[1, 0]], "c": [[2, 0]]}


def test_bad_pages_of_a_list_to_pack_are_named(tmp_path: Path) -> None:
    batches = pp.pack_images([[page(0, 0), tmp_path / "none.png"], [], page(2, 0)], RECIPE.for_eval(), on_error="skip")
    assert [key for batch in batches for row in batch.keys for key in row] == ["2"]
    assert [(r.key, r.member, r.stage) for r in batches.report().rejected] == [("0", "[1]", "read"), ("1", "", "header")]


@pytest.mark.parametrize("inner", [[page(0, 0), page(0, 1)], pp.Sample("x", [page(0, 0), page(0, 1)])])
def test_lists_in_lists_are_refused(inner: Any) -> None:
    batches = pp.pack_images([[inner], page(1, 0)], RECIPE.for_eval(), on_error="skip")
    assert [key for batch in batches for row in batch.keys for key in row] == ["1"]
    assert [(r.key, r.member, r.stage) for r in batches.report().rejected] == [("0", "[0]", "header")]


# ------------------------------------------------------------------------------------------------------- shortened rows


def decision(*tokens: int) -> SampleDecision:
    n = len(tokens)
    pairs, counts = np.ones((n, 2), np.int32), np.array(tokens, np.int32)
    table = PlanTable(np.ones((n, 4), np.int32), pairs, np.zeros(n, np.bool_), pairs, counts, np.ones(n, np.int32))
    return SampleDecision(0, Header("k", "", "", Size(1, 1), None), table, np.full(n, 7, np.uint64), sum(tokens), 0)


@pytest.mark.parametrize(
    ("tokens", "left", "expected"),
    [
        ((10,), 7, (7,)),
        ((10, 4), 14, (10, 4)),
        ((10, 4), 12, (8, 4)),
        ((10, 4), 7, (3, 4)),
        ((10, 10, 2), 21, (9, 10, 2)),
        ((10, 10, 2), 4, (1, 1, 2)),
        ((5, 9, 7), 3, (1, 1, 1)),
    ],
)
def test_what_a_packer_cuts_is_taken_from_the_longest(tokens: Any, left: int, expected: Any) -> None:
    short = decision(*tokens).shortened(left)
    assert tuple(short.table.num_tokens.tolist()) == expected
    assert short.num_tokens == left
    assert short.cut == sum(tokens) - left


@given(st.lists(st.integers(1, 200), min_size=1, max_size=12), st.data())
def test_shortened_is_level(tokens: list[int], data: Any) -> None:
    left = data.draw(st.integers(len(tokens), sum(tokens)))
    after = decision(*tokens).shortened(left).table.num_tokens.tolist()
    cut = [now for now, then in zip(after, tokens, strict=True) if now != then]
    assert sum(after) == left
    assert min(after) >= 1
    assert not cut or max(cut) - min(cut) <= 1
    assert not cut or max(after) <= max(cut) + 1


def test_fewer_tokens_than_images_are_the_packers_fault() -> None:
    with pytest.raises(pp.errors.PackingError, match="1 tokens are left for the 2 images of k"):
        decision(4, 4).shortened(1)


def test_inspect_and_plan_count_every_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, images = shard(tmp_path), sum(COUNTS)
    assert main(["inspect", path, "--image", "*.png"]) == 0
    assert f"{images} images" in capsys.readouterr().out
    assert main(["plan", path, "--image", "*.png", "--seq-len", "512"]) == 0
    assert f"{images} images" in capsys.readouterr().out


def test_the_preview_shows_every_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.png"
    assert main(["preview", shard(tmp_path), "--image", "*.png", "-o", str(out), "--recipe", "siglip2_naflex"]) == 0
    assert "8 images in" in capsys.readouterr().out
    assert out.exists()
