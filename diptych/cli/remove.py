"""`diptych remove`: images out of an index."""

from typing import Annotated

from cyclopts import Parameter

from diptych.cli.options import IndexPlace, Json
from diptych.cli.output import emit
from diptych.errors import UsageError


def remove(
    what: Annotated[
        str | None,
        Parameter(
            help="An image, a folder with all that is in it, a source, a uri or an id, as the index knows them."
        ),
    ] = None,
    /,
    *,
    folder: IndexPlace,
    where: Annotated[
        str | None, Parameter(help='A filter in place of WHAT, such as: width < 100 or tag = "draft".')
    ] = None,
    purge: Annotated[
        bool,
        Parameter(
            negative="",
            help="Leave nothing of them in the index's files: rewrites it, and drops all its older versions.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Remove images from an index. Their files stay; a later `diptych index` of a source that still has them adds
    them again."""
    if (what is None) == (where is None):
        raise UsageError("expected what to remove: WHAT (an image, a folder, an id), or --where FILTER")

    from diptych.search.building.removal import filter_for, remove
    from diptych.search.stores.filter_syntax import parse

    chosen = parse(where) if where is not None else filter_for(what or "")
    count = remove(folder, chosen, purge=purge)
    if as_json:
        emit({"index": folder, "removed": count, "purged": purge})
        return
    what, them = ("image", "it") if count == 1 else ("images", "them")
    print(f"{folder}: {count:,} {what} removed{f', and nothing of {them} is left' if purge else ''}")
