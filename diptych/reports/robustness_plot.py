"""The picture of effective robustness: accuracy under a shift against accuracy without it, on logit axes.

After Figure 13 of Radford et al. (2021): models as points with their intervals, the line that standard models lie
on with its band, and y = x, where nothing would be lost.
"""

import io
import math
import os
from collections.abc import Iterator, Sequence
from itertools import cycle, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

import numpy as np

from diptych.atomic import atomic_write
from diptych.errors import DataError, MissingExtraError, SettingsError
from diptych.evaluation.metrics import Interval
from diptych.evaluation.robustness.effective import Baseline, Numbers, effective_robustness, from_logit, logit
from diptych.evaluation.robustness.robustness_table import Point
from diptych.reports.name_places import Box, place_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZE = (8.4, 6.2)  # inches
_RESOLUTION = 200  # dots an inch, of PNG
_MARGIN = 0.07  # of the span of the points, left free around them
_GRID = 160  # places at which line and band are drawn
_TICKS = (
    *(
        0.5,
        0.9,
        0.1,
        0.99,
        0.01,
        0.999,
        0.001,
        0.8,
        0.2,
        0.7,
        0.3,
        0.6,
        0.4,
        0.95,
        0.05,
        0.98,
        0.02,
        0.995,
        0.005,
    ),
    *(0.75, 0.25, 0.85, 0.15, 0.65, 0.35, 0.55, 0.45, 0.97, 0.03, 0.998, 0.002),
    *(percent / 100 for percent in range(1, 100)),  # for a narrow range
)
_CLOSEST_TICKS = 0.075  # of an axis

_INK, _QUIET, _GRID_LINE, _PAPER = "#22252b", "#6b7078", "#ece9e3", "#ffffff"
# Groups in the order that they come in: told apart by colour and by shape. A group with a marked model has its own.
_COLOURS = ("#2f6f8f", "#8a7a1e", "#4b8b4a", "#8a5aa8", "#c26a21")
_SHAPES = ("o", "s", "^", "v", "D")
_MARKED = "#c24a62"
# What each colour becomes on a dark screen: those of `diptych report`.
_DARK = {
    _INK: "#e6e4df",
    _QUIET: "#9aa0a8",
    _GRID_LINE: "#2a2e34",
    _PAPER: "#1e2126",
    "#2f6f8f": "#7fb8d4",
    "#8a7a1e": "#cdbd62",
    "#4b8b4a": "#8cc98a",
    "#c24a62": "#e88aa0",
    "#8a5aa8": "#bf9bda",
    "#c26a21": "#e29a5c",
}


def plot_robustness(
    points: Sequence[Point],
    line: Baseline,
    path: str | os.PathLike[str],
    *,
    title: str = "Effective robustness",
    subtitle: str = "",
    id_name: str = "accuracy without the shift",
    shift_name: str = "accuracy under the shift",
    line_name: str = "fit to standard models, with 95 % band",
) -> None:
    """Draw `points` and `line` into an SVG or PNG file, by the ending of `path`.

    The SVG follows a dark screen where the viewer says that it has one. The same points give the same bytes, with one
    version of matplotlib.

    Raises:
        SettingsError: another ending.
        DataError: no points, or an accuracy of 0 or 1, which has no place on the axes.
        MissingExtraError: matplotlib is not installed.
    """
    ending = Path(path).suffix.lower()
    if ending not in (".svg", ".png"):
        raise SettingsError(f"{path}: a plot is written as .svg or .png; give a name that ends so")
    if not points:
        raise DataError("no models to draw; expected at least one")
    try:
        import matplotlib  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError("matplotlib", "eval", "drawing a plot") from None
    with matplotlib.rc_context(rc={"svg.hashsalt": "diptych", "svg.fonttype": "path", "font.size": 10}):
        figure = Figure(figsize=_SIZE, facecolor=_PAPER)
        axes = figure.add_axes((0.092, 0.095, 0.88, 0.735 if subtitle else 0.775), facecolor=_PAPER)
        _frame(axes, points)
        _draw_line(axes, line, line_name)
        _draw_points(axes, points)
        _draw_heights(axes, points, line)
        axes.set_xlabel(id_name, color=_QUIET, labelpad=8)
        axes.set_ylabel(shift_name, color=_QUIET, labelpad=8)
        figure.text(0.092, 0.955, title, color=_INK, fontsize=14, fontweight="bold")
        figure.text(0.092, 0.922, subtitle, color=_QUIET, fontsize=9.5)
        _legend(figure, axes, top=0.908 if subtitle else 0.942)
        _name_points(figure, axes, points)
        drawn = io.BytesIO()
        # Neither the date nor the program's version: the same points give the same bytes.
        without: dict[str, Any] = {"Date": None, "Creator": None} if ending == ".svg" else {"Software": None}
        figure.savefig(drawn, format=ending[1:], dpi=_RESOLUTION, metadata=without)
    with atomic_write(path) as file:
        file.write(drawn.getvalue() if ending == ".png" else _for_dark_screens(drawn.getvalue(), title))


def _frame(axes: "Axes", points: Sequence[Point]) -> None:
    """Limits around the points, round percentages as ticks, a quiet grid."""
    spans = (
        _span([(p.id_accuracy, p.id_interval) for p in points]),
        _span([(p.shift_accuracy, p.shift_interval) for p in points]),
    )
    for axis, (low, high) in zip((axes.xaxis, axes.yaxis), spans, strict=True):
        ticks = list(_apart(low, high))
        axis.set_ticks(logit(ticks), [f"{100 * tick:g} %" for tick in ticks])
    axes.set_xlim(spans[0])
    axes.set_ylim(spans[1])
    axes.grid(color=_GRID_LINE, linewidth=0.9)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelcolor=_QUIET, labelsize=9, pad=6)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _span(values: Sequence[tuple[float, Interval | None]]) -> Interval:
    """The ends of an axis, in logits."""
    ends = [end for value, interval in values for end in (value, *(interval or ()))]
    # An interval may reach 0 or 1; the axis then ends a little before.
    places = logit(np.clip(ends, 1e-4, 1 - 1e-4))
    for value, _ in values:
        if not 0 < value < 1:
            raise DataError(f"accuracy {value:g} has no place on a logit axis; expected one between 0 and 1")
    margin = _MARGIN * max(float(np.ptp(places)), 0.5)
    return float(places.min()) - margin, float(places.max()) + margin


def _apart(low: float, high: float) -> Iterator[float]:
    """The round accuracies between two logits that leave room for their labels; the rounder ones come first."""
    kept: list[float] = []
    for tick in _TICKS:
        place = float(logit(tick))
        if low <= place <= high and all(
            abs(place - float(logit(other))) >= _CLOSEST_TICKS * (high - low) for other in kept
        ):
            kept.append(tick)
    yield from sorted(kept)


def _draw_line(axes: "Axes", line: Baseline, name: str) -> None:
    places: Numbers = np.linspace(*axes.get_xlim(), _GRID)
    accuracies = from_logit(places)
    low, high = line.band(accuracies)
    heights = logit(line.predict(accuracies))
    colour = _COLOURS[0]
    axes.fill_between(places, logit(low), logit(high), color=colour, alpha=0.16, linewidth=0, zorder=1)
    axes.plot(places, heights, color=colour, linewidth=1.6, zorder=2)
    axes.plot(places, places, color=_QUIET, linewidth=1, linestyle=(0, (4, 4)), zorder=1)
    bottom, top = axes.get_ylim()
    seen = np.flatnonzero((places > bottom) & (places < top))
    if len(seen) > _GRID // 8:
        _along(axes, (places, places), int(seen[len(seen) // 12]), "y = x", colour=_QUIET, above=True)
    seen = np.flatnonzero((low > from_logit(bottom)) & (heights < top))
    if len(seen) > _GRID // 8:
        _along(axes, (places, logit(low)), int(seen[-3]), name, colour=colour, above=False)


def _along(
    axes: "Axes", curve: tuple[Numbers, Numbers], at: int, text: str, *, colour: str, above: bool
) -> None:
    """Words that run beside a curve: above it from there on, or below it up to there."""
    x, y = curve
    before = max(0, at - 8)
    (left, low), (right, high) = axes.transData.transform([(x[before], y[before]), (x[at], y[at])])
    axes.annotate(
        text,
        (x[at], y[at]),
        xytext=(0, 4 if above else -4),
        textcoords="offset points",
        color=colour,
        fontsize=8.6,
        rotation=math.degrees(math.atan2(high - low, right - left)),
        rotation_mode="anchor",
        ha="left" if above else "right",
        va="bottom" if above else "top",
        zorder=2,
    )


def _draw_points(axes: "Axes", points: Sequence[Point]) -> None:
    looks = cycle(zip(_COLOURS, _SHAPES, strict=True))
    for group in dict.fromkeys(point.group for point in points):
        members = [point for point in points if point.group == group]
        marked = any(point.marked for point in members)
        colour, shape = (_MARKED, "*") if marked else next(looks)
        for point in members:
            x, y = float(logit(point.id_accuracy)), float(logit(point.shift_accuracy))
            for interval, draw, level in (
                (point.id_interval, axes.hlines, y),
                (point.shift_interval, axes.vlines, x),
            ):
                if interval is not None:
                    low, high = logit(np.clip(interval, 1e-4, 1 - 1e-4))
                    draw(level, low, high, color=colour, linewidth=0.9, alpha=0.55, zorder=3)
        axes.scatter(
            logit([point.id_accuracy for point in members]),
            logit([point.shift_accuracy for point in members]),
            s=150 if marked else 34,
            marker=shape,
            color=colour,
            edgecolors=_PAPER,
            linewidths=0.7,
            zorder=5 if marked else 4,
            label=group,
        )


def _draw_heights(axes: "Axes", points: Sequence[Point], line: Baseline) -> None:
    """From the line up to each marked point that is named: its effective robustness, in percentage points."""
    for point in points:
        if not (point.marked and point.named):
            continue
        x, foot = float(logit(point.id_accuracy)), float(logit(line.predict(point.id_accuracy)))
        top = float(logit(point.shift_accuracy))
        axes.plot([x, x], [foot, top], color=_INK, linewidth=0.9, linestyle=(0, (1, 2)), zorder=2)
        axes.annotate(
            f"{100 * effective_robustness(line, point.id_accuracy, point.shift_accuracy):+.1f} points",
            (x, (foot + top) / 2),
            xytext=(6, 0),
            textcoords="offset points",
            color=_INK,
            fontsize=9,
            va="center",
        )


def _legend(figure: "Figure", axes: "Axes", *, top: float) -> None:
    """What the shapes mean, in a quiet row between title and plot, or in as many as it takes."""
    handles, labels = axes.get_legend_handles_labels()
    for rows in range(1, len(handles) + 1):
        legend = figure.legend(
            handles,
            labels,
            loc="upper left",
            bbox_to_anchor=(0.083, top),
            ncols=math.ceil(len(handles) / rows),
            frameon=False,
            fontsize=8.8,
            labelcolor=_QUIET,
            handletextpad=0.3,
            columnspacing=1.4,
            labelspacing=0.35,
            borderpad=0.2,
            handlelength=1.2,
        )
        if legend.get_window_extent(_renderer(figure)).x1 < 0.98 * figure.bbox.x1:
            return
        legend.remove()


def _name_points(figure: "Figure", axes: "Axes", points: Sequence[Point]) -> None:
    """Names beside their points, clear of points, curves and each other where there is room (`name_places`)."""
    renderer = _renderer(figure)
    places = [(float(logit(point.id_accuracy)), float(logit(point.shift_accuracy))) for point in points]
    corners = [(float(x), float(y)) for x, y in axes.transData.transform(places)]
    dot = figure.dpi / 72  # pixels of a point of type
    taken = [Box.around(x, y, 4 * dot) for x, y in corners]
    taken += _beads(axes, renderer, dot)
    frame = Box(*axes.get_window_extent(renderer).extents)
    for point, place, corner in zip(points, places, corners, strict=True):
        if not point.named:
            continue
        text = axes.annotate(
            point.name,
            place,
            xytext=(0, 0),
            textcoords="offset points",
            color=_INK,
            fontsize=8.6,
            fontweight="bold" if point.marked else "normal",
            va="center",
            zorder=6,
        )
        width, height = text.get_window_extent(renderer).size
        found = place_name(corner, (width, height), taken, frame)
        offset = (found.left - corner[0]) / dot, (found.middle - corner[1]) / dot
        text.set_position(offset)
        taken.append(found.box)
        if found.far:
            near = found.box.nearest(corner)
            end = axes.transData.inverted().transform(near)
            axes.plot(*zip(place, end, strict=True), color=_QUIET, linewidth=0.6, zorder=3)


def _beads(axes: "Axes", renderer: Any, dot: float) -> list[Box]:
    """Curves, intervals and slanting words as boxes in a row: the box around all of one would cover half the plot."""
    strings = [(axes.transData.transform(curve.get_xydata()), 1.5 * dot) for curve in axes.lines]
    for text in axes.texts:
        box = text.get_window_extent(renderer)
        rising = text.get_rotation() < 180
        strings.append((np.array(box.corners()[[0, 3] if rising else [1, 2]]), 5 * dot))
    for marks in axes.collections:
        for path in marks.get_paths() if hasattr(marks, "get_segments") else ():
            strings.append((axes.transData.transform(path.vertices), dot))
    return [
        Box.around(float(x), float(y), reach)
        for string, reach in strings
        for one, other in pairwise(string)
        for x, y in np.linspace(one, other, 2 + int(np.hypot(*(other - one)) / (2 * reach)))
    ]


def _renderer(figure: "Figure") -> Any:
    """What measures words before they are drawn."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415

    canvas: Any = FigureCanvasAgg(figure)
    return canvas.get_renderer()


def _for_dark_screens(drawn: bytes, title: str) -> bytes:
    """The SVG with a style sheet that exchanges its colours on a dark screen, and a title for screen readers.

    matplotlib writes a colour into each element's style, where only `!important` reaches. A program that knows no
    media queries shows the light version.
    """
    rules = "".join(
        f'[style*="{what}: {light}"]{{{what}:{dark}!important}}'
        for light, dark in _DARK.items()
        for what in ("fill", "stroke")
    )
    style = f"<style>@media (prefers-color-scheme:dark){{{rules}}}</style>"
    head, opening, rest = drawn.decode("utf-8").partition("<svg ")
    tag, end, body = rest.partition(">")
    return f'{head}{opening}role="img" {tag}{end}\n <title>{escape(title)}</title>\n {style}{body}'.encode()
