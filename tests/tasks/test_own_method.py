"""The README's method of one's own: what its text says comes for nothing does, and what a run counts of it is what restoring costs."""

from __future__ import annotations

import logging
import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from tiny_parts import make_data, make_trainer

from osediff_exp.callbacks.checkpoint import LastCheckpoint
from osediff_exp.checkpoints.build import prompts_maker
from osediff_exp.checkpoints.loading import load_checkpoint
from osediff_exp.checkpoints.starting import start_from
from osediff_exp.checkpoints.weights_folder import write_weights_folder
from osediff_exp.cli.resolvers import register_resolvers
from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.complexity import measure_macs
from osediff_exp.models.empty_backbone import empty_like
from osediff_exp.models.tiling import Tiling
from osediff_exp.restoration.restorer import Restorer
from osediff_exp.tasks import export
from osediff_exp.tasks.costs import restoring_macs
from osediff_exp.tasks.loading import load_restorer, own_packages
from osediff_exp.tasks.methods import build_method
from osediff_exp.tasks.stages import earlier_generators
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


# ---- the same two files outside this package: packages=[regression]


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path with ``regression.py``, and a configuration tree ``conf`` that names it."""
    (tmp_path / "conf" / "method").mkdir(parents=True)
    yaml = snippet("conf/method/regression.yaml").replace("osediff_exp.methods.regression", "regression")
    (tmp_path / "conf" / "method" / "regression.yaml").write_text(yaml)
    (tmp_path / "regression.py").write_text(snippet("osediff_exp/methods/regression.py"))
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("regression", None)


def outside_configuration(outside: Path, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", [f"hydra.searchpath=[{outside / 'conf'}]", "metrics=psnr_ssim", *overrides])


@pytest.fixture
def outside_run(outside: Path, backbone: Backbone, backbone_folder: Path) -> Path:
    """The folder of two steps of it; nothing of its code is imported any more."""
    trained = ["method=regression", "packages=[regression]", f"backbone.loader.sources=[{backbone_folder}]", "trainer.max_steps=2"]
    module = build_module(outside_configuration(outside, *trained), backbone, outside)
    trainer = make_trainer(outside / "run", callbacks=[LastCheckpoint(every=2)])
    trainer.fit(module, datamodule=make_data(outside / "photos", batch_size=2, num_val=0))
    del sys.modules["regression"]
    return outside / "run"


def test_a_method_from_outside_restores_where_the_call_names_its_package(outside_run: Path, backbone: Backbone) -> None:
    """The checkpoint says ``packages: [regression]`` too: that counts for nothing."""
    line = r"is refused: it is of the package 'regression', .* add packages=\[regression\] if you trust it"
    with pytest.raises(UserError, match=rf"^generator\._target_=regression\.RegressionGenerator {line}$"):
        Restorer.from_checkpoint(outside_run, backbone=backbone)
    assert "regression" not in sys.modules, "its code has not run"
    restorer = Restorer.from_checkpoint(outside_run, backbone=backbone, packages=["regression"], tiling=None)
    assert restorer(torch.rand(1, 3, 16, 16), scale=1, names=["a"]).shape == (1, 3, 16, 16)
    assert (type(restorer.generator).__module__, restorer.method) == ("regression", "regression")


def test_the_tasks_hand_the_command_s_packages_on(outside: Path, outside_run: Path, backbone: Backbone) -> None:
    """task=restore and evaluate (they share what loads), task=export, init=RUN and method.needs; each is refused without."""

    generator = load_checkpoint(outside_run, backbone=backbone, packages=["regression"]).generator

    def tried(*packages: str) -> list[str]:
        exporting = ["task=export", f"checkpoint={outside_run}", "format=weights", f"output={outside / 'weights'}", *packages]
        export_config = outside_configuration(outside, *exporting)
        config = outside_configuration(outside, "task=restore", "input=x", *packages)
        named = own_packages(config)
        calls: list[Callable[[], Any]] = [
            lambda: load_restorer(config, outside_run),
            lambda: export.run(export_config, outside),
            lambda: earlier_generators({"a": str(outside_run)}, backbone, packages=named),
            lambda: start_from(outside_run, generator, backbone, {}, packages=named),
        ]
        return [message(call) for call in calls]

    def message(call: Callable[[], Any]) -> str:
        try:
            call()
        except UserError as error:
            return str(error)
        return ""

    assert all("add packages=[regression]" in line for line in tried())
    assert tried("packages=[regression]") == [""] * 4
    assert message(lambda: load_checkpoint(outside / "weights", backbone=backbone, packages=["regression"])) == ""


def test_what_a_named_package_must_be(outside: Path) -> None:
    def refusal(target: str, *packages: str) -> str:
        with pytest.raises(UserError) as caught:
            prompts_maker({"prompt": {"extractor": {"_target_": target}}}, packages=packages)
        return str(caught.value)

    assert "it is no PromptExtractor of this version of regression" in refusal("regression.RegressionGenerator", "regression")
    assert "it is no PromptExtractor" in refusal("regression.torch", "regression")
    assert "regressoin cannot be imported (No module named 'regressoin')" in refusal("regressoin.A", "regressoin")
    assert "add packages=[regression2]" in refusal("regression2.A", "regression")
    assert "add packages=[os]" in refusal("os.system", "regression")


def test_a_run_counts_its_macs_without_its_weights(config: DictConfig, backbone: Backbone, caplog: pytest.LogCaptureFixture) -> None:
    macs = restoring_macs(config, backbone, own_steps=1, sampling_steps=1)
    empty = empty_like(backbone)
    expected = sum(measure_macs(empty, build_method(config, empty).generator, size=512).unmerged.values())
    assert macs == {"macs_g": expected / 1e9, "macs_g_sampled": expected / 1e9}
    config.generator = {"_target_": "osediff_exp.methods.regression.RegressionGenerator", "_partial_": True, "unknown": 1}
    with caplog.at_level(logging.WARNING):
        assert restoring_macs(config, backbone, own_steps=1, sampling_steps=1) == {"macs_g": None, "macs_g_sampled": None}
    assert "the MACs of regression could not be counted" in caplog.text
