"""trainer.precision=auto: what it stands for on which machine."""

from __future__ import annotations

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone
from osediff_exp.tasks import precision
from osediff_exp.tasks.precision import autocast, decoder_seconds, with_precision


def configuration(**trainer: object) -> DictConfig:
    defaults = {"precision": "auto", "accelerator": "cpu", "devices": 1, "num_nodes": 1, "batch_size": 2}
    return OmegaConf.create({"trainer": defaults | trainer, "data": {"crop_size": 16}})


def chosen(backbone: Backbone, **trainer: object) -> str:
    return str(with_precision(configuration(**trainer), backbone).trainer.precision)


@pytest.fixture(params=[2.0, 0.1], ids=["bf16 is faster", "bf16 is slower"])
def speed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """A CPU with bf16 instructions, and how many times faster it is with them."""
    monkeypatch.setattr(precision, "has_bf16_instructions", lambda: True)
    monkeypatch.setattr(precision, "decoder_seconds", lambda *args, **kwargs: (request.param, 1.0))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return float(request.param)


def test_what_is_said_stays_and_nothing_is_measured(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16_instructions", pytest.fail)
    config = configuration(precision="16-mixed")
    assert with_precision(config, backbone) is config


def test_without_the_instructions_it_is_single_precision(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16_instructions", lambda: False)
    monkeypatch.setattr(precision, "decoder_seconds", pytest.fail)
    assert chosen(backbone) == "32-true"


def test_with_them_the_faster_one(backbone: Backbone, speed: float) -> None:
    assert chosen(backbone) == ("bf16-mixed" if speed > 1 else "32-true")


def test_ranks_must_not_differ(backbone: Backbone, speed: float) -> None:
    assert chosen(backbone, devices=2) == chosen(backbone, num_nodes=2) == "32-true"


def test_the_measurement_leaves_no_gradient_behind(backbone: Backbone) -> None:
    kinds = [type(layer) for layer in backbone.vae.modules()]
    single, mixed = decoder_seconds(backbone, batch=1, side=16)
    assert kinds == [type(layer) for layer in backbone.vae.modules()], "the copies are measured"
    assert min(single, mixed) > 0
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_forward_passes_run_in_what_the_configuration_says(backbone: Backbone) -> None:
    for name, mixed in (("32-true", False), ("bf16-mixed", True)):
        with autocast(OmegaConf.create({"trainer": {"precision": name}}))():
            assert torch.is_autocast_enabled("cpu") == mixed
    with pytest.raises(UserError, match=r"trainer\.precision=16-mixed is not for a CPU: use 32-true, bf16-mixed or auto"):
        autocast(OmegaConf.create({"trainer": {"precision": "16-mixed"}}))
