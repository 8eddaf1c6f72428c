"""`diptych search`: pictures by words, by a picture, or by both."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from diptych.cli.options import Device, IndexPlace, Json, Precision, UsageError
from diptych.cli.output import emit, table


def search(
    query: Annotated[str | None, Parameter(help="What to look for, in words.")] = None,
    /,
    *,
    folder: IndexPlace,
    image: Annotated[Path | None, Parameter(help="A picture to look for; with words, both together.")] = None,
    count: Annotated[int, Parameter(name=["--count", "-n"], help="Pictures to show.")] = 10,
    model: Annotated[
        str | None,
        Parameter(name=["--model", "-m"], help="Where the index's own model now is, if it has moved."),
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """Find pictures by words, by a picture, or by both."""
    if (query is None or not query.strip()) and image is None:
        raise UsageError(
            'nothing to search for; give words ("a red bicycle"), or a picture with --image FILE'
        )
    if count < 1:
        raise UsageError(f"--count {count}: expected at least 1")

    from diptych.search.index import Index, result_of  # noqa: PLC0415

    with Index(folder) as opened:
        from diptych.cli.machine import load_model  # noqa: PLC0415
        from diptych.search.encoder import Encoder  # noqa: PLC0415

        name, network, preprocess = load_model(model or opened.manifest.current.model, device, precision)
        encoder = Encoder(network, preprocess, name)
        opened.require(encoder)
        hits = opened.search(encoder.query(text=query, image=image), count=count)
    if as_json:
        asked = {"query": query} if image is None else {"query": query, "image": str(image)}
        emit({**asked, "results": [result_of(hit) for hit in hits]})
        return
    rows = [(f"{hit.score:.3f}", hit.item.uri, hit.item.caption or "") for hit in hits]
    table(("score", "picture", "caption"), rows, right=(0,))
