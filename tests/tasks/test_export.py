"""task=export: what it writes can be loaded, and what it reports is true."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from tiny_parts import wake_lora

from osediff_exp.checkpoints.fitting import trained_tensors
from osediff_exp.checkpoints.loading import load_checkpoint
from osediff_exp.cli.check import check
from osediff_exp.cli.compose import open_composer
from osediff_exp.cli.resolvers import register_resolvers
from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone
from osediff_exp.tasks import export
from osediff_exp.tasks.train import build_module

CONF = Path(__file__).parents[2] / "conf"


register_resolvers()


def configuration(backbone_folder: Path, task: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [f"task={task}", f"backbone.loader.sources=[{backbone_folder}]", *overrides])


@pytest.fixture(scope="module")
def run_folder(backbone: Backbone, backbone_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder whose checkpoint task=train's own module wrote."""
    folder = tmp_path_factory.mktemp("run")
    module = build_module(configuration(backbone_folder, "train", "loss/terms=[mse]", "generator.alpha=fixed"), backbone)
    wake_lora(module.generator)
    module.steps_taken = 12
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    (folder / "checkpoints").mkdir()
    torch.save(checkpoint, folder / "checkpoints" / "last.ckpt")
    return folder


@pytest.mark.parametrize(("form", "name"), [("released", "osediff.pkl"), ("lora", "lora"), ("merged", "merged"), ("weights", "weights")])
def test_each_format_is_written_and_loads(run_folder: Path, backbone_folder: Path, tmp_path: Path, form: str, name: str) -> None:
    output = tmp_path / "new" / name
    config = configuration(backbone_folder, "export", f"checkpoint={run_folder}", f"format={form}", f"output={output}")
    figures = export.run(config, tmp_path)
    assert json.loads(json.dumps(figures)) == figures
    original = load_checkpoint(run_folder)
    loaded = load_checkpoint(output, settings=original.config)
    assert figures["fingerprint"] == loaded.fingerprint
    assert (figures["format"], figures["output"], figures["steps"]) == (form, str(output), 12)
    trained = original.generator.trainable_parameters()
    tensors = list(loaded.backbone.parameters()) if form == "merged" else trained
    assert (figures["num_tensors"], figures["params"]) == (len(tensors), sum(tensor.numel() for tensor in tensors))
    lq = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    text = original.backbone.encode_prompts(original.prompts(lq, ["x"]))
    with torch.no_grad():
        assert torch.allclose(loaded.generator(lq, text).image, original.generator(lq, text).image, atol=1e-5)


@pytest.mark.parametrize("form", ["released", "lora", "merged", "weights"])
def test_the_command_lets_each_format_through(form: str) -> None:
    given = ["task=export", "checkpoint=embedded", f"format={form}", "output=out"]
    with open_composer(CONF, given) as composer:
        assert check(composer, given).format == form


def test_the_runs_whole_configuration_travels_in_its_checkpoint(run_folder: Path) -> None:
    config = load_checkpoint(run_folder).config
    assert config["task"]["name"] == "train"
    assert config["generator"]["timestep"] == config["backbone"]["recipe"]["timestep"]


@pytest.mark.slow
def test_a_released_file_takes_the_settings_of_the_command(run_folder: Path, backbone_folder: Path, tmp_path: Path) -> None:
    released = tmp_path / "osediff.pkl"
    for checkpoint, form, output in ((run_folder, "released", released), (released, "lora", tmp_path / "lora")):
        settings = [f"checkpoint={checkpoint}", f"format={form}", f"output={output}", "generator.timestep=77", "generator.alpha=fixed"]
        export.run(configuration(backbone_folder, "export", *settings), tmp_path)
    loaded = load_checkpoint(tmp_path / "lora")
    assert loaded.generator.timestep == 77
    first, second = (trained_tensors(load_checkpoint(path).generator) for path in (run_folder, tmp_path / "lora"))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["format=relesed"], "format=relesed is unknown: use released, lora, merged or weights. Did you mean 'released'"),
        (["format=merged", "dtype=int4"], "dtype=int4 is no type"),
    ],
)
def test_mistakes_are_one_line(run_folder: Path, backbone_folder: Path, tmp_path: Path, overrides: list[str], message: str) -> None:
    config = configuration(backbone_folder, "export", f"checkpoint={run_folder}", f"output={tmp_path / 'x'}", *overrides)
    with pytest.raises(UserError, match=message):
        export.run(config, tmp_path)
    assert not (tmp_path / "x").exists()


def test_the_checkpoint_itself_is_never_the_output(run_folder: Path, backbone_folder: Path, tmp_path: Path) -> None:
    checkpoint = run_folder / "checkpoints" / "last.ckpt"
    for output in (checkpoint, run_folder):
        config = configuration(backbone_folder, "export", f"checkpoint={checkpoint}", "format=merged", f"output={output}")
        with pytest.raises(UserError, match="is, or holds, the checkpoint itself"):
            export.run(config, tmp_path)
