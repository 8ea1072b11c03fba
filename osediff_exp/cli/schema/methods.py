"""Keys of the methods: what restores (``generator``), what trains it and in which stages (``method``)."""

from __future__ import annotations

from osediff_exp.cli.schema.rules import Rule, either, flag, group, number, path, several, text, whole, word
from osediff_exp.cli.schema.training import COLOR_FIX, LPIPS_NET, RATE, WEIGHT

STAGE = text(null=True, empty=False)
STEPS = whole(1, 1000)

RULES: dict[str, Rule] = {
    # what restores
    "generator.stage": STAGE,
    "generator.steps": STEPS,
    "generator.guidance": number(0.0, 1e4),
    "generator.start": word("noise", "lr", "cond"),
    "generator.sampler": word("ddpm", "ddim", "unipc"),
    "generator.spacing": word("ends", "leading", "trailing"),
    "generator.chain": word("ancestral", "deterministic"),
    "generator.width": whole(1, 65536, null=True),
    "generator.neutral": flag(),
    "generator.fusion_weight": number(0.0, 1e3),
    "generator.augmentation": whole(0, 999),
    "generator.restoration_scale": number(0.0, 1e6),
    "generator.restoration_space": word("rgb", "latent"),
    "generator.channels": whole(1, 65536),
    "generator.growth": whole(1, 65536),
    "generator.blocks": whole(1, 1000),
    "generator.image_embeds_shape": several(whole(1, 65536), 2, 2, null=True),
    "generator.noised_again": whole(0, 999, null=True),
    "generator.T": STEPS,
    "generator.m": number(0.0, 1e3, open="("),
    "generator.p": number(0.0, 1e3, open="("),
    "generator.kappa": number(0.0, 1e3, open="("),
    "generator.from_scratch": flag(),
    # what trains it
    "method.name": text(empty=False),
    "method.stage": STAGE,
    "method.color_fix": COLOR_FIX,
    "method.published.*": text(null=True),
    "method.needs.*": path(null=True),
    "method.made_by.*.stage": STAGE,
    "method.made_by.*.*": either(str, int, float, bool, null=True),
    "method.training.sharpen": flag(),
    "method.training.latent_steps": STEPS,
    "method.training.gan_start": whole(0),
    "method.training.augmentation": whole(0, 1000),
    "method.training.text_dropout": number(0.0, 1.0),
    "method.training.*weight": WEIGHT,
    "method.training.perceptual.net": LPIPS_NET,
    "method.training.*.*weight": WEIGHT,
    "method.training.discriminator.objective": word("hinge", "softplus"),
    "method.training.discriminator.width": whole(1, 4096),
    "method.training.discriminator.spectral_norm": flag(),
    "method.training.discriminator.r1": WEIGHT,
    "method.training.discriminator.r1_every": whole(1),
    "method.training.**optimizer.lr": RATE,
    "method.training.**optimizer.betas": several(number(0.0, 1.0, open=")"), 2, 2),
    "method.training.**optimizer.weight_decay": number(0.0, 1e3),
    "method.training.**optimizer.eps": number(0.0, 1.0, open="("),
    "method.training.**optimizer.fused": flag(),
    "method.training.*": group(),
    # how it restores, beside the restorer's other options
    "restorer.steps": whole(1, 1000, null=True),
    "restorer.guidance": number(0.0, 1e4, null=True),
    "restorer.negative_prompt": text(null=True),
    "restorer.seed": whole(0, 2**63 - 1),
    "prompt.image_embeds_shape": several(whole(1, 65536), 2, 2, null=True),
}
"""Keys (patterns) and what they take; the first pattern that fits counts."""
