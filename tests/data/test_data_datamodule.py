"""The data module: the same stream for any workers and ranks, resuming, checks, and the shipped configurations."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from conftest import write_photo
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from osediff_exp.data.datamodule import RestorationDataModule
from osediff_exp.data.sources import ImageSource
from osediff_exp.degradations.base import Degradation, LowQuality
from osediff_exp.errors import UserError

if TYPE_CHECKING:
    from osediff_exp.degradations.base import Image

CONF = Path(__file__).parents[2] / "conf"
ARGUMENTS = {"crop_size": 16, "val_size": 32, "batch_size": 2, "seed": 3, "val_seed": 1}


def module(photos: Path, degradation: Degradation, *, rank: int = 0, ranks: int = 1, **changes: object) -> RestorationDataModule:
    options = ARGUMENTS | {"train": [ImageSource(root=str(photos))], "val": [ImageSource(root=str(photos / "more"))]} | changes
    data = RestorationDataModule(degradation=degradation, **options)  # type: ignore[arg-type]
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    data.trainer = SimpleNamespace(global_rank=rank, world_size=ranks, strategy=strategy)  # type: ignore[assignment]
    data.setup("fit")
    return data


def batches(data: RestorationDataModule, count: int) -> list[dict[str, object]]:
    return list(islice(data.train_dataloader(), count))


def joined(parts: list[dict[str, object]], key: str) -> torch.Tensor:
    return torch.cat([part[key] for part in parts])  # type: ignore[misc]


def test_batch_is_what_the_contract_says(photos: Path, degradation: Degradation) -> None:
    batch = batches(module(photos, degradation), 1)[0]
    assert batch["lq"].shape == batch["hq"].shape == (2, 3, 16, 16)  # type: ignore[attr-defined]
    assert batch["index"].dtype == torch.int64  # type: ignore[attr-defined]
    assert isinstance(batch["name"], list)


def test_validation_pairs_may_have_a_degradation_of_their_own(photos: Path, degradation: Degradation) -> None:
    class Flat(Degradation):
        scale = 16

        def __call__(self, hq: Image, rng: np.random.Generator) -> LowQuality:
            return LowQuality(lr=np.zeros((2, 2, 3), dtype=np.float32), lq=np.zeros_like(hq))

    plain, other = module(photos, degradation), module(photos, degradation, val_degradation=Flat())
    for key in ("lq", "hq"):
        assert torch.equal(joined(batches(plain, 1), key), joined(batches(other, 1), key))
    mine, theirs = (next(iter(data.val_dataloader())) for data in (plain, other))  # type: ignore[arg-type]
    assert torch.equal(mine["hq"], theirs["hq"])
    assert not torch.equal(mine["lq"], theirs["lq"])
    assert not theirs["lq"].any()
    with pytest.raises(UserError, match=r"^data\.val_size=24 must be a multiple of 16"):
        module(photos, degradation, val_degradation=Flat(), val_size=24)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with one core
def test_workers_do_not_change_the_stream(photos: Path, degradation: Degradation) -> None:
    alone, helped = (batches(module(photos, degradation, num_workers=workers), 5) for workers in (0, 2))
    for key in ("lq", "hq", "index"):
        assert torch.equal(joined(alone, key), joined(helped, key))
    assert [batch["name"] for batch in alone] == [batch["name"] for batch in helped]


def test_ranks_share_the_stream(photos: Path, degradation: Degradation) -> None:
    alone = batches(module(photos, degradation, batch_size=4), 3)
    ranks = [batches(module(photos, degradation, batch_size=2, rank=rank, ranks=2), 3) for rank in range(2)]
    for key in ("lq", "hq", "index"):
        assert torch.equal(joined(alone, key), torch.cat([part[key] for parts in zip(*ranks, strict=True) for part in parts]))  # type: ignore[misc]


def test_the_global_generator_is_left_alone(photos: Path, degradation: Degradation) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    batches(module(photos, degradation), 2)
    assert torch.equal(before, torch.get_rng_state())


def test_resumed_stream_continues_the_uninterrupted_one(photos: Path, degradation: Degradation) -> None:
    whole = joined(batches(module(photos, degradation, accumulate=2), 10), "index")
    first = module(photos, degradation, accumulate=2)
    first.set_position(3)
    assert first.state_dict() == {"step": 3, "samples": 12}
    second = module(photos, degradation, accumulate=2)
    second.load_state_dict(first.state_dict())
    assert second.start_step == 3
    assert torch.equal(joined(batches(second, 4), "index"), whole[12:20])


def test_resuming_with_another_batch_size_repeats_no_sample(photos: Path, degradation: Degradation) -> None:
    data = module(photos, degradation, batch_size=5)
    data.load_state_dict({"step": 3, "samples": 12})
    data.set_position(4)
    assert data.state_dict() == {"step": 4, "samples": 17}
    assert batches(data, 1)[0]["index"].tolist() == [17, 18, 19, 20, 21]  # type: ignore[attr-defined]


def test_a_second_iteration_goes_on_at_the_position(photos: Path, degradation: Degradation) -> None:
    data = module(photos, degradation)
    loader = data.train_dataloader()
    assert next(iter(loader))["index"].tolist() == [0, 1]
    data.set_position(1)
    assert next(iter(loader))["index"].tolist() == [2, 3]


def test_validation_shards_are_the_whole_set_once(photos: Path, degradation: Degradation) -> None:
    write_photo(photos.parent / "train" / "t.png")
    train = [ImageSource(root=str(photos.parent / "train"))]
    loaders = [
        module(photos, degradation, rank=rank, ranks=4, train=train, val=[ImageSource(root=str(photos))]).val_dataloader()
        for rank in range(4)
    ]
    shown = [(batch["name"][0], batch["index"].item()) for loader in loaders for batch in loader]
    assert sorted(shown) == [(str(k), k) for k in range(6)]


def test_validation_photos_inside_the_training_folder_are_kept_out(photos: Path, degradation: Degradation) -> None:
    data = module(photos, degradation)
    assert data.train_pairs is not None
    assert [path.stem for path in data.train_pairs.lists[0]] == ["0", "1", "2", "3", "4"]


def test_without_validation_there_is_no_loader(photos: Path, degradation: Degradation) -> None:
    assert module(photos, degradation, val=[]).val_dataloader() == []


def test_real_pairs_replace_synthetic_ones(photos: Path, tmp_path: Path, degradation: Degradation) -> None:
    for name in "ab":
        write_photo(tmp_path / "LR" / f"{name}.png", height=8, width=8)
        write_photo(tmp_path / "HR" / f"{name}.png", height=32, width=32)
    data = module(photos, degradation, val_lr_root=str(tmp_path / "LR"), val_hr_root=str(tmp_path / "HR"))
    assert [batch["name"] for batch in data.val_dataloader()] == [["a"], ["b"]]
    (tmp_path / "LR" / "a.png").write_text("broken")
    assert (
        len(module(photos, degradation, val_lr_root=str(tmp_path / "LR"), val_hr_root=str(tmp_path / "HR"), bad_images="skip").val_pairs)
        == 1
    )  # type: ignore[arg-type]


def test_bad_images_of_training_and_validation_are_named_together(photos: Path, degradation: Degradation) -> None:
    (photos / "0.png").write_text("broken")
    (photos / "more" / "5.png").write_text("broken")
    write_photo(photos / "more" / "6.png", height=24, width=24)
    with pytest.raises(UserError, match=r"^3 of 7 images cannot be used: .*5\.png.*6\.png \(24 x 24, needs 32 x 32\).*0\.png"):
        module(photos, degradation)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop_size": 20}, r"data\.crop_size=20 must be a multiple of 8: try"),
        ({"val_size": 4}, r"data\.val_size=4 must be a multiple of 8: try 8"),
        ({"reduce_to": 24}, r"data\.reduce_to=24 .*data\.val_size=32: set it to 32"),
        ({"val_hr_root": "x"}, r"data\.val_lr_root is not set"),
        ({"bad_images": "ignore"}, r"data\.bad_images=ignore is unknown: use refuse or skip"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"train": [ImageSource(root=None, key="data.root")]}, r"data\.root is not set"),
    ],
)
def test_mistakes_get_one_line(photos: Path, degradation: Degradation, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        module(photos, degradation, **changes)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_all_photos_held_out_leaves_nothing_to_train_on(photos: Path, degradation: Degradation) -> None:
    with pytest.raises(UserError, match=r"no usable training image is left in data\.root"):
        module(photos, degradation, val=[ImageSource(root=str(photos))])


class Stepper(pl.LightningModule):
    """Records the sample numbers it is shown and keeps the data module's position."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[int] = []

    def training_step(self, batch: dict[str, torch.Tensor], _: int) -> torch.Tensor:
        self.seen += batch["index"].tolist()
        return self.weight * batch["hq"].mean()

    def on_train_batch_end(self, *_: object) -> None:
        self.trainer.datamodule.set_position(self.trainer.global_step)  # type: ignore[attr-defined]

    def validation_step(self, batch: dict[str, torch.Tensor], _: int) -> None:
        assert batch["lr"].shape == (1, 3, 8, 8)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_trainer_resumes_at_the_right_sample(photos: Path, tmp_path: Path, degradation: Degradation) -> None:
    def fit(steps: int, checkpoint: Path | None) -> tuple[Stepper, pl.Trainer]:
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        trainer = pl.Trainer(
            max_steps=steps, accelerator="cpu", use_distributed_sampler=False, val_check_interval=2, default_root_dir=tmp_path, **quiet
        )
        stepper = Stepper()
        options = ARGUMENTS | {"train": [ImageSource(root=str(photos))], "val": [ImageSource(root=str(photos / "more"))]}
        data = RestorationDataModule(degradation=degradation, **options)  # type: ignore[arg-type]
        trainer.fit(stepper, datamodule=data, ckpt_path=checkpoint)
        return stepper, trainer

    whole, _ = fit(5, None)
    half, trainer = fit(3, None)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    rest, _ = fit(5, tmp_path / "half.ckpt")
    assert whole.seen == list(range(10))
    assert half.seen + rest.seen == whole.seen


def configured(degradation: Degradation, *overrides: str) -> RestorationDataModule:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        config = compose(overrides=list(overrides))
    return instantiate(config.data.datamodule, degradation=degradation, batch_size=2, seed=3, val_seed=1)


def test_sample_configuration_holds_24_photos_out(degradation: Degradation) -> None:
    data = configured(degradation, "+data=sample")
    data.setup("fit")
    assert data.train_pairs is not None
    assert data.val_pairs is not None
    held_out = {picture.path for picture in data.val_pairs.pictures}  # type: ignore[union-attr]
    assert len(held_out) == 24
    assert held_out.isdisjoint(data.train_pairs.lists[0])
    shapes = {tuple(batch["hq"].shape) for batch in data.val_dataloader()}
    assert shapes == {(4, 3, 192, 192)}
    assert batches(data, 1)[0]["hq"].shape == (2, 3, 96, 96)  # type: ignore[attr-defined]


def test_folder_configuration_takes_roots(photos: Path, degradation: Degradation) -> None:
    roots = [f"data.root={photos}", f"data.val_root={photos}/more", "data.crop_size=16", "data.val_size=32", "data.num_workers=0"]
    data = configured(degradation, "+data=folder", *roots)
    data.setup("fit")
    assert batches(data, 1)[0]["hq"].shape == (2, 3, 16, 16)  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"^data\.root is not set"):
        configured(degradation, "+data=folder").setup("fit")
    several = configured(degradation, "+data=folder", *roots[1:], f"data.root=[{photos}/0.png,{photos}/1.png]", "data.first=1")
    several.setup("fit")
    assert several.train_pairs is not None
    assert [path.name for path in several.train_pairs.lists[0]] == ["0.png"]


def test_lsdir_ffhq_configuration_is_the_papers(photos: Path, degradation: Degradation) -> None:
    with pytest.raises(UserError, match=r"^data\.lsdir_root is not set"):
        configured(degradation, "+data=lsdir_ffhq").setup("fit")
    with pytest.raises(UserError, match=r"^data\.ffhq_root is not set"):
        configured(degradation, "+data=lsdir_ffhq", f"data.lsdir_root={photos}").setup("fit")
    data = configured(degradation, "+data=lsdir_ffhq", f"data.lsdir_root={photos}", f"data.ffhq_root={photos}")
    assert data.crop_size == 512
    assert [source.weight for source in data.train_sources] == [1, 1]
    assert [source.first for source in data.train_sources] == [None, 10_000]  # type: ignore[attr-defined]


def test_a_batchs_indices_stay_where_they_can_be_read(photos: Path, degradation: Degradation) -> None:
    data = module(photos, degradation)
    batch = {"lq": torch.ones(1), "index": torch.tensor([7]), "name": ["a"]}
    moved = data.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert moved["lq"].device.type == "meta"
    assert moved["index"].tolist() == [7]
    assert moved["name"] == ["a"]


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_memory_is_page_locked_where_a_gpu_is_used(
    photos: Path, degradation: Degradation, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    data = module(photos, degradation)
    data.trainer.strategy.root_device = torch.device(kind)  # type: ignore[union-attr, misc]
    assert data.train_dataloader().pin_memory == (kind == "cuda")
