"""The bench of processors with stand-ins for the peers: what it reports, never how fast."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import patchpack as pp
from bench.images import adapters as bench
from patchpack.adapters import Siglip2Processor, TimmNaFlexProcessor


@pytest.mark.slow
def test_it_reports_times_and_differences(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    ours, other = Siglip2Processor(max_num_patches=20), Siglip2Processor(max_num_patches=20, resample="bicubic")

    def absent(pil: bool) -> None:
        raise ImportError("no such peer")

    monkeypatch.setattr(
        bench,
        "PEERS",
        {
            "same": (lambda pil: (ours, ours), True),
            "another kernel": (lambda pil: (other, ours), False),
            "other names": (lambda pil: (TimmNaFlexProcessor(max_seq_len=20), TimmNaFlexProcessor(max_seq_len=21)), True),
            "absent": (absent, True),
        },
    )
    out = tmp_path / "out.json"
    results = bench.main([*pp.samples.shards("train")[:1], "--images", "4", "--rounds", "2", "--json", str(out)])
    assert results["peers"].keys() == {"same", "another kernel", "other names"}
    assert results["peers"]["same"]["largest difference"] == 0
    assert results["peers"]["same"]["rest equal"]
    assert 0 < results["peers"]["another kernel"]["largest difference"] < 2
    assert not results["peers"]["other names"]["rest equal"]
    assert results["missing"] == {"absent": "ImportError: no such peer"}
    assert json.loads(out.read_text()) == results
    shown = capsys.readouterr().out
    assert "absent                     missing: ImportError" in shown
    assert "differs" in shown


def test_compare() -> None:
    a = {"x": torch.tensor([1.0, 2.0]), "n": torch.tensor([1, 2])}
    assert bench.compare(a, a) == {"largest difference": 0.0, "rest equal": True}
    assert bench.compare(a, {**a, "x": torch.tensor([1.0, 2.5])})["largest difference"] == 0.5
    assert not bench.compare(a, {**a, "n": torch.tensor([1, 3])})["rest equal"]
    assert not bench.compare(a, {**a, "n": torch.tensor([1, 2], dtype=torch.int32)})["rest equal"]
    assert not bench.compare(a, {"x": a["x"], "n": torch.tensor([1])})["rest equal"]
