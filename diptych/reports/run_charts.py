"""The charts on the page of a run: what the engine logs at every step, and the evaluations."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diptych.reports.charts import Chart, Drawing, Series, Show, over_steps
from diptych.runs.run_summary import RunReport
from diptych.wording import four_digits, percent


@dataclass(frozen=True)
class LoggedChart:
    """A chart of something that the engine logs at every step. options: of `Chart`."""

    key: str
    title: str
    note: str
    show: Show
    options: Mapping[str, Any]


_NOISY: Mapping[str, Any] = {"noisy": True, "corner": "mean"}
LOGGED = (
    LoggedChart("loss", "Loss", "nats", four_digits, _NOISY),
    LoggedChart("accuracy", "Accuracy in the batch", "share of images", percent, _NOISY),
    LoggedChart("logit_scale", "Logit scale", "1 / temperature, at most 100", four_digits, {}),
    LoggedChart("logit_bias", "Logit bias", "added to every logit", four_digits, {}),
    LoggedChart("gradient_norm", "Gradient norm", "before clipping", four_digits, {**_NOISY, "spread": True}),
    LoggedChart("learning_rate", "Learning rate", "the number: its peak", four_digits, {"corner": "highest"}),
    LoggedChart("samples_per_second", "Speed", "pairs a second", four_digits, {**_NOISY, "from_zero": True}),
    LoggedChart(
        "data_share", "Waiting for data", "share of the time", percent, {**_NOISY, "from_zero": True}
    ),
)


def run_charts(runs: Sequence[RunReport], names: Sequence[str]) -> Iterator[Drawing]:
    """Draw what was logged and evaluated, over the steps of the longest run; nothing for a key that no run has."""
    last = max([1, *(run.step for run in runs), *(run.total or 0 for run in runs if run.state == "running")])
    chances = {run.chance_loss for run in runs}
    chance = chances.pop() if len(chances) == 1 else None
    for logged in LOGGED:
        mark = (f"guessing {chance:.2f}", chance) if logged.key == "loss" and chance is not None else None
        series = _series(runs, names, logged.key)
        if series:
            yield over_steps(
                Chart(
                    title=logged.title,
                    note=logged.note,
                    series=series,
                    show=logged.show,
                    mark=mark,
                    **logged.options,
                ),
                last,
            )
    for key in evaluated(runs):
        best = list(_best_points(runs, names, key))
        note = "evaluation" if _is_rank(runs, key) else "evaluation, share"
        if best:
            note += "; the dot in another colour is the best, kept in model-best/"
        yield over_steps(
            Chart(
                title=key.replace("_", " "),
                note=note,
                series=_series(runs, names, key),
                show=shown(runs, key),
                dots=True,
                best=best,
            ),
            last,
        )


def _best_points(runs: Sequence[RunReport], names: Sequence[str], key: str) -> Iterator[Series]:
    """Return the best step of each run that keeps its best by this metric."""
    for number, (name, run) in enumerate(zip(names, runs, strict=True)):
        best = run.best
        if best is not None and best.metric == key:
            yield Series(f"{name}, best", len(runs) + number, [(float(best.step), best.value)])


def _series(runs: Sequence[RunReport], names: Sequence[str], key: str) -> list[Series]:
    named = enumerate(zip(names, runs, strict=True))
    return [Series(name, number, points) for number, (name, run) in named if (points := run.curve(key))]


def evaluated(runs: Sequence[RunReport]) -> list[str]:
    """Return the names of all evaluations of the runs."""
    return list(dict.fromkeys(name for run in runs for name in run.evaluations))


def _is_rank(runs: Sequence[RunReport], key: str) -> bool:
    """Return whether a metric is not a share: its values leave 0..1."""
    return any(not 0 <= value <= 1 for run in runs for _, value in run.curve(key))


def shown(runs: Sequence[RunReport], key: str) -> Show:
    """Return how the values of an evaluation become text: ranks as numbers, anything else as shares."""
    return four_digits if _is_rank(runs, key) else percent
