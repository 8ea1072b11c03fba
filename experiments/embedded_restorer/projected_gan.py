"""A discriminator on the frozen features of ST-LPIPS's network, after Projected GANs (Sauer et al., NeurIPS 2021, arXiv 2111.01007): a
trial that removed no ripples. The command stands in README.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from osediff_exp.losses.adversarial import critic_objective, frozen_call, full_precision, generator_objective
from osediff_exp.losses.base import CriticTerm, LossInputs, TermOutput
from osediff_exp.models.discriminators.spectral import SpectralConv2d
from osediff_exp.models.perceptual import st_lpips_distance


class ProjectedGANLoss(CriticTerm):
    """One logit per place of each of the network's first ``levels`` maps; hinge objectives, each level an equal part.

    Args:
        weight: of the term.
        net: whose features, ``alex`` or ``vgg``; frozen, and divided by their root mean square, picture by picture.
        levels: how many of the five maps.
        width: channels of the heads.
        optimizer: makes the heads' optimizer.
    """

    def __init__(
        self, *, weight: float, net: str, levels: int, width: int, optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    ) -> None:
        super().__init__(weight=weight)
        self.distance = st_lpips_distance(net)
        self.levels, self.width, self.optimizer = levels, width, optimizer

    def attach(self, backbone: object) -> None:
        channels = [head.shape[1] for head in self.distance.heads][: self.levels]
        self.heads = nn.ModuleList(Head(c, self.width) for c in channels)

    def _maps(self, image: Tensor) -> list[Tensor]:
        x, maps = (image - self.distance.shift) / self.distance.scale, []
        for part in list(self.distance.trunk.children())[: self.levels]:
            x = part(x)
            maps.append(x)
        return [m / (m.detach().square().mean(dim=(1, 2, 3), keepdim=True).sqrt() + 1e-6) for m in maps]

    def forward(self, inputs: LossInputs) -> TermOutput:
        """Return the generator's side; the gradient reaches the output picture only."""
        with full_precision(inputs.output):
            maps = self._maps(inputs.output)
            losses = [generator_objective(frozen_call(head, m), "hinge") for head, m in zip(self.heads, maps, strict=True)]
        return TermOutput(torch.stack(losses).mean())

    def critic_parameters(self) -> list[nn.Parameter]:
        return list(self.heads.parameters())

    def critic_loss(self, inputs: LossInputs) -> TermOutput:
        """Return the heads' side on detached pictures; the logs hold each level's mean logits."""
        with full_precision(inputs.output):
            with torch.no_grad():
                maps = self._maps(torch.cat([inputs.target, inputs.output.detach()]))
            losses, logs = [], {}
            for k, (head, m) in enumerate(zip(self.heads, maps, strict=True)):
                real, fake = head(m).chunk(2)
                losses.append(critic_objective(real, fake, "hinge"))
                logs |= {f"real{k}": real.detach().mean(dim=(1, 2, 3)), f"fake{k}": fake.detach().mean(dim=(1, 2, 3))}
        return TermOutput(torch.stack(losses).mean(), logs)


class Head(nn.Module):
    """Features (B, C, h, w) to logits (B, 1, h, w)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.mix = SpectralConv2d(channels, width, 1)
        self.inner = SpectralConv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.mix(x), 0.2)
        return self.last(F.leaky_relu(self.inner(x), 0.2))
