"""The options stablesr and diffbir: what they build, the order of their stages, and that nothing of OSEDiff's is left in them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra.utils import get_method
from test_method_stages import CONF, configuration, finished_run

from osediff_exp.cli.arguments import parse_arguments
from osediff_exp.cli.preflight import make_plan
from osediff_exp.errors import UserError
from osediff_exp.methods.diffbir.method import Cleaning, DiffBIR
from osediff_exp.methods.stablesr.fusion_method import StableSRFusion
from osediff_exp.methods.stablesr.method import StableSR
from osediff_exp.models.backbone import Backbone
from osediff_exp.tasks.methods import build_method

SMALL = ["generator.channels=4", "generator.growth=2", "generator.blocks=1"]


def test_diffbir_s_stages_in_order(backbone: Backbone, backbone_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text("{}")
    whole, cleaning = (configuration(backbone_folder, "method=diffbir", *stage, *SMALL) for stage in ([], ["method.stage=cleaning"]))
    with pytest.raises(UserError, match=r"method=diffbir needs .* method=diffbir method\.stage=cleaning: give method\.needs\.cleaning=RUN"):
        build_method(whole, backbone, tmp_path / "1_diffbir")
    assert isinstance(build_method(cleaning, backbone, tmp_path / "0_cleaning"), Cleaning)
    run = finished_run(backbone, backbone_folder, tmp_path / "0_cleaning", "method=diffbir", "method.stage=cleaning", *SMALL)
    found = build_method(whole, backbone, tmp_path / "1_diffbir")
    assert isinstance(found, DiffBIR)
    weights = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(found.generator.cleaning.first.weight, weights["generator.cleaning.first.weight"])
    assert (found.generator.steps, found.generator.guidance) == (50, 1.0)  # what the embedded prior wants


def test_stablesr_s_stages_in_order(backbone: Backbone, backbone_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text("{}")
    fusion = configuration(backbone_folder, "method=stablesr", "method.stage=cfw")
    with pytest.raises(UserError, match=r"method=stablesr needs a finished run of method=stablesr: give method\.needs\.diffusion=RUN"):
        build_method(fusion, backbone, tmp_path / "1_cfw")
    run = finished_run(backbone, backbone_folder, tmp_path / "0_stablesr", "method=stablesr")
    assert isinstance(build_method(configuration(backbone_folder, "method=stablesr"), backbone), StableSR)
    found = build_method(fusion, backbone, tmp_path / "1_cfw")
    assert isinstance(found, StableSRFusion)
    weights = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    name = "network.encoder.conv_in.weight"
    assert torch.equal(found.generator.get_parameter(name), weights[f"generator.{name}"])
    assert (found.perceptual.weight, found.gan.weight, found.generator.steps) == (1.0, 0.025, 200)


@pytest.mark.parametrize(("method", "stage", "backbone_name"), [("stablesr", "cfw", "sd21"), ("diffbir", "cleaning", "tiny")])
def test_the_options_pass_the_checks(method: str, stage: str, backbone_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [f"method={method}", f"backbone={backbone_name}", "generator.sampler=ddim"]
    make_plan(CONF, parse_arguments([*arguments, f"method.stage={stage}", "generator.steps=5"]))
    with pytest.raises(UserError, match="unknown key 'generator.timestep'"):
        make_plan(CONF, parse_arguments([*arguments, "generator.timestep=3"]))


def test_stablesr_has_no_words_unless_they_are_asked_for(backbone_folder: Path) -> None:
    prompts = [configuration(backbone_folder, "method=stablesr", *words).prompt.extractor.prompt for words in ([], ["prompt=fixed"])]
    assert prompts[0] == ""
    assert prompts[1].startswith("clean, sharp")
    assert callable(get_method(configuration(backbone_folder, "method=stablesr").method.training["_target_"]))
