"""Train a small NaViT on packed rows of native-resolution images, then measure it on held-out ones."""

import math
import time
from collections.abc import Iterator

import torch

import patchpack as pp
from patchpack.model import NaViT, cross_entropy

EPOCHS, PEAK_LR, WARM_UP = 40, 2e-3, 0.1

# the paper's recipe at laptop size: resolution and token drop drawn per image, rows of 256 tokens, up to 48 images each
recipe = pp.recipes.navit(resize=pp.NaViT((48, 128), eval_resolution=96), seq_len=256, max_images=48, rows=2)


def make_model() -> NaViT:
    """1.1 M parameters; a logit row per slot."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # so small a model gains little from more, and stalls where the cores are shared
    return NaViT(patch_size=16, width=128, depth=4, heads=4, num_classes=len(pp.samples.CLASS_NAMES))


def train(model: NaViT, loader: pp.Loader, epochs: int = EPOCHS) -> Iterator[tuple[int, pp.PackedBatch, float, float]]:
    """One optimizer step per batch; yields (epoch, batch, loss, seconds) after each."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LR, weight_decay=0.05)
    for epoch in range(epochs):
        done = (epoch + 1) / epochs
        rate = min(done / WARM_UP, 0.5 + 0.5 * math.cos(math.pi * max(0.0, done - WARM_UP) / (1 - WARM_UP)))
        optimizer.param_groups[0]["lr"] = PEAK_LR * max(rate, 0.01)
        loader.set_epoch(epoch)  # other resolutions, other tokens dropped
        start = time.perf_counter()
        for batch in loader:
            loss = cross_entropy(model(batch), batch.targets)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            now = time.perf_counter()
            yield epoch, batch, loss.item(), now - start
            start = now


@torch.no_grad()
def accuracy(model: NaViT, loader: pp.Loader) -> float:
    """Share of images whose best logit is their class; every image once."""
    right = total = 0
    for batch in loader:
        right += int((model(batch).argmax(-1) == batch.targets)[batch.slot_mask].sum())
        total += int(batch.slot_mask.sum())
    return right / total


if __name__ == "__main__":
    model = make_model()
    for epoch, batch, loss, seconds in train(model, pp.load(pp.samples.shards("train"), recipe)):
        print(f"epoch {epoch:2d}  loss {loss:.3f}  fill {pp.fill_rate(batch):.2f}  {batch.info['packed'] / seconds:.0f} img/s")
    print(f"held-out accuracy: {accuracy(model, pp.load(pp.samples.shards('val'), recipe.for_eval())):.3f}")
