"""The shipped shards: small, balanced, varied, and what the script in the repository draws."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from patchpack import samples
from patchpack.errors import ConfigError, SourceError
from patchpack.samples import CLASS_NAMES, draw, shards

SPLITS = ("train", "val")
BOX = Image.Resampling.BOX


class Entry(NamedTuple):
    key: str
    extension: str
    label: int
    size: tuple[int, int]  # (height, width), oriented
    image: bytes


def read(path: str | Path) -> list[Entry]:
    entries = []
    with tarfile.open(path) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    for (image_name, image), (label_name, label) in zip(members[::2], members[1::2], strict=True):
        key, extension = image_name.split(".")
        assert label_name == f"{key}.cls"
        with Image.open(io.BytesIO(image)) as stored:
            oriented = ImageOps.exif_transpose(stored)
        entries.append(Entry(key, extension, int(label), (oriented.height, oriented.width), image))
    return entries


def thumbnail(image: Image.Image) -> list[int]:
    return list(image.convert("L").resize((8, 8), BOX).tobytes())


def contrast(grey: Image.Image) -> int:
    levels = grey.tobytes()
    return max(levels) - min(levels)


@pytest.fixture(scope="module")
def shipped() -> dict[str, list[Entry]]:
    return {split: [entry for path in shards(split) for entry in read(path)] for split in SPLITS}


@pytest.fixture(scope="module")
def everything(shipped: dict[str, list[Entry]]) -> list[Entry]:
    return [entry for split in SPLITS for entry in shipped[split]]


def test_shards_are_sorted_and_small() -> None:
    assert [Path(path).name for split in SPLITS for path in shards(split)] == list(draw.SHARDS)
    assert sum(Path(path).stat().st_size for split in SPLITS for path in shards(split)) < 1_500_000


def test_another_split_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'train' or 'val', got 'test'"):
        shards("test")


def test_absent_files_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(samples, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(SourceError, match="shapes-train"):
        shards("train")


@pytest.mark.parametrize("split", SPLITS)
def test_classes_are_balanced(shipped: dict[str, list[Entry]], split: str) -> None:
    counts = Counter(entry.label for entry in shipped[split])
    assert len(CLASS_NAMES) == len(set(CLASS_NAMES)) == 10
    assert sorted(counts) == list(range(10))
    assert len(set(counts.values())) == 1


def test_every_shard_opens_with_many_classes() -> None:
    for split in SPLITS:
        for path in shards(split):
            assert len({entry.label for entry in read(path)[:30]}) >= 8


def test_format_does_not_tell_the_class(shipped: dict[str, list[Entry]]) -> None:
    for split in SPLITS:
        pairs = Counter((entry.extension, entry.label) for entry in shipped[split])
        for extension in ("jpg", "png", "webp"):
            assert len({pairs[extension, label] for label in range(10)}) == 1
            assert pairs[extension, 0] >= 3


def test_suffix_is_the_format(everything: list[Entry]) -> None:
    names = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
    for entry in everything:
        with Image.open(io.BytesIO(entry.image)) as image:
            assert image.format == names[entry.extension]


def test_keys_are_unique_over_both_splits(everything: list[Entry]) -> None:
    assert len({entry.key for entry in everything}) == len(everything)


@pytest.mark.parametrize("split", SPLITS)
def test_sizes_reach_the_ends(shipped: dict[str, list[Entry]], split: str) -> None:
    aspects = [entry.size[1] / entry.size[0] for entry in shipped[split]]
    sides = [side for entry in shipped[split] for side in entry.size]
    assert min(aspects) == pytest.approx(1 / 6, rel=0.03)
    assert max(aspects) == pytest.approx(6, rel=0.03)
    assert (min(sides), max(sides)) == (24, 900)


def test_pictures_come_in_rarer_forms(everything: list[Entry]) -> None:
    forms: Counter[str] = Counter()
    for entry in everything:
        with Image.open(io.BytesIO(entry.image)) as image:
            forms[f"{entry.extension} {image.mode}"] += 1
            if image.mode == "RGBA":
                assert image.getchannel("A").getextrema() == (255, 255)
    assert forms["jpg L"] >= 3
    assert forms["png L"] >= 3
    assert forms["png P"] >= 3
    assert forms["png RGBA"] >= 1


def test_turned_stripes_lie_as_their_class_says(everything: list[Entry]) -> None:
    turned = []
    for entry in everything:
        with Image.open(io.BytesIO(entry.image)) as image:
            if ExifTags.Base.Orientation not in image.getexif():
                continue
            assert image.getexif()[ExifTags.Base.Orientation] == 6
            grey = ImageOps.exif_transpose(image).convert("L")
        # averaged along its stripes a picture keeps its contrast, averaged across them it turns flat
        horizontal = contrast(grey.resize((1, grey.height), BOX)) > contrast(grey.resize((grey.width, 1), BOX))
        assert CLASS_NAMES[entry.label] == ("horizontal stripes" if horizontal else "vertical stripes")
        turned.append(entry.label)
    assert sorted(turned) == [0, 1]


def test_turned_files_are_looked_at_as_drawn() -> None:
    turned = [spec for spec in draw.deal(0, 140) if spec.turned]
    assert len(turned) == 2
    for spec in turned:
        with Image.open(io.BytesIO(draw.encode(spec))) as stored:
            assert (stored.width, stored.height) == (spec.height, spec.width)
            assert thumbnail(ImageOps.exif_transpose(stored)) == pytest.approx(thumbnail(draw.render(spec)), abs=6)


def test_the_script_draws_what_is_shipped(tmp_path: Path) -> None:
    """Same samples, and nearly the same pixels; bytes may differ, codecs are not the same everywhere."""
    drawn = {path.name: read(path) for path in draw.draw(tmp_path / "fresh")}
    for split in SPLITS:
        for path in shards(split):
            here, there = read(path), drawn[Path(path).name]
            assert [entry[:4] for entry in here] == [entry[:4] for entry in there]
            for old, new in zip(here[::10], there[::10], strict=True):
                with Image.open(io.BytesIO(old.image)) as one, Image.open(io.BytesIO(new.image)) as other:
                    assert thumbnail(one) == pytest.approx(thumbnail(other), abs=12)


def test_drawing_twice_gives_the_same_bytes() -> None:
    for spec in draw.deal(0, 140)[:6]:
        assert draw.encode(spec) == draw.encode(spec)


def test_archive_has_no_owner_and_no_time() -> None:
    with tarfile.open(shards("val")[0]) as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in tar} == {(0, 0, 0, "", "")}


def test_captions_say_what_was_drawn() -> None:
    train, val = draw.captions("train"), draw.captions("val")
    assert (len(train), len(val), len(set(val.values()))) == (420, 100, 100)
    assert train.keys().isdisjoint(val)
    assert val["shape-00421"] == "tall: apricot rings on plum"


def test_a_caption_has_the_class_the_shape_and_the_colours_of_its_picture(shipped) -> None:
    """Of pictures without light on them, whose colours are as drawn: the two commonest are those named."""
    captions, seen = draw.captions("train"), 0
    for entry in shipped["train"]:
        shape, rest = captions[entry.key].split(": ")
        colours = rest.replace(CLASS_NAMES[entry.label], "|").split(" | on ")
        assert len(colours) == 2
        aspect = entry.size[1] / entry.size[0]
        assert shape == ("wide" if aspect >= 1.5 else "tall" if aspect <= 1 / 1.5 else "squarish")
        with Image.open(io.BytesIO(entry.image)) as image:
            if entry.extension != "png" or image.mode != "RGB" or CLASS_NAMES[entry.label] == "clouds":
                continue
            colours_there, counts = np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0, return_counts=True)
        both = colours_there[np.argsort(counts)[-2:]].astype(float)
        far = np.linalg.norm(both[:, None] - np.array([draw.PALETTE[name] for name in colours]), axis=2)
        # each was moved by 14 at most along three axes; which of them is the commoner one is the texture's
        assert min(max(far[0, 0], far[1, 1]), max(far[0, 1], far[1, 0])) <= 25, entry.key
        seen += 1
    assert seen > 40
