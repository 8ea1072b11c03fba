"""task=pretrain: train a small Stable-Diffusion-style backbone from photos, or the paper's tagger for degraded ones."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.loggers import Logger
from rich.console import Console
from torch import Tensor

from osediff_exp.callbacks.checkpoint import PretrainingCheckpoint
from osediff_exp.callbacks.ema import warmed_up_decay
from osediff_exp.callbacks.metrics_csv import MetricsCsv
from osediff_exp.callbacks.progress import LiveProgress
from osediff_exp.callbacks.skip_bad_steps import SkipBadSteps
from osediff_exp.data.arguments import MULTIPLE
from osediff_exp.data.checks import find_bad_images
from osediff_exp.data.datamodule import RestorationDataModule
from osediff_exp.data.images import read_size
from osediff_exp.errors import UserError, nearest
from osediff_exp.models.backbone import Backbone, load_backbone, save_backbone
from osediff_exp.module import check_validation_share
from osediff_exp.pretraining.autoencoder import AutoencoderPretraining, latent_scaling_factor
from osediff_exp.pretraining.captions import content_words
from osediff_exp.pretraining.initial import initial_backbone, load_vae
from osediff_exp.pretraining.latents import CachedLatents, LatentCache
from osediff_exp.pretraining.pictures import PretrainingPictures
from osediff_exp.pretraining.prior import PriorPretraining
from osediff_exp.pretraining.tokenizer import holds_tokenizer
from osediff_exp.restoration.progress import FileProgress
from osediff_exp.runtime import prepare_process, quiet_libraries
from osediff_exp.tasks.busy_cores import warn_of_busy_cores
from osediff_exp.tasks.dape import DAPE, dape_module, save_dape
from osediff_exp.tasks.precision import suit_networks
from osediff_exp.tasks.ranks import after_rank_zero, finish_distributed, leave_process_group, ranks_watched
from osediff_exp.tasks.resuming import checkpoint_to_resume

log = logging.getLogger(__name__)


class _Position(pl.Callback):
    """Tell the stream how far training has come, so that a resumed run goes on with the next sample."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        trainer.datamodule.set_position(trainer.global_step)  # type: ignore[attr-defined]


class _AveragedWeights(WeightAveraging):
    """Leave the averaged weights in the module, also where the checkpoint was that of the last step and nothing is left to train."""

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._copy_average_to_current(pl_module)  # Lightning does so in on_train_end, which such a fit passes by


def run(config: DictConfig, run_dir: Path) -> dict[str, float | int | str | None]:
    """Train ``config.stage`` and leave the weights in the run folder: ``vae/``, a whole backbone in ``backbone/``, or ``DAPE.pth``."""
    stages = {"vae": _vae_stage, "prior": _prior_stage, "dape": _dape_stage}
    if config.stage not in stages:
        raise UserError(f"stage={config.stage} is unknown: use vae, prior or dape.{nearest(str(config.stage), stages)}")
    quiet_libraries()
    prepare_process(seed=config.seed)
    leave_process_group()  # of an earlier arm in this process that failed: ours has other ranks
    settings: Any = OmegaConf.to_container(config.pretrain, resolve=True)
    data = instantiate(config.data.datamodule, _partial_=True)(
        degradation=instantiate(config.degradation),
        val_degradation=instantiate(config.val_degradation),
        batch_size=settings["batch_size"],
        seed=config.seed,
        val_seed=settings["val_seed"],
        report_dir=run_dir,
    )
    figures = stages[config.stage](config, settings, data, run_dir)
    finish_distributed()
    return figures


def _vae_stage(config: DictConfig, settings: dict[str, Any], data: RestorationDataModule, run_dir: Path) -> dict[str, Any]:
    keys = ["learning_rate", "weight_decay", "warmup_steps", "max_steps", "kl_weight", "train_encoder", "perceptual_weight"]
    keys += ["perceptual_net", "adversarial_weight", "discriminator_width"]
    before = _initial(settings)
    module = AutoencoderPretraining(
        architecture=settings["autoencoder"], seed=config.seed, init=before and before.vae, **{key: settings[key] for key in keys}
    )
    trainer = _fit(module, data, config, settings, run_dir)
    vae = module.vae.float().eval()
    if trainer.is_global_zero:
        if before and not settings["train_encoder"]:  # the same latents: a prior of theirs keeps its unit
            vae.register_to_config(scaling_factor=before.scaling_factor)
        else:
            samples = [data.train_pairs[index]["hq"][None] for index in range(256)]  # type: ignore[index]
            vae.register_to_config(scaling_factor=round(latent_scaling_factor(vae, samples), 5))
        vae.save_pretrained(run_dir / "vae")
    return _figures(trainer, vae) | {"scaling_factor": vae.config.scaling_factor}


def _initial(settings: dict[str, Any]) -> Backbone | None:
    """Return the backbone whose weights the training goes on from, if there is one."""
    return None if settings["init"] is None else load_backbone(sources=[settings["init"]], local_files_only=True)


def _prior_stage(config: DictConfig, settings: dict[str, Any], data: RestorationDataModule, run_dir: Path) -> dict[str, Any]:
    if settings["vae"] is None:
        raise UserError("pretrain.vae is not set: stage=prior needs the folder of a trained VAE (the 'vae' of a stage=vae run)")
    data.setup("fit")
    names = [path.stem for paths in data.train_pairs.lists for path in paths]  # type: ignore[union-attr]
    if settings["latents"]["count"]:
        _check_sizes(data, settings["latents"]["crop_size"])
    init, tokenizer = _initial(settings), run_dir / "tokenizer"
    words = {
        "prompts": [settings["positive_prompt"], settings["negative_prompt"]],
        "content_words": [word for name in names for word in content_words(name)],
        "vocab_size": settings["vocab_size"],
    }
    if init is None:
        length = settings["text_encoder"]["max_position_embeddings"]
        after_rank_zero(lambda: holds_tokenizer(tokenizer, **words, max_length=length), watched=tokenizer / "vocab.json")
    backbone = initial_backbone(
        vae=load_vae(Path(settings["vae"]).expanduser()),
        **{key: settings[key] for key in ("unet", "text_encoder", "scheduler")},
        tokenizer_folder=tokenizer,
        **words,
        init=init,
    )
    keys = ["positive_prompt", "negative_prompt", "degraded_fraction", "drop_probability"]
    keys += ["learning_rate", "weight_decay", "warmup_steps", "max_steps"]
    module = PriorPretraining(backbone=backbone, seed=config.seed, **{key: settings[key] for key in keys})
    if settings["latents"]["count"]:
        _use_cached_latents(config, data, backbone, settings, run_dir)
    trainer = _fit(module, data, config, settings, run_dir)
    if trainer.is_global_zero:
        save_backbone(backbone.eval(), run_dir / "backbone")
    return _figures(trainer, backbone.unet, backbone.text_encoder)


def _dape_stage(config: DictConfig, settings: dict[str, Any], data: RestorationDataModule, run_dir: Path) -> dict[str, Any]:
    module = dape_module(config, settings)
    trainer = _fit(module, data, config, settings | {"ema_decay": None}, run_dir)  # the authors' recipe averages no weights
    if trainer.is_global_zero:
        save_dape(module, run_dir)
    return _figures(trainer, module.network) | {"params_trained": module.num_trained, "output": str(run_dir / DAPE)}


def _check_sizes(data: RestorationDataModule, crop_size: int) -> None:
    """Raise UserError where a training photo is too small to be encoded: the stream's own crops may be smaller."""
    assert data.train_pairs is not None
    paths = list(dict.fromkeys(path for paths in data.train_pairs.lists for path in paths))
    if small := find_bad_images(paths, min_size=crop_size):
        largest = min(min(read_size(image.path)) for image in small) // MULTIPLE * MULTIPLE
        raise UserError(
            f"pretrain.latents.crop_size={crop_size} is larger than {len(small)} of {len(paths)} training photos, {small[0]} first: "
            f"set it to {largest} or less, or leave these photos out"
        )


def _use_cached_latents(
    config: DictConfig, data: RestorationDataModule, backbone: Backbone, settings: dict[str, Any], run_dir: Path
) -> None:
    """Encode photos once and let the stream cut its samples out of their latents."""
    given, pairs = settings["latents"], data.train_pairs
    assert pairs is not None
    size = pairs.crop_size // backbone.vae_factor
    folder = Path(given["folder"] or run_dir / "latents").expanduser()
    large = copy.copy(pairs)
    large.crop_size = given["crop_size"]
    cache = LatentCache(
        folder,
        pairs=large,
        vae=backbone.vae,
        count=given["count"],
        degraded_fraction=settings["degraded_fraction"],
        degradation=OmegaConf.to_container(config.degradation, resolve=True),  # type: ignore[arg-type]
    )
    after_rank_zero(cache.is_whole, watched=cache.record)
    backbone.vae.to(_encoding_device(settings["accelerator"]))
    with FileProgress(total=given["count"], label="encoding photos", console=Console()) as progress:
        cache.fill(progress.advance)
    backbone.vae.to("cpu")  # where the trainer fetches all parts
    data.train_pairs = CachedLatents(folder=folder, size=size, seed=pairs.seed)  # type: ignore[assignment]


def _encoding_device(accelerator: str) -> torch.device:
    """Return where photos are encoded before there is a trainer: a GPU where it will have one."""
    return torch.device("cuda" if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu")


def _fit(
    module: pl.LightningModule, data: RestorationDataModule, config: DictConfig, settings: dict[str, Any], run_dir: Path
) -> pl.Trainer:
    """Train ``module`` for ``settings["max_steps"]`` steps; where ``ema_decay`` is set, it ends with averaged weights."""
    csv = MetricsCsv(path=str(run_dir / "metrics.csv"))
    loggers: list[Logger] = [csv]
    trainer = pl.Trainer(
        max_steps=settings["max_steps"],
        accelerator=settings["accelerator"],
        devices=settings["devices"],
        precision=settings["precision"],
        gradient_clip_val=settings["clip_norm"],
        val_check_interval=settings["validate_every"],
        check_val_every_n_epoch=None,
        log_every_n_steps=25,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        logger=loggers,
        callbacks=[
            SkipBadSteps(limit=settings["max_bad_steps"], folder=run_dir),
            _Position(),
            *([PretrainingPictures(folder=run_dir / "images")] if hasattr(module, "pictures") else []),
            # Behind the pictures: at a validation's end it takes the average out of the module again.
            *([_AveragedWeights(avg_fn=_ema(settings["ema_decay"]))] if settings["ema_decay"] is not None else []),
            PretrainingCheckpoint(every=settings["validate_every"], folder=str(run_dir / "checkpoints")),
            LiveProgress(),
        ],
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    suit_networks(trainer, module)
    data.setup("fit")
    check_validation_share(len(data.val_pairs), trainer.world_size)  # type: ignore[arg-type]
    resume = checkpoint_to_resume(config, run_dir, steps="global_step")
    warn_of_busy_cores(trainer)
    with ranks_watched():
        trainer.fit(module, datamodule=data, ckpt_path=resume and str(resume), weights_only=True)
    if not trainer.callback_metrics:  # stopped behind its last step: the figures are those of its weights
        trainer.validate(module, datamodule=data, verbose=False)
    return trainer


def _ema(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    def average(averaged: Tensor, current: Tensor, num_averaged: Tensor | int) -> Tensor:
        if not averaged.is_floating_point():  # buffers such as position ids
            return current
        moved = averaged.lerp(current.to(averaged.dtype), 1 - warmed_up_decay(decay, int(num_averaged)))
        return torch.where(moved.isfinite(), moved, averaged)

    return average


def _figures(trainer: pl.Trainer, *networks: torch.nn.Module) -> dict[str, Any]:
    """Return the flat figures of result.json: the last logged ones, and the size of what was made."""
    metrics = {key.replace("/", "_"): float(value) for key, value in trainer.callback_metrics.items()}
    parameters = sum(parameter.numel() for network in networks for parameter in network.parameters())
    return metrics | {"steps": trainer.global_step, "params_total": parameters, "precision": str(trainer.precision)}
