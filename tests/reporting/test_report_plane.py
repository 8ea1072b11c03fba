from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from itertools import combinations, product

import pytest

from osediff_exp.reporting.figures import metrics_of
from osediff_exp.reporting.plane import Point, plane
from osediff_exp.reporting.statistics import mean_interval

PSNR, NIQE = metrics_of([{"psnr": 1.0, "niqe": 1.0}])


def point(label: str, place: int, *seeds: tuple[float, float]) -> Point:
    return Point(label, place, mean_interval([x for x, _ in seeds]), mean_interval([y for _, y in seeds]), list(seeds))


def test_arms_stand_where_their_means_are_with_a_dot_per_seed() -> None:
    svg = plane(PSNR, NIQE, [point("a<b", 0, (25, 6), (26, 6.2)), point("two", 1, (27, 5), (27.2, 5.4))])
    root = ET.fromstring(svg)
    groups = {arm: [group for group in root.iter("g") if group.get("data-arm") == arm] for arm in "01"}
    for parts in groups.values():
        kinds = Counter((one.tag, one.get("class")) for group in parts for one in group)
        assert kinds == {
            ("title", None): 1,
            ("circle", None): 1,
            ("circle", "seed"): 2,
            ("line", "spoke"): 2,
            ("line", "bar"): 2,
            ("text", "name"): 1,
        }
    dots = [next(one for group in parts for one in group.iter("circle") if not one.get("class")) for parts in groups.values()]
    (x1, y1), (x2, y2) = ([float(dot.get(key) or 0) for key in ("cx", "cy")] for dot in dots)
    assert x2 > x1, "a higher PSNR stands further right"
    assert y2 > y1, "a lower NIQE stands lower"
    seeds = [float(one.get("cx") or 0) for group in groups["0"] for one in group.iter("circle") if one.get("class") == "seed"]
    assert sum(seeds) / 2 == pytest.approx(x1, abs=0.1)
    assert "better \u2192" in svg
    assert "\u2190 better" in svg


def test_one_run_has_no_bars() -> None:
    root = ET.fromstring(plane(PSNR, NIQE, [point(f"arm {i}", i, (25 + i, 6.0)) for i in range(6)]))
    assert not [line for line in root.iter("line") if line.get("class") == "bar"]


def test_names_cover_neither_dots_nor_each_other() -> None:
    places = [(25.0, 6.0), (25.1, 6.02), (25.2, 6.0), (25.21, 6.01), (26.5, 7.0), (26.5, 7.01)]
    root = ET.fromstring(plane(PSNR, NIQE, [point(f"an arm {i}", i, place) for i, place in enumerate(places)]))
    boxes = []
    for text in (text for text in root.iter("text") if text.get("class") == "name"):
        left = float(text.get("x") or 0) - (0 if text.get("text-anchor") == "start" else 7 * len(str(text.text)))
        boxes.append((left, float(text.get("y") or 0) - 9, left + 7 * len(str(text.text)), float(text.get("y") or 0)))
    dots = [
        tuple(float(one.get(key) or 0) + by for key, by in (("cx", -6), ("cy", -6), ("cx", 6), ("cy", 6))) for one in root.iter("circle")
    ]
    for one, other in [*combinations(boxes, 2), *product(boxes, dots)]:
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def test_a_wide_interval_of_few_seeds_does_not_set_the_scale() -> None:
    root = ET.fromstring(plane(PSNR, NIQE, [point("two seeds", 0, (25.0, 6.0), (26.0, 7.0))]))
    seeds = sorted(float(one.get("cx") or 0) for one in root.iter("circle") if one.get("class") == "seed")
    assert seeds[1] - seeds[0] > 300, "of 474 pixels"
    bars = [one for one in root.iter("line") if one.get("class") == "bar"]
    assert all(62 <= float(one.get(key) or 0) <= 536 for one in bars for key in ("x1", "x2")), "cut at the frame"


def test_nothing_to_show_is_nothing() -> None:
    assert plane(PSNR, NIQE, []) == ""
