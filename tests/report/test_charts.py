"""Charts: round ticks, points where they belong, honest smoothing."""

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1cli.report.charts import Series, interval_chart, label, line_chart, smoothed, thin, ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (-3, 7, [-4, -2, 0, 2, 4, 6, 8]), (0.31, 0.38, [0.3, 0.32, 0.34, 0.36, 0.38])],
)
def test_ticks_are_round_and_enclose_the_values(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high, 5) == pytest.approx(expected)


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.integers(3, 8))
def test_ticks_always_enclose_and_stay_few(low: float, size: float, count: int) -> None:
    found = ticks(low, low + size, count)
    slack = 1e-6 * max(abs(low), size, 1e-99)
    assert found[0] <= low + slack and found[-1] >= low + size - slack
    assert 2 <= len(found) <= count + 2


def test_a_flat_line_lies_inside_its_axis() -> None:
    found = ticks(3e-6, 3e-6, 5)
    assert found[0] < 3e-6 < found[-1]


def test_whole_ticks_count_steps() -> None:
    assert ticks(1, 3, 6, whole=True) == [1, 2, 3]


def test_points_are_drawn_where_their_values_are() -> None:
    svg = line_chart("Reward", [Series("a", [(0, 0.0), (10, 1.0)])])
    (x0, y0), (x1, y1) = [tuple(map(float, p.split(","))) for p in re.search(r'<polyline[^>]*points="([^"]*)"', svg)[1].split()]  # type: ignore[index]
    assert x0 == 48 and x1 == 410 and y0 == 196 and y1 == 10  # left, right, bottom and top of the plot: larger is higher


def test_one_point_is_a_dot_and_names_are_escaped() -> None:
    svg = line_chart("a <b> & c", [Series("<run>", [(1, 2.0)])])
    root = ET.fromstring(svg)
    assert root.find("figcaption").text == "a <b> & c"  # type: ignore[union-attr]
    assert "<run>" not in svg and len(root.findall(".//circle")) == 1


def test_smoothing_keeps_a_trend_and_removes_noise() -> None:
    line = [(float(i), 3.0 * i + 1) for i in range(100)]
    assert [y for _, y in smoothed(line)] == pytest.approx([y for _, y in line])
    noise = [(float(i), (-1.0) ** i) for i in range(100)]
    assert max(abs(y) for _, y in smoothed(noise)[10:-10]) < 0.2


def test_thinning_keeps_the_mean() -> None:
    points = [(float(i), float(i % 7)) for i in range(2000)]
    few = thin(points)
    assert len(few) == 400 and sum(y for _, y in few) / 400 == pytest.approx(sum(y for _, y in points) / 2000)
    assert thin(points[:400]) == points[:400]


def test_intervals_are_on_one_axis() -> None:
    root = ET.fromstring(interval_chart([("base", 0.0, 0.0, 0.1), ("rl", 1.0, 0.9, 1.0)]))
    first, second = root.findall("circle")
    assert (float(first.get("cx", "")), float(second.get("cx", ""))) == (190, 700)
    assert [e.text for e in root.findall("text") if e.get("class") == "value"] == ["0.0%", "100.0%"]


def test_labels() -> None:
    assert [label(v) for v in (0, 0.05, 3e-6, 1200, 12000, 4e7)] == ["0", "0.05", "3e-06", "1200", "12k", "40M"]
