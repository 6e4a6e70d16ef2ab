"""The reference model: ViT, FlexiViT and NaViT over a `PackedBatch`, with one result per slot, losses, and a training loop."""

from patchpack.model import presets
from patchpack.model.contrastive import sigmoid_contrastive, softmax_contrastive
from patchpack.model.loss import cross_entropy, sigmoid_cross_entropy
from patchpack.model.trainer import Step, accuracy, fit
from patchpack.model.video import TemporalPositions, for_video
from patchpack.model.vit import NaViT, ViT

__all__ = [
    "ViT", "NaViT", "presets", "cross_entropy", "sigmoid_cross_entropy", "softmax_contrastive", "sigmoid_contrastive",
    "fit", "Step", "accuracy", "for_video", "TemporalPositions",
]  # fmt: skip
