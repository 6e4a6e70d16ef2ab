"""An index of a folder or a dataset: its columns, its file, the check that nothing has changed, and what is refused."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import patchpack as pp
from patchpack import rng
from patchpack.errors import ConfigError, IndexFileError, SourceError, StaleIndexError
from patchpack.stream.index import columns as files
from patchpack.stream.index.of_source import SourceIndex
from patchpack.stream.index.source_scan import is_plain
from patchpack.types import Event, Header, Size

RECIPE = pp.recipes.navit(seq_len=256, rows_per_batch=2)


def picture(path: Path, height: int = 9, width: int = 7) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of three images each, and a file that is no image."""
    root = tmp_path / "photos"
    for name in ("cat", "dog"):
        for i in range(3):
            picture(root / name / f"{i}.png", 10 + i, 20 + 2 * i)
    (root / "dog" / "3.png").write_bytes(b"no image")
    return root


class Items:
    """A dataset whose items are arrays of given sizes, in memory."""

    def __init__(self, sizes: Sequence[tuple[int, int]]) -> None:
        self.sizes, self.asked = list(sizes), [0] * len(sizes)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, i: int) -> Any:
        self.asked[i] += 1
        return Image.fromarray(np.zeros((*self.sizes[i], 3), dtype=np.uint8)), i


class NoLabels:
    """A reader that is asked for labels only."""

    def __call__(self, location: object) -> tuple[object, object]:
        raise AssertionError(f"{location} is not to be painted")

    def target(self, location: object) -> object:
        return None


class Listed(pp.Source):
    """A source of the given headers, one per part."""

    one_sample_per_part = True
    scan_in_process = True

    def __init__(self, headers: Sequence[Event]) -> None:
        self.headers, self.name, self.reader, self.num_parts = list(headers), "headers", NoLabels(), len(headers)

    def scan(self) -> Iterator[Event]:
        return iter(self.headers)

    def scan_parts(self, parts: Sequence[int]) -> Iterator[Event]:
        return (self.headers[part] for part in parts)


# ------------------------------------------------------------------------------------------------------------- contents


def test_the_index_of_a_folder(folder: Path) -> None:
    index = pp.Index.build(folder)
    keys = ["cat/0.png", "cat/1.png", "cat/2.png", "dog/0.png", "dog/1.png", "dog/2.png"]
    assert [header.key for header in index.headers(range(6))] == keys
    assert index.headers([5, 0]) == (
        Header("dog/2.png", "photos/", "2.png", Size(12, 24), "dog/2.png"),
        Header("cat/0.png", "photos/", "0.png", Size(10, 20), "cat/0.png"),
    )
    assert index.sizes.tolist() == [[10, 20], [11, 22], [12, 24]] * 2
    assert index.sizes.dtype == np.int32
    assert index.key_hash.tolist() == rng.key_hash(keys).tolist()
    assert index.num_bytes.tolist() == [os.path.getsize(folder / key) for key in keys]
    assert [rejection.key for rejection in index.rejections] == ["dog/3.png"]
    assert (index.starts.tolist(), index.num_shards, index.shards, index.faults) == ([0, 6], 1, (), [])
    assert [index.reader(header.location)[1] for header in index.headers(range(6))] == [0, 0, 0, 1, 1, 1]
    assert repr(index) == "Index(6 samples of photos/, 1 rejected)"
    assert isinstance(index, SourceIndex)
    assert index.class_names == ["cat", "dog"]


def test_byte_counts_are_those_of_usable_files(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"no image")
    paths = [picture(tmp_path / f"{i}.png", 5 * i, 40) for i in (1, 3)]
    (tmp_path / "2.png").write_bytes(b"no image")
    index = pp.Index.build(tmp_path, target=None)
    assert index.num_bytes.tolist() == [path.stat().st_size for path in paths]
    assert len(set(index.num_bytes.tolist())) == 2
    assert pp.Index.build(Items([(3, 4)])).num_bytes is None


def test_the_headers_of_an_index_are_those_of_a_scan(folder: Path) -> None:
    for source in (pp.open_source(folder), pp.open_source(folder, target=None), pp.open_source(Items([(3, 4)] * 9))):
        index = pp.Index.build(source)
        events = list(source.reading_twice().scan())
        assert list(index.headers(range(len(index)))) == [event for event in events if isinstance(event, Header)]


@pytest.mark.parametrize("num_workers", [1, 3])
def test_processes_build_the_same_index(num_workers: int, folder: Path) -> None:
    for source in (folder, Items([(3 + i % 7, 4 + i % 5) for i in range(99)])):
        one, other = pp.Index.build(source), pp.Index.build(source, num_workers=num_workers, context="fork")
        assert (one.fingerprint, one.rejections) == (other.fingerprint, other.rejections)
        assert one.headers(range(len(one))) == other.headers(range(len(other)))


def test_a_decoding_dataset_is_read_once_per_item() -> None:
    items = Items([(5, 6)] * 40)
    calls: list[tuple[int, int, int]] = []
    pp.Index.build(items, progress=lambda *numbers: calls.append(numbers))
    assert items.asked == [2] + [1] * 39  # the first also says what labels are like
    assert calls == [(16, 40, 16), (32, 40, 32), (40, 40, 40)]
    known = Items([(5, 6)] * 40)
    pp.Index.build(known, sizes=np.array(known.sizes))
    assert known.asked == [1] + [0] * 39


def test_fingerprints_tell_contents_apart(folder: Path) -> None:
    one = pp.Index.build(folder)
    others = [
        pp.Index.build(folder, target=None),
        pp.Index.build(folder, classes=["dog", "cat"]),
        pp.Index.build(folder, max_pixels=10**6),
        pp.Index.build([str(path) for path in sorted(folder.glob("cat/*.png"))], target=None),
    ]
    assert len({one.fingerprint, *(other.fingerprint for other in others)}) == 5
    moved = folder.parent / "elsewhere" / "photos"
    shutil.copytree(folder, moved)
    assert pp.Index.build(moved).fingerprint == one.fingerprint
    (moved / "cow").mkdir()  # a class between the others, so that dogs have another number
    with pytest.warns(UserWarning, match="1 of its 3 class folders have no image"):
        other = pp.Index.build(moved)
    assert other.key_hash.tolist() == one.key_hash.tolist()
    assert other.fingerprint != one.fingerprint


names = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=6).filter(lambda name: name not in (".", ".."))
plain = st.recursive(
    st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=5
)
locations = plain | st.binary(max_size=4) | st.builds(list, st.just("ab"))


@given(st.lists(st.tuples(st.text(max_size=8), names, locations), min_size=1, max_size=80, unique_by=lambda row: row[0]))
def test_any_header_comes_back(rows: list[tuple[str, str, Any]]) -> None:
    headers = [
        Header(key, f"box {i % 3}", member, Size(1 + i, 2 + i), location) for i, (key, member, location) in enumerate(rows)
    ]
    index = pp.Index.build(Listed(headers))
    assert isinstance(index, SourceIndex)
    assert list(index.headers(range(len(headers)))) == headers
    backwards = list(range(len(headers)))[::-1]
    assert list(index.headers(backwards)) == headers[::-1]
    assert all(is_plain(header.location) for header in headers) == (index.first_object() is None)


def test_an_index_of_nothing_usable(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    index = pp.Index.build(tmp_path, target=None)
    assert (len(index), len(index.rejections), index.sizes.shape) == (0, 1, (0, 2))
    index.save(tmp_path / "a.index")
    assert len(pp.Index.open(tmp_path / "a.index")) == 0


def test_an_index_is_pickled_with_its_source(folder: Path) -> None:
    index = pickle.loads(pickle.dumps(pp.Index.build(folder)))
    assert len(index) == 6
    assert index.reader(index.headers([3])[0].location)[1] == 1


# ----------------------------------------------------------------------------------------------------------------- file


def test_a_folder_is_opened_by_its_path_and_a_dataset_is_passed(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.index"
    for source, options in (
        (folder, {"classes": ["dog", "cat"]}),
        (str(folder), {"target": None}),
        ([str(file) for file in sorted(folder.glob("*/*.png"))], {}),
        (str(folder / "*" / "*.png"), {"image": ["png"]}),
    ):
        index = pp.Index.build(source, **options)  # type: ignore[arg-type]
        index.save(path)
        again = pp.Index.open(path)
        assert (again.fingerprint, again.target_kind) == (index.fingerprint, index.target_kind)
        assert again.headers(range(6)) == index.headers(range(6))
        assert [again.reader(h.location) for h in again.headers(range(6))] == [
            index.reader(h.location) for h in index.headers(range(6))
        ]
        assert again.rejections == index.rejections
    items = Items([(3, 4), (5, 6)])
    pp.Index.build(items).save(path)
    with pytest.raises(ConfigError, match="an index of Items of 2 items, which the file does not hold: pass it as"):
        pp.Index.open(path)
    assert len(pp.Index.open(path, source=items)) == 2


def test_equal_contents_give_equal_files(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        pp.Index.build(folder).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_folder_that_moved_is_passed(folder: Path, tmp_path: Path) -> None:
    pp.Index.build(folder, classes=["dog", "cat"]).save(tmp_path / "a.index")
    moved = folder.rename(tmp_path / "moved")
    with pytest.raises(SourceError, match="photos"):
        pp.Index.open(tmp_path / "a.index")
    index = pp.Index.open(tmp_path / "a.index", source=moved)
    assert index.class_names == ["dog", "cat"]
    assert index.reader(index.headers([0])[0].location)[1] == 1
    with pytest.raises(ConfigError, match="is an index of photos/, which is not shards: pass its new location as source="):
        pp.Index.open(tmp_path / "a.index", shards=moved)


def grown(folder: Path) -> None:
    picture(folder / "dog" / "9.png")


def shrunk(folder: Path) -> None:
    (folder / "cat" / "1.png").unlink()


def rewritten(folder: Path) -> None:
    picture(folder / "cat" / "2.png", 90, 80)


def rewritten_in_as_many_bytes(folder: Path) -> None:
    path = folder / "cat" / "2.png"
    length = path.stat().st_size
    picture(path, 24, 12)
    data = path.read_bytes()
    path.write_bytes(data + bytes(length - len(data)))
    os.utime(path, ns=(1, 1))


def lengthened_at_the_same_time(folder: Path) -> None:
    path = folder / "cat" / "2.png"
    status = path.stat()
    path.write_bytes(path.read_bytes() + b"x")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def mended(folder: Path) -> None:
    picture(folder / "dog" / "3.png")


def classed(folder: Path) -> None:
    (folder / "bird").mkdir()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (grown, r"has a new file, dog/9\.png"),
        (shrunk, r"has lost the file cat/1\.png"),
        (rewritten, r"has a changed file, cat/2\.png"),
        (rewritten_in_as_many_bytes, r"has a changed file, cat/2\.png"),
        (lengthened_at_the_same_time, r"has a changed file, cat/2\.png"),
        (mended, r"has a changed file, dog/3\.png"),
        (classed, "has class 0 named 'bird', but had 'cat'"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*class folders have no image")
def test_a_folder_that_changed_is_refused(change: Any, why: str, folder: Path, tmp_path: Path) -> None:
    pp.Index.build(folder).save(tmp_path / "a.index")
    pp.Index.open(tmp_path / "a.index")
    change(folder)
    with pytest.raises(StaleIndexError, match=why):
        pp.Index.open(tmp_path / "a.index")
    pp.Index.open(tmp_path / "a.index", verify=False)


def test_a_copy_with_other_times_is_the_same_folder(folder: Path, tmp_path: Path) -> None:
    pp.Index.build(folder).save(tmp_path / "a.index")
    for path in folder.rglob("*.png"):
        os.utime(path, ns=(7, 7))
    assert len(pp.Index.open(tmp_path / "a.index")) == 6


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (Items([(3, 4)] * 19), "has 19 items, but had 20"),
        (Items([(3, 4)] * 19 + [(3, 5)]), r"has other images: item 19 had \(3, 4\) pixels \(height, width\), and has \(3, 5\)"),
        (pp.open_source(Items([(3, 4)] * 20), target=None), "was opened with target=None, but had target="),
        (pp.open_source(Items([(3, 4)] * 20), map_target=abs), "was opened with map_target='abs', but had map_target=None"),
    ],
)
def test_a_dataset_that_changed_is_refused(other: Any, why: str, tmp_path: Path) -> None:
    items = Items([(3, 4)] * 20)
    pp.Index.build(items).save(tmp_path / "a.index")
    pp.Index.open(tmp_path / "a.index", source=items)
    with pytest.raises(StaleIndexError, match=why):
        pp.Index.open(tmp_path / "a.index", source=other)


def used(path: Path) -> None:
    """Open an index without comparing checksums, and read all of it."""
    index = pp.Index.open(path, verify=False)
    assert len(index.sizes) == 6
    index.headers(range(6))


def test_a_damaged_file_is_named(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.index"
    pp.Index.build(folder).save(path)
    head, columns = files.read(path)
    for name, value in (("size", 0), ("kind", 3), ("container", 9), ("part", 200), ("key.lengths", 99)):
        changed = {key: np.array(column) for key, column in columns.items()}
        changed[name].flat[2] = value
        files.write(path, {key: value for key, value in head.items() if key not in ("columns", "bytes")}, changed)
        with pytest.raises(IndexFileError, match="damaged"):
            used(path)
    data = path.read_bytes()
    path.write_bytes(data[:-9])
    with pytest.raises(IndexFileError, match="incomplete"):
        pp.Index.open(path)


def test_locations_that_a_file_cannot_hold_are_refused(tmp_path: Path) -> None:
    index = pp.Index.build(Listed([Header("a", "", "", Size(3, 4), b"bytes")]))
    with pytest.raises(ConfigError, match="the index of headers cannot be saved, because the location of sample a is a bytes"):
        index.save(tmp_path / "a.index")
    assert not (tmp_path / "a.index").exists()


# -------------------------------------------------------------------------------------------------------------- refused


class Clips(Items):
    def __getitem__(self, i: int) -> Any:
        return np.zeros((4, 9, 9, 3), dtype=np.uint8), i


class Pairs(Items):
    def __getitem__(self, i: int) -> Any:
        return [np.zeros((9, 9, 3), dtype=np.uint8)] * 2, i


def tokens(text: str) -> list[int]:
    return [1]


def test_what_an_index_cannot_hold_is_refused(folder: Path) -> None:
    items = Items([(3, 4)] * 3)
    for source, options, why in (
        (Pairs([(1, 1)]), {}, "sample 0 has 2 images, and an index has one image per sample"),
        (items, {"tokenize": tokens}, "an index holds no texts"),
        (pp.open_source(items, tokenize=tokens), {}, "an index holds no texts"),
        (items, {"frames": "*.jpg"}, r"an index has no clips, but frames='\*\.jpg' requests them"),
        (pp.open_source(items, frames="*.jpg"), {}, "frames="),
        (items, {"image": "*.jpg"}, "an index has one image per sample, but image="),
        (pp.Index.build(folder), {}, "photos/ is an index already"),
        (pp.open_source(pp.Index.build(folder)), {}, "photos/ is an index already"),
        (
            folder,
            {"update": pp.Index.build(folder)},
            "from an earlier index, and photos/ is not shards",
        ),
        (folder, {"classes": ["cat"], "imag": "png"}, "imag= is no option"),
        (folder, {"num_workers": -1}, "num_workers must be 0"),
    ):
        with pytest.raises(ConfigError, match=why):
            pp.Index.build(source, **options)  # type: ignore[arg-type]
    clips = pp.Index.build(Clips([(1, 1)] * 2))
    assert [r.reason for r in clips.rejections] == [
        "got a clip, but the recipe has video=None: use a recipe with video=Video(...)"
    ] * 2
    with pytest.raises(SourceError, match="cannot be indexed: it is read from its beginning"):
        pp.Index.build(iter([items[0]]))
    with pytest.raises(ConfigError, match="image= cannot be passed with an index"):
        pp.load(pp.Index.build(folder), RECIPE, image="png")
    with pytest.raises(ConfigError, match=r"packed shards need an index of shards, .* got photos/"):
        pp.PackedShards.write(pp.Index.build(folder), RECIPE, folder / "packed")


def test_a_source_that_cannot_be_sent_is_refused_by_spawned_processes() -> None:
    items = Items([(3, 4)] * 3)
    items.lock = lambda: None  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"Items of 3 items cannot be sent to processes .*: use num_workers=0"):
        pp.Index.build(items, num_workers=1, context="spawn")
