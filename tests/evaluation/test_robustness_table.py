"""Tables of accuracies: read from CSV, JSON and reports alike, refused with a place, and summed up by the functions."""

import json
from pathlib import Path
from typing import Any

import pytest

from diptych.errors import DataError
from diptych.evaluation.robustness.effective import (
    bootstrap,
    effective_robustness,
    fit_line,
    fit_pivoted_line,
)
from diptych.evaluation.robustness.robustness_table import Measurement, from_reports, read_table, summarise

HEADER = "model,standard,shift,id_accuracy,shift_accuracy,id_count,shift_count,group,changed_from\n"
STANDARD = {"small": (0.55, 0.30), "middle": (0.65, 0.42), "large": (0.72, 0.50), "larger": (0.75, 0.55)}
OTHERS = {"zero-shot": (0.68, 0.66), "tuned": (0.79, 0.60)}


def rows(shift: str = "sketch") -> list[dict[str, Any]]:
    return [
        {
            "model": model,
            "standard": model in STANDARD,
            "shift": shift,
            "id_accuracy": before,
            "shift_accuracy": after,
            "id_count": 1000,
            "shift_count": 400,
            "group": "" if model in STANDARD else "CLIP",
            "changed_from": "zero-shot" if model == "tuned" else None,
        }
        for model, (before, after) in (STANDARD | OTHERS).items()
    ]


def as_csv(table: list[dict[str, Any]]) -> str:
    words = [
        {**row, "standard": "yes" if row["standard"] else "no", "changed_from": row["changed_from"] or ""}
        for row in table
    ]
    return HEADER + "".join(
        ",".join(str(row[name]) for name in HEADER.strip().split(",")) + "\n" for row in words
    )


def test_csv_and_json_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(as_csv(rows()), "utf-8-sig")  # as Excel saves it
    (tmp_path / "table.json").write_text(json.dumps(rows()))
    table = read_table(tmp_path / "table.csv")
    assert table == read_table(tmp_path / "table.json") == [Measurement(**row) for row in rows()]


def test_columns_that_may_be_absent_may_be_absent(tmp_path: Path) -> None:
    short = [{k: v for k, v in row.items() if k not in ("group", "changed_from")} for row in rows()]
    (tmp_path / "table.json").write_text(json.dumps(short))
    assert {row.changed_from for row in read_table(tmp_path / "table.json")} == {None}


def report(model: str, data: str, accuracy: float, count: int) -> dict[str, Any]:
    return {
        "task": "zero-shot",
        "model": model,
        "data": data,
        "count": count,
        "metrics": {"top1": accuracy, "top5": 1.0},
    }


def reports() -> dict[str, Any]:
    return {
        f"{model}-{data}.json": report(model, data, accuracy, count)
        for model, both in (STANDARD | OTHERS).items()
        for data, accuracy, count in (("photos", both[0], 1000), ("sketch", both[1], 400))
    }


def test_reports_of_evaluate_make_the_same_table() -> None:
    table = from_reports(reports(), id_data="photos", standard=list(STANDARD))
    plain = [{**row, "group": "", "changed_from": None} for row in rows()]
    assert table == [Measurement(**row) for row in plain]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"odd.json": {"task": "sweep"}}, "odd.json: no report of one model"),
        ({"odd.json": report("small", "sketch", 0.1, 9)}, "odd.json: a second report of small on sketch"),
        ({"odd.json": report("new", "sketch", 0.1, 9)}, "new has a report on sketch and none on photos"),
    ],
)
def test_reports_that_do_not_fit_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_reports(reports() | change, id_data="photos", standard=list(STANDARD))


def test_reports_without_the_data_or_the_models_asked_for_are_named() -> None:
    with pytest.raises(DataError, match="no report on 'paintings'; the reports are on photos, sketch"):
        from_reports(reports(), id_data="paintings", standard=list(STANDARD))
    with pytest.raises(DataError, match="no report of the standard model 'huge' on photos"):
        from_reports(reports(), id_data="photos", standard=["huge"])


def test_a_summary_has_what_the_functions_give() -> None:
    table = [Measurement(**row) for row in rows("sketch") + rows("paintings")]
    summaries = summarise(table, seed=3)
    assert [summary.shift for summary in summaries] == ["sketch", "paintings"]
    before, after = zip(*STANDARD.values(), strict=True)
    line = fit_line(before, after, (1000, 400))
    placed = {one.measurement.model: one for one in summaries[0].models}
    assert placed["zero-shot"].standing == bootstrap(line, 0.68, 0.66, (1000, 400), seed=3)
    assert placed["zero-shot"].effective == effective_robustness(line, 0.68, 0.66)
    assert placed["zero-shot"].expected == pytest.approx(0.66 - placed["zero-shot"].effective)
    assert placed["small"].standing is None
    assert placed["small"].relative is None
    gain = placed["tuned"].relative
    assert gain is not None
    assert gain.gain == pytest.approx(0.60 - 0.66)
    assert gain.interval[0] < gain.gain < gain.interval[1]


def test_the_width_of_a_gain_is_that_of_two_independent_shares() -> None:
    table = [Measurement(**row) for row in rows()]
    gain = next(one.relative for one in summarise(table)[0].models if one.relative)
    error = (0.60 * 0.40 / 400 + 0.66 * 0.34 / 400) ** 0.5
    # Normal to within a few percent at 400 images; 10,000 draws know the ends to about 1 % of the width.
    assert gain.interval[1] - gain.interval[0] == pytest.approx(2 * 1.96 * error, rel=0.04)


def test_a_pivot_breaks_the_line_of_its_shift_alone() -> None:
    models = [(0.80, 0.012), (0.85, 0.016), (0.88, 0.018), (0.93, 0.06), (0.95, 0.2), (0.97, 0.5)]
    table = [
        Measurement(
            model=f"{shift} {before}",
            standard=True,
            shift=shift,
            id_accuracy=before,
            shift_accuracy=after,
            id_count=10_000,
            shift_count=7_500,
        )
        for shift in ("imagenet-a", "other")
        for before, after in models
    ]
    broken, whole = summarise(table, {"imagenet-a": 0.9186})
    before, after = zip(*models, strict=True)
    line = fit_pivoted_line(before, after, 0.9186)
    assert [part.slope for part in broken.lines] == [line.lower.slope, line.upper.slope]
    assert [part.slope for part in whole.lines] == [fit_line(before, after).slope]
    with pytest.raises(DataError, match="pivot of 'imagenet-b': no such shift; there are imagenet-a, other"):
        summarise(table, {"imagenet-b": 0.9})


def test_points_for_the_plot_stay_inside_the_scale() -> None:
    table = [Measurement(**row) for row in rows()]
    table[-1] = Measurement(**{**rows()[-1], "shift_accuracy": 1.0})
    points = {point.name: point for point in summarise(table)[0].points()}
    assert points["tuned"].shift_accuracy == pytest.approx(400.5 / 401)
    assert points["tuned"].shift_interval is not None
    assert (points["tuned"].group, points["small"].group) == ("CLIP", "standard models")
    assert [point.named for point in points.values()] == [False] * 4 + [True] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"id_accuracy": 76.3},
            r"row 2: id_accuracy is '76.3'; expected a fraction in 0..1 \(0.763, not 76.3\)",
        ),
        ({"shift_accuracy": "n/a"}, "row 2: shift_accuracy is 'n/a'"),
        ({"shift_count": 0}, "row 2: shift_count is '0'; expected a number of test images"),
        ({"id_count": ""}, "row 2: no id_count; every row needs model, standard, shift"),
        ({"standard": "maybe"}, "row 2: standard is 'maybe'; expected yes or no"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_its_row(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    row = {**rows()[0], "standard": "yes", "changed_from": "", **change}
    file = tmp_path / "table.csv"
    file.write_text(HEADER + ",".join(str(row[name]) for name in HEADER.strip().split(",")))
    with pytest.raises(DataError, match=message):
        read_table(file)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("table.txt", "", "expected a table of accuracies as .csv or .json"),
        ("table.json", "{", "not valid JSON"),
        ("table.json", "{}", "expected a list of objects"),
        ("table.json", "[3]", "entry 1: expected an object"),
        ("table.csv", "model,accuracy\na,0.5\n", "row 2: unknown column 'accuracy'"),
    ],
)
def test_a_file_that_is_no_table_is_named(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / name)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_table(tmp_path / "absent.csv")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([], "an empty table"),
        (rows() + rows()[:1], "sketch: two rows of small"),
        ([row for row in rows() if not row["standard"]], "sketch: no standard model"),
        (rows()[:2], "sketch: 2 standard models: a line needs at least 3"),
        (
            [row for row in rows() if row["model"] != "zero-shot"],
            "tuned is changed from 'zero-shot', which has no row",
        ),
    ],
)
def test_a_table_without_a_line_is_named(table: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        summarise([Measurement(**row) for row in table])
