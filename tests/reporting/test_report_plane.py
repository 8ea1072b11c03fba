from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from osediff_exp.reporting.figures import metrics_of
from osediff_exp.reporting.plane import Point, plane
from osediff_exp.reporting.statistics import mean_interval

PSNR, NIQE = metrics_of([{"psnr": 1.0, "niqe": 1.0}])


def point(label: str, place: int, *seeds: tuple[float, float]) -> Point:
    return Point(label, place, mean_interval([x for x, _ in seeds]), mean_interval([y for _, y in seeds]), list(seeds))


def test_arms_stand_where_their_means_are_with_a_dot_per_seed() -> None:
    svg = plane(PSNR, NIQE, [point("a<b", 0, (25, 6), (26, 6.2)), point("two", 1, (27, 5), (27.2, 5.4))])
    groups = list(ET.fromstring(svg).iter("g"))
    assert [(group.get("data-arm"), len(list(group.iter("circle"))), len(list(group.iter("line")))) for group in groups] == [
        ("0", 3, 2),
        ("1", 3, 2),
    ]
    dots = [list(group.iter("circle"))[-1] for group in groups]
    (x1, y1), (x2, y2) = ([float(dot.get(key) or 0) for key in ("cx", "cy")] for dot in dots)
    assert x2 > x1, "a higher PSNR stands further right"
    assert y2 > y1, "a lower NIQE stands lower"
    seeds = [float(circle.get("cx") or 0) for circle in list(groups[0].iter("circle"))[:-1]]
    assert sum(seeds) / 2 == pytest.approx(x1, abs=0.1)
    assert "better \u2192" in svg
    assert "\u2190 better" in svg


def test_one_run_has_no_bars_and_names_do_not_cover_each_other() -> None:
    svg = plane(PSNR, NIQE, [point(f"arm {i}", i, (25 + i, 6.0)) for i in range(6)])
    root = ET.fromstring(svg)
    heights = sorted(float(text.get("y") or 0) for text in root.iter("text") if text.get("class") == "name")
    assert min(b - a for a, b in pairwise(heights)) >= 14.9
    assert not [line for line in root.iter("line") if line.get("class") == "bar"]


def test_nothing_to_show_is_nothing() -> None:
    assert plane(PSNR, NIQE, []) == ""
