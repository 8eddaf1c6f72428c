"""The files that a path with `*`, `{a,b}` or `{000..003}` stands for, on a disk or behind an address."""

import difflib
import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from diptych.data.files.places import Place, place_of
from diptych.data.files.remote import RemotePath, is_address
from diptych.errors import DataError

Location = str | os.PathLike[str]


def expand(location: Location, expected: str = "check the path") -> list[Place]:
    """Return the files that match a path with `*`, `?`, `[...]`, `{a,b}` or `{000..003}`.

    Braces keep their order, and each alternative must exist, so that a missing shard is noticed. The matches of a `*`
    are sorted by name. A file whose own name has such characters is returned as it is.

    expected: the remedy in the message for a path that does not exist and has no near name.

    Raises:
        DataError: no such file, or braces inside braces.
    """
    name = os.fspath(location)
    if place_of(name).exists():
        return [place_of(name)]
    if re.search(r"\{[^}]*\{", name):
        raise DataError(f"{name}: nested braces are not supported; give a list of patterns instead")
    paths: list[Place] = []
    for alternative in _braces(name):
        place = place_of(alternative)
        found = [place] if place.exists() else matching(place)
        if not found:
            raise _missing(alternative, expected)
        paths += found
    return paths


def matching(pattern: Place) -> Sequence[Place]:
    """Return the existing files that match a pattern, sorted by name; possibly none."""
    if isinstance(pattern, RemotePath):
        return pattern.glob()
    return [Path(name) for name in sorted(glob.glob(str(pattern), recursive=True))]


def _missing(name: str, expected: str) -> DataError:
    """Return the error for a path that does not exist, with the nearest name that does."""
    if glob.has_magic(name):
        return DataError(f"{name}: no file matches this pattern; check the path")
    if is_address(name):
        return DataError(f"{name}: no such file; check the address")
    path = Path(name)
    names = os.listdir(path.parent) if path.parent.is_dir() else []
    nearest = difflib.get_close_matches(path.name, names, n=1)
    hint = f"did you mean {path.with_name(nearest[0])}?" if nearest else expected
    return DataError(f"{name}: no such file or folder; {hint}")


def _braces(pattern: str) -> Iterator[str]:
    """Expand `a{b,c}d` and `a{00..02}d` as a shell does; leading zeros set the width."""
    match = re.search(r"\{([^{}]*(?:,|\.\.)[^{}]*)\}", pattern)
    if match is None:
        yield pattern
        return
    before, after = pattern[: match.start()], pattern[match.end() :]
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", match[1])
    if numbers:
        first, last = int(numbers[1]), int(numbers[2])
        width = len(numbers[1]) if numbers[1].startswith("0") else 0
        step = 1 if first <= last else -1
        alternatives: Iterator[str] = (f"{number:0{width}}" for number in range(first, last + step, step))
    else:
        alternatives = iter(match[1].split(","))
    for alternative in alternatives:
        yield from _braces(before + alternative + after)
