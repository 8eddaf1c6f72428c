"""The interval beside a difference is about that difference."""

import pytest

from diptych import load
from diptych.data.sources.opening import open_source
from diptych.data.subsets.selection import Selection
from diptych.evaluation.retrieval import evaluate_retrieval
from diptych.evaluation.task_report import Report
from diptych.evaluation.zero_shot.classification import evaluate_zero_shot
from diptych.runs.finetune_figures import headline, paired_difference

SOURCE = Selection(open_source("sample:test"), range(12), "drawings")


@pytest.fixture(scope="module")
def reports() -> dict[str, Report]:
    model, preprocess = load("diptych-mini")
    return {
        "retrieval": evaluate_retrieval(model, preprocess, SOURCE, model_name="mini", truncate=True),
        "zero-shot": evaluate_zero_shot(
            model, preprocess, SOURCE, model_name="mini", label_from="caption", templates=("{}",)
        ),
    }


def test_the_mean_of_both_directions_has_no_interval_of_one_of_them(reports: dict[str, Report]) -> None:
    pairs = reports["retrieval"]
    assert headline(pairs)[0] == "mean_r1"
    assert paired_difference("pairs", pairs, pairs) is None


def test_one_metric_has_its_own_interval(reports: dict[str, Report]) -> None:
    labels = reports["zero-shot"]
    found = paired_difference("labels", labels, labels)
    assert found is not None
    assert found.metric == headline(labels)[0] == "top1"
    assert tuple(found.interval) == (0.0, 0.0)
