"""A real ``Trainer`` and TRL's ``SFTTrainer`` fine-tune a tiny Qwen2.5-VL through the drop-in processor, stop, and go on.

Random weights, a tokenizer of whole words and a short chat template, all made here: nothing is fetched. What they save opens
where patchpack cannot be imported. Needs the extra ``peers``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench.images.peers import make_torchvision_importable
from patchpack import adapters

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]  # the peers' own warnings
SPECIAL = ["<|pad|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<|im_start|>"]
COLOURS = ["teal", "gold", "navy", "pink"]
WORDS = ["?", *SPECIAL, "user", "assistant", "which", "colour", "is", "this", *COLOURS]
TEMPLATE = """\
{%- for message in messages -%}
<|im_start|> {{ message['role'] }}
{%- if message['content'] is string %} {{ message['content'] }}{% else %}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' %} <|vision_start|><|image_pad|><|vision_end|>
{%- else %} {{ part['text'] }}{% endif -%}
{%- endfor -%}
{%- endif %} <|im_end|> {% endfor -%}
{%- if add_generation_prompt %}<|im_start|> assistant{% endif -%}
"""
ARGUMENTS: dict[str, Any] = {
    "max_steps": 2, "save_steps": 1, "save_strategy": "steps", "per_device_train_batch_size": 2, "learning_rate": 1e-2,
    "use_cpu": True, "report_to": "none", "disable_tqdm": True, "remove_unused_columns": False, "logging_steps": 1,
    "gradient_checkpointing": False, "bf16": False, "seed": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def transformers() -> Any:
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("needs the extra peers: torchvision, without which transformers has no processor of videos")
    make_torchvision_importable()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("transformers", minversion="5.18", reason="needs the extra peers: transformers")


def whole_processor(transformers: Any, image_processor: Any) -> Any:
    """Of text and images, with this one for the images."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="?", pad_token=SPECIAL[0], eos_token=SPECIAL[1],
        additional_special_tokens=SPECIAL[2:],
    )  # fmt: skip
    return transformers.Qwen2_5_VLProcessor(image_processor, fast, transformers.Qwen2VLVideoProcessor(), chat_template=TEMPLATE)


def tiny_model(transformers: Any, checkpoint: Path | None) -> Any:
    """Random, or of a checkpoint: the Trainer reads one by names of weights that this model no longer has, and only warns."""
    if checkpoint is not None:
        return transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(checkpoint)
    torch.manual_seed(0)
    config = transformers.Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 1, "vocab_size": len(WORDS), "max_position_embeddings": 512, "bos_token_id": None,
            "eos_token_id": 2, "pad_token_id": 1,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0},
        },
        vision_config={
            "depth": 1, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32,
            "fullatt_block_indexes": [0],
        },
        **{name: WORDS.index(f"<|{word}|>") for name, word in {
            "image_token_id": "image_pad", "video_token_id": "video_pad", "vision_start_token_id": "vision_start",
            "vision_end_token_id": "vision_end",
        }.items()},
    )  # fmt: skip
    return transformers.Qwen2_5_VLForConditionalGeneration(config)


def rows() -> list[dict[str, Any]]:
    """Eight questions about pictures of as many shapes."""
    found = []
    for i in range(8):
        colour = COLOURS[i % len(COLOURS)]
        question = [{"type": "image"}, {"type": "text", "text": "which colour is this"}]
        found.append(
            {
                "images": [Image.new("RGB", (60 + 30 * i, 200 - 15 * i), colour)],
                "messages": [
                    {"role": "user", "content": question},
                    {"role": "assistant", "content": [{"type": "text", "text": colour}]},
                ],
            }
        )
    return found


def trainer_of(transformers: Any, folder: Path, whole: Any, checkpoint: Path | None = None) -> Any:
    """The Trainer of transformers, with a collator as its documentation writes one for such models."""

    def collate(examples: list[dict[str, Any]]) -> Any:
        text = [whole.apply_chat_template(example["messages"], tokenize=False) for example in examples]
        batch = whole(text=text, images=[e["images"] for e in examples], padding=True, return_tensors="pt")
        batch["labels"] = batch["input_ids"].clone()
        return batch

    arguments = transformers.TrainingArguments(str(folder), **ARGUMENTS)
    model = tiny_model(transformers, checkpoint)
    return transformers.Trainer(model, arguments, collate, train_dataset=rows(), processing_class=whole)


def sft_trainer_of(transformers: Any, folder: Path, whole: Any, checkpoint: Path | None = None) -> Any:
    trl = pytest.importorskip("trl", reason="needs the extra peers: trl")
    datasets = pytest.importorskip("datasets")
    arguments = trl.SFTConfig(str(folder), max_length=None, **ARGUMENTS)
    data = datasets.Dataset.from_list(rows())
    return trl.SFTTrainer(tiny_model(transformers, checkpoint), arguments, train_dataset=data, processing_class=whole)


TRAINERS = {"Trainer": trainer_of, "SFTTrainer": sft_trainer_of}
ELSEWHERE = """
import importlib, json, sys
sys.modules["patchpack"] = None                     # whatever imports it fails
try:
    import patchpack
    raise SystemExit("patchpack was imported")
except ImportError:
    pass
try:
    import torchvision
except RuntimeError:                                # built for another device; see bench/images/peers.py
    import torch
    schemas = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        schemas.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import numpy as np
from PIL import Image
import transformers
folder, saved = sys.argv[1:]
whole = transformers.AutoProcessor.from_pretrained(folder)
images = transformers.Qwen2VLImageProcessorPil.from_pretrained(folder)
inputs = images(images=[Image.open(saved)], return_tensors="np")
np.savez(saved + ".npz", **inputs)
model = transformers.AutoModelForImageTextToText.from_pretrained(folder)
text = whole.apply_chat_template([{"role": "user", "content": [{"type": "image"}]}], tokenize=False)
loss = model(**whole(text=[text], images=[Image.open(saved)], return_tensors="pt")).logits.mean().item()
print(json.dumps([type(whole).__name__, type(whole.image_processor).__name__, type(model).__name__, loss == loss]))
"""


@pytest.mark.parametrize("name", TRAINERS)
def test_trained_saved_resumed_and_opened_elsewhere(name: str, transformers: Any, tmp_path: Path) -> None:
    ours = adapters.QwenVLProcessor(max_pixels=30 * 28**2)
    whole = TRAINERS[name](transformers, tmp_path / "whole", whole_processor(transformers, ours))
    before = [parameter.detach().clone() for parameter in whole.model.parameters()]
    whole.train()
    assert whole.state.global_step == 2
    assert any(not torch.equal(a, b) for a, b in zip(before, whole.model.parameters(), strict=True))

    # the settings come back from the checkpoint, and the run goes on from it as if it had not stopped
    checkpoint = tmp_path / "whole" / "checkpoint-1"
    again = adapters.QwenVLProcessor.like(checkpoint)
    assert again == ours
    processor = transformers.AutoProcessor.from_pretrained(checkpoint)
    assert adapters.QwenVLProcessor.like(processor) == ours
    processor.image_processor = again
    resumed = TRAINERS[name](transformers, tmp_path / "resumed", processor, checkpoint)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert resumed.state.global_step == 2
    for mine, expected in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-6)
    assert json.loads(resumed.processing_class.to_json_string()) == json.loads(whole.processing_class.to_json_string())

    # where patchpack is not, the folder opens with the model's own classes, which make the same tensors
    picture = tmp_path / "one.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (150, 220, 3), dtype=np.uint8)).save(picture)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ELSEWHERE, str(tmp_path / "resumed" / "checkpoint-2"), str(picture)],
        capture_output=True, text=True, timeout=300, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kinds = json.loads(done.stdout.splitlines()[-1])
    assert kinds[0] == "Qwen2_5_VLProcessor"
    assert kinds[1].startswith("Qwen2VLImageProcessor")
    assert kinds[2:] == ["Qwen2_5_VLForConditionalGeneration", True]
    theirs = np.load(f"{picture}.npz")
    for field, value in ours(Image.open(picture), return_tensors="np").items():
        np.testing.assert_allclose(value, theirs[field], rtol=0, atol=1e-4 if value.dtype.kind == "f" else 0)


@pytest.mark.parametrize("name", TRAINERS)
def test_the_same_losses_as_with_the_models_own_processor(name: str, transformers: Any, tmp_path: Path) -> None:
    theirs = transformers.Qwen2VLImageProcessorPil(size={"shortest_edge": 56**2, "longest_edge": 30 * 28**2})
    losses = []
    for image_processor in (theirs, adapters.QwenVLProcessor.like(theirs)):
        trainer = TRAINERS[name](transformers, tmp_path / str(len(losses)), whole_processor(transformers, image_processor))
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert len(losses[0]) == 2
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)
