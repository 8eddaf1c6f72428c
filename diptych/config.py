"""Read settings: frozen dataclasses are the schema, TOML files hold the values, `--set section.key=value` overrides.

Reading is strict: an unknown name, or a value of the wrong type, is an error that names the place and the nearest
known name. Nothing is executed or inherited.
"""

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from diptych.errors import SettingsError

T = TypeVar("T")
Values = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class OneOf:
    """Mark a setting, by `Annotated`, as one of several tables, which its `name` chooses; without it, the first.

    kind: what the tables are of, for messages, such as "approach". tables: dataclasses by name.
    """

    kind: str
    tables: Mapping[str, type[Any]]

    def chosen(self, values: Mapping[str, Any], where: str) -> type[Any]:
        """Return the table that `values` name.

        Raises:
            SettingsError: there is no table of that name.
        """
        name = values.get("name", next(iter(self.tables)))
        if not isinstance(name, str) or name not in self.tables:
            raise SettingsError(
                f"{where} name: {name!r} is not an {self.kind}; {nearest(str(name), self.tables)}"
            )
        return self.tables[name]


def read_toml(path: str | Path) -> Values:
    """Read the tables of a TOML file as nested dictionaries."""
    file = Path(path)
    try:
        with file.open("rb") as opened:
            return tomllib.load(opened)
    except FileNotFoundError:
        raise SettingsError(f"{file}: no such file; expected a TOML file of settings") from None
    except IsADirectoryError:
        raise SettingsError(f"{file}: is a folder; expected a TOML file of settings") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: is not valid TOML: {error}") from None


def override(values: Mapping[str, Any], assignments: Iterable[str]) -> Values:
    """Return a copy of `values` with `section.key=value` assignments applied; the value is read as TOML.

    A value that is not TOML is taken as a string, so `--set data.train=photos/` needs no second quotes.
    """
    result: Values = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()
    }
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        keys = [key.strip() for key in name.split(".")]
        if not separator or not all(keys):
            raise SettingsError(f"--set {assignment!r}: expected section.key=value")
        table = result
        for key in keys[:-1]:
            inner = table.get(key, {})
            if not isinstance(inner, Mapping):
                raise SettingsError(f"--set {assignment!r}: {key!r} is a value, not a table")
            table[key] = dict(inner)
            table = table[key]
        try:
            table[keys[-1]] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            table[keys[-1]] = text.strip()
    return result


def build(schema: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build an instance of the dataclass `schema` from plain values. where: their origin, for errors."""
    if not dataclasses.is_dataclass(schema):
        raise TypeError(f"{schema!r} is not a dataclass")
    hints = typing.get_type_hints(schema, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(schema) if field.init}
    for name in values:
        if name not in fields:
            raise SettingsError(f"{where}: unknown setting {name!r}; {nearest(name, fields)}")
    arguments = {
        name: _convert(hints[name], value, f"{where} {name}" if "[" in where else f"{where} [{name}]")
        for name, value in values.items()
    }
    required = [
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
        and name not in arguments
    ]
    if required:
        raise SettingsError(f"{where}: missing setting {required[0]!r}; add it")
    try:
        return schema(**arguments)
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from None


def plain(settings: Any) -> Any:
    """Convert settings to dictionaries, lists, numbers, strings and booleans, for JSON and TOML; `None` is left out."""
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        pairs = ((field.name, getattr(settings, field.name)) for field in dataclasses.fields(settings))
        return {name: plain(value) for name, value in pairs if value is not None}
    if isinstance(settings, Mapping):
        return {str(key): plain(value) for key, value in settings.items() if value is not None}
    if isinstance(settings, list | tuple):
        return [plain(value) for value in settings]
    return settings


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint for an unknown name: the nearest known one, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        choice = next((mark for mark in arguments[1:] if isinstance(mark, OneOf)), None)
        table = arguments[0] if choice is None else choice.chosen(_expect_table(value, where), where)
        return _convert(table, value, where)
    if origin is typing.Union or origin is types.UnionType:
        return _convert_union(arguments, value, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise SettingsError(f"{where}: {value!r} is not one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise SettingsError(f"{where}: expected a list, found {value!r}")
        inner = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(inner) != len(value):
            raise SettingsError(f"{where}: expected {len(inner)} values, found {len(value)}")
        return tuple(_convert(item_hint, item, where) for item_hint, item in zip(inner, value, strict=True))
    if origin is dict:
        items = _expect_table(value, where).items()
        return {key: _convert(arguments[1], item, where) for key, item in items}
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type[Any], hint), _expect_table(value, where), where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is not Any and (not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool)):
        raise SettingsError(f"{where}: expected {hint.__name__}, found {value!r}")
    return value


def _expect_table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SettingsError(f"{where}: expected a table, found {value!r}")
    return value


def _convert_union(options: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in options:
        return None
    reasons = []
    for option in options:
        if option is type(None):
            continue
        try:
            return _convert(option, value, where)
        except SettingsError as error:
            reasons.append(error)
    # A table was meant for the dataclass that shares most of its names: the error of that dataclass helps most.
    if isinstance(value, Mapping):
        tables = [
            (len({field.name for field in dataclasses.fields(option)} & set(value)), -position)
            for position, option in enumerate(option for option in options if option is not type(None))
            if dataclasses.is_dataclass(option)
        ]
        if tables:
            raise reasons[-max(tables)[1]]
    raise reasons[-1]
