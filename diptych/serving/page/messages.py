"""The messages that the page shows instead of results: what happened, and what to do next."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from diptych.errors import DiptychError, SearchIndexError
from diptych.serving.batching import OverloadedError
from diptych.serving.page.filter_form import Filters
from diptych.serving.page.page_state import State

FORGOTTEN = "A picture that you uploaded for this search is no longer stored. Upload it again."


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the page. `links`: text and address. `command`: for a shell."""

    title: str
    text: str
    links: tuple[tuple[str, str], ...] = ()
    command: str = ""


def explained(error: DiptychError, state: State) -> tuple[Message, int, dict[str, str]]:
    """Explain an error to a person. Return the message, the status and the headers of the answer."""
    again = ("Try again", f"/{state.query()}")
    if isinstance(error, OverloadedError):
        text = "Too many searches are waiting. Try again in a moment."
        return (
            Message("The server is busy", text, (again,)),
            429,
            {"Retry-After": str(error.retry_after)},
        )
    if isinstance(error, SearchIndexError):
        text = (
            "The index cannot be read at the moment. The administrator finds the reason in the server's log."
        )
        return Message("The index cannot be read", text, (again, ("All pictures", "/"))), 503, {}
    links = tuple(_ways_out(state)) or (("All pictures", "/"),)
    return Message("This search cannot be run", str(error), links), 400, {}


def no_matches(state: State) -> Message:
    """Return the message for a search without results."""
    if state.offset:
        text = "There are no more results."
    elif state.hide_weak and state.min_score is not None:
        text = f"No picture scores {state.min_score:g} or more."
    elif state.filters:
        text = "No picture matches the filters."
    else:
        text = "The index has no other pictures."
    return Message("No matches", text, tuple(_ways_out(state)) or (("All pictures", "/"),))


def no_such_picture(state: State) -> Message:
    """Return the message for the page of a picture that is not in the index."""
    links = (("Back to the results", f"/{state.query()}"), ("All pictures", "/"))
    return Message("Picture not found", "It was removed from the index, or the address is wrong.", links)


def empty_index(place: str) -> Message:
    """Return the message for an empty index."""
    text = "The index is empty. Add a folder of pictures with this command; then look again."
    return Message("No pictures yet", text, (("Look again", "/"),), f"diptych index FOLDER --index {place}")


def _ways_out(state: State) -> Iterator[tuple[str, str]]:
    """Yield links to the same search with fewer restrictions."""
    if state.offset:
        yield "First page", f"/{state.first_page().query()}"
    if state.hide_weak:
        yield "Show weak matches", f"/{replace(state.first_page(), hide_weak=False).query()}"
    if state.filters:
        yield "Without the filters", f"/{replace(state.first_page(), filters=Filters()).query()}"
