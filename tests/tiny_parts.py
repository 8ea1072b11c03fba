"""A random Stable-Diffusion-style backbone of 8 and 16 channels, photos of noise, and the module and trainer around them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytorch_lightning as pl
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor, nn

from osediff_exp.data.datamodule import RestorationDataModule
from osediff_exp.data.sources import ImageSource
from osediff_exp.degradations.bicubic import BicubicDegradation
from osediff_exp.losses.base import LossInputs, LossTerm
from osediff_exp.losses.csd import CSDLoss
from osediff_exp.losses.dmd_gan import DMDGANLoss
from osediff_exp.losses.gan import GANLoss
from osediff_exp.losses.mse import MSELoss
from osediff_exp.losses.sds import SDSLoss
from osediff_exp.losses.tsd import TSDLoss
from osediff_exp.losses.vsd import VSDLoss
from osediff_exp.losses.vsd_image import VSDImageLoss
from osediff_exp.methods.base import Parts
from osediff_exp.methods.osediff import OSEDiff
from osediff_exp.metrics.psnr_y import PSNRY
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.generator import OneStepGenerator
from osediff_exp.models.prompts import FixedPrompt
from osediff_exp.models.views import share_frozen
from osediff_exp.module import RestorationModule
from osediff_exp.pretraining.initial import initial_backbone
from osediff_exp.runtime import quiet_libraries
from osediff_exp.tasks.benchmark.steps import StepInputs

SGD = partial(torch.optim.SGD, lr=0.05)
SCHEDULER = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}


TEXT_ENCODER = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
}
"""The smallest text encoder of a random backbone."""


def random_backbone(folder: Path, *, prediction_type: str = "epsilon", seed: int = 0) -> Backbone:
    """Return a backbone whose latents are 4 x (H/2) x (W/2) and whose text features are (B, 16, 16)."""
    torch.manual_seed(seed)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
    )
    return initial_backbone(
        vae=vae,
        unet={
            "sample_size": 16,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "cross_attention_dim": 16,
            "attention_head_dim": 2,
            "norm_num_groups": 4,
            "use_linear_projection": True,
        },
        text_encoder=TEXT_ENCODER,
        scheduler=SCHEDULER | {"prediction_type": prediction_type},
        tokenizer_folder=folder,
        prompts=["sharp photo", "blurry drawing"],
        content_words=["tree"],
        vocab_size=600,
    )


Term = TypeVar("Term", bound=LossTerm)

_prototypes: dict[tuple[type, int, str], tuple[Backbone, nn.Module]] = {}


def _copy_of_prototype(build: Callable[[], Any], kind: type, backbone: Backbone, settings: dict[str, Any]) -> Any:
    """Return a new view like ``build()``'s; injecting LoRA once per kind of view saves most of these tests' time."""
    key = (kind, id(backbone), repr(sorted(settings.items())))
    if key not in _prototypes:
        _prototypes[key] = (backbone, build())
    return share_frozen(_prototypes[key][1])


def step_inputs() -> StepInputs:
    """Two random pictures of 32 px, for a step of the benchmark."""
    torch.manual_seed(3)
    lq, hq = (torch.rand(2, 3, 32, 32) * 2 - 1 for _ in range(2))
    return StepInputs(lq=lq, hq=hq, prompts=["sharp photo"] * 2, negative_prompt="blurry drawing", seed=7, indices=[4, 9])


def make_generator(backbone: Backbone, **settings: Any) -> OneStepGenerator:
    def build() -> OneStepGenerator:
        torch.manual_seed(1)
        return OneStepGenerator(**{"backbone": backbone, "timestep": 250} | settings)

    return _copy_of_prototype(build, OneStepGenerator, backbone, settings)


def make_vsd(backbone: Backbone, **settings: Any) -> VSDLoss:
    return _copy_of_prototype(lambda: build_vsd(backbone, **settings), VSDLoss, backbone, settings)


def build_vsd(backbone: Backbone, **settings: Any) -> VSDLoss:
    torch.manual_seed(2)
    term = VSDLoss(**SCORE_SETTINGS | settings)
    term.attach(backbone)
    return term


PRIOR_SETTINGS: dict[str, Any] = {"weight": 1.0, "guidance": 7.5, "t_min": 20, "t_max": 980, "epsilon": 1e-6}
SCORE_SETTINGS: dict[str, Any] = PRIOR_SETTINGS | {
    "score_weight": 1.0,
    "score_t_min": 0,
    "score_t_max": 1000,
    "rank": 4,
    "alpha": "fixed",
    "lora_alpha": 8,
    "num_buckets": 4,
    "optimizer": SGD,
}
TERM_SETTINGS: dict[type, dict[str, Any]] = {
    VSDLoss: SCORE_SETTINGS,
    VSDImageLoss: SCORE_SETTINGS,
    TSDLoss: SCORE_SETTINGS | {"target_weight": 0.3, "vsd_weight": 0.7},
    DMDGANLoss: SCORE_SETTINGS
    | {"matching_weight": 1.0, "gan_weight": 0.5, "critic_weight": 0.25, "gan_t_min": 0, "gan_t_max": 1000}
    | {"head_width": 8, "train_features": True},
    CSDLoss: PRIOR_SETTINGS,
    SDSLoss: PRIOR_SETTINGS | {"weighting": "normalized"},
    GANLoss: {"weight": 1.0, "generator_weight": 0.5, "objective": "softplus", "width": 4, "spectral_norm": True}
    | {"r1": 0.0, "r1_every": 4, "optimizer": SGD},
}


def make_term(kind: type[Term], backbone: Backbone, **settings: Any) -> Term:
    """Return an attached term whose score network, if it has one, differs from the prior."""

    def build() -> Term:
        torch.manual_seed(2)
        term = kind(**TERM_SETTINGS[kind] | settings)
        term.attach(backbone)
        wake_lora(term)
        return term

    return _copy_of_prototype(build, kind, backbone, {"woken": True} | settings)


def wake_lora(module: nn.Module, seed: int = 4) -> None:
    """Give LoRA's zero-initialised B matrices values, so that a view differs from the frozen network."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


def make_inputs(backbone: Backbone, *, indices: list[int], step: int = 0, side: int = 16) -> LossInputs:
    """Return inputs whose rows are functions of their index."""
    rows = [torch.Generator().manual_seed(1000 + index) for index in indices]
    image = torch.stack([torch.rand(3, side, side, generator=row) * 2 - 1 for row in rows])
    latent = torch.stack([torch.randn(4, side // 2, side // 2, generator=row) for row in rows])
    prompts = [f"photo {('sharp', 'tree', 'drawing')[index % 3]}" for index in indices]
    return LossInputs(
        output=image.clone().requires_grad_(),
        target=image.flip(-1),
        latent=latent.requires_grad_(),
        prompt_embeds=backbone.encode_prompts(prompts),
        negative_embeds=backbone.encode_prompts(["blurry drawing"] * len(indices)),
        seed=11,
        step=step,
        indices=indices,
    )


def make_terms(backbone: Backbone, *names: str) -> dict[str, LossTerm]:
    terms: dict[str, LossTerm] = {"mse": MSELoss(weight=1.0), "vsd": make_vsd(backbone)}
    return {name: terms[name] for name in names or terms}


def make_method(backbone: Backbone, *, terms: dict[str, LossTerm] | None = None, optimizer: Any = SGD) -> OSEDiff:
    """Return OSEDiff with MSE and VSD and plain gradient descent, whose steps are linear in the gradients."""
    terms = make_terms(backbone) if terms is None else terms
    return OSEDiff(Parts(backbone=backbone, generator=make_generator(backbone), terms=terms), optimizer=optimizer)


def make_module(
    backbone: Backbone, *, terms: dict[str, LossTerm] | None = None, optimizer: Any = SGD, **settings: Any
) -> RestorationModule:
    """Return a module that trains :func:`make_method`'s OSEDiff."""
    defaults = {
        "prompts": FixedPrompt(prompt="sharp photo"),
        "negative_prompt": "blurry drawing",
        "metrics": {"psnr": PSNRY()},
        "seed": 7,
        "max_steps": 2,
        "log_every": 1,
    }
    if "method" not in settings:
        settings["method"] = make_method(backbone, terms=terms, optimizer=optimizer)
    return RestorationModule(backbone=backbone, **defaults | settings)


def write_photos(folder: Path, number: int) -> Path:
    """Write pictures of smooth random pixels, 48 x 40."""
    folder.mkdir(parents=True)
    for k in range(number):
        coarse = np.random.default_rng(k).integers(0, 256, (10, 12, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((48, 40), Image.Resampling.BICUBIC).save(folder / f"{k}.png")
    return folder


def make_data(folder: Path, *, batch_size: int, accumulate: int = 1, num_val: int = 3) -> RestorationDataModule:
    """Return the data module on three photos, and ``num_val`` others for validation."""
    if not folder.is_dir():
        write_photos(folder / "train", 3)
        write_photos(folder / "val", num_val)
    return RestorationDataModule(
        train=[ImageSource(root=str(folder / "train"), key="data.root")],
        val=[ImageSource(root=str(folder / "val"), key="data.val_root")] if num_val else [],
        degradation=BicubicDegradation(scale=4),
        crop_size=16,
        val_size=32,
        batch_size=batch_size,
        accumulate=accumulate,
        seed=7,
        val_seed=3,
    )


def make_trainer(folder: Path, *, validate_every: int = 1000, **settings: Any) -> pl.Trainer:
    """Return a trainer as task=train's; what the program keeps from users' terminals is no error in a test either."""
    quiet_libraries()
    defaults = {
        "default_root_dir": folder,
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": -1,
        "val_check_interval": validate_every,
        "check_val_every_n_epoch": None,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
    }
    return pl.Trainer(**defaults | settings)


def trainable(module: nn.Module) -> dict[str, Tensor]:
    """Return what trains, by the names of a checkpoint."""
    named = {name.removeprefix("method."): parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    return {name: parameter.detach().clone() for name, parameter in named.items()}


def largest_difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)
