"""The result of one check of `diptych doctor`."""

from dataclasses import dataclass
from typing import Literal

from diptych.wording import percent


@dataclass(frozen=True)
class Check:
    """One thing that was checked. fail: the work cannot be done. warn: it can, but not as well as it might."""

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str


def share_check(name: str, count: int, total: int, remedy: str) -> Check:
    """Return a warning with its remedy where `count` of the rows looked at are affected."""
    detail = f"{count:,} of {total:,} rows looked at ({percent(count / max(1, total))})"
    return Check(name, "warn", f"{detail}; {remedy}") if count else Check(name, "ok", detail)
