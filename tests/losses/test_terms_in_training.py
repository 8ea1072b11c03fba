"""Every term with networks of its own, trained: accumulated, resumed, and in mixed precision."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.plugins import MixedPrecision
from tiny_parts import (
    TERM_SETTINGS,
    largest_difference,
    make_data,
    make_inputs,
    make_module,
    make_term,
    make_trainer,
    trainable,
    write_photos,
)
from torch import Tensor, nn

from osediff_exp.callbacks.checkpoint import LastCheckpoint
from osediff_exp.callbacks.ema import GeneratorEMA
from osediff_exp.losses.base import CriticTerm, LossTerm
from osediff_exp.losses.dmd_gan import DMDGANLoss
from osediff_exp.losses.gan import GANLoss
from osediff_exp.losses.mse import MSELoss
from osediff_exp.losses.score_network import ScoreDistillationLoss
from osediff_exp.losses.vsd import VSDLoss
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.discriminators.features import FeatureHead
from osediff_exp.models.discriminators.unet import UNetDiscriminator
from osediff_exp.module import RestorationModule

CRITICS = [kind for kind in TERM_SETTINGS if issubclass(kind, CriticTerm)]
TOGETHER_AND_ALONE = [
    pytest.param(CRITICS, id="together", marks=pytest.mark.slow),  # fast, for VSD alone: tests/test_module.py
    *(pytest.param([kind], id=kind.__name__, marks=pytest.mark.slow) for kind in CRITICS),
]
# In mixed precision, a score network and both kinds of discriminators stand for all of them.
FEW_OR_ALL = [pytest.param([VSDLoss, DMDGANLoss, GANLoss], id="few"), pytest.param(CRITICS, id="all", marks=pytest.mark.slow)]
LOSSES = {kind.__name__ + suffix for kind in CRITICS for suffix in ("", "_critic")}
ADAM = partial(torch.optim.AdamW, lr=1e-3)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder / "train", 3)
    return folder


def build(kinds: list[type[CriticTerm]], backbone: Backbone, optimizer: Any = None, **settings: Any) -> RestorationModule:
    terms: dict[str, LossTerm] = {"mse": MSELoss(weight=1.0)}
    for kind in kinds:
        term = make_term(kind, backbone, **({"r1": 1.0, "r1_every": 2} if kind is GANLoss else {}))
        term.optimizer = optimizer or term.optimizer
        terms[kind.__name__] = term
    if optimizer is not None:
        settings["optimizer"] = optimizer
    return make_module(backbone, terms=terms, **settings)


def fit(module: RestorationModule, photos: Path, folder: Path, *, batch_size: int = 2, ckpt: Path | None = None, **settings: Any) -> None:
    micro_batches = module.accumulate * module.critic_updates
    data = make_data(photos, batch_size=batch_size, accumulate=micro_batches, num_val=0)
    make_trainer(folder, **settings).fit(module, datamodule=data, ckpt_path=ckpt, weights_only=True)


def prefixes(kinds: list[type[CriticTerm]]) -> list[str]:
    return ["generator.", *(f"terms.{kind.__name__}." for kind in kinds)]


def moved(module: RestorationModule, start: dict[str, Tensor], prefix: str) -> float:
    now = {name: weight for name, weight in trainable(module).items() if name.startswith(prefix)}
    return largest_difference(now, {name: start[name] for name in now})


@pytest.mark.parametrize("kinds", TOGETHER_AND_ALONE)
def test_two_rounds_of_two_halves_are_two_rounds_of_whole_batches(kinds: list[type[CriticTerm]], backbone: Backbone, photos: Path) -> None:
    modules = [build(kinds, backbone, critic_updates=2, accumulate=accumulate) for accumulate in (1, 2)]
    start = trainable(modules[0])
    for module, batch_size in zip(modules, (4, 2), strict=True):
        fit(module, photos, photos, batch_size=batch_size)
    assert largest_difference(*(trainable(module) for module in modules)) < 1e-5
    assert min(moved(modules[0], start, prefix) for prefix in prefixes(kinds)) > 3e-4


@pytest.mark.parametrize("kinds", TOGETHER_AND_ALONE)
def test_resumed_is_uninterrupted_to_the_bit(kinds: list[type[CriticTerm]], backbone: Backbone, photos: Path, tmp_path: Path) -> None:
    def arm(folder: str, max_steps: int, ckpt: Path | None = None) -> dict[str, Any]:
        module = build(kinds, backbone, ADAM, max_steps=max_steps)
        fit(module, photos, tmp_path / folder, ckpt=ckpt, callbacks=[LastCheckpoint(every=2), GeneratorEMA(decay=0.9)])
        return torch.load(tmp_path / folder / "checkpoints" / "last.ckpt", weights_only=True)

    whole = arm("whole", 4)
    arm("parts", 2)
    resumed = arm("parts", 4, tmp_path / "parts" / "checkpoints" / "last.ckpt")
    assert whole["steps_taken"] == resumed["steps_taken"] == 4
    assert len(whole["optimizer_states"]) == 1 + len(kinds)
    for key in ("state_dict", "optimizer_states", "callbacks"):
        assert same(whole[key], resumed[key]), key


def same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(same(*pair) for pair in zip(first, second, strict=True))
    return first == second


@pytest.mark.parametrize("kinds", FEW_OR_ALL)
def test_bfloat16_trains_and_discriminators_stay_in_float32(
    kinds: list[type[CriticTerm]], backbone: Backbone, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[type[nn.Module], set[torch.dtype]] = {UNetDiscriminator: set(), FeatureHead: set()}
    for network, dtypes in seen.items():
        monkeypatch.setattr(network, "forward", noting_dtype(network.forward, dtypes))
    module, exact = build(kinds, backbone, max_steps=1), build(kinds, backbone, max_steps=1)
    fit(module, photos, photos, precision="bf16-mixed")
    assert seen == {UNetDiscriminator: {torch.float32}, FeatureHead: {torch.float32}}
    fit(exact, photos, photos)
    assert {weight.dtype for weight in trainable(module).values()} == {torch.float32}
    assert "train/GANLoss_critic" in exact.latest
    for key in (key for key in exact.latest if key.startswith("train/") and key.split("/")[1] in {"mse", *LOSSES}):
        assert module.latest[key] == pytest.approx(exact.latest[key], rel=0.1), key


SCORED = [kind for kind in CRITICS if issubclass(kind, ScoreDistillationLoss)]


@pytest.mark.parametrize("kind", SCORED)
def test_in_bfloat16_the_score_network_that_was_asked_before_it_learns_has_its_gradients(
    kind: type[CriticTerm], backbone: Backbone
) -> None:
    term, inputs = make_term(kind, backbone), make_inputs(backbone, indices=[0, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        term(inputs)
        critic = term.critic_loss(inputs).loss
    critic.backward()
    lora = {name: weight for name, weight in term.named_parameters() if "lora_" in name}
    assert lora
    assert all(weight.grad is not None and float(weight.grad.abs().max()) > 0 for weight in lora.values())


def noting_dtype(forward: Any, seen: set[torch.dtype]) -> Any:
    def call(network: nn.Module, x: Tensor) -> Tensor:
        output = forward(network, x)
        seen.add(output.dtype)
        return output

    return call


@pytest.mark.parametrize("kinds", FEW_OR_ALL)
def test_float16_steps_are_those_of_full_precision(kinds: list[type[CriticTerm]], backbone: Backbone, photos: Path) -> None:
    """The scaler's factor grows after every step here: a network stepped with another factor than its own would be far off."""
    scaled, exact = build(kinds, backbone, clip_norm=0.0), build(kinds, backbone, clip_norm=0.0)
    start = trainable(exact)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=1)
    fit(scaled, photos, photos, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    fit(exact, photos, photos)
    assert scaler.get_scale() == 64.0 * 2**2  # once a step, whatever the number of optimizers
    steps = [{name: weight - start[name] for name, weight in trainable(module).items()} for module in (scaled, exact)]
    for prefix in prefixes(kinds):
        a, b = (torch.cat([step.flatten() for name, step in made.items() if name.startswith(prefix)]) for made in steps)
        assert float((a - b).norm() / b.norm()) < 0.1, prefix
