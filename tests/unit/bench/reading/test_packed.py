"""The bench of packs: what it reports, never how fast."""

from __future__ import annotations

import json

import pytest

import patchpack as pp
from bench.reading import packed


@pytest.mark.slow
def test_the_whole_command(capsys: pytest.CaptureFixture[str]) -> None:
    packed.main([*pp.samples.shards("val"), "--rounds", "1"])
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == 100
    for name in packed.RECIPES:
        assert {"painted, images/s", "read back, images/s"} < set(found[name])
    uint8 = found["siglip2_naflex()"]["on disk, kB per image"]["median"]
    assert 196 < uint8 < 220  # 256 patches of 768 bytes
