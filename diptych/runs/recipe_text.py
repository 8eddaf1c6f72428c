"""Settings as the text of a recipe."""

import json
from collections.abc import Mapping
from typing import Any

from diptych.config import plain
from diptych.training.settings import Recipe
from diptych.training.unread import without_unread


def recipe_text(recipe: Recipe) -> str:
    """Return a whole recipe as TOML, which `diptych train` reads again; default values are there too.

    Settings of other approaches, optimizers and methods are left out.
    """
    values = without_unread(plain(recipe), plain(recipe))
    return "\n\n".join(section_text(name, section) for name, section in values.items()) + "\n"


def section_text(section: str, values: Any) -> str:
    """Return a section as a recipe has it; nested tables on one line."""
    items = values.items() if isinstance(values, Mapping) else ()
    return "\n".join([f"[{section}]", *(f"{key} = {_inline(value)}" for key, value in items)])


def _inline(value: Any) -> str:
    if isinstance(value, Mapping) and value:
        return "{ " + ", ".join(f"{_key(key)} = {_inline(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return f"[{', '.join(map(_inline, value))}]"
    return json.dumps(value)


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else json.dumps(key)
