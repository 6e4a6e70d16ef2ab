"""A vision transformer over packed rows of images of any size, with one result per image.

The trunk runs on the real tokens only (see `patchpack.model.layout`). At the end the results are written into slots. An image's
result therefore does not depend on its row, its neighbours, the order of its tokens, or the content of padding. For
``torch.compile`` the same model runs in fixed shapes (see `patchpack.model.static`).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from patchpack.batch.packed import PackedBatch
from patchpack.errors import ConfigError, ShapeError
from patchpack.model.attention import Attend, AttentionName, backend
from patchpack.model.block import Block, BlockStyle
from patchpack.model.embed import PatchEmbed
from patchpack.model.layout import Layout, with_prefix
from patchpack.model.pool import AttentionPool, ClassToken, MeanPool
from patchpack.model.positions import FactorizedPositions
from patchpack.model.rope import Rope2d
from patchpack.model.static import AnyLayout, StaticLayout

Pool = Literal["map", "mean", "class"]


class ViT(nn.Module):
    """A pre-norm ViT whose parts are chosen one by one. `patchpack.model.presets` names the usual choices.

    Args:
        patch_size: pixels per side of a patch. Ignored if `embed` is given. Default 16.
        width: values per token, a multiple of `heads`.
        depth: number of blocks, >= 0.
        heads: number of attention heads, >= 1.
        num_classes: logits per image. With 0, the default, the model has no head and returns its features.
        mlp_dim: hidden width of an MLP. Default None: ``4 · width``.
        embed: module that maps patches to tokens. Default None: a plain `PatchEmbed`.
        positions: module whose result is added to the tokens: one of `patchpack.model.positions` or `waves`, or a custom
            module. Default None: no positions.
        rope: base of rotary positions (see `patchpack.model.rope`), usually 10,000. Default None: no rotary positions.
        style: settings of the blocks: biases, query-key norm, layer scale, activation. Default None: `BlockStyle()`.
        class_token: True adds a class token to each image. Default False.
        registers: number of register tokens that the model adds to each image. Default 0. Rows inside the model are longer by
            the class and register tokens of every slot. The recipe's tokens per row do not include these tokens.
        pool: pooling of an image's tokens to one vector. ``"map"`` (the default) is attention pooling, the MAP head.
            ``"mean"`` is the mean over patches. ``"class"`` is the class token.
        norm: place of the final LayerNorm, ``"before"`` (the default) or ``"after"`` pooling.
        drop_path: probability that a residual branch of the last block is skipped for an image (stochastic depth), in [0, 1).
            The probability grows linearly from 0 at the first block. Default 0.
        attention: ``"auto"`` (the default), the name of another backend in `patchpack.model.attention`, or a function. All
            backends give the same numbers.
        static: True gives fixed shapes for a compiled model. One graph then serves all batches of equal shape, and the results
            are the same. The model also computes on padding, so use False if you do not compile the model. Default False.

    Raises:
        ConfigError: a number is out of its range or does not fit the others, ``pool="class"`` is given without `class_token`,
            or `static` is True with an attention backend that needs ragged tokens.

    Compiled:
        ``torch.compile(ViT(..., static=True), fullgraph=True)`` takes a whole `PackedBatch`. The model does not read ``keys``
        and ``info``. The values of these fields differ in every batch, but cause no recompilation. If other compiled code reads
        these fields, pass ``batch._replace(keys=[], info=pp.report.BatchInfo())`` to that code. The number of rows must not
        change. Use ``steps_per_epoch=...`` or ``tail="pad"``, so that the last batch of an epoch is not shorter. The compiled
        model leaves out checks that read values (grids within `max_len`, segment ids within the slots). For batches that you
        make yourself, `patchpack.validate` checks the values.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        heads: int,
        patch_size: int = 16,
        num_classes: int = 0,
        mlp_dim: int | None = None,
        embed: PatchEmbed | None = None,
        positions: nn.Module | None = None,
        rope: float | None = None,
        style: BlockStyle | None = None,
        class_token: bool = False,
        registers: int = 0,
        pool: Pool = "map",
        norm: Literal["before", "after"] = "before",
        drop_path: float = 0.0,
        attention: AttentionName | Attend = "auto",
        static: bool = False,
    ) -> None:
        super().__init__()
        style = style or BlockStyle()
        for name, value, low in (
            ("patch_size", patch_size, 1), ("width", width, 1), ("depth", depth, 0), ("heads", heads, 1),
            ("num_classes", num_classes, 0), ("registers", registers, 0),
        ):  # fmt: skip
            if value < low:
                raise ConfigError(f"{name} must be at least {low}, got {value}")
        if width % heads:
            raise ConfigError(f"width must be a multiple of heads={heads}, got {width}")
        if pool not in ("map", "mean", "class"):
            raise ConfigError(f"pool must be 'map', 'mean' or 'class', got {pool!r}")
        if pool == "class" and not class_token:
            raise ConfigError("pool='class' reads the class token: pass class_token=True")
        if not 0 <= drop_path < 1:
            raise ConfigError(f"drop_path must be a probability in [0, 1), got {drop_path}")
        attend = backend(attention, static=static)
        mlp_dim = 4 * width if mlp_dim is None else mlp_dim
        self.static, self.heads = static, heads
        self.class_token = class_token
        self.num_prefix = class_token + registers
        self.embed = embed or PatchEmbed(patch_size=patch_size, width=width, bias=style.bias)
        self.positions = positions
        self.rope = None if rope is None else Rope2d(head_width=width // heads, base=rope)
        self.prefix = nn.Parameter(torch.randn(self.num_prefix, width) * width**-0.5) if self.num_prefix else None
        self.blocks = nn.ModuleList(
            Block(
                width=width, heads=heads, mlp_dim=mlp_dim, attend=attend, style=style,
                drop_path=drop_path * i / max(1, depth - 1),
            )
            for i in range(depth)
        )  # fmt: skip
        self.norm = style.norm(width) if norm == "before" else nn.Identity()
        self.pool = (
            AttentionPool(width=width, heads=heads, mlp_dim=mlp_dim, style=style)
            if pool == "map"
            else MeanPool() if pool == "mean" else ClassToken()
        )  # fmt: skip
        self.norm_pooled = style.norm(width) if norm == "after" else nn.Identity()
        self.head = nn.Linear(width, num_classes, bias=style.bias) if num_classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @property
    def patch_size(self) -> int:
        """Pixels per side of the stored kernel's patch."""
        return self.embed.patch_size

    def forward(self, batch: PackedBatch) -> Tensor:
        """Return logits ``[B, E, num_classes]``, with zeros in slots without a readable image.

        If `num_classes` is 0, return the result of `features`.

        Args:
            batch: a batch of torch tensors. Uint8 patches are normalised here, with the batch's `norm`.

        Raises:
            ShapeError: the batch has another patch size and the kernel is not flexible, or the batch has a grid longer than the
                table of positions.
        """
        x, layout = self._trunk(batch)
        return layout.to_slots(self.head(self._pooled(x, layout)))

    def features(self, batch: PackedBatch) -> Tensor:
        """Return one vector per slot, ``[B, E, width]``, the input of the head. Slots without a readable image hold zeros."""
        x, layout = self._trunk(batch)
        return layout.to_slots(self._pooled(x, layout))

    def tokens(self, batch: PackedBatch) -> Tensor:
        """Return one vector per patch after the final norm, ``[B, S, width]``, with zeros at padding.

        `patchpack.unpack` divides the result into images.
        """
        x, layout = self._trunk(batch)
        return layout.to_rows(self.norm(x))[:, : batch.segment_ids.shape[1]]

    def _pooled(self, x: Tensor, layout: AnyLayout) -> Tensor:
        """Return one vector per image, ``[T, width] → [N, width]``."""
        pooled: Tensor = self.norm_pooled(self.pool(self.norm(x), layout, self.num_prefix))
        return pooled

    def _trunk(self, batch: PackedBatch) -> tuple[Tensor, AnyLayout]:
        """Return the tokens after the last block, ``[T, width]``, and their layout.

        The class and register tokens that the model adds are at the end of each row.
        """
        if not isinstance(batch.patches, Tensor):
            raise ShapeError(f"the model takes a batch of torch tensors, got {type(batch.patches).__name__} patches")
        kind = StaticLayout if self.static else Layout
        layout: AnyLayout = kind.of(batch.segment_ids, max_images=batch.slot_mask.shape[1])
        position_ids = layout.to_ragged(batch.position_ids)
        x = self.embed(layout.to_ragged(batch.patches), batch.norm, batch.patch_size)
        if self.positions is not None:
            if (check := getattr(self.positions, "check", None)) is not None:
                check(batch.grid_sizes)
            if (check := getattr(self.positions, "check_times", None)) is not None:
                check(batch.times)
            grids = layout.from_slots(batch.grid_sizes).index_select(0, layout.images)
            x = x + self.positions(position_ids, grids)
        in_space = position_ids if batch.times is None else position_ids[:, 1:]  # rotary angles depend on row and col alone
        angles = None if self.rope is None else self.rope(in_space)
        if self.prefix is not None:
            longer = kind.of(with_prefix(batch.segment_ids, _used(layout), self.num_prefix), layout.max_images)
            own = self.prefix.expand(layout.max_images, -1, -1).flatten(0, 1).to(x.dtype)  # [E · prefix, width]
            x = _lengthened(x, layout, longer, own)
            if angles is not None:  # tokens without a position are not rotated
                angles = _lengthened(angles, layout, longer, angles.new_zeros(len(own), angles.shape[1]))
            layout = longer
        for block in self.blocks:
            x = block(x, layout, angles)
        return x, layout


class NaViT(ViT):
    """The NaViT model (2307.06304): query-key normalisation, factorised positions, attention pooling, and no biases.

    Args:
        patch_size: pixels per side of a patch.
        width: values per token, a multiple of `heads`.
        depth: number of blocks, >= 0.
        heads: number of attention heads, >= 1.
        num_classes: logits per image. With 0, the default, the model returns its features.
        mlp_ratio: hidden width of an MLP, divided by `width`. Default 4.
        max_len: longest side of a grid, in patches, >= 1. Default 128.
        drop_path: probability that a residual branch of the last block is skipped for an image (stochastic depth), in [0, 1).
            Default 0.
        attention: ``"auto"`` (the default), the name of another backend in `patchpack.model.attention`, or a function.
        static: True gives fixed shapes for a compiled model (see `ViT`). Default False.

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
        num_classes: int = 0,
        mlp_ratio: float = 4,
        max_len: int = 128,
        drop_path: float = 0.0,
        attention: AttentionName | Attend = "auto",
        static: bool = False,
    ) -> None:
        if max_len < 1:
            raise ConfigError(f"max_len must be at least 1, got {max_len}")
        super().__init__(
            patch_size=patch_size,
            width=width,
            depth=depth,
            heads=heads,
            num_classes=num_classes,
            mlp_dim=round(width * mlp_ratio),
            positions=FactorizedPositions(width=width, max_len=max_len),
            style=BlockStyle(bias=False, qk_norm=True),
            drop_path=drop_path,
            attention=attention,
            static=static,
        )


def _used(layout: AnyLayout) -> Tensor:
    """Return bool ``[B, E]``, True for slots with at least one token."""
    if isinstance(layout, StaticLayout):
        return layout.used
    return layout.to_slots(torch.ones_like(layout.lengths, dtype=torch.bool))


def _lengthened(x: Tensor, layout: AnyLayout, longer: AnyLayout, own: Tensor) -> Tensor:
    """Return tokens ``[T, ...]`` moved to a layout with longer rows. Each longer row ends in the tokens `own`."""
    rows = layout.to_rows(x)
    return longer.to_ragged(torch.cat([rows, own.expand(len(rows), *own.shape)], dim=1))
