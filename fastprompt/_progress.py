"""A progress bar for a terminal."""

import sys


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
