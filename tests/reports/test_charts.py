"""Charts: their axes, their lines, and what they tell by words."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.evaluation.zero_shot.reliability import Bin, Reliability
from diptych.reports.charts import Chart, Series, Shape, Tick, Value, against, over_steps, reliability_chart
from diptych.reports.scales import nice_ticks, smoothed, thinned
from diptych.wording import percent


@settings(deadline=None)  # a busy machine is not a failure
@given(st.floats(-1e9, 1e9), st.floats(0, 1e9))
def test_ticks_are_few_round_and_enclose_the_values(low: float, span: float) -> None:
    high = low + span
    ticks = nice_ticks(low, high)
    slack = max(1e-6 * max(abs(low), abs(high)), 1e-300)  # anything smaller is drawn as zero
    assert 2 <= len(ticks) <= 6
    assert ticks == sorted(set(ticks))
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack


def test_ticks_of_known_ranges() -> None:
    assert nice_ticks(0, 5.55) == [0, 2, 4, 6]
    assert nice_ticks(0, 2890) == [0, 1000, 2000, 3000]
    assert nice_ticks(0.0, 0.002) == [0, 0.0005, 0.001, 0.0015, 0.002]
    assert nice_ticks(3.0, 3.0) == [0, 2, 4, 6]
    assert nice_ticks(-3.0, -3.0) == [-6, -4, -2, 0]
    assert nice_ticks(0.0, 0.0)[0] == 0.0


def test_thinning_keeps_ends_and_spikes() -> None:
    points = [(float(step), math.sin(step)) for step in range(10_000)]
    points[5_003] = (5_003.0, 99.0)
    points[7_001] = (7_001.0, -99.0)
    few = thinned(points, 100)
    assert len(few) <= 102
    assert few[0] == points[0]
    assert few[-1] == points[-1]
    assert {(5_003.0, 99.0), (7_001.0, -99.0)} <= set(few)
    assert [step for step, _ in few] == sorted(step for step, _ in few)
    assert thinned(points[:50], 100) == points[:50]


def test_the_moving_mean_is_the_mean_of_its_window() -> None:
    points = [(float(step), float(step * step % 17)) for step in range(200)]
    for place, (step, value) in enumerate(smoothed(points)):
        window = [number for _, number in points[max(0, place - 5) : place + 6]]
        assert step == points[place][0]
        assert value == pytest.approx(sum(window) / len(window))


def test_points_lie_where_the_axes_say() -> None:
    series = Series("run", 0, [(0.0, 0.0), (50.0, 10.0), (100.0, 5.0)])
    drawn = over_steps(Chart(title="t", note="n", series=[series], show="{:.4g}".format), 100.0)
    # The drawing is 1000 wide and 360 high; the axis goes from 0 to 10.
    assert drawn.shapes[0] == Shape("line c0", "M0.0 360.0L500.0 0.0L1000.0 180.0")
    assert (drawn.up[0], drawn.up[-1]) == (Tick("0", 0.0), Tick("10", 100.0))
    assert drawn.across[-1] == Tick("100", 100.0, end=True)
    spread = Series("run", 0, [(0.0, 1.0), (50.0, 10.0), (100.0, 100.0)])
    drawn = over_steps(Chart(title="t", note="n", series=[spread], show="{:.4g}".format, spread=True), 100.0)
    assert drawn.shapes[0].path == "M0.0 360.0L500.0 180.0L1000.0 0.0"
    assert drawn.note == "n, logarithmic"


def test_a_loss_that_falls_is_a_line_that_goes_down_and_guessing_is_marked() -> None:
    losses = [(10.0 * step, 4.8 * math.exp(-step / 20)) for step in range(1, 32)]
    series = Series("loss", 0, losses)
    chart = Chart(title="t", note="n", series=[series], show=str, mark=("guessing", 4.85), noisy=True)
    drawn = over_steps(chart, losses[-1][0])
    assert drawn.mark is not None
    assert drawn.mark.at == pytest.approx(100 * (1 - 4.85 / 6))
    assert drawn.mark == Tick("guessing", drawn.mark.at)
    (smooth,) = (shape.path for shape in drawn.shapes if shape.kind == "line c0")
    heights = [float(point.split()[1]) for point in smooth[1:].split("L")]
    assert len(heights) == len(losses)
    assert heights == sorted(heights)  # the y axis of SVG points down


def test_one_quantity_against_another_has_a_dot_a_point_and_names_its_lines() -> None:
    kept = Series("kept", 9, [(0.2, 0.5), (0.4, 0.3)], ["alpha 0", "alpha 1"])
    drawn = against("t", "n", [kept], percent)
    assert drawn.shapes[0] == Shape(
        "line c1", "M0.0 0.0L1000.0 360.0"
    )  # the ninth colour is the second again
    assert [shape.tooltip for shape in drawn.shapes[1:]] == ["alpha 0", "alpha 1"]
    assert drawn.legend == [Value("c1", "kept")]
    assert drawn.aria_label == "kept: alpha 0, alpha 1"
    assert (drawn.up[0].text, drawn.up[-1].text) == ("30 %", "50 %")


def test_reliability_says_how_far_confidence_is_from_accuracy() -> None:
    curve = (Bin(0.2, 0.4, 10, 0.3, 0.1), Bin(0.8, 1.0, 30, 0.9, 0.7))
    drawn = reliability_chart(Reliability(curve, 0.2, 0.05, 0.75, 0.55))
    assert "overconfident by 20.0 %" in drawn.note
    assert drawn.corner == [Value("c0", "20.0 %")]
    assert [shape.path for shape in drawn.shapes if shape.kind == "line c0"] == ["M300.0 324.0L900.0 108.0"]
    assert drawn.aria_label.startswith("stated 30.0 %, right 10.0 %: 10 images; ")
    bars = [shape for shape in drawn.shapes if shape.kind == "mass"]
    assert [bar.path for bar in bars] == [
        "M212.0 360v-108.0h176.0v108.0z",  # a third of the images of the highest bar, which is 0.9 of 360
        "M812.0 360v-324.0h176.0v324.0z",
    ]
