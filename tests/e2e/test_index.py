"""Indexing as it runs: in processes of both kinds, and from the command line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import patchpack as pp
from helpers.naive_index import check_against_scan
from patchpack.cli import main
from patchpack.stream.index import scan
from patchpack.stream.index.build import scan_all
from patchpack.stream.index.scan import ShardTask
from patchpack.stream.sample.parsing import parse_members

SHARDS = [*pp.samples.shards("train"), *pp.samples.shards("val")]
SLOW = pytest.mark.slow
PATTERN = SHARDS[0].replace("train-000000", "*")


@pytest.mark.parametrize(
    ("method", "num_workers"),
    [("fork", 2), pytest.param("fork", 1, marks=SLOW), ("spawn", 1), pytest.param("spawn", 2, marks=SLOW)],
)
def test_workers_make_the_same_file(method: str, num_workers: int, tmp_path: Path) -> None:
    pp.Index.build(SHARDS).save(tmp_path / "here.index")
    told: list[int] = []
    index = pp.Index.build(
        SHARDS, num_workers=num_workers, context=method, progress=lambda done, total, samples: told.append(samples)
    )
    index.save(tmp_path / "there.index")
    assert (tmp_path / "there.index").read_bytes() == (tmp_path / "here.index").read_bytes()
    assert told == [140, 280, 420, 520]
    check_against_scan(index, SHARDS)


def test_processes_end_when_one_stops_early() -> None:
    tasks = [ShardTask(url, Path(url).name, parse_members("jpg;png;webp", "cls")) for url in SHARDS]
    found = scan_all(tasks, num_workers=2, context="fork")
    assert len(next(found).columns["kind"]) == 140
    found.close()
    with pytest.raises(StopIteration):
        next(found)


def die(*_: object) -> Iterator[object]:
    os._exit(9)


def test_a_process_that_dies_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "scan_shard", die)
    with pytest.raises(pp.errors.SourceError, match="a process that scans shards died"):
        pp.Index.build(SHARDS, num_workers=2, context="fork")


def test_the_command_line_writes_what_build_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "train.index"
    assert main(["index", PATTERN, "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    for line in (
        "520 samples in 4 shards, labels: cls",
        "formats: WEBP 190, PNG 180, JPEG 150",
        "0 samples cannot be used",
        f"wrote {out}: {out.stat().st_size:,} bytes, {out.stat().st_size / 520:.1f} per sample",
        f"next: loader = pp.load(pp.Index.open({str(out)!r}), recipe, shuffle=True)",
    ):
        assert line in printed.splitlines()
    assert re.search(r"^\d+\.\d s, [\d,]+ samples/s$", printed, re.MULTILINE)
    assert re.search(r"^ height +24 +\d+ +\d+ +\d+ +900 *$", printed, re.MULTILINE)
    pp.Index.build(PATTERN).save(tmp_path / "built.index")
    assert out.read_bytes() == (tmp_path / "built.index").read_bytes()


def test_the_command_line_in_a_process_of_its_own(tmp_path: Path) -> None:
    for shard in SHARDS[:2]:
        shutil.copy(shard, tmp_path)
    code = "import sys; from patchpack.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = [
        "index",
        "shapes-train-000000.tar",
        "shapes-train-000001.tar",
        "--no-target",
        "-o",
        "a.index",
        "--num-workers",
        "2",
    ]
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "280 samples in 2 shards, labels: none" in done.stdout
    index = pp.Index.open(tmp_path / "a.index", shards=str(tmp_path / "*.tar"))
    check_against_scan(index, str(tmp_path / "*.tar"), target=None)


def test_an_update_takes_the_members_of_the_index_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for shard in SHARDS[:3]:
        shutil.copy(shard, tmp_path)
    out, shards = str(tmp_path / "a.index"), str(tmp_path / "*.tar")
    assert main(["index", shards, "--image", "png", "--target", "cls,png", "-o", out]) == 0
    before = pp.Index.open(out)
    assert before.members.labels == ("cls", "png")
    first, second = sorted(tmp_path.glob("*.tar"))[:2]
    shutil.copy(second, first)
    capsys.readouterr()
    assert main(["index", shards, "--update", out, "-o", out]) == 0
    assert "2 of 3 shards as in the earlier index, not read again" in capsys.readouterr().out.splitlines()
    check_against_scan(pp.Index.open(out), shards, image="png", target=("cls", "png"))
    assert len(before.headers(np.arange(len(before)))) == len(before)  # the file it maps is still the old one
    assert main(["index", shards, "--update", out, "-o", out, "--no-target"]) == 1
    assert "target differs: the index to update was made for" in capsys.readouterr().err


def test_losses_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = Path(SHARDS[0]).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 2])
    assert main(["index", str(tmp_path / "cut.tar"), "-o", str(tmp_path / "a.index")]) == 0
    printed = capsys.readouterr().out
    assert "shard cut.tar: ends inside" in printed
    assert len(pp.Index.open(tmp_path / "a.index").faults) == 1


def test_the_command_line_indexes_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, color in (("cat/0.png", 3), ("dog/0.png", 4), ("dog/1.png", 5)):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (color, 9)).save(tmp_path / "photos" / name)
    out = tmp_path / "photos.index"
    assert main(["index", str(tmp_path / "photos"), "-o", str(out)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "3 samples in photos/, labels: 2 class folders" in printed
    assert f"wrote {out}: {out.stat().st_size:,} bytes, {out.stat().st_size / 3:.1f} per sample" in printed
    index = pp.Index.open(out)
    assert [index.reader(header.location)[1] for header in index.headers(range(3))] == [0, 1, 1]
    (tmp_path / "flat").mkdir()
    Image.new("RGB", (3, 3)).save(tmp_path / "flat" / "a.png")
    assert main(["index", str(tmp_path / "flat"), "-o", str(out)]) == 0
    assert "1 sample in flat/, labels: none" in capsys.readouterr().out.splitlines()
    assert pp.Index.open(out).target_kind is None
    assert main(["index", str(tmp_path / "flat"), "-o", str(out), "--update", str(out)]) == 1
    assert "update= takes unchanged shards from an earlier index" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/no.tar", "-o", "{tmp}/a.index"], "SourceError: 1 of 1 shards are missing"),
        ([PATTERN, "-o", "{tmp}/no/a.index"], "ConfigError: cannot write"),
        ([PATTERN, "-o", SHARDS[0]], "exists and is not an index of patchpack: nothing was overwritten"),
        (
            [PATTERN, "-o", "{tmp}/a.index", "--num-workers", "-1"],
            "num_workers must be 0 (run in this process) or the number of workers",
        ),
        ([PATTERN, "-o", "{tmp}/a.index", "--update", "{tmp}/no.index"], "IndexFileError: {tmp}/no.index cannot be read"),
        ([PATTERN, "-o", "{tmp}/a.index", "--image", "gif"], "none that can be used: nothing was written"),
        (["{tmp}", "-o", "{tmp}/a.index", "--no-target"], "no file with extension"),
    ],
)
def test_what_cannot_be_is_said(arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", *(argument.format(tmp=tmp_path) for argument in arguments)]) == 1
    assert message.format(tmp=tmp_path) in capsys.readouterr().err
    assert not (tmp_path / "a.index").exists()
