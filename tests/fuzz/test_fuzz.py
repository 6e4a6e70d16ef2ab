"""Every target on its seeds, on damage that hypothesis chooses, and, where atheris is installed, on what coverage leads to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.profiles import weight
from patchpack.stream.index.columns import MAGIC

from . import run as runner
from .archives import built, by_offset, image_of, is_image, own, scanned, tars
from .files import MEMORY, PREFIX
from .run import run
from .target import HungError, bounded, little_memory
from .targets import NAMES, find

RUNS = 300
ATHERIS = pytest.mark.skipif(
    find_spec("atheris") is None, reason="needs atheris: pip install 'patchpack[fuzz]' where it has a wheel"
)


@cache
def seeds_of(name: str) -> list[bytes]:
    return find(name).seeds()


@st.composite
def damaged(draw: st.DrawFn, name: str) -> bytes:
    """A seed with a few edits: bytes set, cut out, put in, or copied from elsewhere in it."""
    seeds = seeds_of(name)
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
    for seed in seeds_of(name):  # compiles and imports what there is
        check(seed)

    @weight(4)  # an example is a fraction of a millisecond
    @given(damaged(name))
    def each(data: bytes) -> None:
        check(data)

    with little_memory():
        each()


@pytest.mark.slow
@ATHERIS
@pytest.mark.parametrize("name", NAMES)
def test_damage_that_coverage_leads_to(name: str, tmp_path: Path) -> None:
    result = run(name, runs=RUNS, crashes=tmp_path)
    assert not result["broken"], result["output"]
    assert result["executions"] >= RUNS
    assert result["branches"] > 0


def folders_of(process: int) -> list[str]:
    """Return the folders that a process has made."""
    places = {tempfile.gettempdir(), MEMORY or tempfile.gettempdir()}
    return [str(path) for place in places for path in Path(place).glob(f"{PREFIX}{process}-*")]


@pytest.mark.slow
@ATHERIS
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at processes in /proc")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_run_that_is_interrupted_leaves_nothing(name: str, tmp_path: Path) -> None:
    """The child writes its first seed into a pipe: once it can be read, files have been written and the child goes on."""
    corpus = tmp_path / "corpus" / "index"
    corpus.mkdir(parents=True)
    os.mkfifo(corpus / "seed-0000")
    command = [runner.__file__, "--target", "index", "--corpus", corpus.parent, "--crashes", tmp_path, "--seconds", 60]
    with subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # a shell has processes in the background ignore SIGINT
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert (corpus / "seed-0000").read_bytes().startswith(b"\0" + MAGIC)
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(folders_of(process.pid)) == 2
        process.send_signal(getattr(signal, name))
        _, errors = process.communicate(timeout=60)
    assert process.returncode == {"SIGINT": -signal.SIGINT, "SIGTERM": 128 + signal.SIGTERM}[name], errors
    assert folders_of(process.pid) == folders_of(int(child)) == []
    assert not Path(f"/proc/{child}").exists()


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
