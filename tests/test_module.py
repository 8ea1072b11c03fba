"""The training module: accumulation, clipping, logs, validation, checkpoints and resuming."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.strategies import ParallelStrategy, SingleDeviceStrategy
from tiny_parts import (
    largest_difference,
    make_data,
    make_generator,
    make_method,
    make_module,
    make_terms,
    make_trainer,
    random_backbone,
    trainable,
)
from torch import Tensor

from osediff_exp.callbacks.checkpoint import LastCheckpoint
from osediff_exp.callbacks.ema import GeneratorEMA
from osediff_exp.callbacks.metrics_csv import MetricsCsv
from osediff_exp.errors import UserError
from osediff_exp.losses.mse import MSELoss
from osediff_exp.metrics.base import ImageMetric
from osediff_exp.metrics.fid import FID, frechet_distance, inception_input
from osediff_exp.metrics.psnr_y import PSNRY, psnr_y
from osediff_exp.models.backbone import Backbone
from osediff_exp.module import RestorationModule, check_validation_share


def train(
    backbone: Backbone,
    folder: Path,
    *,
    batch_size: int = 2,
    accumulate: int = 1,
    terms: tuple[str, ...] = (),
    num_val: int = 1,
    **settings: Any,
) -> RestorationModule:
    """Train from the same start on the photos in ``folder/photos``."""
    trainer_settings = {key: settings.pop(key) for key in ("callbacks", "logger", "validate_every", "ckpt_path") if key in settings}
    module = make_module(backbone, terms=make_terms(backbone, *terms), accumulate=accumulate, **settings)
    accumulate *= settings.get("critic_updates", 1)
    ckpt_path = trainer_settings.pop("ckpt_path", None)
    data = make_data(folder / "photos", batch_size=batch_size, accumulate=accumulate, num_val=num_val)
    make_trainer(folder, **trainer_settings).fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=False)
    return module


def read_rows(path: Path) -> dict[int, dict[str, float]]:
    with path.open(newline="") as file:
        return {int(row.pop("step")): {key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)}


# ---- steps


def test_two_accumulated_halves_are_the_whole_batch(backbone: Backbone, tmp_path: Path) -> None:
    whole = train(backbone, tmp_path, batch_size=4, max_steps=3)
    halves = train(backbone, tmp_path, batch_size=2, accumulate=2, max_steps=3)
    start = trainable(make_module(backbone))
    assert largest_difference(trainable(whole), trainable(halves)) < 1e-5
    assert largest_difference(trainable(whole), start) > 1e-3
    for key in ("train/loss", "train/mse", "train/vsd", "train/vsd_critic", "vsd/gap", "vsd/w"):
        assert halves.latest[key] == pytest.approx(whole.latest[key], rel=1e-3), key


@pytest.mark.parametrize(("accumulate", "critic_updates", "apart"), [(1, 2, 0), (2, 1, 2), (3, 2, 8)])
def test_ranks_exchange_gradients_once_an_update(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulate: int, critic_updates: int, apart: int
) -> None:
    """Two steps: in each round all micro-batches but the last keep their gradients apart."""
    kept: list[bool] = []

    @contextmanager
    def without_exchange(strategy: ParallelStrategy) -> Iterator[None]:
        kept.append(True)
        yield

    monkeypatch.setattr(SingleDeviceStrategy, "block_backward_sync", without_exchange, raising=False)
    monkeypatch.setattr("osediff_exp.module.restoration_module.ParallelStrategy", SingleDeviceStrategy)
    train(backbone, tmp_path, accumulate=accumulate, critic_updates=critic_updates, max_steps=2)
    assert len(kept) == apart


def test_critics_may_learn_more_often_than_the_generator(backbone: Backbone, tmp_path: Path) -> None:
    """Two rounds: the score network learns from both batches in turn, the generator from the second alone."""
    module = train(backbone, tmp_path, critic_updates=2, max_steps=1, clip_norm=0.0)
    data = make_data(tmp_path / "photos", batch_size=2)
    data.setup("fit")
    batches = iter(data.train_dataloader())
    expected = make_module(backbone, clip_norm=0.0)
    generator, score = expected.configure_optimizers()
    for batch in (next(batches), next(batches)):
        generator.zero_grad()
        score.zero_grad()
        expected.method.loss(expected._training_batch(batch)).loss.backward()
        score.step()
    generator.step()
    assert largest_difference(trainable(module), trainable(expected)) < 1e-6
    assert largest_difference(trainable(module), trainable(train(backbone, tmp_path, max_steps=1))) > 1e-4
    assert len(module.latest) > 5
    with pytest.raises(UserError, match="no loss term has a network to update"):
        make_module(backbone, terms=make_terms(backbone, "mse"), critic_updates=2)


def test_training_changes_what_trains_and_no_frozen_weight(backbone: Backbone, tmp_path: Path) -> None:
    before = {name: parameter.clone() for name, parameter in backbone.named_parameters()}
    module = train(backbone, tmp_path, optimizer=partial(torch.optim.AdamW, lr=1e-2))
    assert all(torch.equal(parameter, before[name]) for name, parameter in backbone.named_parameters())
    start = trainable(make_module(backbone))
    changed = {name.split(".")[0] for name, parameter in trainable(module).items() if not torch.equal(parameter, start[name])}
    assert changed == {"generator", "terms"}
    groups = module.parameter_groups()
    assert set(groups) == {"generator", "vsd"}
    assert not {id(parameter) for parameter in groups["generator"]} & {id(parameter) for parameter in groups["vsd"]}


def test_the_score_network_does_not_change_what_the_generator_gets_from_other_terms(backbone: Backbone, tmp_path: Path) -> None:
    """The critic's loss in the same backward pass adds nothing to the generator's gradient."""
    terms = make_terms(backbone)
    terms["vsd"].weight = 0.0
    module = make_module(backbone, terms=terms)
    make_trainer(tmp_path).fit(module, datamodule=make_data(tmp_path / "photos", batch_size=2, num_val=1))
    alone = train(backbone, tmp_path, terms=("mse",))
    assert largest_difference(trainable(module.generator), trainable(alone.generator)) < 1e-7


def test_clipping_bounds_each_networks_step(backbone: Backbone, tmp_path: Path) -> None:
    one_step = partial(torch.optim.SGD, lr=1.0)
    start = trainable(make_module(backbone))
    for clip_norm in (1e-3, 0.0):
        module = train(backbone, tmp_path, max_steps=1, clip_norm=clip_norm, optimizer=one_step)
        steps = {name: parameter - start[name] for name, parameter in trainable(module).items() if name.startswith("generator")}
        length = torch.stack([step.norm() for step in steps.values()]).norm().item()
        logged = module.latest["train/grad_norm/generator"]
        assert logged > 1e-2
        assert length == pytest.approx(clip_norm or logged, rel=1e-2)


def test_every_term_and_optimizer_is_in_the_log(backbone: Backbone, tmp_path: Path) -> None:
    module = train(backbone, tmp_path, max_steps=3, log_every=2, logger=MetricsCsv(path=str(tmp_path / "metrics.csv")), validate_every=2)
    rows = read_rows(tmp_path / "metrics.csv")
    assert list(rows) == [1, 2, 3]
    expected = {"loss", "mse", "vsd", "vsd_critic", "grad_norm/generator", "grad_norm/vsd", "lr/generator", "lr/vsd", "images_per_second"}
    for row in rows.values():
        assert {key.removeprefix("train/") for key in row if key.startswith("train/")} == expected
        assert {"vsd/gap", "vsd/w"} <= row.keys()
        assert any(key.startswith("vsd/score_loss_t") for key in row)
        assert row["train/loss"] == pytest.approx(row["train/mse"] + row["train/vsd"], rel=1e-5)
        assert row["train/lr/generator"] == pytest.approx(0.05)
    assert [step for step, row in rows.items() if "val/psnr" in row] == [2, 3]
    assert module.latest["train/loss"] == pytest.approx(rows[3]["train/loss"], rel=1e-6)


# ---- validation


def test_validation_figures_are_those_of_a_direct_computation(backbone: Backbone, tmp_path: Path) -> None:
    module = train(backbone, tmp_path, terms=("mse",), num_val=3)
    data = make_data(tmp_path / "photos", batch_size=2)
    data.setup("validate")
    scores, bicubic = [], []
    for batch in data.val_dataloader():
        with torch.no_grad():
            image = module.generator(2 * batch["lq"] - 1, backbone.encode_prompts(["sharp photo"])).image
        picture = ((image + 1) / 2 * 255).round() / 255
        scores.append(psnr_y(picture, batch["hq"]).item())
        bicubic.append(psnr_y(batch["lq"], batch["hq"]).item())
    assert [row["psnr"] for row in module.per_image] == pytest.approx(scores, rel=1e-5)
    assert [row["bicubic_psnr"] for row in module.per_image] == pytest.approx(bicubic, rel=1e-5)
    assert module.latest["val/psnr"] == pytest.approx(sum(scores) / 3, rel=1e-5)
    assert module.latest["val/bicubic_psnr"] == pytest.approx(sum(bicubic) / 3, rel=1e-5)
    assert module.validated_step == module.steps_taken == 2


class Product(ImageMetric):
    """A figure that half precision would round to three digits."""

    higher_is_better = True

    def per_image(self, pred: Tensor, target: Tensor) -> Tensor:
        assert pred.dtype == target.dtype == torch.float32
        found = pred.flatten(1) @ target.flatten(1).T
        assert found.dtype == torch.float32
        return found.diagonal().double()


def test_scores_of_a_training_in_mixed_precision_are_computed_in_float32(backbone: Backbone, tmp_path: Path) -> None:
    module = make_module(backbone, terms=make_terms(backbone, "mse"), metrics={"product": Product()})
    make_trainer(tmp_path, precision="bf16-mixed").validate(module, make_data(tmp_path / "photos", batch_size=2, num_val=1), verbose=False)
    assert module.per_image[0]["product"] > 0


def test_a_metric_of_sets_scores_the_whole_validation_set(backbone: Backbone, tmp_path: Path) -> None:
    """FID sees all pictures and gives one figure; the table of pictures has no column for it."""
    metrics = {"psnr": PSNRY(), "fid": FID(features=lambda images: images.mean(dim=(2, 3)))}
    module = train(backbone, tmp_path, terms=("mse",), metrics=metrics, validate_every=1, num_val=3)
    data = make_data(tmp_path / "photos", batch_size=2)
    data.setup("validate")
    features: dict[str, list[torch.Tensor]] = {"output": [], "lq": [], "hq": []}
    for batch in data.val_dataloader():
        with torch.no_grad():
            image = module.generator(2 * batch["lq"] - 1, backbone.encode_prompts(["sharp photo"])).image
        for key, picture in (("output", (image + 1) / 2), ("lq", batch["lq"]), ("hq", batch["hq"])):
            features[key].append(inception_input(picture).mean(dim=(2, 3)))
    output, lq, hq = (torch.cat(rows) for rows in features.values())
    assert module.latest["val/fid"] == pytest.approx(frechet_distance(output, hq).item(), rel=1e-3)
    assert module.latest["val/bicubic_fid"] == pytest.approx(frechet_distance(lq, hq).item(), rel=1e-3)
    assert all(row.keys() == {"name", "psnr", "bicubic_psnr"} for row in module.per_image)


def test_validating_does_not_change_the_training(backbone: Backbone, tmp_path: Path) -> None:
    often, never = (train(backbone, tmp_path, max_steps=3, validate_every=every) for every in (1, 1000))
    assert largest_difference(trainable(often), trainable(never)) == 0


def test_without_validation_pictures_it_trains_all_the_same(backbone: Backbone, tmp_path: Path) -> None:
    module = make_module(backbone, terms=make_terms(backbone, "mse"))
    make_trainer(tmp_path).fit(module, datamodule=make_data(tmp_path / "photos", batch_size=1, num_val=0))
    assert module.steps_taken == 2
    assert module.per_image == []


def test_every_process_needs_a_validation_picture() -> None:
    with pytest.raises(UserError, match="2 validation pictures cannot be shared by 4 processes"):
        check_validation_share(2, 4)
    for num_pictures in (0, 4, 5):
        check_validation_share(num_pictures, 4)


# ---- checkpoints


def last_checkpoint(folder: Path) -> str:
    return str(folder / "checkpoints" / "last.ckpt")


def test_a_checkpoint_holds_what_trains_and_nothing_frozen(backbone: Backbone, tmp_path: Path) -> None:
    module = train(backbone, tmp_path, callbacks=[LastCheckpoint(every=1)])
    checkpoint = torch.load(last_checkpoint(tmp_path), weights_only=False)
    assert checkpoint["state_dict"].keys() == trainable(module).keys()
    assert len(checkpoint["optimizer_states"]) == 2
    assert checkpoint["steps_taken"] == 2
    assert checkpoint["backbone"] == {"fingerprint": backbone.fingerprint(), "source": backbone.source}
    assert checkpoint["RestorationDataModule"] == {"step": 2, "samples": 4}
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"last.ckpt", "previous.ckpt", "sha256.txt"}


def test_resumed_equals_uninterrupted(backbone: Backbone, tmp_path: Path) -> None:
    """2 + 2 steps are the 4 steps: weights, moments, moving average, logged rows."""

    def arm(folder: Path, max_steps: int, ckpt_path: str | None = None) -> tuple[RestorationModule, GeneratorEMA]:
        ema = GeneratorEMA(decay=0.9)
        module = train(
            backbone,
            folder,
            accumulate=2,
            max_steps=max_steps,
            optimizer=partial(torch.optim.AdamW, lr=1e-3),
            validate_every=4,  # micro-batches
            callbacks=[LastCheckpoint(every=2), ema],
            logger=MetricsCsv(path=str(folder / "metrics.csv")),
            ckpt_path=ckpt_path,
        )
        return module, ema

    whole, whole_ema = arm(tmp_path / "whole", 4)
    arm(tmp_path / "parts", 2)
    resumed, resumed_ema = arm(tmp_path / "parts", 4, last_checkpoint(tmp_path / "parts"))
    assert resumed.steps_taken == 4
    assert largest_difference(trainable(whole), trainable(resumed)) == 0
    assert resumed_ema.num_updates == whole_ema.num_updates == 4
    assert largest_difference(whole_ema.average, resumed_ema.average) == 0
    rows, expected = (read_rows(tmp_path / folder / "metrics.csv") for folder in ("parts", "whole"))
    assert list(rows) == list(expected) == [1, 2, 3, 4]
    for step, row in expected.items():
        assert {key: value for key, value in rows[step].items() if "second" not in key} == {
            key: value for key, value in row.items() if "second" not in key
        }
    states = [torch.load(last_checkpoint(tmp_path / folder), weights_only=False)["optimizer_states"] for folder in ("whole", "parts")]
    for first, second in zip(*states, strict=True):
        for key, moments in first["state"].items():
            assert torch.equal(moments["exp_avg_sq"], second["state"][key]["exp_avg_sq"])


def test_a_resumed_training_takes_the_optimizer_s_settings_of_now_and_the_moments_of_then(backbone: Backbone, tmp_path: Path) -> None:
    def arm(max_steps: int, ckpt_path: str | None = None, **settings: Any) -> dict[str, Any]:
        optimizer = partial(torch.optim.AdamW, **settings)
        terms = make_terms(backbone)
        terms["vsd"].optimizer = optimizer
        module = make_module(backbone, terms=terms, optimizer=optimizer, max_steps=max_steps)
        trainer = make_trainer(tmp_path, callbacks=[LastCheckpoint(every=1)])
        trainer.fit(module, datamodule=make_data(tmp_path / "photos", batch_size=2), ckpt_path=ckpt_path, weights_only=True)
        assert len(trainer.optimizers) == 2
        assert all(optimizer.param_groups[0][key] == value for optimizer in trainer.optimizers for key, value in settings.items())
        return torch.load(last_checkpoint(tmp_path), weights_only=True)

    first = arm(1, lr=1e-3)
    second = arm(2, last_checkpoint(tmp_path), lr=0.0, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.5)
    assert largest_difference(first["state_dict"], second["state_dict"]) == 0, "lr=0 moves nothing"
    assert all(float(moments["step"]) == 2 for state in second["optimizer_states"] for moments in state["state"].values())


def test_resuming_forgets_rows_behind_the_checkpoint(backbone: Backbone, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,train/loss\n1,5\n2,4\n3,3\n9,1\n")
    train(backbone, tmp_path, terms=("mse",), callbacks=[LastCheckpoint(every=2)])
    settings = {"terms": ("mse",), "max_steps": 3, "log_every": 100, "ckpt_path": last_checkpoint(tmp_path)}
    train(backbone, tmp_path, logger=MetricsCsv(path=str(tmp_path / "metrics.csv")), **settings)
    rows = read_rows(tmp_path / "metrics.csv")
    assert list(rows) == [1, 2, 3]
    assert rows[1] == {"train/loss": 5}
    assert rows[3]["train/loss"] != 3


def saved(backbone: Backbone, folder: Path) -> dict[str, Any]:
    train(backbone, folder, terms=("mse",), max_steps=1, callbacks=[LastCheckpoint(every=1)])
    return torch.load(last_checkpoint(folder), weights_only=False)


def test_a_checkpoint_that_does_not_fit_is_refused_in_one_line(backbone: Backbone, tmp_path: Path) -> None:
    checkpoint = saved(backbone, tmp_path)
    mse = {"mse": MSELoss(weight=1.0)}
    other_rank = make_module(backbone, terms=mse)
    other_rank.method.generator = make_generator(backbone, unet_rank=2)
    other_terms = make_module(backbone)
    other_backbone = make_module(random_backbone(tmp_path / "tokenizer", seed=5), terms=mse)
    nothing_trained = make_module(backbone, terms=mse)
    nothing_trained.method.generator = make_generator(backbone, train_unet=False)
    for module, message in (
        (other_rank, r"another shape: .*\(\d+, .* in the checkpoint, \(\d+, .* here"),
        (other_terms, "the checkpoint lacks terms.vsd"),
        (nothing_trained, "this configuration lacks generator.unet"),
        (other_backbone, f"another backbone .*{backbone.fingerprint()}"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            module.on_load_checkpoint(checkpoint)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="not of this program's training"):
        other_rank.on_load_checkpoint({"state_dict": {}})
    module = make_module(backbone, terms=mse)
    module.on_load_checkpoint(checkpoint)
    assert module.steps_taken == 1


# ---- settings, prompts


def test_nothing_to_train_or_no_term_is_the_users_mistake(backbone: Backbone) -> None:
    module = make_module(backbone)
    module.method.generator = make_generator(backbone, train_unet=False, train_vae_encoder=False)
    with pytest.raises(UserError, match="nothing to train"):
        module.configure_optimizers()
    with pytest.raises(UserError, match="no loss term is left"):
        make_method(backbone, terms={})
    for change, message in (({"max_steps": 0}, "max_steps"), ({"accumulate": 0}, "accumulate")):
        with pytest.raises(UserError, match=message):
            make_module(backbone, **change)


def test_a_constant_prompt_is_encoded_once_a_run(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    encode = Backbone.encode_prompts
    monkeypatch.setattr(Backbone, "encode_prompts", lambda self, prompts: asked.append(prompts) or encode(self, prompts))
    module = make_module(backbone)
    for _ in range(3):
        features = module.embed(["tree", "photo", "tree"])
    assert asked == [["tree", "photo"]]
    assert torch.allclose(features, encode(backbone, ["tree", "photo", "tree"]), atol=1e-6)


def test_many_prompts_do_not_fill_the_memory(backbone: Backbone) -> None:
    module = make_module(backbone)
    for start in range(0, 600, 100):
        prompts = [f"tree {k}" for k in range(start, start + 100)]
        assert module.embed(prompts).shape == (100, 16, 16)
    assert len(module._prompt_features.known) <= 256
