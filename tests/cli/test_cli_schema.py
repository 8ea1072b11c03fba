"""The schema: every key of the real tree has a rule that its default keeps, and a value outside is refused before torch is imported."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from osediff_exp.bars import UNBOUNDED_STEPS
from osediff_exp.cli.arguments import parse_arguments
from osediff_exp.cli.check import _is_ours, check, resolved
from osediff_exp.cli.compose import open_composer
from osediff_exp.cli.conf_tree import conf_dir
from osediff_exp.cli.schema import RULES, is_open, rule_for
from osediff_exp.cli.schema.relations import relation_problem
from osediff_exp.cli.schema.rules import number, several, span, whole, word
from osediff_exp.cli.targets import foreign_problem
from osediff_exp.cli.types import value_problem
from osediff_exp.errors import UserError

# Together they choose every option of every group but experiment.
EVERY_OPTION = [
    ["trainer=debug", "prompt=tagged", "loss/terms=[mse,ssim,perceptual,gan,sds,csd]"],
    ["backbone=sd21", "trainer=gpu", "data=lsdir_ffhq", "prompt=none", "degradation=light", "loss/terms=[lpips,dists,vsd_image,tsd]"],
    ["task=pretrain", "data=folder", "prompt=ram", "degradation=face", "loss/terms=[edge_st_lpips,st_lpips,dmd_gan]"],
    ["task=evaluate", "data=pairs", "metrics=full", "prompt=captioner", "prompt.model=x", "degradation=bicubic"],
    ["task=restore", "data=realsr", "prompt=sidecar", "metrics=psnr_ssim", "degradation=mixed"],
    ["task=score"],
    ["task=tag"],
    ["task=report"],
    ["task=export"],
    ["task=benchmark", "data=drealsr"],
    ["task=complexity", "data=div2k_val"],
    ["task=doctor"],
    ["method=stablesr"],
    ["method=diffbir"],
    ["method=seesr", "task=restore"],
    ["method=pasd"],
    ["method=resshift"],
    ["method=sinsr"],
    ["method=diffbir_cleaning", "trainer=budget"],
    ["method=stablesr_cfw"],
    ["degradation@val_degradation=mixed"],
    ["degradation@val_degradation=face"],
    ["degradation@val_degradation=bicubic"],
]


def leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and not is_open(key):
            found |= leaves(value, f"{key}.")
        elif not is_open(key):
            found[key] = value
    return found


@pytest.mark.parametrize("overrides", EVERY_OPTION, ids=[" ".join(overrides) for overrides in EVERY_OPTION])
def test_every_key_has_a_rule_that_its_default_keeps(overrides: list[str]) -> None:
    with open_composer(conf_dir(), overrides) as composer:
        config = composer.whole(overrides)
    tree: Any = OmegaConf.to_container(config, resolve=False)
    task = tree["task"]["name"]
    keys = leaves({name: value for name, value in tree.items() if name != "hydra"})
    assert [key for key in keys if rule_for(key, task) is None] == []
    for key, value in keys.items():
        assert value_problem(key, resolved(config, key, value), None, task) is None


def test_every_option_of_every_group_is_among_them() -> None:
    chosen = " ".join(text for overrides in EVERY_OPTION for text in overrides)
    for group in ("backbone", "method", "trainer", "data", "prompt", "degradation", "loss/terms", "task", "metrics"):
        for path in (conf_dir() / group).glob("[a-z]*.yaml"):
            defaults = ("tiny", "cpu", "sample", "fixed", "osediff", "mse", "vsd", "offline", "basic", "train")
            assert path.stem in chosen or path.stem in defaults, path


def test_a_key_of_a_users_own_takes_what_its_default_says() -> None:
    assert rule_for("loss.terms.mine.sharpness") is rule_for("callbacks.mine.often") is None
    assert value_problem("loss.terms.mine.sharpness", "much", 0.5) == (
        "loss.terms.mine.sharpness=much: expected a number (default 0.5), got a text"
    )


def test_a_name_of_ours_in_a_users_component_is_the_users() -> None:
    tree = {"loss": {"terms": {"mine": {"_target_": "mine.Term", "alpha": 0.5}, "vsd": {"_target_": "osediff_exp.x.Y", "alpha": "rank"}}}}
    assert not _is_ours(tree, "loss.terms.mine.alpha")
    assert _is_ours(tree, "loss.terms.vsd.alpha")
    assert _is_ours(tree, "trainer.max_steps")
    assert value_problem("loss.terms.mine.alpha", 0.7, 0.5, ruled=False) is None


RANGES = [
    (whole(1), 0, "k=0 is out of range: give a whole number of at least 1; the nearest is 1"),
    (whole(0, 999), 1000, "k=1000 is out of range: give a whole number from 0 to 999; the nearest is 999"),
    (whole(8, 65536, multiple=8), 97, "k=97 is out of range: give a multiple of 8 from 8 to 65536; the nearest is 96"),
    (whole(8, 65536, multiple=8), 1, "k=1 is out of range: give a multiple of 8 from 8 to 65536; the nearest is 8"),
    (number(0.0), -1.0, "k=-1.0 is out of range: give a number of at least 0; the nearest is 0.0"),
    (number(0.0, 1.0, open=")"), 1.0, "k=1.0 is out of range: give a number from 0 below 1"),
    (number(0.0, open="("), 0.0, "k=0.0 is out of range: give a number above 0"),
    (span(0.0, 10.0), [3.0, 1.0], "k=[3.0, 1.0] falls: write the lower end first, [1.0, 3.0]"),
    (span(0.0, 10.0), [3.0], "k=[3.0] has 1 entries: give 2"),
    (several(whole(1), 1), [1, "a"], "k=[1, 'a']: a is not a whole number"),
    (word("adain", "none"), "adian", "k=adian is none of adain, none. Did you mean 'adain'?"),
    (word("cpu", pattern=r"cuda:\d+"), "cuda:x", "k=cuda:x is none of cpu."),
]


@pytest.mark.parametrize(("rule", "value", "line"), RANGES, ids=[line for _, _, line in RANGES])
def test_a_value_outside_names_the_nearest_inside(rule: Any, value: Any, line: str) -> None:
    assert rule.problem("k", value) == line


def test_values_inside_pass() -> None:
    for rule, value in ((whole(1), 1), (whole(0, 999), 999), (number(0.0, 1.0, open=")"), 0.999), (span(1e-3, 1e3), [0.2, 3])):
        assert rule.problem("k", value) is None
    assert word("cpu", pattern=r"cuda:\d+").problem("k", "cuda:1") is None


LATENTS = {"stage": "prior", "pretrain.latents.count": 4}
RELATIONS = [
    (
        {"trainer.budget_samples": 1000, "trainer.max_steps": 5, "trainer.batch_size": 4, "trainer.accumulate": 2, "trainer.devices": 3},
        "trainer.max_steps=5, but trainer.budget_samples=1000 allows 41: leave one of them out",
    ),
    (
        {"task.name": "tag", "trainer.max_steps": UNBOUNDED_STEPS, "trainer.budget_minutes": 5.0, "tag.samples": None, "input": None},
        "trainer.budget_minutes=5.0 does not say how many crops to tag: set tag.samples to a number, or trainer.max_steps",
    ),
    (
        {"data.crop_size": 96, "degradation.scale": 5},
        "data.crop_size=96 must be a multiple of 40 (of 8 and degradation.scale=5); the nearest is 80",
    ),
    (
        LATENTS | {"pretrain.latents.crop_size": 64, "data.crop_size": 96},
        "pretrain.latents.crop_size=64 is smaller than data.crop_size=96, whose crops are cut from it: the nearest is 96",
    ),
    (
        LATENTS | {"pretrain.latents.crop_size": 512, "data.reduce_to": 384},
        "data.reduce_to=384 would make photos smaller than pretrain.latents.crop_size=512: the nearest is 512",
    ),
    ({"data.val_size": 96, "data.reduce_to": 64}, "data.reduce_to=64 would make photos smaller than data.val_size=96: the nearest is 96"),
    ({"loss.terms.vsd.t_min": 980, "loss.terms.vsd.t_max": 980}, "loss.terms.vsd.t_min=980 must be below loss.terms.vsd.t_max=980"),
    (
        {"restorer.tiling.unet_tile": 16, "restorer.tiling.unet_overlap": 9},
        "restorer.tiling.unet_overlap=9 does not fit tiles of 16: the nearest is 8",
    ),
    (
        {"generator._target_": "osediff_exp.methods.pasd.generator.X", "generator.gradient_checkpointing": ["unet"], "method.name": "pasd"},
        "generator.gradient_checkpointing=['unet']: method=pasd recomputes all or nothing; give true or false",
    ),
    (
        {"degradation.blur.families": {"iso": 0.5, "aniso": 0.4}},
        "the probabilities of degradation.blur.families sum to 0.9: make them sum to 1",
    ),
]


@pytest.mark.parametrize("kind", ["bf16", "16"])
def test_a_training_in_half_precision_alone_is_sent_to_mixed_precision(kind: str) -> None:
    assert relation_problem({"trainer.precision": f"{kind}-mixed"}) is None
    assert f"; use {kind}-mixed" in str(relation_problem({"trainer.precision": f"{kind}-true"}))


@pytest.mark.parametrize(("values", "line"), RELATIONS, ids=[line for _, line in RELATIONS])
def test_keys_that_do_not_fit_one_another(values: dict[str, Any], line: str) -> None:
    assert relation_problem(values) == line


def test_patterns_reach_as_far_as_their_stars() -> None:
    assert rule_for("degradation.first.blur.sinc.sizes") is RULES["degradation.**sizes"]
    assert rule_for("loss.terms.vsd.optimizer.lr") is RULES["loss.terms.*.optimizer.lr"]
    assert rule_for("format", "restore") is RULES["restore:format"]
    assert rule_for("loss.terms.vsd.optimizer.momentum") is None


# ---- code of others


@pytest.mark.parametrize(
    "path",
    [
        "os.system",
        "subprocess.run",
        "builtins.eval",
        "torch.load",
        "torch.hub.load",
        "osediff_exp.cli.records.subprocess.run",
        "osediff_expx.y",
    ],
)
def test_code_of_others_is_refused_unless_its_package_is_named(path: str) -> None:
    allowed = ("osediff_exp", "torch.optim")
    assert f"packages=[{path.split('.')[0]}]" in str(foreign_problem(path, allowed))
    if not path.startswith("osediff_exp."):
        assert foreign_problem(path, (*allowed, path.split(".")[0])) is None


def test_our_own_code_passes() -> None:
    for path in ("osediff_exp.losses.vsd.VSDLoss", "torch.optim.AdamW", "osediff_exp.restoration.restorer.Restorer.from_checkpoint"):
        assert foreign_problem(path, ("osediff_exp", "torch.optim")) is None


# ---- the values, by the rules of their keys

WRONG = [
    ("lambda1", float("nan"), "lambda1=nan: a number must be finite"),
    ("lambda2", float("inf"), "lambda2=inf: a number must be finite"),
    ("data.val_first", -3, "the nearest is 0"),
    ("trainer.clip_norm", -1, "trainer.clip_norm=-1 is out of range"),
    ("trainer.max_steps", -1, "give a whole number of at least 1; the nearest is 1"),
    ("trainer.devices", 0, "the nearest is 1"),
    ("trainer.checkpoint_every", 0, "the nearest is 1"),
    ("trainer.max_bad_steps", 0, "the nearest is 1"),
    ("trainer.precision", "bf16-mixd", "Did you mean 'bf16-mixed'?"),
    ("trainer.strategy", "ddp_spawn", "Did you mean 'ddp'?"),
    ("trainer.strategy", "ddp_fork", "Did you mean 'ddp'?"),
    ("generator.timestep", 1000, "the nearest is 999"),
    ("data.crop_size", 97, "the nearest is 96"),
    ("optimizer.betas", [0.9, 1.0], "below 1"),
    ("degradation.first.jpeg_quality", [95, 30], "write the lower end first, [30, 95]"),
    ("backbone.loader.sources", [], "has 0 entries: give at least 1"),
    ("restorer.device", "cuda:x", "is none of auto, cpu, cuda, mps"),
    ("checkpoint", "", "checkpoint is empty"),
    ("input", "a\0b", "null byte"),
]


@pytest.mark.parametrize(("key", "value", "part"), WRONG, ids=[key for key, _, _ in WRONG])
def test_values_that_no_run_can_use_are_refused(key: str, value: Any, part: str) -> None:
    assert part in str(value_problem(key, value, None, "train"))


# ---- the whole way, over the real tree and without torch

MISTAKES = [
    (["generator.timestep=1000"], "the nearest is 999"),
    (["loss/terms=[]"], "no loss term is left"),
    (["generator._target_=os.system"], "packages=[os]"),
]

_SCRIPT = """
import json, sys, time
from pathlib import Path
from osediff_exp.cli.command import run_command
for argv in json.loads(sys.argv[1]):
    started = time.process_time()
    print("status", run_command(argv), time.process_time() - started, flush=True)
print("torch" in sys.modules, list(Path().iterdir()))
"""


def test_each_mistake_is_one_line_and_no_torch(tmp_path: Any) -> None:
    calls = json.dumps([argv for argv, _ in MISTAKES])
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", _SCRIPT, calls]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=True)
    lines = done.stderr.splitlines()
    assert len(lines) == len(MISTAKES)
    for (argv, part), line in zip(MISTAKES, lines, strict=True):
        assert line.startswith("error: "), argv
        assert part in line, argv
    *statuses, last = done.stdout.splitlines()
    assert last == "False []"
    for argv, status in zip((argv for argv, _ in MISTAKES), statuses, strict=True):
        assert status.split()[1] == "2", argv
        assert float(status.split()[2]) < 2, argv


def test_a_named_package_is_trusted() -> None:
    mine = "callbacks.progress._target_=email.message.Message"
    with open_composer(conf_dir(), []) as composer:
        assert check(composer, ["packages=[email]", mine]).callbacks.progress["_target_"] == "email.message.Message"
        with pytest.raises(UserError, match="email"):
            check(composer, [mine])


def test_validation_may_have_a_degradation_of_its_own() -> None:
    def checked(*typed: str) -> Any:
        overrides = parse_arguments(list(typed)).overrides
        with open_composer(conf_dir(), overrides) as composer:
            return check(composer, overrides)

    assert checked().val_degradation is None
    assert checked("val_degradation=light").val_degradation.second.jpeg_quality == [60.0, 100.0]
    assert checked("experiment=degradation", "val_degradation=face").val_degradation["_target_"].endswith("FaceDegradation")
    assert checked("experiment=degradation", "val_degradation=null").get("val_degradation") is None
    for typed, line in (
        (["val_degradation=lite"], "no degradation is called 'lite'. Did you mean 'light'?"),
        (["++val_degradation.scale=4"], "val_degradation has no option: choose one of degradation with val_degradation=NAME"),
        (["val_degradation=osediff", "val_degradation.scale=3"], "data.val_size=256 must be a multiple of 24 (of 8 and val_degradation"),
        (["val_degradation=mixed", "val_degradation.shares.light=0.9"], "the probabilities of val_degradation.shares sum to 1.2"),
    ):
        with pytest.raises(UserError, match=f"^{re.escape(line)}"):
            checked(*typed, "data.val_size=256")


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ({"steps": 10}, "restorers.a is a group of keys without a checkpoint"),
        ({"checkpoint": "x", "step": 10}, "restorers.a.step is no option of one restorer"),
        ({"checkpoint": "x", "device": "cpu"}, "restorers.a.device is no option of one restorer"),
        ({"checkpoint": "x", "steps": 0}, "restorers.a.steps=0 is out of range"),
        ({"checkpoint": "x", "steps": "many"}, "restorers.a.steps=many is not a whole number"),
        ({"checkpoint": "x", "average": None}, "restorers.a.average=null has no value"),
    ],
)
def test_options_of_one_restorer_are_checked_like_the_common_ones(entry: dict[str, object], line: str) -> None:
    for restorers in ({"a": entry}, ["bicubic", {"a": entry}]):
        assert str(relation_problem({"restorers": restorers})).startswith(line)
    assert relation_problem({"restorers": {"a": {"checkpoint": "x", "steps": 10, "guidance": 1, "color_fix": None}}}) is None
