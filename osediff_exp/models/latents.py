"""Pictures to latents and back, whole or by tiles."""

from __future__ import annotations

from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

from osediff_exp.models.light_decoder import LightDecoder
from osediff_exp.models.tiled_vae import decode_tiles, tiled_decode, tiled_encode
from osediff_exp.models.tiling import Tiling


def posterior_of(vae: AutoencoderKL, image: Tensor, tiling: Tiling | None = None) -> DiagonalGaussianDistribution:
    """Return E's posterior, in the VAE's own scale, of ``image`` (B, 3, H, W) in [-1, 1].

    Without ``tiling`` the picture has the weights' type and device; with it, any.
    """
    if tiling is None:
        return vae.encode(image).latent_dist
    return DiagonalGaussianDistribution(tiled_encode(vae, image, tiling))


def encode_mode(vae: AutoencoderKL, image: Tensor, tiling: Tiling | None = None) -> Tensor:
    """Return the posterior's mode, scaled, (B, C, h, w) float32, of ``image`` (B, 3, H, W) in [-1, 1] of any type."""
    image = image if tiling is not None else image.to(next(vae.parameters()))
    return posterior_of(vae, image, tiling).mean.float() * vae.config.scaling_factor


def decode_latent(vae: AutoencoderKL, latent: Tensor, tiling: Tiling | None = None, light: LightDecoder | None = None) -> Tensor:
    """Return the picture (B, 3, H, W), float32, clamped to [-1, 1], of scaled latents (B, C, h, w); with ``tiling`` it is on the CPU.

    ``light`` decodes in the VAE's place.
    """
    if light is not None:
        picture = light(latent) if tiling is None else decode_tiles(light, latent, tiling, network=light.network, factor=light.factor)
        return picture.clamp(-1, 1)
    z = latent / float(vae.config.scaling_factor)
    if tiling is not None:
        return tiled_decode(vae, z, tiling).clamp_(-1, 1)
    return vae.decode(z.to(next(vae.parameters()).dtype)).sample.float().clamp(-1, 1)
