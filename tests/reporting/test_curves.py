from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import pytest

from osediff_exp.reporting.curves import Axis, Series, buckets, plot, ticks


def test_buckets_keep_mean_and_extremes_and_leave_out_what_is_not_finite() -> None:
    points = [(float(step), float(step % 10)) for step in range(1, 1001)]
    found = buckets([*points, (1001.0, math.nan), (1002.0, math.inf)], max_points=100)
    assert len(found) == 100
    assert all((bucket.mean, bucket.low, bucket.high) == (4.5, 0.0, 9.0) for bucket in found)
    assert found[0].step == 5.5
    assert [bucket.mean for bucket in buckets(points[:3])] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (0.13, 0.41, [0.2, 0.3, 0.4]), (-3, 3, [-2, 0, 2]), (995, 1005, [996, 998, 1000, 1002, 1004])],
)
def test_ticks_are_round_and_inside(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_axis_maps_ends_to_ends_and_decades_evenly() -> None:
    axis = Axis(1, 100, 200, 0, log=True)
    assert [axis(value) for value in (1, 10, 100)] == pytest.approx([200, 100, 0])
    assert Axis(0, 4, 50, 450)(1) == 150


def test_plot_draws_one_group_per_arm_with_finite_points() -> None:
    svg = plot("a<b", [Series("one & two", 0, [(1, 1.0), (2, 3.0)]), Series("empty", 1, [(1, math.nan)]), Series("nine", 9, [(1, 2.0)])])
    root = ET.fromstring(svg)
    assert [(group.get("data-arm"), group.get("class")) for group in root.iter("g")] == [("0", "s0"), ("9", "s1 again")]
    assert "a<b" in (root.get("aria-label") or "")
    line = next(root.iter("polyline")).get("points") or ""
    (_, y1), (_, y2) = ([float(v) for v in point.split(",")] for point in line.split())
    assert y2 < y1, "a higher value stands higher on the page"


def test_plot_of_nothing_is_nothing_and_of_a_constant_is_flat() -> None:
    assert plot("loss", [Series("a", 0, [(1, math.nan)])]) == ""
    svg = plot("lr", [Series("a", 0, [(1, 5e-5), (9, 5e-5)])])
    labels = re.findall(r'text-anchor="end">([^<]+)<', svg)
    assert "5e-5" in labels
    assert len(labels) == len(set(labels))


def test_a_figure_over_many_decades_gets_a_logarithmic_axis() -> None:
    assert "logarithmic" in plot("norm", [Series("a", 0, [(1, 1e3), (2, 1e-2)])])
    assert "logarithmic" not in plot("norm", [Series("a", 0, [(1, 1e3), (2, -1.0)])])
