"""Thin the tables that other code bases made, and write them to `data/`.

``python tests/golden/make_data.py FOLDER`` reads ``FOLDER/goldens``, ``FOLDER/data/sizes`` and ``FOLDER/data/histograms``,
which are not part of the project: `data/README.md` says how each was made. The same tables, numpy and zlib give the same bytes.
Whatever is left out or packed is listed here:

* Integers are stored in the smallest type that holds them.
* Tables of sizes are stored as grids, the size over the patch size (or the factor of Qwen's rule): every size is a multiple of
  it. −1, a refused size, stays −1. Only the tables of rules that this package has are kept.
* Pixels: rows of padding are left out, once they are seen to be zeros. ``<image>__rows`` are the tokens that are kept: all of
  Siglip2, Qwen2-VL, timm and big_vision, every third of Pix2Struct, every fifth of the torchvision backends, and the last one.
* A peer that rounds to grey levels makes at most 256 different float32 per channel. Those are stored once, as ``levels``
  ``[3, 256]``, and a pixel as its number among them, so that every float32 comes back bit for bit.
* `patchify_timm.npz`: only square patches, channel last; the others are the same pixels in another order.
* `packed_masks_positions.npz`: without NaViT's pictures and without the windows of Qwen2.5-VL, which this package does not
  have. The ids of Idefics2 are one flat array, grid after grid.
* `mask_pool_timm.npz`: only the mean; the package does not have the other poolings.
* `vlm_sizes_siglip2_bisection.npz`: only the reference's columns; the exact grid is not another code base's number.
* COCO's sizes are the different ones, most frequent first, and each image's number among them.
* Kernels, tables of positions, pictures, histograms and groups are stored whole.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).parent / "data"
Arrays = dict[str, Any]
Thin = Callable[[Arrays], Arrays]


def smallest(values: Any) -> Any:
    """Return integers in the smallest type that holds them, and anything else as it is."""
    if values.dtype.kind not in "iu":
        return values
    return values.astype(np.result_type(np.min_scalar_type(values.min()), np.min_scalar_type(values.max())))


def only(pattern: str) -> Thin:
    """Return what keeps the arrays whose names match."""
    return lambda arrays: {name: values for name, values in arrays.items() if re.search(pattern, name)}


def grids(arrays: Arrays) -> Arrays:
    """Return sizes as grids, of the rules that `patchpack.plan.policies.resize` has."""
    kept = only("^(hw|patches|budgets|qwen_factors|qwen_minmax_pixels)$")(arrays)
    for name in ("pix2struct", "siglip2", "timm_seq", "timm_seq_maxratio1", "bigvision_naflex", "qwen2", "paddleocr"):
        if name in arrays:
            sizes, units = arrays[name], arrays["qwen_factors" if name in ("qwen2", "paddleocr") else "patches"][:, None, None]
            assert np.all((sizes % units == 0) | (sizes == -1)), name
            kept[name] = np.where(sizes == -1, -1, sizes // units)
    return kept


def pixels(field: str, mask: str | None = None, *, every: int = 1, levels: bool = True) -> Thin:
    """Return what keeps every so many tokens of the pixels in `field`; `mask` is the array that is 0 at padding."""

    def thin(arrays: Arrays) -> Arrays:
        out: Arrays = {}
        for image in dict.fromkeys(name.split("__")[0] for name in arrays):
            fields = {name.split("__")[1]: values for name, values in arrays.items() if name.startswith(f"{image}__")}
            values = fields.pop(field)
            valid = np.arange(len(values)) if mask is None else np.flatnonzero(fields[mask])
            assert not np.delete(values, valid, axis=0).any(), image
            rows = np.unique(np.append(valid[::every], valid[-1]))
            out |= {f"{image}__rows": rows, f"{image}__pixels": values[rows]}
            for name, small in fields.items():
                assert np.array_equal(small.astype(np.int64), small)
                out[f"{image}__{name}"] = small if small.dtype == bool else small.astype(np.int64)
        return numbered(out) if levels else out

    return thin


def numbered(arrays: Arrays) -> Arrays:
    """Return pixels as their numbers among the different values of their channel, and those values."""
    names = [name for name in arrays if name.endswith("__pixels")]
    channels = {name: arrays[name].transpose(0, 2, 1) if arrays[name].ndim == 3 else arrays[name] for name in names}
    channels = {name: values.reshape(-1, 3) for name, values in channels.items()}
    levels = np.full((3, 256), np.nan, dtype=np.float32)
    for channel in range(3):
        found = np.unique(np.concatenate([values[:, channel] for values in channels.values()]))
        levels[channel, : len(found)] = found  # an error where there are more than 256
    out = dict(arrays)
    for name, values in channels.items():
        numbers = np.column_stack([np.searchsorted(found, own) for found, own in zip(levels, values.T, strict=True)])
        length, *rest = arrays[name].shape
        numbers = numbers.reshape(length, -1, 3)
        out[name] = (numbers.transpose(0, 2, 1) if len(rest) == 2 else numbers).reshape(arrays[name].shape)
    return out | {"levels": levels}


def big_vision_pixels(arrays: Arrays) -> Arrays:
    """Return sines as they are, and pictures named as those of the other files."""
    out = {name: values for name, values in arrays.items() if name.startswith("sincos2d")}
    for image in ("img0", "img11", "img16"):
        ids = np.column_stack([arrays[f"{image}_yidx"], arrays[f"{image}_xidx"]])
        out |= {f"{image}__ids": ids, f"{image}__pixels": arrays[f"{image}_patches_p8_n40"]}
    return out


def masks_and_positions(arrays: Arrays) -> Arrays:
    """Return masks and ids, those of Idefics2 in one array."""
    kept = only("^navit.*(_pack_h_w|_mask)$|^pixtral|^qwen.*(_grid_thw|[0-9]_cu_seqlens|_position_ids_merge2)$")(arrays)
    ids = only("^idefics2")(arrays)
    kept["idefics2_side_rows_cols"] = np.array([[int(n) for n in re.findall(r"\d+", name)[1:]] for name in ids])
    kept["idefics2_ids"] = np.concatenate([values.ravel() for values in ids.values()])
    return kept


def different(arrays: Arrays) -> Arrays:
    """Return the different lines of sizes, most frequent first, and the number of each image's."""
    sizes, index, counts = np.unique(arrays["wh"], axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {"wh": sizes[order], "index": np.argsort(order)[index.reshape(-1)]}


def of_the_reference(arrays: Arrays) -> Arrays:
    """Return height, width and the reference's rows and columns."""
    return {name: values[:, :4] for name, values in arrays.items()}


EVERYTHING = only("")
FILES: dict[str, Thin] = {
    "goldens/images": EVERYTHING,
    "goldens/mask_pool_timm": only("_valid$|_is_open$|_x$|_pool_avg$"),
    "goldens/naflex_pixels_bigvision": big_vision_pixels,
    "goldens/packed_masks_positions": masks_and_positions,
    "goldens/patchify_timm": only("__p8x8_(cl|coord)$"),
    "goldens/pi_resize_bigvision": EVERYTHING,
    "goldens/pi_resize_timm_bicubic_aa": EVERYTHING,
    "goldens/pi_resize_timm_bilinear_noaa": EVERYTHING,
    "goldens/pixels_pix2struct_pil_norm": pixels("patches", "attention_mask", every=3, levels=False),
    "goldens/pixels_pix2struct_torchvision_norm": pixels("patches", "attention_mask", every=5, levels=False),
    "goldens/pixels_qwen2vl_pil_p14": pixels("pixel_values_t0"),
    "goldens/pixels_qwen2vl_torchvision_p14": pixels("pixel_values_t0", every=5),
    "goldens/pixels_qwen2vl_torchvision_p16": pixels("pixel_values_t0", every=5),
    "goldens/pixels_siglip2_pil_p16_n36": pixels("pixel_values", "pixel_attention_mask"),
    "goldens/pixels_siglip2_torchvision_p14_n50": pixels("pixel_values", "pixel_attention_mask", every=5),
    "goldens/pixels_siglip2_torchvision_p16_n36": pixels("pixel_values", "pixel_attention_mask", every=5),
    "goldens/pixels_timm_naflex_bicubic_p16_n36": pixels("patches", "patch_valid"),
    "goldens/posemb_resize_bigvision": EVERYTHING,
    "goldens/posemb_resize_timm_hf": EVERYTHING,
    "goldens/resize_sizes_bigvision_naflex": grids,
    "goldens/resize_sizes_hf_timm": grids,
    "goldens/vlm_sizes_siglip2_bisection": of_the_reference,
    "data/histograms/squad11_384": EVERYTHING,
    "data/histograms/wikipedia_512": EVERYTHING,
    "data/sizes/coco2014_trainvalno5k_117263": different,
    "data/sizes/imagenet1k_sample_1000": EVERYTHING,
}


def main(folder: Path) -> None:
    DATA.mkdir(exist_ok=True)
    for source, thin in FILES.items():
        with np.load(folder / f"{source}.npz") as file:
            arrays = thin(dict(file))
        np.savez_compressed(DATA / Path(source).name, **{name: smallest(values) for name, values in arrays.items()})
    groups = "packing_vitpytorch_group_images.json"
    cases = json.loads((folder / "goldens" / groups).read_text())
    (DATA / groups).write_text("\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
