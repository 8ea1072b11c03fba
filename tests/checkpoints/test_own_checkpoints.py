"""Our own checkpoints: what training records comes back, nothing is loaded by halves, and nothing in a file is run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from checkpoint_parts import Train, assert_same, output, picture
from tiny_parts import make_data, make_module, make_trainer, random_backbone, trainable

import osediff_exp
from osediff_exp.callbacks.checkpoint import LastCheckpoint
from osediff_exp.callbacks.ema import GeneratorEMA
from osediff_exp.checkpoints.base import Call, Loaded, assemble
from osediff_exp.checkpoints.build import build_backbone, build_generator, prompts_maker
from osediff_exp.checkpoints.fitting import fill, trained_tensors
from osediff_exp.checkpoints.loading import load_checkpoint
from osediff_exp.checkpoints.own import run_record, stamp
from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone


def content_of(loaded: Loaded, **more: Any) -> dict[str, Any]:
    """Return what a training leaves of a generator and a loss term."""
    tensors = {f"generator.{name}": parameter.detach().clone() for name, parameter in trained_tensors(loaded.generator).items()}
    record = stamp(steps=loaded.steps, backbone=loaded.backbone, fingerprint=loaded.fingerprint)
    state = {"state_dict": tensors | {"terms.vsd.score.w": torch.ones(1)}, "optimizer_states": []}
    return state | record | run_record(loaded.config) | more


def saved(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def test_a_training_comes_back_averaged_or_live(backbone: Backbone, settings: dict[str, Any], tmp_path: Path) -> None:
    module = make_module(backbone, max_steps=2, record=run_record(settings))
    ema = GeneratorEMA(decay=0.5)
    trainer = make_trainer(tmp_path, callbacks=[ema, LastCheckpoint(every=1)])
    trainer.fit(module, datamodule=make_data(tmp_path / "photos", batch_size=2))
    module.eval()
    averaged, live = load_checkpoint(tmp_path), load_checkpoint(tmp_path / "checkpoints", average=False)
    for loaded, tensors in ((averaged, ema.average), (live, trainable(module.generator))):
        found = trainable(loaded.generator)
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[name], tensors[name]) for name in found)
        assert (loaded.steps, loaded.format, loaded.config) == (2, "osediff_exp", settings)
        assert not loaded.generator.training
    assert not torch.equal(output(averaged), output(live))
    restored = module.restore((picture() + 1) / 2, ["sharp photo"] * 2).image
    assert torch.allclose(output(live), restored, atol=1e-5)  # LoRA's sums in another order
    content = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["format"] == 1
    assert content["versions"]["osediff_exp"] == osediff_exp.__version__
    assert {"torch", "diffusers", "peft", "python"} < content["versions"].keys()


def test_the_configuration_is_the_files_own_then_the_run_folders_then_the_settings(train: Train, tmp_path: Path) -> None:
    trained = train()
    content = content_of(trained)
    del content["config"], content["versions"], content["format"]
    path = saved(tmp_path / "run" / "checkpoints" / "last.ckpt", content)
    with pytest.raises(UserError, match=r"carries no configuration.*no config\.yaml"):
        load_checkpoint(path)
    assert_same(trained, load_checkpoint(path, settings=trained.config))
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(trained.config | {"seed": 5}))
    assert load_checkpoint(path, settings={}).config["seed"] == 5
    saved(path, content | {"config": trained.config | {"seed": 6}})
    assert load_checkpoint(tmp_path / "run").config["seed"] == 6
    for text, message in (("- 1", "holds no configuration"), ("{", "cannot be read")):
        (tmp_path / "run" / "config.yaml").write_text(text)
        saved(path, content)
        with pytest.raises(UserError, match=message):
            load_checkpoint(path)


def test_a_given_backbone_is_used_and_hashed_once(
    train: Train, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "last.ckpt", content_of(train()))
    calls, fingerprint = [], Backbone.fingerprint
    monkeypatch.setattr(Backbone, "fingerprint", lambda self: calls.append(self) or fingerprint(self))
    loaded = load_checkpoint(path, backbone=backbone)
    assert calls == [backbone]
    assert loaded.backbone is backbone
    assert loaded.generator.unet.conv_out.base_layer.weight.data_ptr() == backbone.unet.conv_out.weight.data_ptr()


def test_the_backbone_is_looked_for_elsewhere(train: Train, backbone_folder: Path, tmp_path: Path) -> None:
    trained = train()
    lost = trained.config | {"backbone": {"loader": trained.config["backbone"]["loader"] | {"sources": ["/gone/away"]}}}
    path = saved(tmp_path / "last.ckpt", content_of(trained, config=lost))
    with pytest.raises(UserError, match="/gone/away: no such folder"):
        load_checkpoint(path)
    assert_same(trained, load_checkpoint(path, sources=[str(backbone_folder)]))


# ---- what does not fit


def test_another_backbone_is_named(train: Train, tmp_path: Path) -> None:
    path = saved(tmp_path / "last.ckpt", content_of(train()))
    with pytest.raises(UserError, match=r"trained on another backbone \(.*fingerprint \w{16}; here .*\w{16}\)"):
        load_checkpoint(path, backbone=random_backbone(tmp_path / "tokenizer", seed=5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("unet.conv_in.base_layer.bias"), r"lacks unet.conv_in.base_layer.bias \(1 such tensors\)"),
        (lambda state: state.update({"unet.more": torch.zeros(1)}), r"this configuration lacks unet.more \(1 such tensors\)"),
        (lambda state: state.update({"unet.conv_in.base_layer.bias": torch.zeros(3)}), r"\(3,\) in the checkpoint, \(8,\) here"),
        (lambda state: state.update({"unet.conv_in.base_layer.bias": None}), "is no tensor"),
    ],
)
def test_nothing_is_loaded_by_halves(train: Train, backbone: Backbone, change: Any, message: str) -> None:
    trained = train()
    generator = build_generator(trained.config, backbone)
    before = trainable(generator)
    state: dict[str, Any] = trainable(trained.generator)
    change(state)
    with pytest.raises(UserError, match=message) as caught:
        fill(generator, state)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in trainable(generator).items())


def test_a_newer_format_asks_for_the_newer_program(train: Train, backbone: Backbone, tmp_path: Path) -> None:
    content = content_of(train(), format=2, versions={"osediff_exp": "7.0"})
    with pytest.raises(UserError, match=r"has format 2, .* reads 1: use osediff_exp 7\.0"):
        load_checkpoint(saved(tmp_path / "last.ckpt", content), backbone=backbone)
    module = make_module(backbone, terms=None)
    with pytest.raises(UserError, match="has format 2"):
        module.on_load_checkpoint(content)


# ---- files that are no checkpoints


class Trap:
    """Runs a command when it is unpickled without care."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    content = {"state_dict_unet": {}, "trap": Trap(tmp_path / "sprung")}
    torch.save(content, tmp_path / "osediff.pkl", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"osediff\.pkl is refused.*mkdir") as caught:
        load_checkpoint(tmp_path / "osediff.pkl")
    assert "\n" not in str(caught.value)
    assert "weights_only=False" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


def test_other_files_are_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "text.ckpt").write_text("hello")
    (tmp_path / "empty.ckpt").write_bytes(b"")
    torch.save([1], tmp_path / "list.ckpt")
    torch.save({"weights": torch.ones(1)}, tmp_path / "other.ckpt")
    torch.save({"weights": torch.ones(1000)}, tmp_path / "cut.ckpt")
    (tmp_path / "cut.ckpt").write_bytes((tmp_path / "cut.ckpt").read_bytes()[:700])
    (tmp_path / "folder").mkdir()
    cases = {
        "text.ckpt": "refused|no checkpoint",
        "empty.ckpt": "no checkpoint",
        "list.ckpt": "holds a list",
        "other.ckpt": "no checkpoint of a known kind",
        "cut.ckpt": "damaged",
        "folder": "neither checkpoints/last.ckpt nor osediff.json",
        "othr.ckpt": "no such file or folder. Did you mean 'other.ckpt'",
    }
    for name, message in cases.items():
        with pytest.raises(UserError, match=message) as caught:
            load_checkpoint(tmp_path / name)
        assert "\n" not in str(caught.value)


# ---- a checkpoint names classes, and may name few


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "torch.nn.Identity",
        "osediff_exp.models.generator.nn.Identity",
        "osediff_exp.models.generator.Backbone",
        "osediff_exp.models.generator.Generator",
        "osediff_exp.models.generator.keep_float32",
        "osediff_exp.models.prompts.FixedPrompt",
        "osediff_exp.tasks.train.OneStepGenerator",
        "osediff_exp.no_such.Thing",
        "osediff_exp.__main__.main",
        "osediff_expo.models.generator.OneStepGenerator",
        "OneStepGenerator",
    ],
)
def test_only_this_packages_generators_are_built(settings: dict[str, Any], backbone: Backbone, target: str) -> None:
    config = settings | {"generator": {"_target_": target, "timestep": 250}}
    why = "it is no Generator" if target.startswith(("osediff_exp.", "OneStep")) else rf"it is of the package '{target.partition('.')[0]}'"
    with pytest.raises(UserError, match=rf"generator\._target_={target} is refused: {why}"):
        build_generator(config, backbone)


def test_weights_are_taken_without_the_files_of_the_run_s_prompts(backbone: Backbone, settings: dict[str, Any]) -> None:
    """Exporting them, or starting from them, asks for no prompt: the sidecar may be gone, or on another machine."""
    config = settings | {"prompt": {"extractor": {"_target_": "osediff_exp.data.sidecar.SidecarPrompt", "file": "gone.csv"}}}
    own = build_generator(config, backbone).own_tensors()
    loaded = assemble(config, own, trained_on=None, call=Call(backbone=backbone), steps=0, format="osediff_exp")
    assert loaded.record("weights")["config"]["prompt"] == config["prompt"]
    with pytest.raises(UserError, match=r"prompt\.file=gone\.csv"):
        _ = loaded.prompts


def test_other_targets_are_refused_too(settings: dict[str, Any], backbone: Backbone) -> None:
    loader = settings["backbone"]["loader"]
    with pytest.raises(UserError, match="is refused: a checkpoint's backbone is loaded by"):
        build_backbone({"backbone": {"loader": loader | {"_target_": "torch.hub.load"}}})
    with pytest.raises(UserError, match="no PromptExtractor"):
        prompts_maker({"prompt": {"extractor": {"_target_": "osediff_exp.models.generator.OneStepGenerator"}}})
    nested = {"_target_": "osediff_exp.models.prompts.FixedPrompt", "prompt": [{"_target_": "os.system"}]}
    with pytest.raises(UserError, match=r"prompt\.extractor\.prompt names code"):
        prompts_maker({"prompt": {"extractor": nested}})
    with pytest.raises(UserError, match="has no generator._target_"):
        build_generator({}, backbone)
    unknown = settings | {"generator": settings["generator"] | {"colour": 1}}
    with pytest.raises(UserError, match="generator does not fit this version.*colour"):
        assemble(unknown, {}, trained_on=None, call=Call(backbone=backbone), steps=0, format="osediff_exp")


def test_other_prompts_take_the_place_of_the_checkpoint_s(settings: dict[str, Any], backbone: Backbone) -> None:
    own = build_generator(settings, backbone).own_tensors()

    def loaded(prompt: dict[str, Any], config: dict[str, Any] = settings) -> Loaded:
        return assemble(config, own, trained_on=None, call=Call(backbone=backbone, prompt=prompt), steps=0, format="osediff_exp")

    empty = {"extractor": {"_target_": "osediff_exp.models.prompts.FixedPrompt", "prompt": ""}}
    assert loaded(empty).prompts(torch.zeros(1, 3, 4, 4), ["x"]) == [""]
    assert loaded(empty).record("weights")["config"]["prompt"] == empty, "an export restores with them"
    attends = settings | {"generator": settings["generator"] | {"image_embeds_shape": [50, 1280]}}
    with pytest.raises(UserError, match=r"image features of shape \[50, 1280\], and these prompts give none: choose the source"):
        loaded(empty, attends)
