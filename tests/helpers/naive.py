"""Slow reference implementations: every rule again, from its definition, in loops, and independent of the fast code."""

from __future__ import annotations

import math
from fractions import Fraction

# ---------------------------------------------------------------------------------------------------------- randomness


def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 of Salmon et al. (SC 2011), in Python integers."""
    c = list(counter)
    k = list(key)
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c[0], 1 << 32)
        high1, low1 = divmod(0xCD9E8D57 * c[2], 1 << 32)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B9) % (1 << 32), (k[1] + 0xBB67AE85) % (1 << 32)]
    return c[0], c[1], c[2], c[3]


def uniform(seed: int, epoch: int, key_hash: int, stage: int, draw: int) -> float:
    """One draw: two to a block, 53 bits of each pair of words."""
    counter = (key_hash % (1 << 32), key_hash >> 32, epoch, (stage << 24) + draw // 2)
    words = philox4x32(counter, (seed % (1 << 32), seed >> 32))
    high, low = words[2 * (draw % 2)], words[2 * (draw % 2) + 1]
    return float(Fraction((high * (1 << 32) + low) >> 11, 1 << 53))


# -------------------------------------------------------------------------------------------------------------- resize


def root_floor(x: Fraction) -> int:
    """Largest integer whose square is at most x."""
    k = math.isqrt(math.floor(x))
    while Fraction(k + 1) ** 2 <= x:
        k += 1
    while Fraction(k) ** 2 > x:
        k -= 1
    return k


def pix2struct(h: int, w: int, budget: int) -> tuple[int, int]:
    """Floors of the two sides of the scaled image, in patches, each in 1 … budget."""
    rows, cols = root_floor(Fraction(budget * h, w)), root_floor(Fraction(budget * w, h))
    return min(max(rows, 1), budget), min(max(cols, 1), budget)


def naflex(h: int, w: int, p: int, budget: int, *, upscale: bool = True) -> tuple[int, int]:
    """Every scale at which a side is a whole number of patches, and 100: the largest feasible one wins."""

    def grid(scale: Fraction) -> tuple[int, int]:
        return math.ceil(scale * h / p), math.ceil(scale * w / p)

    if not upscale and math.prod(grid(Fraction(1))) <= budget:
        return grid(Fraction(1))
    scales = [Fraction(100)]
    for k in range(1, budget + 1):
        scales += [Fraction(k * p, h), Fraction(k * p, w)]
    return grid(max(s for s in scales if s <= 100 and math.prod(grid(s)) <= budget))


def naflex_by_bisection(h: int, w: int, p: int, budget: int, *, upscale: bool = True) -> tuple[int, int]:
    """Halve the interval from 1e-6 to 100 until it is shorter than 1e-5; its lower end is the scale."""

    def grid(scale: float) -> tuple[int, int]:
        return math.ceil(h * scale / p), math.ceil(w * scale / p)

    low, high = 1e-5 / 10, 100.0
    while high - low >= 1e-5:
        middle = (low + high) / 2
        if math.prod(grid(middle)) <= budget:
            low = middle
        else:
            high = middle
    return grid(low if upscale else min(low, 1.0))


def navit(h: int, w: int, p: int, area: int) -> tuple[int, int]:
    """Floors of the sides of an image of this area, in patches; a thin image becomes one line of at most area / p**2."""
    rows = root_floor(Fraction(area * h, w) / p**2)
    cols = root_floor(Fraction(area * w, h) / p**2)
    cap = max(1, area // p**2)
    if rows == 0:
        return 1, max(1, min(cols, cap))
    if cols == 0:
        return max(1, min(rows, cap)), 1
    return rows, cols


def smart_resize(h: int, w: int, f: int, low: int, high: int, *, min_side: int | None = None) -> tuple[int, int]:
    """Sides in pixels; (0, 0) where the aspect ratio is above 200."""
    if min_side is not None and h < min_side:
        h, w = min_side, round(w * min_side / h)
    if min_side is not None and w < min_side:
        h, w = round(h * min_side / w), min_side
    if max(h, w) > 200 * min(h, w):
        return 0, 0
    height, width = round(h / f) * f, round(w / f) * f
    if height * width > high:
        shrink = math.sqrt(h * w / high)
        return max(f, math.floor(h / shrink / f) * f), max(f, math.floor(w / shrink / f) * f)
    if height * width < low:
        grow = math.sqrt(low / (h * w))
        return math.ceil(h * grow / f) * f, math.ceil(w * grow / f) * f
    return height, width


def longest_side(h: int, w: int, p: int, longest: int, *, upscale: bool = False) -> tuple[int, int]:
    """Sides divided by ``max(h, w) / longest`` and floored, then rounded up to patches."""
    ratio = Fraction(max(h, w), longest)
    if ratio > 1 or upscale:
        h, w = math.floor(h / ratio), math.floor(w / ratio)
    return max(1, math.ceil(Fraction(h, p))), max(1, math.ceil(Fraction(w, p)))


# ---------------------------------------------------------------------------------------------------------------- crop


def random_resized_crop(
    h: int, w: int, u: list[float], scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Ten tries of an area and an aspect ratio, then the middle; u: two draws for the place, then two for each try."""
    for k in range(10):
        area = h * w * (scale[0] + u[2 + 2 * k] * (scale[1] - scale[0]))
        aspect = math.exp(math.log(ratio[0]) + u[3 + 2 * k] * (math.log(ratio[1]) - math.log(ratio[0])))
        height, width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 1 <= height <= h and 1 <= width <= w:
            return math.floor(u[0] * (h - height + 1)), math.floor(u[1] * (w - width + 1)), height, width
    height, width = h, w
    if w / h < ratio[0]:
        height = min(h, max(1, round(w / ratio[0])))
    elif w / h > ratio[1]:
        width = min(w, max(1, round(h * ratio[1])))
    return (h - height) // 2, (w - width) // 2, height, width


# ----------------------------------------------------------------------------------------------------------- positions


def fractional(rows: int, cols: int, *, keep_aspect: bool, centered: bool) -> list[tuple[Fraction, Fraction]]:
    """(y, x) of every patch as a share of the image, in raster order."""
    start = Fraction(1, 2) if centered else Fraction(0)
    over_y, over_x = (max(rows, cols),) * 2 if keep_aspect else (rows, cols)
    return [((row + start) / over_y, (col + start) / over_x) for row in range(rows) for col in range(cols)]


# ------------------------------------------------------------------------------------------------------------- packing


def first_fit(lengths: list[int], seq_len: int, max_images: int | None) -> list[list[int]]:
    """Each item goes into the first row, in order of opening, that has room and a slot for it."""
    rows: list[list[int]] = []
    for i, length in enumerate(lengths):
        for row in rows:
            if _fits(row, length, lengths, seq_len, max_images):
                row.append(i)
                break
        else:
            rows.append([i])
    return rows


def best_fit(lengths: list[int], seq_len: int, max_images: int | None) -> list[list[int]]:
    """Each item goes into the row it leaves fullest; of equally full ones, the one that was changed last."""
    rows: list[list[int]] = []
    by_change: list[list[int]] = []  # the same rows, the one changed last at the end
    for i, length in enumerate(lengths):
        best = None
        for row in reversed(by_change):
            fits = _fits(row, length, lengths, seq_len, max_images)
            if fits and (best is None or _sum(row, lengths) > _sum(best, lengths)):
                best = row
        if best is None:
            best = []
            rows.append(best)
        best.append(i)
        by_change = [row for row in by_change if row is not best] + [best]
    return rows


def next_fit(lengths: list[int], seq_len: int, max_images: int | None) -> list[list[int]]:
    """Each item goes into the newest row, or opens a new one."""
    rows: list[list[int]] = []
    for i, length in enumerate(lengths):
        if rows and _fits(rows[-1], length, lengths, seq_len, max_images):
            rows[-1].append(i)
        else:
            rows.append([i])
    return rows


def online(lengths: list[int], seq_len: int, max_images: int, *, open_rows: int, best: bool) -> list[list[int]]:
    """Rows of a bounded greedy packer in the order they close.

    The oldest open row with room, or with `best` the fullest of those. A row closes when it is full in tokens or images,
    or when another must open and it is the fullest. At the end all close, fullest first. Ties go to the oldest.
    """
    opened: list[list[int]] = []
    closed: list[list[int]] = []
    for i, length in enumerate(lengths):
        able = [row for row in opened if _fits(row, length, lengths, seq_len, max_images)]
        if best and able:
            fullest = max(_sum(row, lengths) for row in able)
            able = [row for row in able if _sum(row, lengths) == fullest]
        if not able and len(opened) == open_rows:
            closed.append(_pop_fullest(opened, lengths))
        if able:
            row = able[0]
        else:
            row = []
            opened.append(row)
        row.append(i)
        if _sum(row, lengths) == seq_len or len(row) == max_images:
            closed.append(opened.pop(next(k for k, other in enumerate(opened) if other is row)))
    while opened:
        closed.append(_pop_fullest(opened, lengths))
    return closed


def _pop_fullest(rows: list[list[int]], lengths: list[int]) -> list[int]:
    sums = [_sum(row, lengths) for row in rows]
    return rows.pop(sums.index(max(sums)))


def _sum(row: list[int], lengths: list[int]) -> int:
    return sum(lengths[i] for i in row)


def _fits(row: list[int], length: int, lengths: list[int], seq_len: int, max_images: int | None) -> bool:
    return _sum(row, lengths) + length <= seq_len and (max_images is None or len(row) < max_images)
