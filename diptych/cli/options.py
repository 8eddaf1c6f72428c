"""Options that several verbs share, and the error for a command that was not well formed."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from diptych.errors import UsageError

MOST_PIXELS = (
    "DIPTYCH_MAX_PIXELS"  # as in diptych/data/images/decoding.py, whose libraries `--help` does not wait for
)


def allow_pixels(arguments: Sequence[str]) -> list[str]:
    """Take `--max-pixels N` out of a command line, whatever the command, and set the limit for all that reads images.

    The environment carries it, so that processes that this one starts have it too.

    Raises:
        UsageError: N is missing, or not a whole number above 0.
    """
    option, rest, given = "--max-pixels", list(arguments), None
    for place, argument in enumerate(rest):
        name, has_value, value = argument.partition("=")
        if argument == "--":
            break
        if name == option:
            given = value if has_value else "".join(rest[place + 1 : place + 2])
            del rest[place : place + (1 if has_value else 2)]
            break
    if given is None:
        return rest
    digits = given.replace("_", "").replace(",", "")
    if not digits.isascii() or not digits.isdigit() or int(digits) < 1:
        raise UsageError(f"{option} {given}: expected a number of pixels, such as 200000000")
    os.environ[MOST_PIXELS] = digits
    return rest


def example(command: str) -> str:
    """Return what stands below the help of a command that reads images: one call of it, and the option of all."""
    return f"Example: {command}\n\nFor images of more than 50,000,000 pixels: --max-pixels N (see: diptych --help)"


Assignments = Annotated[
    tuple[str, ...],
    Parameter(name="--set", negative="", help="section.key=value, in place of what the recipe says."),
]
Model = Annotated[
    str,
    Parameter(
        name=["--model", "-m"], help="A published name, or a checkpoint file or folder; see: diptych models."
    ),
]
Activation = Annotated[
    Literal["gelu", "quick_gelu"] | None,
    Parameter(
        help="The activation of a file of weights, if neither the file nor a configuration beside it states one."
    ),
]
Device = Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1, mps.")]
Precision = Annotated[
    str,
    Parameter(
        help="auto, float32, bfloat16, float16. auto: bfloat16 if the processor or GPU computes in it, "
        "which turns features by less than 0.02 in cosine (0.0003 on average); else float32."
    ),
]
BatchSize = Annotated[int, Parameter(help="Images in one pass through the model.")]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print the result as JSON.")]
_SOURCES = (
    "A folder, a CSV, TSV, JSONL or Parquet file, tar shards, a folder saved by datasets, an address such as "
    "s3://bucket/*.tar, or sample:train, scenes:train; to measure on, also benchmark:NAME (see: evaluate datasets)."
)
SourcePlace = Annotated[str, Parameter(help=_SOURCES)]
Data = Annotated[str, Parameter(name=["--data", "-d"], help=_SOURCES)]
IndexPlace = Annotated[
    str,
    Parameter(
        name=["--index", "-i"],
        help="The index: a folder, s3://bucket/prefix, or postgresql://user@host/database.",
    ),
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """How a table is read: the options of every command that opens a source, named as `open_source` has them."""

    image_column: Annotated[
        str | None, Parameter(help="The column of image paths, if it cannot be guessed.")
    ] = None
    caption_column: Annotated[
        str | None, Parameter(help="The column of captions, if it cannot be guessed.")
    ] = None
    label_column: Annotated[
        str | None, Parameter(help="The column of class labels, if it cannot be guessed.")
    ] = None
    delimiter: Annotated[
        str | None,
        Parameter(help="The character between the columns, such as '|' or '\\t', if it cannot be guessed."),
    ] = None
    image_root: Annotated[
        str | None,
        Parameter(help="The folder that image paths of a table are relative to; the table's own without it."),
    ] = None


NO_TABLE_OPTIONS = TableOptions()
LabelsFile = Annotated[
    Path | None,
    Parameter(help="The classes: text with one a line, TOML or JSON, or a .csv or .tsv table of names."),
]
KeepNothing = Annotated[
    bool,
    Parameter(
        name="--no-cache", negative="", help="Embed the classes' words again, and keep nothing for next time."
    ),
]
