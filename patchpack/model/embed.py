"""The linear map from normalised pixels of patches to tokens. It takes patches of one size, or of any size (FlexiViT)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from patchpack.errors import ConfigError, ShapeError
from patchpack.model.interpolate import Interpolation
from patchpack.model.kernel import FLEXIVIT, Method, resize_kernel


class PatchEmbed(nn.Module):
    """A linear map from a flattened patch to `width` values.

    A patch is flattened in (y, x, channel) order. A tubelet is flattened frame after frame.

    Args:
        patch_size: pixels per side of the stored kernel.
        width: values per token.
        bias: True gives the map a bias. Resizing the kernel does not change the bias. Default False.
        flexible: method that resizes the kernel to the batch's patch size in every forward pass. Default None: the kernel is
            not resized, and another patch size is an error.
        how: rule of interpolation for the resize (see `patchpack.model.kernel.resize_kernel`). Default: FlexiViT's rule.
        norm: True adds a LayerNorm of the tokens. The FlexiViT paper tests it as a remedy for plain resizing. Default False.
        tubelet: frames per token, as in `patchpack.Video.tubelet`. Default 1, for images.
    """

    def __init__(
        self,
        *,
        patch_size: int,
        width: int,
        bias: bool = False,
        flexible: Method | None = None,
        how: Interpolation = FLEXIVIT,
        norm: bool = False,
        tubelet: int = 1,
    ) -> None:
        super().__init__()
        self.patch_size, self.tubelet, self.flexible, self.how = patch_size, tubelet, flexible, how
        self.linear = nn.Linear(tubelet * patch_size * patch_size * 3, width, bias=bias)
        self.norm = nn.LayerNorm(width, eps=1e-6, bias=bias) if norm else nn.Identity()

    def forward(self, patches: Tensor, norm: Tensor, patch_size: int | None = None) -> Tensor:
        """Return the tokens of patches, ``[T, D] → [T, width]``.

        Args:
            patches: uint8 or float ``[T, D]``.
            norm: float ``[2, 3]``, mean and std per channel: ``value = (patch - mean) / std``. For float patches the mean is 0
                and the std is 1.
            patch_size: pixels per side of the patches, ``D = tubelet · patch_size² · 3``. Default None: the size of the stored
                kernel.

        Raises:
            ShapeError: the kernel is not flexible and the patches have another size, or D is wrong.
        """
        weight = self.kernel(patch_size or self.patch_size)
        if patches.shape[-1] != weight.shape[1]:
            raise ShapeError(
                f"a patch must have {weight.shape[1]} values, got {patches.shape[-1]}. A model made with "
                f"patchpack.model.for_video takes tubelets: use a recipe with video=Video(...)"
            )
        # the channel is the fastest axis of a patch
        mean, std = norm.to(patches.device).repeat(1, weight.shape[1] // norm.shape[1])
        # at least float32 until here, so that a bfloat16 model sees well-rounded pixels
        tokens: Tensor = self.norm(F.linear(((patches - mean) / std).to(weight.dtype), weight, self.linear.bias))
        return tokens

    def kernel(self, patch_size: int) -> Tensor:
        """Return the kernel for a patch size, ``[width, tubelet · patch_size² · 3]``. It is made from the stored kernel.

        Raises:
            ShapeError: the kernel is not flexible, and `patch_size` differs from the size of the stored kernel.
        """
        if patch_size == self.patch_size:
            return self.linear.weight
        if self.flexible is None:
            raise ShapeError(
                f"expected a batch of patch_size={self.patch_size}, the model's, got {patch_size}. A model made with "
                f"flexible='pi' resizes its kernel to the batch"
            )
        stored = self.linear.weight.view(-1, self.tubelet, self.patch_size, self.patch_size, 3)
        return resize_kernel(stored, (patch_size, patch_size), how=self.how, method=self.flexible, dims=(2, 3)).flatten(1)


def inflate_kernel(kernel: Tensor, tubelet: int) -> Tensor:
    """Return a tubelet kernel whose central frame, ``tubelet // 2``, is the image kernel. All other frames are zero.

    The token of a tubelet then equals the token that the image kernel gives for the central frame (ViViT 2103.15691 §3.4).

    Args:
        kernel: the kernel for images, ``[width, D]`` for flattened patches of D values.
        tubelet: frames per token, t, >= 1.

    Returns:
        ``[width, t · D]``, frame after frame.

    Raises:
        ConfigError: `tubelet` is below 1.
    """
    if tubelet < 1:
        raise ConfigError(f"tubelet must be at least 1 frame, got {tubelet}")
    inflated = kernel.new_zeros(len(kernel), tubelet, kernel.shape[1])
    inflated[:, tubelet // 2] = kernel
    return inflated.flatten(1)
