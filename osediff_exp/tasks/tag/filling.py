"""Filling the cache: the very pictures that a training of the same configuration will ask about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from osediff_exp.bars import UNBOUNDED_STEPS
from osediff_exp.data.datamodule import RestorationDataModule
from osediff_exp.data.pairs import TrainingPairs, to_tensor
from osediff_exp.errors import UserError
from osediff_exp.models.prompts import TaggedPrompt
from osediff_exp.module.prompting import BatchPrompts
from osediff_exp.tasks.tag.photos import words_of_files
from osediff_exp.tasks.tag.work import Figures, Work, shared_order, unread
from osediff_exp.tasks.train import build_data, micro_batches_per_step


def fill(config: DictConfig, run_dir: Path) -> Figures:
    """Tag the training's and the validation's pictures: sample i of the stream is a function of seed and i, so all are known beforehand."""
    work = Work(config)
    asked = BatchPrompts(work.extractor, train_image=config.prompt.train_image, test_image=config.prompt.test_image)
    data = build_data(config, run_dir)
    data.setup("fit")
    failures: list[str] = []
    if asked.train_image == "photo":
        failures = words_of_files(work, _files(data), work.in_training)[1]
    else:
        assert data.train_pairs is not None
        count = num_samples(config)
        _tag(work, work.in_training, _Asked(data.train_pairs, asked.train_image, shared_order(count)), "crops", data.num_workers)
    assert data.val_pairs is not None
    if len(data.val_pairs):
        pictures = _Asked(data.val_pairs, asked.test_image, shared_order(len(data.val_pairs)))
        _tag(work, work.extractor, pictures, "validation", data.num_workers)
    figures = work.figures() | {"num_failed": len(failures)}
    if failures:
        raise unread(failures, figures, run_dir)
    return figures


def num_samples(config: DictConfig) -> int:
    """Return how many samples of the stream a training sees, over all its devices.

    Raises:
        UserError: ``tag.samples`` is below 0, or null where only minutes end the training.
    """
    if config.tag.samples is not None:
        if config.tag.samples < 0:
            raise UserError(f"tag.samples={config.tag.samples}: give a number of crops, or null for those of trainer.max_steps steps")
        return int(config.tag.samples)
    trainer = config.trainer
    if trainer.max_steps == UNBOUNDED_STEPS:
        raise UserError(f"trainer.budget_minutes={trainer.budget_minutes} does not say how many crops to tag: set tag.samples to a number")
    devices = trainer.devices if isinstance(trainer.devices, int) and trainer.devices > 0 else 1
    return int(trainer.max_steps * trainer.batch_size * micro_batches_per_step(config) * devices * trainer.num_nodes)


class _Asked(Dataset[Tensor]):
    """One picture of each sample, as prompts will be asked for it; in the order of ``order``."""

    def __init__(self, pairs: Any, image: str, order: Sequence[int]) -> None:
        self.pairs, self.image, self.order = pairs, image, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, k: int) -> Tensor:
        i = self.order[k]
        if self.image == "hq" and isinstance(self.pairs, TrainingPairs):  # cut without the work of degrading it
            return to_tensor(self.pairs.hq(i))
        return self.pairs[i][self.image]


def _tag(work: Work, extractor: TaggedPrompt, pictures: Dataset[Tensor], what: str, num_workers: int) -> None:
    """Tag pictures in batches; those of another size than their neighbours (real pairs) go by themselves."""
    loader: DataLoader[Any] = DataLoader(pictures, batch_size=work.batch_size, num_workers=num_workers, collate_fn=list)
    with work.progress(len(pictures), f"tagging {what}") as progress:  # type: ignore[arg-type]
        for images in loader:
            for same in _of_one_size(images):
                extractor.words_of(torch.stack(same).to(work.like.device))
            progress.advance(len(images))


def _of_one_size(images: list[Tensor]) -> list[list[Tensor]]:
    groups: dict[tuple[int, ...], list[Tensor]] = {}
    for image in images:
        groups.setdefault(tuple(image.shape), []).append(image)
    return list(groups.values())


def _files(data: RestorationDataModule) -> dict[str, Path]:
    assert data.train_pairs is not None
    return {str(path): path for paths in data.train_pairs.lists for path in paths}
