"""What stands in the place of pictures: what is so, and what to do next."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from diptych.errors import DiptychError, SearchIndexError
from diptych.serving.batching import OverloadedError
from diptych.serving.page.filter_form import Filters
from diptych.serving.page.page_state import State

FORGOTTEN = "An uploaded picture of this question is no longer kept. Drop it on the page again."


@dataclass(frozen=True, slots=True)
class Message:
    """`links`: words and address. `command`: for a shell."""

    title: str
    text: str
    links: tuple[tuple[str, str], ...] = ()
    command: str = ""


def explained(error: DiptychError, state: State) -> tuple[Message, int, dict[str, str]]:
    """What an error means to whoever asked, with the status and the headers of the answer."""
    again = ("Try again", f"/{state.query()}")
    if isinstance(error, OverloadedError):
        text = "More questions are waiting than this server answers at once."
        return (
            Message("The server is busy", text, (again,)),
            429,
            {"Retry-After": str(error.retry_after)},
        )
    if isinstance(error, SearchIndexError):
        text = "The index cannot be read just now. Its keeper finds the reason in the server's log."
        return Message("The index cannot be read", text, (again, ("All pictures", "/"))), 503, {}
    links = tuple(_ways_out(state)) or (("All pictures", "/"),)
    return Message("This question cannot be asked", str(error), links), 400, {}


def no_matches(state: State) -> Message:
    """For a question that no picture meets."""
    if state.offset:
        text = "There are no more pictures here."
    elif state.hide_weak and state.min_score is not None:
        text = f"No picture scores {state.min_score:g} or more."
    elif state.filters:
        text = "No picture meets the filters."
    else:
        text = "The index has no other pictures."
    return Message("No matches", text, tuple(_ways_out(state)) or (("All pictures", "/"),))


def no_such_picture(state: State) -> Message:
    """For the page of a picture that is not in the index."""
    links = (("Back to the results", f"/{state.query()}"), ("All pictures", "/"))
    return Message(
        "This picture is not here", "It has been removed from the index, or the address is wrong.", links
    )


def empty_index(place: str) -> Message:
    """For an index without a picture."""
    text = "The index is empty. Add a folder of pictures; the page shows them as soon as they are there."
    return Message("No pictures yet", text, (("Look again", "/"),), f"diptych index FOLDER --index {place}")


def _ways_out(state: State) -> Iterator[tuple[str, str]]:
    """The same question with less in the way."""
    if state.offset:
        yield "First page", f"/{state.first_page().query()}"
    if state.hide_weak:
        yield "Show weaker matches", f"/{replace(state.first_page(), hide_weak=False).query()}"
    if state.filters:
        yield "Without the filters", f"/{replace(state.first_page(), filters=Filters()).query()}"
