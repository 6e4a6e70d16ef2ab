"""Packing of items into rows with a limit on tokens and on slots, either as the items arrive or all at once.

`protocol` defines the interface of an online packer. `greedy` has the packer of the NaViT paper and its alternatives. `offline`
packs a whole list of lengths. `histogram` packs counts of lengths.
"""

from patchpack.plan.packing.balance import AttentionCost, balance, imbalance, row_costs
from patchpack.plan.packing.bounds import lower_bound
from patchpack.plan.packing.greedy import BestFit, FirstFit, GreedyPacker, NextFit
from patchpack.plan.packing.histogram import pack_histogram
from patchpack.plan.packing.lengths import Packing
from patchpack.plan.packing.lookahead import Lookahead, pack_stream
from patchpack.plan.packing.offline import pack_lengths
from patchpack.plan.packing.patterns import Patterns
from patchpack.plan.packing.prices import Prices, learn_prices
from patchpack.plan.packing.protocol import Item, Packer, PackerFactory, Row, fewest_tokens
from patchpack.plan.packing.tight import TightPacking, pack_tight

__all__ = [
    "AttentionCost", "BestFit", "FirstFit", "GreedyPacker", "Item", "Lookahead", "NextFit", "Packer", "PackerFactory",
    "Packing", "Patterns", "Prices", "Row", "TightPacking", "fewest_tokens", "balance", "imbalance", "learn_prices",
    "lower_bound", "pack_histogram", "pack_lengths", "pack_stream", "pack_tight", "row_costs",
]  # fmt: skip
