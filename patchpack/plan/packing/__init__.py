"""Lengths to rows under a token budget and a number of slots: as the items arrive, or all at once.

`protocol` says what an online packer is, `greedy` has the paper's, `offline` packs a whole list.
"""

from patchpack.plan.packing.greedy import BestFit, FirstFit, GreedyPacker, NextFit
from patchpack.plan.packing.offline import Packing, pack_lengths
from patchpack.plan.packing.protocol import Item, Packer, PackerFactory, Row, fewest_tokens

__all__ = [
    "BestFit", "FirstFit", "GreedyPacker", "Item", "NextFit", "Packer", "PackerFactory", "Packing", "Row",
    "fewest_tokens", "pack_lengths",
]  # fmt: skip
