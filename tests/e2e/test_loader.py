"""Real pictures to batches: the same whoever paints them, nothing lost, every fault named in its turn."""

from __future__ import annotations

import copy
import io
import random
import tarfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import patchpack as pp
from patchpack.batch_info import BatchInfo
from patchpack.plan.packing import GreedyPacker, fewest_tokens
from patchpack.samples import shards
from patchpack.testing import check_batch

NAVIT = pp.recipes.navit(seq_len=1024)
SMALL = pp.Recipe(resize=pp.resize.Native(64), patch_size=4, seq_len=64, max_images=4, rows_per_batch=2)

Batches = list[pp.PackedBatch]


def assert_same(ours: Iterable[pp.PackedBatch], theirs: Iterable[pp.PackedBatch], *, but: tuple[str, ...] = ()) -> None:
    """Equal in every field, in dtype and in type."""
    for a, b in zip(ours, theirs, strict=True):
        for name in set(a._fields) - set(but):
            x, y = getattr(a, name), getattr(b, name)
            assert type(x) is type(y), name
            if isinstance(x, torch.Tensor):
                assert x.dtype == y.dtype, name
                torch.testing.assert_close(x, y, rtol=0, atol=0, equal_nan=True)
            else:
                assert x == y, name


def keys_of(batches: Iterable[pp.PackedBatch]) -> list[str]:
    return [key for batch in batches for row in batch.keys for key in row]


def labels_of(paths: Iterable[str | Path]) -> dict[str, int]:
    """Key to class index, straight from the tar files."""
    found = {}
    for path in paths:
        with tarfile.open(path) as tar:
            for info in tar:
                stem, _, extension = info.name.partition(".")
                if extension == "cls":
                    found[f"{Path(path).name}/{stem}"] = int(tar.extractfile(info).read())  # type: ignore[union-attr]
    return found


# --------------------------------------------------------------------------------------------------------- photographs


@pytest.fixture(scope="module")
def packed_photos(photographs: list[str]) -> tuple[Batches, pp.Report]:
    loader = pp.load(photographs, NAVIT)
    return list(loader), loader.report()


def test_every_photograph_is_packed(photographs: list[str], packed_photos: tuple[Batches, pp.Report]) -> None:
    batches, report = packed_photos
    there = sorted(labels_of(photographs))
    assert (report.seen, report.packed, report.waiting, len(report.rejected)) == (len(there), len(there), 0, 0)
    assert sorted(keys_of(batches)) == there
    for batch in batches:
        check_batch(batch)


def test_rows_of_photographs_are_full(packed_photos: tuple[Batches, pp.Report]) -> None:
    fills = torch.cat([pp.token_mask(batch).float().mean(dim=1) for batch in packed_photos[0]])
    assert fills[:-1].mean() >= 0.97


def test_every_photograph_has_its_own_label(photographs: list[str], packed_photos: tuple[Batches, pp.Report]) -> None:
    labels = {image.key: int(image.target) for batch in packed_photos[0] for image in pp.unpack(batch)}
    assert labels == labels_of(photographs)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing_about_photographs(
    photographs: list[str], packed_photos: tuple[Batches, pp.Report], num_workers: int
) -> None:
    loader = pp.load(photographs, NAVIT, num_workers=num_workers)
    assert_same(loader, packed_photos[0])
    assert loader.report() == packed_photos[1]


# ------------------------------------------------------------------------------------------------------ shipped pictures


@pytest.fixture(scope="module")
def packed() -> tuple[Batches, pp.Report]:
    loader = pp.load(shards("train"), NAVIT)
    return list(loader), loader.report()


def test_every_shipped_picture_is_packed(packed: tuple[Batches, pp.Report]) -> None:
    batches, report = packed
    labels = {image.key: int(image.target) for batch in batches for image in pp.unpack(batch)}
    assert labels == labels_of(shards("train"))
    assert (report.seen, report.packed, report.waiting) == (len(labels), len(labels), 0)
    for batch in batches:
        check_batch(batch)


def test_rows_of_shipped_pictures_are_full(packed: tuple[Batches, pp.Report]) -> None:
    fills = torch.cat([pp.token_mask(batch).float().mean(dim=1) for batch in packed[0]])
    assert fills[:-1].mean() >= 0.97


SPAWNED = pytest.param(2, "spawn", marks=pytest.mark.slow)  # `test_every_source` pickles what they get in a fast case


@pytest.mark.parametrize(("num_workers", "start"), [(1, None), (2, "fork"), SPAWNED])
def test_workers_change_nothing(packed: tuple[Batches, pp.Report], num_workers: int, start: str | None) -> None:
    loader = pp.load(shards("train"), NAVIT, num_workers=num_workers, dataloader={"multiprocessing_context": start})
    assert_same(loader, packed[0])
    assert loader.report() == packed[1]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_ordinary_dataloader_gives_the_same(packed: tuple[Batches, pp.Report], num_workers: int) -> None:
    planner = pp.Planner(shards("train"), NAVIT)
    loader = DataLoader(pp.Painter(planner), sampler=planner, batch_size=None, num_workers=num_workers)
    assert_same(loader, packed[0])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_are_tensors(num_workers: int) -> None:
    batch = next(iter(pp.load(shards("val"), NAVIT, num_workers=num_workers)))
    kinds = {name: type(value) for name, value in zip(batch._fields, batch, strict=True)}
    other = {"keys": list, "patch_size": int, "info": BatchInfo}
    other |= dict.fromkeys(("times", "text_ids", "text_segment_ids"), type(None))
    assert kinds == {name: other.get(name, torch.Tensor) for name in batch._fields}
    assert batch.patches.dtype == torch.uint8
    assert batch.targets.dtype == torch.int64


def test_persistent_workers_go_through_epochs() -> None:
    fresh = pp.load(shards("val"), NAVIT)
    loader = pp.load(shards("val"), NAVIT, num_workers=1, dataloader={"persistent_workers": True})
    for epoch in (0, 1):
        fresh.set_epoch(epoch)
        loader.set_epoch(epoch)
        assert_same(loader, fresh)
        assert loader.report() == fresh.report()


def test_more_workers_than_batches_is_fine() -> None:
    samples = [pp.Sample("a", Image.new("RGB", (4, 4), (1, 1, 1)))]
    assert keys_of(pp.load(samples, SMALL, num_workers=2)) == ["a"]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_nobody_s_random_state_matters(num_workers: int) -> None:
    first = list(pp.load(shards("val"), NAVIT, num_workers=num_workers))
    torch.manual_seed(7)
    random.seed(7)
    assert_same(first, pp.load(shards("val"), NAVIT, num_workers=num_workers))


def test_epochs_draw_anew_and_come_again() -> None:
    loader = pp.load(shards("val"), NAVIT)
    first = list(loader)
    assert_same(first, loader)
    loader.set_epoch(1)
    second = list(loader)
    assert not torch.equal(first[0].patches, second[0].patches)
    assert sorted(keys_of(first)) == sorted(keys_of(second))
    loader.set_epoch(0)
    assert_same(first, loader)


def test_another_seed_draws_anew() -> None:
    ours, theirs = (next(iter(pp.load(shards("val"), NAVIT.replace(seed=seed)))) for seed in (0, 1))
    assert not torch.equal(ours.patches, theirs.patches)


def test_flexivit_sees_every_picture_once_without_padding() -> None:
    recipe = pp.recipes.flexivit(size=48, patch_size=(16, 12, 8, 6, 4), rows_per_batch=40)
    batches = list(pp.load(shards("train"), recipe))
    assert sorted(keys_of(batches)) == sorted(labels_of(shards("train")))
    assert len({batch.patch_size for batch in batches}) > 1
    for batch in batches:
        check_batch(batch)
        assert pp.fill_rate(batch) == 1.0
        assert tuple(batch.patches.shape[1:]) == ((48 // batch.patch_size) ** 2, 3 * batch.patch_size**2)


def test_a_length_is_not_known() -> None:
    with pytest.raises(TypeError):
        len(pp.load(shards("val"), NAVIT))


# -------------------------------------------------------------------------------------------------------------- faults


def png(value: int, *, cut: int = 0) -> bytes:
    """A picture of noise around a value; cut, its header is fine and its pixels are not."""
    noise = np.random.default_rng(value).integers(0, 50, (24, 32, 3)) + 4 * value
    file = io.BytesIO()
    Image.fromarray(noise.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()[: -cut or None]


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> str:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


def members(n: int, broken: Mapping[str, bytes] = MappingProxyType({})) -> Iterator[tuple[str, bytes]]:
    """SampleFields of n samples, some with other contents."""
    for i in range(n):
        for name, data in ((f"s{i}.png", png(i)), (f"s{i}.cls", str(i).encode())):
            yield name, broken.get(name, data)


@pytest.fixture
def source(tmp_path: Path) -> Callable[..., str]:
    """A shard of twelve pictures, one of them perhaps broken; each is 48 tokens, so one row holds one."""
    return lambda broken=MappingProxyType({}): write_tar(tmp_path / "a.tar", members(12, broken))


def note_keys(loader: pp.Loader, delivered: list[str]) -> None:
    """Note the keys of every batch that comes before an error."""
    for batch in loader:
        delivered += keys_of([batch])


HEADER_BROKEN = {"s7.png": b"no picture"}
PIXELS_BROKEN = {"s7.png": png(7, cut=900)}
LABEL_BROKEN = {"s7.cls": b"seven"}


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("broken", [HEADER_BROKEN, PIXELS_BROKEN], ids=["header", "pixels"])
def test_raise_names_the_sample_before_its_batch(
    source: Callable[..., str], broken: dict[str, bytes], num_workers: int
) -> None:
    loader = pp.load(source(broken), SMALL, num_workers=num_workers)
    delivered: list[str] = []
    with pytest.raises(pp.errors.DecodeError, match=r"a\.tar/s7 \(s7\.png\): expected a .*on_error='skip'"):
        note_keys(loader, delivered)
    assert "a.tar/s7" not in delivered
    report = loader.report()
    assert [r.key for r in report.rejected] == ["a.tar/s7"]
    assert report.packed == len(delivered)
    assert report.seen == report.packed + 1 + report.waiting
    assert report.waiting >= 0


def test_raise_comes_in_step_order_whatever_the_workers(source: Callable[..., str]) -> None:
    reports = []
    for num_workers in (0, 1, 2):
        loader = pp.load(source(PIXELS_BROKEN), SMALL, num_workers=num_workers)
        delivered: list[str] = []
        with pytest.raises(pp.errors.DecodeError):
            note_keys(loader, delivered)
        assert delivered == [f"a.tar/s{i}" for i in range(6)]
        reports.append(loader.report())
    assert reports[0] == reports[1] == reports[2]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_skip_blanks_the_slot_and_moves_nobody(source: Callable[..., str], num_workers: int) -> None:
    intact = list(pp.load(source(), SMALL))
    loader = pp.load(source(PIXELS_BROKEN), SMALL, num_workers=num_workers, on_error="skip")
    batches = list(loader)
    report = loader.report()
    assert (report.seen, report.packed, report.waiting) == (12, 11, 0)
    (rejection,) = report.rejected
    assert rejection[:4] == ("a.tar", "a.tar/s7", "s7.png", "decode")
    assert str(rejection) in str(report)
    assert keys_of(batches) == keys_of(intact)
    for ours, theirs in zip(batches, intact, strict=True):
        check_batch(ours)
        assert torch.equal(ours.num_images, theirs.num_images)
        blank = torch.tensor([["a.tar/s7" in row] for row in ours.keys])
        for name in ("patches", "position_ids", "segment_ids", "grid_sizes", "source_sizes", "slot_mask", "targets"):
            a, b = getattr(ours, name), getattr(theirs, name)
            assert torch.equal(a[~blank[:, 0]], b[~blank[:, 0]])
            assert (a[blank[:, 0]] == (-100 if name == "targets" else 0)).all()


def test_skip_leaves_neighbours_in_the_same_row(tmp_path: Path) -> None:
    recipe = SMALL.replace(seq_len=200)
    intact, broken = (
        list(pp.load(write_tar(tmp_path / "a.tar", members(12, bad)), recipe, on_error="skip")) for bad in ({}, PIXELS_BROKEN)
    )
    for ours, theirs in zip(broken, intact, strict=True):
        assert ours.keys == theirs.keys
        for a, b in zip(pp.unpack(ours), (i for i in pp.unpack(theirs) if i.key != "a.tar/s7"), strict=True):
            assert (a.key, a.row, a.slot, a.grid, int(a.target)) == (b.key, b.row, b.slot, b.grid, int(b.target))
            assert torch.equal(a.patches, b.patches)
            assert torch.equal(pp.pool_mask(ours)[a.row, a.slot], pp.pool_mask(theirs)[b.row, b.slot])


def test_skip_counts_what_never_had_a_place(source: Callable[..., str]) -> None:
    loader = pp.load(source(HEADER_BROKEN), SMALL, on_error="skip")
    assert keys_of(loader) == [f"a.tar/s{i}" for i in range(12) if i != 7]
    report = loader.report()
    assert [(r.key, r.stage) for r in report.rejected] == [("a.tar/s7", "header")]
    assert (report.seen, report.packed, report.waiting) == (12, 11, 0)


def test_a_shard_cut_short_is_named(tmp_path: Path) -> None:
    path = Path(write_tar(tmp_path / "a.tar", members(12)))
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(pp.errors.ShardError, match=r"^a\.tar: ends inside s\d"):
        list(pp.load(str(path), SMALL))
    loader = pp.load(str(path), SMALL, on_error="skip")
    kept = keys_of(loader)
    assert kept == [f"a.tar/s{i}" for i in range(len(kept))]
    (fault,) = loader.report().shard_errors
    assert fault.shard == "a.tar"
    assert loader.report().waiting == 0


def test_a_size_that_is_refused_is_named() -> None:
    samples = [pp.Sample(f"k{i}", Image.new("RGB", (width, 4))) for i, width in enumerate((4, 400, 4))]
    recipe = SMALL.replace(resize=pp.resize.Native(64, oversize="reject"))
    with pytest.raises(pp.errors.SizeError, match=r"k1: Native.* refuses a size of 4 x 400"):
        list(pp.load(samples, recipe))
    loader = pp.load(samples, recipe, on_error="skip")
    assert keys_of(loader) == ["k0", "k2"]
    assert [(r.key, r.stage) for r in loader.report().rejected] == [("k1", "plan")]


def test_a_source_without_one_picture_is_an_error(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("s0.png", b"x"), ("s0.cls", b"0")])
    for num_workers in (0, 1):
        with pytest.raises(
            pp.errors.SourceError, match=r"a\.tar: no image to pack, 1 samples seen, 1 rejected; the first: a\.tar/s0"
        ):
            list(pp.load(path, SMALL, on_error="skip", num_workers=num_workers))


def test_a_loader_can_be_left_and_taken_up_again(source: Callable[..., str]) -> None:
    for num_workers in (0, 1):
        loader = pp.load(source(), SMALL, num_workers=num_workers)
        first = next(iter(loader))
        assert_same(list(loader)[:1], [first])
        assert loader.report().packed == 12


# ----------------------------------------------------------------------------------------------- a painter of one's own


def end_workers(caught: pytest.ExceptionInfo[Exception]) -> None:
    """Torch leaves its iterator in a cycle with the exception of a worker; collecting it waits five seconds per worker."""
    traceback.clear_frames(caught.tb)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(
    ("broken", "error"),
    [(HEADER_BROKEN, pp.errors.DecodeError), (PIXELS_BROKEN, pp.errors.DecodeError), (LABEL_BROKEN, pp.errors.TargetError)],
    ids=["header", "pixels", "label"],
)
def test_a_painter_raises_the_leaf(
    source: Callable[..., str], broken: dict[str, bytes], error: type[Exception], num_workers: int
) -> None:
    planner = pp.Planner(source(broken), SMALL)
    loader = DataLoader(pp.Painter(planner), sampler=planner, batch_size=None, num_workers=num_workers)
    with pytest.raises(error, match=r"a\.tar/s7 \(s7\.png\)") as caught:
        list(loader)
    assert type(caught.value) is error
    end_workers(caught)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_painter_raises_for_a_source_without_one_picture(num_workers: int) -> None:
    planner = pp.Planner([pp.Sample("k", b"x")], SMALL)
    loader = DataLoader(pp.Painter(planner, on_error="skip"), sampler=planner, batch_size=None, num_workers=num_workers)
    with pytest.raises(pp.errors.SourceError, match="no image to pack") as caught:
        list(loader)
    end_workers(caught)


def test_a_painter_that_skips_tells_in_info(source: Callable[..., str]) -> None:
    planner = pp.Planner(source(PIXELS_BROKEN), SMALL)
    painter = pp.Painter(planner, on_error="skip")
    batches = [painter[plan] for plan in planner]
    assert [r.key for batch in batches for r in batch.info.rejections] == ["a.tar/s7"]
    assert sum(batch.info.packed for batch in batches) == 11
    assert batches[-1].info.seen == 12


def test_a_plan_is_painted_twice_alike(source: Callable[..., str]) -> None:
    """What is found while painting stays out of the plan."""
    planner = pp.Planner(source(PIXELS_BROKEN), SMALL)
    painter = pp.Painter(planner, on_error="skip")
    for plan in planner:
        before = copy.deepcopy(plan.info)
        once, again = painter[plan], painter[plan]
        assert once.info == again.info
        assert plan.info == before
        assert np.array_equal(once.patches, again.patches)


# ------------------------------------------------------------------------------------------------------- bad arguments


@pytest.mark.parametrize("make", [pp.load, pp.Planner])
def test_a_recipe_by_name_is_refused(make: Any) -> None:
    with pytest.raises(pp.errors.ConfigError, match=r"expected a Recipe, such as patchpack.recipes.navit\(\), got 'navit'"):
        make([], "navit")


@pytest.mark.parametrize("typo", ["ignore", "Raise", None, True])
def test_another_policy_for_errors_is_refused(typo: Any) -> None:
    with pytest.raises(pp.errors.ConfigError, match="on_error is 'raise', 'skip', a function"):
        pp.load([], SMALL, on_error=typo)
    with pytest.raises(pp.errors.ConfigError, match="on_error is 'raise', 'skip', a function"):
        pp.Painter(pp.Planner([], SMALL), on_error=typo)


@pytest.mark.parametrize(
    "option", ["batch_size", "sampler", "batch_sampler", "collate_fn", "drop_last", "dataset"]
)  # fmt: skip
def test_what_the_recipe_decides_cannot_be_passed(option: str) -> None:
    with pytest.raises(pp.errors.ConfigError, match=f"{option} is decided by the recipe"):
        pp.load([], SMALL, **{option: 8})


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(pp.errors.SourceError, match=r"1 of 1 shards are missing, the first is .*train\.tar"):
        pp.load(str(tmp_path / "train.tar"), SMALL)
    with pytest.raises(pp.errors.SourceError, match=r"4 of 4 shards are missing, the first is .*-000\.tar"):
        pp.load(str(tmp_path / "train-{000..003}.tar"), SMALL)
    with pytest.raises(pp.errors.SourceError, match="no file with extension"):
        pp.load(tmp_path, SMALL)


class CutToFit(GreedyPacker):
    """Next-fit that shortens an image by at most a tenth where that ends a row exactly full."""

    max_cut = 0.1

    def __init__(self, seq_len: int, max_images: int) -> None:
        super().__init__(seq_len, max_images, open_rows=1, best=False)
        self.seq_len = seq_len

    def push(self, item: pp.packing.Item) -> list[pp.packing.Row]:
        room = self.seq_len - sum(i.num_tokens for row in self._rows for i in row.items)
        if fewest_tokens(item.num_tokens, self) <= room < item.num_tokens:
            item = item._replace(num_tokens=room)
        return super().push(item)


@pytest.mark.parametrize("workers", [0, 2])
def test_shortened_images_are_painted_shorter_and_counted(workers: int) -> None:
    recipe = pp.recipes.navit(seq_len=256, rows_per_batch=2, drop=pp.drop.NoDrop(), packer=lambda s, m: CutToFit(s, m))
    loader = pp.load(pp.samples.shards("train"), recipe, num_workers=workers)
    shortened = []
    for batch in loader:
        check_batch(batch)
        shortened += [i.key for i in pp.unpack(batch) if len(i.patches) < i.grid.num_patches]
    report = loader.report()
    assert report.shortened == len(shortened) > 0
    assert report.packed == 420
    assert f"shortened {len(shortened)} of the packed" in str(report)
