"""``patchpack preview --features``: colours on the patches they belong to, and whose weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import patchpack as pp
from patchpack.cli import main
from patchpack.cli.features import feature_pictures, load_model
from patchpack.model import ViT, presets
from patchpack.model.presets import Size
from patchpack.model.weights import save_big_vision, to_timm

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


def test_colours_lie_on_their_patches() -> None:
    """A model whose features are the place of a patch: colours fall along rows and columns, and dropped patches stay grey."""

    class Place(ViT):
        def tokens(self, batch: pp.PackedBatch) -> torch.Tensor:
            return batch.position_ids.float() * torch.tensor([10.0, 1.0])

    image = np.zeros((64, 96, 3), dtype=np.uint8)
    recipe = pp.recipes.navit(resize=pp.resize.Native(24), seq_len=32, rows=1, drop=pp.drop.Constant(0.25))
    planner = pp.Planner([pp.Sample("a", image)], recipe)
    batch = pp.Painter(planner, recipe)[next(iter(planner))]
    images = list(pp.unpack(batch))
    colours = np.asarray(feature_pictures(batch, images, Place(width=8, depth=0, heads=1))["a"])
    assert colours.shape == (4, 6, 3)
    ids = images[0].position_ids
    first = colours[ids[:, 0], ids[:, 1], 0].astype(int)
    assert len(set(first)) > 6
    assert abs(np.corrcoef(first, ids[:, 0])[0, 1]) > 0.95
    kept = np.zeros((4, 6), dtype=bool)
    kept[ids[:, 0], ids[:, 1]] = True
    assert (colours[~kept] == 230).all()


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("kind", ["ours", "timm", "big_vision"])
def test_weights_are_read_in_every_form(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = presets.vit_ti16(num_classes=3)
    path = tmp_path / ("weights.npz" if kind == "big_vision" else "weights.pt")
    if kind == "big_vision":
        save_big_vision(model, path)
    else:
        torch.save(model.state_dict() if kind == "ours" else to_timm(model), path)
    loaded = load_model("vit_ti16", str(path)).state_dict()
    own = {name: value for name, value in model.state_dict().items() if not name.startswith("head")}
    assert own.keys() == loaded.keys()
    assert all(torch.equal(value, loaded[name]) for name, value in own.items())


@pytest.mark.usefixtures("tiny")
def test_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(pp.errors.ConfigError, match="--model='resnet50' is not one of flexivit_b, flexivit_l"):
        load_model("resnet50", None)
    with pytest.raises(pp.errors.ConfigError, match="--weights cannot be read, FileNotFoundError"):
        load_model("vit_ti16", str(tmp_path / "none.pt"))
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(pp.errors.ConfigError, match=r"--weights are not of this model"):
        load_model("vit_ti16", str(tmp_path / "other.pt"))
