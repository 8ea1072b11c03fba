"""task=score: the published figures of the authors' own outputs, and what is said about files and metrics that cannot be scored."""

from __future__ import annotations

import csv
import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image

from osediff_exp.errors import Incomplete, UserError
from osediff_exp.metrics.niqe import niqe
from osediff_exp.tasks import score

CONF = Path(__file__).parents[2] / "conf"
REALSR = Path(__file__).parents[2].parent / "shared" / "data" / "realsr"
NUM_IMAGES = 8


def configuration(pred: Path, gt: Path, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", ["task=score", f"pred={pred}", f"gt={gt}", *overrides])


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three pictures of 128 px and slightly noisy outputs."""
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        target = rng.integers(0, 256, (128, 128, 3))
        for folder, image in (("gt", target), ("pred", target + rng.integers(-9, 10, target.shape))):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(tmp_path / folder / f"{name}.png")
    return tmp_path / "pred", tmp_path / "gt"


@pytest.mark.skipif(not REALSR.is_dir(), reason="needs the authors' RealSR outputs in ../shared/data/realsr")
def test_the_published_figures_of_the_first_pictures(tmp_path: Path) -> None:
    log = (REALSR / "results_osediff_metrics.log").read_text()
    for kind in ("results_osediff", "test_HR"):
        (tmp_path / kind).mkdir()
        for path in sorted((REALSR / kind).iterdir())[:NUM_IMAGES]:
            (tmp_path / kind / path.name).symlink_to(path)
    figures = score.run(configuration(tmp_path / "results_osediff", tmp_path / "test_HR"), tmp_path)
    rows = table(tmp_path / "per_image.csv")
    assert figures["num_images"] == len(rows) == NUM_IMAGES
    theirs = []
    for row in rows:
        found = re.search(rf"{row['name']}\.png \| PSNR: ([\d.]+); SSIM: ([\d.]+);.*?NIQE: ([\d.]+)", log)
        assert found is not None
        theirs.append([float(figure) for figure in found.groups()])
        assert abs(float(row["psnr"]) - theirs[-1][0]) < 1e-3
    for key, expected, tolerance in zip(("psnr", "ssim", "niqe"), np.mean(theirs, axis=0), (1e-4, 2e-4, 0.02), strict=True):
        assert figures[key] == pytest.approx(expected, abs=tolerance)
        assert figures[key] == pytest.approx(np.mean([float(row[key]) for row in rows]), rel=1e-7)


def test_a_whole_job_is_flat_and_lists_no_problem(folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "unmatched.csv").write_text("of an earlier run")
    figures = score.run(configuration(*folders), tmp_path)
    assert json.loads(json.dumps(figures)) == figures
    assert [figures[f"num_{kind}"] for kind in ("images", "missing", "extra", "missized", "unreadable")] == [3, 0, 0, 0, 0]
    assert figures["missing"] is None
    assert not (tmp_path / "unmatched.csv").exists()
    printed = capsys.readouterr().out
    assert f"{figures['psnr']:.2f}" in printed
    assert "PSNR-Y" in printed


def test_the_originals_are_told_from_others_of_the_same_names(folders: tuple[Path, Path], tmp_path: Path) -> None:
    pred, gt = folders
    originals = score.run(configuration(pred, gt), tmp_path)["originals"]
    assert re.fullmatch(r"[0-9a-f]{16}", str(originals))
    assert score.run(configuration(gt, gt), tmp_path)["originals"] == originals
    assert score.run(configuration(gt, pred), tmp_path)["originals"] != originals


def test_every_file_that_cannot_be_scored_is_listed_and_the_rest_counts(folders: tuple[Path, Path], tmp_path: Path) -> None:
    pred, gt = folders
    whole = score.run(configuration(pred, gt), tmp_path)
    Image.new("RGB", (128, 64)).save(pred / "b.png")
    (pred / "c.png").write_text("no picture")
    for name in ("d_x4", "e_x4"):
        Image.new("RGB", (128, 128)).save(pred / f"{name}.png")
    Image.new("RGB", (128, 128)).save(gt / "d.png")
    with pytest.raises(Incomplete) as error:
        score.run(configuration(pred, gt), tmp_path)
    figures, message = error.value.figures, str(error.value)
    assert [figures[f"num_{kind}"] for kind in ("images", "missing", "extra", "missized", "unreadable")] == [1, 1, 2, 1, 1]
    assert figures["psnr"] != whole["psnr"]
    assert [row["name"] for row in table(tmp_path / "per_image.csv")] == ["a"]
    problems = table(tmp_path / "unmatched.csv")
    assert [(row["name"], row["problem"]) for row in problems] == [
        ("b", "mis-sized"),
        ("c", "unreadable"),
        ("d", "missing"),
        ("d_x4", "extra"),
        ("e_x4", "extra"),
    ]
    assert "\n" not in message
    assert all(text in message for text in ("1 mis-sized", "128 x 64", "not an image", "unmatched.csv", "add pred_suffix=_x4"))


def test_a_suffix_that_is_asked_for_makes_the_names_match(folders: tuple[Path, Path], tmp_path: Path) -> None:
    pred, gt = folders
    for path in list(pred.iterdir()):
        path.rename(pred / f"{path.stem}_x4.png")
    with pytest.raises(UserError, match=r"3 more would match without '_x4'.*add pred_suffix=_x4"):
        score.run(configuration(pred, gt), tmp_path)
    assert score.run(configuration(pred, gt, "pred_suffix=_x4"), tmp_path)["num_images"] == 3


def test_outputs_of_another_size_only_are_refused_and_listed(folders: tuple[Path, Path], tmp_path: Path) -> None:
    pred, gt = folders
    for path in pred.iterdir():
        Image.new("RGB", (32, 32)).save(path)
    with pytest.raises(UserError, match=r"none of the 3 matching pictures can be scored: mis-sized: .*32 x 32.*128 x 128") as error:
        score.run(configuration(pred, gt), tmp_path)
    assert not isinstance(error.value, Incomplete)
    assert len(table(tmp_path / "unmatched.csv")) == 3


def test_a_metric_that_cannot_be_had_is_missing_with_its_reason(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_weights(name: str) -> None:
        raise UserError(f"the weights of {name} cannot be had (URLError): run once with a network")

    monkeypatch.setattr("osediff_exp.metrics.pyiqa_metrics.pyiqa_network", no_weights)
    musiq = "++metrics.musiq={_target_: osediff_exp.metrics.pyiqa_metrics.PyiqaMetric, name: musiq}"
    with caplog.at_level(logging.WARNING), pytest.raises(Incomplete, match="3 pictures are scored, but without figures: musiq") as error:
        score.run(configuration(*folders, musiq), tmp_path)
    assert error.value.figures["musiq"] is None
    assert error.value.figures["missing"] == "musiq: the weights of musiq cannot be had (URLError): run once with a network"
    assert isinstance(error.value.figures["psnr"], float)
    assert "musiq is missing: the weights of musiq cannot be had" in caplog.text
    with pytest.raises(UserError, match="no metric is left to score with"):
        score.run(configuration(*folders, musiq, "metrics.psnr=null", "metrics.ssim=null", "metrics.niqe=null"), tmp_path)


def test_a_metric_that_fails_at_a_picture_does_not_cost_the_others(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def sometimes(images: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise MemoryError("no memory")
        return niqe(images)

    monkeypatch.setattr("osediff_exp.metrics.niqe.niqe", sometimes)
    with pytest.raises(
        Incomplete, match=r"3 pictures are scored, but niqe failed at 1 of 3 pictures \(.\): MemoryError: no memory"
    ) as error:
        score.run(configuration(*folders), tmp_path)
    assert (error.value.figures["num_images"], error.value.figures["num_images_niqe"]) == (3, 2)
    assert sorted(row["niqe"] == "" for row in table(tmp_path / "per_image.csv")) == [False, False, True]
    assert "MemoryError" in (tmp_path / "niqe.error.log").read_text()


def test_a_figure_of_fewer_pictures_says_of_how_many(folders: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for folder in folders:
        Image.new("RGB", (96, 96), "grey").save(folder / "flat.png")
        Image.new("RGB", (64, 64), "grey").save(folder / "small.png")
    with caplog.at_level(logging.WARNING):
        figures = score.run(configuration(*folders), tmp_path)
    assert (figures["num_images"], figures["num_images_niqe"]) == (5, 3)
    assert "niqe: no figure for 2 of 5 pictures (flat, small)" in caplog.text
    assert [row["niqe"] == "" for row in table(tmp_path / "per_image.csv")] == [False, False, False, True, True]


def test_a_metric_without_a_figure_at_all_is_no_whole_job(tmp_path: Path) -> None:
    for folder in (folders := [tmp_path / "pred", tmp_path / "gt"]):
        folder.mkdir()
        Image.new("RGB", (64, 64), "grey").save(folder / "small.png")
    with pytest.raises(Incomplete, match="1 pictures are scored, but niqe has no figure for any of 1 pictures: .*96") as caught:
        score.run(configuration(*folders), tmp_path)
    assert caught.value.figures["psnr"] == pytest.approx(80.0)


def test_a_device_that_is_not_there_is_refused_in_one_line(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="device=abacus is not on this machine"):
        score.run(configuration(*folders, "device=abacus"), tmp_path)
