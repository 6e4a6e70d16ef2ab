"""Models of clips: begun from an image model, and trained on clips and images in one batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import patchpack as pp
from patchpack import model
from patchpack.model.embed import PatchEmbed, inflate_kernel

IMAGES = pp.Recipe(resize=pp.resize.Native(64), patch_size=8, seq_len=160, max_images=8, rows_per_batch=2)
CLIPS = IMAGES.replace(video=pp.Video(tubelet=2))
PIXELS = np.random.default_rng(3).integers(0, 256, (9, 24, 32, 3), dtype=np.uint8)
NAVIT: dict[str, Any] = {"patch_size": 8, "width": 32, "depth": 2, "heads": 2, "num_classes": 3}


def packed(recipe: pp.Recipe, samples: dict[str, Any]) -> pp.PackedBatch:
    (batch,) = pp.load([pp.Sample(key, image) for key, image in samples.items()], recipe, target=None)
    return batch


def by_key(batch: pp.PackedBatch, logits: torch.Tensor) -> dict[str, torch.Tensor]:
    return dict(pp.unpack(batch, logits))


@pytest.mark.parametrize("tubelet", [1, 2, 3])
def test_an_inflated_kernel_sees_the_central_frame_alone(tubelet: int) -> None:
    torch.manual_seed(0)
    image, clip = PatchEmbed(patch_size=4, width=5).double(), PatchEmbed(patch_size=4, width=5, tubelet=tubelet).double()
    with torch.no_grad():
        clip.linear.weight.copy_(inflate_kernel(image.linear.weight, tubelet))
    frames = torch.rand(7, tubelet, 48, dtype=torch.float64)
    norm = torch.tensor([[0.0] * 3, [1.0] * 3], dtype=torch.float64)
    torch.testing.assert_close(clip(frames.flatten(1), norm), image(frames[:, tubelet // 2], norm), atol=1e-12, rtol=0)
    assert int((inflate_kernel(torch.ones(2, 48), tubelet) != 0).sum()) == 2 * 48


def test_a_kernel_of_tubelets_is_resized_frame_by_frame() -> None:
    torch.manual_seed(0)
    image, clip = (PatchEmbed(patch_size=4, width=5, tubelet=t, flexible="pi") for t in (1, 2))
    with torch.no_grad():
        clip.linear.weight.copy_(inflate_kernel(image.linear.weight, 2))
    torch.testing.assert_close(clip.kernel(6), inflate_kernel(image.kernel(6), 2))


@pytest.mark.parametrize("kind", ["navit", "rope"])
@pytest.mark.parametrize("tubelet", [1, 2])
def test_of_images_the_video_model_says_what_the_image_model_said(kind: str, tubelet: int) -> None:
    torch.manual_seed(0)
    of_images = model.NaViT(**NAVIT, max_len=8) if kind == "navit" else model.ViT(**NAVIT, rope=100.0)
    of_clips = model.for_video(of_images, tubelet=tubelet, max_times=5)
    images = {"a": PIXELS[0], "b": PIXELS[1, :16]}
    first, second = packed(IMAGES, images), packed(CLIPS.replace(video=pp.Video(tubelet)), {**images, "clip": PIXELS[:5]})
    with torch.no_grad():
        said, again = by_key(first, of_images(first)), by_key(second, of_clips(second))
    for key in images:
        torch.testing.assert_close(again[key], said[key], atol=1e-6, rtol=0)
    assert type(of_clips) is type(of_images)
    assert of_images.embed.tubelet == 1  # a copy was changed


def test_before_training_a_step_of_time_is_its_central_frame() -> None:
    torch.manual_seed(0)
    of_images = model.NaViT(**{**NAVIT, "depth": 0}, max_len=8)  # nothing looks beyond a token but the pool
    of_clips = model.for_video(of_images, tubelet=2, max_times=2)
    clip, frames = packed(CLIPS, {"c": PIXELS[:4]}), packed(IMAGES, {"1": PIXELS[1], "3": PIXELS[3]})
    with torch.no_grad():
        ((_, steps),) = pp.unpack(clip, of_clips.tokens(clip), dense=True)
        of_frames = dict(pp.unpack(frames, of_images.tokens(frames), dense=True))
    torch.testing.assert_close(steps, torch.stack([of_frames["1"], of_frames["3"]]), atol=1e-6, rtol=0)


def test_clips_and_images_in_one_batch_train_a_model() -> None:
    """What tells a clip's class is the order of its frames: only a model that knows time learns it."""
    torch.manual_seed(0)
    one, other = (np.tile(PIXELS[i, :16, :16] // 2 + 127 * i, (2, 1, 1, 1)) for i in (0, 1))
    both = {"forth": (np.concatenate([one, other]), 0), "back": (np.concatenate([other, one]), 1)}
    images = {**both, "image": (one[0], 2)}
    samples = [pp.Sample(f"{name}{i}", image, target) for i in range(4) for name, (image, target) in images.items()]
    recipe = CLIPS.replace(resize=pp.resize.Native(4), seq_len=32, rows_per_batch=4)
    (batch,) = pp.load(samples, recipe)
    assert (batch.times[batch.slot_mask] == 1).sum() == 4
    assert (batch.times[batch.slot_mask] == 2).sum() == 8
    learner = model.for_video(model.NaViT(**{**NAVIT, "depth": 1}, max_len=8), tubelet=2, max_times=2)
    optimizer = torch.optim.Adam(learner.parameters(), lr=3e-3)
    losses = []
    for _ in range(70):
        loss = model.cross_entropy(learner(batch), batch.targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 1 > 0.3 > losses[-1]  # 2/3 ln 2 = 0.46 where forth and back are one
    assert model.accuracy(learner, [batch]) == 1
    assert learner.positions.table.abs().max() > 0


def test_what_a_model_cannot_take_is_refused() -> None:
    of_images = model.NaViT(**NAVIT, max_len=8)
    of_clips = model.for_video(of_images, tubelet=2, max_times=2)
    images, clips = packed(IMAGES, {"a": PIXELS[0]}), packed(CLIPS, {"a": PIXELS[:5]})
    with pytest.raises(pp.errors.ShapeError, match=r"max_times=2 .* a clip of 3 tubelets"):
        of_clips(clips)
    with pytest.raises(pp.errors.ShapeError, match=r"192 values, got 384.*for_video"):
        of_images(clips)
    with pytest.raises(pp.errors.ShapeError, match="384 values, got 192"):
        of_clips(images)
    single = packed(CLIPS.replace(video=pp.Video(1)), {"a": PIXELS[0]})
    with pytest.raises(pp.errors.ShapeError, match=r"\(time, row, col\)"):
        of_images(single)
    with pytest.raises(pp.errors.ShapeError, match="but the batch has patches"):
        model.for_video(of_images, tubelet=1, max_times=2)(images)
    with pytest.raises(pp.errors.ConfigError, match="already takes clips"):
        model.for_video(of_clips, tubelet=2, max_times=2)
    with pytest.raises(pp.errors.ConfigError, match="at least 1 frame"):
        model.for_video(of_images, tubelet=0, max_times=2)
    with pytest.raises(pp.errors.ConfigError, match="at least one entry"):
        model.for_video(of_images, tubelet=2, max_times=0)
