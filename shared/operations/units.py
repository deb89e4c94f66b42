"""Numbers as people read them, on the page and on the command line."""


def duration(seconds: float) -> str:
    """Seconds as 12 s, 3 min, 2.5 h or 4 d."""
    for limit, unit, text in ((90, 1, "s"), (5400, 60, "min"), (129_600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.3g} {text}"
    return f"{seconds / 86_400:.3g} d"


def size(count: float) -> str:
    """Bytes as 12 B, 3.0 KiB, 2.5 MiB or 1.2 GiB."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} GiB"
