"""The bench of throughput on the package's own samples, without peers: what it reports, never how fast."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import patchpack as pp
from bench.images import children, peers, rounds, scaling, throughput
from bench.pictures import Pictures, enlarged, pictures_of, read_pictures
from patchpack.image.decode import decode

IMAGES = 12


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return read_pictures(pp.samples.shards("train"), IMAGES)


def test_pictures_are_the_same_as_files_and_as_pixels(pictures) -> None:
    assert len(pictures) == IMAGES
    assert pictures.lost == 0
    for file, array, image in zip(pictures.files, pictures.arrays, pictures.pil, strict=True):
        assert (file.key, file.target) == (array.key, array.target)
        assert np.array_equal(decode(file.image), array.image)
        assert (image.height, image.width) == array.image.shape[:2]
    assert sum(pictures.describe()["formats"].values()) == IMAGES


def test_a_file_that_cannot_be_decoded_is_counted(pictures) -> None:
    broken = pp.Sample("broken", pictures.files[0].image[:100], 0)
    found = pictures_of([broken, *pictures.files[1:]])
    assert (len(found), found.lost) == (IMAGES - 1, 1)


@pytest.mark.slow
def test_rates_of_ours(pictures) -> None:
    result = throughput.rates(pictures, pp.samples.shards("train"), rounds=2, batch_size=8, peers=False)
    ours = [name for name in result["contenders"] if name.startswith("ours")]
    assert len(ours) == 2 * len(throughput.RECIPES) + 1
    assert result["contenders"][throughput.T]["over T"]["median"] == 1
    for name in ours:
        line = result["contenders"][name]
        assert line["ms"]["median"] > 0
        assert line["images lost"] == 0
        assert 0 < line["fill %"] <= 100
        assert (line["tokens per image"] > 200) == ("none dropped" in name)
    assert result["missing"] == {}
    assert {line["figure"] for line in result["targets"]} == {1}
    assert len(result["stages, us, uint8 half dropped"]) == 7
    json.dumps(result)


@pytest.mark.slow
def test_the_whole_command(tmp_path: Path, capsys) -> None:
    out = tmp_path / "throughput.json"
    shards = pp.samples.shards("val")
    throughput.main(
        [*shards, "--quick", "--images", "8", "--rounds", "1", "--no-peers", "--parts", "rates", "--json", str(out)]
    )
    written = json.loads(out.read_text())
    assert written["pictures"]["images"] == 8
    assert written["environment"]["threads"]["torch"] == 1
    printed = capsys.readouterr().out
    assert all(name in printed for name in written["rates"]["contenders"])


def test_who_cannot_run_is_named_and_left_out(pictures, monkeypatch) -> None:
    def absent(pictures: Any) -> Any:
        raise ImportError("no such peer")

    makers = {"Pillow + numpy": peers.MAKERS["Pillow + numpy"], "absent": absent}
    monkeypatch.setattr(peers, "MAKERS", makers)
    monkeypatch.setattr(peers, "make_torchvision_importable", lambda: None)
    from_bytes, decoded, missing = peers.find(pictures, 8)
    assert missing == {"absent": "ImportError: no such peer"}
    breaks = rounds.Contender("breaks", lambda: iter([1 // 0]))
    able, quality, failed = rounds.try_all([*from_bytes, *decoded, breaks], IMAGES)
    assert [contender.name for contender in able] == ["Pillow + numpy", "Pillow + numpy, from PIL"]
    assert failed == {"breaks": "ZeroDivisionError: integer division or modulo by zero"}
    assert quality["Pillow + numpy"]["images lost"] == 0


def test_contenders_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds.gc, "collect", lambda: 0)  # of all that the tests have loaded
    order: list[str] = []
    contenders = [rounds.Contender(name, lambda name=name: order.append(name) or []) for name in "abc"]
    times = rounds.take_turns(contenders, images=1, rounds=2)
    assert order == ["a", "b", "c", "b", "c", "a"]
    assert {name: len(values) for name, values in times.items()} == {"a": 2, "b": 2, "c": 2}


def test_ratios_and_differences_are_taken_inside_a_round() -> None:
    times = {"a": [4.0, 9.0], "b": [2.0, 3.0], "c": [1.0, 1.0]}
    assert rounds.ratios(times, "a", "b") == [2, 3]
    assert rounds.differences(times, "a", "b", "c") == [1, 5]
    assert rounds.spread([1.0, 2.0, 3.0, 4.0, 5.0]) == {"median": 3, "quartiles": [2, 4]}
    assert rounds.spread([1.0]) == {"median": 1, "quartiles": [1, 1]}


def test_large_files_have_twelve_megapixels(pictures) -> None:
    (sample,) = enlarged(pictures, 1)
    assert Image.open(io.BytesIO(sample.image)).size == (4000, 3000)


@pytest.mark.slow
def test_peak_memory_of_a_stream(pictures) -> None:
    result = children.peak_memory(pictures.files[:2], 5, "folder", {})
    assert result["images"] == 5
    assert result["peak MiB"] >= result["after a small stream MiB"] > 0


@pytest.mark.slow
def test_two_workers_are_measured_beside_two_processes(pictures) -> None:
    recipe = pp.recipes.siglip2_naflex(max_patches=16, rows_per_batch=1, seq_len=64)
    result = scaling.measure(pp.samples.shards("val"), pictures, {"small": recipe}, rounds=1, steps=4)
    assert result["bare decoding, 2 processes over 1"]["median"] > 0
    assert result["small, 2 worker processes"]["batches identical to one thread's"] is True
