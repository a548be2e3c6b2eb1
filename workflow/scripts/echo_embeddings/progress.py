"""How far a job is: a live line on a terminal, a line at intervals in the log."""

import datetime
import sys
import time
from typing import Self, TextIO

LOG_EVERY = 60.0  # seconds between two lines in the log
LIVE_EVERY = 0.5  # seconds between two states of the live line


class Progress:
    """Counts items done and says so; a context manager, which clears the live line at its end."""

    def __init__(self, name: str, total: int, unit: str, terminal: TextIO | None = None) -> None:
        """`terminal` is where the live line goes, None where there is no terminal; the log is stdout."""
        self._name, self._total, self._unit, self._terminal = name, total, unit, terminal
        self._done = 0
        self._started = self._logged = self._shown = time.monotonic()

    def step(self, items: int = 1) -> None:
        """Count items as done."""
        self._done += items
        now = time.monotonic()
        if now - self._logged >= LOG_EVERY:
            self._logged = now
            print(self._line(now), flush=True)
        if self._terminal and now - self._shown >= LIVE_EVERY:
            self._shown = now
            self._terminal.write(f"\r{self._line(now)}\x1b[K")
            self._terminal.flush()

    def _line(self, now: float) -> str:
        rate = self._done / (now - self._started)
        left = datetime.timedelta(seconds=round((self._total - self._done) / rate))
        return f"{self._name}: {self._done} of {self._total} {self._unit}, {rate:.1f} a second, {left} left"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal:
            self._terminal.write("\r\x1b[K")
            self._terminal.flush()
        sys.stdout.flush()
