"""Tables and progress bars for a terminal."""

import sys
from collections.abc import Iterable, Sequence


def table(rows: Iterable[Sequence[str]], *, right: Sequence[int] = (), indent: int = 2) -> str:
    """Rows as aligned columns; the columns in ``right`` are flush right."""
    rows = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [c.rjust(w) if k in right else c.ljust(w) for k, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append((" " * indent + "  ".join(cells)).rstrip())
    return "\n".join(lines)


class Progress:
    """A bar on stderr that stays quiet when stderr is not a terminal."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.shown = total, 0, sys.stderr.isatty()

    def step(self, label: str) -> None:
        if self.shown:
            filled = 30 * self.done // max(self.total, 1)
            bar = "█" * filled + "░" * (30 - filled)
            sys.stderr.write(f"\r\x1b[K{bar} {self.done}/{self.total} {label}")
            sys.stderr.flush()
        self.done += 1

    def close(self) -> None:
        if self.shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
