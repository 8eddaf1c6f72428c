"""The plot of effective robustness: same bytes, readable on dark screens, names that do not touch."""

import re
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from diptych.errors import DataError, MissingExtraError, SettingsError
from diptych.evaluation.robustness.effective import Baseline, Line, fit_line, fit_pivoted_line
from diptych.evaluation.robustness.robustness_table import Point
from diptych.reports.plots.robustness_plot import plot_robustness


def crowd(count: int = 12) -> tuple[list[Point], Line]:
    """Standard models along a line, closer together than their names are long, and two others."""
    generator = np.random.default_rng(0)
    before = np.sort(generator.uniform(0.5, 0.6, count))
    after = before - 0.2 + generator.normal(0, 0.01, count)
    points = [
        Point(
            name=f"standard model {number}",
            group="standard training",
            id_accuracy=x,
            shift_accuracy=y,
            id_interval=(x - 0.01, x + 0.01),
            shift_interval=(y - 0.01, y + 0.01),
            named=number % 2 == 0,
        )
        for number, (x, y) in enumerate(zip(before.tolist(), after.tolist(), strict=True))
    ]
    points += [
        Point(
            name="zero-shot",
            group="zero-shot",
            id_accuracy=0.55,
            shift_accuracy=0.5,
            named=True,
            marked=True,
        ),
        Point(
            name="fine-tuned <50 %>", group="fine-tuned", id_accuracy=0.58, shift_accuracy=0.44, named=True
        ),
    ]
    return points, fit_line(before, after)


def test_the_same_models_give_the_same_svg(tmp_path: Path) -> None:
    points, line = crowd()
    for name in ("one.svg", "other.svg"):
        plot_robustness(points, line, tmp_path / name, title="Loss & gain")
    drawn = (tmp_path / "one.svg").read_text("utf-8")
    assert drawn == (tmp_path / "other.svg").read_text("utf-8")
    assert "<title>Loss &amp; gain</title>" in drawn
    assert "<dc:date>" not in drawn


def test_every_colour_has_one_for_dark_screens(tmp_path: Path) -> None:
    points, line = crowd()
    plot_robustness(points, line, tmp_path / "plot.svg")
    style, body = (tmp_path / "plot.svg").read_text("utf-8").split("</style>", 1)
    used = set(re.findall(r"(?:fill|stroke): #[0-9a-f]{6}", body))
    assert len(used) > 5
    for declaration in used:
        assert f'[style*="{declaration}"]' in style
    # Nothing is left to the viewer's default, which is black: all that is drawn lies in a group with a colour.
    assert not re.findall(r"(?:fill|stroke): (?:black|rgb)", body)


def test_a_png_is_written_on_paper(tmp_path: Path) -> None:
    points, line = crowd()
    plot_robustness(points, line, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.width > 1500
        assert picture.convert("RGB").getpixel((1, 1)) == (255, 255, 255)


def drawn_figure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, points: list[Point], line: Baseline
) -> Figure:
    """Return the figure as it was when it was saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *places: Any, **settings: Any) -> None:
        figures.append(figure)
        save(figure, *places, **settings)

    monkeypatch.setattr(Figure, "savefig", keep)
    plot_robustness(points, line, tmp_path / "plot.png")
    return figures[0]


def test_names_touch_neither_each_other_nor_a_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    points, line = crowd()
    figure = drawn_figure(monkeypatch, tmp_path, points, line)
    axes = figure.axes[0]
    names = [text for text in axes.texts if text.get_text() in {point.name for point in points}]
    assert len(names) == 8
    # Saving measured them at the file's resolution; the axes are back at the screen's.
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in names]
    for one, other in combinations(boxes, 2):
        assert not one.overlaps(other)
    frame = axes.get_window_extent()
    offsets = [np.asarray(marks.get_offsets()) for marks in axes.collections]
    models = np.concatenate([places for places in offsets if len(places) > 1])
    for box in boxes:
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1
        assert not any(box.contains(*place) for place in axes.transData.transform(models))


def test_axes_are_logits_with_round_percentages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    points, line = crowd()
    axes = drawn_figure(monkeypatch, tmp_path, points, line).axes[0]
    for axis in (axes.xaxis, axes.yaxis):
        shares = 1 / (1 + np.exp(-np.array(axis.get_ticklocs())))
        assert [label.get_text() for label in axis.get_ticklabels()] == [f"{100 * s:.4g} %" for s in shares]
        assert len(shares) >= 3
    # 55 % and 50 %, the marked model, and the height above the line that is written beside it.
    expected = 100 * (0.5 - float(line.predict(0.55)))
    assert f"{expected:+.1f} points" in {text.get_text() for text in axes.texts}


def test_the_broken_line_of_imagenet_a_is_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = np.array([0.80, 0.85, 0.88, 0.93, 0.95, 0.97])
    after = np.array([0.012, 0.016, 0.018, 0.06, 0.2, 0.5])
    line = fit_pivoted_line(before, after, 0.9186)
    points = [
        Point(name="", group="standard training", id_accuracy=x, shift_accuracy=y)
        for x, y in zip(before.tolist(), after.tolist(), strict=True)
    ]
    axes = drawn_figure(monkeypatch, tmp_path, points, line).axes[0]
    places, heights = map(np.asarray, axes.lines[0].get_data())
    np.testing.assert_allclose(1 / (1 + np.exp(-heights)), line.predict(1 / (1 + np.exp(-places))), rtol=1e-9)


def test_what_cannot_be_drawn_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points, line = crowd()
    with pytest.raises(SettingsError, match=r"plot\.pdf: a plot is written as \.svg or \.png"):
        plot_robustness(points, line, tmp_path / "plot.pdf")
    with pytest.raises(DataError, match="no models to draw"):
        plot_robustness([], line, tmp_path / "plot.svg")
    nothing = Point(name="none right", group="x", id_accuracy=0.5, shift_accuracy=0.0)
    with pytest.raises(DataError, match="accuracy 0 has no place"):
        plot_robustness([*points, nothing], line, tmp_path / "plot.svg")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"diptych\[eval\]"):
        plot_robustness(points, line, tmp_path / "plot.svg")
    assert not list(tmp_path.iterdir())
