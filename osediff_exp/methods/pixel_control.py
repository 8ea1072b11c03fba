"""What control nets on low-quality PIXELS share: the copy of the U-Net's encoder, the size of its embedding, embedding by tiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

from osediff_exp.models.tiling import Tiling, blend_tiles, ramp_window, spans

_WIDTHS = (16, 32, 96, 256)  # of the released embeddings, one per scale; a stride of 2 between two of them
_OVERLAP = 12  # latent pixels: an embedding sees less than 3 around it, and the outer third of an overlap counts for nothing


def embedding_widths(vae_factor: int) -> tuple[int, ...]:
    """Return the channels of a pixel embedding at each scale, so many that its strides reduce pixels to latents.

    (16, 32, 96, 256) for Stable Diffusion's factor 8; the first ones of these for a smaller factor, more of the last for a larger.
    """
    num_scales = vae_factor.bit_length()
    return (_WIDTHS + _WIDTHS[-1:] * num_scales)[:num_scales]


def control_net(unet: UNet2DConditionModel, *, vae_factor: int) -> tuple[ControlNetModel, nn.Module]:
    """Return a trainable copy of the U-Net's encoder and middle block, in float32, and its pixel embedding.

    The embedding, pixels (B, 3, H, W) in [0, 1] to (B, C, h, w), is taken out of the control net, which is given its output instead: it
    depends on neither timestep nor text, so a sampler needs it once a picture (the released samplers compute it at each step). Its last
    convolution and those of the features are zero (ControlNet, arXiv 2302.05543).
    """
    with torch.device(unet.device):
        network = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=embedding_widths(vae_factor))
    embedding, network.controlnet_cond_embedding = network.controlnet_cond_embedding, nn.Identity()
    return network, embedding


class Control(NamedTuple):
    """A control net's features: one for each of the U-Net's skips, from the first, and that for its middle block."""

    skips: list[Tensor]
    middle: Tensor


def control(network: ControlNetModel, z_t: Tensor, t: Tensor, text: Tensor, condition: Tensor) -> Control:
    """Return the features in the precision of ``z_t``; the control net itself computes in that of its weights.

    Args:
        z_t: noisy latents (B, C, h, w).
        t: timesteps (B,) or a scalar.
        text: (B, L, D).
        condition: the embedded pixels (B, C', h, w).
    """
    own = network.dtype
    skips, middle = network(z_t.to(own), t, text.to(own), condition.to(own), return_dict=False)
    return Control([skip.to(z_t.dtype) for skip in skips], middle.to(z_t.dtype))


@torch.no_grad()
def embed_by_tiles(
    embedding: Callable[[Tensor], Tensor], image: Tensor, *, vae_factor: int, tiling: Tiling, device: torch.device
) -> Tensor:
    """Return what ``embedding`` makes of ``image`` (B, 3, H, W), tile by tile in bounded memory: exactly, for an embedding of convolutions
    sees a few pixels only.

    Args:
        image: in [0, 1], on any device; sides are multiples of ``vae_factor``.
        device: the embedding's, and the output's.
    """
    tile = tiling.encoder_tile // vae_factor
    rows, columns = (spans(side // vae_factor, tile=tile, overlap=_OVERLAP, window=ramp_window) for side in image.shape[-2:])

    def embed(part: Tensor) -> Tensor:
        return embedding(part.to(device))

    if len(rows) == len(columns) == 1:
        return embed(image)
    channels = embed(image[:1, :, :vae_factor, :vae_factor]).shape[1]
    canvas = torch.zeros(len(image), channels, rows[-1].stop, columns[-1].stop, device=device)
    return blend_tiles(embed, image, canvas=canvas, rows=rows, columns=columns)
