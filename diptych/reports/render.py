"""Pages from templates: jinja2 with autoescape, the package's palette and one stylesheet inside every page."""

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diptych
from diptych import wording
from diptych.palette import PALETTE

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup

TEMPLATES = Path(__file__).with_name("templates")


def render_page(template: str, *, folder: Path | None = None, **values: Any) -> str:
    """Return a template as one self-contained HTML page.

    folder: where the template is, if not in `templates`; it may extend and import those of the package.

    Every value is escaped, and a value that a template misspells is an error, not a blank.
    """
    return _environment(folder or TEMPLATES, autoescape=True).get_template(template).render(values)


def render_text(file: Path, **values: Any) -> str:
    """Return a Markdown template with its values as they are: for our own words and numbers alone."""
    return _environment(file.parent, autoescape=False).get_template(file.name).render(values)


@cache
def _environment(folder: Path, *, autoescape: bool) -> "jinja2.Environment":
    # Not while `diptych --help` is printed.
    import jinja2  # noqa: PLC0415

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, TEMPLATES]),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_unbroken if autoescape else None,
    )
    environment.filters |= {
        "percent": wording.percent,
        "duration": wording.duration,
        "words": lambda name: name.replace("_", " "),
        "breakable": _breakable,
    }
    style = PALETTE.read_text("utf-8") + Path(__file__).with_name("style.css").read_text("utf-8")
    environment.globals |= {"style": style, "version": diptych.__version__}
    return environment


def _unbroken(value: Any) -> Any:
    """Keep a number on one line with its unit."""
    return value.replace(" %", "\u00a0%") if isinstance(value, str) else value


def _breakable(name: str) -> "Markup":
    """Let a narrow column break a long name after its underscores, dots and slashes."""
    from markupsafe import Markup  # noqa: PLC0415

    return Markup("<wbr>").join(re.split(r"(?<=[_./])", name))
