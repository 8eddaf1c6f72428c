"""Read the caption files of Flickr8k and Flickr30k as they are published, beside ordinary text tables.

`results.csv` has a pipe and spaces between its columns, `image_name| comment_number| comment`, and quotes nothing.
`Flickr8k.token.txt` and `results_20130124.token` have no column names: `NAME.jpg#0`, a tab, a caption. Both have one
row per caption. Some rows are broken in every copy; they are bad examples here, and do not stop the reading.
"""

import functools
from array import array
from collections.abc import Callable, Sequence

from diptych.data.files.places import Place
from diptych.data.sources.columns import Columns, choose_columns, image_path
from diptych.data.sources.row_keys import NamedPaths
from diptych.data.sources.table import Row, Rows, TextTable, lines_of, open_csv
from diptych.errors import DataError

_TOKEN_COLUMNS = ("image", "number", "caption")


def open_delimited(
    path: Place, wanted: Columns, delimiter: str | None, image_root: Place | None
) -> TextTable:
    """Open a text table: a CSV, or one of Flickr's two forms, recognised by the first line.

    Raises:
        DataError: as in `open_csv`; or more than ten rows, and more than a tenth, of one of Flickr's forms are
            broken; or a `.txt` file has no column of images.
    """
    with lines_of(path) as lines:
        first = next(lines, "").rstrip("\r\n")
    if delimiter is None and wanted == Columns() and _is_token_line(first):
        chosen, form = Columns("image", "caption"), "IMAGE#NUMBER, a tab and a caption per line"
        return _open_lines(path, chosen, _TOKEN_COLUMNS, parse=_parse_token, form=form, image_root=image_root)
    columns = [name.strip() for name in first.split("|")]
    if delimiter in (None, "|") and "| " in first and '"' not in first and _has_image(columns, wanted):
        parse = functools.partial(_parse_piped, columns=columns)
        chosen = choose_columns(columns, wanted, str(path))
        form = "columns divided by a pipe"
        return _open_lines(path, chosen, columns, parse=parse, form=form, image_root=image_root, header=True)
    try:
        return open_csv(path, wanted, delimiter, image_root)
    except DataError as error:
        if path.suffix.lower() not in (".txt", ".token") or "for the image" not in str(error):
            raise
        raise DataError(
            f"{path}: does not name images: its first line is {first[:80]!r}; expected a table whose first line "
            "names the columns, such as image,caption, or lines such as a.jpg#0, a tab and a caption; to embed texts "
            "without images, call diptych.embed_texts in Python"
        ) from None


def _open_lines(
    path: Place,
    chosen: Columns,
    columns: Sequence[str],
    *,
    parse: Callable[[str, str], Row],
    form: str,
    image_root: Place | None,
    header: bool = False,
) -> TextTable:
    """Open a table with one row per line, in which quotes have no meaning; broken rows are counted."""
    starts, numbers, broken, named = array("q"), array("q"), array("q"), NamedPaths()
    problem: DataError | None = None
    with lines_of(path) as lines:
        if header:
            next(lines)
        start = lines.position
        for text in lines:
            if text.strip():
                where = f"{path}, line {lines.count:,}"
                image = ""
                try:
                    image = parse(text, where)[chosen.image or ""]
                    image_path(image, path.parent, where)
                except DataError as error:
                    problem = problem or error
                    broken.append(lines.count)
                named.add(image)
                starts.append(start)
                numbers.append(lines.count)
            start = lines.position
        starts.append(start)
    if problem is not None and len(broken) > min(len(numbers) - 1, max(10, len(numbers) // 10)):
        raise DataError(f"{problem}; {len(broken):,} of {len(numbers):,} rows are broken")
    rows = Rows(columns, form, starts, numbers, lines.sha256, lines.version, parse, named.earlier(), broken)
    return TextTable(path, rows, chosen, image_root)


def _has_image(columns: Sequence[str], wanted: Columns) -> bool:
    try:
        choose_columns(columns, Columns(wanted.image), "")
    except DataError:
        return False
    return True


def _parse_piped(text: str, where: str, columns: Sequence[str]) -> Row:
    cells = [cell.strip() for cell in text.split("|")]
    if len(cells) != len(columns):
        raise DataError(
            f"{where}: {len(cells)} fields, but there are {len(columns)} columns ({', '.join(map(repr, columns))}): "
            f"{text.strip()[:80]!r}"
        )
    return dict(zip(columns, cells, strict=True))


def _is_token_line(text: str) -> bool:
    named, tab, _ = text.partition("\t")
    name, _, number = named.rpartition("#")
    return bool(tab and name and number.isdigit())


def _parse_token(text: str, where: str) -> Row:
    if not _is_token_line(text):
        raise DataError(f"{where}: expected IMAGE#NUMBER, a tab and a caption; found {text.strip()[:80]!r}")
    named, _, caption = text.partition("\t")
    name, _, number = named.rpartition("#")
    return {"image": name, "number": number, "caption": caption}
