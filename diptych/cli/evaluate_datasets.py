"""`diptych evaluate datasets`: which published datasets are known, which are here, and where the others go."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from diptych.cli.options import Json
from diptych.cli.output import emit, say, table

Root = Annotated[
    Path | None,
    Parameter(
        help="The folder of datasets, one dataset's folder, or its .parquet file. Default: DIPTYCH_DATA, else ./data."
    ),
]


def datasets(name: str | None = None, /, *, root: Root = None, as_json: Json = False) -> None:
    """List the published datasets: metric, sizes, what is found under the root. NAME: tell about one of them."""
    from diptych.evaluation.datasets.benchmark import default_root
    from diptych.evaluation.datasets.dataset import all_datasets
    from diptych.evaluation.datasets.finding import dataset_facts

    place = default_root() if root is None else root
    if name is not None:
        about = dataset_facts(name, place)
        if as_json:
            emit(about)
        else:
            for key, value in about.items():
                print(f"{key.replace('_', ' '):12} {_text(value)}")
        return
    found = [dataset_facts(known, place) for known in all_datasets()]
    if as_json:
        emit({"root": str(place), "datasets": found})
        return
    rows = [
        (
            one["name"],
            one["metric"],
            *(_count(one[size]) for size in ("classes", "train", "test")),
            one["found"] or f"put it at {place / one['put_at']}",
        )
        for one in found
    ]
    table(("dataset", "metric", "classes", "train", "test", f"under {place}"), rows, right=(2, 3, 4))
    say(
        "sizes: as the CLIP paper has them, - where that could not be checked; more: diptych evaluate datasets NAME"
    )


def _text(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, list):
        return ", ".join(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
