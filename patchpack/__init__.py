"""The input side of NaViT-style vision transformers: from images at their native resolution to packed batches.

    import patchpack as pp

    for batch in pp.load("train-{0000..0099}.tar", pp.recipes.navit(seq_len=1024), shuffle=True):
        batch.patches.shape                      # (rows, seq_len, patch_size * patch_size * 3)

``import patchpack`` imports neither torch nor webdataset. They are imported at the first use of `load`, `Planner`, `Painter`,
`Pack` or `standardize`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from patchpack import errors
from patchpack._saved import allow_loading
from patchpack._version import __version__ as __version__
from patchpack.batch import text_views as text
from patchpack.batch.digest import digest
from patchpack.batch.packed import PackedBatch
from patchpack.batch.unpack import unpack
from patchpack.batch.validate import validate
from patchpack.batch.views import attention_mask, fill_rate, pool_mask, ragged, token_mask
from patchpack.batch_info import BatchInfo
from patchpack.losses import Rejection, ShardFault
from patchpack.plan import packing, recipes
from patchpack.plan.image import plan_image
from patchpack.plan.policies import crop, drop, normalize, positions, resize
from patchpack.plan.policies.video import Video
from patchpack.plan.recipe import Recipe
from patchpack.plan.study import study
from patchpack.report import Report
from patchpack.source_counts import SourceCounts
from patchpack.types import Clip, Sample

if TYPE_CHECKING:
    from patchpack import adapters, model, samples, testing
    from patchpack.batch.device import standardize
    from patchpack.stream.distributed import global_images
    from patchpack.stream.index import Index
    from patchpack.stream.load import load
    from patchpack.stream.loader import Loader
    from patchpack.stream.packed import PackedShards
    from patchpack.stream.painting.painter import Painter
    from patchpack.stream.pictures import pack_images
    from patchpack.stream.planning.planner import Planner
    from patchpack.stream.policy import ErrorPolicy
    from patchpack.stream.replay import replay
    from patchpack.stream.sample.source import Source
    from patchpack.stream.sources.mix import Mix
    from patchpack.stream.sources.opening import open_source
    from patchpack.stream.stage import Pack

allow_loading([PackedBatch, BatchInfo, Report, Rejection, ShardFault, SourceCounts])

# name → module that is imported at the first access, because it imports torch, webdataset or Pillow
_LAZY = {
    "ErrorPolicy": "patchpack.stream.policy",
    "Index": "patchpack.stream.index",
    "Loader": "patchpack.stream.loader",
    "Mix": "patchpack.stream.sources.mix",
    "Pack": "patchpack.stream.stage",
    "PackedShards": "patchpack.stream.packed",
    "Painter": "patchpack.stream.painting.painter",
    "Planner": "patchpack.stream.planning.planner",
    "Source": "patchpack.stream.sample.source",
    "global_images": "patchpack.stream.distributed",
    "load": "patchpack.stream.load",
    "open_source": "patchpack.stream.sources.opening",
    "pack_images": "patchpack.stream.pictures",
    "replay": "patchpack.stream.replay",
    "standardize": "patchpack.batch.device",
}
_FAMILIES = ("adapters", "samples", "testing", "model")


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _LAZY:
        value = getattr(import_module(_LAZY[name]), name)
    elif name in _FAMILIES:
        value = import_module(f"patchpack.{name}")
    else:
        raise AttributeError(f"module 'patchpack' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_FAMILIES})


__all__ = [
    # sources and samples
    "Sample", "Clip",
    # recipes and their policies
    "Recipe", "recipes", "resize", "crop", "drop", "positions", "normalize", "packing", "Video",
    # loading
    "open_source", "Source", "Mix", "load", "ErrorPolicy", "Loader", "Planner", "Painter", "Pack", "Index", "PackedShards",
    "pack_images",
    # batches and functions of batches
    "PackedBatch", "unpack", "token_mask", "attention_mask", "pool_mask", "ragged", "fill_rate", "text", "validate", "digest",
    "standardize", "global_images",
    # reports, errors, and predictions without pixels
    "Report", "Rejection", "errors", "replay", "study", "plan_image",
    # models, sample data, checks for your own policies
    "adapters", "model", "samples", "testing",
]  # fmt: skip
