"""The plot of effective robustness: accuracy under a shift against accuracy without it, on logit axes.

After Figure 13 of Radford et al. (2021): models as points with their intervals, the line that standard models lie
on with its band, and y = x, where nothing would be lost.
"""

import math
import os
from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from diptych.errors import DataError
from diptych.evaluation.metrics import Interval
from diptych.evaluation.robustness.effective import Baseline, Numbers, effective_robustness, from_logit, logit
from diptych.evaluation.robustness.robustness_table import Point
from diptych.reports.plots.plot_files import colour, plot_ending, plot_style, save_plot
from diptych.reports.plots.plot_names import name_points, renderer_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZE = (8.4, 6.2)  # inches
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

# Groups in the order that they come in: told apart by colour and by shape. A group with a marked model has its own.
_COLOURS = ("c0", "c5", "c2", "c3", "c1")
_SHAPES = ("o", "s", "^", "v", "D")
_MARKED = "c4"


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
    plot_ending(path)
    if not points:
        raise DataError("no models to draw; expected at least one")
    with plot_style():
        from matplotlib.figure import Figure  # noqa: PLC0415

        figure = Figure(figsize=_SIZE)
        axes = figure.add_axes((0.092, 0.095, 0.88, 0.735 if subtitle else 0.775))
        _frame(axes, points)
        _draw_line(axes, line, line_name)
        _draw_points(axes, points)
        _draw_heights(axes, points, line)
        axes.set_xlabel(id_name, labelpad=8)
        axes.set_ylabel(shift_name, labelpad=8)
        figure.text(0.092, 0.955, title, fontsize=14, fontweight="bold")
        figure.text(0.092, 0.922, subtitle, color=colour("quiet"), fontsize=9.5)
        _legend(figure, axes, top=0.908 if subtitle else 0.942)
        name_points(figure, axes, points)
        save_plot(figure, path, title)


def _frame(axes: "Axes", points: Sequence[Point]) -> None:
    """Set limits around the points, round percentages as ticks, a quiet grid."""
    spans = (
        _span([(p.id_accuracy, p.id_interval) for p in points]),
        _span([(p.shift_accuracy, p.shift_interval) for p in points]),
    )
    for axis, (low, high) in zip((axes.xaxis, axes.yaxis), spans, strict=True):
        ticks = list(_apart(low, high))
        axis.set_ticks(logit(ticks), [f"{100 * tick:g} %" for tick in ticks])
    axes.set_xlim(spans[0])
    axes.set_ylim(spans[1])
    axes.grid(linewidth=0.9)
    axes.tick_params(length=0, labelsize=9, pad=6)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _span(values: Sequence[tuple[float, Interval | None]]) -> Interval:
    """Return the ends of an axis, in logits."""
    ends = [end for value, interval in values for end in (value, *(interval or ()))]
    # An interval may reach 0 or 1; the axis then ends a little before.
    places = logit(np.clip(ends, 1e-4, 1 - 1e-4))
    for value, _ in values:
        if not 0 < value < 1:
            raise DataError(f"accuracy {value:g} has no place on a logit axis; expected one between 0 and 1")
    margin = _MARGIN * max(float(np.ptp(places)), 0.5)
    return float(places.min()) - margin, float(places.max()) + margin


def _apart(low: float, high: float) -> Iterator[float]:
    """Yield the round accuracies between two logits whose labels have room; the roundest are chosen first."""
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
    shade = colour(_COLOURS[0])
    axes.fill_between(places, logit(low), logit(high), color=shade, alpha=0.16, linewidth=0, zorder=1)
    axes.plot(places, heights, color=shade, linewidth=1.6, zorder=2)
    axes.plot(places, places, color=colour("quiet"), linewidth=1, linestyle=(0, (4, 4)), zorder=1)
    bottom, top = axes.get_ylim()
    seen = np.flatnonzero((places > bottom) & (places < top))
    if len(seen) > _GRID // 8:
        _along(axes, (places, places), int(seen[len(seen) // 12]), "y = x", shade=colour("quiet"), above=True)
    seen = np.flatnonzero((low > from_logit(bottom)) & (heights < top))
    if len(seen) > _GRID // 8:
        _along(axes, (places, logit(low)), int(seen[-3]), name, shade=shade, above=False)


def _along(
    axes: "Axes", curve: tuple[Numbers, Numbers], at: int, text: str, *, shade: str, above: bool
) -> None:
    """Write words along a curve: above it and from `at` on, or below it and up to `at`."""
    x, y = curve
    before = max(0, at - 8)
    (left, low), (right, high) = axes.transData.transform([(x[before], y[before]), (x[at], y[at])])
    axes.annotate(
        text,
        (x[at], y[at]),
        xytext=(0, 4 if above else -4),
        textcoords="offset points",
        color=shade,
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
        name, shape = (_MARKED, "*") if marked else next(looks)
        shade = colour(name)
        for point in members:
            x, y = float(logit(point.id_accuracy)), float(logit(point.shift_accuracy))
            for interval, draw, level in (
                (point.id_interval, axes.hlines, y),
                (point.shift_interval, axes.vlines, x),
            ):
                if interval is not None:
                    low, high = logit(np.clip(interval, 1e-4, 1 - 1e-4))
                    draw(level, low, high, color=shade, linewidth=0.9, alpha=0.55, zorder=3)
        axes.scatter(
            logit([point.id_accuracy for point in members]),
            logit([point.shift_accuracy for point in members]),
            s=150 if marked else 34,
            marker=shape,
            color=shade,
            edgecolors=colour("panel"),
            linewidths=0.7,
            zorder=5 if marked else 4,
            label=group,
        )


def _draw_heights(axes: "Axes", points: Sequence[Point], line: Baseline) -> None:
    """Draw from the line to each marked and named point, with its effective robustness in percentage points."""
    for point in points:
        if not (point.marked and point.named):
            continue
        x, foot = float(logit(point.id_accuracy)), float(logit(line.predict(point.id_accuracy)))
        top = float(logit(point.shift_accuracy))
        axes.plot([x, x], [foot, top], color=colour("ink"), linewidth=0.9, linestyle=(0, (1, 2)), zorder=2)
        axes.annotate(
            f"{100 * effective_robustness(line, point.id_accuracy, point.shift_accuracy):+.1f} points",
            (x, (foot + top) / 2),
            xytext=(6, 0),
            textcoords="offset points",
            color=colour("ink"),
            fontsize=9,
            va="center",
        )


def _legend(figure: "Figure", axes: "Axes", *, top: float) -> None:
    """Write what the shapes mean, in as few rows as they fit in between title and plot."""
    handles, labels = axes.get_legend_handles_labels()
    for rows in range(1, len(handles) + 1):
        legend = figure.legend(
            handles,
            labels,
            loc="upper left",
            bbox_to_anchor=(0.083, top),
            ncols=math.ceil(len(handles) / rows),
            fontsize=8.8,
            handletextpad=0.3,
            columnspacing=1.4,
            labelspacing=0.35,
            borderpad=0.2,
            handlelength=1.2,
        )
        if legend.get_window_extent(renderer_of(figure)).x1 < 0.98 * figure.bbox.x1:
            return
        legend.remove()
