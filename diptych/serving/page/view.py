"""Compute what the templates show: cards, chips, links. No HTML is here, and no decision is in the templates."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from diptych.search.query import Answer, Match
from diptych.search.stores.image_rows import Item
from diptych.serving.page.filter_form import Filters
from diptych.serving.page.page_state import PAGE, State, Term, shortest
from diptych.wording import file_size

# An image up to this many pixels a side is shown at no more than twice its size.
SMALL = 160
STACKED = 12  # the most duplicates that a card names

_PICTURES = {"like": "the chosen picture", "picture": "your picture"}
_FILTER_NAMES = {
    "name": "name",
    "caption": "caption",
    "label": "label",
    "tags": "tags",
    "shape": "shape",
    "width": "width at least",
    "height": "height at least",
    "taken_from": "taken from",
    "taken_to": "taken until",
    "camera": "camera",
    "near": "near",
    "after": "changed from",
    "before": "changed until",
    "filter": "filter",
}


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A duplicate of another image, and the address of its page."""

    name: str
    page: str


@dataclass(frozen=True, slots=True)
class Card:
    """One image of the grid."""

    id: str
    name: str
    caption: str
    alt: str
    score: str  # empty without a query
    taken: str  # the day; empty if unknown, or if the order is not by time
    weak: bool
    thumbnail: str  # its address; empty if there is none
    width: int
    height: int
    small: bool
    stacked: int  # number of duplicates
    duplicates: tuple["Duplicate", ...]  # the first `STACKED`
    page: str  # addresses
    similar: str
    exclude: str


@dataclass(frozen=True, slots=True)
class Chip:
    """One part of the query. `thumbnail` is empty for a text."""

    name: str  # of its field
    value: str
    words: str
    strength: str
    negative: bool
    thumbnail: str
    without: str  # addresses of the query without this part, and with its sign turned
    turned: str


@dataclass(frozen=True, slots=True)
class Pill:
    """One active filter, and the address without it."""

    words: str
    without: str


@dataclass(frozen=True, slots=True)
class Slider:
    """The threshold: its range, its value, and a mark for each score, 0..100 from the left."""

    least: str
    most: str
    value: str
    marks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Results:
    """One page of results."""

    cards: tuple[Card, ...]
    first_weak: int | None  # index of the first card below the threshold
    slider: Slider | None
    summary: str
    seconds: str  # empty without a query
    previous: str  # addresses; empty if there is no such page
    next: str
    suggestions: tuple[tuple[str, str], ...] = ()  # text and address


def shown(text: str) -> str:
    """Replace what is not valid Unicode, in a file name for example, by question marks, so that it can be sent."""
    return text.encode("utf-8", "replace").decode("utf-8")


def name_of(item: Item) -> str:
    """Return the last part of an image's path."""
    return shown(item.uri.rstrip("/").rsplit("/", 1)[-1].rsplit("#", 1)[-1] or item.uri)


def thumbnail_of(item: Item) -> str:
    return f"/v1/items/{item.id}/thumbnail" if item.thumbnail else ""


def original_of(item: Item) -> str:
    """Return the address of the original file; empty if the image is not a file of its own."""
    return f"/v1/items/{item.id}/picture" if item.mtime_ns is not None and item.uri.startswith("/") else ""


def shows_in_browsers(item: Item) -> bool:
    """Return whether browsers can show the original file, by its name."""
    return item.uri.lower().endswith((".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".avif"))


def tags(item: Item) -> tuple[tuple[str, str], ...]:
    """Return an image's tags, each with the address of the images that have it."""
    known = dict.fromkeys(tag for tag in item.tags if "," not in tag)  # the form separates tags by commas
    return tuple((shown(tag), f"/{State(filters=Filters(tags=tag)).query()}") for tag in known)


def browsed_heading(state: State, total: int) -> str:
    """Return the heading of the page without a query."""
    kind = "picture" if total == 1 else "pictures"
    match = "matches" if total == 1 else "match"
    return f"{total:,} {kind} {match} the filters" if state.filters else f"Search {total:,} {kind}"


def heading(state: State) -> str:
    """Return the heading of the page for a query."""
    wanted = [_words(term) for term in state.terms if term.weight > 0]
    unwanted = [_words(term) for term in state.terms if term.weight < 0]
    like = f"Pictures like {' and '.join(wanted)}" if wanted else "Pictures"
    return like + (f", not {' or '.join(unwanted)}" if unwanted else "")


def _words(term: Term) -> str:
    return f"“{shown(term.value)}”" if term.kind == "q" else _PICTURES[term.kind]


def card(state: State, item: Item, score: float | None = None, duplicates: Sequence[Item] = ()) -> Card:
    """Return the card of one image in the results of `state`."""
    caption = shown(item.caption or "")
    return Card(
        id=item.id,
        name=name_of(item),
        caption=caption,
        alt=caption or name_of(item),
        score="" if score is None else f"{score:.3f}",
        taken=(item.taken or "")[:10] if state.sort else "",
        weak=score is not None and state.min_score is not None and score < state.min_score,
        thumbnail=thumbnail_of(item),
        width=item.width,
        height=item.height,
        small=0 < max(item.width, item.height) <= SMALL,
        stacked=len(duplicates),
        duplicates=tuple(Duplicate(name_of(other), _page_of(state, other)) for other in duplicates[:STACKED]),
        page=_page_of(state, item),
        similar=f"/{state.similar_to(item.id).query()}",
        exclude=f"/{state.excluding(item.id).query()}",
    )


def found_results(state: State, answer: Answer) -> Results:
    """Return one page of an answer. Weak matches come last."""
    ordered = answer.found
    if state.min_score is not None:
        # Variety may rank a weak match high; move it below the divider, in order.
        ordered = tuple(sorted(ordered, key=lambda one: one.score < (state.min_score or 0)))
    cards = tuple(card(state, one.item, one.score, one.duplicates) for one in ordered)
    weak = next((place for place, one in enumerate(cards) if one.weak), None)
    seconds = answer.seconds_embedding + answer.seconds_searching
    return Results(
        cards=cards,
        first_weak=weak,
        slider=slider(state, answer.found),
        summary=_summary(state, len(cards), answer.more),
        seconds=f"{1000 * seconds:.0f} ms",
        previous=_page(state, state.offset - PAGE) if state.offset else "",
        next=_page(state, state.offset + PAGE) if answer.more else "",
    )


def browsed_results(state: State, items: Sequence[Item], *, total: int) -> Results:
    """Return one page of images without a query, at most `PAGE`. `total` counts all that match the filters."""
    end = state.offset + len(items)
    kind = "picture" if total == 1 else "pictures"
    where = f"{state.offset + 1:,} to {end:,} of " if state.offset or end < total else ""
    return Results(
        cards=tuple(card(state, item) for item in items),
        first_weak=None,
        slider=None,
        summary=f"{where}{total:,} {kind}" if items else "No pictures",
        seconds="",
        previous=_page(state, state.offset - PAGE) if state.offset else "",
        next=_page(state, state.offset + PAGE) if end < total else "",
        suggestions=() if state.filters or state.offset else suggestions(items),
    )


def suggestions(items: Sequence[Item]) -> tuple[tuple[str, str], ...]:
    """Return up to four short captions, each with the address that searches for it."""
    words = dict.fromkeys(shown(item.caption) for item in items if item.caption and len(item.caption) <= 28)
    return tuple((text, f"/{State(terms=(Term('q', text),)).query()}") for text in islice(words, 4))


def slider(state: State, found: Sequence[Match]) -> Slider | None:
    """Return the threshold's slider. Its range covers the scores on this page and the present threshold."""
    scores = [one.score for one in found]
    if not scores:
        return None
    wanted = [] if state.min_score is None else [state.min_score]
    least = math.floor(100 * min(scores + wanted)) / 100
    most = max(math.ceil(100 * max(scores + wanted)) / 100, least + 0.01)
    return Slider(
        least=shortest(least),
        most=shortest(most),
        value="" if state.min_score is None else shortest(state.min_score),
        marks=tuple(f"{100 * (score - least) / (most - least):.2f}" for score in scores),
    )


def chips(state: State, thumbnails: Mapping[tuple[str, str], str]) -> tuple[Chip, ...]:
    """Return the parts of the query, except the text in the search box. `thumbnails`: addresses by kind and value."""
    main = search_box(state)
    return tuple(
        Chip(
            name=term.name,
            value=term.value,
            words=shown(term.value) if term.kind == "q" else _PICTURES[term.kind],
            strength=term.strength,
            negative=term.weight < 0,
            thumbnail=thumbnails.get((term.kind, term.value), ""),
            without=f"/{state.without_term(term).query()}",
            turned=f"/{state.with_term(term.turned()).query()}",
        )
        for term in state.terms
        if term != main
    )


def search_box(state: State) -> Term | None:
    """Return the part in the search box: the first text with a positive weight."""
    return next((term for term in state.terms if term.kind == "q" and term.weight > 0), None)


def pills(state: State) -> tuple[Pill, ...]:
    """Return the active filters."""
    return tuple(
        Pill(
            words=f"{_FILTER_NAMES[name]}: {shown(value)}",
            without=f"/{replace(state.first_page(), filters=without(state.filters, name)).query()}",
        )
        for name, value in state.filters.active().items()
    )


def without(filters: Filters, name: str) -> Filters:
    """Return the filters without one field. (`replace` cannot be typed with a variable name.)"""
    return Filters(**{key: value for key, value in filters.active().items() if key != name})


def facts(item: Item) -> tuple[tuple[str, str], ...]:
    """Return the fields of an image for people: name and value."""
    known: list[tuple[str, str]] = [("File", shown(item.uri)), ("Source", shown(item.source))]
    if item.width:
        known.append(("Size", f"{item.width:,} by {item.height:,} pixels, {file_size(item.size)}"))
    known += [("Caption", shown(caption)) for caption in item.captions[1:]]
    if item.taken is not None:
        known.append(("Taken", _clock(item.taken)))
    if item.camera is not None:
        known.append(("Camera", shown(item.camera)))
    if item.latitude is not None and item.longitude is not None:
        known.append(("Place", f"{item.latitude:.6f}, {item.longitude:.6f}"))
    if item.mtime_ns is not None:
        known.append(("Modified", f"{_moment(item.mtime_ns)} UTC"))
    if item.label:
        known.append(("Label", shown(item.label)))
    known += [(_sentence(shown(str(key))), _value(value)) for key, value in item.metadata.items()]
    return tuple(known)


def _summary(state: State, count: int, more: bool) -> str:
    if not count:
        return "No matches"
    if state.offset or more:
        return f"Matches {state.offset + 1:,} to {state.offset + count:,}"
    return "1 match" if count == 1 else f"{count:,} matches"


def _page_of(state: State, item: Item) -> str:
    return f"/pictures/{item.id}{state.query()}"


def _page(state: State, offset: int) -> str:
    return f"/{replace(state, offset=max(0, offset)).query()}"


def _moment(nanoseconds: int) -> str:
    try:
        return datetime.fromtimestamp(nanoseconds / 1e9, UTC).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError):
        return f"{nanoseconds / 1e9:.0f} seconds after 1970"


def _clock(taken: str) -> str:
    """Format the camera's time to the second, with its offset from UTC if known."""
    moment = datetime.fromisoformat(taken)
    offset = moment.strftime("%z")
    return f"{moment:%Y-%m-%d %H:%M:%S}" + (f" (UTC{offset[:3]}:{offset[3:]})" if offset else "")


def _value(value: Any) -> str:
    return shown(", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]
