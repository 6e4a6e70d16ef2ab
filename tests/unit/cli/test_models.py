"""Models and weights by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import patchpack as pp
from patchpack.cli.models import load_model
from patchpack.model import presets
from patchpack.model.presets import Size
from patchpack.model.weights import save_big_vision, to_timm


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a preset small."""
    preset = presets.vit_ti16
    monkeypatch.setattr(presets, "vit_ti16", type(preset)(preset.func, Size(16, 1, 32, 2), *preset.args[1:], **preset.keywords))


@pytest.mark.parametrize("kind", ["ours", "timm", "nested", "big_vision"])
def test_weights_are_read_in_every_form(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = presets.vit_ti16(num_classes=3)
    path = tmp_path / ("weights.npz" if kind == "big_vision" else "weights.pt")
    if kind == "big_vision":
        save_big_vision(model, path)
    else:
        state = model.state_dict() if kind == "ours" else to_timm(model)
        torch.save({"epoch": 1, "state_dict": state} if kind == "nested" else state, path)
    loaded = load_model("vit_ti16", str(path)).state_dict()
    own = {name: value for name, value in model.state_dict().items() if not name.startswith("head")}
    assert own.keys() == loaded.keys()
    assert all(torch.equal(value, loaded[name]) for name, value in own.items())


def test_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(pp.errors.ConfigError, match="--model='resnet50' is not one of flexivit_b, flexivit_l"):
        load_model("resnet50", None)
    with pytest.raises(pp.errors.ConfigError, match="--weights cannot be read, FileNotFoundError"):
        load_model("vit_ti16", str(tmp_path / "none.pt"))
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(pp.errors.ConfigError, match=r"--weights are not of this model"):
        load_model("vit_ti16", str(tmp_path / "other.pt"))
