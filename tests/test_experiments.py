"""Every experiment at both scales: its arms pass the checks, and differ in what the paper's tables vary."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from osediff_exp.cli import preflight
from osediff_exp.cli.arguments import parse_arguments
from osediff_exp.cli.compose import Composer, open_composer
from osediff_exp.cli.preflight import make_plan
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.lora import lora_scale
from osediff_exp.module import RestorationModule
from osediff_exp.reporting.paper_ablations import published_for
from osediff_exp.reporting.published import published_complexity
from osediff_exp.tasks.prompting import build_prompts
from osediff_exp.tasks.train import build_module

CONF = Path(__file__).parents[1] / "conf"
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
SCALES = {"tiny": [], "sd21": ["backbone=sd21", "data=lsdir_ffhq", "trainer=gpu"]}


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    """The folders of the paper's training set, a photo in each."""
    for name in ("lsdir", "ffhq"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (512, 512)).save(tmp_path / name / "photo.png")
    return [f"data.{name}_root={tmp_path / name}" for name in ("lsdir", "ffhq")]


def arms(composer: Composer, fixed: list[str]) -> list[list[str]]:
    """Return an experiment's arms as overrides; its sweep may refer to the backbone's recipe."""
    params = composer.whole(fixed).hydra.sweeper.params or {}
    parsed = composer.parse([f"{key}={value}" for key, value in params.items()])
    axes = [[f"{override.key_or_group}={value}" for value in override.sweep_string_iterator()] for override in parsed]
    return [list(arm) for arm in itertools.product(*axes)]


def configs(experiment: str, scale: str, *more: str) -> list[DictConfig]:
    """Return each arm's configuration, as its task gets it."""
    fixed = [f"+experiment={experiment}", *SCALES[scale], *more]
    with open_composer(CONF, []) as composer:
        whole = [composer.whole([*fixed, *arm]) for arm in arms(composer, fixed)]
    return [OmegaConf.masked_copy(config, [key for key in config if key != "hydra"]) for config in whole]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiments_first_and_last_arm_pass_the_checks(
    experiment: str, photos: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every_arm = preflight._arms
    monkeypatch.setattr(preflight, "_arms", lambda swept: [*every_arm(swept)[:1], *every_arm(swept)[1:][-1:]])
    monkeypatch.chdir(tmp_path)
    assert len(make_plan(CONF, parse_arguments([f"+experiment={experiment}", *SCALES["sd21"], *photos])).arms) <= 2


@pytest.mark.slow
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_arm_passes_the_checks(
    experiment: str, scale: str, photos: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = make_plan(CONF, parse_arguments([f"+experiment={experiment}", *SCALES[scale], *(photos if scale == "sd21" else [])]))
    assert plan.multirun == (experiment != "osediff")


@pytest.fixture
def without_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    """LPIPS' trunk is no part of this: any network stands for it."""
    monkeypatch.setattr("osediff_exp.losses.lpips.lpips_distance", lambda net: torch.nn.Identity())


def build(config: DictConfig, backbone: Backbone) -> RestorationModule:
    config.metrics = {"psnr": {"_target_": "osediff_exp.metrics.psnr_y.PSNRY"}}
    return build_module(config, backbone)


@pytest.mark.slow
@pytest.mark.usefixtures("without_downloads")
@pytest.mark.parametrize("scale", SCALES)
# Left out: one needs a tagger, the other the runs of earlier stages, and generators of its own (tests/methods, tests/tasks).
@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if name not in ("prompt_ablation", "paper_tables")])
def test_every_arm_builds(experiment: str, scale: str, backbone: Backbone) -> None:
    for config in configs(experiment, scale):
        module = build(config, backbone)
        assert module.generator.timestep == config.generator.timestep
        assert {name: term.weight for name, term in module.method.terms.items()} == weights(config)
        module.configure_optimizers()


def weights(config: DictConfig) -> dict[str, float]:
    """Return the terms that take part, with their weights."""
    return {name: float(term.weight) for name, term in config.loss.terms.items() if term is not None and term.weight != 0}


# ---- the paper's tables, at the paper's scale


@pytest.mark.usefixtures("without_downloads")
def test_the_recipe_is_the_papers(backbone: Backbone) -> None:
    """Sections 3.3 and 4.1, and the released code where the paper is silent."""
    (config,) = configs("osediff", "sd21")
    assert weights(config) == {"mse": 1.0, "lpips": 2.0, "vsd": 1.0}
    assert config.loss.terms.lpips.net == "vgg"
    vsd, trainer = config.loss.terms.vsd, config.trainer
    assert (vsd.guidance, vsd.t_min, vsd.t_max, vsd.rank, vsd.score_t_min, vsd.score_t_max) == (7.5, 20, 980, 4, 0, 1000)
    assert (config.generator.timestep, config.generator.unet_rank, config.generator.vae_rank) == (999, 4, 4)
    assert trainer.batch_size * trainer.devices * trainer.num_nodes * trainer.accumulate == 16
    assert (config.optimizer.lr, vsd.optimizer.lr, config.data.crop_size, trainer.clip_norm) == (5e-5, 5e-5, 512, 1.0)
    module = build(config, backbone)
    assert [group["lr"] for optimizer in module.configure_optimizers() for group in optimizer.param_groups] == [5e-5, 5e-5]


@pytest.mark.parametrize(("scale", "factors"), [("sd21", (1.0, 1.0)), ("tiny", (0.00625, 0.02))])
def test_table_3_varies_the_regularizer_alone(scale: str, factors: tuple[float, float]) -> None:
    perceptual = "LPIPSLoss" if scale == "sd21" else "STLPIPSLoss"
    regularizers = []
    for config in configs("vsd_ablation", scale):
        found = weights(config)
        assert (found.pop("mse"), found.pop("perceptual")) == (1.0, pytest.approx(2.0 * factors[0]))
        assert config.loss.terms.perceptual["_target_"].endswith(f".{perceptual}")
        regularizers.append(found)
    assert regularizers == [{}, *({name: pytest.approx(factors[1])} for name in ("gan", "vsd_image", "vsd"))]


def test_table_4_varies_the_prompt() -> None:
    none, fixed, own, other = configs("prompt_ablation", "sd21")
    assert [config.prompt.words for config in (none, fixed, own, other)] == ["none", "fixed", "own", "other"]
    assert [build_prompts(config)(torch.zeros(1, 3, 8, 8), ["a"]) for config in (none, fixed)] == [[""], [fixed.prompt.positive]]
    for config in (own, other):
        assert config.prompt.extractor["_target_"].endswith("ImageNetPrompt")
        assert (config.prompt.train_image, config.prompt.test_image) == ("hq", "lq")


def test_table_4_is_the_papers_with_the_papers_tagger() -> None:
    for config in configs("prompt_ablation", "sd21", "prompt=ram"):
        assert config.prompt.extractor["_target_"].endswith("RAMPrompt")


def test_tables_5_and_6_vary_the_ranks() -> None:
    varied = [(2, 4.0), (4, 2.0), (8, 1.0), (2, 1.0), (4, 1.0), (8, 1.0)]  # the released factor, 8 / rank, then the rank alone
    assert ranks("vae_rank") == [((4, 2.0), arm) for arm in varied]
    assert ranks("unet_rank") == [(arm, (4, 2.0)) for arm in varied]


def ranks(experiment: str) -> list[tuple[tuple[int, float], tuple[int, float]]]:
    """Return rank and LoRA's factor of U-Net and VAE in each arm."""
    found: list[Any] = [config.generator for config in configs(experiment, "sd21")]
    return [(_rank_and_factor(g, "unet"), _rank_and_factor(g, "vae")) for g in found]


def _rank_and_factor(generator: Any, part: str) -> tuple[int, float]:
    rank, alpha = generator[f"{part}_rank"], generator[f"{part}_alpha"]
    return rank, lora_scale(rank=rank, alpha=alpha, lora_alpha=generator.lora_alpha)


def test_table_7_varies_which_halves_of_the_vae_train() -> None:
    found = [(config.generator.train_vae_encoder, config.generator.train_vae_decoder) for config in configs("trainable_parts", "sd21")]
    assert sorted(found) == [(False, False), (False, True), (True, False), (True, True)]


def test_the_lambdas_are_a_grid_around_the_papers() -> None:
    found = [(config.loss.terms.lpips.weight, config.loss.terms.vsd.weight) for config in configs("lambda_grid", "sd21")]
    assert found == list(itertools.product((0.0, 2.0, 4.0), (0.0, 1.0, 2.0)))


def test_the_score_networks_rates_follow_the_backbones() -> None:
    found = [(config.trainer.critic_updates, config.loss.terms.vsd.optimizer.lr) for config in configs("score_updates", "sd21")]
    assert found == [(updates, pytest.approx(rate)) for updates in (1, 2, 4) for rate in (1e-5, 5e-5)]


@pytest.mark.parametrize("scale", SCALES)
def test_trainings_with_other_degradations_are_tested_on_the_same_pictures(scale: str) -> None:
    found = configs("degradation", scale)
    assert len({OmegaConf.to_yaml(config.degradation) for config in found}) == 3
    assert len({OmegaConf.to_yaml(config.val_degradation) for config in found}) == 1


# ---- the seven systems


@cache
def seven(scale: str) -> tuple[DictConfig, ...]:
    return tuple(configs("paper_tables", scale))


@pytest.mark.parametrize("scale", SCALES)
def test_the_seven_systems_share_data_start_and_budget(scale: str) -> None:
    found = seven(scale)
    assert {config.method.published.row for config in found} == {row.method for row in published_complexity()}
    assert {(config.init, config.trainer.max_steps, config.trainer.batch_size, config.data.crop_size) for config in found} == {
        (None, 14000, 4, 512) if scale == "sd21" else (None, 750, 4, 96)
    }
    assert len({OmegaConf.to_yaml(config.degradation) for config in found}) == 1


def test_a_stage_comes_after_the_ones_that_it_needs() -> None:
    stages: list[Any] = []
    for config in seven("tiny"):
        own = {"method": config.method.name, "stage": config.method.stage}
        made_by = [dict(other) for other in (config.method.get("made_by") or {}).values()]
        assert all(other in stages for other in made_by if other != own)
        stages.append(own)
    assert len(stages) == 9


def test_the_experiment_names_every_arm_and_its_row() -> None:
    """Labels and published rows fit: a report of the whole sweep has no note about them."""
    report = seven("tiny")[0].report
    with open_composer(CONF, []) as composer:
        names = [arm[0] for arm in arms(composer, ["+experiment=paper_tables"])]
    assert list(report.labels) == names
    labels = list(report.labels.values())
    published, notes = published_for(labels, OmegaConf.to_container(report.published))  # type: ignore[arg-type]
    assert (report.baseline in labels, notes) == (True, [])
    assert all(row.cost is not None and row.cost.method == row.name for row in published.values())


@pytest.mark.parametrize(("method", "released"), [("diffbir", 4.0), ("seesr", 5.5), ("pasd", 9.0)])
def test_methods_that_sample_have_the_guidance_of_their_backbone(method: str, released: float) -> None:
    """The embedded prior wants none; on Stable Diffusion the released values hold, and on a backbone of one's own that says nothing."""
    with open_composer(CONF, []) as composer:

        def guidance(*overrides: str) -> float:
            return float(composer.whole([f"method={method}", *overrides]).generator.guidance)

        assert guidance() == 1.0
        assert (
            guidance("backbone=sd21")
            == guidance("backbone.recipe.sampling_guidance=null")
            == guidance("~backbone.recipe.sampling_guidance")
            == released
        )
        assert guidance("generator.guidance=2") == 2.0
