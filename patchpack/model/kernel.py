"""One patch kernel for every patch size: FlexiViT's pseudo-inverse resize (2212.08013 §3.4), and its alternatives.

Resizing a patch x is linear: the resized patch is ``B x``. A token is ``⟨x, w⟩`` with the kernel w. The token of the resized
patch is the same if the kernel becomes ``pinv(Bᵀ) w``. This is exact if patches are enlarged. If patches are shrunk, it is the
best approximation for patches of white noise. In two dimensions B is a Kronecker product, and so is its pseudo-inverse, so one
small matrix per axis is enough.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from patchpack.errors import ConfigError, ShapeError
from patchpack.model.interpolate import Interpolation

Method = Literal["pi", "plain", "area", "norm"]
FLEXIVIT = Interpolation()  # bilinear, half-pixel, no antialias: as big_vision resizes its images


def resize_kernel(
    kernel: Tensor,
    size: tuple[int, int],
    *,
    how: Interpolation = FLEXIVIT,
    method: Method = "pi",
    dims: tuple[int, int] = (-2, -1),
) -> Tensor:
    """Return the kernel for patches of another size. Pass the stored kernel, because two resizes in a row differ from one.

    Args:
        kernel: float tensor with the patch's height and width among its axes.
        size: (height, width) of the new patch, in pixels, >= 1.
        how: rule by which the *images* are resized from one patch size to the other. The default is FlexiViT's rule. timm's
            rule is ``Interpolation(kernel="bicubic", antialias=True)``.
        method: ``"pi"`` (the default) is the pseudo-inverse. The other methods resize the kernel like an image. After
            ``"plain"`` the token of a constant patch grows with the patch's area. ``"area"`` divides the resized kernel by the
            growth in area. ``"norm"`` gives the resized kernel of each output the norm that it had before the resize (outputs
            are the first axis).
        dims: axes of height and width. Default (−2, −1), as in a convolution's kernel ``[out, in, height, width]``.

    Returns:
        A kernel with the dtype of `kernel`. Only the axes `dims` change: they get the lengths in `size`.

    Raises:
        ConfigError: the method is unknown.
        ShapeError: the size is below 1.

    Example:
        >>> w = torch.tensor([[0.5, 0.6], [0.7, 0.8]])
        >>> [round(x, 4) for x in resize_kernel(w, (4, 4))[0].tolist()]
        [0.1025, 0.1125, 0.1325, 0.1425]
    """
    if method not in ("pi", "plain", "area", "norm"):
        raise ConfigError(f"method must be 'pi', 'plain', 'area' or 'norm', got {method!r}")
    if min(size) < 1:
        raise ShapeError(f"a patch must be at least 1×1 pixels, got {size[0]}×{size[1]}")
    old = (kernel.shape[dims[0]], kernel.shape[dims[1]])
    if old == tuple(size):
        return kernel
    resized = kernel
    for axis, source, target in zip(dims, old, size, strict=True):
        matrix = _inverse(how, source, target) if method == "pi" else how.matrix(source, target)
        resized = torch.tensordot(resized, matrix.to(kernel), dims=([axis], [1])).movedim(-1, axis)
    if method == "area":
        resized = resized * (old[0] * old[1] / (size[0] * size[1]))
    if method == "norm":
        norms = [x.flatten(1).norm(dim=1) for x in (kernel, resized)]
        scale = norms[0] / norms[1].clamp(min=torch.finfo(kernel.dtype).tiny)
        resized = resized * scale.view(-1, *[1] * (kernel.ndim - 1))
    return resized


@lru_cache(maxsize=512)
def _inverse(how: Interpolation, source: int, target: int) -> Tensor:
    """Return ``pinv(Bᵀ)``, float64 ``[target, source]``."""
    inverse: Tensor = torch.linalg.pinv(how.matrix(source, target).T)
    return inverse
