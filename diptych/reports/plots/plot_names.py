"""Names beside the points of a plot of effective robustness, placed by `name_places`."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.evaluation.robustness.effective import logit
from diptych.evaluation.robustness.robustness_table import Point
from diptych.reports.plots.name_places import Box, place_name
from diptych.reports.plots.plot_files import colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def name_points(figure: "Figure", axes: "Axes", points: Sequence[Point]) -> None:
    """Write names beside their points, clear of points, curves and each other as far as there is room."""
    renderer = renderer_of(figure)
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
            color=colour("ink"),
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
            axes.plot(*zip(place, end, strict=True), color=colour("quiet"), linewidth=0.6, zorder=3)


def _beads(axes: "Axes", renderer: Any, dot: float) -> list[Box]:
    """Return curves, intervals and slanting words as boxes in a row: one box around each would cover half the plot."""
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


def renderer_of(figure: "Figure") -> Any:
    """Return what measures words before they are drawn."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415

    canvas: Any = FigureCanvasAgg(figure)
    return canvas.get_renderer()
