"""Pretraining goes on from weights, trains what it should and nothing else, and tells its loss per timestep."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from tiny_parts import SCHEDULER, random_backbone, write_photos
from torch import Tensor, nn
from torch.utils.data import DataLoader

from osediff_exp.data.cache import ImageLoader
from osediff_exp.data.pairs import TrainingPairs
from osediff_exp.degradations.bicubic import BicubicDegradation
from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone
from osediff_exp.pretraining.autoencoder import AutoencoderPretraining
from osediff_exp.pretraining.initial import carry_over, initial_backbone
from osediff_exp.pretraining.latents import CachedLatents, LatentCache
from osediff_exp.pretraining.prior import PriorPretraining
from osediff_exp.pretraining.tokenizer import holds_tokenizer, train_tokenizer
from osediff_exp.randomness import torch_generator
from osediff_exp.runtime import quiet_libraries

ARCHITECTURE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 4,
}
SCHEDULE = {"learning_rate": 1e-3, "weight_decay": 0.0, "warmup_steps": 0, "max_steps": 2}


class Pictures(torch.utils.data.Dataset[dict[str, Any]]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, Any]:
        picture = torch.rand(3, 32, 32, generator=torch_generator(3, "picture", index))
        return {"hq": picture, "lq": picture.flip(1), "index": index, "name": f"castle_{index}"}


def fit(module: pl.LightningModule, folder: Path) -> pl.Trainer:
    quiet_libraries()
    loader = DataLoader(Pictures(), batch_size=2)
    trainer = pl.Trainer(
        max_steps=2, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        enable_checkpointing=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, loader, loader)
    return trainer


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def changed(before: dict[str, Tensor], network: nn.Module) -> set[str]:
    return {name for name, tensor in network.state_dict().items() if not torch.equal(before[name], tensor)}


def test_what_fits_is_carried_over_and_the_rest_stays() -> None:
    torch.manual_seed(0)
    attentive, plain = AutoencoderKL(**ARCHITECTURE), AutoencoderKL(**ARCHITECTURE, mid_block_add_attention=False)
    taken, needed = carry_over(plain, attentive)
    assert taken == needed == len(plain.state_dict())
    assert all(torch.equal(tensor, attentive.state_dict()[name]) for name, tensor in plain.state_dict().items())
    wider = AutoencoderKL(**ARCHITECTURE | {"block_out_channels": (8, 20)})
    before = state(wider)
    taken, needed = carry_over(wider, attentive)
    assert 0 < taken < needed
    assert not {name for name in changed(before, wider) if before[name].shape != attentive.state_dict()[name].shape}


def test_more_latent_channels_start_silent(backbone: Backbone) -> None:
    wide = AutoencoderKL(**ARCHITECTURE | {"latent_channels": 6})
    unet = UNet2DConditionModel(**dict(backbone.unet.config) | {"in_channels": 6, "out_channels": 6})
    assert carry_over(wide, backbone.vae)[0] == len(wide.state_dict())
    assert carry_over(unet, backbone.unet)[0] == len(unet.state_dict())
    picture = 2 * torch.rand(1, 3, 32, 32, generator=torch_generator(1, "picture")) - 1
    with torch.no_grad():
        before, after = backbone.vae.encode(picture).latent_dist, wide.encode(picture).latent_dist
        assert torch.equal(after.mean[:, :4], before.mean)
        assert torch.equal(after.logvar[:, :4], before.logvar)
        assert after.mean[:, 4:].std() > 0
        assert torch.allclose(wide.decode(after.mean).sample, backbone.vae.decode(before.mean).sample, atol=1e-6)
        text = torch.zeros(1, 2, backbone.unet.config.cross_attention_dim)
        told, asked = (network(z, 100, text).sample for network, z in ((unet, after.mean), (backbone.unet, before.mean)))
        assert torch.allclose(told[:, :4], asked, atol=1e-5)


def test_the_decoder_alone_trains_on_latents_that_stay(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = AutoencoderPretraining(
        architecture=ARCHITECTURE, kl_weight=1e-6, seed=1, train_encoder=False, perceptual_weight=0.1, perceptual_net="alex",
        adversarial_weight=0.01, discriminator_width=4, **SCHEDULE,
    )  # fmt: skip
    assert module.discriminator is not None
    assert module.perceptual is not None
    before, judge, distance = state(module.vae), state(module.discriminator), state(module.perceptual)
    trainer = fit(module, tmp_path)
    moved = changed(before, module.vae)
    assert moved
    assert all(name.startswith(("decoder.", "post_quant_conv.")) for name in moved)
    assert changed(judge, module.discriminator)
    assert not changed(distance, module.perceptual)
    assert {"train/l1", "train/perceptual", "train/adversarial", "train/discriminator", "val/psnr", "val/perceptual"} <= set(
        trainer.callback_metrics
    )


def test_l1_alone_builds_no_judge_and_trains_the_encoder_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = AutoencoderPretraining(architecture=ARCHITECTURE, kl_weight=1e-6, seed=1, **SCHEDULE)
    assert module.discriminator is None
    assert module.perceptual is None
    before = state(module.vae)
    fit(module, tmp_path)
    assert any(name.startswith("encoder.") for name in changed(before, module.vae))


def grown(folder: Path, init: Backbone | None, vae: AutoencoderKL) -> Backbone:
    """A backbone like the random one, with its attention one level lower."""
    torch.manual_seed(5)
    return initial_backbone(
        vae=vae,
        unet={
            "sample_size": 16,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "cross_attention_dim": 16,
            "attention_head_dim": 2,
            "norm_num_groups": 4,
            "use_linear_projection": True,
        },
        text_encoder={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": 16,
        },
        scheduler=SCHEDULER,
        tokenizer_folder=folder,
        prompts=["sharp photo"],
        content_words=["house"],
        vocab_size=600,
        init=init,
    )


def test_a_tokenizer_of_the_same_words_is_read_again(tmp_path: Path) -> None:
    """Trained anew it would number the words otherwise, and a training that goes on would read nonsense."""
    words: dict[str, Any] = {"prompts": ["sharp photo"], "content_words": ["house", "tree", "castle", "bridge"] * 3, "max_length": 16}
    first = train_tokenizer(tmp_path, vocab_size=600, **words)
    written = (tmp_path / "vocab.json").stat().st_mtime_ns
    assert train_tokenizer(tmp_path, vocab_size=600, **words).get_vocab() == first.get_vocab()
    assert (tmp_path / "vocab.json").stat().st_mtime_ns == written
    assert not holds_tokenizer(tmp_path, vocab_size=601, **words)
    train_tokenizer(tmp_path, vocab_size=601, **words)
    assert holds_tokenizer(tmp_path, vocab_size=601, **words)


def test_a_prior_goes_on_in_another_architecture_with_tokenizer_and_text_encoder(tmp_path: Path) -> None:
    first = random_backbone(tmp_path / "first")
    second = grown(tmp_path / "second", first, first.vae)
    assert second.tokenizer is first.tokenizer
    assert not changed(state(first.text_encoder), second.text_encoder)
    assert torch.equal(second.unet.conv_in.weight, first.unet.conv_in.weight)
    attention = "down_blocks.1.attentions.0.proj_in.weight"
    assert attention in second.unet.state_dict()
    assert attention not in first.unet.state_dict()


def test_a_prior_trains_unet_and_text_encoder_alone_and_logs_its_loss_by_timestep(tmp_path: Path) -> None:
    backbone = random_backbone(tmp_path / "words")
    vae, unet, text = state(backbone.vae), state(backbone.unet), state(backbone.text_encoder)
    module = PriorPretraining(
        backbone=backbone, positive_prompt="sharp photo", negative_prompt="blurry drawing", degraded_fraction=0.5, drop_probability=0.1,
        seed=1, **SCHEDULE,
    )  # fmt: skip
    trainer = fit(module, tmp_path)
    assert not changed(vae, backbone.vae)
    assert changed(unet, backbone.unet)
    assert changed(text, backbone.text_encoder)
    by_timestep = [float(trainer.callback_metrics[f"val/loss_t{t}"]) for t in (100, 300, 500, 700, 900)]
    assert abs(sum(by_timestep) / 5 - float(trainer.callback_metrics["val/loss"])) < 1e-5


class Pairs:
    """Stands for the training stream: bright sharp pictures, dark degraded ones."""

    seed, crop_size = 4, 32
    lists: Sequence[Sequence[Path]] = ()
    cumulative: Sequence[float] = (1.0,)
    load = ImageLoader()

    def __getitem__(self, index: int) -> dict[str, Any]:
        picture = Pictures()[index % 4]
        return {"hq": 0.5 + picture["hq"] / 2, "lq": picture["hq"] / 2, "index": index, "name": picture["name"]}


def test_cached_latents_are_the_encoder_s_and_an_interrupted_call_goes_on(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae = AutoencoderKL(**ARCHITECTURE).eval()
    settings: dict[str, Any] = {"pairs": Pairs(), "vae": vae, "degraded_fraction": 0.5, "degradation": {"scale": 4}}
    LatentCache(tmp_path / "whole", count=200, **settings).fill()
    LatentCache(tmp_path / "killed", count=200, **settings).fill()
    record = json.loads((tmp_path / "killed" / "latents.json").read_text())
    (tmp_path / "killed" / "latents.json").write_text(json.dumps(record | {"entries": record["entries"][:100]}))
    np.load(tmp_path / "killed" / "latents.npy", mmap_mode="r+")[100:] = 0
    killed = LatentCache(tmp_path / "killed", count=200, **settings)
    assert not killed.is_whole()
    killed.fill()
    assert killed.is_whole()
    whole = CachedLatents(folder=tmp_path / "whole", size=16, seed=1)
    assert np.array_equal(whole.latents, CachedLatents(folder=tmp_path / "killed", size=16, seed=1).latents)
    share = np.mean([entry["degraded"] for entry in whole.entries])
    assert 0.35 < share < 0.65
    k = next(k for k, entry in enumerate(whole.entries) if entry["degraded"])
    with torch.no_grad():
        expected = vae.encode(2 * Pairs()[k]["lq"][None] - 1).latent_dist.mode()[0] * vae.config.scaling_factor
    assert np.allclose(whole.latents[k], expected.numpy(), atol=2e-3, rtol=1e-3)


def test_cached_latents_of_anything_else_are_refused_by_name(tmp_path: Path) -> None:
    photos = [write_photos(tmp_path / name, 2) for name in ("a", "b")]
    vae = AutoencoderKL(**ARCHITECTURE).eval()

    def fill(*, reduce_to: int | None = None, weights: Sequence[float] = (1, 1), scale: int = 4, fraction: float = 0.5) -> None:
        pairs = TrainingPairs(
            lists=[sorted(folder.iterdir()) for folder in photos], weights=weights, degradation=BicubicDegradation(scale=4), crop_size=16,
            seed=1, load=ImageLoader(reduce_to=reduce_to),
        )  # fmt: skip
        LatentCache(tmp_path / "to", pairs=pairs, vae=vae, count=2, degraded_fraction=fraction, degradation={"scale": scale}).fill()

    fill()
    fill()
    others: list[tuple[str, dict[str, Any]]] = [
        ("reduce_to", {"reduce_to": 32}), ("weights", {"weights": (1, 2)}), ("degradation", {"scale": 2}),
        ("degraded_fraction", {"fraction": 0.1}),
    ]  # fmt: skip
    for name, other in others:
        with pytest.raises(UserError, match=rf"holds latents made otherwise \({name}\)"):
            fill(**other)
    factor = vae.config.scaling_factor
    vae.register_to_config(scaling_factor=2 * factor)
    with pytest.raises(UserError, match=r"\(scaling_factor\)"):
        fill()
    vae.register_to_config(scaling_factor=factor)
    with torch.no_grad():
        vae.encoder.conv_in.weight.neg_()
    with pytest.raises(UserError, match=r"\(VAE\)"):
        fill()
    with torch.no_grad():
        vae.encoder.conv_in.weight.neg_()
    fill()
    os.utime(photos[1] / "1.png", (1, 1))
    with pytest.raises(UserError, match=r"\(photos\)"):
        fill()


def test_a_window_of_cached_latents_belongs_to_seed_and_sample(tmp_path: Path) -> None:
    vae = AutoencoderKL(**ARCHITECTURE).eval()
    LatentCache(tmp_path, pairs=Pairs(), vae=vae, count=6, degraded_fraction=0.5, degradation={}).fill()  # type: ignore[arg-type]
    first, again, other = (CachedLatents(folder=tmp_path, size=8, seed=seed)[5] for seed in (1, 1, 2))
    assert torch.equal(first["latent"], again["latent"])
    assert first["latent"].shape == (4, 8, 8)
    assert not torch.equal(first["latent"], other["latent"])
    whole = torch.from_numpy(np.load(tmp_path / "latents.npy").astype(np.float32))
    windows = whole.unfold(2, 8, 1).unfold(3, 8, 1)
    assert ((windows - first["latent"][None, :, None, None]).abs().amax(dim=(1, 4, 5)) == 0).any()
