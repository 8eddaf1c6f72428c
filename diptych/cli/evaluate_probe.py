"""`diptych evaluate linear-probe` and `few-shot`: classifiers that learn from a frozen model's features."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, TypeVar

from cyclopts import Parameter

from diptych.cli.evaluate import everybody, show
from diptych.cli.evaluate_datasets import Root
from diptych.cli.inputs import LabelSource, Metric, ZeroShotData, zero_shot_data
from diptych.cli.options import (
    NO_TABLE_OPTIONS,
    Activation,
    BatchSize,
    Device,
    Json,
    Model,
    Precision,
    TableOptions,
)
from diptych.cli.output import progress, say
from diptych.errors import UsageError
from diptych.weights.naming import DEFAULT_MODEL
from diptych.wording import percent

if TYPE_CHECKING:
    from diptych.data.images.transforms import Preprocess
    from diptych.data.sources.opening import Source
    from diptych.distributed import World
    from diptych.embed.encode import Progress
    from diptych.evaluation.probes.probe_data import LabelledFeatures, ProbeData
    from diptych.evaluation.task_report import Report
    from diptych.evaluation.zero_shot.class_labels import LabelSet
    from diptych.models.clip import CLIP

Features = TypeVar("Features", bound="ProbeData")

Test = Annotated[
    str,
    Parameter(
        help="Labelled pictures to be tested on: class folders, a table, tar shards, or benchmark:NAME or "
        "benchmark:NAME:SPLIT (see: diptych evaluate datasets)."
    ),
]
Train = Annotated[
    str | None,
    Parameter(
        help="Labelled pictures to learn from, as --test; without it, the training split of a published dataset."
    ),
]


class _Places(NamedTuple):
    """Where datasets are found, and the columns of a table."""

    root: Path | None
    columns: TableOptions

    def open(self, train: str | None, *others: str | None) -> list[ZeroShotData]:
        """The training data, by default those of the published dataset that comes next, and the others."""
        assert others[0] is not None
        places = [train if train is not None else _training_split(others[0]), *others]
        return [zero_shot_data(place, None, None, **self._asdict()) for place in places if place is not None]


def linear_probe(
    *,
    test: Test,
    train: Train = None,
    validation: Annotated[
        str | None,
        Parameter(
            help="Labelled pictures to choose the regularisation with, as --test; a fifth of --train without it."
        ),
    ] = None,
    model: Model = DEFAULT_MODEL,
    activation: Activation = None,
    metric: Annotated[
        Metric | None,
        Parameter(
            help="To choose the regularisation by, and to report first; without it, a published dataset's own, else "
            "top1. map11: pictures of several classes, which stand in their metadata under `labels`."
        ),
    ] = None,
    label_from: LabelSource = None,
    seed: Annotated[int, Parameter(help="Of the draw of the validation pictures.")] = 0,
    root: Root = None,
    columns: TableOptions = NO_TABLE_OPTIONS,
    batch_size: BatchSize = 64,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """Accuracy of a logistic regression on the model's features, its regularisation swept as in the CLIP paper."""
    from diptych.cli.machine import load_model  # noqa: PLC0415
    from diptych.evaluation.probes.linear_probe import MOST_FITS, evaluate_linear_probe  # noqa: PLC0415
    from diptych.evaluation.probes.multi_label_features import multi_label_features  # noqa: PLC0415

    data = _Places(root, columns).open(train, test, validation)
    headline = metric or data[1].metric
    if headline == "map11" and label_from is not None:
        raise UsageError("the metric map11 takes the classes from the metadata; leave out --label-from")
    with everybody(device) as here:
        name, network, preprocess = load_model(model, device, precision, activation)

        def compute(part: ZeroShotData, classes: "LabelSet | None", advance: "Progress") -> "ProbeData":
            if headline != "map11":
                return single(part, classes, advance)
            return multi_label_features(
                network, preprocess, part.source, labels=classes, batch_size=batch_size, progress=advance
            )

        single = _labelled(network, preprocess, label_from, batch_size)
        features = _all_features(data, compute)

    def fit(advance: "Progress") -> "Report":
        return evaluate_linear_probe(
            *features,
            model_name=name,
            headline=headline,
            seed=seed,
            device=network.logit_scale.device,
            progress=advance,
        )

    _fit_and_show(MOST_FITS, fit, _how_probed, here, as_json, sources=[part.source for part in data])


def few_shot(
    *,
    test: Test,
    train: Train = None,
    shots: Annotated[str, Parameter(help="Numbers of pictures a class to learn from.")] = "1,2,4,8,16",
    seeds: Annotated[int, Parameter(help="How often the pictures are drawn.")] = 3,
    zero_shot: Annotated[
        float | None,
        Parameter(
            help="The model's zero-shot accuracy on the same test pictures, in 0..1, as diptych evaluate zero-shot "
            "gives it: also say how many pictures a class a probe needs to be as good."
        ),
    ] = None,
    model: Model = DEFAULT_MODEL,
    activation: Activation = None,
    metric: Annotated[
        Literal["top1", "mean_per_class", "mean_top1_top5", "roc_auc"] | None,
        Parameter(help="Without it, a published dataset's own, else top1."),
    ] = None,
    label_from: LabelSource = None,
    root: Root = None,
    columns: TableOptions = NO_TABLE_OPTIONS,
    batch_size: BatchSize = 64,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """Accuracy of probes that learn from 1, 2, 4, 8 and 16 pictures a class, with the spread over draws of them."""
    from diptych.cli.machine import load_model  # noqa: PLC0415
    from diptych.evaluation.probes.few_shot import evaluate_few_shot  # noqa: PLC0415

    numbers = _numbers(shots)
    data = _Places(root, columns).open(train, test)
    headline = metric or data[1].metric
    if headline == "map11":
        raise UsageError(
            f"--test {test}: its pictures show several classes each, for which there is linear-probe"
        )
    with everybody(device) as here:
        name, network, preprocess = load_model(model, device, precision, activation)
        compute = _labelled(network, preprocess, label_from, batch_size)
        learned, tested = _all_features(data, compute)

    def fit(advance: "Progress") -> "Report":
        return evaluate_few_shot(
            learned,
            tested,
            model_name=name,
            shots=numbers,
            seeds=seeds,
            headline=headline,
            zero_shot=zero_shot,
            device=network.logit_scale.device,
            progress=advance,
        )

    _fit_and_show(
        len(set(numbers)) * seeds, fit, _how_crossed, here, as_json, sources=[part.source for part in data]
    )


def _training_split(test: str) -> str:
    """The training split of the published dataset that `--test` names."""
    from diptych.evaluation.datasets.benchmark import PREFIX  # noqa: PLC0415
    from diptych.evaluation.datasets.dataset import dataset_named  # noqa: PLC0415

    if not test.startswith(PREFIX):
        raise UsageError(
            f"--train is missing: {test} is not a published dataset, whose training split is known"
        )
    name = test.removeprefix(PREFIX).partition(":")[0]
    split = dataset_named(name).train_split
    if split is None:
        raise UsageError(
            f"--train is missing: {name} has no training split; give pictures of the same classes"
        )
    return f"{PREFIX}{name}:{split}"


def _numbers(shots: str) -> list[int]:
    try:
        return [int(number) for number in shots.split(",")]
    except ValueError:
        raise UsageError(
            f"--shots {shots!r}: expected whole numbers with commas, such as 1,2,4,8,16"
        ) from None


def _labelled(
    model: "CLIP", preprocess: "Preprocess", label_from: Literal["label", "caption"] | None, batch_size: int
) -> "Callable[[ZeroShotData, LabelSet | None, Progress], LabelledFeatures]":
    """What computes the features of pictures of one class each."""
    from diptych.evaluation.probes.probe_data import labelled_features  # noqa: PLC0415

    def compute(data: ZeroShotData, classes: "LabelSet | None", advance: "Progress") -> "LabelledFeatures":
        return labelled_features(
            model,
            preprocess,
            data.source,
            labels=classes,
            label_from=label_from or data.label_from,
            batch_size=batch_size,
            progress=advance,
        )

    return compute


def _all_features(
    data: Sequence[ZeroShotData],
    compute: "Callable[[ZeroShotData, LabelSet | None, Progress], Features]",
) -> "list[Features]":
    """The features of each; the classes are those of the first, which is learned from."""
    from diptych.evaluation.zero_shot.class_labels import LabelSet  # noqa: PLC0415

    with progress("computing features", sum(len(part.source) for part in data)) as advance:
        learned = compute(data[0], None, advance)
        classes = LabelSet.of(learned.classes)
        return [learned, *(compute(part, classes, advance) for part in data[1:])]


def _fit_and_show(
    fits: int,
    fit: "Callable[[Progress], Report]",
    remark: "Callable[[Report], str]",
    here: "World",
    as_json: bool,
    *,
    sources: "Sequence[Source]",
) -> None:
    """Fit in one process, since all have the features by now, and print the report with a remark beside it."""
    if not here.leads:
        return
    with progress("fitting", fits) as advance:
        report = fit(advance)
    show(0, lambda _: report, here, as_json, sources)
    say(remark(report))
    if not report.details["converged"]:
        say("warning: a fit had not converged; its weights are the best found")


def _how_probed(report: "Report") -> str:
    details = report.details
    return (
        f"C = {details['C']:.3g}, the best of {len(details['tried'])} that were tried on {details['validated_with']}; "
        f"fitted to {details['training_images']:,} images"
    )


def _how_crossed(report: "Report") -> str:
    crossing = report.details.get("crossing")
    if crossing is None:
        return "intervals: over the draws of the pictures that were learned from"
    relation = "" if crossing["relation"] == "equal" else f"{crossing['relation']} "
    return (
        f"zero-shot, {percent(report.details['zero_shot'])}, is worth {relation}{crossing['examples']:.1f} labelled "
        "pictures a class"
    )
