"""Plots by matplotlib: drawn in the colours of the package, and written as SVG or PNG that come out the same again."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from diptych.atomic import atomic_write
from diptych.errors import MissingExtraError, SettingsError
from diptych.palette import colours

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RESOLUTION = 200  # dots an inch, of PNG
_DRAWN = ("ink", "quiet", "line", "grid", "panel", *(f"c{number}" for number in range(8)))


def colour(name: str) -> str:
    """Return a colour of the palette on light paper; `save_plot` says what it becomes on dark paper."""
    return colours()[name].light


@contextmanager
def plot_style() -> Iterator[None]:
    """Draw in the palette's colours with quiet axes, while the context lasts.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError("matplotlib", "eval", "drawing a plot") from None
    shades = {
        colour("panel"): ("figure.facecolor", "axes.facecolor", "savefig.facecolor"),
        colour("ink"): ("text.color", "axes.titlecolor"),
        colour("quiet"): ("axes.labelcolor", "xtick.color", "ytick.color", "legend.labelcolor"),
        colour("line"): ("axes.edgecolor",),
        colour("grid"): ("grid.color",),
    }
    settings: dict[Any, Any] = {name: shade for shade, names in shades.items() for name in names}
    settings |= {"svg.hashsalt": "diptych", "svg.fonttype": "path", "axes.grid": True, "axes.axisbelow": True}
    settings |= {"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
    with matplotlib.rc_context(rc=settings):
        yield


def plot_ending(path: str | os.PathLike[str]) -> str:
    """Return "svg" or "png".

    Raises:
        SettingsError: the name of the file ends otherwise.
    """
    ending = Path(path).suffix.lower()
    if ending not in (".svg", ".png"):
        raise SettingsError(f"{path}: a plot is written as .svg or .png; give a name that ends so")
    return ending[1:]


def save_plot(figure: "Figure", path: str | os.PathLike[str], title: str) -> None:
    """Write a figure that was drawn in `plot_style`, by the ending of `path`; an SVG has `title` for screen readers."""
    ending, drawn = plot_ending(path), io.BytesIO()
    # Neither the date nor the program's version: the same figure gives the same bytes.
    without: dict[str, Any] = {"Date": None, "Creator": None} if ending == "svg" else {"Software": None}
    figure.savefig(drawn, format=ending, dpi=_RESOLUTION, metadata=without)
    with atomic_write(path) as file:
        file.write(drawn.getvalue() if ending == "png" else _for_dark_screens(drawn.getvalue(), title))


def _for_dark_screens(drawn: bytes, title: str) -> bytes:
    """Return the SVG with a style sheet that exchanges its colours on a dark screen, and a title.

    matplotlib writes a colour into each element's style, where only `!important` reaches. A program that knows no
    media queries shows the light version.
    """
    rules = "".join(
        f'[style*="{what}: {light}"]{{{what}:{dark}!important}}'
        for light, dark in map(colours().__getitem__, _DRAWN)
        for what in ("fill", "stroke")
    )
    style = f"<style>@media (prefers-color-scheme:dark){{{rules}}}</style>"
    head, opening, rest = drawn.decode("utf-8").partition("<svg ")
    tag, end, body = rest.partition(">")
    return f'{head}{opening}role="img" {tag}{end}\n <title>{escape(title)}</title>\n {style}{body}'.encode()
