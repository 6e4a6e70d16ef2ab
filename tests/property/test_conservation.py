"""seen = packed + rejected + dropped by a rule + waiting, and 0 wait at the end: over random faults of samples and shards.

Every picture is of one colour, which is its label's. A naive account of the same members says what must become of each sample.
"""

from __future__ import annotations

import gzip
import io
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

import patchpack as pp
from helpers.painted import BLOCK, END, member
from helpers.profiles import examples
from patchpack.testing import drop_policies, packer_factories

PATCH = 4
LARGEST = 16  # patches


class Drawn(NamedTuple):
    """One sample: its fault, the grid of its picture, whether its label comes first, which earlier key it repeats."""

    how: str
    rows: int
    cols: int
    label_first: bool
    which: int


class DrawnShard(NamedTuple):
    """Some samples, the fault of what they lie in, and where in it, a share of its length."""

    samples: list[Drawn]
    how: str
    where: float


class File(NamedTuple):
    """A member of a shard; `stage` is where its sample falls out because of it, "" if it is sound."""

    stem: str
    extension: str
    data: bytes
    stage: str = ""


class Shard(NamedTuple):
    """A shard: its bytes, the files that arrive of it, the stem it is cut inside, and whether that is a fault."""

    data: bytes
    arrived: list[File]
    cut: str
    fault: bool


@cache
def picture(label: int, rows: int, cols: int) -> bytes:
    file = io.BytesIO()
    colour = np.array([3 * label, 255 - 3 * label, label], dtype=np.uint8)
    Image.fromarray(np.broadcast_to(colour, (rows * PATCH, cols * PATCH, 3)).copy()).save(file, "PNG")
    return file.getvalue()


def label_of(patches: Any) -> int:
    """What an image of one colour says, whichever of its patches are left."""
    colours = np.unique(np.asarray(patches).reshape(-1, 3), axis=0)
    assert len(colours) == 1
    red, green, blue = colours[0].tolist()
    assert (red, green) == (3 * blue, 255 - 3 * blue)
    return int(blue)


FAULTS = (
    "no image", "no label", "no picture", "header cut", "pixels cut", "too large", "label of words", "label of a float",
    "label of nothing", "image twice", "label twice", "a key again", "label much later",
)  # fmt: skip


CONTAINERS = ("whole", "cut", "junk", "put together", "no end")

samples = st.builds(
    Drawn, st.just("") | st.sampled_from(FAULTS), st.integers(1, 4), st.integers(1, 4), st.booleans(), st.integers(0, 5)
)
shards = st.builds(DrawnShard, st.lists(samples, min_size=1, max_size=6), st.sampled_from(CONTAINERS), st.floats(0, 1))
sources = st.lists(shards, min_size=1, max_size=3)


def files_of(drawn: DrawnShard, first_label: int) -> list[File]:
    """The members of a shard, every label another one."""
    files: list[File] = []
    late: list[File] = []
    for label, (how, rows, cols, label_first, which) in enumerate(drawn.samples, first_label):
        stem = f"s{label}" if how != "a key again" else f"s{first_label + which % (label - first_label + 1)}"
        image, cls = File(stem, "png", picture(label, rows, cols)), File(stem, "cls", b"%d" % label)
        if how in ("no picture", "header cut"):
            image = image._replace(data=b"<html>" * 9 if how == "no picture" else image.data[:20], stage="header")
        elif how == "pixels cut":
            image = image._replace(data=image.data[: image.data.index(b"IDAT") + 8], stage="decode")
        elif how == "too large":
            image = image._replace(data=picture(label, 5, 4), stage="plan")
        elif how.startswith("label of"):
            cls = cls._replace(data={"words": b"two", "a float": b"2.5", "nothing": b""}[how[9:]], stage="target")
        own = [image] * (how != "no image") + [image] * (how == "image twice") + [cls] * (how != "no label")
        own += [cls] * (how == "label twice")
        if how == "label much later":
            late.append(own.pop())
        files += own[::-1] if label_first else own
    return files + late


def made(drawn: DrawnShard, first_label: int) -> Shard:
    """What is drawn as a tar file."""
    files = files_of(drawn, first_label)
    members = [member(f"{file.stem}.{file.extension}", file.data) for file in files]
    edges = np.cumsum([0, *map(len, members)]).tolist()
    if drawn.how == "cut":
        at = round(drawn.where * edges[-1])
        begins = list(zip(files, edges, strict=False))
        arrived = [file for file, begin in begins if begin + BLOCK + len(file.data) <= at]
        inside = [file.stem for file, begin in begins if begin + BLOCK <= at < begin + BLOCK + len(file.data)]
        return Shard((b"".join(members) + END)[:at], arrived, inside[0] if inside else "", True)
    number = round(drawn.where * (len(files) - 1))
    if drawn.how == "junk":
        members[number] = b"\xa5" * BLOCK + members[number][BLOCK:]
    if drawn.how == "put together":
        members.insert(number, END)
    data = b"".join(members) + END * (drawn.how != "no end")
    return Shard(data, files[:number] if drawn.how in ("junk", "put together") else files, "", drawn.how != "whole")


def groups(files: Iterable[File]) -> Iterator[tuple[str, list[File]]]:
    """Files side by side that share a stem."""
    return ((stem, list(own)) for stem, own in groupby(files, key=lambda file: file.stem))


def stage_of(own: list[File]) -> str:
    """Where these members of a sample fall out, "" where they are one."""
    by_extension = {file.extension: file for file in own}
    if "png" not in by_extension:
        return "read"
    if "cls" not in by_extension:
        return "target"
    return by_extension["png"].stage or by_extension["cls"].stage


def naive(name: str, shard: Shard) -> tuple[list[tuple[str, int]], list[tuple[str, str]]]:
    """(key, label) of what can be used, (key, stage) of the rest."""
    whole, lost, met = [], [], set()
    for stem, own in groups(shard.arrived):
        doubled = stem in met or len({file.extension for file in own}) < len(own)
        cut = stem == shard.cut and own[-1] is shard.arrived[-1]
        met.add(stem)
        if stage := "read" if doubled or cut else stage_of(own):
            lost.append((f"{name}/{stem}", stage))
        else:
            whole.append((f"{name}/{stem}", next(int(file.data) for file in own if file.extension == "cls")))
    return whole, lost


@st.composite
def recipes(draw: st.DrawFn) -> pp.Recipe:
    return pp.Recipe(
        resize=pp.resize.Native(LARGEST, oversize="reject"), drop=draw(drop_policies()), packer=draw(packer_factories()),
        patch_size=PATCH, seq_len=draw(st.integers(LARGEST, 3 * LARGEST)), max_images=draw(st.integers(1, 4)),
        rows_per_batch=draw(st.integers(1, 3)), seed=draw(st.integers(0, 99)),
    )  # fmt: skip


class Followed:
    """Batches counted from outside, next to what the report says after each."""

    def __init__(self) -> None:
        self.packed = 0
        self.images: Counter[tuple[str, int]] = Counter()
        self.ended = False

    def add(self, batch: pp.PackedBatch, report: pp.Report) -> None:
        for image in pp.unpack(batch):
            assert label_of(image.patches) == int(image.target), f"{image.key} has another one's label"
            self.images[image.key, int(image.target)] += 1
        self.packed += batch.info.packed
        self.check(report)

    def check(self, report: pp.Report) -> None:
        assert report.seen == report.packed + len(report.rejected) + sum(report.dropped.values()) + report.waiting
        assert report.packed == self.packed
        assert report.waiting >= 0


def check_end(followed: Followed, report: pp.Report, whole: Counter[Any], lost: Counter[Any], tail: str) -> None:
    """Of one pass: every sample met is delivered once, or named once, or dropped by the rule that was asked for."""
    followed.check(report)
    assert report.waiting == 0
    assert report.seen == whole.total() + lost.total()
    rejected = Counter((r.key, r.stage) for r in report.rejected)
    assert not rejected - lost
    unmet = lost - rejected  # never painted, so nobody knew
    assert {stage for _, stage in unmet} <= {"decode", "target"}
    dropped = sum(report.dropped.values())
    assert set(report.dropped) <= {"tail"}
    assert tail == "drop" or dropped == 0
    assert report.packed + dropped == whole.total() + unmet.total()
    if tail == "wrap":
        assert set(followed.images) == set(whole)
    else:
        assert followed.images.total() == report.packed
        assert not followed.images - whole


WAYS = ("as it goes", "as a stream", "indexed")
TAILS = st.sampled_from(["short", "drop", "pad", "wrap"])
SHARDS: dict[str, Any] = {
    "drawn": sources,
    "recipe": recipes(),
    "shuffle": st.sampled_from([0, 3, 100]),
    "tail": TAILS,
    "steps": st.sampled_from([None, None, None, 1, 2, 5]),
    "epoch": st.integers(0, 3),
}
ITEMS: dict[str, Any] = {"drawn": sources, "recipe": recipes(), "tail": TAILS}
MANY = 10  # 400 of each way at the profile ci: 1,600 in all


def with_examples(count: int) -> settings:
    """Return the settings for so many examples."""
    return settings(max_examples=count, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("way", WAYS)
@with_examples(examples())
@given(**SHARDS)
def test_every_sample_of_a_broken_shard_is_accounted_for(way: str, tmp_path: Path, **given: Any) -> None:
    check_shards(way, tmp_path, **given)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@with_examples(examples(MANY))
@given(**SHARDS)
def test_every_sample_of_many_broken_shards_is_accounted_for(way: str, tmp_path: Path, **given: Any) -> None:
    check_shards(way, tmp_path, **given)


@with_examples(examples())
@given(**ITEMS)
def test_every_sample_that_reaches_pack_is_accounted_for(**given: Any) -> None:
    check_items(**given)


@pytest.mark.slow
@with_examples(examples(MANY))
@given(**ITEMS)
def test_every_sample_of_many_that_reach_pack_is_accounted_for(**given: Any) -> None:
    check_items(**given)


def check_shards(
    way: str, tmp_path: Path, drawn: list[DrawnShard], recipe: pp.Recipe, shuffle: int, tail: Any, steps: Any, epoch: int
) -> None:
    broken = [made(shard, 20 * number + 1) for number, shard in enumerate(drawn)]
    suffix = ".tar.gz" if way == "as a stream" else ".tar"
    paths, whole, lost = [], Counter[Any](), Counter[Any]()
    for number, shard in enumerate(broken):
        path = tmp_path / f"{number}{suffix}"
        path.write_bytes(gzip.compress(shard.data, 1) if way == "as a stream" else shard.data)
        paths.append(str(path))
        good, bad = naive(path.name, shard)
        whole.update(good)
        lost.update(bad)
    source = pp.Index.build(paths) if way == "indexed" else paths
    loader = pp.load(
        source,
        recipe,
        shuffle=shuffle,
        tail=tail,
        steps_per_epoch=steps,
        epoch=epoch,
        on_error=pp.ErrorPolicy("skip", max_in_a_row=None),
    )
    followed = Followed()
    try:
        for batch in loader:
            followed.add(batch, loader.report())
        followed.ended = True
    except pp.errors.SourceError as error:
        assert "no image to pack" in str(error) or (steps is not None and "ended after" in str(error))  # noqa: PT017
    report = loader.report()
    followed.check(report)
    assert not {key for key, _ in followed.images} & {key for key, _ in lost} - {key for key, _ in whole}
    assert set(followed.images) <= set(whole)
    if steps is None:
        check_end(followed, report, whole, lost, tail)
        assert sorted(fault.shard for fault in report.shard_errors) == [
            Path(path).name for path, shard in zip(paths, broken, strict=True) if shard.fault
        ]
    elif followed.ended:
        assert report.waiting == 0
        assert {(r.key, r.stage) for r in report.rejected} <= set(lost)


def check_items(drawn: list[DrawnShard], recipe: pp.Recipe, tail: Any) -> None:
    """SampleFields as a pipeline puts them together, two of one extension never; a key may come again."""
    # a label that comes late, beside a picture with its key: the shard itself pairs them wrongly, and Pack never sees the shard
    assume(not any({"label much later", "a key again"} <= {sample.how for sample in shard.samples} for shard in drawn))
    broken = [made(shard, 20 * number + 1) for number, shard in enumerate(drawn)]
    # two samples of one key side by side, of which the shard's end cuts a label off: the dict that Pack sees pairs the rest
    own_files = [own for shard in broken for _, own in groups(shard.arrived)]
    assume(all(len({(f.extension, f.data) for f in own}) == len({f.extension for f in own}) for own in own_files))
    items, whole, lost = [], Counter[Any](), Counter[Any]()
    for number, shard in enumerate(broken):
        for stem, own in groups(shard.arrived):
            items.append({"__key__": stem, "__url__": f"{number}.tar", **{file.extension: file.data for file in own}})
            key, stage = f"{number}.tar/{stem}", stage_of(own)
            if stage:  # a pipeline has no shards to be read: what is not there is missing from a dict
                lost[key, "header" if stage == "read" else stage] += 1
            else:
                whole[key, int(items[-1]["cls"])] += 1
    followed, batches = Followed(), []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            for batch in pp.Pack(recipe, tail=tail, on_error=pp.ErrorPolicy("skip", max_in_a_row=None))(items):
                batches.append(batch)
                followed.add(batch, pp.Report.collect(batches))
        except pp.errors.SourceError as error:
            assert "no image to pack" in str(error)  # noqa: PT017
            assert not batches
            return
    check_end(followed, pp.Report.collect(batches), whole, lost, tail)
