"""Numbers as people read them: sizes, shares, metrics, durations."""

import math


def count_of(number: int) -> str:
    """A size for people: 151.3M, 12.0k, 64."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.1f}{name}"
    return str(number)


def percent(fraction: float) -> str:
    """0.4213 as `42.1 %`; small shares, such as chance among many classes, keep two decimals."""
    if 0 < fraction < 0.0001:
        return "<0.01 %"
    return f"{100 * fraction:.{2 if fraction < 0.01 else 1}f} %"


def duration(seconds: float) -> str:
    """Seconds for people: 45 s, 12 min, 3.5 hours, 12 days."""
    for unit, name, digits in ((86400.0, "days", 1), (3600.0, "hours", 1), (60.0, "min", 0)):
        if seconds >= 2 * unit:
            return f"{seconds / unit:,.{digits}f} {name}"
    return f"{seconds:.0f} s"


def size(count: float) -> str:
    """Bytes for people: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit in ("B", "KiB") else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def minutes(seconds: float) -> str:
    """Return a short time to the second: 142 as `2 min 22 s`."""
    whole, rest = divmod(round(seconds), 60)
    return f"{whole} min {rest} s" if whole else f"{rest} s"


def four_digits(value: float) -> str:
    """Return four significant digits, thousands apart and whole: 0.5123, 12,346."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def points(difference: float) -> str:
    """Return a difference of two shares in percentage points, with its sign: 0.0312 as `+3.1`."""
    return f"{100 * difference:+.1f}"


def metric_value(metric: str, value: float | None) -> str:
    """Return a metric's value: a rank as a number, anything else as a share; `-` where it is not defined."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:,.1f}" if metric.endswith("rank") else f"{100 * value:.1f} %"


def metric_interval(metric: str, interval: tuple[float, float] | None) -> str:
    """Return the ends of a metric's interval; `-` where it has none."""
    return (
        "-"
        if interval is None
        else f"{metric_value(metric, interval[0])} to {metric_value(metric, interval[1])}"
    )


def file_size(count: int) -> str:
    """Bytes of a file for people, as shops count them: 1.2 MB, 34.5 kB, 640 bytes."""
    for unit, name in ((1_000_000, "MB"), (1_000, "kB")):
        if count >= unit:
            return f"{count / unit:,.1f} {name}"
    return f"{count} bytes"
