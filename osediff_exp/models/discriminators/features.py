"""A discriminator's head on a diffusion network's features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class FeatureHead(nn.Module):
    """From mid-block features (B, C, h, w) to logits (B, 1, h, w): convolution, normalization, SiLU, 1 x 1 convolution."""

    def __init__(self, *, channels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1), nn.GroupNorm(width // 8, width), nn.SiLU(), nn.Conv2d(width, 1, 1)
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)


class _ReachedError(Exception):
    """Carries the features out of a network that has done enough."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features


def mid_block_features(unet: nn.Module, z_t: Tensor, t: Tensor, prompt_embeds: Tensor, *, call: Callable[..., Any] | None = None) -> Tensor:
    """Return the output (B, C, h, w) of a diffusers U-Net's mid block; the up blocks, half of the cost, do not run.

    diffusers has no call that ends there; a hook that leaves by an exception follows its forward pass, whatever the version does before.

    Args:
        call: ``call(unet, z_t, t, prompt_embeds)`` in place of ``unet(...)``, to call it in another way.
    """

    def leave(_: nn.Module, inputs: Any, output: Tensor) -> None:
        raise _ReachedError(output)

    hook = unet.mid_block.register_forward_hook(leave)  # type: ignore[union-attr, operator]
    try:
        _ = call(unet, z_t, t, prompt_embeds) if call is not None else unet(z_t, t, prompt_embeds)
    except _ReachedError as reached:
        return reached.features
    finally:
        hook.remove()
    raise AssertionError("the U-Net ran without its mid block")
