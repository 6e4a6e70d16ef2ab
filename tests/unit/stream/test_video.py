"""Clips as tubelets: which frames, which ids, which pixels; and that a clip of one frame is an image, to the bit."""

from __future__ import annotations

import io
import pickle
from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import patchpack as pp
from helpers.naive_paint import paint_clip_alone
from patchpack import testing
from patchpack.batch.unpack import PackedImage
from patchpack.cli.pictures.rows import draw_rows, picture_of
from patchpack.paint.patchify import unpatchify_clip
from patchpack.plan.table import plan_table
from patchpack.stream.workers.slot_pool import slot_bytes_of
from patchpack.types import Grid, Size

PIXELS = np.random.default_rng(1).integers(0, 256, (9, 24, 32, 3), dtype=np.uint8)
IMAGES = pp.Recipe(resize=pp.resize.Native(64), patch_size=8, seq_len=160, max_images=8, rows_per_batch=1)
CLIPS = IMAGES.replace(video=pp.Video(tubelet=2))


def png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def packed(recipe: pp.Recipe, *images: Any, **options: Any) -> pp.PackedBatch:
    samples = [pp.Sample(str(i), image) for i, image in enumerate(images)]
    (batch,) = pp.load(samples, recipe, target=None, **options)
    pp.validate(batch)
    return batch


def unpacked(recipe: pp.Recipe, *images: Any) -> list[PackedImage]:
    found = sorted(pp.unpack(packed(recipe, *images)), key=lambda image: (int(image.key), image.part))
    return [image._replace(patches=image.patches.numpy(), position_ids=image.position_ids.numpy()) for image in found]


# ------------------------------------------------------------------------------------------------------------- frames


@pytest.mark.parametrize(
    ("frames", "tubelet", "num_frames", "expected"),
    [
        (8, 2, None, [0, 1, 2, 3, 4, 5, 6, 7]),
        (7, 2, None, [0, 1, 2, 3, 4, 5, 6, 6]),
        (1, 2, None, [0, 0]),
        (1, 1, None, [0]),
        (4, 3, None, [0, 1, 2, 3, 3, 3]),
        (10, 2, 4, [1, 3, 6, 8]),
        (10, 2, 3, [1, 5, 8, 8]),
        (9, 1, 1, [4]),
        (3, 2, 8, [0, 1, 2, 2]),
    ],
)
def test_which_frames_are_taken(frames: int, tubelet: int, num_frames: int | None, expected: list[int]) -> None:
    video = pp.Video(tubelet, num_frames)
    assert video.frame_numbers(frames).tolist() == expected
    assert video.times([frames]).tolist() == [len(expected) // tubelet]


@pytest.mark.parametrize("options", [{"tubelet": 0}, {"tubelet": 1.0}, {"num_frames": 0}, {"num_frames": True}])
def test_a_video_of_no_frames_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(pp.errors.ConfigError, match=f"{next(iter(options))} must be an integer"):
        pp.Video(**options)


# ---------------------------------------------------------------------------------------------------------------- plan


def test_the_bound_counts_all_steps_of_time() -> None:
    IMAGES.replace(seq_len=256, video=pp.Video(2, num_frames=8))
    with pytest.raises(pp.errors.ConfigError, match=r"seq_len=256 .* up to 320 patches of Video\(tubelet=2, num_frames=9\)"):
        IMAGES.replace(seq_len=256, video=pp.Video(2, num_frames=9))
    alone = IMAGES.replace(seq_len=None, max_images=1, video=pp.Video(2, num_frames=8))
    assert alone.row_len(8) == 256
    with pytest.raises(pp.errors.ConfigError, match="set num_frames in"):
        alone.replace(video=pp.Video(2))
    for wrong, match in (
        ({"video": 2}, "Video"),
        ({"normalize": pp.normalize.PerImage(), "dtype": "float32"}, "each frame of a clip by itself"),
    ):
        with pytest.raises(pp.errors.ConfigError, match=match):
            CLIPS.replace(**wrong)


def test_a_clip_is_planned_from_its_size() -> None:
    assert pp.plan_image((24, 32), CLIPS, frames=7) == (Grid(3, 4), Size(24, 32), 48, 48, 4)
    assert pp.plan_image((24, 32), CLIPS) == pp.plan_image((24, 32), IMAGES)
    assert pp.plan_image((24, 32), CLIPS.replace(drop=pp.drop.Constant(0.5)), frames=7).num_tokens == 24
    with pytest.raises(pp.errors.SizeError, match=r"a clip of 90 frames of 24 x 32 .* 540 tokens.*num_frames"):
        pp.plan_image((24, 32), CLIPS, frames=90)
    with pytest.raises(pp.errors.ConfigError, match="video=None"):
        pp.plan_image((24, 32), IMAGES, frames=2)
    qwen = pp.recipes.qwen2_vl().replace(video=pp.Video(2), seq_len=1 << 15)
    assert pp.plan_image((224, 224), qwen, frames=8)[2:] == (4 * 256, 4 * 64, 4)


def test_a_table_counts_tubelets() -> None:
    table = plan_table(CLIPS, [(24, 32)] * 3, pp.rng.key_hash("abc"), frames=[1, 8, 3])
    assert table.times.tolist() == [1, 4, 2]
    assert table.num_tokens.tolist() == [12, 48, 24]
    assert table.take([2, 0]).times.tolist() == [2, 1]
    assert plan_table(CLIPS, [(24, 32)], pp.rng.key_hash("a")).times.tolist() == [1]


# --------------------------------------------------------------------------------------------------------------- paint


def test_eight_frames_are_four_steps_of_time() -> None:
    batch = packed(CLIPS, PIXELS[:8])
    (clip,) = pp.unpack(batch)
    assert (clip.times, clip.grid, clip.source_size) == (4, (3, 4), (24, 32))
    assert batch.times.tolist() == [[4, 0, 0, 0, 0, 0, 0, 0]]
    assert batch.times.dtype == batch.position_ids.dtype == torch.int32
    assert clip.position_ids.tolist() == [[t, r, c] for t in range(4) for r in range(3) for c in range(4)]
    frames = unpatchify_clip(clip.patches.numpy(), clip.times, clip.grid, 8)
    assert np.array_equal(frames, PIXELS[:8])
    ((_, dense),) = pp.unpack(batch, batch.position_ids, dense=True)
    assert dense[2, 1, 3].tolist() == [2, 1, 3]
    with pytest.raises(pp.errors.ShapeError, match="48, t"):
        unpatchify_clip(clip.patches.numpy()[1:], clip.times, clip.grid, 8)


def test_the_last_frame_fills_the_last_tubelet() -> None:
    (clip,) = unpacked(CLIPS, PIXELS[:7])
    assert np.array_equal(unpatchify_clip(clip.patches, 4, (3, 4), 8), PIXELS[[0, 1, 2, 3, 4, 5, 6, 6]])


EVERY = {
    "plain": CLIPS,
    "float": CLIPS.replace(dtype="float32"),
    "through Pillow": CLIPS.replace(resample="lanczos", resize=pp.resize.Native(8)),
    "resized, dropped": CLIPS.replace(
        resize=pp.resize.Native(8), drop=pp.drop.Constant(0.5), flip_prob=0.5, crop=pp.crop.RandomCrop((20, 20))
    ),
    "augmented": CLIPS.replace(augment=lambda pixels, generator: pixels ^ generator.integers(0, 256, dtype=np.uint8)),
}


@pytest.mark.parametrize("name", EVERY)
def test_one_frame_is_an_image_to_the_bit(name: str) -> None:
    def same(recipe: pp.Recipe, *others: Any) -> pp.PackedBatch:
        first, *rest = (packed(recipe, image, PIXELS[3]) for image in others)
        assert {pp.digest(batch) for batch in rest} == {pp.digest(first)}
        return first

    same(EVERY[name], PIXELS[0], PIXELS[:1], pp.Clip([PIXELS[0]]), pp.Clip([png(PIXELS[0])]), png(PIXELS[0]))
    single = packed(EVERY[name].replace(video=pp.Video(1)), PIXELS[:1], PIXELS[3])
    alone = packed(EVERY[name].replace(video=None), PIXELS[0], PIXELS[3])
    assert torch.equal(single.patches, alone.patches)
    assert torch.equal(single.position_ids[..., 1:], alone.position_ids)
    assert not single.position_ids[..., 0].any()
    changed = {"patches": None, "position_ids": None, "times": None}
    assert pp.digest(single._replace(**changed)) == pp.digest(alone._replace(**changed))


@st.composite
def clips(draw: st.DrawFn) -> Any:
    frames, height, width = (draw(st.integers(1, most)) for most in (7, 20, 20))
    return np.random.default_rng(draw(st.integers(0, 9))).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


@given(
    testing.recipes(),
    st.builds(pp.Video, st.integers(1, 3), st.none() | st.integers(1, 5)),
    st.lists(clips(), min_size=1, max_size=3),
    st.sampled_from([0.0, 0.5]),
    st.booleans(),
)
def test_clips_are_what_they_are_alone(
    recipe: pp.Recipe, video: pp.Video, several: list[Any], flip: float, through_pillow: bool
) -> None:
    recipe = recipe.replace(
        video=video,
        seq_len=1 << 13,
        rows_per_batch=1,
        max_images=max(3, recipe.max_images),
        normalize=pp.normalize.HALF,
        dtype="uint8",
        flip_prob=flip,
        resample="lanczos" if through_pillow else recipe.resample,
    )
    loader = pp.load([pp.Sample(str(i), clip) for i, clip in enumerate(several)], recipe, target=None, on_error="skip")
    found = {}
    try:
        for batch in loader:
            pp.validate(batch)
            found |= {image.key: image for image in pp.unpack(batch)}
    except pp.errors.SourceError:
        assert not loader.report().packed  # the rule takes none of these sizes
    for key, image in found.items():
        alone = paint_clip_alone(key, several[int(key)], recipe, ordinal=int(key))
        assert (image.times, *image.grid) == alone.grid
        assert np.array_equal(image.patches, alone.patches)
        assert image.position_ids.numpy().dtype == alone.position_ids.dtype
        assert np.array_equal(image.position_ids, alone.position_ids)


def test_fractions_stand_beside_the_number_of_the_step() -> None:
    (clip,) = unpacked(CLIPS.replace(positions=pp.positions.Fractional()), PIXELS[:4])
    assert clip.position_ids.dtype == np.float32
    assert clip.position_ids[[0, 12, 17]].tolist() == [[0, 0, 0], [1, 0, 0], [1, np.float32(1 / 3), 0.25]]
    raster = unpacked(CLIPS.replace(positions=pp.positions.Raster()), PIXELS[:4])[0]
    assert raster.position_ids[[0, 12, 17]].tolist() == [[0, 0], [1, 0], [1, 5]]


def test_ids_in_the_whole_image_are_those_of_the_crop() -> None:
    recipe = CLIPS.replace(crop=pp.crop.RandomCrop((16, 16)), positions=pp.positions.Absolute(of="image"))
    (image,), (clip,) = unpacked(recipe, PIXELS[0]), unpacked(recipe, PIXELS[:4])
    assert image.grid == clip.grid == (2, 2)
    assert np.array_equal(clip.position_ids[4:, 1:], image.position_ids[:, 1:])
    assert clip.position_ids[:, 0].tolist() == [0] * 4 + [1] * 4


def test_all_frames_get_one_draw() -> None:
    still = np.repeat(PIXELS[:1], 4, axis=0)
    recipe = EVERY["augmented"].replace(crop=pp.crop.RandomCrop((16, 16)), flip_prob=0.5, seed=4)
    (clip,) = unpacked(recipe, still)
    frames = unpatchify_clip(clip.patches, clip.times, clip.grid, 8)
    assert (frames == frames[0]).all()
    assert not np.array_equal(frames[0], unpacked(recipe.replace(augment=None), still)[0].patches[0])


def test_frames_are_decoded_once_and_only_where_they_are_kept() -> None:
    class Counted:
        asked: list[int] = []  # noqa: RUF012 of all

        def __len__(self) -> int:
            return 60

        def __getitem__(self, number: int) -> Any:
            self.asked.append(number)
            return PIXELS[number % 9]

    packed(CLIPS.replace(video=pp.Video(2, num_frames=5), seq_len=192), pp.Clip(Counted()))
    assert Counted.asked == [0, 6, 18, 30, 42, 54]  # first the size
    Counted.asked.clear()
    few = CLIPS.replace(drop=pp.drop.Constant(0.99), seq_len=64)  # 4 of 30 * 12 tubelets
    batch = packed(few, pp.Clip(Counted()))
    steps = sorted({int(time) for time, *_ in next(pp.unpack(batch)).position_ids.tolist()})
    assert Counted.asked == [0, *(2 * step + i for step in steps for i in (0, 1))]
    assert len(steps) < 30


def test_dropped_tubelets_are_where_their_ids_say() -> None:
    batch = packed(CLIPS.replace(drop=pp.drop.Constant(0.6)), PIXELS[:6], PIXELS[7])
    whole = {image.key: image for image in unpacked(CLIPS, PIXELS[:6], PIXELS[7])}
    for image in pp.unpack(batch):
        for patch, (time, row, col) in zip(image.patches.numpy(), image.position_ids.tolist(), strict=True):
            assert np.array_equal(patch, whole[image.key].patches[12 * time + 4 * row + col])
    for key, dense in pp.unpack(batch, batch.position_ids.float(), dense=True):
        assert dense.shape == ((3, 3, 4, 3) if key == "0" else (1, 3, 4, 3))
        there = dense[~dense.isnan().any(-1)].long()
        assert len(there) == (14 if key == "0" else 5)
        assert (dense[tuple(there.T)] == there).all()


def test_a_list_may_mix_clips_and_images() -> None:
    batch = packed(CLIPS, [PIXELS[0], PIXELS[:4], pp.Clip([Image.fromarray(f) for f in PIXELS[:3]])], PIXELS[5:])
    assert batch.times[0, :4].sort().values.tolist() == [1, 2, 2, 2]
    own = batch.sample_ids[0].tolist()
    assert sorted(own) == [0, 0, 0, 0, 1, 1, 1, 2] or sorted(own) == [0, 0, 0, 0, 1, 2, 2, 2]
    parts = {image.part: image for image in pp.unpack(batch) if image.key == "0"}
    assert [parts[i].times for i in range(3)] == [1, 2, 2]
    assert torch.equal(parts[1].patches[:24, :192], parts[2].patches[:24, :192])


def test_a_tensor_of_frames_is_a_clip_for_inference() -> None:
    tensor = torch.from_numpy(PIXELS[:4]).permute(0, 3, 1, 2)  # as torchcodec gives them
    (batch,) = pp.pack_images({"a": tensor, "b": PIXELS[:4]}, CLIPS)
    one, other = pp.unpack(batch)
    assert torch.equal(one.patches, other.patches)
    assert one.times == 2


# -------------------------------------------------------------------------------------------------------------- faults


def refusals(recipe: pp.Recipe, *images: Any) -> list[tuple[str, str]]:
    samples = [pp.Sample("good", PIXELS[0]), *(pp.Sample(str(i), image) for i, image in enumerate(images))]
    loader = pp.load(samples, recipe, target=None, on_error="skip")
    for batch in loader:
        pp.validate(batch)
    report = loader.report()
    assert report.packed == 1
    return [(r.stage, r.reason) for r in sorted(report.rejected, key=lambda r: r.key)]


def test_without_video_a_clip_is_refused() -> None:
    why = ("header", "got a clip, but the recipe has video=None: use a recipe with video=Video(...)")
    assert refusals(IMAGES, PIXELS[:4], pp.Clip([PIXELS[0]]), [PIXELS[0], PIXELS[:2]]) == [why] * 3


def test_a_fault_in_one_frame_names_it_and_takes_the_sample() -> None:
    broken = png(PIXELS[2])[:-40]
    frames = [png(frame) for frame in PIXELS[:5]]
    found = refusals(
        CLIPS,
        pp.Clip([*frames[:2], broken, *frames[3:]]),
        pp.Clip([*PIXELS[:3], PIXELS[3, :16]]),
        [PIXELS[0], pp.Clip([*PIXELS[:3], b"no image"])],
        pp.Clip([PIXELS[0], PIXELS[:2]]),
        pp.Clip([]),
        PIXELS[:0],
        PIXELS[:4].astype(np.int64),
        pp.Clip([b"no image", *frames]),
        np.zeros((40, 24, 32, 3), dtype=np.uint8),
    )
    expected = [
        ("decode", "frame 2 of 5: ", ""),
        ("decode", "frame 3 of 4: ", "16 x 32"),
        ("decode", "frame 3 of 4: ", ""),
        ("decode", "frame 1 of 2: ", "as each frame"),
        ("header", "a clip must have at least one frame, got 0: leave the sample out", ""),
        ("header", "a clip must have at least one frame, got 0: leave the sample out", ""),
        ("header", "expected an array of uint8", "int64"),
        ("header", "", "image"),
        ("plan", "a clip of 40 frames", "240 tokens"),
    ]
    for (stage, reason), (at, begin, some) in zip(found, expected, strict=True):
        assert stage == at
        assert reason.startswith(begin)
        assert some in reason


def test_whatever_a_sequence_of_frames_raises_is_its_own_fault() -> None:
    class Worn:
        def __len__(self) -> int:
            return 4

        def __getitem__(self, number: int) -> Any:
            if number == 3:
                raise RuntimeError("the tape is worn")
            return PIXELS[number]

    assert refusals(CLIPS, pp.Clip(Worn())) == [("decode", "frame 3 of 4: RuntimeError: the tape is worn")]


class Missing:
    def __init__(self, at: int) -> None:
        self._at = at

    def __len__(self) -> int:
        if self._at < 0:
            raise FileNotFoundError("clip.mp4")
        return 4

    def __getitem__(self, number: int) -> Any:
        if number >= self._at:
            raise FileNotFoundError("clip.mp4")
        return PIXELS[number]


def test_a_file_that_is_not_there_is_no_end_of_the_epoch() -> None:
    found = refusals(CLIPS, *(pp.Clip(Missing(at)) for at in (-1, 0, 2)), pp.Clip([PIXELS[0], None]))
    assert [stage for stage, _ in found] == ["read", "read", "read", "decode"]
    assert found[2][1] == "frame 2 of 4: FileNotFoundError: clip.mp4"
    assert found[3][1].endswith("got NoneType")


def test_sizes_that_are_known_know_nothing_of_frames() -> None:
    samples = [pp.Sample("0", PIXELS[0]), pp.Sample("1", PIXELS[:4])]
    loader = pp.load(samples, CLIPS, target=None, sizes=[(24, 32)] * 2, on_error="skip")
    list(loader)
    (rejection,) = loader.report().rejected
    assert rejection.reason.startswith("item 1 is a clip, and sizes= and size_of= give the size of one image")


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("times", lambda t: t.long(), "times must be int32"),
        ("times", lambda t: t[:, :2], "times must be"),
        ("times", lambda t: t * 0 + 1, "must be in order of time|got 48"),
        ("times", lambda t: t + 1, "its times must be 0"),
        ("position_ids", lambda ids: ids.flip(1), "zero at padding|order of time"),
        ("patches", lambda p: p[..., 1:], "patches must be"),
    ],
)
def test_validate_sees_a_wrong_time(field: str, value: Any, match: str) -> None:
    batch = packed(CLIPS, PIXELS[:8])
    with pytest.raises(pp.errors.ShapeError, match=match):
        pp.validate(batch._replace(**{field: value(getattr(batch, field))}))
    assert pp.digest(batch) != pp.digest(batch._replace(times=batch.times + 1))


# -------------------------------------------------------------------------------------------------------------- beside


def test_a_slot_of_a_ring_holds_a_batch_of_clips() -> None:
    recipe = CLIPS.replace(rows_per_batch=3, max_images=8)
    batch = packed(recipe.replace(rows_per_batch=1), PIXELS[:8])
    arrays = [value for value in batch if isinstance(value, torch.Tensor)]
    assert slot_bytes_of(recipe) >= 3 * sum(a.nbytes for a in arrays)
    assert slot_bytes_of(CLIPS) > slot_bytes_of(IMAGES.replace(max_images=8))


def test_a_clip_is_drawn_as_its_middle_frame() -> None:
    (clip,) = unpacked(CLIPS, PIXELS[:8])
    assert np.array_equal(picture_of(clip, 8), PIXELS[4])
    (image,) = unpacked(CLIPS, PIXELS[2])
    assert np.array_equal(picture_of(image, 8), PIXELS[2])
    draw_rows(packed(CLIPS, PIXELS[:8], PIXELS[0]), legend=True)


def test_adapters_take_clips_or_say_why_not() -> None:
    recipe = CLIPS.replace(resize=pp.resize.SmartResize(16 * 16, 32 * 32, 2), seq_len=128)
    batch = packed(recipe, PIXELS[:7, :16], PIXELS[0, :, :24])
    inputs = pp.adapters.qwen_vl(batch)
    shapes = dict(zip((key for row in batch.keys for key in row), inputs.image_grid_thw.tolist(), strict=True))
    assert shapes["0"] == [4, 2, 4]
    assert shapes["1"][0] == 1
    for adapter in (pp.adapters.siglip2, pp.adapters.timm_naflex, pp.adapters.pix2struct):
        with pytest.raises(pp.errors.ConfigError, match="holds tubelets"):
            adapter(batch)
    with pytest.raises(pp.errors.ConfigError, match=r"tubelets of 2 frames, the model takes 1.*Video\(tubelet=1\)"):
        pp.adapters.qwen_vl(batch, temporal_patch_size=1)


def test_qwen_gets_steps_of_time_as_blocks_of_real_frames() -> None:
    """(time, block row, block col, row, col, channel, frame, y, x), by loops."""
    recipe = CLIPS.replace(
        resize=pp.resize.SmartResize(16 * 16, 32 * 32, 2), normalize=pp.normalize.MeanStd((0, 0, 0), (1 / 255,) * 3)
    )
    clip, expected = PIXELS[:4, :16], []
    for time in range(2):
        for block in range(2):
            for row in range(2):
                for col in (2 * block, 2 * block + 1):
                    patch = clip[2 * time : 2 * time + 2, 8 * row : 8 * row + 8, 8 * col : 8 * col + 8]
                    expected.append(patch.transpose(3, 0, 1, 2).ravel())
    batch = packed(recipe, clip)
    inputs = pp.adapters.qwen_vl(batch)
    assert np.array_equal(inputs.pixel_values, np.stack(expected))
    assert inputs.image_grid_thw.tolist() == [[2, 2, 4]]
    ((_, back),) = pp.adapters.unpack_qwen_vl(batch, inputs.pixel_values)
    assert back.shape == (2, 2, 4, 384)
    assert np.array_equal(back[1, 0, 2, :64].reshape(8, 8), clip[2, :8, 16:24, 0])
    ((_, merged),) = pp.adapters.unpack_qwen_vl(batch, torch.arange(4))
    assert merged.tolist() == [[[0, 1]], [[2, 3]]]


def test_a_clip_travels_to_a_worker() -> None:
    from patchpack.stream.sources.inline import InlineSample

    frames = [Image.fromarray(PIXELS[0]), memoryview(png(PIXELS[1])), PIXELS[2]]
    image, target = pickle.loads(pickle.dumps(InlineSample(pp.Clip(frames), 3)))
    assert target == 3
    assert np.array_equal(image.frames[0], PIXELS[0])
    assert image.frames[1] == png(PIXELS[1])


def test_digests_without_clips_are_what_they_were() -> None:
    batch = packed(IMAGES, PIXELS[0])
    for whole in (batch, next(pp.unpack(batch))):
        fields = [name for name in whole._fields if name != "times"]
        before = namedtuple("before", fields)(*(getattr(whole, name) for name in fields))
        assert pp.digest(before) == pp.digest(whole)
