"""A training step as the released code does it, and ours, on the same weights and with the same losses.

The plain step is the measure for ours: three copies of the U-Net, every prompt encoded in every step, one by one, PEFT's own LoRA layers,
the prior asked for the prompt and for the negative prompt apart, and the generator's backward pass and update before the score network's
forward pass. What was a mistake there (weights stepped twice, adapters that do not train: docs/adr/0004) is not repeated: it would not be
the same loss.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from osediff_exp.diffusion import guide, predict_x0
from osediff_exp.losses.base import CriticTerm, LossInputs, LossTerm, TermOutput
from osediff_exp.losses.distillation import pull
from osediff_exp.losses.score_network import vsd_gradient
from osediff_exp.losses.vsd import VSDLoss
from osediff_exp.methods.base import Group
from osediff_exp.methods.batch import TrainingBatch
from osediff_exp.methods.osediff import OSEDiff, restored
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.lora_layers import plain_lora
from osediff_exp.models.prompt_features import PromptFeatures


@dataclass(frozen=True, kw_only=True)
class StepInputs:
    """What both steps are given: pictures (B, 3, S, S) in [-1, 1], prompts, and the key of the random numbers."""

    lq: Tensor
    hq: Tensor
    prompts: list[str]
    negative_prompt: str
    seed: int
    indices: list[int]

    def batch(self, step: int, embed: Callable[[list[str]], Tensor]) -> TrainingBatch:
        """Return the method's batch of this step."""
        return TrainingBatch(
            lq=self.lq,
            hq=self.hq,
            prompt_embeds=embed(self.prompts).to(self.lq.device),
            negative_embeds=embed([self.negative_prompt] * len(self.prompts)).to(self.lq.device),
            embed=embed,
            seed=self.seed,
            step=step,
            indices=self.indices,
        )


def random_inputs(batch: int, side: int, *, seed: int, device: str = "cpu") -> StepInputs:
    """Return pictures of random pixels, (``batch``, 3, ``side``, ``side``), with constant prompts: a step takes as long for any others."""
    generator = torch.Generator().manual_seed(seed)
    lq, hq = ((torch.rand(batch, 3, side, side, generator=generator) * 2 - 1).to(device) for _ in range(2))
    return StepInputs(lq=lq, hq=hq, prompts=["prompt"] * batch, negative_prompt="other", seed=seed, indices=list(range(batch)))


class OurStep:
    """The step of :class:`osediff_exp.module.RestorationModule` in a single process, without Lightning around it."""

    def __init__(
        self,
        method: OSEDiff,
        backbone: Backbone,
        *,
        clip_norm: float,
        embed: Callable[[list[str]], Tensor] | None = None,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        """Take ``embed`` in place of the backbone's text encoder, and what the forward passes run in (autocast)."""
        self.method, self.clip_norm, self.precision = method, clip_norm, precision
        self.embed = embed or PromptFeatures(backbone.encode_prompts)
        self._groups = list(method.groups().values())
        self._optimizers = [group.optimizer(group.parameters) for group in self._groups]

    def __call__(self, inputs: StepInputs, step: int) -> dict[str, Tensor]:
        """Take a step; return the figures of the log."""
        logs: dict[str, Tensor] = {}
        shares = self.method.shares(inputs.batch(step, self.embed))
        while True:
            with self.precision():
                share = next(shares, None)
            if share is None:
                break
            share.loss.backward()
            logs |= share.logs
        for group, optimizer in zip(self._groups, self._optimizers, strict=True):
            _update(group, optimizer, self.clip_norm)
        return logs


class PlainStep:
    """The released code's step on copies of ``method``'s networks; of its terms with networks only VSD is known."""

    def __init__(self, method: OSEDiff, backbone: Backbone, *, clip_norm: float) -> None:
        self.generator = copy.deepcopy(method.generator)
        self.terms: dict[str, LossTerm] = {name: copy.deepcopy(term) for name, term in method.terms.items()}  # type: ignore[misc]
        for term in self._critics():
            term.prior, term.score = copy.deepcopy(term.prior), copy.deepcopy(term.score)  # apart, as three networks
        self.backbone, self.clip_norm = backbone, clip_norm
        self._generator = Group(parameters=self.generator.trainable_parameters(), optimizer=method.optimizer)
        self._optimizer = method.optimizer(self._generator.parameters)
        self._critic_groups = [Group(parameters=term.critic_parameters(), optimizer=term.optimizer) for term in self._critics()]
        self._critic_optimizers = [group.optimizer(group.parameters) for group in self._critic_groups]

    def _critics(self) -> list[VSDLoss]:
        critics = [term for term in self.terms.values() if isinstance(term, CriticTerm)]
        assert all(type(term) is VSDLoss for term in critics), "the plain step knows VSD only"
        return critics  # type: ignore[return-value]

    def _embed(self, prompts: list[str]) -> Tensor:
        return torch.cat([self.backbone.encode_prompts([prompt]) for prompt in prompts])

    def __call__(self, inputs: StepInputs, step: int) -> dict[str, Tensor]:
        """Take a step; return the figures of the log that ours returns too."""
        batch, logs = inputs.batch(step, self._embed), {}
        with plain_lora():
            seen = restored(self.generator, batch)
            total = seen.output.new_zeros(())
            for name, term in self.terms.items():
                output = plain_match(term, seen) if isinstance(term, VSDLoss) else term(seen)
                total, logs[f"train/{name}"] = total + term.weight * output.loss, output.loss.detach()
            total.backward()
            _update(self._generator, self._optimizer, self.clip_norm)
            for critic, group, optimizer in zip(self._critics(), self._critic_groups, self._critic_optimizers, strict=True):
                loss = critic.critic_loss(seen).loss
                loss.backward()
                _update(group, optimizer, self.clip_norm)
                logs["train/vsd_critic"] = loss.detach()
        return logs


def plain_match(term: VSDLoss, inputs: LossInputs) -> TermOutput:
    """Return the VSD loss, the prior asked for one prompt after the other."""
    at = term.noised(inputs.latent, inputs)
    assert term.score is not None
    kind = term.schedule.prediction_type

    def ask(network: nn.Module, prompts: Tensor) -> Any:
        return network(at.z_t.to(next(network.parameters()).dtype), at.t, prompts).sample.float()

    with torch.no_grad():
        conditional, negative = ask(term.prior, inputs.prompt_embeds), ask(term.prior, inputs.negative_embeds)
        x0_prior = predict_x0(at.z_t, guide(conditional, negative, term.guidance), at.abar, kind)
        x0_score = predict_x0(at.z_t, ask(term.score, inputs.prompt_embeds), at.abar, kind)
    gradient, _ = vsd_gradient(at.z, x0_prior, x0_score, epsilon=term.epsilon)
    return TermOutput(pull(inputs.latent.float(), gradient))


def _update(group: Group, optimizer: Optimizer, clip_norm: float) -> None:
    nn.utils.clip_grad_norm_(group.parameters, clip_norm or float("inf"))
    optimizer.step()
    optimizer.zero_grad()
