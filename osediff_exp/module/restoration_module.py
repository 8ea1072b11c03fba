"""The LightningModule: steps of any method, validation, checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import ParallelStrategy, SingleDeviceStrategy
from torch import Tensor, nn
from torch.optim import Optimizer

from osediff_exp.bad_steps import BadSteps
from osediff_exp.checkpoints.own import check_resumable, stamp
from osediff_exp.devices import sent
from osediff_exp.errors import UserError
from osediff_exp.methods.base import GENERATOR, Logs, Method, MethodLoss
from osediff_exp.methods.batch import TrainingBatch
from osediff_exp.metrics.base import ImageMetric
from osediff_exp.metrics.set_metric import SetMetric
from osediff_exp.models.asking import restore_pictures
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.generator_base import Generator, GeneratorOutput
from osediff_exp.models.prompt_cache.feature_store import FeatureStore
from osediff_exp.models.prompt_features import PromptFeatures
from osediff_exp.models.prompts import PromptExtractor
from osediff_exp.module.figures import Speed, StepFigures, Stopwatch, Waiting
from osediff_exp.module.prompting import BatchPrompts
from osediff_exp.module.scores import ValidationScores, check_validation_share
from osediff_exp.module.stepping import Trained, configure_again, settings_of, step_together

DATA_WAIT = "time/data_wait_seconds"
"""Key in the log: seconds that a step spent between batches, since the row before."""


class RestorationModule(pl.LightningModule):
    """Train a method's groups, each with its optimizer; validate its generator.

    One step is one update of the generator. It takes ``critic_updates`` rounds of ``accumulate`` micro-batches; groups of every round
    (critics) are updated after each, the others after the last. Under DDP each micro-batch has ONE backward pass, of all groups' losses
    together (their graphs are disjoint): that is what keeps gradients synchronised, critics included. A single process differentiates
    them one after the other, which gives the same bits and frees each graph before the next is built.

    Args:
        backbone: frozen; also encodes the prompts.
        method: what is trained, and by which loss.
        prompts: c_y = Y(x); sees the ground truth in training and the low-quality image in validation, unless
        train_image, test_image: say otherwise (see :class:`osediff_exp.module.prompting.BatchPrompts`).
        negative_prompt: the far end of guidance.
        metrics: validation metrics by name.
        seed: of every random number in a step, and of a sampler's noise in validation.
        max_steps: steps after which training stops.
        critic_updates: of each critic per step; DMD2 calls it a two time-scale update rule (arXiv 2405.14867, section 4.2).
        accumulate, clip_norm: micro-batches per update; largest gradient norm of each group (0: no clipping).
        log_every: steps between rows of the log.
        max_bad_steps: steps in a row with a loss or gradient that is not finite that end the training; each is skipped.
        record: plain data of the run that every checkpoint carries: ``config`` and ``versions``.
        val_steps: at most this many sampling steps for a validation picture; None: as many as the generator takes by itself.
        open_features: returns where text features of earlier runs are kept, called at the first prompt; None: nowhere.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        method: Method,
        prompts: PromptExtractor,
        negative_prompt: str,
        metrics: Mapping[str, ImageMetric | SetMetric],
        seed: int,
        max_steps: int,
        accumulate: int = 1,
        critic_updates: int = 1,
        clip_norm: float = 1.0,
        log_every: int = 10,
        max_bad_steps: int = 10,
        record: Mapping[str, Any] | None = None,
        val_steps: int | None = None,
        train_image: str = "hq",
        test_image: str = "lq",
        open_features: Callable[[], FeatureStore] | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False
        if min(max_steps, accumulate, log_every, critic_updates) < 1:
            raise UserError("trainer.max_steps, trainer.accumulate, trainer.log_every and trainer.critic_updates must be at least 1")
        self.backbone = backbone
        self.method = method
        self.scores = ValidationScores(metrics)
        self.prompts, self.negative_prompt = BatchPrompts(prompts, train_image=train_image, test_image=test_image), negative_prompt
        self.seed, self.max_steps, self.accumulate, self.clip_norm, self.log_every = seed, max_steps, accumulate, clip_norm, log_every
        self.critic_updates, self.val_steps = critic_updates, val_steps
        self.record = dict(record or {})
        if critic_updates > 1 and not any(group.every_round for group in method.groups().values()):
            raise UserError(
                f"trainer.critic_updates={critic_updates}, but no loss term has a network to update: add one (vsd), or set it to 1"
            )
        self.steps_taken = 0
        self.latest: dict[str, float] = {}
        self.validated_step = -1
        self._micro_batch = 0
        self.bad_steps = BadSteps(limit=max_bad_steps)
        self._figures = StepFigures()
        self._speed, self._waiting = Speed(), Waiting()
        self._prompt_features = PromptFeatures(backbone.encode_prompts, open_features)
        self.prompting, self._restoring = Stopwatch(), Stopwatch()

    # ---- parts

    @property
    def generator(self) -> Generator:
        """What the method trains, and what restores."""
        return self.method.generator

    @property
    def val_sampling_steps(self) -> int:
        """How many steps a validation picture is sampled in: what the figures of quality were reached with."""
        with self.generator.sampling_in_at_most(self.val_steps) as steps:
            return steps

    @property
    def per_image(self) -> list[dict[str, Any]]:
        """The last validation's scores, a row per picture."""
        return self.scores.rows

    def prompt_figures(self) -> dict[str, float | int | None]:
        """Return what prompts took in this process (``train_prompt_seconds_per_image``: how long a training waited for them, tags and
        text features together), and the median seconds that the last validation took for a picture, prompts included."""
        features = {"text_cache_hits": self._prompt_features.hits, "text_cache_misses": self._prompt_features.misses}
        waited = {"train_prompt_seconds_per_image": self.prompting.per_picture, "restore_seconds_per_image": self._restoring.median}
        return {**self.prompts.extractor.figures(), **features, **waited}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return who trains what: ``generator``, then what the method trains beside it."""
        return {name: group.parameters for name, group in self.method.groups().items()}

    def configure_optimizers(self) -> list[Optimizer]:
        groups = self.method.groups()
        if not groups[GENERATOR].parameters:
            raise UserError("the generator has nothing to train: set generator.* so that a part of it trains (train_unet, a rank above 0)")
        optimizers = [group.optimizer(group.parameters) for group in groups.values()]
        self._configured = [settings_of(optimizer) for optimizer in optimizers]
        return optimizers

    def embed(self, prompts: list[str]) -> Tensor:
        """Return the prompts' text features (B, L, D)."""
        return sent(self._prompt_features(prompts), self.device)

    def restore(self, lq: Tensor, prompts: list[str], names: list[str] | None = None) -> GeneratorOutput:
        """Restore ``lq`` (B, 3, H, W) in [0, 1] called ``names``, which a sampler's noise depends on; the output's image is in [-1, 1]."""
        return restore_pictures(
            self.generator,
            2 * lq - 1,
            self.embed(prompts),
            names=names or ["image"] * len(lq),
            seed=self.seed,
            negative_embeds=lambda: self.embed([self.negative_prompt] * len(lq)),
            image_embeds=self._image_embeds(lq),
        )

    def _image_embeds(self, lq: Tensor) -> Tensor | None:
        """Return the tagger's features of low-quality pictures in [0, 1], where the generator asks for them (SeeSR: DAPE sees them)."""
        return self.prompts.extractor.image_embeds(lq) if self.generator.wants_image_embeds else None

    # ---- training

    def on_fit_start(self) -> None:
        check_validation_share(len(self.trainer.datamodule.val_pairs), self.trainer.world_size)  # type: ignore[attr-defined]

    def on_train_start(self) -> None:
        for optimizer, settings in zip(self.trainer.optimizers, self._configured, strict=True):
            configure_again(optimizer, settings)
        self._speed.restart(self.steps_taken)
        self._waiting.lap(self.steps_taken)
        for logger in self.loggers:
            if hasattr(logger, "forget_after"):  # a resumed run writes the rows behind its checkpoint anew
                logger.forget_after(self.steps_taken)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self._waiting.enter()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._waiting.leave()  # called after the callbacks' own

    def on_validation_end(self) -> None:
        self._waiting.leave()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        last_round = self._micro_batch >= self.accumulate * (self.critic_updates - 1)
        seen = self._training_batch(batch)
        total: Tensor | float = 0.0
        self._micro_batch += 1
        with self._gradients_kept_apart() if self._micro_batch % self.accumulate else nullcontext():
            for loss, logs in self._shares(seen) if last_round else [self.method.critics_loss(seen)]:
                self.manual_backward(loss / self.accumulate)
                total = total + loss.detach()
                self._figures.add(logs)
        assert isinstance(total, Tensor)
        self.bad_steps.see(total, batch)
        if self._micro_batch % self.accumulate == 0:
            norms = self._step_optimizers(last_round=last_round)
            if last_round:
                self._finish_step(norms, len(batch["index"]))

    def _gradients_kept_apart(self) -> AbstractContextManager[None]:
        """Return a context in which ranks exchange no gradients: an update that sums micro-batches exchanges them once."""
        strategy = self.trainer.strategy
        return strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) else nullcontext()

    def _shares(self, batch: TrainingBatch) -> Iterable[MethodLoss]:
        """Return what is differentiated at once: under DDP everything, which counts on it; in a single process one graph after another."""
        alone = isinstance(self.trainer.strategy, SingleDeviceStrategy)
        return self.method.shares(batch) if alone else [self.method.loss(batch)]

    def _finish_step(self, norms: Logs, batch_size: int) -> None:
        self._figures.add(norms)
        self._micro_batch = 0
        self.steps_taken += 1
        self.trainer.datamodule.set_position(self.steps_taken)  # type: ignore[attr-defined]
        if self.steps_taken % self.log_every == 0 or self.steps_taken in (1, self.max_steps):
            self._publish(self._step_figures(batch_size))
        self._figures.clear()
        self.bad_steps.finish_step(self.steps_taken, Path(self.trainer.default_root_dir), rank=self.global_rank)
        if self.steps_taken >= self.max_steps:
            self.trainer.should_stop = True

    def _training_batch(self, batch: dict[str, Any]) -> TrainingBatch:
        self.prompting.start()
        prompts = self.prompts.training(batch)
        embeds = self.embed(prompts)
        image_embeds = self._image_embeds(batch["lq"])
        self.prompting.stop(len(prompts))
        return TrainingBatch(
            lq=2 * batch["lq"] - 1,
            hq=2 * batch["hq"] - 1,
            prompt_embeds=embeds,
            negative_embeds=self.embed([self.negative_prompt] * len(prompts)),
            image_embeds=image_embeds,
            embed=self.embed,
            seed=self.seed,
            step=self.steps_taken,
            indices=batch["index"].tolist(),
        )

    def _step_optimizers(self, *, last_round: bool) -> Logs:
        """Step the groups of every round, and in the last round all."""
        optimizers = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        players = [
            Trained(name, group.parameters, optimizer)  # type: ignore[arg-type]
            for (name, group), optimizer in zip(self.method.groups().items(), optimizers, strict=True)
            if group.every_round or last_round
        ]
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        return step_together(players, clip_norm=self.clip_norm, scaler=scaler, may_step=self._may_step)

    def _may_step(self, norms: Tensor) -> bool:
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        gather = self._gather if self.trainer.world_size > 1 else None
        return self.bad_steps.judge(norms, gather=gather, scale=1.0 if scaler is None else scaler.get_scale())

    def _step_figures(self, batch_size: int) -> dict[str, float]:
        """Return the step's figures over all samples and ranks, how many pictures a second all ranks have seen since the last, and how long
        a step of this rank waited for its data."""
        gather = self._gather if self.trainer.world_size > 1 else None
        images = batch_size * self.accumulate * self.critic_updates * self.trainer.world_size
        speed = {"train/images_per_second": images * self._speed.lap(self.steps_taken), DATA_WAIT: self._waiting.lap(self.steps_taken)}
        skipped = {"train/skipped_updates": float(self.bad_steps.skipped)} if self.bad_steps.skipped else {}
        return self._figures.means(device=self.device, gather=gather) | speed | skipped

    def _gather(self, column: Tensor) -> Tensor:
        return torch.as_tensor(self.all_gather(column))

    def _publish(self, figures: dict[str, float]) -> None:
        self.latest |= figures
        for logger in self.loggers:
            logger.log_metrics(figures, step=self.steps_taken)

    # ---- validation

    def on_validation_epoch_start(self) -> None:
        self.scores.start()
        self._restoring.restart()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        self._restoring.start()
        with self.generator.sampling_in_at_most(self.val_steps):
            restored = self.restore(batch["lq"], self.prompts.testing(batch), batch["name"])
        output = ((restored.image.float() + 1) / 2).mul(255).round().div(255)
        if output.is_cuda:
            torch.cuda.synchronize()
        self._restoring.stop(len(output))
        with torch.autocast(self.device.type, enabled=False):  # as in task=evaluate: half precision would cost the scores digits
            self.scores.add(batch["name"], output, batch["lq"], batch["hq"])
        return {"output": output}

    def on_validation_epoch_end(self) -> None:
        figures = self.scores.finish(world_size=self.trainer.world_size)
        if not self.trainer.sanity_checking:
            self.validated_step = self.steps_taken
            self._publish({f"val/{name}": value for name, value in figures.items()})
        self._speed.restart(self.steps_taken)  # time spent validating is no training time

    # ---- checkpoints: only what the method saves, by its own names

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return what the method saves: the frozen weights are the backbone's."""
        return {name: parameter.detach().contiguous() for name, parameter in self.method.saved().items()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = False, assign: bool = False) -> Any:
        """Copy what :meth:`state_dict` returned; that it fits was checked before."""
        return self.method.load_state_dict(state_dict, strict=strict, assign=assign)

    @cached_property
    def _fingerprint(self) -> str:
        """The backbone is frozen: hashed once, not at every save."""
        return self.backbone.fingerprint()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint |= stamp(steps=self.steps_taken, backbone=self.backbone, fingerprint=self._fingerprint) | self.record
        checkpoint["bad_steps"] = self.bad_steps.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_resumable(checkpoint, self.state_dict(), self.backbone, self._fingerprint)
        self.steps_taken = checkpoint["steps_taken"]
        self.bad_steps.load_state_dict(checkpoint.get("bad_steps", {}))
