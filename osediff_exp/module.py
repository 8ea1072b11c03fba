"""The LightningModule: generator, loss terms, optimizers, validation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from osediff_exp.checkpoints.own import check_resumable, stamp
from osediff_exp.errors import UserError
from osediff_exp.losses.base import CriticTerm, LossInputs, LossTerm
from osediff_exp.metrics.base import ImageMetric
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.generator import Generator, GeneratorOutput, Noise
from osediff_exp.models.prompts import PromptExtractor
from osediff_exp.randomness import sample_noise

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
Logs = dict[str, Tensor]
_BASELINE = "bicubic_"


class RestorationModule(pl.LightningModule):
    """Train a generator with any set of loss terms; terms with networks of their own are stepped beside it.

    One step is one update of the generator. It takes ``critic_updates`` rounds of ``accumulate`` micro-batches; critics are updated after
    each round, the generator after the last. Each micro-batch has ONE backward pass, of the generator's loss plus every critic's loss
    (their graphs are disjoint): that is what keeps gradients synchronised under plain DDP, critics included.

    Args:
        backbone: frozen; also encodes the prompts.
        generator: what is trained.
        terms: loss terms by name; a name is its key in the logs.
        optimizer: makes the generator's optimizer.
        prompts: c_y = Y(x); sees the ground truth in training and the low-quality image in validation.
        negative_prompt: the far end of VSD's guidance.
        metrics: validation metrics by name.
        seed: of every random number in a step.
        max_steps: steps after which training stops.
        critic_updates: of each critic per step; DMD2 calls it a two time-scale update rule (arXiv 2405.14867, section 4.2).
        accumulate, clip_norm: micro-batches per update; largest gradient norm of the generator and of each critic (0: no clipping).
        log_every: steps between rows of the log.
        record: plain data of the run that every checkpoint carries: ``config`` and ``versions``.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        generator: Generator,
        terms: dict[str, LossTerm],
        optimizer: OptimizerFactory,
        prompts: PromptExtractor,
        negative_prompt: str,
        metrics: dict[str, ImageMetric],
        seed: int,
        max_steps: int,
        accumulate: int = 1,
        critic_updates: int = 1,
        clip_norm: float = 1.0,
        log_every: int = 10,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False
        if not terms:
            raise UserError("no loss term is left: give at least one term in loss/terms a weight above 0")
        if min(max_steps, accumulate, log_every, critic_updates) < 1:
            raise UserError("trainer.max_steps, trainer.accumulate, trainer.log_every and trainer.critic_updates must be at least 1")
        self.backbone = backbone
        self.generator = generator
        self.terms = nn.ModuleDict(terms)
        self.metrics = nn.ModuleDict(metrics)
        self.baseline = nn.ModuleDict({_BASELINE + name: metric.clone() for name, metric in metrics.items()})
        self.optimizer_factory = optimizer
        self.prompts, self.negative_prompt = prompts, negative_prompt
        self.seed, self.max_steps, self.accumulate, self.clip_norm, self.log_every = seed, max_steps, accumulate, clip_norm, log_every
        self.critic_updates = critic_updates
        self.record = dict(record or {})
        if critic_updates > 1 and not self.critics:
            raise UserError(
                f"trainer.critic_updates={critic_updates}, but no loss term has a network to update: add one (vsd), or set it to 1"
            )
        self.steps_taken = 0
        self.latest: dict[str, float] = {}
        self.per_image: list[dict[str, Any]] = []
        self.validated_step = -1
        self._micro_batch = 0
        self._figures: dict[str, list[Tensor]] = {}
        self._since = (0, time.perf_counter())
        self._text_cache: dict[str, Tensor] = {}

    # ---- parts

    @property
    def critics(self) -> dict[str, CriticTerm]:
        """The terms that train networks of their own."""
        return {name: term for name, term in self.terms.items() if isinstance(term, CriticTerm)}

    @property
    def _metrics(self) -> dict[str, ImageMetric]:
        """The restored image's metrics, then the same of the bicubic enlargement."""
        return {name: metric for name, metric in [*self.metrics.items(), *self.baseline.items()] if isinstance(metric, ImageMetric)}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return who trains what: ``generator``, then each critic by its term's name."""
        return {"generator": self.generator.trainable_parameters()} | {
            name: critic.critic_parameters() for name, critic in self.critics.items()
        }

    def configure_optimizers(self) -> list[Optimizer]:
        if not self.generator.trainable_parameters():
            raise UserError("the generator has nothing to train: set generator.train_unet or train_vae_encoder, and a rank above 0")
        return [self.optimizer_factory(self.generator.trainable_parameters())] + [
            critic.optimizer(critic.critic_parameters()) for critic in self.critics.values()
        ]

    def embed(self, prompts: list[str]) -> Tensor:
        """Return text features (B, L, D); the constant prompts of a run are encoded once."""
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._text_cache]
        if missing:
            if len(self._text_cache) + len(missing) > 256:
                self._text_cache.clear()
                missing = list(dict.fromkeys(prompts))
            self._text_cache.update(zip(missing, self.backbone.encode_prompts(missing).cpu(), strict=True))
        return torch.stack([self._text_cache[prompt] for prompt in prompts]).to(self.device)

    def restore(self, lq: Tensor, prompts: list[str], noise: Noise | None = None) -> GeneratorOutput:
        """Restore ``lq`` (B, 3, H, W) in [0, 1]; the output's image is in [-1, 1]."""
        return self.generator(2 * lq - 1, self.embed(prompts), noise)

    # ---- training

    def on_fit_start(self) -> None:
        check_validation_share(len(self.trainer.datamodule.val_pairs), self.trainer.world_size)  # type: ignore[attr-defined]

    def on_train_start(self) -> None:
        self._since = (self.steps_taken, time.perf_counter())
        for logger in self.loggers:
            if hasattr(logger, "forget_after"):  # a resumed run writes the rows behind its checkpoint anew
                logger.forget_after(self.steps_taken)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        last_round = self._micro_batch >= self.accumulate * (self.critic_updates - 1)
        loss, logs = self._losses(batch) if last_round else self._critics_losses(batch)
        self.manual_backward(loss / self.accumulate)
        for key, value in logs.items():
            self._figures.setdefault(key, []).append(value.float().reshape(-1))
        self._micro_batch += 1
        if self._micro_batch % self.accumulate == 0:
            norms = self._step_optimizers(generator_too=last_round)
            if last_round:
                self._finish_step(norms, len(batch["index"]))

    def _finish_step(self, norms: Logs, batch_size: int) -> None:
        logs = {key: torch.cat(values) for key, values in self._figures.items()} | norms
        self._micro_batch, self._figures = 0, {}
        self.steps_taken += 1
        self.trainer.datamodule.set_position(self.steps_taken)  # type: ignore[attr-defined]
        self._log_step(logs, batch_size)
        if self.steps_taken >= self.max_steps:
            self.trainer.should_stop = True

    def _loss_inputs(self, batch: dict[str, Any]) -> LossInputs:
        indices, step = batch["index"].tolist(), self.steps_taken

        def noise(purpose: str, shape: tuple[int, ...]) -> Tensor:
            return sample_noise(self.seed, f"generator/{purpose}", step, indices, shape).to(self.device)

        prompts = self.prompts(batch["hq"], batch["name"])
        restored = self.restore(batch["lq"], prompts, noise)
        return LossInputs(
            output=restored.image,
            target=2 * batch["hq"] - 1,
            latent=restored.latent,
            prompt_embeds=self.embed(prompts),
            negative_embeds=self.embed([self.negative_prompt] * len(prompts)),
            seed=self.seed,
            step=step,
            indices=indices,
        )

    def _losses(self, batch: dict[str, Any]) -> tuple[Tensor, Logs]:
        """Return the sum to differentiate and the figures of a micro-batch that trains everything."""
        inputs = self._loss_inputs(batch)
        total, logs = torch.zeros((), device=self.device), {}
        for name, term in self.terms.items():
            output = term(inputs)
            total = total + term.weight * output.loss
            logs[f"train/{name}"] = output.loss.detach()
            logs |= {f"{name}/{key}": value.detach() for key, value in output.logs.items()}
        logs["train/loss"] = total.detach()
        critics, more = self._critics_sum(inputs)
        return total + critics, logs | more

    def _critics_losses(self, batch: dict[str, Any]) -> tuple[Tensor, Logs]:
        """Return the same for a micro-batch that trains the critics alone."""
        with torch.no_grad():
            inputs = self._loss_inputs(batch)
        total, logs = self._critics_sum(inputs)
        # DDP waits for a gradient of every parameter it knows: the generator's are zeros here.
        return total + 0.0 * sum(parameter.sum() for parameter in self.generator.trainable_parameters()), logs

    def _critics_sum(self, inputs: LossInputs) -> tuple[Tensor, Logs]:
        total, logs = torch.zeros((), device=self.device), {}
        for name, critic in self.critics.items():
            output = critic.critic_loss(inputs)
            total = total + output.loss
            logs[f"train/{name}_critic"] = output.loss.detach()
            logs |= {f"{name}/{key}": value.detach() for key, value in output.logs.items()}
        return total, logs

    def _step_optimizers(self, *, generator_too: bool) -> Logs:
        """Clip, step and reset the optimizers; return gradient norms before clipping, and learning rates."""
        optimizers = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        # Under fp16 the gradients are still multiplied by the scaler's factor here (Lightning divides inside step()): so is the limit.
        scale = scaler.get_scale() if scaler is not None else 1.0
        limit = (self.clip_norm or float("inf")) * scale
        logs = {}
        for (name, parameters), optimizer in zip(self.parameter_groups().items(), optimizers, strict=True):
            if name == "generator" and not generator_too:
                continue
            logs[f"train/grad_norm/{name}"] = nn.utils.clip_grad_norm_(parameters, limit) / scale
            logs[f"train/lr/{name}"] = torch.tensor(optimizer.param_groups[0]["lr"])
            optimizer.step()
            optimizer.zero_grad()
        return logs

    def _log_step(self, logs: Logs, batch_size: int) -> None:
        if self.steps_taken % self.log_every and self.steps_taken not in (1, self.max_steps):
            return
        figures = self._reduce(logs)
        steps, since = self._since
        elapsed = time.perf_counter() - since
        images = (self.steps_taken - steps) * batch_size * self.accumulate * self.critic_updates * self.trainer.world_size
        figures["train/images_per_second"] = images / elapsed
        self._since = (self.steps_taken, time.perf_counter())
        self._publish(figures)

    def _reduce(self, logs: Logs) -> dict[str, float]:
        """Average each figure over samples and ranks; NaN marks samples a figure does not concern."""
        columns = {key: value.float().reshape(-1).to(self.device) for key, value in logs.items()}
        reduced = {}
        for key, value in columns.items():
            gathered = self.all_gather(value) if self.trainer.world_size > 1 else value
            mean = float(torch.as_tensor(gathered).nanmean())
            if mean == mean:
                reduced[key] = mean
        return reduced

    def _publish(self, figures: dict[str, float]) -> None:
        self.latest |= figures
        for logger in self.loggers:
            logger.log_metrics(figures, step=self.steps_taken)

    # ---- validation

    def on_validation_epoch_start(self) -> None:
        self.per_image = []

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        restored = self.restore(batch["lq"], self.prompts(batch["lq"], batch["name"]))
        output = ((restored.image + 1) / 2).mul(255).round().div(255)
        rows: list[dict[str, Any]] = [{"name": name} for name in batch["name"]]
        for name, metric in self._metrics.items():
            picture = batch["lq"] if name.startswith(_BASELINE) else output
            for row, score in zip(rows, metric.add(picture.float(), batch["hq"].float()), strict=True):
                row[name] = float(score)
        self.per_image += rows
        return {"output": output}

    def on_validation_epoch_end(self) -> None:
        figures = {}
        for name, metric in self._metrics.items():
            if int(metric.count) or self.trainer.world_size > 1:
                figures[f"val/{name}"] = float(metric.compute())
            metric.reset()
        if self.trainer.world_size > 1:
            gathered: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(gathered, self.per_image)
            self.per_image = [row for rows in gathered for row in rows]
        self.per_image.sort(key=lambda row: row["name"])
        if not self.trainer.sanity_checking:
            self.validated_step = self.steps_taken
            self._publish(figures)
        # Time spent validating is no training time.
        self._since = (self.steps_taken, time.perf_counter())

    # ---- checkpoints: only what trains

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return the trainable tensors alone: the frozen weights are the backbone's."""
        trainable = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        return {key: value for key, value in super().state_dict(*args, **kwargs).items() if key in trainable}

    @cached_property
    def _fingerprint(self) -> str:
        """The backbone is frozen: hashed once, not at every save."""
        return self.backbone.fingerprint()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint |= stamp(steps=self.steps_taken, backbone=self.backbone, fingerprint=self._fingerprint) | self.record

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_resumable(checkpoint, self.state_dict(), self.backbone, self._fingerprint)
        self.steps_taken = checkpoint["steps_taken"]


def check_validation_share(num_pictures: int, world_size: int) -> None:
    """Raise UserError where a process would have no validation picture: Lightning passes it by, and the others wait for it for ever."""
    if 0 < num_pictures < world_size:
        raise UserError(
            f"{num_pictures} validation pictures cannot be shared by {world_size} processes: give at least {world_size}, none at all, "
            "or set trainer.devices lower"
        )
