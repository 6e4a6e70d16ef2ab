"""Native-resolution images in, packed batches out: the input side of NaViT-style vision transformers.

    import patchpack as pp

    for batch in pp.load("train-{0000..0099}.tar", pp.recipes.navit(seq_len=1024), shuffle=True):
        batch.patches.shape                      # (rows, seq_len, patch_size * patch_size * 3)

Importing this loads neither torch nor webdataset: they come with `load`, `Planner`, `Painter`, `Pack` and `to_device`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from patchpack._saved import allow_loading
from patchpack.errors import (
    ConfigError,
    DecodeError,
    IndexFileError,
    PackingError,
    PatchpackError,
    SampleError,
    ShapeError,
    ShardError,
    SizeError,
    SourceError,
    StaleIndexError,
    TargetError,
    WorkerError,
)
from patchpack.paint.batch import (
    Ragged,
    attention_mask,
    fill_rate,
    normalize,
    pool_mask,
    ragged,
    token_mask,
)
from patchpack.paint.digest import digest
from patchpack.paint.patchify import patchify, unpatchify, unpatchify_clip
from patchpack.paint.text import (
    RaggedText,
    ragged_text,
    text_attention_mask,
    text_mask,
    text_pool_mask,
    text_position_ids,
)
from patchpack.paint.unpack import PackedImage, unpack
from patchpack.paint.validate import validate
from patchpack.plan import recipes
from patchpack.plan.balance import AttentionCost, balance, imbalance, row_costs
from patchpack.plan.crop import BudgetCrop, CropPolicy, RandomCrop, RandomResizedCrop, WholeImage
from patchpack.plan.drop import Beta, ByResolution, Constant, DropPolicy, NoDrop, Scheduled
from patchpack.plan.image import ImagePlan, plan_image
from patchpack.plan.normalize import CLIP, HALF, IMAGENET, MeanStd, PerImage
from patchpack.plan.packing import (
    BestFit,
    FirstFit,
    Item,
    Lookahead,
    NextFit,
    Packer,
    PackerFactory,
    Packing,
    Prices,
    Row,
    TightPacking,
    learn_prices,
    lower_bound,
    pack_histogram,
    pack_lengths,
    pack_stream,
    pack_tight,
)
from patchpack.plan.planner import EpochPlanner
from patchpack.plan.positions import Absolute, Fractional, PositionScheme, Raster
from patchpack.plan.recipe import Recipe
from patchpack.plan.resize import (
    LongestSide,
    NaFlex,
    Native,
    NaViT,
    Pix2Struct,
    PlacingPolicy,
    ResizePolicy,
    SmartResize,
    Square,
)
from patchpack.plan.study import Study, study
from patchpack.plan.table import plan_table
from patchpack.plan.video import Video
from patchpack.report import BatchInfo, Rejection, Report, ShardFault
from patchpack.types import BatchPlan, Clip, Grid, PackedBatch, PlanTable, Sample, Size

if TYPE_CHECKING:
    from patchpack import adapters, samples
    from patchpack.paint.decode import decode
    from patchpack.stream.dataset import Painter
    from patchpack.stream.device import to_device
    from patchpack.stream.distributed import global_images
    from patchpack.stream.epoch_plan import EpochPlan
    from patchpack.stream.header import read_size
    from patchpack.stream.index import Index
    from patchpack.stream.indexed import IndexPlanner
    from patchpack.stream.loader import Loader, load
    from patchpack.stream.packed import PackedShards
    from patchpack.stream.pictures import ImageBatches, pack_images
    from patchpack.stream.replay import replay
    from patchpack.stream.sampler import Planner
    from patchpack.stream.stage import Pack

__version__ = "0.1.0.dev0"

allow_loading([PackedBatch, BatchInfo, Report, Rejection, ShardFault])

# name → module that is imported when it is first asked for: torch, webdataset and Pillow wait until then
_LAZY = {
    "EpochPlan": "patchpack.stream.epoch_plan",
    "ImageBatches": "patchpack.stream.pictures",
    "Index": "patchpack.stream.index",
    "IndexPlanner": "patchpack.stream.indexed",
    "Loader": "patchpack.stream.loader",
    "Pack": "patchpack.stream.stage",
    "PackedShards": "patchpack.stream.packed",
    "Painter": "patchpack.stream.dataset",
    "Planner": "patchpack.stream.sampler",
    "decode": "patchpack.paint.decode",
    "global_images": "patchpack.stream.distributed",
    "load": "patchpack.stream.loader",
    "pack_images": "patchpack.stream.pictures",
    "read_size": "patchpack.stream.header",
    "replay": "patchpack.stream.replay",
    "to_device": "patchpack.stream.device",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _LAZY:
        value = getattr(import_module(_LAZY[name]), name)
    elif name in ("adapters", "samples", "testing", "model"):
        value = import_module(f"patchpack.{name}")
    else:
        raise AttributeError(f"module 'patchpack' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, "adapters", "samples", "testing", "model"})


__all__ = [
    # carry
    "load", "Loader", "pack_images", "ImageBatches",
    "Planner", "Index", "IndexPlanner", "EpochPlan", "PackedShards", "Painter", "Pack", "Report", "BatchInfo", "Rejection",
    "ShardFault", "Sample", "Clip", "to_device", "global_images", "replay", "samples",
    # feed existing models
    "adapters",
    # decide
    "Recipe", "recipes", "plan_table", "plan_image", "ImagePlan", "EpochPlanner", "PlanTable", "BatchPlan", "Size", "Grid",
    "ResizePolicy", "PlacingPolicy", "NaViT", "Pix2Struct", "NaFlex", "SmartResize", "LongestSide", "Square", "Native",
    "CropPolicy", "WholeImage", "RandomResizedCrop", "RandomCrop", "BudgetCrop",
    "DropPolicy", "NoDrop", "Constant", "Beta", "ByResolution", "Scheduled",
    "PositionScheme", "Absolute", "Fractional", "Raster", "Video",
    "Packer", "PackerFactory", "FirstFit", "BestFit", "NextFit", "Lookahead", "Prices", "learn_prices", "Item", "Row",
    "Packing", "pack_lengths", "pack_histogram", "pack_stream", "pack_tight", "TightPacking", "lower_bound",
    "balance", "imbalance", "row_costs", "AttentionCost", "study", "Study",
    "MeanStd", "PerImage", "HALF", "IMAGENET", "CLIP",
    # paint
    "PackedBatch", "token_mask", "attention_mask", "pool_mask", "ragged", "Ragged", "unpack", "PackedImage", "fill_rate",
    "text_mask", "text_attention_mask", "text_pool_mask", "text_position_ids", "ragged_text", "RaggedText",
    "validate", "digest", "normalize", "patchify", "unpatchify", "unpatchify_clip", "decode", "read_size",
    # errors
    "PatchpackError", "ConfigError", "ShapeError", "PackingError", "SourceError", "ShardError", "IndexFileError",
    "StaleIndexError", "WorkerError", "SampleError", "DecodeError", "TargetError", "SizeError",
]  # fmt: skip
