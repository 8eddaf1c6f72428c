"""`diptych doctor`: is this going to work?"""

from itertools import chain
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from diptych.cli.options import Json
from diptych.cli.output import emit
from diptych.cli.train import Assignments

if TYPE_CHECKING:
    from diptych.cli.machine_checks import Check

MARKS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


def doctor(
    recipe: Annotated[str | None, Parameter(help="Also check this recipe and its data.")] = None,
    /,
    *,
    assignments: Assignments = (),
    as_json: Json = False,
) -> int:
    """Check machine, data and recipe before time is spent. Exit code 1 if anything would fail."""
    from diptych.cli.machine_checks import machine_checks  # noqa: PLC0415
    from diptych.cli.recipe_checks import recipe_checks  # noqa: PLC0415

    found: list[Check] = []
    for check in chain(machine_checks(), recipe_checks(recipe, assignments) if recipe is not None else ()):
        found.append(check)
        if not as_json:
            print(f"{MARKS[check.status]}  {check.name}: {check.detail}", flush=True)
    failed = any(check.status == "fail" for check in found)
    if as_json:
        checks = [{"name": check.name, "status": check.status, "detail": check.detail} for check in found]
        emit({"ok": not failed, "recipe": recipe, "checks": checks})
    return 1 if failed else 0
