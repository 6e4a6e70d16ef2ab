"""One image again, to the bit; and digests that are the same wherever something was painted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import patchpack as pp
from patchpack.batch.unpack import PackedImage
from patchpack.cli import main

SHARDS = pp.samples.shards("val")
RECIPES = {
    "navit": pp.recipes.navit(seq_len=256, rows_per_batch=2, seed=7),
    "siglip2": pp.recipes.siglip2_naflex(seq_len=512, rows_per_batch=2),
    "scheduled": pp.recipes.navit(seq_len=256, rows_per_batch=2, drop=pp.drop.Scheduled(midpoint=30, width=10)),
    "flexivit": pp.recipes.flexivit(size=48, patch_size=(8, 12, 16), rows_per_batch=8),
}


@pytest.mark.parametrize("name", RECIPES)
def test_replayed_is_what_training_saw(name: str) -> None:
    recipe = RECIPES[name]
    loader = pp.load(SHARDS, recipe, epoch=3, shuffle=50, num_workers=2)
    for batch in list(loader)[:2]:
        for image in list(pp.unpack(batch))[::3]:
            options: dict[str, Any] = {"epoch": 3, "step": batch.info.step}
            if name == "scheduled":
                options["ordinal"] = ordinal_of(image, recipe)
            again = pp.replay(SHARDS, recipe, image.key, **options)
            assert pp.digest(again) == pp.digest(image)


def test_an_image_that_a_packer_cut_is_replayed_by_its_tokens() -> None:
    recipe = pp.recipes.siglip2_naflex(max_patches=64, seq_len=150, rows_per_batch=2, packer=pp.packing.Lookahead(max_cut=0.5))
    cut = 0
    for batch in pp.load(SHARDS, recipe):
        for image in pp.unpack(batch):
            whole = pp.replay(SHARDS, recipe, image.key)
            if len(whole.patches) > len(image.patches):
                cut += 1
                again = pp.replay(SHARDS, recipe, image.key, num_tokens=len(image.patches))
                assert pp.digest(again) == pp.digest(image)
    assert cut > 0
    with pytest.raises(pp.errors.ConfigError, match=rf"num_tokens of {image.key}.*{len(whole.patches)}"):
        pp.replay(SHARDS, recipe, image.key, num_tokens=len(whole.patches) + 1)


def ordinal_of(image: PackedImage, recipe: pp.Recipe) -> int:
    """Which number of the run explains the tokens that are left: as many samples as the source has are tried."""
    for ordinal in range(200):
        if len(pp.replay(SHARDS, recipe, image.key, epoch=3, ordinal=ordinal).patches) == len(image.patches):
            return ordinal
    raise AssertionError(image.key)


def test_a_repeated_pass_is_replayed_by_its_number() -> None:
    recipe = RECIPES["navit"]
    for batch in pp.load(SHARDS[:1], recipe, steps_per_epoch=12):
        for image, repeat in zip(pp.unpack(batch), np.concatenate(batch.info.repeats or [[]]), strict=False):
            if repeat:
                assert pp.digest(pp.replay(SHARDS[:1], recipe, image.key, repeat=int(repeat))) == pp.digest(image)
                return
    raise AssertionError("no image came twice")


def test_a_digest_does_not_depend_on_how_it_was_painted() -> None:
    recipe = RECIPES["navit"]
    one, other = (list(pp.load(SHARDS, recipe, num_workers=workers)) for workers in (0, 2))
    assert [pp.digest(batch) for batch in one] == [pp.digest(batch) for batch in other]
    assert len({pp.digest(batch) for batch in one}) == len(one)
    arrays = one[0]._replace(**{n: v.numpy() for n, v in one[0]._asdict().items() if isinstance(v, torch.Tensor)})
    assert pp.digest(arrays) == pp.digest(one[0])


@pytest.mark.parametrize("field", [name for name in pp.PackedBatch._fields if name not in ("info", "times")])
def test_a_digest_sees_every_field(field: str) -> None:
    batch = next(iter(pp.load(SHARDS, RECIPES["navit"])))
    value = getattr(batch, field)
    if isinstance(value, torch.Tensor):
        changed: Any = value.clone()
        changed.view(-1)[0] = ~changed.view(-1)[0] if changed.dtype == torch.bool else changed.view(-1)[0] + 1
    else:
        changed = [["other"], *value[1:]] if field == "keys" else np.ones((1, 1)) if value is None else value + 1
    assert pp.digest(batch._replace(**{field: changed})) != pp.digest(batch)


def test_keys_that_are_not_there_and_images_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(pp.errors.SourceError, match=r"has no sample with the key 'nobody' among its \d+ samples"):
        pp.replay(SHARDS, RECIPES["navit"], "nobody")
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(pp.errors.DecodeError, match=r"a\.jpg"):
        pp.replay(str(tmp_path), RECIPES["navit"], "a.jpg", target=None)


def test_the_command_draws_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loader = pp.load(SHARDS, pp.recipes.navit(seed=7), epoch=2)
    image = next(pp.unpack(next(iter(loader))))
    command = ["replay", SHARDS[0], "--key", image.key, "--seed", "7", "--epoch", "2", "-o", str(tmp_path / "out.png")]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert pp.digest(image) in told
    assert f"{len(image.patches)} kept" in told
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.size == (image.grid.cols * 16, image.grid.rows * 16)
