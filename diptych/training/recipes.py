"""The recipes that ship with the package."""

from pathlib import Path

import diptych
from diptych.config import build, nearest, override, read_toml
from diptych.errors import SettingsError
from diptych.training.settings import Recipe
from diptych.training.unread import approach_of_method, choices, refuse_unread, without_unread


def load_recipe(location: str, assignments: tuple[str, ...] = ()) -> Recipe:
    """Return the recipe of a file or of a shipped name, with `section.key=value` assignments applied."""
    file = Path(location)
    if not file.suffix and not file.is_file():  # a folder of that name, such as that of a run, is no recipe
        file = path(location)
    values = read_toml(file)
    # The length of a run has two names: the one that is asked for takes the place of the other.
    for asked, other in (("steps", "samples"), ("samples", "steps")):
        if any(assignment.split("=")[0].strip() == f"training.{asked}" for assignment in assignments):
            values.get("training", {}).pop(other, None)
    given = override(values, assignments)
    if choices(given) != choices(values):
        # An assignment chose another approach: what only the file's own one reads goes with it.
        given = override(without_unread(values, given), assignments)
    given = approach_of_method(given)
    refuse_unread(given, given, str(file))
    return build(Recipe, given, str(file))


def path(name: str) -> Path:
    """Return the file of a shipped recipe, such as "sample"."""
    known = {file.stem: file for file in _folder().glob("*.toml")}
    if name not in known:
        raise SettingsError(
            f"no recipe file {name!r}, nor a shipped recipe of that name; {nearest(name, known)}"
        )
    return known[name]


def _folder() -> Path:
    package = Path(diptych.__file__).parent
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "recipes"
