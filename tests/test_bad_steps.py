"""Steps that are not finite: skipped for all networks alike, counted, and in the end the end."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tiny_parts import largest_difference, make_data, make_module, make_terms, make_trainer, trainable
from torch import Tensor
from torch.utils.data import DataLoader

from osediff_exp.bad_steps import BadSteps, all_finite
from osediff_exp.callbacks.checkpoint import LastCheckpoint
from osediff_exp.callbacks.ema import GeneratorEMA
from osediff_exp.callbacks.metrics_csv import MetricsCsv
from osediff_exp.callbacks.skip_bad_steps import SkipBadSteps
from osediff_exp.errors import UserError
from osediff_exp.losses.base import LossInputs, LossTerm, TermOutput
from osediff_exp.losses.mse import MSELoss
from osediff_exp.models.backbone import Backbone

NAN, INF, FINE = float("nan"), float("inf"), torch.ones(2)


class BadAt(LossTerm):
    """A loss that is 0, and NaN at some steps."""

    def __init__(self, *steps: int) -> None:
        super().__init__(weight=1.0)
        self.steps = steps

    def forward(self, inputs: LossInputs) -> TermOutput:
        value = NAN if inputs.step in self.steps else 0.0
        return TermOutput((inputs.output * value).sum(), {})


class Watch(pl.Callback):
    """Keeps what trains, after each step."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        self.weights.append(trainable(pl_module))


def judged(bad: BadSteps, loss: float, norms: Tensor = FINE, step: int = 1, folder: Path = Path(), **settings: Any) -> bool:
    bad.see(torch.tensor(loss), {"index": torch.tensor([step])})
    may = bad.judge(norms, **settings)
    bad.finish_step(step, folder)
    return may


def test_one_value_that_is_not_finite_is_found_among_many() -> None:
    assert all_finite([])
    assert all_finite([torch.ones(3), torch.full((2, 2), -3e38)])
    for value in (NAN, INF, -INF):
        assert not all_finite([torch.ones(3), torch.tensor([0.0, value])])


@pytest.mark.parametrize(("loss", "norms"), [(NAN, FINE), (INF, FINE), (1.0, torch.tensor([1.0, NAN])), (1.0, torch.tensor([INF, 1.0]))])
def test_an_update_is_skipped_for_its_loss_or_any_gradient(loss: float, norms: Tensor) -> None:
    bad = BadSteps(limit=2)
    assert not judged(bad, loss, norms)
    assert (bad.skipped, bad.in_a_row) == (1, 1)
    assert judged(bad, 1.0)
    assert (bad.skipped, bad.in_a_row) == (1, 0)


def test_all_ranks_hear_of_another_ranks_loss() -> None:
    bad = BadSteps(limit=2)
    assert not judged(bad, 1.0, gather=lambda own: torch.stack([own, torch.tensor([0.0, 1.0])]))


def test_fp16s_overflows_end_no_training_until_the_factor_is_down(tmp_path: Path) -> None:
    bad, overflow = BadSteps(limit=2), torch.tensor([INF])
    assert not any(judged(bad, 1.0, overflow, scale=2.0**16) for _ in range(5))
    assert (bad.skipped, bad.in_a_row) == (5, 0)
    judged(bad, 1.0, overflow, folder=tmp_path, scale=1.0)
    with pytest.raises(UserError, match="not finite"):
        judged(bad, 1.0, overflow, folder=tmp_path, scale=1.0)


def test_the_last_of_too_many_leaves_its_batch(tmp_path: Path) -> None:
    bad = BadSteps(limit=3)
    for step in (4, 5):
        judged(bad, NAN, step=step, folder=tmp_path)
    with pytest.raises(UserError, match=r"3 steps in a row, up to step 6, .*bad_batch\.pt"):
        judged(bad, INF, step=6, folder=tmp_path)
    saved = torch.load(tmp_path / "bad_batch.pt")
    assert (saved["step"], saved["losses"]) == (6, [INF])
    assert saved["batches"][0]["index"].tolist() == [6]


def test_bad_steps_change_nothing_and_too_many_end_the_training_with_a_good_checkpoint(backbone: Backbone, tmp_path: Path) -> None:
    """Step 1 is good, 2 is bad, 3 is good, and from 4 on all are bad: generator and score network stand still together."""
    terms = make_terms(backbone) | {"bad": BadAt(1, 3, 4)}
    module = make_module(backbone, terms=terms, max_steps=9, max_bad_steps=2, optimizer=partial(torch.optim.AdamW, lr=1e-3))
    watch, csv = Watch(), MetricsCsv(path=str(tmp_path / "metrics.csv"))
    trainer = make_trainer(tmp_path, callbacks=[LastCheckpoint(every=1), GeneratorEMA(decay=0.9), watch], logger=csv)
    with pytest.raises(UserError, match="2 steps in a row, up to step 5"):
        trainer.fit(module, datamodule=make_data(tmp_path / "photos", batch_size=2))
    first, second, third, fourth = watch.weights
    assert largest_difference(first, second) == largest_difference(third, fourth) == 0.0
    for player in ("generator.", "terms.vsd."):
        assert any(not torch.equal(second[name], third[name]) for name in second if name.startswith(player))
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["steps_taken"] == 4
    assert all_finite([*checkpoint["state_dict"].values(), *checkpoint["callbacks"]["GeneratorEMA"]["average"].values()])
    assert checkpoint["bad_steps"] == {"skipped": 2, "in_a_row": 1}
    module.bad_steps.load_state_dict(checkpoint["bad_steps"])
    assert module.bad_steps.state_dict() == checkpoint["bad_steps"]
    batch = torch.load(tmp_path / "bad_batch.pt")["batches"][0]
    assert batch["lq"].shape == batch["hq"].shape == (2, 3, 16, 16)
    assert "train/skipped_updates" in (tmp_path / "metrics.csv").read_text()


def test_weights_that_are_not_finite_replace_no_checkpoint_and_no_average(backbone: Backbone, tmp_path: Path) -> None:
    ema = GeneratorEMA(decay=0.9)
    wild = partial(torch.optim.SGD, lr=3e38)
    mse = {"mse": MSELoss(weight=1e3)}
    module = make_module(backbone, terms=mse, max_steps=1, clip_norm=0.0, optimizer=wild)
    save = LastCheckpoint(every=1)
    with pytest.raises(UserError, match="some weights are not finite"):
        make_trainer(tmp_path, callbacks=[ema, save]).fit(module, datamodule=make_data(tmp_path / "photos", batch_size=2))
    assert all_finite(ema.average.values())
    assert not (tmp_path / "checkpoints" / "last.ckpt.part").exists()


# ---- pretraining, whose optimizer Lightning steps


class Line(pl.LightningModule):
    """One weight; the loss of a batch that holds NaN is NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.seen: list[float] = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self.seen.append(self.weight.item())
        return (self.weight * batch["x"]).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW([self.weight], lr=0.1, weight_decay=0.5)


def pretrain(folder: Path, *values: float, limit: int) -> tuple[Line, SkipBadSteps]:
    module, skip = Line(), SkipBadSteps(limit=limit, folder=folder)
    batches = [{"x": torch.tensor([value])} for value in values]
    trainer = make_trainer(folder, callbacks=[skip], max_steps=len(values), max_epochs=None, val_check_interval=None, limit_val_batches=0)
    trainer.fit(module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    return module, skip


def test_a_bad_batch_of_a_pretraining_moves_neither_weight_nor_average(tmp_path: Path) -> None:
    module, skip = pretrain(tmp_path, 1.0, NAN, 1.0, limit=2)
    alone, _ = pretrain(tmp_path, 1.0, 1.0, limit=2)
    assert module.seen[1] == module.seen[2] != module.seen[0]
    assert torch.equal(module.weight, alone.weight)
    assert skip.state_dict() == {"skipped": 1, "in_a_row": 0}


def test_a_pretraining_that_only_skips_ends_with_its_batch(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="2 steps in a row, up to step 3"):
        pretrain(tmp_path, 1.0, NAN, INF, 1.0, limit=2)
    assert torch.load(tmp_path / "bad_batch.pt")["batches"][0]["x"].tolist() == [INF]
