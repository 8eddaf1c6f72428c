"""What `--grid` and `--random` of `diptych sweep` say."""

import json
import math
import tomllib

from diptych.errors import SettingsError
from diptych.runs.sweep_plan import Grid, Range


def parse_grid(text: str) -> Grid:
    """Read `section.key=value,value`; a value that is not TOML is a string."""
    key, values = _split(text, "--grid", "optimizer.learning_rate=1e-4,3e-4")
    try:
        found = tomllib.loads(f"values = [{values}]")["values"]
    except tomllib.TOMLDecodeError:
        found = [part.strip() for part in values.split(",")]
    if len({json.dumps(value, default=str) for value in found}) != len(found):
        raise SettingsError(f"--grid {text!r}: a value is there twice")
    return Grid(key, tuple(found))


def parse_range(text: str) -> Range:
    """Read `section.key=low..high`."""
    key, ends = _split(text, "--random", "optimizer.weight_decay=0.01..0.5")
    try:
        low, high = (_number(end) for end in ends.split(".."))
    except ValueError:
        raise SettingsError(
            f"--random {text!r}: expected two numbers, such as optimizer.weight_decay=0.01..0.5"
        ) from None
    if not low < high:
        raise SettingsError(f"--random {text!r}: expected the smaller number first")
    return Range(key, low, high)


def _split(text: str, option: str, example: str) -> tuple[str, str]:
    key, separator, values = (part.strip() for part in text.partition("="))
    if not separator or not key or not values:
        raise SettingsError(f"{option} {text!r}: expected section.key=..., such as {example}")
    return key, values


def _number(text: str) -> float:
    """Return an int if it is written as one, else a float."""
    value = tomllib.loads(f"value = {text}")["value"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(text)
    return value
