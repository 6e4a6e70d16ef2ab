"""Make `data/timm_logits.npz`: random weights and the logits of timm's own forward pass, which `test_weights.py` compares with.

Made with timm 1.0.31 and torch 2.13.0. Weights, images and tables are rounded to float16 before the pass, so that they are
stored exactly. Run from the project's root: ``python tests/golden/make_timm_logits.py``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import timm
import torch

SMALL = {"embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5}
SQUARE = {"img_size": 32, "patch_size": 8, **SMALL}
CASES = {  # name → (timm's, its options, whether it takes images of any shape)
    "vit": ("vit_base_patch16_224", SQUARE, False),
    "vit_any": ("vit_base_patch16_224", {"dynamic_img_size": True, **SQUARE}, True),
    "flexivit": ("flexivit_base", {"dynamic_img_size": True, **SQUARE}, True),
    "siglip_map": ("vit_base_patch16_siglip_224", {"act_layer": "gelu_tanh", **SQUARE}, False),
    "siglip_gap": ("vit_base_patch16_siglip_gap_224", SQUARE, False),
    "naflex_gap": ("naflexvit_base_patch16_gap", {"patch_size": 8, "pos_embed_grid_size": (6, 6), **SMALL}, True),
    "naflex_map": ("naflexvit_base_patch16_map", {"patch_size": 8, "pos_embed_grid_size": (6, 6), **SMALL}, True),
    "naflex_siglip": ("naflexvit_base_patch16_siglip", {"patch_size": 8, "pos_embed_grid_size": (6, 6), **SMALL}, True),
}
SHAPES = {True: [(24, 40), (32, 32), (8, 8), (72, 16), (16, 64)], False: [(32, 32)] * 3}


def rounded(*shape: int, scale: float) -> torch.Tensor:
    return (torch.randn(*shape) * scale).half().float()


def logits(model: torch.nn.Module, image: torch.Tensor, naflex: bool) -> torch.Tensor:
    if not naflex:
        return model(image.permute(2, 0, 1)[None])[0]
    rows, cols = image.shape[0] // 8, image.shape[1] // 8
    patches = image.view(rows, 8, cols, 8, 3).transpose(1, 2).reshape(1, rows * cols, -1)
    coords = torch.cartesian_prod(torch.arange(rows), torch.arange(cols))[None]
    return model({"patches": patches, "patch_coord": coords, "patch_valid": torch.ones(1, rows * cols, dtype=torch.bool)})[0]


def big_vision_arrays() -> dict[str, torch.Tensor]:
    """Random weights of SigLIP 2's image tower (NaFlex) under big_vision's names, blocks stacked."""
    attention = {
        **{f"{name}/kernel": (16, 2, 8) for name in ("query", "key", "value")},
        **{f"{name}/bias": (2, 8) for name in ("query", "key", "value")},
        "out/kernel": (2, 8, 16),
        "out/bias": (16,),
    }
    attention = {f"MultiHeadDotProductAttention_0/{name}": shape for name, shape in attention.items()}
    norm = {"scale": (16,), "bias": (16,)}
    mlp = {"Dense_0/kernel": (16, 64), "Dense_0/bias": (64,), "Dense_1/kernel": (64, 16), "Dense_1/bias": (16,)}
    mlp = {f"MlpBlock_0/{name}": shape for name, shape in mlp.items()}
    norms = [{f"LayerNorm_{i}/{name}": shape for name, shape in norm.items()} for i in (0, 1)]
    block = {**norms[0], **norms[1], **attention, **mlp}
    shapes = {
        "embedding/kernel": (192, 16),
        "embedding/bias": (16,),
        "pos_embedding": (6, 6, 16),
        **{f"Transformer/encoderblock/{name}": (2, *shape) for name, shape in block.items()},
        **{f"Transformer/encoder_norm/{name}": shape for name, shape in norm.items()},
        **{f"MAPHead_0/{name}": shape for name, shape in {"probe": (1, 1, 16), **norms[0], **attention, **mlp}.items()},
    }
    return {f"params/img/{name}": rounded(*shape, scale=0.3) for name, shape in shapes.items()}


@torch.no_grad()
def main() -> None:
    torch.manual_seed(0)
    images = {kind: [rounded(*shape, 3, scale=1.0) for shape in shapes] for kind, shapes in SHAPES.items()}
    out = {f"image/{int(kind)}/{i}": image for kind, some in images.items() for i, image in enumerate(some)}
    for name, (timms, options, kind) in CASES.items():
        model = timm.create_model(timms, **options).eval()
        for parameter in model.parameters():
            parameter.copy_(rounded(*parameter.shape, scale=0.3))
        out |= {f"{name}/state/{key}": value for key, value in model.state_dict().items()}
        out[f"{name}/logits"] = torch.stack([logits(model, image, name.startswith("naflex")) for image in images[kind]])
    arrays = big_vision_arrays()
    out |= {f"big_vision/state/{key}": value for key, value in arrays.items()}
    model = timm.create_model("naflexvit_base_patch16_siglip", **CASES["naflex_siglip"][1] | {"num_classes": 0}).eval()
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/weights.npz", **{key: value.numpy() for key, value in arrays.items()})
        model.load_pretrained(f"{folder}/weights.npz")
    out["big_vision/logits"] = torch.stack([logits(model, image, True) for image in images[True]])
    exact = {key: value.numpy().astype(np.float32 if key.endswith("logits") else np.float16) for key, value in out.items()}
    np.savez_compressed(Path(__file__).parent / "data" / "timm_logits.npz", **exact)


if __name__ == "__main__":
    main()
