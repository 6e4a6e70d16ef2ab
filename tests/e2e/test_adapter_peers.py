"""Models of transformers and timm say the same of our arguments as of their own processors', for pictures of mixed shapes.

Tiny models with random weights. Needs the extra ``peers``, and for timm ``bench-images``; is skipped, saying so, without them.
What the processors make is also compared with stored arrays, in ``tests/golden/test_adapters.py``. Processors are those of the
Pillow backend, whose resampling is ours.
"""

from __future__ import annotations

import base64
import importlib.util
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import patchpack as pp
from bench.images.peers import make_torchvision_importable
from helpers.mixed_images import pictures
from patchpack import adapters

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]  # the peers' own warnings
KEYS, IMAGES = zip(*pictures().items(), strict=True)
ATOL = 1e-4


class Peer(NamedTuple):
    """One model and its own way to its arguments.

    Attributes:
        theirs: images → arguments.
        ours: a processor.
        adapter: a batch → arguments.
        outputs: arguments → pooled outputs, and outputs of tokens, ``[N, L, ...]`` or end to end.
    """

    theirs: Callable[[list[Any]], Any]
    ours: Any
    adapter: Callable[[pp.PackedBatch], Any]
    outputs: Callable[[Any], tuple[Any, Any]]


@pytest.fixture(scope="module")
def transformers() -> Any:
    _torchvision()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("transformers", minversion="5", reason="needs the extra peers: transformers")


def _torchvision() -> None:
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("needs the extra peers: torchvision")
    make_torchvision_importable()


def peer(name: str, request: pytest.FixtureRequest) -> Peer:
    torch.manual_seed(0)
    if name == "timm_naflex":
        return _timm()
    return MAKERS[name](request.getfixturevalue("transformers"))


def _siglip2(transformers: Any) -> Peer:
    config = transformers.Siglip2VisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_patches=36, patch_size=16
    )
    model = _random(transformers.Siglip2VisionModel(config))
    processor = transformers.Siglip2ImageProcessorPil(patch_size=16, max_num_patches=40)

    def outputs(inputs: Any) -> tuple[Any, Any]:
        out = model(**inputs)
        return out.pooler_output, out.last_hidden_state

    return Peer(
        lambda images: processor(images=images, return_tensors="pt"), adapters.Siglip2Processor.like(processor),
        adapters.siglip2, outputs,
    )  # fmt: skip


def _pix2struct(transformers: Any) -> Peer:
    config = transformers.Pix2StructVisionConfig(
        hidden_size=32, patch_embed_hidden_size=768, d_ff=48, d_kv=16, num_hidden_layers=2, num_attention_heads=2, seq_len=48
    )
    model = _random(transformers.Pix2StructVisionModel(config))
    processor = transformers.Pix2StructImageProcessorPil(max_patches=40)

    def outputs(inputs: Any) -> tuple[Any, Any]:
        tokens = model(**inputs).last_hidden_state
        mask = inputs["attention_mask"][:, :, None]
        return (tokens * mask).sum(1) / mask.sum(1), tokens

    return Peer(
        lambda images: processor(images=images, return_tensors="pt"), adapters.Pix2StructProcessor.like(processor),
        adapters.pix2struct, outputs,
    )  # fmt: skip


def _qwen(module: str, model_name: str, config_name: str, patch_size: int, **options: Any) -> Callable[[Any], Peer]:
    def make(transformers: Any) -> Peer:
        modeling = importlib.import_module(f"transformers.models.{module}")
        model = _random(getattr(modeling, model_name)(getattr(modeling, config_name)(**options)))
        size = {"shortest_edge": 4 * (2 * patch_size) ** 2, "longest_edge": 12 * (2 * patch_size) ** 2}
        processor = transformers.Qwen2VLImageProcessorPil(size=size, patch_size=patch_size)

        def outputs(inputs: Any) -> tuple[Any, Any]:
            out = model(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"])
            merged = getattr(out, "pooler_output", out)
            lengths = (inputs["image_grid_thw"].prod(-1) // 4).tolist()
            return torch.stack([part.mean(0) for part in merged.split(lengths)]), merged

        return Peer(
            lambda images: processor(images=images, return_tensors="pt"), adapters.QwenVLProcessor.like(processor),
            adapters.qwen_vl, outputs,
        )  # fmt: skip

    return make


def _timm() -> Peer:
    _torchvision()
    timm = pytest.importorskip("timm", reason="needs the bench-images extra: timm")
    from timm.data import create_transform
    from timm.data.naflex_dataset import NaFlexCollator

    options = {"embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 0, "pos_embed_grid_size": (6, 6)}
    model = _random(timm.create_model("naflexvit_base_patch16_gap", **options))
    mean = std = (0.5, 0.5, 0.5)
    transform = create_transform(
        224, naflex=True, patchify=True, patch_size=16, max_seq_len=40, interpolation="bicubic", mean=mean, std=std
    )

    def theirs(images: list[Any]) -> Any:
        inputs, _ = NaFlexCollator(40)([(transform(image), 0) for image in images])
        inputs.pop("seq_len")
        return inputs

    def outputs(inputs: Any) -> tuple[Any, Any]:
        features = model.forward_features(inputs["patches"], inputs["patch_coord"], inputs["patch_valid"])
        return model(dict(inputs)), features["patches"]

    config = timm.data.resolve_model_data_config(model)
    return Peer(theirs, adapters.TimmNaFlexProcessor.like(config, max_seq_len=40), adapters.timm_naflex, outputs)


def _random(model: torch.nn.Module) -> torch.nn.Module:
    """Weights that let every patch and position be felt in the output."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval().requires_grad_(False)


_SMALL = {"depth": 2, "num_heads": 2, "intermediate_size": 48, "in_channels": 3}
MAKERS: dict[str, Callable[[Any], Peer]] = {
    "siglip2": _siglip2,
    "pix2struct": _pix2struct,
    "qwen2_vl": _qwen(
        "qwen2_vl.modeling_qwen2_vl", "Qwen2VisionTransformerPretrainedModel", "Qwen2VLVisionConfig", 14, depth=2, embed_dim=32,
        hidden_size=24, num_heads=2,
    ),
    "qwen2_5_vl": _qwen(
        "qwen2_5_vl.modeling_qwen2_5_vl", "Qwen2_5_VisionTransformerPretrainedModel", "Qwen2_5_VLVisionConfig", 14,
        hidden_size=32, out_hidden_size=24, fullatt_block_indexes=[1], **_SMALL,
    ),
    "qwen3_vl": _qwen(
        "qwen3_vl.modeling_qwen3_vl", "Qwen3VLVisionModel", "Qwen3VLVisionConfig", 16, hidden_size=32, out_hidden_size=24,
        num_position_embeddings=64, deepstack_visual_indexes=[0], **_SMALL,
    ),
}  # fmt: skip
PEERS = [*MAKERS, "timm_naflex"]


def batches_of(peer: Peer) -> Iterator[pp.PackedBatch]:
    """The pictures packed, several to a row, with one that cannot be read among them."""
    recipe = peer.ours.recipe.replace(seq_len=500, rows_per_batch=2, max_images=16)
    images = [*IMAGES[:7], b"no image", *IMAGES[7:]]
    yield from pp.pack_images(images, recipe, keys=[*KEYS[:7], "broken", *KEYS[7:]], on_error="skip")


def tokens_by_key(name: str, tokens: Any, grids: list[tuple[int, int]]) -> list[Any]:
    """Outputs of tokens of each image on its grid, from a model's own layout."""
    if name.startswith("qwen"):
        parts = tokens.split([rows * cols // 4 for rows, cols in grids])
        return [part.reshape(rows // 2, cols // 2, -1) for part, (rows, cols) in zip(parts, grids, strict=True)]
    return [own[: rows * cols].reshape(rows, cols, -1) for own, (rows, cols) in zip(tokens, grids, strict=True)]


@pytest.mark.parametrize("name", PEERS)
def test_outputs_are_those_of_their_own_processor(name: str, request: pytest.FixtureRequest) -> None:
    model = peer(name, request)
    pooled, tokens = model.outputs(model.theirs(list(IMAGES)))
    assert pooled.std() > 1e-2  # the model tells pictures apart
    ours_pooled, ours_tokens = model.outputs(model.ours(list(IMAGES)))
    torch.testing.assert_close(ours_pooled, pooled, rtol=0, atol=ATOL)
    torch.testing.assert_close(ours_tokens, tokens, rtol=0, atol=ATOL)

    grids = [tuple(pp.plan_image(image.size[::-1], model.ours.recipe).grid) for image in IMAGES]
    wanted = dict(zip(KEYS, zip(pooled, tokens_by_key(name, tokens, grids), strict=True), strict=True))
    found, dense = {}, {}
    for batch in batches_of(model):
        mine, my_tokens = model.outputs(model.adapter(batch))
        found |= dict(pp.unpack(batch, mine, per="image"))
        if name.startswith("qwen"):
            dense |= dict(adapters.unpack_qwen_vl(batch, my_tokens))
        else:
            dense |= dict(pp.unpack(batch, my_tokens, per="image", dense=True))
    assert found.keys() == dense.keys() == set(KEYS)
    for key, (one, own_tokens) in wanted.items():
        torch.testing.assert_close(found[key], one, rtol=0, atol=ATOL)
        torch.testing.assert_close(dense[key], own_tokens, rtol=0, atol=ATOL)


def tokenizer_of(transformers: Any) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["?", "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "see"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="?", pad_token="?", additional_special_tokens=words[1:5]
    )


def whole_of(transformers: Any, image_processor: Any) -> Any:
    """A processor of images and text with this one for the images."""
    if isinstance(image_processor, (adapters.Pix2StructProcessor, transformers.Pix2StructImageProcessorPil)):
        return transformers.Pix2StructProcessor(image_processor, tokenizer_of(transformers))
    if isinstance(image_processor, (adapters.Siglip2Processor, transformers.Siglip2ImageProcessorPil)):
        return transformers.Siglip2Processor(image_processor, tokenizer_of(transformers))
    return transformers.Qwen2_5_VLProcessor(image_processor, tokenizer_of(transformers), transformers.Qwen2VLVideoProcessor())


KINDS: dict[str, Any] = {
    "Qwen2VLImageProcessorPil": adapters.QwenVLProcessor,
    "Siglip2ImageProcessorPil": adapters.Siglip2Processor,
    "Pix2StructImageProcessorPil": adapters.Pix2StructProcessor,
}
PROMPT = {
    "text": ["see <|image_pad|> <|image_pad|>", "see <|image_pad|>"],
    "images": [list(IMAGES[:2]), [IMAGES[2]]],
    "return_tensors": "pt",
    "padding": True,
}
TWO = {"text": ["see", "see"], "images": list(IMAGES[:2]), "return_tensors": "pt", "padding": True}
ASKED: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "nothing": ("Qwen2VLImageProcessorPil", PROMPT, {}),
    "max_pixels": ("Qwen2VLImageProcessorPil", PROMPT, {"max_pixels": 9 * 28**2}),
    "min_pixels": ("Qwen2VLImageProcessorPil", PROMPT, {"min_pixels": 60 * 28**2}),
    "size": ("Qwen2VLImageProcessorPil", PROMPT, {"size": {"shortest_edge": 28**2, "longest_edge": 9 * 28**2}}),
    "images_kwargs": ("Qwen2VLImageProcessorPil", PROMPT, {"images_kwargs": {"max_pixels": 9 * 28**2, "resample": 2}}),
    "defaults": ("Qwen2VLImageProcessorPil", PROMPT, {"do_rescale": True, "do_convert_rgb": True, "do_normalize": True}),
    "max_num_patches": ("Siglip2ImageProcessorPil", TWO, {"max_num_patches": 30}),
    "max_patches": ("Pix2StructImageProcessorPil", TWO, {"max_patches": 30}),
    "resample": ("Siglip2ImageProcessorPil", TWO, {"images_kwargs": {"resample": 3, "max_num_patches": 9}}),
}


@pytest.mark.parametrize("constructed", [True, False])
@pytest.mark.parametrize("asked", ASKED)
def test_inside_the_processor_of_images_and_text(asked: str, constructed: bool, transformers: Any) -> None:
    """Put in the place of its image processor, ours makes the same of every call, and counts the placeholders of a prompt."""
    maker, prompt, options = ASKED[asked]
    theirs = getattr(transformers, maker)()
    kind = KINDS[maker]
    whole = whole_of(transformers, theirs)
    wanted = whole(**prompt, **options)
    if constructed:
        whole = whole_of(transformers, kind.like(whole))
    else:
        whole.image_processor = kind.like(whole)
    got = whole(**prompt, **options)
    assert set(got) == set(wanted)
    if kind is adapters.QwenVLProcessor:
        assert int((got["input_ids"] == 1).sum()) == len(got["pixel_values"]) // 4
    for name, value in wanted.items():
        torch.testing.assert_close(got[name], value, rtol=0, atol=ATOL)


@pytest.mark.parametrize("name", MAKERS)
def test_saved_by_one_and_opened_by_the_other(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Ours opens what theirs saved, theirs what ours saved, alone or in a processor of images and text: the same tensors."""
    transformers = request.getfixturevalue("transformers")
    theirs, ours = MAKERS[name](transformers)[:2]
    own = {"siglip2": "Siglip2", "pix2struct": "Pix2Struct"}.get(name, "Qwen2VL")
    kind = getattr(transformers, f"{own}ImageProcessorPil")
    saved = tmp_path / "ours"
    ours.save_pretrained(saved)
    back = kind.from_pretrained(saved)
    assert type(transformers.AutoImageProcessor.from_pretrained(saved)).__name__.startswith(f"{own}ImageProcessor")
    for field, value in theirs(list(IMAGES[:3])).items():
        np.testing.assert_allclose(back(images=list(IMAGES[:3]), return_tensors="pt")[field], value, rtol=0, atol=1e-6)
    back.save_pretrained(tmp_path / "theirs")
    assert type(ours).like(tmp_path / "theirs") == type(ours).like(back) == type(ours).like(back.to_dict()) == ours
    whole = whole_of(transformers, ours)
    assert type(ours).__name__ in repr(whole)
    whole.save_pretrained(tmp_path / "whole")
    again = transformers.AutoProcessor.from_pretrained(tmp_path / "whole")
    assert not isinstance(again.image_processor, type(ours))
    for carrier in (tmp_path / "whole", whole, again, again.image_processor, whole.to_dict()):
        assert type(ours).like(carrier) == ours


@pytest.mark.parametrize("name", [name for name in MAKERS if name.startswith("qwen")])
def test_patches_are_counted_as_theirs_counts(name: str, request: pytest.FixtureRequest) -> None:
    made = peer(name, request)
    sizes = np.random.default_rng(4).integers(30, 2000, (50, 2)).tolist()
    maker = request.getfixturevalue("transformers").Qwen2VLImageProcessorPil
    theirs = maker(size=dict(made.ours.size), patch_size=made.ours.patch_size)
    for options in (None, {}, {"max_pixels": 40 * 32**2}):
        for height, width in sizes:
            counted = made.ours.get_number_of_image_patches(height, width, options)
            assert counted == theirs.get_number_of_image_patches(height, width, options)
    whole = whole_of(request.getfixturevalue("transformers"), made.ours)
    assert whole._get_num_multimodal_tokens(image_sizes=[(480, 640)])["num_image_patches"] == [
        made.ours.get_number_of_image_patches(480, 640)
    ]


def test_images_in_a_conversation(transformers: Any, tmp_path: Path) -> None:
    """As objects, as paths, and in the text itself."""
    path = tmp_path / "one.png"
    IMAGES[0].convert("RGB").save(path)
    whole = whole_of(transformers, adapters.QwenVLProcessor(max_pixels=30 * 28**2))
    theirs = whole_of(transformers, transformers.Qwen2VLImageProcessorPil(size=dict(whole.image_processor.size)))
    inline = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    for part in ({"image": IMAGES[0].convert("RGB")}, {"path": str(path)}, {"image": str(path)}, {"base64": inline}):
        chat = [{"role": "user", "content": [{"type": "image", **part}]}]
        options = {"chat_template": "see <|image_pad|>", "tokenize": True, "return_dict": True, "return_tensors": "pt"}
        got, wanted = (each.apply_chat_template(chat, **options) for each in (whole, theirs))
        assert set(got) == set(wanted)
        for name, value in wanted.items():
            torch.testing.assert_close(got[name], value, rtol=0, atol=ATOL)


FIRST = """
import sys
from patchpack import adapters
processor = adapters.QwenVLProcessor()
assert not isinstance(processor, str) and "transformers" not in sys.modules
from bench.images.peers import make_torchvision_importable
make_torchvision_importable()
from transformers.image_processing_base import ImageProcessingMixin
assert isinstance(processor, ImageProcessingMixin) and processor.valid_kwargs.__annotations__["max_pixels"]
"""


def test_made_before_transformers_is_imported(transformers: Any) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # of bench
    program = [sys.executable, "-W", "ignore", "-c", FIRST]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr


def test_in_a_pipeline(transformers: Any) -> None:
    config = transformers.Siglip2VisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, num_patches=36
    )
    model = _random(transformers.Siglip2VisionModel(config))
    theirs = transformers.Siglip2ImageProcessorPil(max_num_patches=40)
    answers = [
        transformers.pipeline("image-feature-extraction", model=model, image_processor=processor)(IMAGES[0])
        for processor in (theirs, adapters.Siglip2Processor.like(theirs))
    ]
    np.testing.assert_allclose(answers[1], answers[0], rtol=0, atol=ATOL)


def test_other_things_of_transformers_carry_no_settings(transformers: Any) -> None:
    whole = whole_of(transformers, adapters.QwenVLProcessor())
    for thing in (
        transformers.CLIPImageProcessorPil(), transformers.Siglip2VisionConfig(), whole.tokenizer, transformers.CLIPConfig(),
        transformers.Qwen2_5_VLConfig(), whole.video_processor, transformers.Glm4vImageProcessorPil(),
    ):  # fmt: skip
        for kind in (adapters.QwenVLProcessor, adapters.Siglip2Processor, adapters.Pix2StructProcessor):
            with pytest.raises(pp.errors.ConfigError, match=rf"{kind.__name__}\.like takes the settings of"):
                kind.like(thing)
    with pytest.raises(pp.errors.ConfigError, match="Qwen2_5_VLProcessor, whose image_processor is a QwenVLProcessor"):
        adapters.Siglip2Processor.like(whole)


@pytest.mark.parametrize("name", PEERS)
def test_processors_give_the_same_arguments(name: str, request: pytest.FixtureRequest) -> None:
    """Names, shapes and dtypes; values to a tolerance, whole numbers exactly."""
    model = peer(name, request)
    theirs, ours = model.theirs(list(IMAGES)), model.ours(list(IMAGES))
    assert set(theirs) == set(ours)
    for field, value in theirs.items():
        assert ours[field].dtype == value.dtype
        np.testing.assert_allclose(ours[field], value, rtol=0, atol=ATOL if value.is_floating_point() else 0)


@pytest.mark.parametrize("name", [name for name in MAKERS if name.startswith("qwen")])
def test_a_clip_and_an_image_are_what_the_video_processor_makes_of_them(name: str, request: pytest.FixtureRequest) -> None:
    """Of frames that nobody resizes: the video processor has no backend that resamples as Pillow does."""
    made = peer(name, request)
    p = made.ours.patch_size
    processing = importlib.import_module("transformers.models.qwen2_vl.video_processing_qwen2_vl")
    size = {"shortest_edge": made.ours.min_pixels, "longest_edge": made.ours.max_pixels}
    processor = processing.Qwen2VLVideoProcessor(
        size=size, patch_size=p, image_mean=made.ours.image_mean, image_std=made.ours.image_std
    )  # fmt: skip
    clips = np.random.default_rng(2).integers(0, 256, (9, 4 * p, 6 * p, 3), dtype=np.uint8)
    recipe = made.ours.recipe.replace(video=pp.Video(2), seq_len=1024, rows_per_batch=1)
    samples = {"8": clips[:8], "7": clips[1:8], "1": clips[8]}
    (batch,) = pp.load([pp.Sample(*item) for item in samples.items()], recipe, target=None)
    inputs = adapters.qwen_vl(batch)
    with torch.no_grad():
        _, ours = made.outputs(inputs)
        merged = dict(adapters.unpack_qwen_vl(batch, ours))
        for key, clip in samples.items():
            frames = torch.from_numpy(clip if clip.ndim == 4 else clip[None]).permute(0, 3, 1, 2)
            theirs = processor(videos=[frames], return_tensors="pt")
            own = {"pixel_values": theirs["pixel_values_videos"], "image_grid_thw": theirs["video_grid_thw"]}
            assert own["image_grid_thw"].tolist() == [[{"8": 4, "7": 4, "1": 1}[key], 4, 6]]
            _, answer = made.outputs(own)
            torch.testing.assert_close(merged[key].reshape(answer.shape), answer, atol=ATOL, rtol=0)
    assert len(samples) == len(merged)
