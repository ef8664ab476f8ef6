"""Charts as inline SVG, drawn here so that a page needs no library and no network.

    line_chart("Reward", [Series("first", [(1, .2), (2, .4)]), Series("second", [(1, .1)])])
    interval_chart([("base", 0.01, 0.0, 0.03), ("rl", 0.55, 0.48, 0.62)])

Colours are CSS variables of the page (`--line-0` ...), so charts follow its light or dark theme. Sizes are in SVG units of about a pixel.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from statistics import fmean

COLOURS = 8
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 420, 220, 48, 10, 10, 24
MOST_POINTS = 400  # more than there are pixels to draw them
SMOOTH_FROM = 40  # from this many points on, a running mean is drawn over the raw values

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One line: (x, y) in the order of x, all finite. colour: which of the page's line colours."""

    name: str
    points: Sequence[Point]
    colour: int = 0


def line_chart(title: str, series: Sequence[Series]) -> str:
    """A figure with one line a series. Long series are averaged down to a few hundred points and get a smoothed line over the raw one."""
    drawn = [Series(s.name, thin(s.points), s.colour) for s in series if s.points]
    xs = [x for s in drawn for x, _ in s.points]
    ys = [y for s in drawn for _, y in s.points]
    x_ticks, y_ticks = ticks(min(xs), max(xs), 6, whole=True), ticks(min(ys), max(ys), 5)
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1)
    y_low, y_high = min(y_ticks[0], min(ys)), max(y_ticks[-1], max(ys))

    def place(point: Point) -> tuple[float, float]:
        x = LEFT + (point[0] - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)
        y = HEIGHT - BOTTOM - (point[1] - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)
        return round(x, 1), round(y, 1)

    parts = []
    for tick in y_ticks:
        y = place((x_low, tick))[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{label(tick)}</text>')
    for tick in x_ticks:
        if x_low <= tick <= x_high:
            parts.append(f'<text class="tick" x="{place((tick, y_low))[0]}" y="{HEIGHT - 7}" text-anchor="middle">{label(tick)}</text>')
    for s in drawn:
        smooth = len(s.points) >= SMOOTH_FROM
        parts.append(_path([place(p) for p in s.points], s.colour, "raw" if smooth else "main"))
        if smooth:
            parts.append(_path([place(p) for p in smoothed(s.points)], s.colour, "main"))
    box = {"left": LEFT, "right": RIGHT, "low": x_low, "high": x_high, "width": WIDTH}
    data = {"box": box, "series": [{"name": s.name, "points": [[x, significant(y)] for x, y in s.points]} for s in drawn]}
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}" data-chart="{escape(json.dumps(data))}">'
        f'{"".join(parts)}<line class="cursor" y1="{TOP}" y2="{HEIGHT - BOTTOM}" x1="0" x2="0"/></svg><output></output></figure>'
    )


def interval_chart(rows: Sequence[tuple[str, float, float, float]]) -> str:
    """Dots with their intervals, one line a row (label, mean, low, high), all shares of 1, on an axis from 0% to 100%."""
    wide, left, step = 760, 190, 30
    height = step * len(rows) + 30

    def at(share: float) -> float:
        return round(left + share * (wide - left - 60), 1)

    parts = []
    for tick in range(0, 101, 20):
        x = at(tick / 100)
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="4" y2="{height - 24}"/>')
        parts.append(f'<text class="tick" x="{x}" y="{height - 8}" text-anchor="middle">{tick}%</text>')
    for i, (name, mean, low, high) in enumerate(rows):
        y = step * i + 20
        short = name if len(name) <= 26 else "…" + name[-25:]
        whole = f"<title>{escape(name)}</title>"
        parts.append(f'<text class="name" x="{left - 12}" y="{y + 4}" text-anchor="end">{escape(short)}{whole}</text>')
        parts.append(f'<line class="span" x1="{at(low)}" x2="{at(high)}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="dot" cx="{at(mean)}" cy="{y}" r="4.5"/>')
        parts.append(f'<text class="value" x="{at(high) + 8}" y="{y + 4}">{100 * mean:.1f}%</text>')
    return f'<svg class="intervals" viewBox="0 0 {wide} {height}" role="img" aria-label="pass@1 with 95% intervals">{"".join(parts)}</svg>'


def _path(places: Sequence[tuple[float, float]], colour: int, kind: str) -> str:
    style = f'class="{kind}" style="--line: var(--line-{colour % COLOURS})"'
    if len(places) == 1:
        return f'<circle {style} cx="{places[0][0]}" cy="{places[0][1]}" r="3"/>'
    return f'<polyline {style} points="{" ".join(f"{x},{y}" for x, y in places)}"/>'


def thin(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most `most` points: the means of equally many neighbours each."""
    size = math.ceil(len(points) / most)
    if size < 2:
        return list(points)
    chunks = [points[i : i + size] for i in range(0, len(points), size)]
    return [(fmean(x for x, _ in chunk), fmean(y for _, y in chunk)) for chunk in chunks]


def smoothed(points: Sequence[Point], share: float = 0.04) -> list[Point]:
    """Each point moved to the straight line fitted (least squares) to its neighbours, `share` of all points to either side.

    A trend stays itself up to both ends; an exponential mean would lag behind it. x must differ between points.
    """
    reach, out = max(2, round(share * len(points))), []
    for i, (x, _) in enumerate(points):
        near = points[max(0, i - reach) : i + reach + 1]
        mean_x, mean_y = fmean(p[0] for p in near), fmean(p[1] for p in near)
        slope = sum((p[0] - mean_x) * (p[1] - mean_y) for p in near) / sum((p[0] - mean_x) ** 2 for p in near)
        out.append((x, mean_y + slope * (x - mean_x)))
    return out


def ticks(low: float, high: float, count: int, *, whole: bool = False) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) from at or below `low` to at or above `high`."""
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-99):  # flat, up to rounding
        low, high = low - (abs(low) / 2 or 0.5), low + (abs(low) / 2 or 0.5)
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    if whole:
        step = max(1.0, step)
    return [float(f"{i * step:.12g}") for i in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


def label(value: float) -> str:
    """A tick in few characters: 0.05, 3e-06, 1.2k, 40M."""
    size = abs(value)
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            divisor = 1e3 if unit == "k" else limit
            return f"{value / divisor:g}{unit}"
    return "0" if value == 0 else f"{value:g}"


def significant(value: float) -> float:
    """Five significant digits: enough to read, half the size of the page."""
    return float(f"{value:.5g}")
