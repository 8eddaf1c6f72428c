"""`diptych search`: pictures by words, by pictures, by pictures of the index, and by what is not wanted."""

import contextlib
import gc
import math
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from cyclopts import Parameter

from diptych.cli.options import Activation, Device, IndexPlace, Json, Precision
from diptych.cli.output import emit, say, table
from diptych.errors import SearchIndexError, SettingsError, UsageError
from diptych.printable import printable

if TYPE_CHECKING:
    from diptych.search.image_index import Index
    from diptych.search.query import Answer, Match, QueryPart, Question, Sort

_ID = re.compile(r"[0-9a-f]{32}")
_NOTHING = (
    'nothing to search for; give words ("a red bicycle"), a picture with --image FILE, or one of the index with '
    "--like FILE; or list pictures with --filter CONDITION, --sort newest or both"
)
_LIST_ONLY = (
    "--weight, --min-score, --unique and --diversity need a question; give words or a picture with them"
)
_NARROWEST = 20  # characters of a caption that are shown however narrow the terminal is

Like = Annotated[
    list[str] | None,
    Parameter(help="A picture of the index, by its file or its id; may be given again.", negative=""),
]
Weights = Annotated[
    list[tuple[str, float]] | None,
    Parameter(
        help='How much a part counts: --weight "at night" 0.5, the part spelt as where it was given. Without it 1, and '
        "0.2 for what is not wanted. May be given again.",
        negative="",
    ),
]


class _Spelt(NamedTuple):
    """A part as it was typed."""

    kind: str  # the field of `QueryPart`
    value: str
    wanted: bool


def search(
    *query: Annotated[str, Parameter(help="What to look for, in words, with quotes around them.")],
    folder: IndexPlace,
    text: Annotated[
        list[str] | None, Parameter(help="Another text; may be given again.", negative="")
    ] = None,
    image: Annotated[
        list[str] | None, Parameter(help="The file of a picture; may be given again.", negative="")
    ] = None,
    like: Like = None,
    not_text: Annotated[
        list[str] | None,
        Parameter(name="--not", help="Words for what is not wanted; may be given again.", negative=""),
    ] = None,
    not_image: Annotated[
        list[str] | None, Parameter(help="A picture of what is not wanted; may be given again.", negative="")
    ] = None,
    not_like: Annotated[
        list[str] | None, Parameter(help="The same for one of the index; may be given again.", negative="")
    ] = None,
    weight: Weights = None,
    filter_: Annotated[
        str | None,
        Parameter(
            name=["--filter", "--where"],
            help='Only pictures that meet it, such as: taken >= 2024-06-01 and tag = "sea".',
        ),
    ] = None,
    sort: Annotated[
        Literal["newest", "oldest"] | None,
        Parameter(
            help="Order by the date when pictures were taken: the best matches, or without a question all pictures."
        ),
    ] = None,
    min_score: Annotated[
        float | None, Parameter(help="Only pictures with this score, -1 to 1, or more.")
    ] = None,
    count: Annotated[int, Parameter(name=["--count", "-n"], help="Pictures to show.")] = 10,
    offset: Annotated[int, Parameter(help="Pictures to pass over first: the pages before.")] = 0,
    unique: Annotated[
        bool, Parameter(negative="", help="Of pictures that are nearly the same, show the best alone.")
    ] = False,
    diversity: Annotated[float, Parameter(help="0 gives the best matches, 1 the most varied ones.")] = 0.0,
    exact: Annotated[
        bool, Parameter(negative="", help="Compare with every picture, in a large index too.")
    ] = False,
    model: Annotated[
        str | None,
        Parameter(name=["--model", "-m"], help="Where the index's own model now is, if it has moved."),
    ] = None,
    activation: Activation = None,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """Find pictures by words, by pictures, or by both. The options for parts of a question add up."""
    from diptych.search.query_words import names_an_image  # noqa: PLC0415

    words = _one_text(query)
    pictures = list(image or ())
    if words and names_an_image(words[0]):
        say(f"{words[0]}: is an image file, and is taken as --image; for these words use --text")
        words, pictures = [], [words[0], *pictures]
    for one, option in (
        *((one, "--image") for one in words),
        *((one, "--not-image") for one in not_text or ()),
    ):
        _check_words(one, option)
    spelt = _parts(query=words, text=text, image=pictures, like=like)
    spelt += _parts(wanted=False, text=not_text, image=not_image, like=not_like)
    if not spelt:
        if filter_ is None and sort is None:
            raise UsageError(_NOTHING)
        if weight or min_score is not None or unique or diversity:
            raise UsageError(_LIST_ONLY)
        _list(folder, filter_, sort or "newest", offset=offset, count=count, as_json=as_json)
        return
    given = _given(spelt, weight or [])
    with _no_collection():
        from diptych.search.image_index import Index  # noqa: PLC0415
        from diptych.weights.naming import with_activation  # noqa: PLC0415

        with Index(folder) as index:
            question = _question(
                index,
                [(part, given.get(part)) for part in spelt],
                filter=filter_,
                min_score=min_score,
                count=count,
                offset=offset,
                group_duplicates=unique,
                diversity=diversity,
                exact=exact,
                sort=sort,
            )
            named = with_activation(model or index.manifest.current.model, activation)
            answer = _answer(index, question, named, device, precision)
            if not answer.found:
                _say_why(index, question)
    if as_json:
        _emit("".join(words) or None, question, answer)
    elif answer.found:
        _print(answer.found, sort is not None)


def _one_text(words: Sequence[str]) -> list[str]:
    """The words without an option, if there are any."""
    # Not joined: of `cat --not brown dog` the shell leaves no trace of which words belong together.
    if len(words) > 1:
        raise UsageError(
            f'{" ".join(words)!r}: the words of a text need quotes around them, as in: diptych search "a red bicycle"'
        )
    return [word for word in words if word]


def _check_words(text: str, option: str) -> None:
    """Refuse an address or the name of a file as words: it would be searched for letter by letter."""
    from diptych.search.query_words import check_words  # noqa: PLC0415

    try:
        check_words(text, as_image=f"{option} {{}}", as_words="--text")
    except SettingsError as error:
        raise UsageError(str(error)) from None


def _list(folder: str, filter_: str | None, sort: "Sort", *, offset: int, count: int, as_json: bool) -> None:
    """Print pictures by their date, where nothing is asked."""
    from diptych.search.image_index import Index  # noqa: PLC0415
    from diptych.search.query import check_page, listed  # noqa: PLC0415

    try:
        check_page(count, offset)
        with Index(folder) as index:
            items = index.first(count + 1, offset=offset, filter_=filter_, sort=sort)
    except SettingsError as error:
        raise UsageError(str(error)) from None
    page, more = items[:count], len(items) > count
    if as_json:
        results = [listed(item) for item in page]
        emit({"query": None, "parts": [], "results": results, "more": more, "seconds": {}})
    elif page:
        rows = [
            [printable(item.taken or ""), printable(item.uri), printable("; ".join(item.captions))]
            for item in page
        ]
        _table(("taken", "picture", "caption"), rows)
    else:
        say("nothing found")


def _parts(*, wanted: bool = True, **options: Sequence[str] | None) -> list[_Spelt]:
    kinds = {"query": "text", "text": "text", "image": "image", "like": "id"}
    return [
        _Spelt(kinds[option], value, wanted) for option, values in options.items() for value in values or ()
    ]


def _given(parts: Sequence[_Spelt], pairs: Sequence[tuple[str, float]]) -> dict[_Spelt, float]:
    """The parts that `--weight` names, with their weights, above 0."""
    given = {}
    for value, weight in pairs:
        named = [part for part in parts if part.value == value]
        if len(named) != 1:
            known = ", ".join(repr(part.value) for part in parts)
            raise UsageError(f"--weight {value!r}: is {len(named)} of the parts; expected one of {known}")
        if not weight > 0:
            raise UsageError(
                f"--weight {value!r} {weight:g}: expected a number above 0; what is not wanted goes with --not"
            )
        given[named[0]] = weight
    return given


def _question(index: "Index", parts: Sequence[tuple[_Spelt, float | None]], **settings: Any) -> "Question":
    """The question of those parts, with their weights where they were given."""
    from diptych.search.query import Question  # noqa: PLC0415

    try:
        return Question(tuple(_part(index, part, weight) for part, weight in parts), **settings)
    except SettingsError as error:
        raise UsageError(str(error)) from None


def _part(index: "Index", spelt: _Spelt, given: float | None) -> "QueryPart":
    from diptych.search.query import UNWANTED, QueryPart  # noqa: PLC0415

    unsaid = 1.0 if spelt.wanted else UNWANTED
    weight = unsaid if given is None else math.copysign(given, unsaid)
    match spelt.kind:
        case "text":
            return QueryPart(text=spelt.value, weight=weight)
        case "image":
            return QueryPart(image=Path(spelt.value), weight=weight)
    return QueryPart(id=_id(index, spelt.value), weight=weight)


def _id(index: "Index", what: str) -> str:
    """The id of a picture of the index that is named by its file, its uri or its id."""
    from diptych.search.stores.image_rows import item_id  # noqa: PLC0415

    ids = [item_id(what), item_id(os.path.abspath(what))]
    known = index.get([what, *ids] if _ID.fullmatch(what) else ids).items
    if not known:
        raise SearchIndexError(
            f"{what}: not in the index {index.place}; for a picture outside it use --image FILE"
        )
    return known[0].id


def _answer(index: "Index", question: "Question", model: str, device: str, precision: str) -> "Answer":
    from diptych.cli.machine import load_model  # noqa: PLC0415
    from diptych.search.encoder import Encoder  # noqa: PLC0415
    from diptych.search.searcher import Searcher  # noqa: PLC0415

    name, network, preprocess = load_model(model, device, precision)
    return Searcher(index, Encoder(network, preprocess, name)).search(question)


def _say_why(index: "Index", question: "Question") -> None:
    """Why there is no result: an index without pictures is an error, the rest a remark."""
    if not len(index):
        raise SearchIndexError(
            f"{index.place}: the index has no pictures; add some: diptych index SOURCE --index {index.place}"
        )
    if question.filter is not None and not index.count(question.filter):
        say("nothing found: no picture meets the filter")
    elif question.offset:
        say(f"nothing found: there are no more than {question.offset:,} results")
    else:
        say("nothing found")


def _emit(words: str | None, question: "Question", answer: "Answer") -> None:
    from diptych.search.query import result_of  # noqa: PLC0415

    kinds: list[dict[str, Any]] = [
        {"text": part.text, "image": part.image, "id": part.id} for part in question.parts
    ]
    parts = [
        {kind: str(value) for kind, value in values.items() if value is not None} | {"weight": part.weight}
        for values, part in zip(kinds, question.parts, strict=True)
    ]
    seconds = {"embedding": answer.seconds_embedding, "searching": answer.seconds_searching}
    results = [result_of(found) for found in answer.found]
    emit({"query": words, "parts": parts, "results": results, "more": answer.more, "seconds": seconds})


def _print(results: "Sequence[Match]", dated: bool) -> None:
    """A table: with the number of duplicates where any were grouped, with dates where they are the order; on a
    terminal, no wider than that."""
    grouped = any(found.duplicates for found in results)
    rows = [
        [
            f"{found.score:.3f}",
            *([f"+{len(found.duplicates)}" if found.duplicates else ""] if grouped else []),
            *([printable(found.item.taken or "")] if dated else []),
            printable(found.item.uri),
            printable("; ".join(found.item.captions)),
        ]
        for found in results
    ]
    header = ("score", *(("same",) if grouped else ()), *(("taken",) if dated else ()), "picture", "caption")
    _table(header, rows, right=(0, 1) if grouped else (0,))


def _table(header: tuple[str, ...], rows: list[list[str]], right: Sequence[int] = ()) -> None:
    """Print the rows, whose last column has the captions; without it where no picture has any."""
    if any(row[-1] for row in rows):
        table(header, _narrow(rows), right=right)
    else:
        table(header[:-1], [row[:-1] for row in rows], right=right)


def _narrow(rows: list[list[str]]) -> list[list[str]]:
    """On a terminal, with the last column cut to its width."""
    if not sys.stdout.isatty() or not rows:
        return rows
    others = sum(max(len(row[column]) for row in rows) + 2 for column in range(len(rows[0]) - 1))
    room = max(_NARROWEST, shutil.get_terminal_size().columns - others)
    return [[*row[:-1], row[-1] if len(row[-1]) <= room else row[-1][: room - 1] + "…"] for row in rows]


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """The garbage collector rests. Imports make a million objects that stay: going over them again and again takes
    a fifth of a first search, and finds nothing."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
