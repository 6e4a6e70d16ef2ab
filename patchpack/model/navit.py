"""NaViT (2307.06304): a vision transformer over packed rows of native-resolution images, one answer per image.

The trunk runs on the real tokens only (see `patchpack.model.layout`); rows and slots come back at the pooling. So an
image's answer does not depend on its row, its neighbours, the order of its tokens, or what padding holds. For ``torch.compile``
the same model runs in fixed shapes (see `patchpack.model.static`).
"""

from __future__ import annotations

from torch import Tensor, nn

from patchpack.errors import ConfigError, ShapeError
from patchpack.model.attention import Attend, AttentionName, Block, backend, layer_norm
from patchpack.model.embed import FactorizedPositions, PatchEmbed
from patchpack.model.layout import Layout
from patchpack.model.pool import AttentionPool
from patchpack.model.static import StaticLayout
from patchpack.types import PackedBatch


class NaViT(nn.Module):
    """Pre-norm ViT with query-key normalisation, factorised positions, attention pooling, and no bias anywhere.

    Args:
        patch_size: pixels per side of a patch.
        width: values per token; a multiple of `heads`.
        depth: number of blocks.
        heads: attention heads.
        num_classes: logits per image; 0 for none: the model then returns its features.
        mlp_ratio: hidden width of an MLP over `width`.
        max_len: longest side of a grid, in patches.
        attention: ``"auto"``, ``"bucketed"``, ``"dense"`` or a function, see `patchpack.model.attention`. All give the
            same numbers.
        static: fixed shapes for a compiled model: one graph for all batches of equal shape, the same numbers again. Padding
            is computed on, so leave it off where nothing is compiled.

    Raises:
        ConfigError: a number that cannot work, or ``attention="bucketed"`` with static shapes.

    Compiled:
        ``torch.compile(NaViT(..., static=True), fullgraph=True)`` takes a whole `PackedBatch`: nothing of ``keys`` and
        ``info`` is read, so their values, which differ in every batch, do not compile anew. (Code around the model that
        does read them would: give it ``batch._replace(keys=[], info={})``.) The number of rows must not change:
        ``steps_per_epoch=...`` or ``tail="pad"`` keep the last batch of an epoch from being short. Checks that read values
        (grids within `max_len`, segment ids within the slots) are left out in the compiled model; `patchpack.validate`
        has them for a batch of your own making.

    Example:
        >>> model = NaViT(patch_size=4, width=32, depth=2, heads=2, num_classes=10)
        >>> sum(p.numel() for p in model.parameters())
        46176
    """

    def __init__(
        self,
        *,
        patch_size: int,
        width: int,
        depth: int,
        heads: int,
        num_classes: int,
        mlp_ratio: float = 4,
        max_len: int = 128,
        attention: AttentionName | Attend = "auto",
        static: bool = False,
    ) -> None:
        super().__init__()
        for name, value, low in (
            ("patch_size", patch_size, 1), ("width", width, 1), ("depth", depth, 0), ("heads", heads, 1),
            ("num_classes", num_classes, 0), ("max_len", max_len, 1),
        ):  # fmt: skip
            if value < low:
                raise ConfigError(f"{name} must be at least {low}, got {value}")
        if width % heads:
            raise ConfigError(f"width={width} is not a multiple of heads={heads}")
        attend = backend(attention, static=static)
        self.patch_size = patch_size
        self.static = static
        self.embed = PatchEmbed(patch_size=patch_size, width=width)
        self.positions = FactorizedPositions(width=width, max_len=max_len)
        self.blocks = nn.ModuleList(Block(width=width, heads=heads, mlp_ratio=mlp_ratio, attend=attend) for _ in range(depth))
        self.norm = layer_norm(width)
        self.pool = AttentionPool(width=width, heads=heads, mlp_ratio=mlp_ratio)
        self.head = nn.Linear(width, num_classes, bias=False) if num_classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, batch: PackedBatch) -> Tensor:
        """Logits ``[B, E, num_classes]``, zeros in slots without a readable image; without classes, `features`."""
        logits: Tensor = self.head(self.features(batch))
        return logits

    def features(self, batch: PackedBatch) -> Tensor:
        """One vector per slot, ``[B, E, width]``, zeros in slots without a readable image.

        Args:
            batch: of torch tensors; uint8 patches are normalised here, with the batch's `norm`.

        Raises:
            ShapeError: the batch was made for another patch size, or holds a grid longer than `max_len`.
        """
        if not isinstance(batch.patches, Tensor):
            raise ShapeError(f"the model takes a batch of torch tensors, got {type(batch.patches).__name__} patches")
        if batch.patch_size != self.patch_size:
            raise ShapeError(f"the model's patch_size is {self.patch_size}, the batch's is {batch.patch_size}")
        self.positions.check(batch.grid_sizes)
        layout = (StaticLayout if self.static else Layout).of(batch.segment_ids, max_images=batch.slot_mask.shape[1])
        x = self.embed(layout.to_ragged(batch.patches), batch.norm)
        x = x + self.positions(layout.to_ragged(batch.position_ids))
        for block in self.blocks:
            x = block(x, layout)
        pooled: Tensor = self.pool(self.norm(x), layout)
        return pooled
