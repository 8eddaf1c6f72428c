"""Keep the SHA-256 of every file of a table beside the table, in the form that `sha256sum -c` reads.

Lance has no checksums of its own, but never changes a written file, except one hint. A write adds files with new names,
and a cleaning removes some. So the line of a file stays true as long as the file exists. Files of an interrupted write
have no line until the next write, and belong to nothing that was acknowledged.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from diptych.atomic import atomic_write, sha256_of, sync_folder
from diptych.errors import SearchIndexError

# The one file that is changed in place. It names the latest version, and is checked against the files of the versions.
_HINT = "_versions/latest_version_hint.json"
# The offset of the name in a line: behind the hash and two spaces.
_NAME_AT = 66
# This line marks that files are being removed, so that a line without its file is not damage.
_CLEANING = b"# cleaning\n"
# Lance names versions so that the latest comes first.
_LAST_VERSION = 2**64 - 1


class Ledger:
    """The hashes of the files under `table`, in the file `table` + ".sha256"."""

    def __init__(self, table: Path) -> None:
        self._table = table
        self._file = table.with_name(table.name + ".sha256")
        self._known: dict[str, str] | None = None

    def record(self) -> None:
        """Add lines for the new files, and flush the files to the disk."""
        known = self._lines()
        new = [name for name in self._names() if name not in known]
        if not new:
            return
        lines = {name: self._flush_and_hash(name) for name in new}
        for folder in {(self._table / name).parent for name in new}:
            sync_folder(folder)
        with self._file.open("ab") as file:
            file.write(b"".join(_line(name, digest) for name, digest in lines.items()))
            file.flush()
            os.fsync(file.fileno())
        known.update(lines)

    def cleaning(self) -> None:
        """Mark that files may be removed from here on, until `cleaned`."""
        self._lines()
        with self._file.open("ab") as file:
            file.write(_CLEANING)

    def cleaned(self) -> None:
        """Drop the lines of removed files, and add those of new ones."""
        self.record()
        present = set(self._names())
        self._known = {name: digest for name, digest in self._lines().items() if name in present}
        with atomic_write(self._file) as file:
            file.writelines(_line(name, digest) for name, digest in self._known.items())

    def remove(self) -> None:
        self._file.unlink(missing_ok=True)
        self._known = None

    def verify(self) -> int:
        """Compare every file with its line; return their number.

        Raises:
            SearchIndexError: a file is damaged or missing; the message names it.
        """
        if not self._file.exists():
            raise SearchIndexError(f"{self._file}: is missing; {_REMEDY}")
        lines, cut = self._read()
        known = dict(lines)
        twice = next((name for name, digest in lines if known[name] != digest), None)
        if twice is not None:
            raise SearchIndexError(f"{self._file}: is damaged: it has two hashes of {twice}; {_REMEDY}")
        present = set(self._names())
        # An interrupted write leaves the beginning of the line of an existing file.
        begun = cut[_NAME_AT:].decode("utf-8", "replace")
        if not any(name.startswith(begun) for name in ("", *present)):
            raise SearchIndexError(f"{self._file}: is damaged: its last line ends in {begun!r}; {_REMEDY}")
        for name, expected in known.items():
            if name not in present:
                if self._is_cleaning():
                    continue
                raise SearchIndexError(f"{self._table / name}: is missing; {_REMEDY}")
            found = sha256_of(self._table / name)
            if found != expected:
                raise SearchIndexError(
                    f"{self._table / name}: is damaged: SHA-256 {found[:12]}..., expected {expected[:12]}...; "
                    f"{_REMEDY}"
                )
        # A write makes one version, and is recorded before the next one begins. Two without a line are lost lines.
        without = [name for name in present if name.endswith(".manifest") and name not in known]
        if len(without) > 1 and not self._is_cleaning():
            raise SearchIndexError(
                f"{self._file}: is damaged: {len(without)} versions have no line in it; {_REMEDY}"
            )
        self._verify_hint(known)
        return len(known)

    def _verify_hint(self, known: dict[str, str]) -> None:
        versions = {_version(name): name for name in self._names() if name.endswith(".manifest")}
        try:
            hinted = json.loads((self._table / _HINT).read_bytes())["version"]
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError):
            hinted = None
        latest = max(versions, default=0)
        # A writer that was killed between the two files leaves an older hint, which Lance tolerates.
        interrupted = versions.get(latest) not in known and isinstance(hinted, int) and hinted < latest
        if hinted != latest and not interrupted:
            raise SearchIndexError(f"{self._table / _HINT}: is damaged: expected version {latest}; {_REMEDY}")

    def _flush_and_hash(self, name: str) -> str:
        """Flush a file to the disk, and return its hash."""
        path = self._table / name
        with path.open("rb") as file:
            os.fsync(file.fileno())
        return sha256_of(path)

    def _names(self) -> Iterator[str]:
        for top, _, files in os.walk(self._table):
            where = Path(top).relative_to(self._table)
            for file in files:
                name = (where / file).as_posix()
                # Lance writes a version under a temporary name first.
                if name != _HINT and not name.endswith(".tmp") and "#" not in file:
                    yield name

    def _is_cleaning(self) -> bool:
        return _CLEANING in self._file.read_bytes()

    def _lines(self) -> dict[str, str]:
        """Return the hashes by name; cut off the rest of an interrupted write."""
        if self._known is None:
            lines, cut = self._read()
            self._known = dict(lines)
            if cut:
                # The next line must not continue the line of an interrupted write.
                os.truncate(self._file, self._file.stat().st_size - len(cut))
        return self._known

    def _read(self) -> tuple[list[tuple[str, str]], bytes]:
        """Read the names with their hashes, and what follows the last whole line."""
        *lines, cut = (self._file.read_bytes() if self._file.exists() else b"").split(b"\n")
        found = []
        for line in lines:
            if line + b"\n" != _CLEANING:
                digest, _, name = line.decode("utf-8", "replace").partition("  ")
                found.append((name, digest))
        return found, cut


_REMEDY = "restore it from a copy, or build the index again in another folder"


def _line(name: str, digest: str) -> bytes:
    return f"{digest}  {name}\n".encode()


def _version(name: str) -> int:
    number = name.rpartition("/")[2].removesuffix(".manifest")
    return _LAST_VERSION - int(number) if number.isdigit() else 0
