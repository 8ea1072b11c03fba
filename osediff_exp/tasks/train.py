"""task=train: build everything from the configuration, train, and leave figures, pictures and a checkpoint in the run folder."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from osediff_exp.callbacks.interruption import StopAfterStep
from osediff_exp.callbacks.progress import LiveProgress
from osediff_exp.callbacks.time_budget import TimeBudget
from osediff_exp.callbacks.training_time import TrainingTime
from osediff_exp.callbacks.wandb_run import WandbRun, closed_as_failed
from osediff_exp.checkpoints.own import run_record
from osediff_exp.checkpoints.starting import start_from
from osediff_exp.checkpoints.training_identity import STAGES
from osediff_exp.data.datamodule import RestorationDataModule
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.complexity import measure_parameters
from osediff_exp.module import RestorationModule
from osediff_exp.module.restoration_module import DATA_WAIT
from osediff_exp.module.scores import with_figure
from osediff_exp.runtime import machine, peak_memory_gib, prepare_process, quiet_libraries
from osediff_exp.tasks.arm import this_arm
from osediff_exp.tasks.busy_cores import warn_of_busy_cores
from osediff_exp.tasks.costs import restoring_macs
from osediff_exp.tasks.loading import own_packages
from osediff_exp.tasks.methods import build_method
from osediff_exp.tasks.precision import suit_networks, with_precision
from osediff_exp.tasks.prompting import build_prompts, feature_store, log_cache
from osediff_exp.tasks.ranks import finish_distributed, leave_process_group, ranks_watched
from osediff_exp.tasks.resuming import Start, start_of
from osediff_exp.tasks.stages import earlier_runs, earlier_trainings

Figures = dict[str, float | int | str | None]


def run(config: DictConfig, run_dir: Path) -> Figures:
    """Train as configured; return the final validation figures and what the run cost."""
    quiet_libraries()
    prepare_process(seed=config.seed)
    leave_process_group()  # of an earlier arm in this process that failed: ours has other ranks
    start = start_of(config, run_dir)
    backbone = instantiate(config.backbone.loader)
    config = with_precision(config, backbone)
    data = build_data(config, run_dir)
    data.setup("fit")  # photos are checked before anything is built
    needs = {f"needs_{name}": run for name, run in earlier_runs(config, run_dir).items()}  # before other arms of the sweep end
    module = build_module(config, backbone, run_dir)
    module.prompts.extractor.expect(*data.named_files())
    if config.init is not None and start.checkpoint is None:
        generator: Any = OmegaConf.to_container(config.generator, resolve=True)
        start_from(config.init, module.generator, backbone, generator, packages=own_packages(config))
    stop, clock = StopAfterStep(), TrainingTime(before=start.seconds)
    budget = TimeBudget(minutes=config.trainer.get("budget_minutes"), before=start.step_seconds)
    trainer = build_trainer(config, run_dir, start, more=[budget, stop, clock])  # a checkpoint that stop writes holds the step it ends with
    suit_networks(trainer, backbone.unet, backbone.vae, module.method)
    with closed_as_failed(trainer.loggers):
        finished = start.steps >= config.trainer.max_steps or budget.spent
        if not finished:
            warn_of_busy_cores(trainer)
            with stop.watching(trainer), ranks_watched():
                trainer.fit(module, datamodule=data, ckpt_path=start.checkpoint, weights_only=True)
        if trainer.interrupted:
            raise KeyboardInterrupt
        if module.validated_step != module.steps_taken or finished:
            trainer.validate(module, datamodule=data, ckpt_path=start.checkpoint if finished else None, verbose=False, weights_only=True)
        log_cache(module.prompt_figures())
        steps = {"own_steps": module.generator.steps, "sampling_steps": module.val_sampling_steps}
        result = figures(module, data) | restoring_macs(config, backbone, **steps)
        result |= {"method": config.method.name, "init": config.init, "train_seconds": clock.seconds, "train_seconds_before": clock.before}
        result["step_seconds"] = budget.seconds
        result |= needs
        for logger in trainer.loggers:
            logger.finalize("success")
            if isinstance(logger, WandbRun):
                logger.finish(result)
    finish_distributed()
    return result


def micro_batches_per_step(config: DictConfig) -> int:
    """Return how many micro-batches a step consumes on each device."""
    return int(config.trainer.accumulate * config.trainer.critic_updates)


def build_data(config: DictConfig, run_dir: Path) -> RestorationDataModule:
    """Return the data module of the configuration."""
    return instantiate(config.data.datamodule, _partial_=True)(
        degradation=instantiate(config.degradation),
        val_degradation=instantiate(config.val_degradation),
        batch_size=config.trainer.batch_size,
        accumulate=micro_batches_per_step(config),
        seed=config.seed,
        val_seed=config.data.val_seed,
        report_dir=run_dir,
        with_other=config.prompt.words == "other",
    )


def build_module(config: DictConfig, backbone: Backbone, run_dir: Path | None = None) -> RestorationModule:
    """Return the module that trains the configured method (see :func:`build_method`)."""
    return RestorationModule(
        backbone=backbone,
        method=build_method(config, backbone, run_dir),
        prompts=build_prompts(config),
        train_image=config.prompt.train_image,
        test_image=config.prompt.test_image,
        negative_prompt=config.prompt.negative,
        metrics={name: instantiate(node) for name, node in config.metrics.items() if node is not None},
        seed=config.seed,
        max_steps=config.trainer.max_steps,
        accumulate=config.trainer.accumulate,
        critic_updates=config.trainer.critic_updates,
        clip_norm=config.trainer.clip_norm,
        log_every=config.trainer.log_every,
        max_bad_steps=config.trainer.max_bad_steps,
        val_steps=config.trainer.val_steps,
        record=run_record(_recorded(config, run_dir)),
        open_features=feature_store(config, backbone),
    )


def _recorded(config: DictConfig, run_dir: Path | None) -> dict[str, Any]:
    """Return the configuration as plain data, and beside it which trainings the earlier stages are of."""
    plain: Any = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    stages = earlier_trainings(earlier_runs(config, run_dir))
    return plain | {STAGES: stages} if stages else plain


def build_trainer(config: DictConfig, run_dir: Path, start: Start, more: Sequence[pl.Callback] = ()) -> pl.Trainer:
    """Return Lightning's Trainer with the configured callbacks and ``more``.

    Stopping, clipping and accumulation are the module's own (manual optimization).
    """
    trainer, loggers = config.trainer, build_loggers(config, run_dir, start)
    with closed_as_failed(loggers):
        return pl.Trainer(
            default_root_dir=run_dir,
            accelerator=trainer.accelerator,
            devices=trainer.devices,
            num_nodes=trainer.num_nodes,
            strategy=strategy_of(trainer),
            precision=trainer.precision,
            max_epochs=-1,
            val_check_interval=trainer.validate_every * micro_batches_per_step(config),
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            logger=loggers,
            callbacks=[*build_callbacks(config, run_dir), *more],
        )


def strategy_of(trainer: DictConfig) -> str:
    """Return the strategy; for a single process not DDP: it needs all gradients of one backward pass, and with them every graph at once."""
    alone = trainer.devices * trainer.num_nodes == 1
    return "auto" if alone and trainer.strategy.startswith("ddp") else str(trainer.strategy)


def build_callbacks(config: DictConfig, run_dir: Path) -> list[pl.Callback]:
    """Return the configured callbacks; in a sweep the progress names the arm, since several may print at once."""
    callbacks = [instantiate(node) for node in config.callbacks.values() if node is not None]
    arm = this_arm(config, run_dir)
    for callback in callbacks:
        if isinstance(callback, LiveProgress) and arm.sweep is not None:
            callback.label = callback.label or arm.name
    return callbacks


def build_loggers(config: DictConfig, run_dir: Path, start: Start) -> list[Logger]:
    """Return metrics.csv's logger and W&B's; only rank 0 starts a W&B run."""
    loggers: list[Logger] = [instantiate(config.logger.csv, path=str(run_dir / "metrics.csv"))]
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        arm = this_arm(config, run_dir)
        wandb = instantiate(config.logger.wandb, _partial_=True)(
            folder=str(run_dir),
            sweep_folder=str(HydraConfig.get().sweep.dir) if arm.sweep is not None else None,
            resume_step=start.steps,
            name=arm.name,
            group=arm.sweep,
            tags=[*config.logger.wandb.tags, *arm.tags],
            settings={"arm": arm.label, **OmegaConf.to_container(config, resolve=True, enum_to_str=True)},  # type: ignore[dict-item]
        )
        loggers += [wandb] if wandb is not None else []
    return loggers


def figures(module: RestorationModule, data: RestorationDataModule) -> Figures:
    """Return the flat figures of result.json; ``num_val_images_METRIC`` stands beside an average that leaves pictures out."""
    last, place = module.latest, module.trainer.strategy.root_device
    parameters = {name: sum(parameter.numel() for parameter in group) for name, group in module.parameter_groups().items()}
    counts: Figures = {"steps": module.steps_taken, "num_val_images": len(module.per_image), "skipped_updates": module.bad_steps.skipped}
    return (
        counts
        | {f"num_val_images_{key}": count for key, count in with_figure(module.per_image).items()}
        | {key.removeprefix("val/"): value for key, value in last.items() if key.startswith("val/")}
        | {key.replace("/", "_"): value for key, value in last.items() if key in ("train/loss", "train/images_per_second", DATA_WAIT)}
        | {f"params_trainable_{name}": count for name, count in parameters.items()}
        | {"params_trainable": sum(parameters.values()), "global_batch_size": data.global_batch_size // module.critic_updates}
        | {"samples_seen": module.steps_taken * data.global_batch_size}
        | {"params_total": measure_parameters(module.backbone, module.generator).total}
        | {
            "sampling_steps": module.val_sampling_steps,
            "own_sampling_steps": module.generator.steps,
            "max_sampling_steps": module.generator.max_steps,
            "guidance": module.generator.guidance,
        }
        | {"peak_memory_gib": peak_memory_gib(str(place)), "machine": machine(str(place))}
        | {"backbone_fingerprint": module.backbone.fingerprint()}
        | {"device": _device(module.trainer), "os": platform.platform()}
        | module.prompt_figures()
        | {"python": platform.python_version(), "torch": str(torch.__version__)}
    )


def _device(trainer: pl.Trainer) -> str:
    """Return what the training ran on, and on how many: "cpu", "4 x cuda"."""
    # Not the module's own device: Lightning brings a module back to the CPU when it has finished.
    kind = trainer.strategy.root_device.type
    return kind if trainer.world_size == 1 else f"{trainer.world_size} x {kind}"
