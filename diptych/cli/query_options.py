"""The parts of a query as `diptych search` takes them: words, image files, images of the index, and weights."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from cyclopts import Parameter

from diptych.cli.output import say
from diptych.errors import SearchIndexError, SettingsError, UsageError

if TYPE_CHECKING:
    from diptych.search.image_index import Index
    from diptych.search.query import QueryPart

Several = list[str] | None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class PartOptions:
    """The options for parts of a query, which add up."""

    text: Annotated[Several, Parameter(help="Another text; may be given again.", negative="")] = None
    image: Annotated[Several, Parameter(help="The file of an image; may be given again.", negative="")] = None
    like: Annotated[
        Several,
        Parameter(help="An image of the index, by its file or its id; may be given again.", negative=""),
    ] = None
    not_text: Annotated[
        Several,
        Parameter(name="--not", help="Words for what is not wanted; may be given again.", negative=""),
    ] = None
    not_image: Annotated[
        Several, Parameter(help="An image of what is not wanted; may be given again.", negative="")
    ] = None
    not_like: Annotated[
        Several, Parameter(help="The same for one of the index; may be given again.", negative="")
    ] = None
    weight: Annotated[
        list[tuple[str, float]] | None,
        Parameter(
            help='How much a part counts: --weight "at night" 0.5, the part spelt as where it was given. Without it '
            "1, and 0.2 for what is not wanted. May be given again.",
            negative="",
        ),
    ] = None


NO_PARTS = PartOptions()


class ParsedPart(NamedTuple):
    """A part of a query as it was typed."""

    kind: str  # the field of `QueryPart`
    value: str
    wanted: bool


def parse_parts(query: Sequence[str], options: PartOptions) -> tuple[str | None, list[ParsedPart]]:
    """Return the words without an option, if they are words, and all parts; the name of an image file is an image.

    Raises:
        UsageError: several words without quotes, or words that name an image or an address.
    """
    from diptych.search.query_words import names_an_image

    words = _one_text(query)
    images = list(options.image or ())
    if words and names_an_image(words[0]):
        say(f"{words[0]}: is an image file, and is taken as --image; for these words use --text")
        words, images = [], [words[0], *images]
    for text in words:
        _check_words(text, "--image")
    for text in options.not_text or ():
        _check_words(text, "--not-image")
    given = (
        ("text", [*words, *(options.text or ())], True),
        ("image", images, True),
        ("id", options.like or (), True),
        ("text", options.not_text or (), False),
        ("image", options.not_image or (), False),
        ("id", options.not_like or (), False),
    )
    parts = [ParsedPart(kind, value, wanted) for kind, values, wanted in given for value in values]
    return (words[0] if words else None), parts


def parse_weights(parts: Sequence[ParsedPart], pairs: Sequence[tuple[str, float]]) -> dict[ParsedPart, float]:
    """Return the parts that `--weight` names, with their weights, above 0."""
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


def query_part(index: "Index", parsed: ParsedPart, weights: Mapping[ParsedPart, float]) -> "QueryPart":
    """Return a part as the index is asked for it."""
    from diptych.search.query import UNWANTED, QueryPart

    default = 1.0 if parsed.wanted else UNWANTED
    weight = math.copysign(weights.get(parsed, default), default)
    match parsed.kind:
        case "text":
            return QueryPart(text=parsed.value, weight=weight)
        case "image":
            return QueryPart(image=Path(parsed.value), weight=weight)
    id_ = index.id_of(parsed.value)
    if id_ is None:
        raise SearchIndexError(
            f"{parsed.value}: not in the index {index.place}; for an image outside it use --image FILE"
        )
    return QueryPart(id=id_, weight=weight)


def _one_text(words: Sequence[str]) -> list[str]:
    """Return the words without an option, if there are any."""
    # Not joined: of `cat --not brown dog` the shell leaves no trace of which words belong together.
    if len(words) > 1:
        raise UsageError(
            f'{" ".join(words)!r}: the words of a text need quotes around them, as in: diptych search "a red bicycle"'
        )
    return [word for word in words if word]


def _check_words(text: str, option: str) -> None:
    """Refuse an address or the name of a file as words: it would be searched for letter by letter."""
    from diptych.search.query_words import check_words

    try:
        check_words(text, as_image=f"{option} {{}}", as_words="--text")
    except SettingsError as error:
        raise UsageError(str(error)) from None
