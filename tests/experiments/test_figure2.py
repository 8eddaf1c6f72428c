"""Figure 2's experiment at its smallest: it runs, resumes, and its arithmetic is that of examples worked by hand."""

import json
import math
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def figure2(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import figure2  # noqa: PLC0415

    return figure2


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import figure2_page  # noqa: PLC0415

    return figure2_page


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import figure2_results  # noqa: PLC0415

    return figure2_results


@pytest.mark.nightly
def test_it_runs_at_its_smallest_and_does_nothing_twice(
    figure2: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arguments = [
        "figure2.py",
        "--quick",
        "--workers",
        "0",
        "--out",
        str(tmp_path / "out"),
        "--page",
        str(tmp_path),
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    figure2.main()
    text = (tmp_path / "figure2.md").read_text()
    for arm in figure2.ARMS:
        assert f"| {arm} |" in text
    assert "no arm did better than guessing" in text  # after 48 pictures
    assert "nan" not in text
    drawn = (tmp_path / "figure2.svg").read_bytes()
    assert b"pictures seen" in drawn
    found = json.loads((tmp_path / "figure2.json").read_text())
    assert len(found) == 4 * 2
    assert all([point["images"] for point in job["curve"]] == [16, 32, 48] for job in found)
    assert not list((tmp_path / "out" / "runs").iterdir())

    def again(_: object, name: str) -> None:
        raise AssertionError(f"{name} was done before")

    monkeypatch.setattr(figure2.Experiment, "run", again)
    figure2.main()
    assert (tmp_path / "figure2.md").read_text() == text
    assert (tmp_path / "figure2.svg").read_bytes() == drawn


def test_a_job_finds_its_curve_is_kept_and_leaves_no_run(figure2: ModuleType, tmp_path: Path) -> None:
    experiment = figure2.Experiment(figure2.QUICK, figure2.CONDITIONS[:1], None, tmp_path)
    name = next(name for name, job in experiment.jobs.items() if job["arm"] == "language model")
    jobs = {name: experiment.jobs[name]}
    (found,) = figure2.do_all(EXPERIMENTS / "figure2.py", tmp_path, jobs, experiment.run, workers=0).values()
    assert [point["images"] for point in found["curve"]] == [16, 32, 48]
    assert all(0 <= point["top1_whole_text"] <= 1 for point in found["curve"])
    assert found["flops"] > 1e5
    assert not (tmp_path / "runs" / name).exists()
    again = figure2.do_all(EXPERIMENTS / "figure2.py", tmp_path, jobs, lambda job: 1 / 0, workers=0)
    assert again == {name: found}
    other = {name: {**jobs[name], "rate": 1.0}}  # other settings are another job
    with pytest.raises(ZeroDivisionError):
        figure2.do_all(EXPERIMENTS / "figure2.py", tmp_path, other, lambda job: 1 / 0, workers=0)


def test_the_page_has_every_arm_its_ratios_and_the_same_plot_again(page: ModuleType, tmp_path: Path) -> None:
    jobs = [
        {
            "condition": "scenes, plain captions",
            "arm": arm,
            "seed": seed,
            "rate": 1e-3,
            "flops": 1e8,
            "vocabulary": 44,
            "chance": 0.02,
            "tested": 960,
            "curve": [{"images": images, "top1": min(0.9, images / pace)} for images in (100, 200, 400, 800)],
        }
        for arm, pace in zip(page.COLOURS, (1600, 1200, 800, 900), strict=True)
        for seed in (0, 1)
    ]
    size = {"batch": 16, "samples": 800, "seeds": (0, 1), "resolution": 32, "width": 4, "rates": (1e-3,)}
    page.write_page(tmp_path, jobs, size)
    text = (tmp_path / "figure2.md").read_text()
    # To 2 % + 0.8 (50 % - 2 %) = 40.4 %, between points: 800 pictures of 50 %, 400 of 25 %.
    assert "pictures to 40.4 %" in text
    assert all(f"| {arm} | 100 | 0.001 |" in text for arm in page.COLOURS)
    assert "| language model over bag of words, predicted | 1." in text
    assert (
        "- scenes, plain captions: bag of words, contrastive → CLIP → bag of words, predicted → language model "
        "(the order of the paper); with intervals above 1: language model over" in text
    )
    drawn = (tmp_path / "figure2.svg").read_bytes()
    assert b"pictures seen" in drawn
    page.write_page(tmp_path, jobs, size)
    assert (tmp_path / "figure2.svg").read_bytes() == drawn


def test_another_order_than_the_papers_is_said_to_be_another(page: ModuleType) -> None:
    arms = {
        arm: [
            {
                "chance": 0.0,
                "tested": 960,
                "flops": 1e8,
                "curve": [{"images": images, "top1": images / pace} for images in (100, 200, 400)],
            }
        ]
        for arm, pace in (("bag of words, predicted", 400), ("bag of words, contrastive", 500), ("CLIP", 450))
    }
    assert page.outcome("emoji", arms) == (
        "- emoji: bag of words, predicted → CLIP → bag of words, contrastive (not the order of the paper); "
        "no ratio has an interval above 1."
    )


def test_arms_of_a_condition_differ_in_nothing_but_their_text_side(
    figure2: ModuleType, tmp_path: Path
) -> None:
    condition = figure2.condition_of(figure2.CONDITIONS[1], figure2.QUICK, None, tmp_path)
    recipes = [
        figure2.recipe_of(arm, condition, figure2.QUICK, samples=64, rate=1e-3, seed=5)
        for arm in figure2.ARMS
    ]
    for recipe in recipes:
        assert recipe.data == recipes[0].data
        assert recipe.training == recipes[0].training
        assert recipe.model.resolve().image == recipes[0].model.resolve().image
        assert recipe.model.resolve().embed_dim == recipes[0].model.resolve().embed_dim


def test_points_of_a_curve_are_a_constant_factor_apart_and_end_with_the_run(figure2: ModuleType) -> None:
    steps = figure2.looked_at(750, 12)
    assert (steps[0], steps[-1], len(steps)) == (11, 750, 12)
    ratios = [after / before for before, after in pairwise(steps)]
    assert max(ratios) / min(ratios) < 1.15


def test_pictures_to_an_accuracy_lie_between_points_on_a_logarithmic_scale(results: ModuleType) -> None:
    curve = [(100, 0.1), (400, 0.3), (1600, 0.2), (6400, 0.6)]
    assert results.images_to_reach(curve, 0.1) == 100
    assert results.images_to_reach(curve, 0.2) == pytest.approx(200)
    assert results.images_to_reach(curve, 0.3) == pytest.approx(400)
    assert results.images_to_reach(curve, 0.4) == pytest.approx(3200)
    assert math.isinf(results.images_to_reach(curve, 0.7))


def test_a_ratio_is_the_geometric_mean_over_seeds_with_students_interval(results: ModuleType) -> None:
    middle, low, high = results.ratio([300, 600, 1200], [100, 100, 100])
    assert middle == pytest.approx(6)
    # Logarithms ln 6 - ln 2, ln 6, ln 6 + ln 2: standard deviation ln 2.
    half = 4.302652730 * math.log(2) / math.sqrt(3)
    assert (low, high) == pytest.approx((6 * math.exp(-half), 6 * math.exp(half)))
    assert results.ratio([3, 3, 3], [1, 1, 1]) == pytest.approx((3, 3, 3))


def test_arms_are_compared_where_the_slowest_run_has_come(results: ModuleType) -> None:
    def job(best: float) -> dict[str, object]:
        return {
            "chance": 0.1,
            "tested": 900,
            "curve": [{"images": 1, "top1": 0.1}, {"images": 2, "top1": best}],
        }

    assert results.compared_at({"a": [job(0.9), job(0.6)], "b": [job(0.7)]}) == pytest.approx(0.5)
    # A standard error of guessing is sqrt(0.1 * 0.9 / 900) = 0.01: 0.139 may be luck.
    arms = {"a": [job(0.9), job(0.6)], "b": [job(0.7), job(0.139)]}
    assert results.learned(arms) == ["a"]
    assert results.compared_at(arms) == pytest.approx(0.5)
    assert results.reached(arms)["b"] == [math.inf, math.inf]


def test_an_arm_that_learned_nothing_is_said_to_need_more_than_it_saw(page: ModuleType) -> None:
    arms = {
        arm: [
            {
                "arm": arm,
                "rate": 1e-3,
                "flops": flops,
                "vocabulary": 44,
                "chance": 0.02,
                "tested": 960,
                "curve": [
                    {"images": images, "top1": top1} for images, top1 in zip((100, 800), end, strict=True)
                ],
            }
        ]
        * 2
        for arm, flops, end in (
            ("language model", 2e8, (0.02, 0.021)),
            ("bag of words, predicted", 1e8, (0.02, 0.52)),
            ("bag of words, contrastive", 1e8, (0.42, 0.52)),
        )
    }
    text = page.section("scenes", arms)
    assert "| language model | 200 | 0.001 | 2.1 (2.1 to 2.1) |  | not in 800 |  |" in text
    # Compared at 42 %, where the contrastive arm is after 100 pictures.
    assert "| language model over bag of words, contrastive | more than 8.0 | more than 16.0 | 12 |" in text
    assert page.outcome("scenes", arms).startswith(
        "- scenes: bag of words, contrastive → bag of words, predicted → language model (the order"
    )


def test_a_page_where_no_arm_learned_says_so(page: ModuleType, tmp_path: Path) -> None:
    jobs = [
        {
            "condition": "scenes",
            "arm": arm,
            "rate": 1e-3,
            "seed": seed,
            "flops": 1e8,
            "vocabulary": 44,
            "chance": 0.02,
            "tested": 960,
            "curve": [{"images": 100, "top1": 0.02}, {"images": 800, "top1": 0.021}],
        }
        for arm in ("language model", "bag of words, predicted", "bag of words, contrastive")
        for seed in (0, 1)
    ]
    size = {"batch": 16, "samples": 800, "seeds": (0, 1), "resolution": 32, "width": 8, "rates": (1e-3,)}
    page.write_page(tmp_path, jobs, size)
    text = (tmp_path / "figure2.md").read_text("utf-8")
    assert "- scenes: no arm did better than guessing." in text
    assert "| pictures to better than guessing |" in text
    assert "| language model | 100 | 0.001 | 2.1 (2.1 to 2.1) |  | not in 800 |  |" in text
    assert "times more" not in text
    assert "inf" not in text
    drawn = (tmp_path / "figure2.svg").read_text("utf-8")
    assert "guessing" in drawn
    assert "compared at" not in drawn
