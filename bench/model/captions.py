"""Can an image tower and a text tower, trained together on packed rows of pictures and captions, match pictures with captions?

    OMP_NUM_THREADS=1 python -m bench.model.captions [--steps 300] [--seeds 0 1 2] [--results captions.jsonl]

The pictures are the package's samples at their own sizes, 420 to train on and 100 held out. A caption describes the drawing,
``"wide: teal dots on cream"``: shape, colour, texture, and the colour of the ground (`patchpack.samples.draw.captions`). Tokens
are the words of the training captions. All other words share one token.

Both towers are small transformers over packed rows. Attention is block diagonal over texts as it is over images. Each text is
pooled with `text_pool_mask` into the slot of its image. The loss is CLIP's loss over all slots of a batch, computed for a chunk
of logits at a time (`patchpack.model.softmax_contrastive`). The temperature is learned.

Recall at k of a held-out picture is 1 if its own caption is among the k captions with the highest cosine similarity. Two
captions of the same words count as equal, so a picture matches any caption of the same words, and a caption matches any picture
with these words. Chance takes this into account: it is the mean over queries of the probability that k captions, drawn without
replacement, include a match. All 100 held-out captions differ. Of these, 12 are also among the 384 different captions of
training pictures.

The output is a line per seed: pictures per step, fill of the rows with image tokens and with words, mean loss of the first 10
and of the last 10 steps, recall in both directions beside chance, CPU seconds of training, and CPU seconds in total.
"""

from __future__ import annotations

import argparse
import json
import math
import tarfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import patchpack as pp
from patchpack.model import NaViT, presets, softmax_contrastive
from patchpack.samples import draw

TEXT_LEN = 160
END, UNKNOWN = 0, 1


class Words:
    """A word-level tokenizer: one number for each word of some texts, one for all other words, and one that ends a text."""

    def __init__(self, texts: Sequence[str]) -> None:
        words = sorted({word for text in texts for word in text.split()})
        self._numbers = {word: 2 + i for i, word in enumerate(words)}
        self.size = 2 + len(words)

    def __call__(self, text: str) -> list[int]:
        """Return the token ids of a text, at least one."""
        return [*(self._numbers.get(word, UNKNOWN) for word in text.split()), END]


class TextTower(nn.Module):
    """A pre-norm transformer from the texts of packed rows to one feature per slot. A token attends only to its own text."""

    def __init__(self, vocabulary: int, *, width: int, depth: int, heads: int, longest: int = 77) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(longest, width)
        nn.init.normal_(self.places.weight, std=0.02)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, batch: pp.PackedBatch) -> Tensor:
        """Return ``[B, E, width]``, the mean over the tokens of each text, with zeros for a slot without a text."""
        x = self.words(batch.text_ids) + self.places(pp.text.position_ids(batch))
        itself = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)  # padding needs a token to attend to
        mask = (pp.text.attention_mask(batch) | itself)[:, None]
        for block in self.blocks:
            x = block(x, mask)
        pool = pp.text.pool_mask(batch).to(x.dtype)
        return pool @ self.norm(x) / pool.sum(-1, keepdim=True).clamp(min=1)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        rows, tokens, width = x.shape
        q, k, v = self.qkv(self.norms[0](x)).reshape(rows, tokens, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).reshape(rows, tokens, width))
        x = x + self.mlp(self.norms[1](x))
        return x


class TwoTowers(nn.Module):
    """A model that maps images and texts to features in one space, with a learned temperature for comparing them."""

    def __init__(self, vocabulary: int, *, width: int = 96, depth: int = 4, features: int = 64) -> None:
        super().__init__()
        size = presets.Size(width=width, depth=depth, mlp_dim=4 * width, heads=width // 32)
        self.images: NaViT = presets.navit(size, 16, num_classes=0)
        self.texts = TextTower(vocabulary, width=width, depth=2, heads=width // 32)
        self.heads = nn.ModuleList(nn.Linear(width, features, bias=False) for _ in range(2))
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def forward(self, batch: pp.PackedBatch) -> tuple[Tensor, Tensor]:
        """Return image features and text features, ``[B, E, features]`` each. The same slot holds an image and its text."""
        return self.heads[0](self.images(batch)), self.heads[1](self.texts(batch))

    def loss(self, batch: pp.PackedBatch, chunk: int = 256) -> Tensor:
        """Return CLIP's loss over every slot of the batch that holds an image and a text."""
        pairs = batch.slot_mask & pp.text.pool_mask(batch).any(-1)
        return softmax_contrastive(*self(batch), pairs, scale=self.log_scale.exp().clamp(max=100), chunk=chunk)


def write_shards(folder: Path, split: str) -> list[str]:
    """Write the sample shards of a split with a caption ``KEY.txt`` beside every picture. Return the paths."""
    captions = draw.captions(split)
    paths = []
    for source in map(Path, pp.samples.shards(split)):
        with tarfile.open(source) as given, tarfile.open(folder / source.name, "w") as made:
            for member in given:
                key, extension = member.name.split(".")
                made.addfile(member, given.extractfile(member))
                if extension == "cls":
                    text = captions[key].encode()
                    info = tarfile.TarInfo(f"{key}.txt")
                    info.size = len(text)
                    made.addfile(info, BytesIO(text))
        paths.append(str(folder / source.name))
    return paths


def recipe(seed: int = 0, rows: int = 4) -> pp.Recipe:
    """Return a recipe of native sizes.

    The square root of a picture's area is between 48 and 92 pixels, so a picture has about 9 to 33 patches.
    """
    return pp.Recipe(
        resize=pp.resize.Native(128, oversize="shrink"), seq_len=256, max_images=32, rows_per_batch=rows, seed=seed,
        drop=pp.drop.Constant(0.2), augment=None,
    )  # fmt: skip


def train(train_shards: list[str], words: Words, *, steps: int, seed: int, lr: float = 2e-3, rows: int = 4) -> Any:
    """Return a trained pair of towers, the loss of every step, and counts of the contents of the batches."""
    torch.manual_seed(seed)
    model = TwoTowers(words.size)
    loader = pp.load(
        train_shards, recipe(seed, rows), target=None, tokenize=words, text_len=TEXT_LEN, shuffle=1000, steps_per_epoch=steps
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1, cycle_momentum=False)
    losses: list[float] = []
    held = Counter[str]()
    for batch in loader:
        loss = model.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        held += Counter({
            "pictures": batch.info.packed,
            "tokens": int(pp.token_mask(batch).sum()), "room": batch.segment_ids.numel(),
            "words": int(pp.text.mask(batch).sum()), "room for words": batch.text_ids.numel(),
        })  # fmt: skip
    return model.eval(), losses, held


@torch.no_grad()
def features(model: TwoTowers, shards: list[str], words: Words) -> tuple[Tensor, Tensor, list[tuple[int, ...]]]:
    """Return picture features, caption features and caption tokens of every held-out sample. Features have length 1."""
    pictures, texts, captions = [], [], []
    for batch in pp.load(shards, recipe().for_eval(), target=None, tokenize=words, text_len=TEXT_LEN):
        both = [F.normalize(value, dim=-1) for value in model(batch)]
        pictures.append(both[0][batch.slot_mask])
        texts.append(both[1][batch.slot_mask])
        captions += [tuple(image.text_ids.tolist()) for image in pp.unpack(batch)]
    return torch.cat(pictures), torch.cat(texts), captions


def recall(queries: Tensor, others: Tensor, right: Tensor, k: int) -> float:
    """Return the share of queries with a match among the k nearest others.

    `right` marks matches, bool ``[queries, others]``.
    """
    nearest = (queries @ others.T).topk(k).indices
    return float(right.gather(1, nearest).any(1).float().mean())


def chance(right: Tensor, k: int) -> float:
    """Return the recall that k others drawn without replacement would give."""
    n, counts = right.shape[1], right.sum(1).tolist()
    return sum(1 - math.comb(n - count, k) / math.comb(n, k) for count in counts) / len(counts)


def run(folder: Path, *, steps: int, seed: int) -> dict[str, Any]:
    """Train and evaluate with one seed. Return a line of the results."""
    begun = time.process_time()
    train_shards, val_shards = (write_shards(folder, split) for split in ("train", "val"))
    words = Words(list(draw.captions("train").values()))
    model, losses, held = train(train_shards, words, steps=steps, seed=seed)
    trained = time.process_time()
    pictures, texts, captions = features(model, val_shards, words)
    numbers = {caption: i for i, caption in enumerate(dict.fromkeys(captions))}
    number = torch.tensor([numbers[caption] for caption in captions])
    right = number[:, None] == number[None]
    line: dict[str, Any] = {"seed": seed, "steps": steps, "held out": len(captions), "different captions": len(numbers)}
    line["pictures a step"] = round(held["pictures"] / len(losses), 1)
    line["fill"] = [round(held["tokens"] / held["room"], 3), round(held["words"] / held["room for words"], 3)]
    count = min(10, len(losses))
    line["loss"] = [round(sum(part) / count, 3) for part in (losses[:count], losses[-count:])]
    for k in (1, 5):
        line[f"image → text @{k}"] = round(recall(pictures, texts, right, k), 3)
        line[f"text → image @{k}"] = round(recall(texts, pictures, right, k), 3)
        line[f"chance @{k}"] = round(chance(right, k), 3)
    line["CPU seconds"] = [round(trained - begun, 1), round(time.process_time() - begun, 1)]
    return line


def lines(*, steps: int, seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield a line of the results per seed."""
    with TemporaryDirectory() as folder:
        for seed in seeds:
            yield run(Path(folder), steps=steps, seed=seed)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, evaluate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="of training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--results", type=Path, help="a file that gets a line of JSON per seed")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for line in lines(steps=options.steps, seeds=options.seeds):
        text = json.dumps(line, ensure_ascii=False)
        print(text, flush=True)
        if options.results:
            with options.results.open("a") as file:
                file.write(text + "\n")


if __name__ == "__main__":
    main()
