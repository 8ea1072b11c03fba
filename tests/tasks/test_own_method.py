"""The README's method of one's own: what its text says comes for nothing does, and what a run counts of it is what restoring costs."""

from __future__ import annotations

import logging
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from tiny_parts import make_data, make_trainer

from osediff_exp.callbacks.checkpoint import LastCheckpoint
from osediff_exp.checkpoints.loading import load_checkpoint
from osediff_exp.checkpoints.weights_folder import write_weights_folder
from osediff_exp.cli.resolvers import register_resolvers
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.complexity import measure_macs
from osediff_exp.models.empty_backbone import empty_like
from osediff_exp.models.tiling import Tiling
from osediff_exp.restoration.restorer import Restorer
from osediff_exp.tasks.costs import restoring_macs
from osediff_exp.tasks.methods import build_method
from osediff_exp.tasks.train import build_module

ROOT = Path(__file__).parents[2]
register_resolvers()


def snippet(name: str) -> str:
    """Return the README's block of code that begins with this file's name."""
    blocks = re.findall(r"```\w+\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    return next(block for block in blocks if f"# {name}\n" in block)


@pytest.fixture
def config(tmp_path: Path, backbone_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DictConfig]:
    """The configuration of ``method=regression``, both files of the README being where it puts them."""
    module = types.ModuleType("osediff_exp.methods.regression")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(snippet("osediff_exp/methods/regression.py"), "README.md", "exec"), module.__dict__)
    (tmp_path / "conf" / "method").mkdir(parents=True)
    (tmp_path / "conf" / "method" / "regression.yaml").write_text(snippet("conf/method/regression.yaml"))
    overrides = ["method=regression", f"hydra.searchpath=[{tmp_path / 'conf'}]", f"backbone.loader.sources=[{backbone_folder}]"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield compose("config", [*overrides, "metrics=psnr_ssim", "trainer.max_steps=2"])


def test_it_trains_and_resumes_to_the_bit_and_its_checkpoint_restores_and_exports(
    config: DictConfig, backbone: Backbone, backbone_folder: Path, tmp_path: Path
) -> None:
    runs = {}
    for name, stops in (("straight", (2,)), ("resumed", (1, 2))):
        for stop in stops:
            config.trainer.max_steps = stop
            module = build_module(config, backbone, tmp_path)
            trainer = make_trainer(tmp_path / name, callbacks=[LastCheckpoint(every=1)])
            last = tmp_path / name / "checkpoints" / "last.ckpt"
            data = make_data(tmp_path / "photos", batch_size=2, num_val=0)
            trainer.fit(module, datamodule=data, ckpt_path=last if last.is_file() else None, weights_only=True)
        runs[name] = module.generator.own_tensors()
    assert all(torch.equal(weight, runs["resumed"][key]) for key, weight in runs["straight"].items())
    assert not torch.equal(runs["straight"]["unet.conv_in.weight"], backbone.unet.conv_in.weight), "it has learned"
    whole = Restorer.from_checkpoint(last, backbone=backbone, tiling=None)
    picture = torch.rand(1, 3, 150, 138, generator=torch.Generator().manual_seed(1))
    restored = whole(picture, scale=1, names=["a"])
    assert restored.shape == picture.shape
    tiles = Tiling(encoder_tile=128, encoder_overlap=32, decoder_tile=16, decoder_overlap=8)
    tiled = Restorer.from_checkpoint(last, backbone=backbone, tiling=tiles)
    assert tiled(picture, scale=1, names=["a"]).shape == picture.shape
    write_weights_folder(load_checkpoint(last, sources=[str(backbone_folder)]), tmp_path / "weights")
    again = Restorer.from_checkpoint(tmp_path / "weights", backbone=backbone, tiling=None)
    assert torch.equal(again(picture, scale=1, names=["a"]), restored)
    assert (again.steps, whole.method) == (1, "regression")


def test_a_run_counts_its_macs_without_its_weights(config: DictConfig, backbone: Backbone, caplog: pytest.LogCaptureFixture) -> None:
    macs = restoring_macs(config, backbone, own_steps=1, sampling_steps=1)
    empty = empty_like(backbone)
    expected = sum(measure_macs(empty, build_method(config, empty).generator, size=512).unmerged.values())
    assert macs == {"macs_g": expected / 1e9, "macs_g_sampled": expected / 1e9}
    config.generator = {"_target_": "osediff_exp.methods.regression.RegressionGenerator", "_partial_": True, "unknown": 1}
    with caplog.at_level(logging.WARNING):
        assert restoring_macs(config, backbone, own_steps=1, sampling_steps=1) == {"macs_g": None, "macs_g_sampled": None}
    assert "the MACs of regression could not be counted" in caplog.text
