"""`diptych search`: images by words, by images, by images of the index, and by what is not wanted."""

import contextlib
import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from diptych.cli.options import Activation, Device, IndexPlace, Json, Precision
from diptych.cli.output import say
from diptych.cli.query_options import (
    NO_PARTS,
    ParsedPart,
    PartOptions,
    parse_parts,
    parse_weights,
    query_part,
)
from diptych.cli.search_output import emit_answer, print_list, print_matches
from diptych.errors import SearchIndexError, SettingsError, UsageError

if TYPE_CHECKING:
    from diptych.search.image_index import Index
    from diptych.search.query import Answer, Question

_NOTHING = (
    'nothing to search for; give words ("a red bicycle"), an image with --image FILE, or one of the index with '
    "--like FILE; or list images with --filter CONDITION, --sort newest or both"
)
_LIST_ONLY = (
    "--weight, --min-score, --unique and --diversity need a question; give words or an image with them"
)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ResultOptions:
    """Which of the images found are shown, and in which order."""

    filter_: Annotated[
        str | None,
        Parameter(
            name=["--filter", "--where"],
            help='Only images that meet it, such as: taken >= 2024-06-01 and tag = "sea".',
        ),
    ] = None
    sort: Annotated[
        Literal["newest", "oldest"] | None,
        Parameter(
            help="Order by the date when images were taken: the best matches, or without a question all images."
        ),
    ] = None
    min_score: Annotated[float | None, Parameter(help="Only images with this score, -1 to 1, or more.")] = (
        None
    )
    count: Annotated[int, Parameter(name=["--count", "-n"], help="Images to show.")] = 10
    offset: Annotated[int, Parameter(help="Images to pass over first: the pages before.")] = 0
    unique: Annotated[
        bool, Parameter(negative="", help="Show only the best of images that are nearly the same.")
    ] = False
    diversity: Annotated[float, Parameter(help="0 gives the best matches, 1 the most varied ones.")] = 0.0
    exact: Annotated[bool, Parameter(negative="", help="Compare with every image, in a large index too.")] = (
        False
    )


DEFAULT_RESULTS = ResultOptions()


def search(
    *query: Annotated[str, Parameter(help="What to look for, in words, with quotes around them.")],
    folder: IndexPlace,
    part: PartOptions = NO_PARTS,
    show: ResultOptions = DEFAULT_RESULTS,
    model: Annotated[
        str | None,
        Parameter(name=["--model", "-m"], help="Where the index's own model now is, if it has moved."),
    ] = None,
    activation: Activation = None,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """Find images by words, by images, or by both. The options for parts of a question add up."""
    words, parts = parse_parts(query, part)
    if not parts:
        if show.filter_ is None and show.sort is None:
            raise UsageError(_NOTHING)
        if part.weight or show.min_score is not None or show.unique or show.diversity:
            raise UsageError(_LIST_ONLY)
        _list(folder, show, as_json)
        return
    weights = parse_weights(parts, part.weight or [])
    with _no_collection():
        from diptych.search.image_index import Index
        from diptych.weights.naming import with_activation

        with Index(folder) as index:
            question = _question(index, parts, weights, show)
            named = with_activation(model or index.manifest.current.model, activation)
            answer = _answer(index, question, named, device, precision)
            if not answer.found:
                _say_why(index, question)
    if as_json:
        emit_answer(words, question, answer)
    elif answer.found:
        print_matches(answer.found, show.sort is not None)


def _list(folder: str, show: ResultOptions, as_json: bool) -> None:
    """Print images by their date, if nothing is asked."""
    from diptych.search.image_index import Index
    from diptych.search.query import check_page

    try:
        check_page(show.count, show.offset)
        with Index(folder) as index:
            items = index.first(
                show.count + 1, offset=show.offset, filter_=show.filter_, sort=show.sort or "newest"
            )
    except SettingsError as error:
        raise UsageError(str(error)) from None
    print_list(items[: show.count], len(items) > show.count, as_json)


def _question(
    index: "Index", parts: Sequence[ParsedPart], weights: dict[ParsedPart, float], show: ResultOptions
) -> "Question":
    from diptych.search.query import Question

    try:
        return Question(
            tuple(query_part(index, part, weights) for part in parts),
            filter=show.filter_,
            min_score=show.min_score,
            count=show.count,
            offset=show.offset,
            group_duplicates=show.unique,
            diversity=show.diversity,
            exact=show.exact,
            sort=show.sort,
        )
    except SettingsError as error:
        raise UsageError(str(error)) from None


def _answer(index: "Index", question: "Question", model: str, device: str, precision: str) -> "Answer":
    from diptych.cli.machine import load_model
    from diptych.search.encoder import Encoder
    from diptych.search.searcher import Searcher

    name, network, preprocess = load_model(model, device, precision)
    return Searcher(index, Encoder(network, preprocess, name)).search(question)


def _say_why(index: "Index", question: "Question") -> None:
    """Say why there is no result; an index without images is an error."""
    if not len(index):
        raise SearchIndexError(
            f"{index.place}: the index has no images; add some: diptych index SOURCE --index {index.place}"
        )
    if question.filter is not None and not index.count(question.filter):
        say("nothing found: no image meets the filter")
    elif question.offset:
        say(f"nothing found: there are no more than {question.offset:,} results")
    else:
        say("nothing found")


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Switch the garbage collector off. Imports make a million objects that stay; collecting among them takes a fifth
    of a first search, and finds nothing."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
