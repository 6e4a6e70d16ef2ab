"""The bench of the index: what it reports, never how fast."""

from __future__ import annotations

import json

import pytest

from bench.reading import index


@pytest.mark.slow
def test_the_whole_command(capsys: pytest.CaptureFixture[str]) -> None:
    index.main(["--samples", "6", "--bytes", "9000", "--rounds", "2", "--lines", "12345"])
    found = json.loads(capsys.readouterr().out)
    assert {kind: found["scanning"][kind]["samples"] for kind in ("webdataset's", "ustar")} == {"webdataset's": 6, "ustar": 6}
    kept = found["keeping"]
    assert (kept["lines"], kept["shards"]) == (12345, 2)
    assert sum(kept["of which"].values()) == pytest.approx(kept["bytes per sample"], abs=0.3)
    assert 35 < kept["bytes per sample"] < 45
