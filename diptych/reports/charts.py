"""Curves over the steps of a run, as HTML and inline SVG without scripts.

The drawing is stretched to the width that there is, with lines of constant thickness; the labels stand beside it as
text, and so keep their size on a telephone and on a wide screen.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

WIDTH, HEIGHT = 1000, 360  # of the drawing's own coordinates
_POINTS = 400  # of a drawn line; the lowest and the highest of each part are kept
_BANDS = 80  # places where the pointer is told the values
_CORNER = 3  # lines at most whose values stand in the corner
_DECADES = 1.5  # of the values, from which on a positive quantity is drawn on a logarithmic axis

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Series:
    """One line. number: of its colour, from 0. points: (step, value), by step."""

    name: str
    number: int
    points: Points


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Lines over steps.

    note: what the number in the corner and the axis mean, unit included.
    show: a value as text. mark: a level with its name, such as that of guessing.
    noisy: draw the values faintly and their moving mean over them. spread: allow a logarithmic axis.
    from_zero: begin the axis there. dots: mark each point, where there are few.
    corner: which value stands in the corner: the last, the mean of the last tenth of the steps, or the highest.
    """

    title: str
    note: str
    series: Sequence[Series]
    show: Callable[[float], str]
    mark: tuple[str, float] | None = None
    noisy: bool = False
    spread: bool = False
    from_zero: bool = False
    dots: bool = False
    corner: Literal["last", "mean", "highest"] = "last"


@dataclass(frozen=True)
class _Axis:
    """From values to 0..1, upwards."""

    low: float
    high: float
    logarithmic: bool
    ticks: Sequence[float]

    def at(self, value: float) -> float:
        if self.logarithmic:
            value, low, high = (math.log10(number) for number in (value, self.low, self.high))
        else:
            low, high = self.low, self.high
        return min(1.0, max(0.0, (value - low) / (high - low)))


def draw(chart: Chart, last: float) -> str:
    """The chart as a figure. last: the step at the right end."""
    values = [value for series in chart.series for _, value in series.points]
    levels = values + ([chart.mark[1]] if chart.mark else []) + ([0.0] if chart.from_zero else [])
    logarithmic = chart.spread and min(values) > 0 and math.log10(max(values) / min(values)) > _DECADES
    axis = _logarithmic(min(values), max(values)) if logarithmic else _linear(min(levels), max(levels))
    lines = "".join(_line(series, chart, axis, last) for series in chart.series)
    corner = "".join(
        f'<b class="c{series.number}">{escape(chart.show(_now(series, chart)))}</b>'
        for series in chart.series
    )
    note = f"{chart.note}{', logarithmic' if logarithmic else ''}"
    return (
        f'<figure class="chart"><figcaption><h3>{escape(chart.title)}</h3><p>{corner}</p>'
        f"<small>{escape(note)}</small></figcaption>"
        f'<div class="plot" role="img" aria-label="{escape(_spoken(chart))}">'
        f'<div class="y" aria-hidden="true">{_labels(axis, chart.show)}</div>'
        f'<div class="area"><svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" aria-hidden="true">'
        f"{_grid(axis)}{_mark(chart, axis)}{lines}{_bands(chart, last)}</svg>{_mark_text(chart, axis)}</div>"
        f'<div class="x" aria-hidden="true">{_steps(last)}</div></div></figure>'
    )


def smoothed(points: Points) -> list[tuple[float, float]]:
    """The mean over a twentieth of the run around each step."""
    reach = max(1, len(points) // 40)
    total = [0.0]
    for _, value in points:
        total.append(total[-1] + value)
    result = []
    for place, (step, _) in enumerate(points):
        start, stop = max(0, place - reach), min(len(points), place + reach + 1)
        result.append((step, (total[stop] - total[start]) / (stop - start)))
    return result


def thinned(points: Points, most: int = _POINTS) -> list[tuple[float, float]]:
    """At most about `most` points that draw the same line: the lowest and the highest of each part of the run."""
    if len(points) <= most:
        return list(points)
    parts = most // 2
    chosen: list[tuple[float, float]] = [points[0]]
    for part in range(parts):
        near = points[part * len(points) // parts : (part + 1) * len(points) // parts]
        ends = {min(near, key=lambda point: point[1]), max(near, key=lambda point: point[1])}
        chosen += sorted(ends)
    return [*chosen, points[-1]]


def nice_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from at most `low` to at least `high`: multiples of 1, 2 or 5 times a power of ten."""
    size = max(abs(low), abs(high))
    if size < 1e-300:  # nothing but zeros
        low, high = 0.0, 1.0
    elif high - low <= 1e-9 * size:  # a constant stands in the middle
        low, high = sorted((0.0, 2 * high))
    span = high - low
    for exponent in range(math.floor(math.log10(span / most)) - 1, math.ceil(math.log10(span)) + 2):
        for factor in (1, 2, 5):
            step = factor * 10.0**exponent
            first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
            if last - first < most:
                last = max(last, first + 1)
                return [float(f"{number * step:.12g}") for number in range(first, last + 1)]
    raise AssertionError(f"no ticks between {low} and {high}")


def _linear(low: float, high: float) -> _Axis:
    # From zero, unless that would press the curve into the upper half.
    if 0 < low < 0.5 * high:
        low = 0.0
    ticks = nice_ticks(low, high)
    return _Axis(ticks[0], ticks[-1], False, ticks)


def _logarithmic(low: float, high: float) -> _Axis:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    last = max(last, first + 1)
    every = math.ceil((last - first) / 5)
    return _Axis(10.0**first, 10.0**last, True, [10.0**power for power in range(first, last + 1, every)])


def _now(series: Series, chart: Chart) -> float:
    """The value in the corner."""
    values = [value for _, value in series.points]
    if chart.corner == "highest":
        return max(values)
    if chart.corner == "mean":
        late = [value for step, value in series.points if step >= 0.9 * series.points[-1][0]]
        return math.fsum(late) / len(late)
    return values[-1]


def _spoken(chart: Chart) -> str:
    parts = []
    for series in chart.series:
        points = smoothed(series.points) if chart.noisy else series.points
        name = f"{series.name}: " if len(chart.series) > 1 else ""
        parts.append(
            f"{name}from {chart.show(points[0][1])} at step {points[0][0]:,.0f} "
            f"to {chart.show(points[-1][1])} at step {points[-1][0]:,.0f}"
        )
    return f"{chart.title}: {'; '.join(parts)}"


def _line(series: Series, chart: Chart, axis: _Axis, last: float) -> str:
    def path(points: Points) -> str:
        placed = (
            f"{WIDTH * step / last:.1f} {HEIGHT * (1 - axis.at(value)):.1f}"
            for step, value in thinned(points)
        )
        return "M" + "L".join(placed)

    colour = f"c{series.number}"
    if chart.noisy and len(series.points) > 3:
        return (
            f'<path class="raw {colour}" d="{path(series.points)}"/>'
            f'<path class="line {colour}" d="{path(smoothed(series.points))}"/>'
        )
    drawn = f'<path class="line {colour}" d="{path(series.points)}"/>'
    if chart.dots or len(series.points) == 1:
        # A line of no length with round ends stays a circle however the drawing is stretched.
        drawn += "".join(f'<path class="dot {colour}" d="{path([point])}h0"/>' for point in series.points)
    return drawn


def _grid(axis: _Axis) -> str:
    heights = (HEIGHT * (1 - axis.at(tick)) for tick in axis.ticks)
    return "".join(f'<path class="grid" d="M0 {height:.1f}H{WIDTH}"/>' for height in heights)


def _labels(axis: _Axis, show: Callable[[float], str]) -> str:
    return "".join(
        f'<span style="bottom:{100 * axis.at(tick):.2f}%">{escape(_tick_text(tick, axis, show))}</span>'
        for tick in axis.ticks
    )


def _tick_text(tick: float, axis: _Axis, show: Callable[[float], str]) -> str:
    if show(1.0).endswith("%"):
        return f"{100 * tick:.6g} %"
    if axis.logarithmic or not 0.001 <= axis.high < 1e6:
        return "0" if tick == 0 else f"{tick:.3g}"
    return f"{tick:,.10g}"


def _steps(last: float) -> str:
    ticks = [tick for tick in nice_ticks(0, last) if tick <= last and tick.is_integer()]
    # A label at the right end must not reach beyond the panel.
    return "".join(
        f'<span style="left:{100 * tick / last:.2f}%"{" class=end" if tick > 0.97 * last else ""}>{tick:,.0f}</span>'
        for tick in ticks
    )


def _mark(chart: Chart, axis: _Axis) -> str:
    if chart.mark is None:
        return ""
    return f'<path class="mark" d="M0 {HEIGHT * (1 - axis.at(chart.mark[1])):.1f}H{WIDTH}"/>'


def _mark_text(chart: Chart, axis: _Axis) -> str:
    if chart.mark is None:
        return ""
    name, level = chart.mark
    # Below the line: curves start above it, or at it, and then leave it.
    return f'<span class="mark" style="top:{100 * (1 - axis.at(level)):.2f}%">{escape(name)}</span>'


def _bands(chart: Chart, last: float) -> str:
    """Invisible columns whose titles browsers show under the pointer."""
    width = last / _BANDS
    told: list[list[str]] = [[] for _ in range(_BANDS)]
    for series in chart.series:
        name = f"{series.name}: " if len(chart.series) > 1 else ""
        seen: set[int] = set()
        for step, value in series.points:
            band = min(_BANDS - 1, int(step / width))
            if band not in seen:
                seen.add(band)
                told[band].append(f"{name}{chart.show(value)} at step {step:,.0f}")
    wide = WIDTH / _BANDS
    return "".join(
        f'<path class="band" d="M{band * wide:.1f} 0h{wide:.1f}v{HEIGHT}h-{wide:.1f}z">'
        f"<title>{escape(chr(10).join(lines))}</title></path>"
        for band, lines in enumerate(told)
        if lines
    )
