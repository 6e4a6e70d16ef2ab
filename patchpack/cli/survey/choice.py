"""The row lengths and slots that ``patchpack plan`` compares, and the combination it recommends."""

from __future__ import annotations

from typing import NamedTuple

from patchpack.errors import ConfigError
from patchpack.plan import recipes
from patchpack.plan.recipe import Recipe
from patchpack.plan.study import Study

_SEQ_LENS = (512, 1024, 2048, 4096)
_NEAR = 0.005  # fills that differ by less count as equal
_BINDING = 0.01  # share of rows that may run out of slots
_FEW = 10  # rows; an epoch's last rows are emptier than the others
_ENOUGH = 4  # images per row; with fewer, each image is more than a quarter of the row


class Choice(NamedTuple):
    """The recommended combination of row length and slots, and the reason for it."""

    study: Study
    reason: str


def combinations(name: str, seq_lens: list[int] | None, max_images: list[int] | None) -> list[Recipe]:
    """Return the recipes of a preset, one for every combination of row length and number of slots.

    Args:
        name: name of the preset.
        seq_lens: the row lengths in tokens. None: the lengths among 512, 1024, 2048 and 4096 that hold any image.
        max_images: the numbers of slots per row. None: the number that the preset has.

    Raises:
        ConfigError: the preset puts one image in a row, so that there is nothing to choose.
    """
    preset = recipes.get(name)
    if preset.seq_len is None:
        if seq_lens or max_images:
            raise ConfigError(f"{name} puts one image in a row: leave --seq-len and --max-images out")
        return [preset]
    if seq_lens is None:
        bound = max((preset.resize.bound(p) or 1) for p in preset.patch_sizes)
        seq_lens = [n for n in _SEQ_LENS if n >= bound] or [bound, 2 * bound, 4 * bound]
    own = {seq_len: max_images or [recipes.get(name, seq_len=seq_len).max_images] for seq_len in sorted(set(seq_lens))}
    return [recipes.get(name, seq_len=n, max_images=slots) for n, several in own.items() for slots in sorted(set(several))]


def recommend(studies: list[Study]) -> Choice:
    """Choose the good combination with the shortest rows. Of several with equal rows, choose the one with the fewest slots.

    A combination is good if its rows seldom run out of slots, hold at least four images, and are at most half a percent less
    full than the rows of the fullest combination (`Study.steady_fill_rate`). If no combination is good, rows with fewer images
    are allowed first, then rows that run out of slots.
    """
    free = [s for s in studies if s.out_of_slots <= _BINDING]
    pool = free or [s for s in studies if s.out_of_slots == min(s.out_of_slots for s in studies)]
    ample = [s for s in pool if s.images_per_row.mean >= _ENOUGH]
    ample = pool if len(ample) in (0, len(pool)) else ample
    fullest = max(ample, key=lambda s: s.steady_fill_rate)
    near = [s for s in ample if s.steady_fill_rate >= fullest.steady_fill_rate - _NEAR]
    best = min(near, key=lambda s: (s.row_lens.max(), s.recipe.max_images))
    fill = f"{100 * best.steady_fill_rate:.1f} % full"
    if len(studies) == 1:
        why = f"it is the only combination; its rows are {fill}"
    elif best is fullest:
        why = f"no others are fuller: {fill}"
    else:
        why = f"{fill}, and the shortest within half a point of the fullest ({100 * fullest.steady_fill_rate:.1f} %)"
        why += "" if ample is pool else f" of those with at least {_ENOUGH} images a row"
    slots, images = best.recipe.max_images, best.images_per_row
    span = " to ".join(f"{n:.0f}" for n in dict.fromkeys((images.min, images.max)))
    why += f"; {span} images in a row" if slots > 1 else "; one image in a row"
    if best.out_of_slots > _BINDING:
        enough = 1 << int(2 * best.row_lens.max() / best.tokens.mean).bit_length()  # a row of small images holds twice the mean
        why += f", but {100 * best.out_of_slots:.0f} % of rows run out of their {slots} slots: try --max-images {enough}"
    elif slots > 1:
        why += f", for which {slots} slots are enough"
    if slots > 1 and images.mean < _ENOUGH:
        why += f", which is few: under {_ENOUGH} in the mean"
    why += f"; 95 % of images wait for {best.waits.p95:,.0f} others or fewer, the last for {best.longest_wait:,}"
    if best.num_rows < _FEW:
        images_seen = f"{best.num_images:,} image{'' if best.num_images == 1 else 's'}"
        why += f". So few rows say little: give it more than {images_seen}"
    return Choice(best, why)


def row_lens_of(study: Study) -> str:
    """Return the number of tokens per row as text. If rows differ in length, the text gives the shortest and the longest."""
    low, high = int(study.row_lens.min()), int(study.row_lens.max())
    return f"{low}" if low == high else f"{low}-{high}"
