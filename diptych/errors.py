"""Errors that a user can act on.

Every message names the place, the value that was found, what was expected, and what to do. The command line
prints the message alone and exits with status 1; a library caller catches `DiptychError` or one of its children.

    DiptychError
    ├── SettingsError      a recipe, an option or an argument
    ├── UsageError         options that do not go together
    ├── DataError          a dataset, a row, a label file
    │   └── ImageError     one image that cannot be read
    ├── TextError          a text that cannot be tokenized
    ├── CheckpointError    model files: missing, damaged, of another kind
    │   └── DownloadError  a published model that could not be fetched
    ├── SearchIndexError   a search index
    ├── NotFiniteError     training whose loss or weights are not numbers
    └── MissingExtraError  an optional dependency that is not installed
"""


class DiptychError(Exception):
    """Something that the user can fix; the message says how."""


class SettingsError(DiptychError):
    """A recipe, an option or an argument has a value that cannot be used."""


class UsageError(DiptychError):
    """Options that do not go together, or one that is missing; exit code 2, as for an unknown option."""


class DataError(DiptychError):
    """A dataset cannot be read; names the file and, where there is one, the line or the key.

    image: the file of the image, where something beside it is at fault.
    """

    image: str | None = None


class ImageError(DataError):
    """One image is damaged, too large, or of a format that is not read."""


class TextError(DiptychError):
    """A text cannot be tokenized: too long, or not valid Unicode."""


class CheckpointError(DiptychError):
    """Model files are missing, damaged, or of a kind that this command cannot use."""


class DownloadError(CheckpointError):
    """A published model could not be fetched, or what arrived is not what was published."""


class SearchIndexError(DiptychError):
    """A search index is missing, damaged, or was filled by another model."""


class NotFiniteError(DiptychError):
    """Training stopped: its loss, gradient or weights were not finite numbers."""


class MissingExtraError(DiptychError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed; "
            f"install it with: pip install 'diptych[{extra}]'"
        )
