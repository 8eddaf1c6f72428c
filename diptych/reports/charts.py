"""Charts as inline SVG without scripts: what `templates/chart.html` draws, computed.

The drawing is stretched to the width of the page, with lines of constant thickness. The labels stand beside it as
text, so they keep their size on a telephone and on a wide screen.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from diptych.palette import LINES
from diptych.reports.scales import Axis, Points, nice_ticks, smoothed, thinned
from diptych.wording import percent

if TYPE_CHECKING:
    from diptych.evaluation.zero_shot.reliability import Bin, Reliability

WIDTH, HEIGHT = 1000, 360  # of the drawing's own coordinates
_BANDS = 80  # columns with a tooltip each
_DECADES = 1.5  # of the values, from which on a positive quantity is drawn on a logarithmic axis

Show = Callable[[float], str]


@dataclass(frozen=True)
class Series:
    """One line. number: of its colour, from 0. points: (across, up). tooltips: one a point, if any."""

    name: str
    number: int
    points: Points
    tooltips: Sequence[str] = ()

    @property
    def colour(self) -> str:
        """The class that the style sheet colours: c0 to c7."""
        return f"c{self.number % LINES}"


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Lines over steps.

    note: what the number in the corner and the axis mean, unit included.
    show: a value as text. mark: a level with its name, such as that of guessing.
    noisy: draw the values faintly and their moving mean over them. spread: allow a logarithmic axis.
    from_zero: begin the axis there. dots: mark each point, where there are few. best: single points over the lines.
    corner: which value stands in the corner: the last, the mean of the last tenth of the steps, or the highest.
    """

    title: str
    note: str
    series: Sequence[Series]
    show: Show
    mark: tuple[str, float] | None = None
    noisy: bool = False
    spread: bool = False
    from_zero: bool = False
    dots: bool = False
    best: Sequence[Series] = ()
    corner: Literal["last", "mean", "highest"] = "last"


@dataclass(frozen=True)
class Tick:
    """A label beside an axis. at: percent of its length. end: it must not reach beyond the right end."""

    text: str
    at: float
    end: bool = False


@dataclass(frozen=True)
class Shape:
    """One path of a drawing. kind: its classes in the style sheet."""

    kind: str
    path: str
    tooltip: str = ""


@dataclass(frozen=True)
class Value:
    """A number or a name in the colour of its line."""

    colour: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A chart with everything placed. aria_label: the chart in words. mark: the name of a level, from the top."""

    title: str
    note: str
    aria_label: str
    up: Sequence[Tick]
    across: Sequence[Tick]
    shapes: Sequence[Shape]
    corner: Sequence[Value] = ()
    legend: Sequence[Value] = ()
    mark: Tick | None = None


@dataclass(frozen=True)
class _Plane:
    """Two axes: from values to the drawing's coordinates."""

    across: Axis
    up: Axis

    def at(self, point: tuple[float, float]) -> str:
        return f"{WIDTH * self.across.at(point[0]):.1f} {HEIGHT * (1 - self.up.at(point[1])):.1f}"

    def line(self, points: Points) -> str:
        return "M" + "L".join(map(self.at, points))

    def dots(self, series: Series) -> Iterator[Shape]:
        """Yield a circle a point: a line of no length with round ends stays one however the drawing is stretched."""
        tooltips = series.tooltips or [""] * len(series.points)
        for point, tooltip in zip(series.points, tooltips, strict=True):
            yield Shape(f"dot {series.colour}", f"M{self.at(point)}h0", tooltip)

    def ticks(self, show_across: Show, show_up: Show) -> tuple[list[Tick], list[Tick]]:
        """Return the labels below and on the left."""
        across = [Tick(show_across(tick), 100 * self.across.at(tick)) for tick in self.across.ticks]
        below = [Tick(tick.text, tick.at, tick.at > 97) for tick in across]
        return below, [Tick(show_up(tick), 100 * self.up.at(tick)) for tick in self.up.ticks]


def over_steps(chart: Chart, last: float) -> Drawing:
    """Draw lines over the steps of a run. last: the step at the right end."""
    values = [value for series in chart.series for _, value in series.points]
    levels = values + ([chart.mark[1]] if chart.mark else []) + ([0.0] if chart.from_zero else [])
    low, high = min(levels), max(levels)
    if chart.spread and min(values) > 0 and math.log10(max(values) / min(values)) > _DECADES:
        up = Axis.powers(min(values), max(values))
    else:
        # From zero, unless that would press the curve into the upper half.
        up = Axis.linear(0.0 if 0 < low < 0.5 * high else low, high)
    steps = [tick for tick in nice_ticks(0, last) if tick <= last and tick.is_integer()]
    plane = _Plane(Axis(0.0, last, steps), up)
    across, left = plane.ticks("{:,.0f}".format, lambda tick: _value_tick(tick, up, chart.show))
    shapes = [shape for series in chart.series for shape in _lines(series, chart, plane)]
    mark = None
    if chart.mark is not None:
        name, level = chart.mark
        shapes.insert(0, Shape("mark", plane.line([(0.0, level), (last, level)])))
        mark = Tick(name, 100 * (1 - up.at(level)))
    return Drawing(
        title=chart.title,
        note=f"{chart.note}{', logarithmic' if up.logarithmic else ''}",
        aria_label=_aria_label(chart),
        up=left,
        across=across,
        shapes=[*shapes, *(dot for best in chart.best for dot in plane.dots(best)), *_bands(chart, last)],
        corner=[Value(series.colour, chart.show(_now(series, chart))) for series in chart.series],
        mark=mark,
    )


def against(
    title: str, note: str, series: Sequence[Series], show_across: Show, show_up: Show = percent
) -> Drawing:
    """Draw one quantity against another: lines with a dot and a tooltip a point."""
    across, up = zip(*(point for each in series for point in each.points), strict=True)
    plane = _Plane(Axis.linear(min(across), max(across)), Axis.linear(min(up), max(up)))
    below, left = plane.ticks(show_across, lambda tick: _value_tick(tick, plane.up, show_up))
    return Drawing(
        title=title,
        note=note,
        aria_label="; ".join(f"{each.name}: {', '.join(each.tooltips)}" for each in series),
        up=left,
        across=below,
        shapes=[
            shape
            for each in series
            for shape in (Shape(f"line {each.colour}", plane.line(each.points)), *plane.dots(each))
        ],
        legend=[Value(each.colour, each.name) for each in series],
    )


def reliability_chart(found: "Reliability", title: str = "Reliability") -> Drawing:
    """Draw the accuracy of answers over the probability that was stated with them; dashed: a calibrated model."""
    quarters = Axis(0.0, 1.0, (0, 0.25, 0.5, 0.75, 1))
    plane = _Plane(quarters, quarters)
    below, left = plane.ticks(_whole_percent, _whole_percent)
    curve = Series("", 0, [(part.confidence, part.accuracy) for part in found.curve])
    most = max(part.count for part in found.curve)
    over = found.confidence - found.accuracy
    return Drawing(
        title=title,
        note="Expected calibration error; a calibrated model would show "
        f"{percent(found.by_chance)} with as many images. Across: the stated probability, "
        f"{percent(found.confidence)} on average. Up: accuracy, {percent(found.accuracy)}: "
        f"{'over' if over > 0 else 'under'}confident by {percent(abs(over))}. Faint bars: the number of images.",
        aria_label="; ".join(map(_bin_words, found.curve)),
        up=left,
        across=below,
        shapes=[
            *(_mass(part, most) for part in found.curve),
            Shape("mark", plane.line([(0, 0), (1, 1)])),
            Shape("line c0", plane.line(curve.points)),
            *plane.dots(curve),
            *(Shape("band", _column(part.low, part.high), _bin_words(part)) for part in found.curve),
        ],
        corner=[Value("c0", percent(found.error))],
    )


def _now(series: Series, chart: Chart) -> float:
    """Return the value in the corner."""
    values = [value for _, value in series.points]
    if chart.corner == "highest":
        return max(values)
    if chart.corner == "mean":
        late = [value for step, value in series.points if step >= 0.9 * series.points[-1][0]]
        return math.fsum(late) / len(late)
    return values[-1]


def _aria_label(chart: Chart) -> str:
    parts = []
    for series in chart.series:
        points = smoothed(series.points) if chart.noisy else series.points
        name = f"{series.name}: " if len(chart.series) > 1 else ""
        parts.append(
            f"{name}from {chart.show(points[0][1])} at step {points[0][0]:,.0f} "
            f"to {chart.show(points[-1][1])} at step {points[-1][0]:,.0f}"
        )
    return f"{chart.title}: {'; '.join(parts)}"


def _lines(series: Series, chart: Chart, plane: _Plane) -> Iterator[Shape]:
    line, points = f"line {series.colour}", series.points
    if chart.noisy and len(points) > 3:
        yield Shape(f"raw {series.colour}", plane.line(thinned(points)))
        yield Shape(line, plane.line(thinned(smoothed(points))))
        return
    yield Shape(line, plane.line(thinned(points)))
    if chart.dots or len(points) == 1:
        yield from plane.dots(series)


def _value_tick(tick: float, axis: Axis, show: Show) -> str:
    if show(1.0).endswith("%"):
        return _whole_percent(tick)
    if axis.logarithmic or not 0.001 <= axis.high < 1e6:
        return "0" if tick == 0 else f"{tick:.3g}"
    return f"{tick:,.10g}"


def _bands(chart: Chart, last: float) -> Iterable[Shape]:
    """Return invisible columns whose tooltips browsers show under the pointer."""
    tooltips: list[list[str]] = [[] for _ in range(_BANDS)]
    for series in chart.series:
        name = f"{series.name}: " if len(chart.series) > 1 else ""
        seen: set[int] = set()
        for step, value in series.points:
            band = min(_BANDS - 1, int(step * _BANDS / last))
            if band not in seen:
                seen.add(band)
                tooltips[band].append(f"{name}{chart.show(value)} at step {step:,.0f}")
    return [
        Shape("band", _column(band / _BANDS, (band + 1) / _BANDS), "\n".join(lines))
        for band, lines in enumerate(tooltips)
        if lines
    ]


def _whole_percent(share: float) -> str:
    return f"{100 * share:.6g} %"


def _mass(part: "Bin", most: int) -> Shape:
    """Return the images of a bin as a bar from below."""
    air = 0.06 * (part.high - part.low)
    return Shape("mass", _column(part.low + air, part.high - air, 0.9 * part.count / most))


def _column(left: float, right: float, height: float = 1.0) -> str:
    """Return an upright rectangle that stands on the axis; all in 0..1."""
    tall = HEIGHT * height
    return f"M{WIDTH * left:.1f} {HEIGHT}v-{tall:.1f}h{WIDTH * (right - left):.1f}v{tall:.1f}z"


def _bin_words(part: "Bin") -> str:
    return f"stated {percent(part.confidence)}, right {percent(part.accuracy)}: {part.count:,} images"
