"""The options of an evaluation task's verb, made from the task's settings, so that they are written once."""

import dataclasses
import inspect
import typing
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any

from cyclopts import Parameter

from diptych.cli.options import Data
from diptych.errors import UsageError
from diptych.evaluation.tasks import Option, TaskSettings


def options_of(settings: type[TaskSettings]) -> list[inspect.Parameter]:
    """Return a keyword parameter, as cyclopts reads it, for `data` and each setting that has an `Option`.

    A list of numbers is one text with commas; a setting that takes one value or several takes one here.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(settings)}
    hints = typing.get_type_hints(settings, include_extras=True)
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_default(defaults[name]),
            annotation=Data if name == "data" and _option(hint) is None else _annotation(hint),
        )
        for name, hint in hints.items()
        if name == "data" or _option(hint) is not None
    ]


def parameter(settings: type[TaskSettings], name: str) -> Parameter:
    """Return the option of one setting, for a verb that is not a task's own."""
    option = _option(typing.get_type_hints(settings, include_extras=True)[name])
    assert option is not None
    return Parameter(name=option.flags or None, help=option.help, negative="")


def values_of(settings: type[TaskSettings], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that were given, by their names, as `settings` takes them.

    Raises:
        UsageError: a list of numbers that is not one.
    """
    hints = typing.get_type_hints(settings)
    return {
        name: _numbers(value, name) if typing.get_origin(hints[name]) is tuple else value
        for name, value in given.items()
    }


def _option(hint: Any) -> Option | None:
    return next((extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Option)), None)


def _annotation(hint: Any) -> Any:
    option = _option(hint)
    assert option is not None
    return Annotated[
        _on_the_command_line(typing.get_args(hint)[0]),
        Parameter(name=option.flags or None, help=option.help, negative=""),
    ]


def _on_the_command_line(hint: Any) -> Any:
    if typing.get_origin(hint) is tuple:
        return str
    if typing.get_origin(hint) in (UnionType, typing.Union):
        single = [inner for inner in typing.get_args(hint) if typing.get_origin(inner) is not tuple]
        return typing.Union[tuple(single)]  # noqa: UP007 - of a list that is only known now
    return hint


def _default(value: Any) -> Any:
    if value is dataclasses.MISSING:
        return inspect.Parameter.empty
    return ",".join(map(str, value)) if isinstance(value, tuple) else value


def _numbers(text: str, name: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise UsageError(
            f"--{name.replace('_', '-')} {text!r}: expected whole numbers with commas, such as 1,2,4"
        ) from None
