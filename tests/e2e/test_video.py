"""Frames in a tar as clips: by offset and streamed, by workers, resumed, replayed, in packed shards; faults by name."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import patchpack as pp
from helpers import painted
from patchpack.paint.patchify import unpatchify_clip
from patchpack.stream.packed.steps import END, Place, read_step, write_step

CLIPS = pp.Recipe(
    resize=pp.resize.Native(16),
    patch_size=8,
    seq_len=64,
    max_images=6,
    rows_per_batch=1,
    video=pp.Video(2),
    drop=pp.drop.Constant(0.2),
)
PIXELS = np.random.default_rng(1).integers(0, 256, (12, 12, 16, 16, 3), dtype=np.uint8)


def png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def members(sample: int, frames: int) -> list[painted.Entry]:
    """Frame 10 comes after frame 9, wherever it is in the file; of one frame an image, of another name."""
    if frames == 1:
        found = [(f"s{sample:02d}.png", png(PIXELS[sample, 0]))]
    else:
        found = [(f"s{sample:02d}.{i}.png", png(PIXELS[sample, i])) for i in range(frames)]
    return [*found[1:], found[0], (f"s{sample:02d}.cls", b"%d" % sample)]


LENGTHS = (1, 8, 7, 12, 2, 1, 3, 5, 11, 1, 4, 6)
WHOLE = painted.members(entry for sample, frames in enumerate(LENGTHS) for entry in members(sample, frames)) + painted.END
OPTIONS: dict[str, Any] = {"frames": "*.png", "shuffle": 4}


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("clips") / "a.tar"
    path.write_bytes(WHOLE)
    Path(f"{path}.gz").write_bytes(gzip.compress(WHOLE))
    return str(path)


def digests(batches: Iterable[pp.PackedBatch]) -> list[str]:
    return [pp.digest(batch) for batch in batches]


def test_members_are_frames_in_the_order_of_their_numbers(shard: str) -> None:
    recipe = CLIPS.replace(drop=pp.drop.NoDrop())
    found = {image.key: image for batch in pp.load(shard, recipe, **OPTIONS) for image in pp.unpack(batch)}
    assert len(found) == len(LENGTHS)
    for sample, frames in enumerate(LENGTHS):
        image = found[f"a.tar/s{sample:02d}"]
        assert int(image.target) == sample
        shown = unpatchify_clip(image.patches.numpy(), image.times, image.grid, 8)
        assert np.array_equal(shown[:frames], PIXELS[sample, :frames])
        assert len(shown) == frames + frames % 2


def test_workers_streams_and_memory_make_the_same_batches(shard: str) -> None:
    here = list(pp.load(shard, CLIPS, epoch=1, **OPTIONS))
    assert max(int(batch.times.max()) for batch in here) == 6
    assert digests(pp.load(shard, CLIPS, epoch=1, num_workers=2, **OPTIONS)) == digests(here)
    streamed = {
        image.key: image for batch in pp.load(f"{shard}.gz", CLIPS, epoch=1, frames="*.png") for image in pp.unpack(batch)
    }
    for batch in here:
        pp.validate(batch)
        for image in pp.unpack(batch):
            again = pp.replay(shard, CLIPS, image.key, epoch=1, frames="*.png")
            assert pp.digest(again) == pp.digest(image)
            other = streamed[image.key.replace("a.tar", "a.tar.gz")]  # another key has other draws
            assert (other.times, other.grid) == (image.times, image.grid)


def test_an_epoch_of_clips_is_resumed(shard: str) -> None:
    whole = digests(pp.load(shard, CLIPS, **OPTIONS))
    loader = pp.load(shard, CLIPS, **OPTIONS)
    running = iter(loader)
    first = [pp.digest(next(running)) for _ in range(2)]
    state = loader.state_dict()
    later = pp.load(shard, CLIPS, **OPTIONS)
    later.load_state_dict(state)
    assert first + digests(later) == whole
    with pytest.raises(pp.errors.ConfigError, match=r"recipe\.video differs"):
        pp.load(shard, CLIPS.replace(video=pp.Video(2, 4)), **OPTIONS).load_state_dict(state)


def test_dicts_and_rows_have_frames_too() -> None:
    def wds(sample: int, frames: int) -> dict[str, Any]:
        return {"__key__": f"k{sample}", "cls": sample, **{f"{i}.png": png(PIXELS[sample, i]) for i in reversed(range(frames))}}

    def row(sample: int, frames: int) -> dict[str, Any]:
        return {"Frames": [{"bytes": png(PIXELS[sample, i]), "path": None} for i in range(frames)], "label": sample}

    sources = {"*.png": [wds(1, 8), {"__key__": "k2", "png": png(PIXELS[2, 0]), "cls": 2}], "frames": [row(1, 8), row(2, 1)]}
    for frames, items in sources.items():
        (batch,) = pp.Pack(CLIPS, frames=frames)(items)
        (loaded,) = pp.load(items, CLIPS, frames=frames)
        by_target = {int(image.target): image for image in pp.unpack(batch)}
        assert {target: image.times for target, image in by_target.items()} == {1: 4, 2: 1}
        assert loaded.times.tolist() == batch.times.tolist()
        array = pp.load([pp.Sample(by_target[1].key, PIXELS[1, :8], 1)], CLIPS)
        assert np.array_equal(by_target[1].patches, next(pp.unpack(next(iter(array)))).patches)


def test_a_step_of_clips_comes_back_from_a_packed_shard() -> None:
    planner = pp.Planner([pp.Sample(str(i), PIXELS[i, :4], i) for i in range(3)], CLIPS)
    plan = next(iter(planner))
    batch = pp.Painter(planner)[plan]
    import torch

    written = b"".join(bytes(part) for part in write_step(batch, Place("p", 0, 0), plan)) + END
    again = read_step(torch.frombuffer(bytearray(written), dtype=torch.uint8), Place("p", 0, 0))
    assert pp.digest(again) == pp.digest(batch)


FAULTS = {
    "broken.3.png": (png(PIXELS[0, 3])[:-40], "broken", "decode", "frame 3 of 6: "),
    "size.4.png": (png(PIXELS[0, 4, :8]), "size", "decode", "frame 4 of 6: expected 16 x 16"),
    "first.0.png": (b"no image", "first", "header", ""),
    "long.5.png": (bytes(4000), "long", "header", "got 4000"),
}


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_a_fault_in_a_frame_rejects_the_whole_clip_and_no_other(name: str, tmp_path: Path) -> None:
    entries = members(1, 8)
    for fault, (data, stem, _, _) in FAULTS.items():
        frames = [(f"{stem}.{i}.png", png(PIXELS[0, i])) for i in range(6)]
        entries += [(n, data if n == fault else whole) for n, whole in frames] + [(f"{stem}.cls", b"1")]
    whole = painted.members([*entries, *members(11, 6)]) + painted.END
    (tmp_path / name).write_bytes(gzip.compress(whole) if name.endswith("gz") else whole)
    loader = pp.load(str(tmp_path / name), CLIPS.replace(max_bytes=3000), frames="*.png", on_error="skip")
    packed = [image.key for batch in loader for image in pp.unpack(batch)]
    assert sorted(packed) == [f"{name}/s01", f"{name}/s11"]
    rejected = {r.key: r for r in loader.report().rejected}
    assert len(rejected) == len(FAULTS)
    for fault, (_, stem, stage, reason) in FAULTS.items():
        found = rejected[f"{name}/{stem}"]
        assert found.stage == stage
        assert reason in found.reason
        assert found.member == (fault if stage == "header" else "")


def test_where_frames_make_no_sense_they_are_refused(shard: str, tmp_path: Path) -> None:
    with pytest.raises(pp.errors.ConfigError, match="the recipe has video=None"):
        pp.load(shard, CLIPS.replace(video=None), frames="*.png")
    with pytest.raises(pp.errors.ConfigError, match="at least one extension"):
        pp.load(shard, CLIPS, frames=";")
    (tmp_path / "a.png").write_bytes(png(PIXELS[0, 0]))
    with pytest.raises(pp.errors.ConfigError, match="has one image per sample"):
        pp.load(str(tmp_path), CLIPS, frames="*.png", target=None)
    index = pp.Index.build([shard], image="png;0.png")
    with pytest.raises(pp.errors.ConfigError, match="frames= cannot be passed with an index"):
        pp.load(index, CLIPS, frames="*.png")
    assert all(int(batch.times.max()) == 1 for batch in pp.load(index, CLIPS))  # images alone
