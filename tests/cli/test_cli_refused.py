"""Arms that a method refuses are left out of a sweep that says so: named before the start, not failed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from restoration_parts import save_checkpoint
from tiny_parts import write_photos

from osediff_exp.cli.arguments import parse_arguments
from osediff_exp.cli.command import run_command
from osediff_exp.cli.conf_tree import conf_dir
from osediff_exp.cli.preflight import make_plan
from osediff_exp.cli.refused import refusal, refusals
from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone


def write_run(path: Path, most: int) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "result.json").write_text(json.dumps({"max_sampling_steps": most}))
    return path


def why(checkpoint: Path, steps: int | None, *, skip: bool = True) -> str | None:
    return refusal(OmegaConf.create({"skip_refused": skip, "checkpoint": str(checkpoint), "restorer": {"steps": steps}}))


def test_the_limit_is_the_methods(tmp_path: Path) -> None:
    one, shift, stable = (write_run(tmp_path / str(k), most) for k, most in enumerate((1, 4, 1000)))
    assert why(one, 2) == f"restorer.steps=2: {one} takes one"
    assert why(shift, 5) == f"restorer.steps=5: {shift} takes 1 to 4"
    assert why(shift / "checkpoints" / "last.ckpt", 5) is not None
    assert [why(one, 1), why(shift, 4), why(stable, 200), why(one, None), why(one, 2, skip=False)] == [None] * 5
    assert why(tmp_path / "unknown.pkl", 2) is None, "whoever loads it tells"


def test_an_export_tells_too(tmp_path: Path) -> None:
    (tmp_path / "osediff.json").write_text(json.dumps({"max_sampling_steps": 1}))
    assert why(tmp_path, 2) is not None


def test_the_plan_knows_them_and_refuses_a_sweep_of_nothing_else(workplace: Path) -> None:
    one, shift = write_run(workplace / "one", 1), write_run(workplace / "shift", 4)
    plan = make_plan(conf_dir(), parse_arguments(["+experiment=methods_steps", "checkpoint=one,shift", "restorer.steps=1,4,5"]))
    assert refusals(plan.arms) == [
        *("restorer.steps=4: one takes one", "restorer.steps=5: one takes one"),
        "restorer.steps=5: shift takes 1 to 4",
    ]
    with pytest.raises(UserError, match="no run of this sweep is left: restorer.steps=2: one takes one; restorer.steps=5: one takes one"):
        make_plan(conf_dir(), parse_arguments(["+experiment=methods_steps", "checkpoint=one", "restorer.steps=2,5"]))
    assert one.is_dir()
    assert shift.is_dir()


def test_the_sweep_ends_well_and_its_report_names_them(
    backbone: Backbone, backbone_folder: Path, workplace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_run(save_checkpoint(backbone, backbone_folder, workplace / "one"), 1)
    write_photos(workplace / "photos", 1)
    pairs = ("data=pairs", "data.lr_root=photos", "data.hr_root=photos", "metrics=psnr_ssim", "restorers=[]")
    command = ["+experiment=methods_steps", "checkpoint=one", "restorer.steps=1,2", *pairs, "hydra.sweep.dir=out"]
    for call in range(2):
        status, printed = run_command(command), capfd.readouterr()
        assert status == 0, printed.err
        assert "left out: restorer.steps=2: one takes one\n" in printed.err
        assert ("kept" in printed.out) == (call == 1)
        assert Path(printed.out.splitlines()[-1]) == workplace / "out"
    assert [path.parent.name for path in Path("out").glob("*/skipped.txt")] == ["1_restorer.steps=2"]
    assert "Left out, as they cannot be: restorer.steps=2: one takes one." in Path("out", "comparison.md").read_text()
