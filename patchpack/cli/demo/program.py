"""Train a small NaViT on packed rows of native-resolution images, then test the model on held-out images."""

from collections.abc import Iterator

import torch

import patchpack as pp
from patchpack.model import NaViT, Step, accuracy, fit

EPOCHS = 40

# the paper's recipe at laptop size: resolution and token drop drawn per image, rows of 256 tokens with up to 48 images
recipe = pp.recipes.navit(resize=pp.resize.NaViT((48, 128), eval_resolution=96), seq_len=256, max_images=48, rows_per_batch=2)


def make_model() -> NaViT:
    """Return a model of 1.1 M parameters, which gives a row of logits per slot."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # a small model gains little from more threads
    return NaViT(patch_size=16, width=128, depth=4, heads=4, num_classes=len(pp.samples.CLASS_NAMES))


def train(model: NaViT, loader: pp.Loader, epochs: int = EPOCHS) -> Iterator[Step]:
    """Train one optimizer step per batch. Every epoch draws new resolutions and drops other tokens.

    Args:
        model: the model.
        loader: its batches.
        epochs: number of passes over the data.
    """
    return fit(model, loader, epochs=epochs, peak_lr=2e-3, warm_up=0.1)


if __name__ == "__main__":
    model = make_model()
    for epoch, batch, loss, seconds in train(model, pp.load(pp.samples.shards("train"), recipe)):
        print(f"epoch {epoch:2d}  loss {loss:.3f}  fill {pp.fill_rate(batch):.2f}  {batch.info.packed / seconds:.0f} img/s")
    print(f"held-out accuracy: {accuracy(model, pp.load(pp.samples.shards('val'), recipe.for_eval())):.3f}")
