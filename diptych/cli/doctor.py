"""`diptych doctor`: is this going to work?"""

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from diptych.cli.options import Assignments, Device, Json
from diptych.cli.output import emit

if TYPE_CHECKING:
    from diptych.doctor.check import Check

MARKS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


def doctor(
    recipe: Annotated[str | None, Parameter(help="Also check this recipe and its data.")] = None,
    /,
    *,
    assignments: Assignments = (),
    device: Device = "auto",
    out: Annotated[
        Path | None,
        Parameter(name=["--out", "-o"], help="Where the run would go, for the space on that disk."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Check machine, data and recipe before time is spent, and say what memory and time a run will take.

    Exit code 1 if anything would fail.
    """
    from diptych.doctor.machine_checks import check_machine
    from diptych.doctor.recipe_checks import check_recipe
    from diptych.hardware import pick_device

    chosen = pick_device(device)
    found: list[Check] = []
    asked = check_recipe(recipe, assignments, device=chosen, out=out) if recipe is not None else ()
    for check in chain(check_machine(), asked):
        found.append(check)
        if not as_json:
            print(f"{MARKS[check.status]}  {check.name}: {check.detail}", flush=True)
    failed = any(check.status == "fail" for check in found)
    if as_json:
        checks = [{"name": check.name, "status": check.status, "detail": check.detail} for check in found]
        emit({"ok": not failed, "recipe": recipe, "checks": checks})
    return 1 if failed else 0
