"""The transformer block: attention among the tokens of an image, then an MLP on each token, both pre-norm and residual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from patchpack.model.attention import Attend
from patchpack.model.rope import rotate
from patchpack.model.static import AnyLayout

Activation = Literal["gelu", "gelu_tanh"]


@dataclass(frozen=True, kw_only=True)
class BlockStyle:
    """The settings of a model's blocks. The defaults are ViT's. NaViT has ``bias=False, qk_norm=True``.

    Attributes:
        bias: True gives every linear map and norm a bias. Default True.
        qk_norm: True applies LayerNorm to queries and keys per head (ViT-22B, 2302.05442 §2). Default False.
        layer_scale: start value of a learned scale per channel on both branches. Default None: no scale.
        activation: ``"gelu"`` (the default), or ``"gelu_tanh"``, the approximation that JAX code bases (big_vision, SigLIP)
            train with.
    """

    bias: bool = True
    qk_norm: bool = False
    layer_scale: float | None = None
    activation: Activation = "gelu"

    def norm(self, width: int) -> nn.LayerNorm:
        """Return a LayerNorm with a scale. It has a bias if `bias` is True, else none."""
        return nn.LayerNorm(width, eps=1e-6, bias=self.bias)

    def linear(self, inputs: int, outputs: int) -> nn.Linear:
        """Return a linear map. It has a bias if `bias` is True, else none."""
        return nn.Linear(inputs, outputs, bias=self.bias)

    def mlp(self, width: int, hidden: int) -> nn.Sequential:
        """Return two linear maps with a GELU between them."""
        gelu = nn.GELU(approximate="none" if self.activation == "gelu" else "tanh")
        return nn.Sequential(self.linear(width, hidden), gelu, self.linear(hidden, width))

    def scale(self, width: int) -> nn.Module:
        """Return the module for the scale at the end of a branch."""
        return nn.Identity() if self.layer_scale is None else LayerScale(width, self.layer_scale)


class Block(nn.Module):
    """The transformer block ``x + attention(norm(x))``, then ``x + mlp(norm(x))``.

    In training, each branch may be skipped for some images (see `drop_path`).

    Args:
        width: values per token, a multiple of `heads`.
        heads: number of attention heads.
        mlp_dim: hidden width of the MLP.
        attend: attention function, see `patchpack.model.attention`.
        style: settings of norms, linear maps and the activation.
        drop_path: probability in [0, 1) that a branch is skipped for an *image*, not for a row (stochastic depth, 1603.09382).
            For the other images the branch is multiplied by ``1 / (1 − drop_path)``. The random numbers come from torch's
            default generator, as for dropout. Default 0.
    """

    def __init__(
        self, *, width: int, heads: int, mlp_dim: int, attend: Attend, style: BlockStyle, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.attend = attend
        self.heads = heads
        self.drop_path = drop_path
        self.norm_attention = style.norm(width)
        self.qkv = style.linear(width, 3 * width)
        self.norm_q = style.norm(width // heads) if style.qk_norm else nn.Identity()
        self.norm_k = style.norm(width // heads) if style.qk_norm else nn.Identity()
        self.out = style.linear(width, width)
        self.scale_attention = style.scale(width)
        self.norm_mlp = style.norm(width)
        self.mlp = style.mlp(width, mlp_dim)
        self.scale_mlp = style.scale(width)

    def forward(self, x: Tensor, layout: AnyLayout, angles: Tensor | None = None) -> Tensor:
        """Return the tokens after the block, ``[T, width] → [T, width]``.

        Args:
            x: tokens ``[T, width]``.
            layout: layout of the batch.
            angles: float ``[T, d / 2]``, angles by which queries and keys are rotated (see `patchpack.model.rope`). Default
                None: no rotation.
        """
        q, k, v = self.qkv(self.norm_attention(x)).unflatten(1, (3, self.heads, -1)).unbind(1)  # each [T, heads, d]
        q, k = self.norm_q(q), self.norm_k(k)
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        mixed = self.attend(q, k, v, layout)
        x = x + self._keep(self.scale_attention(self.out(mixed.flatten(1))), layout)
        tokens: Tensor = x + self._keep(self.scale_mlp(self.mlp(self.norm_mlp(x))), layout)
        return tokens

    def _keep(self, branch: Tensor, layout: AnyLayout) -> Tensor:
        if not self.training or not self.drop_path:
            return branch
        kept = torch.rand(layout.num_images, 1, device=branch.device) >= self.drop_path
        return branch * (kept.to(branch.dtype) / (1 - self.drop_path)).index_select(0, layout.images)


class LayerScale(nn.Module):
    """A learned factor per channel (CaiT, 2103.17239)."""

    def __init__(self, width: int, start: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), start))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` times the factor of each channel, ``[..., width]``."""
        return x * self.gamma
