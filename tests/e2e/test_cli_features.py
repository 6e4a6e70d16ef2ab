"""``patchpack preview --features``: a picture with colours, and a model that does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import patchpack as pp
from patchpack.cli import main
from patchpack.model import presets
from patchpack.model.presets import Size

SHARD = pp.samples.shards("val")[0]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset that is made in no time."""
    size = Size(16, 1, 32, 2)
    for name in ("flexivit_s", "vit_ti16"):
        preset = getattr(presets, name)
        monkeypatch.setattr(presets, name, type(preset)(preset.func, size, *preset.args[1:], **preset.keywords))


@pytest.mark.usefixtures("tiny")
def test_features_are_drawn_beneath(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = []
    for options in ([], ["--features"]):
        assert main(["preview", SHARD, "--rows", "1", "-o", str(tmp_path / "out.png"), *options]) == 0
        with Image.open(tmp_path / "out.png") as picture:
            sizes.append(picture.height)
    assert sizes[1] > sizes[0]
    assert main(["preview", SHARD, "--model", "vit_ti16", "--recipe", "qwen2_vl", "-o", str(tmp_path / "out.png")]) == 1
    assert "expected a batch of patch_size=16, the model's, got 14" in capsys.readouterr().err
