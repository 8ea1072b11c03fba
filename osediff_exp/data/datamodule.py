"""The Lightning data module: finds and checks the photos, and hands each rank its share of the stream."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Subset

from osediff_exp.data.arguments import check_arguments, mixing_weights
from osediff_exp.data.cache import ImageLoader
from osediff_exp.data.checks import ImageCheck
from osediff_exp.data.others import WithOther
from osediff_exp.data.paired_folder import PairedFolder
from osediff_exp.data.pairs import Sample, TrainingPairs, ValidationPairs
from osediff_exp.data.photo_store import PhotoStore
from osediff_exp.data.sampler import GlobalBatchSampler, shard
from osediff_exp.errors import UserError
from osediff_exp.randomness import torch_generator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from osediff_exp.data.checks import OnBadImages, Verify
    from osediff_exp.data.sources import Picture, Source
    from osediff_exp.degradations.base import Degradation

log = logging.getLogger(__name__)


class RestorationDataModule(pl.LightningDataModule):
    """Training stream and fixed validation pairs; the Trainer needs ``use_distributed_sampler=False``.

    One optimizer step consumes ``batch_size x world size x accumulate`` consecutive samples. After every optimizer step the training
    module calls :meth:`set_position`; the position is saved in the checkpoint, and a resumed run goes on with the next sample.

    Args:
        train: image lists of the training mixture, each with a weight.
        val: image lists of synthetic validation pairs; may be empty. Ignored where the two roots below are set.
        degradation: makes the low-quality image, see docs/adr/0001.
        val_degradation: makes that of synthetic validation pairs; None: the same.
        crop_size: side of a training crop in pixels, a multiple of 8 and of the degradation's scale.
        val_size: side of a validation crop, likewise.
        batch_size: samples per device and micro-batch.
        accumulate: micro-batches per optimizer step.
        seed: of the training stream.
        val_seed: of the validation degradation.
        val_lr_root, val_hr_root: folders of real pairs, used for validation instead of synthetic ones.
        val_first: at most this many validation pictures.
        val_batch_size: pictures per validation batch and device; above 1 all pictures must have one size.
        num_workers: loader processes per device (and as many for validation).
        verify: ``header`` reads every file's kind and size before training, ``full`` decodes it too.
        bad_images: ``refuse`` stops on an unusable image, ``skip`` leaves it out.
        cache_images: decoded photos kept in memory per process: False, True (all) or a limit in MiB.
        cache_dir, cache_dir_gib: folder that keeps decoded photos, and its largest size (:class:`PhotoStore`); the stream is the same.
        reduce_to: see :func:`osediff_exp.data.images.load_rgb`; applies to training and synthetic validation alike.
        report_dir: folder for ``bad_images.txt``, normally the run folder.
        with_other: every sample brings another one (``other``), for prompts that are true of another picture.

    Raises:
        UserError: a size, root or image is unusable (roots and images when :meth:`setup` runs).
    """

    def __init__(
        self,
        *,
        train: Sequence[Source],
        val: Sequence[Source] = (),
        degradation: Degradation,
        val_degradation: Degradation | None = None,
        crop_size: int,
        val_size: int,
        batch_size: int,
        accumulate: int = 1,
        seed: int,
        val_seed: int,
        val_lr_root: str | None = None,
        val_hr_root: str | None = None,
        val_first: int | None = None,
        val_batch_size: int = 1,
        num_workers: int = 0,
        verify: Verify = "header",
        bad_images: OnBadImages = "refuse",
        cache_images: bool | int = False,
        cache_dir: str | None = None,
        cache_dir_gib: float = 100.0,
        reduce_to: int | None = None,
        report_dir: str | Path | None = None,
        with_other: bool = False,
    ) -> None:
        super().__init__()
        val_degradation = val_degradation or degradation
        check_arguments(
            {"crop_size": (crop_size, degradation.scale), "val_size": (val_size, val_degradation.scale)},
            reduce_to=reduce_to,
            counts={"batch_size": batch_size, "accumulate": accumulate},
            verify=verify,
            bad_images=bad_images,
        )
        if (val_lr_root is None) != (val_hr_root is None):
            unset = "data.val_lr_root" if val_lr_root is None else "data.val_hr_root"
            raise UserError(f"{unset} is not set: pairs need both data.val_lr_root and data.val_hr_root")
        self.train_sources, self.val_sources = list(train), list(val)
        self.degradation, self.val_degradation = degradation, val_degradation
        self.crop_size, self.val_size, self.reduce_to = crop_size, val_size, reduce_to
        self.batch_size, self.accumulate, self.val_batch_size, self.num_workers = batch_size, accumulate, val_batch_size, num_workers
        self.seed, self.val_seed, self.val_first = seed, val_seed, val_first
        self.val_roots = (val_lr_root, val_hr_root)
        self.verify, self.bad_images = verify, bad_images
        store = PhotoStore(Path(cache_dir).expanduser(), limit_gib=cache_dir_gib) if cache_dir else None
        self._load = ImageLoader(cache_images=cache_images, reduce_to=reduce_to, store=store)  # one: its limit is a process's
        self.report_dir = Path(report_dir) if report_dir else None
        self.with_other = with_other
        self.train_pairs: TrainingPairs | None = None
        self.val_pairs: ValidationPairs | PairedFolder | None = None
        self._sampler: GlobalBatchSampler | None = None
        self._step, self._samples = 0, 0

    # ---- position in the stream

    @property
    def start_step(self) -> int:
        """The number of optimizer steps taken so far."""
        return self._step

    @property
    def global_batch_size(self) -> int:
        """Samples per optimizer step, over all ranks."""
        return self.batch_size * self.accumulate * self._world_size

    def set_position(self, step: int) -> None:
        """Tell how many optimizer steps have been taken; the next iteration of the loader starts behind their samples."""
        self._samples += (step - self._step) * self.global_batch_size
        self._step = step
        if self._sampler is not None:
            self._sampler.first = self._samples

    def state_dict(self) -> dict[str, Any]:
        """Return steps taken and samples consumed."""
        return {"step": self._step, "samples": self._samples}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on behind the samples already consumed, even where the batch size has changed since."""
        self._step, self._samples = int(state_dict["step"]), int(state_dict["samples"])
        if self._sampler is not None:
            self._sampler.first = self._samples

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer is not None else 0

    @property
    def _world_size(self) -> int:
        return self.trainer.world_size if self.trainer is not None else 1

    # ---- finding and checking the photos

    def setup(self, stage: str | None = None) -> None:
        """List and check the photos of validation and, for ``fit``, of training; a second call does nothing."""
        check = ImageCheck(verify=self.verify)
        with_train = stage in (None, "fit") and self.train_pairs is None
        val_pairs = self.val_pairs or self._find_val(check)
        train_lists = self._find_train(check, _validation_paths(val_pairs)) if with_train else []
        check.finish(on_bad=self.bad_images, report_dir=self.report_dir)
        self._check_one_size(val_pairs)
        self.val_pairs = val_pairs
        if with_train:
            self.train_pairs = self._training_pairs(train_lists)

    def _find_val(self, check: ImageCheck) -> ValidationPairs | PairedFolder:
        lr_root, hr_root = self.val_roots
        if lr_root is not None:
            pairs = PairedFolder(lr_root=lr_root, hr_root=hr_root, first=self.val_first, load=self._load.beside())
            pairs.keep(lambda pictures: check.usable(pictures, min_size=1))
            return pairs
        pictures = [picture for source in self.val_sources for picture in source.pictures()][: self.val_first]
        usable = check.usable(pictures, min_size=self.val_size)
        return ValidationPairs(pictures=usable, degradation=self.val_degradation, size=self.val_size, seed=self.val_seed, load=self._load)

    def _check_one_size(self, pairs: ValidationPairs | PairedFolder) -> None:
        if isinstance(pairs, PairedFolder) and len(sizes := pairs.sizes()) > 1 and self.val_batch_size > 1:
            raise UserError(f"the pictures in data.val_hr_root have {len(sizes)} sizes: set data.val_batch_size=1")

    def _find_train(self, check: ImageCheck, held_out: set[Path]) -> list[list[Picture]]:
        lists = [_without(source.pictures(), held_out, source.key) for source in self.train_sources]
        return [check.usable(pictures, min_size=self.crop_size) for pictures in lists]

    def _training_pairs(self, lists: Sequence[Sequence[Picture]]) -> TrainingPairs:
        for source, pictures in zip(self.train_sources, lists, strict=True):
            if not pictures:
                raise UserError(f"no usable training image is left in {source.key}: give another folder")
        return TrainingPairs(
            lists=[[picture.path for picture in pictures] for pictures in lists],
            weights=mixing_weights(self.train_sources),
            degradation=self.degradation,
            crop_size=self.crop_size,
            seed=self.seed,
            load=self._load,
        )

    def named_files(self) -> tuple[list[str], list[Path]]:
        """Return the names of all training and validation pictures that :meth:`setup` has found, and their files."""
        paths = [path for paths in (self.train_pairs.lists if self.train_pairs is not None else ()) for path in paths]
        named = [(path.stem, path) for path in paths]
        if isinstance(self.val_pairs, PairedFolder):
            named += [(hr.stem, hr) for _, hr in self.val_pairs.pairs]
        elif self.val_pairs is not None:
            named += [(picture.name, picture.path) for picture in self.val_pairs.pictures]
        return [name for name, _ in named], [path for _, path in named]

    # ---- loaders

    def train_dataloader(self) -> DataLoader[Sample]:
        """Return this rank's endless loader: batches {lq, hq (B, 3, S, S) in [0, 1], index (B,), name, path: lists of B}."""
        assert self.train_pairs is not None, "setup('fit') has not run"
        self._sampler = GlobalBatchSampler(batch_size=self.batch_size, rank=self._rank, world_size=self._world_size, first=self._samples)
        return self._loader(WithOther(self.train_pairs) if self.with_other else self.train_pairs, batch_sampler=self._sampler)

    def val_dataloader(self) -> DataLoader[Sample] | list[DataLoader[Sample]]:
        """Return this rank's share of the validation pairs, without padding; an empty list where there are none at all."""
        assert self.val_pairs is not None, "setup() has not run"
        if not len(self.val_pairs):
            return []
        pairs = WithOther(self.val_pairs, length=len(self.val_pairs)) if self.with_other else self.val_pairs
        mine = Subset(pairs, shard(len(self.val_pairs), rank=self._rank, world_size=self._world_size))
        return self._loader(mine, batch_size=self.val_batch_size, shuffle=False)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Send a batch to where it is used; its indices stay: they are read as numbers, and a GPU would be waited for at every step."""
        moved = super().transfer_batch_to_device({k: v for k, v in batch.items() if k != "index"}, device, dataloader_idx)
        return moved | {k: v for k, v in batch.items() if k == "index"}

    def _loader(self, dataset: Dataset[Sample], **batching: Any) -> DataLoader[Sample]:
        return DataLoader(
            dataset,
            **batching,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            worker_init_fn=_quiet_worker,
            generator=torch_generator(self.seed, "loader"),  # else every iteration draws from the global generator
        )


def _quiet_worker(worker: int) -> None:
    import cv2

    cv2.setNumThreads(0)  # the workers are the parallelism; OpenCV's own threads would fight them


def _validation_paths(pairs: ValidationPairs | PairedFolder) -> set[Path]:
    paths = [hr for _, hr in pairs.pairs] if isinstance(pairs, PairedFolder) else [picture.path for picture in pairs.pictures]
    return {path.resolve() for path in paths}


def _without(pictures: Sequence[Picture], held_out: set[Path], key: str) -> list[Picture]:
    kept = [picture for picture in pictures if not held_out or picture.path.resolve() not in held_out]
    if len(kept) < len(pictures):
        log.info("%d validation pictures below %s are kept out of training", len(pictures) - len(kept), key)
    return kept
