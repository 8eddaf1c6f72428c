"""`diptych data`: look at a dataset, check it, pack it."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from diptych.cli.options import NO_TABLE_OPTIONS, Json, SourcePlace, TableOptions, example
from diptych.cli.output import emit, progress, say, say_left_out, table
from diptych.errors import UsageError
from diptych.printable import printable
from diptych.wording import count_of, file_size, percent

if TYPE_CHECKING:
    from diptych.data.inspection import Inspection, Range

app = App(name="data", help="Look at a dataset, check all of it, pack it into tar shards.")

_LISTED = 20  # bad rows that are shown one by one

Workers = Annotated[
    int | None, Parameter(help="Threads that read and decode; as many as processors when not given.")
]
AllowNoCaption = Annotated[
    bool, Parameter(negative="", help="Rows without a caption are good, as for search and class folders.")
]


@app.command(help_epilogue=example("diptych data inspect photos/"))
def inspect(
    source: SourcePlace,
    /,
    *,
    rows: Annotated[int, Parameter(help="Rows to look at, spread evenly over the source.")] = 10_000,
    show: Annotated[int, Parameter(help="Rows to describe one by one.")] = 3,
    context_length: Annotated[int, Parameter(help="Tokens that the text tower of the model takes.")] = 77,
    columns: TableOptions = NO_TABLE_OPTIONS,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Count rows, formats, sizes, caption tokens and duplicates, and show a few rows. Nothing is decoded."""
    from diptych.data.inspection import inspect_source
    from diptych.data.left_out import left_out_of
    from diptych.data.sources.opening import open_source
    from diptych.tokenizer import default_tokenizer

    _at_least(1, rows=rows, context_length=context_length)
    opened = open_source(source, **vars(columns))
    with progress("looking", min(rows, len(opened))) as advance:
        found = inspect_source(
            opened,
            default_tokenizer().length,
            most=rows,
            shown=show,
            context_length=context_length,
            workers=_threads(workers),
            progress=advance,
        )
    if as_json:
        emit(
            {
                "source": source,
                "description": opened.describe(),
                **asdict(found),
                "left_out": left_out_of(opened).to_json(),
            }
        )
        return
    print(opened.describe())
    _show(found)


@app.command(help_epilogue=example("diptych data words captions.csv --least 5"))
def words(
    source: SourcePlace,
    /,
    *,
    least: Annotated[int, Parameter(help="Rows that a word occurs in, to be listed.")] = 5,
    columns: TableOptions = NO_TABLE_OPTIONS,
    as_json: Json = False,
) -> None:
    """List the token ids that captions and tags use, as a line of a recipe: `known` of a model that predicts words."""
    from diptych.data.sources.opening import open_source
    from diptych.embed.source_rows import words_of
    from diptych.tokenizer.occurrence import ids_in

    _at_least(1, least=least)
    opened = open_source(source, **vars(columns))
    with progress("reading", len(opened)) as advance:
        found = ids_in(words_of(opened, advance), least)
    if as_json:
        emit({"source": source, **asdict(found)})
        return
    say(
        f"{opened.describe()}: {len(found.known):,} of {found.distinct:,} ids occur in {least:,} rows or more; they "
        f"are {percent(found.covered)} of all tokens"
    )
    print(f"known = {list(found.known)}")


@app.command(help_epilogue=example("diptych data verify 'shards/*.tar'"))
def verify(
    source: SourcePlace,
    /,
    *,
    allow_no_caption: AllowNoCaption = False,
    columns: TableOptions = NO_TABLE_OPTIONS,
    workers: Workers = None,
    as_json: Json = False,
) -> int:
    """Decode every image and read every caption; count what is bad by reason. Exit code 1 if anything is."""
    from diptych.data.examination import verify_source
    from diptych.data.sources.opening import open_source

    opened = open_source(source, **vars(columns))
    with progress("verifying", len(opened)) as advance:
        verdict = verify_source(
            opened, workers=_threads(workers), need_caption=not allow_no_caption, progress=advance
        )
    say_left_out(verdict.left_out)
    if as_json:
        emit(
            {
                "source": source,
                "ok": not verdict.bad,
                "total": verdict.total,
                "read": verdict.read,
                "bad": verdict.reasons,
                "rows": [asdict(row) for row in verdict.bad[:_LISTED]],
                "left_out": verdict.left_out.to_json(),
            }
        )
        return 1 if verdict.bad else 0
    print(f"{source}: {verdict.read:,} of {verdict.total:,} rows are good")
    _show_reasons(verdict.reasons, verdict.total)
    for row in verdict.bad[:_LISTED]:
        print(f"row {row.position + 1:,}: {printable(row.message)}")
    if len(verdict.bad) > _LISTED:
        print(f"... and {len(verdict.bad) - _LISTED:,} more")
    return 1 if verdict.bad else 0


@app.command(help_epilogue=example("diptych data pack photos/ --out shards/ --resize 256"))
def pack(
    source: SourcePlace,
    /,
    *,
    out: Annotated[
        Path, Parameter(name=["--out", "-o"], help="The folder of the shards; one that was begun goes on.")
    ],
    shard_size: Annotated[float, Parameter(help="Megabytes of a shard.")] = 256.0,
    resize: Annotated[
        int | None, Parameter(help="Reduce larger images to this many pixels on their shorter side.")
    ] = None,
    allow_no_caption: AllowNoCaption = False,
    columns: TableOptions = NO_TABLE_OPTIONS,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Write any source as tar shards with indexes, the form that training reads fastest. Bad rows are dropped, and
    listed in pack.json."""
    from diptych.data.left_out import all_left_out, left_out_of
    from diptych.data.packing import pack_source
    from diptych.data.sources.opening import open_source

    _at_least(1, resize=resize)
    if not shard_size > 0:
        raise UsageError(f"--shard-size {shard_size}: expected megabytes, above 0")
    opened = open_source(source, **vars(columns))
    with progress("packing", len(opened)) as advance:
        packed = pack_source(
            opened,
            out,
            shard_bytes=round(shard_size * 1e6),
            resize=resize,
            workers=_threads(workers),
            need_caption=not allow_no_caption,
            progress=advance,
        )
    shards = [shard for shard in packed.shards if shard.examples]
    size = sum(shard.size for shard in shards)
    left_out = all_left_out([left_out_of(opened), packed.left_out])
    say_left_out(left_out)
    if as_json:
        counts = {"total": packed.total, "packed": packed.examples, "dropped": packed.reasons}
        more = {"shards": len(shards), "bytes": size, "left_out": left_out.to_json()}
        emit({"out": str(out), **counts, **more})
        return
    noun = "shard" if len(shards) == 1 else "shards"
    print(f"{out}: {packed.examples:,} of {packed.total:,} rows in {len(shards):,} {noun}, {file_size(size)}")
    if packed.reasons:
        _show_reasons(packed.reasons, packed.total)
        print(f"dropped rows are listed in {out / 'pack.json'}")


def _threads(workers: int | None) -> int:
    _at_least(0, workers=workers)
    return (os.cpu_count() or 1) if workers is None else workers


def _at_least(least: int, /, **options: int | None) -> None:
    for name, value in options.items():
        if value is not None and value < least:
            raise UsageError(f"--{name.replace('_', '-')} {value}: expected at least {least}")


def _show(found: "Inspection") -> None:
    if found.looked_at < found.count:
        print(f"looked at {found.looked_at:,} rows, in evenly spread runs; --rows looks at more")
    _show_reasons(found.bad, found.looked_at)
    print("formats: " + (", ".join(f"{count:,} {name}" for name, count in found.formats.items()) or "none"))
    lines = [
        ("width, pixels", found.width),
        ("height, pixels", found.height),
        ("file, bytes", found.file_bytes),
        ("caption, tokens", found.tokens),
    ]
    table(
        ("", "least", "median", "mean", "greatest"),
        [(name, *_cells(values)) for name, values in lines if values is not None],
        right=(1, 2, 3, 4),
    )
    long = percent(found.too_long / max(1, found.captions))
    print(f"captions over {found.context_length} tokens: {found.too_long:,} of {found.captions:,} ({long})")
    print(f"rows without a caption: {found.without_caption:,}")
    print(f"same image as an earlier row: {found.same_images:,}; same caption: {found.same_captions:,}")
    if found.same_images:
        readable = found.looked_at - sum(found.bad.values())
        print(
            f"so {readable:,} rows show {readable - found.same_images:,} images, and an evaluation counts those; for "
            'training see [objective] positives = "image"'
        )
    if (first := found.first_differing) is not None:
        print(
            f"images of which two rows have different labels: {found.differing_labels:,}, such as "
            f"{printable(first['key'])} ({printable(', '.join(first['labels']))})"
        )
    for row in found.rows:
        words = " | ".join(row["captions"]) or row["label"] or "(no words)"
        print(
            f"row {row['row'] + 1:,}  {printable(row['key'])}  {row['format']} {row['width']} x {row['height']}  "
            f"{printable(words)}"
        )


def _cells(values: "Range") -> list[str]:
    return [count_of(round(value)) for value in (values.least, values.median, values.mean, values.greatest)]


def _show_reasons(reasons: dict[str, int], total: int) -> None:
    rows: list[Any] = [(f"{count:,}", percent(count / total), reason) for reason, count in reasons.items()]
    if rows:
        table(("bad", "share", "reason"), rows, right=(0, 1))
