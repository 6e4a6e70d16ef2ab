"""Make `data/timm_resized.npz`: logits of timm's models after timm's own resizing, which `test_fine_tune.py` compares with.

The weights are those of `data/timm_logits.npz`. Every image is a corner of one random image of 8-bit levels. timm's
``set_input_size`` resizes the table of positions and the patch kernel.
Made with timm 1.0.31 and torch 2.13.0. Run from the project's root: ``python tests/golden/make_timm_resized.py``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import timm
import torch

DATA = Path(__file__).parent / "data"
SQUARE = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5}
MODELS = {
    "vit": ("vit_base_patch16_224", {}),
    "flexivit": ("flexivit_base", {}),
    "siglip_map": ("vit_base_patch16_siglip_224", {"act_layer": "gelu_tanh"}),
}
CASES = [  # (model, height and width of the image, patch size)
    ("vit", 48, 48, 8),
    ("vit", 24, 24, 8),
    ("vit", 48, 24, 8),
    ("vit", 32, 32, 4),
    ("vit", 60, 60, 12),
    ("siglip_map", 40, 40, 8),
    ("flexivit", 48, 48, 12),
    ("flexivit", 30, 30, 6),
    ("flexivit", 80, 80, 16),
]


@torch.no_grad()
def main() -> None:
    torch.manual_seed(0)
    with np.load(DATA / "timm_logits.npz") as file:
        stored = {name: torch.from_numpy(values.astype(np.float32)) for name, values in file.items()}
    levels = torch.randint(256, (80, 80, 3), dtype=torch.uint8)
    out = {"image": levels.numpy()}
    for name, height, width, patch_size in CASES:
        timms, options = MODELS[name]
        model = timm.create_model(timms, **SQUARE, **options).eval()
        at = f"{name}/state/"
        model.load_state_dict({key[len(at) :]: value for key, value in stored.items() if key.startswith(at)})
        model.set_input_size(img_size=(height, width), patch_size=(patch_size, patch_size))
        image = levels[:height, :width].float() / 64 - 2
        out[f"{name}_{height}x{width}_p{patch_size}"] = model(image.permute(2, 0, 1)[None])[0].numpy()
    np.savez_compressed(DATA / "timm_resized.npz", **out)


if __name__ == "__main__":
    main()
