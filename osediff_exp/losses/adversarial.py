"""What the adversarial terms share: objectives on logits, and calls that leave a critic's parameters alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from osediff_exp.errors import UserError, nearest

Objective = Literal["hinge", "softplus"]
OBJECTIVES = ("hinge", "softplus")


def check_objective(key: str, objective: str) -> None:
    """Raise UserError unless ``objective`` is known; ``key`` is its full configuration key."""
    if objective not in OBJECTIVES:
        raise UserError(f"{key}={objective} is unknown: use {' or '.join(OBJECTIVES)}.{nearest(objective, OBJECTIVES)}")


def generator_objective(fake: Tensor, objective: Objective) -> Tensor:
    """Return what the generator minimises: -D(fake) (hinge; Lim and Ye 2017), or softplus(-D(fake)), the non-saturating loss of
    Goodfellow et al. 2014; the mean over logits of any shape.
    """
    return -fake.mean() if objective == "hinge" else F.softplus(-fake).mean()


def critic_objective(real: Tensor, fake: Tensor, objective: Objective) -> Tensor:
    """Return what the discriminator minimises: hinge max(0, 1 - D(real)) + max(0, 1 + D(fake)), or the logistic
    softplus(-D(real)) + softplus(D(fake)); means over logits of any shape.
    """
    if objective == "hinge":
        return F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean()
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def frozen_call(module: nn.Module, *args: Any) -> Any:
    """Return ``module(*args)`` with its trainable parameters detached: the gradient reaches the arguments and nothing of the module.

    Generator and critic share one backward pass; switching ``requires_grad`` off for a while would do the same, but not under DDP.
    """
    detached = {name: parameter.detach() for name, parameter in module.named_parameters() if parameter.requires_grad}
    return torch.func.functional_call(module, detached, args)


@contextmanager
def all_activations_kept(unet: nn.Module, *, where: bool) -> Iterator[None]:
    """Switch a U-Net's gradient checkpointing off for a :func:`frozen_call`: what is computed again in the backward pass would find the
    parameters attached again, and save other tensors than the forward pass did.
    """
    if not where:
        yield
        return
    unet.disable_gradient_checkpointing()  # type: ignore[operator]
    try:
        yield
    finally:
        unet.enable_gradient_checkpointing()  # type: ignore[operator]


def full_precision(like: Tensor) -> torch.autocast:
    """Return a context without autocast: discriminators are small, and their gradients delicate."""
    return torch.autocast(like.device.type, enabled=False)
