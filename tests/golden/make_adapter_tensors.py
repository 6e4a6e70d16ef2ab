"""Make `data/adapter_tensors.npz`: what the peers' own processors make of the pictures in `mixed_images.py`.

Whole tensors would be megabytes, so every vector of pixels is stored as its products with four random vectors, which are
stored beside them: two tensors that agree in those agree. Ids, masks and grids are stored whole.

Made with transformers 5.23.0 (Pillow backends), timm 1.0.31, torch 2.13.0 and Pillow 13.0.0. Run from the project's root:
``PYTHONPATH=.:tests python tests/golden/make_adapter_tensors.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.images.peers import make_torchvision_importable
from helpers.mixed_images import pictures

IMAGES = list(pictures().values())


def project(values: Any, vectors: np.ndarray) -> np.ndarray:
    """float64 products, stored as float32."""
    return (np.asarray(values, dtype=np.float64) @ vectors.astype(np.float64)).astype(np.float32)


def main() -> None:
    make_torchvision_importable()
    import transformers
    from timm.data import create_transform
    from timm.data.naflex_dataset import NaFlexCollator

    random = np.random.default_rng(0)
    out = {f"vectors{n}": (random.standard_normal((n, 4)) / n**0.5).astype(np.float16) for n in (768, 1176, 1536)}
    ours: dict[str, Any] = {}
    siglip2 = transformers.Siglip2ImageProcessorPil(patch_size=16, max_num_patches=40)(images=IMAGES, return_tensors="np")
    ours["siglip2/pixel_values"] = project(siglip2["pixel_values"], out["vectors768"])
    ours |= {f"siglip2/{name}": siglip2[name] for name in ("pixel_attention_mask", "spatial_shapes")}
    for name, options in (
        ("qwen2_vl", {"size": {"shortest_edge": 4 * 28**2, "longest_edge": 12 * 28**2}}),
        (
            "qwen3_vl",
            {"size": {"shortest_edge": 4 * 32**2, "longest_edge": 12 * 32**2}, "patch_size": 16,
             "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
        ),
    ):  # fmt: skip
        qwen = transformers.Qwen2VLImageProcessorPil(**options)(images=IMAGES, return_tensors="np")
        width = qwen["pixel_values"].shape[1]
        ours[f"{name}/pixel_values"] = project(qwen["pixel_values"], out[f"vectors{width}"])
        ours[f"{name}/image_grid_thw"] = qwen["image_grid_thw"]
    pix = transformers.Pix2StructImageProcessorPil(max_patches=40)(images=IMAGES, return_tensors="pt")
    flattened = pix["flattened_patches"].numpy()
    ours["pix2struct/flattened_patches"] = project(flattened[..., 2:], out["vectors768"])
    ours["pix2struct/ids"] = flattened[..., :2].astype(np.int16)
    ours["pix2struct/attention_mask"] = pix["attention_mask"].numpy()
    transform = create_transform(
        224, naflex=True, patchify=True, patch_size=16, max_seq_len=40, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3
    )
    timm = NaFlexCollator(40)([(transform(image), 0) for image in IMAGES])[0]
    ours["timm_naflex/patches"] = project(timm["patches"], out["vectors768"])
    ours |= {f"timm_naflex/{name}": timm[name].numpy() for name in ("patch_coord", "patch_valid")}
    np.savez_compressed(Path(__file__).parent / "data" / "adapter_tensors.npz", **out, **ours)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
