"""Light decoders: which ones fit a backbone, that they take scaled latents, and that tiles, batches and types change nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from PIL import Image
from tiny_parts import make_generator
from torch import Tensor

from osediff_exp import Restorer
from osediff_exp.data.sample_photos import SampleSource
from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone, fingerprint_of, load_backbone
from osediff_exp.models.latents import decode_latent, encode_mode
from osediff_exp.models.light_decoder import load_light_decoder
from osediff_exp.models.prompts import FixedPrompt
from osediff_exp.models.sub_pixel_decoder import from_autoencoder
from osediff_exp.models.tiling import Tiling


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(8))


def taesd(**changes: Any) -> AutoencoderTiny:
    """Return a random network of TAESD's kind for latents of 4 channels at half the side."""
    torch.manual_seed(0)
    sizes = {"encoder_block_out_channels": (8, 8), "num_encoder_blocks": (0, 0)}
    return AutoencoderTiny(**sizes | {"decoder_block_out_channels": (8, 8), "num_decoder_blocks": (1, 1)} | changes).eval()


def saved(network: Any, folder: Path) -> str:
    network.save_pretrained(folder)
    return str(folder)


def sub_pixel(backbone: Backbone, teacher: str | None = None) -> Any:
    torch.manual_seed(0)
    return from_autoencoder(backbone.vae, teacher=teacher or fingerprint_of(backbone.vae.decoder)).eval()


def test_taesd_takes_scaled_latents_as_they_are(backbone: Backbone, tmp_path: Path) -> None:
    network, z = taesd(), random(2, 4, 6, 5)
    decoder = load_light_decoder(saved(network, tmp_path), backbone)
    assert backbone.scaling_factor != 1
    with torch.no_grad():
        expected = network.decode(z).sample.clamp(-1, 1)
        assert torch.equal(decode_latent(backbone.vae, z, None, decoder), expected)


@torch.no_grad()
def test_a_sub_pixel_decoder_begins_as_its_teacher_does() -> None:
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    vae = AutoencoderKL(**blocks, block_out_channels=(4, 8), norm_num_groups=2, mid_block_add_attention=False).eval()
    z, seen = random(1, 4, 6, 6), []
    vae.decoder.up_blocks[0].resnets[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    vae.decode(z / vae.config.scaling_factor)
    torch.testing.assert_close(from_autoencoder(vae, teacher="its").features(z)[:, :8], seen[0])


@torch.no_grad()
def test_a_sub_pixel_decoder_is_loaded_as_it_was_saved(backbone: Backbone, tmp_path: Path) -> None:
    z, network = random(1, 4, 6, 6), sub_pixel(backbone)
    decoder = load_light_decoder(saved(network, tmp_path), backbone)
    assert torch.equal(decoder(z), network(z))
    assert decoder(z).shape == (1, 3, 12, 12)
    assert not any(weight.requires_grad for weight in decoder.network.parameters())


def test_autocast_does_not_round_it(backbone: Backbone) -> None:
    network, z = sub_pixel(backbone), random(1, 4, 8, 8)
    with torch.no_grad():
        expected = network(z)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(network(z), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent_channels": 16}, "latents of 16 channels at 1/2 of the side, but those of .* have 4 at 1/2"),
        ({"upsampling_scaling_factor": 4}, "4 channels at 1/4 of the side, but .* have 4 at 1/2"),
        ({"scaling_factor": 0.18215}, "divided by 0.18215 and shifted by 0"),
        ({"shift_factor": 0.1}, "divided by 1 and shifted by 0.1"),
    ],
)
def test_other_latents_are_refused(backbone: Backbone, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_light_decoder(saved(taesd(**changes), tmp_path), backbone)


def test_another_teachers_decoder_is_refused(backbone: Backbone, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="imitates another decoder"):
        load_light_decoder(saved(sub_pixel(backbone, teacher="0123456789abcdef"), tmp_path), backbone)


def test_what_is_no_decoder_is_told_in_one_line(backbone: Backbone, tmp_path: Path) -> None:
    folder = tmp_path / "vae"
    with pytest.raises(UserError, match=r"has no config.json: give the folder of a light decoder"):
        load_light_decoder(str(folder), backbone)
    backbone.vae.save_pretrained(folder)
    with pytest.raises(UserError, match="holds a AutoencoderKL"):
        load_light_decoder(str(folder), backbone)
    (folder / "config.json").write_text(json.dumps({"_class_name": "AutoencoderTiny"}))
    with pytest.raises(UserError, match="its weights lack"):
        load_light_decoder(str(folder), backbone)
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match="cannot be loaded") as error:
        load_light_decoder(str(folder), backbone)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"has no light_decoder/: give the folder of one, such as that of madebyollin/taesd"):
        load_light_decoder("light", backbone)


@torch.no_grad()
def test_tiles_of_a_network_without_norms_give_the_whole_picture(backbone: Backbone, tmp_path: Path) -> None:
    decoder = load_light_decoder(saved(taesd(), tmp_path), backbone)
    z, tiling = random(2, 4, 70, 90), Tiling(decoder_tile=48, decoder_overlap=24)
    whole, tiled = (decode_latent(backbone.vae, z, tiles, decoder) for tiles in (None, tiling))
    assert (whole - tiled).abs().mean() < 1e-6
    assert torch.equal(decode_latent(backbone.vae, z[1:], tiling, decoder), tiled[1:])


@torch.no_grad()
def test_tiles_of_the_packages_own_come_as_near_as_its_teachers() -> None:
    backbone = load_backbone(sources=["embedded:tiny"])
    picture = Image.open(next(picture.path for picture in SampleSource(split="val").pictures())).convert("RGB").resize((256, 192))
    z = encode_mode(backbone.vae, torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 127.5 - 1)
    tiling = Tiling(decoder_tile=48, decoder_overlap=16)
    own, light = (
        (decode_latent(backbone.vae, z, None, decoder) - decode_latent(backbone.vae, z, tiling, decoder)).abs().mean()
        for decoder in (None, load_light_decoder("light", backbone))
    )
    assert 0 < light < 1.25 * own


def test_a_restorer_decodes_with_it(backbone: Backbone, tmp_path: Path) -> None:
    network = taesd()
    decoder, generator = load_light_decoder(saved(network, tmp_path), backbone), make_generator(backbone)
    options: dict[str, Any] = {"prompts": FixedPrompt(prompt="sharp photo"), "color_fix": "none", "device": "cpu"}
    restorer = Restorer(backbone=backbone, generator=generator, decoder=decoder, **options)
    pictures = random(2, 3, 8, 12).sigmoid()
    with torch.no_grad():
        restored = restorer.restore(pictures, scale=1)
        lq = pictures.mul(255).round().div(255) * 2 - 1
        latent = generator(lq, backbone.encode_prompts(["sharp photo"] * 2)).latent
        torch.testing.assert_close(restored, (network.decode(latent).sample.clamp(-1, 1) + 1) / 2, atol=1e-5, rtol=0)
    half = Restorer(backbone=backbone, generator=generator, decoder=decoder, dtype="bfloat16", **options).restore(pictures, scale=1)
    assert 0 < (half - restored).abs().mean() < 0.01


def test_a_decoder_that_was_trained_is_not_left_out(backbone: Backbone, tmp_path: Path) -> None:
    decoder = load_light_decoder(saved(taesd(), tmp_path), backbone)
    generator = make_generator(backbone, train_vae_decoder=True)
    with pytest.raises(UserError, match="trained its own decoder"):
        generator.use_light_decoder(decoder)
    generator.use_light_decoder(None)


def test_the_packages_own_is_nearly_what_it_imitates() -> None:
    picture = Image.open(next(picture.path for picture in SampleSource(split="val").pictures())).convert("RGB").resize((32, 24))
    own, light = (Restorer.from_checkpoint("embedded", device="cpu", decoder=decoder).restore(picture) for decoder in (None, "light"))
    difference = np.asarray(own, dtype=float) - np.asarray(light, dtype=float)
    assert 10 * np.log10(255**2 / np.square(difference).mean()) > 30
