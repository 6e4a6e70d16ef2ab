"""Every target on its seeds, on damage that hypothesis chooses, and, where atheris is installed, on what coverage leads to."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.profiles import weight

from .archives import built, by_offset, image_of, is_image, own, scanned, tars
from .run import run
from .target import HungError, bounded, little_memory
from .targets import NAMES, find

RUNS = 300


@st.composite
def damaged(draw: st.DrawFn, name: str) -> bytes:
    """A seed with a few edits: bytes set, cut out, put in, or copied from elsewhere in it."""
    seeds = find(name).seeds()
    data = bytearray(seeds[draw(st.integers(0, len(seeds) - 1))])
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        count = draw(st.sampled_from([1, 2, 4, 8, 512]))
        edit = draw(st.sampled_from(["set", "cut", "put", "copy", "end"]))
        if edit == "set":
            some = draw(st.binary(min_size=1, max_size=4))
            data[at : at + len(some)] = some
        elif edit == "cut":
            del data[at : at + count]
        elif edit == "put":
            data[at:at] = draw(st.binary(min_size=1, max_size=4))
        elif edit == "copy":
            source = draw(st.integers(0, len(data)))
            data[at : at + count] = data[source : source + count]
        else:
            del data[at:]
    return bytes(data)


@pytest.mark.parametrize("name", NAMES)
def test_damage_is_told_or_does_no_harm(name: str) -> None:
    target = find(name)
    check = bounded(target.check)
    seeds = target.seeds()
    for seed in seeds:  # compiles and imports what there is
        check(seed)

    @weight(4)  # an example is a fraction of a millisecond
    @given(damaged(name))
    def each(data: bytes) -> None:
        check(data)

    with little_memory():
        each()


@pytest.mark.skipif(find_spec("atheris") is None, reason="needs atheris: pip install 'patchpack[fuzz]' where it has a wheel")
@pytest.mark.parametrize("name", NAMES)
def test_damage_that_coverage_leads_to(name: str, tmp_path: Path) -> None:
    result = run(name, runs=RUNS, crashes=tmp_path)
    assert not result["broken"], result["output"]
    assert result["executions"] >= RUNS
    assert result["branches"] > 0


# ----------------------------------------------------------------------------------------- the targets see what they should


def test_what_does_not_end_is_ended() -> None:
    def check(data: bytes) -> None:
        while data:
            pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fuzz.target.SECONDS", 0.05)
        with pytest.raises(HungError):
            bounded(check)(b"1")
        bounded(check)(b"")


def test_memory_is_bounded() -> None:
    with little_memory(), pytest.raises(MemoryError):
        bytearray(1 << 32)
    bytearray(1 << 20)


def test_whole_archives_are_read_as_samples() -> None:
    assert is_image(image_of(own("a")))
    archive, stems = built(b"")
    members, fault = by_offset(archive)
    events = scanned(archive, members, False)
    assert not fault
    assert [event.key for event in events] == [f"s/{stem}" for stem in ("a", "b/a", "b")]
    assert stems == {"a", "b/a", "b"}
    assert all(not by_offset(archive[1:])[1] for archive in tars()[:3])
