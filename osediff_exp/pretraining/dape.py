"""DAPE: RAM learns, through LoRA, to see in a degraded picture what it sees in the clean one (SeeSR, section 3.1).

L = MSE(f_y^rep, f_x^rep) + lambda CE(f_y^logits, f_x^logits), with x the clean and y the degraded picture, f_x by frozen RAM, lambda = 1.
The code of this training was never released. RAM's tags are 4585 independent yes or no, so the cross-entropy is the binary one of each,
with RAM's probability on the clean picture as the target, averaged; less the target's own entropy, which has no gradient, so that 0 is
perfect. The authors' recipe: rank 8, 20,000 steps of 32 pictures, learning rate 1e-4.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from osediff_exp.models.taggers.ram.lora import add_lora, lora_parameters, without_lora
from osediff_exp.models.taggers.ram.network import RAM, RAMOutput, prepare
from osediff_exp.pretraining.schedule import CosineTraining


def alignment(student: RAMOutput, teacher: RAMOutput) -> dict[str, Tensor]:
    """Return ``embeds`` (MSE) and ``logits`` (binary cross-entropy above its least value) of two outputs of the same batch."""
    target = teacher.logits.float().sigmoid()
    entropy = F.binary_cross_entropy_with_logits(teacher.logits.float(), target)
    logits = F.binary_cross_entropy_with_logits(student.logits.float(), target) - entropy
    return {"embeds": F.mse_loss(student.image_embeds.float(), teacher.image_embeds.float()), "logits": logits}


class DAPEPretraining(CosineTraining):
    """Train DAPE's LoRA on pairs {lq, hq}; teacher and student are one network, with LoRA and without.

    Args:
        network: RAM, frozen.
        rank: of LoRA; its factor is 1 / rank, as released.
        logits_weight: lambda.
        antialias: see :func:`osediff_exp.models.taggers.ram.network.prepare`.
        learning_rate, weight_decay, warmup_steps, max_steps: of AdamW with a cosine.
    """

    def __init__(
        self,
        network: RAM,
        *,
        rank: int,
        logits_weight: float,
        antialias: bool,
        learning_rate: float,
        weight_decay: float,
        warmup_steps: int,
        max_steps: int,
    ) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, warmup_steps=warmup_steps, max_steps=max_steps)
        self.strict_loading = False  # checkpoints hold what trains
        add_lora(network, rank=rank)
        self.network = network
        self.logits_weight, self.antialias = logits_weight, antialias

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return what a batch teaches: ``embeds``, ``logits`` and their weighted sum ``loss``."""
        teacher = self._plain(batch["hq"])
        parts = alignment(self.network(self._prepared(batch["lq"])), teacher)
        return parts | {"loss": parts["embeds"] + self.logits_weight * parts["logits"]}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        losses = self.losses(batch)
        self.log_dict({f"train/{name}": value.detach() for name, value in losses.items()}, batch_size=len(batch["lq"]))
        return losses["loss"]

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Log the losses, and ``val/without_lora``: the loss of RAM itself on the degraded pictures, which DAPE must fall below."""
        losses = self.losses(batch)
        plain = alignment(self._plain(batch["lq"]), self._plain(batch["hq"]))
        losses["without_lora"] = plain["embeds"] + self.logits_weight * plain["logits"]
        self.log_dict({f"val/{name}": value for name, value in losses.items()}, batch_size=len(batch["lq"]), sync_dist=True)

    def _prepared(self, images: Tensor) -> Tensor:
        return prepare(images, size=self.network.shape.image_size, antialias=self.antialias)

    def _plain(self, images: Tensor) -> RAMOutput:
        with torch.no_grad(), without_lora(self.network):
            return self.network(self._prepared(images))

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return LoRA alone: RAM has its own file."""
        return {name: value for name, value in super().state_dict(*args, **kwargs).items() if name.endswith(("lora_A", "lora_B"))}

    @property
    def num_trained(self) -> int:
        """Parameters that train: 620,032 for the released sizes."""
        return sum(parameter.numel() for parameter in lora_parameters(self.network))
