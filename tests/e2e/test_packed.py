"""Packed shards: batches that come back to the bit, files that are the same whoever wrote them, and what is refused."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, DistributedSampler, Subset

import patchpack as pp
from patchpack.batch_info import BatchInfo
from patchpack.cli import main
from patchpack.stream.packed import epochs, steps, write
from patchpack.stream.packed.steps import END, Place, read_step
from patchpack.stream.planning.epoch_plan import EpochPlan
from patchpack.stream.tar.reader import ShardReader
from patchpack.types import BatchPlan

TRAIN, VAL = pp.samples.shards("train"), pp.samples.shards("val")
RECIPE = pp.recipes.navit(seq_len=256, rows_per_batch=2, seed=3)
OPTIONS: dict[str, Any] = {"num_epochs": 2, "shuffle": 50, "steps_per_shard": 12}


@pytest.fixture(scope="module")
def index() -> pp.Index:
    return pp.Index.build(TRAIN)


@pytest.fixture(scope="module")
def packed(index: pp.Index, tmp_path_factory: pytest.TempPathFactory) -> pp.PackedShards:
    return pp.PackedShards.write(index, RECIPE, tmp_path_factory.mktemp("packed") / "train", **OPTIONS)


@pytest.fixture
def copied(packed: pp.PackedShards, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed.path, tmp_path / "copy"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def assert_same(got: Any, expected: Any) -> None:
    """Equal in kind, dtype, shape and every bit."""
    assert type(got) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
        assert got.numpy().tobytes() == expected.numpy().tobytes()
    elif isinstance(expected, pp.PackedBatch):
        for name, mine, theirs in zip(expected._fields, got, expected, strict=True):
            assert name
            assert_same(mine, theirs)
    elif isinstance(expected, BatchInfo):
        assert_same(vars(got), vars(expected))
    elif isinstance(expected, dict):
        assert got.keys() == expected.keys()
        for name in expected:
            assert_same(got[name], expected[name])
    elif isinstance(expected, (list, tuple)):
        assert len(got) == len(expected)
        for mine, theirs in zip(got, expected, strict=True):
            assert_same(mine, theirs)
    else:
        assert got == expected


def assert_as_loaded(packed: pp.PackedShards, index: pp.Index, recipe: pp.Recipe, **options: Any) -> None:
    loader = pp.load(index, recipe, on_error="skip", **options)
    for epoch, report in packed.reports.items():
        loader.set_epoch(epoch)
        loaded = list(loader)
        found = [packed[step] for step in packed.steps_of(epoch)]
        assert len(found) == len(loaded)
        for mine, theirs in zip(found, loaded, strict=True):
            assert_same(mine, theirs)
        assert report == loader.report()


def test_batches_are_those_of_load(packed: pp.PackedShards, index: pp.Index) -> None:
    assert [len(packed.steps_of(e)) for e in (0, 1)] == [len(EpochPlan(index, RECIPE, e, shuffle=50)) for e in (0, 1)]
    assert_as_loaded(packed, index, RECIPE, shuffle=50)
    assert packed.num_images == 840
    assert {shard.epoch for shard in packed.shards} == {0, 1}
    assert_same(packed[-1], packed[len(packed) - 1])
    assert len(list(packed)) == len(packed) == len(packed.steps_of(0)) + len(packed.steps_of(1))
    assert packed.nbytes == sum(map(len, contents(packed.path).values())) - (packed.path / "manifest.json").stat().st_size
    packed.verify()
    for step in (len(packed), -len(packed) - 1):
        with pytest.raises(IndexError, match=f"step must be in 0 … {len(packed) - 1}, got {step}"):
            packed[step]


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        (pp.recipes.flexivit(size=48, patch_size=(16, 12, 8), rows_per_batch=20), {"tail": "pad"}),
        (pp.recipes.pix2struct(max_patches=64, rows_per_batch=3, seq_len=128), {"tail": "wrap"}),
        (
            pp.recipes.siglip2_naflex(max_patches=64, seq_len=256, dtype="float16", positions=pp.positions.Fractional()),
            {"tail": "drop"},
        ),
        (RECIPE.replace(drop=pp.drop.Scheduled(midpoint=400, width=200)), {"num_epochs": 2, "epoch": 1}),
    ],
    ids=["several patch sizes, padded", "float32, wrapped", "float16, fractional, dropped", "drop schedule"],
)
@pytest.mark.parametrize(
    ("shards", "each"), [(VAL, 2), pytest.param(TRAIN, 7, marks=pytest.mark.slow)], ids=["100 images", "420 images"]
)
def test_every_kind_of_batch_comes_back(recipe: pp.Recipe, options: Any, shards: list[str], each: int, tmp_path: Path) -> None:
    index = pp.Index.build(shards)
    packed = pp.PackedShards.write(index, recipe, tmp_path / "p", steps_per_shard=each, **options)
    packed.verify()
    plain = {name: value for name, value in options.items() if name not in ("num_epochs", "epoch")}
    if options.get("num_epochs"):  # seen goes on from one epoch to the next
        loader = pp.load(index, recipe, epoch=1, **plain)
        first = list(loader)
        loader.set_epoch(2)
        for mine, theirs in zip(packed, first + list(loader), strict=True):
            assert_same(mine, theirs)
    else:
        assert_as_loaded(packed, index, recipe, **plain)


# -------------------------------------------------------------------------------------------------------------- targets


def labelled(path: Path, labels: Callable[[int], dict[str, bytes]], count: int = 12) -> Path:
    """A shard with images of the samples and labels of one's own."""
    with tarfile.open(TRAIN[0]) as samples, tarfile.open(path, "w") as tar:
        images = [m for m in samples if not m.name.endswith(".cls")][:count]
        for i, image in enumerate(images):
            file = samples.extractfile(image)
            assert file is not None
            for name, data in {f"{i:03d}.{image.name.rsplit('.', 1)[1]}": file.read(), **labels(i)}.items():
                info = tarfile.TarInfo(name if name[0].isdigit() and "." in name[:4] else f"{i:03d}.{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


LABELS: dict[str, tuple[Any, Callable[[int], dict[str, bytes]]]] = {
    "none": (None, lambda i: {}),
    "int": ("cls", lambda i: {"cls": str(i).encode()}),
    "float": ("npy", lambda i: {"npy": npy(np.float64(i / 3))}),
    "floats": ("box.npy", lambda i: {"box.npy": npy(np.arange(4.0) + i)}),
    "dict": (("cls", "box.npy"), lambda i: {"cls": str(i).encode(), "box.npy": npy(np.arange(4.0) - i)}),
    "text": ("txt", lambda i: {"txt": f"größe {i}".encode()}),
    "json": ("json", lambda i: {"json": json.dumps({"b": [i, None, 0.1, {"a": "\ud800"}], "a": True}).encode()}),
}


@pytest.mark.parametrize("kind", LABELS)
def test_targets_come_back(kind: str, tmp_path: Path) -> None:
    target, labels = LABELS[kind]
    index = pp.Index.build(labelled(tmp_path / "a.tar", labels), target=target)
    assert len(index) == 12
    packed = pp.PackedShards.write(index, RECIPE, tmp_path / "p")
    assert_as_loaded(packed, index, RECIPE)
    packed.verify()


@pytest.mark.parametrize(
    ("target", "labels", "shown"),
    [
        ("raw", lambda i: {"raw": b"\x00\x01" if i == 5 else b"x"}, "bytes b'x'"),
        ("json", lambda i: {"json": b"NaN" if i == 5 else b'"text"'}, "float nan"),
        ("npy", lambda i: {"npy": npy(np.array(["text"]))}, r"ndarray array\(\['text'\]"),
    ],
)
def test_targets_that_json_does_not_hold_are_refused(target: str, labels: Any, shown: str, tmp_path: Path) -> None:
    index = pp.Index.build(labelled(tmp_path / "a.tar", labels), target=target)
    with pytest.raises(pp.errors.TargetError, match=rf"a.tar/00\d: its target is {shown}.*, which JSON cannot store unchanged"):
        pp.PackedShards.write(index, RECIPE, tmp_path / "p")
    assert list((tmp_path / "p").iterdir()) == []


# ----------------------------------------------------------------------------------------------------- whoever writes it


@pytest.mark.parametrize("num_workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_workers_write_the_same_files(num_workers: int, packed: pp.PackedShards, index: pp.Index, tmp_path: Path) -> None:
    told: list[tuple[int, int, int]] = []
    pp.PackedShards.write(
        index,
        RECIPE,
        tmp_path / "p",
        **OPTIONS,
        num_workers=num_workers,
        context="fork",  # processes that are spawned: see the command line
        progress=lambda done, planned, images: told.append((done, planned, images)),
    )
    assert contents(tmp_path / "p") == contents(packed.path)
    assert len(told) == len(packed.shards)
    assert told[-1] == (len(packed), len(packed), 840)


def test_what_a_killed_run_has_made_stays(
    copied: Path, packed: pp.PackedShards, index: pp.Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copied / "manifest.json").unlink()
    (copied / "packed-000001.tar").unlink()
    for name in (".packed-000001.tar.0badcafe.tmp", ".manifest.json.0badcafe.tmp"):
        (copied / name).write_bytes(b"half")
    with pytest.raises(pp.errors.SourceError, match="packing did not finish, run the same patchpack pack again"):
        pp.PackedShards(copied)
    painted: list[str] = []
    paint = write.painted
    monkeypatch.setattr(write, "painted", lambda plan, *rest: painted.append(f"{plan.epoch}/{plan.step}") or paint(plan, *rest))
    pp.PackedShards.write(index, RECIPE, copied, **OPTIONS)
    assert painted == [f"0/{step}" for step in range(12, 24)]
    assert contents(copied) == contents(packed.path)
    pp.PackedShards.write(index, RECIPE, copied, **OPTIONS)  # finished: nothing to do
    assert len(painted) == 12


def test_a_process_that_is_killed_midway_loses_nothing(
    packed: pp.PackedShards, index: pp.Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint, out = write.painted, tmp_path / "p"

    def die(plan: BatchPlan, *rest: Any) -> Any:
        if (plan.epoch, plan.step) == (0, 17):
            os._exit(9)
        return paint(plan, *rest)

    monkeypatch.setattr(write, "painted", die)
    with pytest.raises(pp.errors.SourceError, match="a process that paints died"):
        pp.PackedShards.write(index, RECIPE, out, **OPTIONS, num_workers=1, context="fork")
    assert "packed-000000.tar" in contents(out)
    assert not {"packed-000001.tar", "manifest.json"} & contents(out).keys()
    assert [name for name in contents(out) if name.startswith(".packed-000001.tar.")]
    monkeypatch.setattr(write, "painted", paint)
    pp.PackedShards.write(index, RECIPE, out, **OPTIONS)
    assert contents(out) == contents(packed.path)


def test_losses_are_named_and_reads_that_fail_now_leave_no_hole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(Path(TRAIN[0]).read_bytes())
    with tarfile.open(TRAIN[0]) as tar:
        broken = max((m for m in tar if m.name.endswith(".png")), key=lambda m: m.size)
    data[broken.offset_data + 60 : broken.offset_data + broken.size] = bytes(broken.size - 60)
    (tmp_path / "a.tar").write_bytes(data)
    index = pp.Index.build(tmp_path / "a.tar")
    packed = pp.PackedShards.write(index, RECIPE, tmp_path / "p")
    assert_as_loaded(packed, index, RECIPE)
    packed.verify()
    (rejection,) = packed.reports[0].rejected
    assert (rejection.member, rejection.stage) == (broken.name, "decode")
    assert packed.reports[0].packed == packed.num_images == 139

    def fail(self: Any, shard: int, where: tuple[int, int]) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(ShardReader, "_read", fail)
    with pytest.raises(pp.errors.SourceError, match=r"cannot be read now: .*Input/output error. Run the same command again"):
        pp.PackedShards.write(index, RECIPE, tmp_path / "q")
    assert list((tmp_path / "q").iterdir()) == []


def test_what_a_worker_wrote_must_be_here_and_account_for_all(
    index: pp.Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(task: write.PackTask) -> write.PackedPart:
        part = write.write_shard(task)
        os.unlink(task.path)
        return part

    monkeypatch.setattr(epochs, "write_shard", elsewhere)
    with pytest.raises(pp.errors.SourceError, match=r"wrote .*packed-000000.tar .* is missing here: choose a folder that all"):
        pp.PackedShards.write(index, RECIPE, tmp_path / "p", **OPTIONS)

    def forgetful(task: write.PackTask) -> write.PackedPart:
        part = write.write_shard(task)
        part.infos[0].packed -= 2
        return part

    monkeypatch.setattr(epochs, "write_shard", forgetful)
    with pytest.raises(pp.errors.PackingError, match=r"epoch 0: 2 samples are neither packed nor reported as lost"):
        pp.PackedShards.write(index, RECIPE, tmp_path / "p")
    assert not (tmp_path / "p" / "manifest.json").exists()


# ------------------------------------------------------------------------------------------------------------ refused


def test_folders_that_hold_something_else_are_left_alone(
    copied: Path, index: pp.Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(copied)
    other = RECIPE.replace(seed=4)
    with pytest.raises(
        pp.errors.ConfigError, match=r"another index or recipe, .*: nothing was overwritten, choose another folder"
    ):
        pp.PackedShards.write(index, other, copied, **OPTIONS)
    (copied / "manifest.json").unlink()
    with pytest.raises(
        pp.errors.ConfigError, match=r"packed-000000.tar exists, but this pack would write other contents .*expected pack"
    ):
        pp.PackedShards.write(index, other, copied, **OPTIONS)
    with pytest.raises(
        pp.errors.ConfigError, match="this pack would write other contents"
    ):  # the same but for the size of its files
        pp.PackedShards.write(index, RECIPE, copied, **{**OPTIONS, "steps_per_shard": 11})
    (copied / "notes.txt").write_text("mine")
    with pytest.raises(pp.errors.ConfigError, match=r"notes.txt exists, but this pack would write other contents"):
        pp.PackedShards.write(index, RECIPE, copied, **OPTIONS)
    (copied / "manifest.json").write_text("{}")
    with pytest.raises(pp.errors.ConfigError, match=r"is not a manifest .* Nothing was overwritten"):
        pp.PackedShards.write(index, RECIPE, copied, **OPTIONS)
    assert {name: data for name, data in contents(copied).items() if name in before and name != "manifest.json"} == {
        name: data for name, data in before.items() if name != "manifest.json"
    }
    (tmp_path / "file").write_text("")
    with pytest.raises(pp.errors.ConfigError, match="cannot be used as a folder of packed shards"):
        pp.PackedShards.write(index, RECIPE, tmp_path / "file")
    with pytest.raises(pp.errors.ConfigError, match=r"need an index of shards, patchpack.Index.build\(shards\), got list"):
        pp.PackedShards.write(TRAIN, RECIPE, tmp_path / "p")  # type: ignore[arg-type]
    with pytest.raises(pp.errors.ConfigError, match="recipe"):
        pp.PackedShards.write(index, "navit", tmp_path / "p")  # type: ignore[arg-type]
    for name, value in (
        ("num_epochs", 0),
        ("epoch", -1),
        ("steps_per_shard", 0),
        ("tail", "none"),
        ("shuffle", -1),
        ("seen", 0.5),
    ):
        with pytest.raises(pp.errors.ConfigError, match=name):
            pp.PackedShards.write(index, RECIPE, tmp_path / "p", **{name: value})  # type: ignore[arg-type]
    with pytest.raises(pp.errors.SourceError, match="no image to pack"):
        pp.PackedShards.write(index, RECIPE.replace(max_pixels=1), tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_other_versions_of_what_paints_are_refused(
    packed: pp.PackedShards, index: pp.Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = EpochPlan(index, RECIPE)
    versions = {**write.versions_of(RECIPE), "pillow": "1.0"}
    task = write.PackTask(str(tmp_path / "a.tar"), "", [plan[0]], RECIPE, index.reader, versions)
    with pytest.raises(pp.errors.ConfigError, match="pixels depend on versions, so all machines need the same: here are"):
        write.write_shard(task)


def test_an_earlier_file_with_other_batches_is_refused(packed: pp.PackedShards, index: pp.Index) -> None:
    plans = EpochPlan(index, RECIPE, shuffle=50)
    path, versions = str(packed.path / "packed-000001.tar"), write.versions_of(RECIPE)

    def task(first: int, stop: int) -> write.PackTask:
        return write.PackTask(path, packed.fingerprint, plans[first:stop], RECIPE, index.reader, versions)

    assert write.write_shard(task(12, 24)).shard == packed.shards[1]
    for first, stop in ((12, 23), (12, 25), (0, 12)):
        with pytest.raises(pp.errors.ConfigError, match="this pack would write other contents"):
            write.write_shard(task(first, stop))


def test_shards_that_are_cut_missing_or_mixed_are_refused(
    copied: Path, packed: pp.PackedShards, index: pp.Index, tmp_path: Path
) -> None:
    first, second = copied / "packed-000000.tar", copied / "packed-000001.tar"
    whole = first.read_bytes()
    opened = pp.PackedShards(copied)
    first.write_bytes(whole[:-1])
    with pytest.raises(
        pp.errors.ShardError, match=r"packed-000000.tar must have .* bytes, got .*: it is incomplete or belongs to another pack"
    ):
        pp.PackedShards(copied)
    first.write_bytes(whole[:1000])
    with pytest.raises(pp.errors.ShardError, match=r"packed-000000.tar ends early: it has 1000 of"):
        opened[0]
    first.unlink()
    for look in (lambda: pp.PackedShards(copied), lambda: opened[0], opened.verify):
        with pytest.raises(pp.errors.ShardError, match=r"packed-000000.tar cannot be read: FileNotFoundError"):
            look()
    other = pp.PackedShards.write(index, RECIPE.replace(seed=4), tmp_path / "other", **OPTIONS)
    stranger = (other.path / first.name).read_bytes()
    first.write_bytes(stranger[: len(whole)].ljust(len(whole), b"\0"))
    with pytest.raises(
        pp.errors.ShardError,
        match=f"packed-000000.tar: expected a step of pack {packed.fingerprint}, got one of {other.fingerprint}",
    ):
        pp.PackedShards(copied)[0]
    first.write_bytes(second.read_bytes()[: len(whole)].ljust(len(whole), b"\0"))
    with pytest.raises(pp.errors.ShardError, match=r"packed-000000.tar: expected step 0 of epoch 0, got step 12 of epoch 0"):
        pp.PackedShards(copied)[0]
    first.write_bytes(whole)
    damaged = bytearray(second.read_bytes())
    damaged[-20_000] ^= 1
    second.write_bytes(damaged)
    with pytest.raises(pp.errors.ShardError, match=r"packed-000001.tar has changed since it was written"):
        pp.PackedShards(copied).verify()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda head: head.update(format="other"), "is not a manifest of packed shards"),
        (lambda head: head.update(version=3), "of version 3, this patchpack reads version 2: update patchpack"),
        (lambda head: head.update(version=1), "of version 1, this patchpack reads version 2: pack again"),
        (lambda head: head["shards"].pop(), "must hold the .* steps of its epochs"),
        (lambda head: head["shards"].reverse(), "must hold the"),
        (lambda head: head.update(num_steps=1), "must hold the 1 steps"),
        (
            lambda head: head["shards"][0].update(name="../a.tar"),
            r"Expected `str` matching regex .* - at `\$\.shards\[0\]\.name`",
        ),
        (lambda head: head["shards"][0]["offsets"].__setitem__(0, 512), "cannot be"),
        (lambda head: head["shards"][0]["offsets"].__setitem__(2, 1), "cannot be"),
        (lambda head: head["shards"][0]["offsets"].__setitem__(-1, 1 << 40), "cannot be"),
        (lambda head: head["shards"][0].update(digest=None), r"Expected `str`, got `null` - at `\$\.shards\[0\]\.digest`"),
        (lambda head: head["shards"][0].update(name={}), "Expected `str`, got `object`"),
        (lambda head: head["shards"][0].update(name="packed-\ud800.tar"), "Expected `str` matching regex"),
        (lambda head: head["shards"][0]["offsets"].__setitem__(-1, 1e6), "Expected `int`, got `float`"),
        (lambda head: head["epochs"][0].update(num_steps=1 << 62), "must hold the"),  # a list of them would never end
        (lambda head: head["epochs"][0].update(packed=None), "Expected `int`, got `null`"),
        (lambda head: [head["epochs"].append({**head["epochs"][-1], "num_steps": 0})], "its epochs must be in order"),
        (lambda head: head["epochs"][0].pop("rejected"), "missing required field `rejected`"),
        (lambda head: head["epochs"][0].update(seen=True), "Expected `int`, got `bool`"),
        (lambda head: head["epochs"][0].update(seen=-1), "Expected `int` >= 0"),
        (lambda head: head["epochs"][0].update(seen=float("nan")), "Expected `int`, got `float`"),
        (lambda head: head["epochs"][0].update(seen=1 << 63), "Expected `int` <= 9223372036854775807"),
        (lambda head: head["epochs"][0].update(dropped={"tail": "1"}), "Expected `int`, got `str`"),
        (lambda head: head["epochs"][0].update(shard_errors=[{"shard": "a.tar"}]), "missing 1 required"),
        (lambda head: head["epochs"][0].update(shard_errors=[{"shard": "a.tar", "reason": 5}]), "Expected `str`, got `int`"),
        (lambda head: head["shards"][0].update(more=1), "unknown field `more`"),
        (lambda head: head["shards"][0].update(offsets=[]), "Expected `array` of length >= 1"),
        (lambda head: head.update(version=0.5), "Expected `int`, got `float`"),
        (lambda head: head.clear(), "missing required field `format`"),
    ],
)
def test_manifests_that_lie_are_refused(change: Callable[[Any], Any], message: str, copied: Path) -> None:
    path = copied / "manifest.json"
    head = json.loads(path.read_bytes())
    change(head)
    path.write_text(json.dumps(head))
    with pytest.raises(pp.errors.SourceError, match=message):
        pp.PackedShards(copied)


def test_a_folder_without_a_manifest_or_with_half_of_one_is_refused(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(
        pp.errors.SourceError, match=r"has no manifest.json, so it holds no packed shards: write them with patchpack pack"
    ):
        pp.PackedShards(tmp_path)
    path = copied / "manifest.json"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(pp.errors.SourceError, match=r"or is damaged .JSONDecodeError"):
        pp.PackedShards(copied)
    for text, why in ((b"[" * 100_000, "RecursionError"), (b"9" * 5000, "ValueError"), (b"[1]", "ValidationError")):
        path.write_bytes(text)
        with pytest.raises(pp.errors.SourceError, match=rf"or is damaged .{why}"):
            pp.PackedShards(copied)


class Bomb:
    def __reduce__(self) -> Any:
        return pytest.fail, ("it was unpickled",)


def test_nothing_is_unpickled(packed: pp.PackedShards) -> None:
    place = Place(packed.fingerprint, 0, 0)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    begin, end = packed.shards[0].offsets[:2]
    whole = (packed.path / packed.shards[0].name).read_bytes()[begin:end]
    with tarfile.open(fileobj=io.BytesIO(whole + END)) as tar:
        norm = tar.getmember(f"{place.key}.norm.npy")
        text = whole[: norm.offset_data - 512]
        rest = whole[norm.offset_data + 512 :]
    bomb = b"".join(steps._member(norm.name, header.getvalue(), pickle.dumps(np.array([Bomb()], dtype=object))))
    data = torch.from_numpy(np.frombuffer(bytearray(text + bomb + rest + END), np.uint8))
    with pytest.raises(pp.errors.ShardError, match="an array of a batch cannot have the dtype object"):
        read_step(data, place)


def changed_step(packed: pp.PackedShards, name: str, change: Callable[[bytes], bytes]) -> torch.Tensor:
    """The first step with one of its members changed."""
    whole = (packed.path / packed.shards[0].name).read_bytes()[: packed.shards[0].offsets[1]]
    pieces = []
    with tarfile.open(fileobj=io.BytesIO(whole + END)) as tar:
        for member in tar:
            begin = member.offset_data
            content = whole[begin : begin + member.size]
            pieces += steps._member(member.name, change(content) if member.name.endswith(name) else content)
    return torch.frombuffer(bytearray(b"".join(pieces) + END), dtype=torch.uint8)


def test_an_array_header_that_does_not_end_is_damage(packed: pp.PackedShards) -> None:
    """Python's tokenizer stumbles before numpy does."""
    data = changed_step(packed, ".norm.npy", lambda content: content.replace(b"}", b" ", 1))
    with pytest.raises(
        pp.errors.ShardError, match=r"step 0 of epoch 0 is damaged \(ValueError: an array's header cannot be read"
    ):
        read_step(data, Place(packed.fingerprint, 0, 0))


def test_a_record_that_says_every_counter_is_read(packed: pp.PackedShards) -> None:
    """Records leave out counters at their default; one that spells them out says the same."""

    def spelt_out(content: bytes) -> bytes:
        about = json.loads(content)
        plain = {"step": 0, "epoch": 0, "shortened": 0, "dropped": {}, "rejections": [], "shard_errors": [], "warnings": {}}
        assert plain.keys() - about["info"].keys()
        return json.dumps({**about, "info": {**plain, **about["info"]}}).encode()

    data = changed_step(packed, ".json", spelt_out)
    assert_same(read_step(data, Place(packed.fingerprint, 0, 0)), packed[0])


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"keys": [None, None]}, r"Expected `array`, got `null` - at `\$\.keys\[0\]`"),
        ({"keys": [[1], [2]]}, r"Expected `str`, got `int` - at `\$\.keys\[0\]\[0\]`"),
        ({"keys": None}, "Expected `array`, got `null`"),
        ({"keys": [[]]}, "keys must be one list per row, got 1"),
        ({"patch_size": 16.0}, r"Expected `int`, got `float` - at `\$\.patch_size`"),
        ({"info": None}, r"Expected `object`, got `null` - at `\$\.info`"),
        ({"info": []}, "Expected `object`, got `array`"),
        ({"info": [["seen", 1]]}, "Expected `object`, got `array`"),
        ({"info": {"sean": 1}}, "sean"),
        ({"info": {"seen": None}}, "seen of info has the wrong type: None"),
        ({"info": {"seen": "1"}}, "seen of info has the wrong type: '1'"),
        ({"info": {"dropped": []}}, r"dropped of info has the wrong type: \[\]"),
        ({"info": {"warnings": {"odd": None}}}, "warnings of info has the wrong type: {'odd': None}"),
        ({"info": {"boxes": [[0, 0, 1, 1]]}}, r"boxes of info has the wrong type: \[\[0"),
        ({"info": {"rejections": None}}, "rejections of info has the wrong type: None"),
        ({"info": {"rejections": [{"stage": "read"}]}}, "missing 4 required"),
        ({"info": {"rejections": [{"shard": "a.tar", "reason": "cut"}]}}, "rejections of info has the wrong type"),
        ({"info": {"shard_errors": [{"shard": "a.tar", "reason": 5}]}}, "a loss of info must be"),
    ],
)
def test_a_record_of_other_kinds_is_damage(said: dict[str, Any], message: str, packed: pp.PackedShards) -> None:
    data = changed_step(packed, ".json", lambda content: json.dumps({**json.loads(content), **said}).encode())
    with pytest.raises(pp.errors.ShardError, match=rf"step 0 of epoch 0 is damaged .*{message}"):
        read_step(data, Place(packed.fingerprint, 0, 0))


@given(st.data())
def test_damage_is_an_error_of_ours_or_harmless(packed: pp.PackedShards, data: st.DataObject) -> None:
    begin, end = packed.shards[0].offsets[:2]
    with open(packed.path / packed.shards[0].name, "rb") as file:
        block = bytearray(file.read(end - begin))
    with tarfile.open(fileobj=io.BytesIO(bytes(block) + END)) as tar:
        members = [(m.offset_data, m.size, m.name) for m in tar]
    at, size, _ = data.draw(st.sampled_from(members))
    for _ in range(data.draw(st.integers(1, 4))):
        block[at - 512 + data.draw(st.integers(0, 512 + min(size, 2000) - 1))] = data.draw(st.integers(0, 255))
    buffer = torch.from_numpy(np.frombuffer(block + END, np.uint8).copy())
    try:
        batch = read_step(buffer, Place(packed.fingerprint, 0, 0))
    except pp.errors.ShardError:
        return
    assert batch.patches.shape == packed[0].patches.shape


# ---------------------------------------------------------------------------------------------------------- used


def test_a_dataloader_takes_it_as_any_dataset(packed: pp.PackedShards) -> None:
    first = Subset(packed, packed.steps_of(0))
    order = list(range(len(first)))
    random.Random(1).shuffle(order)
    loader: DataLoader[pp.PackedBatch] = DataLoader(first, batch_size=None, sampler=order, num_workers=2)
    for step, batch in zip(order, loader, strict=True):
        assert_same(batch, packed[step])
    samplers = [DistributedSampler(packed, num_replicas=2, rank=rank, shuffle=True, drop_last=True) for rank in range(2)]
    dealt = [step for sampler in samplers for step in sampler]
    assert len(set(dealt)) == len(dealt) >= len(packed) - 1
    assert_same(pickle.loads(pickle.dumps(packed))[5], packed[5])


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its open shards to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_the_files(packed: pp.PackedShards) -> None:
    import webdataset

    files = [str(packed.path / shard.name) for shard in packed.shards]
    samples = list(webdataset.WebDataset(files, shardshuffle=False, empty_check=False).decode())
    assert len(samples) == len(packed)
    for sample, batch in zip(samples, packed, strict=True):
        assert np.array_equal(sample["patches.npy"], batch.patches.numpy())
        assert sample["json"]["keys"] == batch.keys


def test_the_command_line_writes_what_write_does(
    packed: pp.PackedShards, index: pp.Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = ["--recipe", "navit", "--seq-len", "256", "--rows-per-batch", "2", "--seed", "3"]
    options = ["--epochs", "2", "--shuffle", "50", "--steps-per-shard", "12"]
    assert main(["pack", *TRAIN, str(tmp_path / "a"), *recipe, *options]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert contents(tmp_path / "a") == contents(packed.path)
    size = packed.nbytes
    for line in (
        f"epoch 0: 420 images in {len(packed.steps_of(0))} batches, 0 cannot be used",
        f"epoch 1: 420 images in {len(packed.steps_of(1))} batches, 0 cannot be used",
        f"wrote {tmp_path / 'a'}: {len(packed.shards)} files, {size:,} bytes, {size / 840:,.0f} per image",
        f"next: DataLoader(pp.PackedShards({str(tmp_path / 'a')!r}), batch_size=None, shuffle=True)",
    ):
        assert line in printed
    index.save(tmp_path / "train.index")
    assert main(["pack", str(tmp_path / "train.index"), str(tmp_path / "c"), "--no-target"]) == 1
    assert "are decided when an index is built" in capsys.readouterr().err
    assert main(["pack", *TRAIN, str(tmp_path / "a"), *recipe]) == 1
    assert "ConfigError: " in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_line_writes_the_same_from_an_index_and_with_processes_that_are_spawned(
    packed: pp.PackedShards, index: pp.Index, tmp_path: Path
) -> None:
    index.save(tmp_path / "train.index")
    recipe = ["--recipe", "navit", "--seq-len", "256", "--rows-per-batch", "2", "--seed", "3"]
    options = ["--epochs", "2", "--shuffle", "50", "--steps-per-shard", "12", "--num-workers", "2"]
    assert main(["pack", str(tmp_path / "train.index"), str(tmp_path / "b"), *recipe, *options]) == 0
    assert contents(tmp_path / "b") == contents(packed.path)
