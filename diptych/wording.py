"""Numbers as people read them: sizes, shares, durations."""


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
