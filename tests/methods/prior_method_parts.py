"""StableSR and DiffBIR on the tiny random backbone, awake: nothing hides behind a zero."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from method_parts import ADAM
from torch import nn

from osediff_exp.losses.gan import GANLoss
from osediff_exp.losses.mse import MSELoss
from osediff_exp.methods.base import Parts
from osediff_exp.methods.diffbir.generator import DiffBIRGenerator
from osediff_exp.methods.diffbir.method import Cleaning, DiffBIR, diffbir
from osediff_exp.methods.stablesr.fusion_method import StableSRFusion
from osediff_exp.methods.stablesr.generator import StableSRGenerator
from osediff_exp.methods.stablesr.method import StableSR, stablesr
from osediff_exp.models.backbone import Backbone

SMALL = {"channels": 4, "growth": 2, "blocks": 1}
FUSION_SETTINGS: dict[str, Any] = {
    "sharpen": True,
    "perceptual": partial(MSELoss, weight=1.0),
    "discriminator": partial(
        GANLoss,
        weight=0.025,
        generator_weight=1.0,
        objective="hinge",
        width=4,
        spectral_norm=True,
        r1=0.0,
        r1_every=16,
        optimizer=ADAM,
    ),
    "gan_start": 2,
    "latent_steps": 2,
}


def wake(module: nn.Module, *, seed: int = 3) -> None:
    """Move every weight that trains a little."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def make_stablesr(backbone: Backbone, *, awake: bool = False, **settings: Any) -> StableSR:
    torch.manual_seed(1)
    generator = StableSRGenerator(**{"backbone": backbone, "steps": 2} | settings)
    if awake:
        wake(generator)
    method = stablesr(Parts(backbone=backbone, generator=generator), optimizer=ADAM, **FUSION_SETTINGS)
    assert isinstance(method, StableSR)
    return method


def make_fusion(backbone: Backbone, diffusion: StableSRGenerator | None = None, **settings: Any) -> StableSRFusion:
    diffusion = diffusion or make_stablesr(backbone, awake=True).generator
    torch.manual_seed(2)
    generator = StableSRGenerator(**{"backbone": backbone, "stage": "cfw", "steps": 2} | settings)
    parts = Parts(backbone=backbone, generator=generator, earlier={"diffusion": diffusion.requires_grad_(False)})
    method = stablesr(parts, optimizer=ADAM, **FUSION_SETTINGS)
    assert isinstance(method, StableSRFusion)
    return method


def make_cleaning(backbone: Backbone, *, awake: bool = False, **settings: Any) -> Cleaning:
    torch.manual_seed(1)
    generator = DiffBIRGenerator(**{"backbone": backbone, "stage": "cleaning", **SMALL} | settings)
    if awake:
        wake(generator)
    method = diffbir(Parts(backbone=backbone, generator=generator), optimizer=ADAM)
    assert isinstance(method, Cleaning)
    return method


def make_diffbir(
    backbone: Backbone, cleaner: DiffBIRGenerator | None = None, *, awake: bool = False, training_augmentation: int = 0, **settings: Any
) -> DiffBIR:
    cleaner = cleaner or make_cleaning(backbone, awake=True).generator
    torch.manual_seed(2)
    generator = DiffBIRGenerator(**{"backbone": backbone, "steps": 2, **SMALL} | settings)
    if awake:
        wake(generator)
    parts = Parts(backbone=backbone, generator=generator, earlier={"cleaning": cleaner.requires_grad_(False)})
    method = diffbir(parts, optimizer=ADAM, augmentation=training_augmentation)
    assert isinstance(method, DiffBIR)
    return method
