"""task=evaluate: the published protocol on the authors' outputs, the same bits twice, several restorers, and what is lost is named."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from restoration_parts import save_realesrgan_package
from tiny_parts import make_trainer, wake_lora

from osediff_exp.checkpoints.own import run_record, stamp
from osediff_exp.cli.resolvers import register_resolvers
from osediff_exp.errors import Incomplete, UserError
from osediff_exp.evaluation.scoring import Measured, Scorer
from osediff_exp.models.backbone import Backbone
from osediff_exp.reporting.comparison import compare
from osediff_exp.reporting.pictures import choose_pictures
from osediff_exp.tasks import evaluate
from osediff_exp.tasks.train import build_data, build_module

CONF = Path(__file__).parents[2] / "conf"
register_resolvers()
REALSR = Path(__file__).parents[3] / "shared" / "data" / "realsr"
pytestmark = pytest.mark.filterwarnings("ignore:The `srun` command is available")  # Lightning, on a machine that has Slurm
SMALL = ["metrics=psnr_ssim", "data.val_size=32", "data.val_first=3", "loss/terms=[mse]", "restorer.device=cpu"]


def configuration(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", ["task=evaluate", *overrides])


def run(folder: Path, *overrides: str) -> dict:
    folder.mkdir(parents=True, exist_ok=True)
    return evaluate.run(configuration(*overrides), folder)


def write_pairs(root: Path, names: str = "abc") -> Path:
    for seed, name in enumerate(names):
        pixels = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
        for folder, size in (("test_LR", (20, 16)), ("test_HR", (40, 32))):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(root / folder / f"{name}.png")
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, backbone: Backbone, backbone_folder: Path) -> tuple[Path, dict[str, float]]:
    """A run folder with a checkpoint, and what the training's own validation found."""
    folder = tmp_path_factory.mktemp("runs") / "0_arm=a"
    (folder / "checkpoints").mkdir(parents=True)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", [*SMALL[:-1], f"backbone.loader.sources=[{backbone_folder}]"])
    module = build_module(config, backbone)
    wake_lora(module)
    make_trainer(folder).validate(module, datamodule=build_data(config, folder), verbose=False)
    record = run_record({group: OmegaConf.to_container(config[group], resolve=True) for group in ("backbone", "generator", "prompt")})
    checkpoint = stamp(steps=5, backbone=backbone, fingerprint=backbone.fingerprint()) | record
    torch.save(checkpoint | {"state_dict": module.state_dict()}, folder / "checkpoints" / "last.ckpt")
    return folder, {key.removeprefix("val/"): value for key, value in module.latest.items()}


def contents(folder: Path) -> dict[str, bytes]:
    files = [*folder.glob("images/*/*.png"), *(folder / name for name in ("per_image.csv", "comparison.csv", "comparison.md"))]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_a_checkpoint_gets_its_own_validations_figures(trained: tuple[Path, dict[str, float]], tmp_path: Path) -> None:
    folder, validation = trained
    figures = run(tmp_path, f"checkpoint='{folder}'", "restorer.color_fix=none", *SMALL)
    assert (figures["restorer"], figures["dataset"], figures["num_images"]) == ("0_arm=a", "validation", 3)
    assert figures["color_fix"] == "none"
    assert "- Colour fix: none." in (tmp_path / "comparison.md").read_text()
    for key in ("psnr", "ssim", "bicubic_psnr", "bicubic_ssim"):
        assert figures[key] == pytest.approx(validation[key], rel=5e-5)  # pictures one by one may round a pixel to its neighbour
    assert figures["psnr"] != pytest.approx(figures["bicubic_psnr"], rel=1e-3)


@pytest.mark.slow
def test_twice_the_same_bit_for_bit_and_a_reused_folder_is_made_anew(trained: tuple[Path, dict[str, float]], tmp_path: Path) -> None:
    arguments = [f"checkpoint='{trained[0]}'", "data=pairs", f"data.root={write_pairs(tmp_path / 'set')}", SMALL[0], SMALL[-1]]
    first = run(tmp_path / "one", *arguments)
    once = contents(tmp_path / "one")
    assert len(once) == 3 * 3 + 3
    run(tmp_path / "two", *arguments)
    assert contents(tmp_path / "two") == once
    again = run(tmp_path / "one", *arguments, "data.first=1")
    assert sorted(contents(tmp_path / "one")) == sorted(
        ["comparison.csv", "comparison.md", "per_image.csv", *(f"images/{folder}/a.png" for folder in ("0_arm=a", "bicubic", "hq"))]
    )
    assert (first["num_images"], again["num_images"]) == (3, 1)
    assert json.loads(json.dumps(first)) == first


def test_an_evaluation_that_was_stopped_scores_only_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["data=pairs", f"data.root={write_pairs(tmp_path / 'set')}", SMALL[0], SMALL[-1]]
    whole, asked, measure = run(tmp_path / "whole", *arguments), [], Scorer.measure

    def counted(scorer: Scorer, *pictures: torch.Tensor) -> Measured:
        asked.append(pictures)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return measure(scorer, *pictures)

    monkeypatch.setattr(Scorer, "measure", counted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", *arguments)
    figures = run(tmp_path / "stopped", *arguments)
    assert len(asked) == 3 + 1
    assert (figures["psnr"], figures["ssim"]) == (whole["psnr"], whole["ssim"])
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
    assert not (tmp_path / "stopped" / evaluate.SCORES).exists()


def test_restorers_stand_side_by_side_under_their_labels(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "set")
    figures = run(
        tmp_path / "run", "data=pairs", f"data.root={root}", f"restorers={{truth: '{root}/test_HR', plain: bicubic}}", "metrics=psnr_ssim"
    )
    assert figures["restorer"] == "truth"
    assert figures["psnr"] == pytest.approx(80.0)
    assert figures["ssim"] == pytest.approx(1.0)
    assert figures["plain_psnr"] < 60
    with (tmp_path / "run" / "per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["restorer"], row["name"]) for row in rows] == [(label, name) for label in ("truth", "plain") for name in "abc"]
    assert np.mean([float(row["psnr"]) for row in rows[3:]]) == pytest.approx(figures["plain_psnr"], rel=1e-6)


def test_a_report_has_the_originals_beside_what_was_restored(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs")
    arguments = ["data=pairs", f"data.root={pairs}", "metrics=psnr_ssim", "restorer.device=cpu"]
    outputs = Path(shutil.copytree(pairs / "test_HR", tmp_path / "hq"))  # whose own name is the originals' here
    figures = run(tmp_path / "run", *arguments, f"restorers=[bicubic,{outputs}]")
    for name in "abc":
        truth, shown = (np.asarray(Image.open(path / f"{name}.png")) for path in (pairs / "test_HR", tmp_path / "run" / "images" / "hq"))
        assert np.array_equal(truth, shown)
    (tmp_path / "run" / "result.json").write_text(json.dumps(figures | {"task": "evaluate"}))
    columns = choose_pictures(compare(tmp_path / "run").arms).columns
    assert [column.kind for column in columns] == ["bicubic", "output", "hq"]
    run(tmp_path / "run", *arguments, "data.first=1")
    assert [path.name for path in (tmp_path / "run" / "images" / "hq").iterdir()] == ["a.png"]


def test_a_restorer_may_have_options_of_its_own(tmp_path: Path, trained: tuple[Path, dict[str, float]], backbone_folder: Path) -> None:
    folder, root = trained[0], write_pairs(tmp_path / "set")
    entries = f"{{as_it_is: '{folder}', plain: {{checkpoint: '{folder}', color_fix: none}}}}"
    arguments = [
        "data=pairs",
        f"data.root={root}",
        "restorer.device=cpu",
        "restorer.color_fix=adain",
        f"restorer.sources=[{backbone_folder}]",
    ]
    figures = run(tmp_path / "run", *arguments, f"restorers={entries}", "metrics=psnr_ssim")
    assert (figures["color_fix"], figures["plain_color_fix"]) == ("adain", "none")
    assert figures["psnr"] != figures["plain_psnr"]
    assert "- plain: color\\_fix=none." in (tmp_path / "run" / "comparison.md").read_text()


def test_real_esrgan_stands_beside_the_others_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_realesrgan_package(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    root = write_pairs(tmp_path / "set")
    figures = run(tmp_path / "run", "data=pairs", f"data.root={root}", "restorers=[bicubic,realesrgan]", "metrics=psnr_ssim")
    assert 0 < figures["realesrgan_psnr"] < figures["psnr"]  # its random network's
    assert len(list((tmp_path / "run" / "images" / "realesrgan").glob("*.png"))) == 3
    page = (tmp_path / "run" / "comparison.md").read_text()
    assert "| realesrgan |" in page
    assert "- realesrgan: Real-ESRGAN x4plus (ICCVW 2021)" in page
    assert (figures["color_fix"], "Colour fix" in page) == (None, False)


def test_what_is_lost_is_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "set", "abcd")
    (root / "test_LR" / "a.png").unlink()
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    Image.new("RGB", (40, 32)).save(outputs / "b.png")
    Image.new("RGB", (39, 32)).save(outputs / "c.png")
    (tmp_path / "damaged.ckpt").write_bytes(b"nothing")
    restorers = f"restorers=[bicubic,'{outputs}','{tmp_path}/damaged.ckpt']"
    with pytest.raises(Incomplete) as caught:
        run(tmp_path / "run", "data=pairs", f"data.root={root}", restorers, "metrics=psnr_ssim")
    message, figures = str(caught.value), caught.value.figures
    assert "1 pictures of the test set take no part: a (missing" in message
    assert "outputs lacks 2 pictures: c (not restored" in message
    assert "c.png is 39 x 32, expected 40 x 32" in message
    assert "holds no output named 'd'" in message
    assert re.search(r"damaged failed: .*damaged\.ckpt", message)
    assert (figures["num_images"], figures["num_problems"], figures["num_failed"]) == (3, 3, 1)
    assert {"psnr", "outputs_psnr"} <= figures.keys()
    assert "damaged_psnr" not in figures
    assert figures["lost"].startswith("1 pictures of the test set take no part: a (missing")
    assert figures["outputs_lost_by_restorer"].startswith("lacks 2 pictures: c")
    assert figures["damaged_lost_by_restorer"].startswith("failed: ")
    assert "lost_by_restorer" not in figures
    assert "| outputs |  | 1 |" in (tmp_path / "run" / "comparison.md").read_text()
    with (tmp_path / "run" / "unmatched.csv").open() as file:
        lost = [(row["restorer"], row["name"], row["problem"]) for row in csv.DictReader(file)]
    assert lost == [("", "a", "missing"), ("outputs", "c", "not restored"), ("outputs", "d", "not restored")]


def test_outputs_of_this_very_folder_are_not_overwritten(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "set")
    arguments = ["data=pairs", f"data.root={root}", "metrics=psnr_ssim"]
    run(tmp_path / "run", *arguments)
    before = contents(tmp_path / "run")
    with pytest.raises(UserError, match="lies where this run writes its pictures"):
        run(tmp_path / "run", *arguments, f"restorers=['{tmp_path}/run/images/bicubic']")
    assert contents(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["restorers=[]"], "nothing to evaluate"),
        (["data=realsr"], "data.root is not set"),
        (["data=pairs", "data.root=/nowhere", "data.first=0"], "holds no folder test_LR"),
        (["data=folder", "data.root=/nowhere"], "no validation pictures"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(tmp_path, *overrides)


@pytest.mark.skipif(not REALSR.is_dir(), reason="the RealSR test set is not in ../shared/data/realsr")
def test_the_authors_outputs_get_the_authors_scores_beside_the_published_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["data=realsr", f"data.root={REALSR}", "data.first=8", f"restorers=['{REALSR}/results_osediff']", "metrics=basic"]
    figures = run(tmp_path, *arguments)
    log = (REALSR / "results_osediff_metrics.log").read_text()
    with (tmp_path / "per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == figures["num_images"] == 8
    found = [re.search(rf"{re.escape(row['name'])}\.png \| PSNR: ([\d.]+); SSIM: ([\d.]+);.*?NIQE: ([\d.]+)", log) for row in rows]
    theirs = np.array([[float(figure) for figure in match.groups()] for match in found if match])
    ours = np.array([[float(row[key]) for key in ("psnr", "ssim", "niqe")] for row in rows])
    assert np.abs(ours - theirs).max(axis=0) == pytest.approx([0, 0, 0], abs=1e-1)
    assert np.abs(ours - theirs)[:, :2].max() < 1e-4
    assert [figures[key] for key in ("psnr", "ssim", "niqe")] == pytest.approx(theirs.mean(axis=0), abs=0.02)
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("results_osediff", "StableSR", "SinSR", "123.49", "Measured on 8 pictures"))
