"""The reference model: ViT, FlexiViT and NaViT over a `PackedBatch`, one row per slot."""

from patchpack.model.loss import cross_entropy
from patchpack.model.vit import NaViT, ViT

__all__ = ["ViT", "NaViT", "cross_entropy"]
