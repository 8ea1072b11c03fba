"""Quality against seconds per picture."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sweep_folders import make_run, make_seed_sweep, result

from osediff_exp.reporting.comparison import ReportSettings, compare
from osediff_exp.reporting.cost_planes import cost_planes
from osediff_exp.reporting.curves import log_ticks
from osediff_exp.reporting.writing import write_comparison

STEPS = {"stablesr": {1: 0.2, 5: 0.6, 50: 5.0}, "resshift": {1: 0.1, 5: 0.4}, "osediff": {1: 0.12}}


def evaluations(sweep: Path) -> Path:
    """Write a sweep of task=evaluate: three checkpoints in several numbers of steps, ST-LPIPS falling with log10(steps)."""
    arms = [(method, steps, seconds) for method, times in STEPS.items() for steps, seconds in times.items()]
    for number, (method, steps, seconds) in enumerate(arms):
        figures = result(24.0, 0.7, 6.0, 0.45 - 0.05 * math.log10(steps), restore_seconds=seconds, sampling_steps=steps, method=method)
        settings: dict[str, Any] = {"checkpoint": f"runs/{method}", "restorer": {"steps": steps}, "seed": 1}
        make_run(sweep, number, [f"checkpoint=runs/{method}", f"restorer.steps={steps}"], result=figures, config=settings)
    return sweep


def texts(root: ET.Element, kind: str) -> list[str]:
    return ["".join(one.itertext()) for one in root.iter("text") if one.get("class") == kind]


def test_a_method_over_its_steps_is_a_line_and_one_of_one_step_a_point(tmp_path: Path) -> None:
    planes = cost_planes(compare(evaluations(tmp_path)))
    assert [one.title for one in planes] == ["ST-LPIPS", "NIQE", "PSNR-Y", "SSIM-Y"]
    root = ET.fromstring(planes[0].svg)
    corners = [[tuple(map(float, pair.split(","))) for pair in str(line.get("points")).split()] for line in root.iter("polyline")]
    assert [len(line) for line in corners] == [3, 2]
    assert sorted(texts(root, "name")) == sorted(["1", "5", "StableSR, 50 steps", "1", "ResShift, 5 steps", "OSEDiff"])
    assert [str(line.get("class")) for line in root.iter("polyline")] == ["s0", "s1"]
    dots = [str(group.get("class")) for group in root.iter("g") for one in group.iter("circle")]
    assert dots == ["s0"] * 3 + ["s1"] * 2 + ["s2"], "a colour for each line"
    (x1, y1), (x2, y2), (x3, y3) = corners[0]
    assert (x3 - x2) / (x2 - x1) == pytest.approx(math.log(5.0 / 0.6) / math.log(0.6 / 0.2), rel=0.01), "seconds in decades"
    assert (y3 - y2) / (y2 - y1) == pytest.approx(math.log(10) / math.log(5), rel=0.02)
    assert y3 > y1, "lower stands lower"


def test_restorers_of_one_evaluation_are_no_line_unless_one_network_takes_several_steps(tmp_path: Path) -> None:
    figures = {"task": "evaluate", "restorer": "a", "restore_seconds": 0.1, "psnr": 25.0, "sampling_steps": 1, "method": "m"}
    figures |= {"b_restore_seconds": 2.0, "b_psnr": 26.0, "b_sampling_steps": 20, "b_method": "n"}
    make_run(tmp_path / "one", 0, ["restorers=x"], result=figures, config={"restorers": ["a", "b"]})
    assert sorted(texts(ET.fromstring(cost_planes(compare(tmp_path / "one"))[0].svg), "name")) == ["a", "b"]
    same = {"training": "f" * 16, "b_training": "f" * 16, "b_method": "m"}
    make_run(tmp_path / "two", 0, ["restorers=x"], result=figures | same, config={"restorers": ["a", "b"]})
    assert sorted(texts(ET.fromstring(cost_planes(compare(tmp_path / "two"))[0].svg), "name")) == ["1", "m, 20 steps"]


def test_bicubic_is_a_line_across_where_it_leaves_the_arms_room_else_it_is_named_at_the_edge(tmp_path: Path) -> None:
    near, far = (ET.fromstring(one.svg) for one in cost_planes(compare(evaluations(tmp_path)))[:2])
    assert texts(near, "level") == ["bicubic 0.41"]
    assert len([line for line in near.iter("line") if line.get("class") == "level"]) == 1
    make_run(tmp_path, 9, ["checkpoint=runs/osediff", "restorer.steps=2"], result=result(1.0, 0.1, 6.1, 0.449, restore_seconds=0.2))
    far = ET.fromstring(cost_planes(compare(tmp_path))[1].svg)
    assert texts(far, "level") == ["bicubic 8.1, above"]
    assert not [line for line in far.iter("line") if line.get("class") == "level"]


def test_arms_that_cost_the_same_have_no_plane(tmp_path: Path) -> None:
    comparison = write_comparison(make_seed_sweep(tmp_path))
    assert cost_planes(comparison) == []
    assert not comparison.cost_plane.exists()
    assert "seconds per picture" not in comparison.markdown.read_text() + comparison.page.read_text().split("<script>")[0]


def test_the_page_offers_every_quality_and_markdown_shows_the_first(tmp_path: Path) -> None:
    comparison = write_comparison(evaluations(tmp_path), ReportSettings(title="t"))
    page = comparison.page.read_text()
    assert page.count('<figure data-quality="') == page.count('<option value="') == 4
    assert f"](<{comparison.cost_plane.name}>)" in comparison.markdown.read_text()
    root = ET.parse(comparison.cost_plane).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "--s0: #0072b2" in "".join(root.itertext())


def test_seeds_are_dots_and_an_interval_that_reaches_below_0_seconds_is_cut(tmp_path: Path) -> None:
    for number, (steps, seed, seconds) in enumerate([(1, 1, 0.1), (1, 2, 0.3), (5, 1, 1.0), (5, 2, 1.1)]):
        settings: dict[str, Any] = {"restorer": {"steps": steps}, "seed": seed}
        figures = result(24.0 + seed, 0.7, 6.0, 0.4, restore_seconds=seconds, sampling_steps=steps)
        make_run(tmp_path, number, [f"restorer.steps={steps}", f"seed={seed}"], result=figures, config=settings)
    root = ET.fromstring(cost_planes(compare(tmp_path))[0].svg)
    assert len([one for one in root.iter("circle") if one.get("class") == "seed"]) == 4
    assert all(62 <= float(one.get(key) or 0) <= 536 for one in root.iter("line") if one.get("class") == "bar" for key in ("x1", "x2"))


def test_log_ticks_are_round_numbers_inside() -> None:
    assert log_ticks(0.15, 12) == [0.2, 0.5, 1, 2, 5, 10]
    assert log_ticks(0.5, 3000) == [1, 10, 100, 1000]
    assert log_ticks(11, 24) == [15, 20]


def test_an_evaluation_s_own_pictures_figures_and_inputs_are_told_from_the_others(tmp_path: Path) -> None:
    """Its folder has rows and pictures of every restorer: each is an arm, bicubic their reference; seconds are no quality."""
    for number, psnr in enumerate((24.0, 25.0)):
        figures: dict[str, Any] = {
            "task": "evaluate",
            "restorer": "mine",
            "psnr": psnr,
            "bicubic_psnr": 23.0,
            "restore_seconds": 1.0 + number,
        }
        run = make_run(
            tmp_path, number, [f"restorer.steps={number + 1}"], result=figures | {"bicubic_restore_seconds": 0.01 * (1 + number)}
        )
        lines = ["restorer,name,psnr", *(f"mine,{name},{psnr + place}" for place, name in enumerate("abcdef"))]
        (run / "per_image.csv").write_text("\n".join([*lines, *(f"bicubic,{name},23.0" for name in "abcdef"), "other,a,1.0"]))
        for label in ("mine", "bicubic", "other"):
            (run / "images" / label).mkdir(parents=True)
            Image.new("RGB", (8, 8), (number, len(label), 0)).save(run / "images" / label / "a.png")
    comparison = compare(tmp_path)
    assert [metric.key for metric in comparison.metrics] == ["psnr"]
    assert [(row.label, row.figures) for row in comparison.references] == [("bicubic", {"psnr": 23.0})]
    first = comparison.arms[0].runs[0]
    assert first.per_image["b"] == {"psnr": 25.0, "bicubic_psnr": 23.0}
    assert [path.parent.name for path in first.pictures["output"].values()] == ["mine"]
    assert [row.label for row in comparison.arms] == ["steps=1: mine", "steps=1: other", "steps=2: mine", "steps=2: other"]
    assert {label: one.interval.mean for (label, _), one in comparison.differences.items()} == {"steps=2: mine": pytest.approx(1.0)}
