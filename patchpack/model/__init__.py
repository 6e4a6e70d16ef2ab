"""The reference model: a small NaViT that takes a `PackedBatch` and returns one row per slot."""

from patchpack.model.loss import cross_entropy
from patchpack.model.navit import NaViT

__all__ = ["NaViT", "cross_entropy"]
