"""Adapters and processors for existing models: SigLIP 2, Qwen-VL, Pix2Struct and timm's NaFlexViT.

An adapter is a function from a packed batch to a model's keyword arguments. These models take images one by one, so an adapter
splits the rows: image i is the i-th readable image in (row, slot) order, the order of ``batch.slot_mask``. `keys` returns the
keys of the images in this order, and ``pp.unpack(batch, outputs, per="image")`` returns the outputs with their keys.

A processor makes the same arguments from a list of images. It gives the same results as the model's own processor gives on
Pillow.
"""

from __future__ import annotations

from patchpack.adapters.inputs import ModelInputs
from patchpack.adapters.naflex import TimmNaFlexProcessor, timm_naflex
from patchpack.adapters.pad import Padded, keys, padded
from patchpack.adapters.pix import Pix2StructProcessor, pix2struct
from patchpack.adapters.qwen import qwen_vl, unpack_qwen_vl
from patchpack.adapters.qwen_processor import QwenVLProcessor
from patchpack.adapters.siglip import Siglip2Processor, siglip2

__all__ = [
    "padded", "Padded", "keys", "ModelInputs",
    "siglip2", "qwen_vl", "unpack_qwen_vl", "pix2struct", "timm_naflex",
    "Siglip2Processor", "QwenVLProcessor", "Pix2StructProcessor", "TimmNaFlexProcessor",
]  # fmt: skip
