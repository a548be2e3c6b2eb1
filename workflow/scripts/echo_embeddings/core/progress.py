"""How far a job is: a live line on a terminal, a line at intervals in the log, a small file for `make status`."""

import datetime
import json
import os
import socket
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self, TextIO

from .files import atomic_write
from .names import one_line

LOG_EVERY = 60.0  # seconds between two lines in the log
LIVE_EVERY = 0.5  # seconds between two states of the live line
RECORD_EVERY = 5.0  # seconds between two states of the record, also while nothing is done
RECORD = "progress.json"  # its name in a job's state directory


@dataclass(frozen=True)
class Record:
    """What a running job leaves for others to read. Times are seconds since the epoch."""

    state: str  # running; ended: came to its end; broken: stopped by an error. A killed job stays "running"
    done: int  # items, those of earlier runs among them
    total: int
    failed: int  # of those done in this run
    rate: float  # items a second, this run
    host: str
    slurm_job: str | None
    started: float
    updated: float


def read(state: Path) -> Record | None:
    """The record in a job's state directory, None where there is none, or it is damaged or of another version."""
    try:
        record = Record(**json.loads((state / RECORD).read_text()))
    except (FileNotFoundError, ValueError, TypeError, RecursionError):
        return None
    numbers = (record.done, record.total, record.failed, record.rate, record.started, record.updated)
    texts = (record.state, record.host, "" if record.slurm_job is None else record.slurm_job)
    whole = all(isinstance(n, int | float) for n in numbers) and all(isinstance(text, str) for text in texts)
    return record if whole else None


class Progress:
    """Counts items done and says so; a context manager, which clears the live line at its end."""

    def __init__(
        self,
        name: str,
        total: int,
        unit: str,
        terminal: TextIO | None = None,
        *,
        state: Path | None = None,
        before: int = 0,
    ) -> None:
        """Of `total` items to do, after `before` that earlier runs did.

        `terminal` is where the live line goes, None where there is no terminal; the log is stdout. `state` is
        the directory for the record, None for none.
        """
        self._name, self._total, self._unit, self._terminal = name, total, unit, terminal
        self._state, self._before = state, before
        self._done = self._failed = 0
        self._started = self._logged = self._shown = time.monotonic()
        self._began = time.time()
        self._end = threading.Event()
        self._recorder = threading.Thread(target=self._record_until_end, daemon=True)

    def step(self, items: int = 1, failed: int = 0) -> None:
        """Count items as done, `failed` of them without success."""
        self._done += items
        self._failed += failed
        now = time.monotonic()
        if now - self._logged >= LOG_EVERY:
            self._logged = now
            print(self._line(now), flush=True)
        if self._terminal and now - self._shown >= LIVE_EVERY:
            self._shown = now
            self._terminal.write(f"\r{self._line(now)}\x1b[K")
            self._terminal.flush()

    def _line(self, now: float) -> str:
        if not self._done:
            return f"{self._name}: 0 of {self._total} {self._unit}"
        rate = self._done / (now - self._started)
        left = datetime.timedelta(seconds=round((self._total - self._done) / rate))
        return f"{self._name}: {self._done} of {self._total} {self._unit}, {rate:.1f} a second, {left} left"

    def _record_until_end(self) -> None:
        while True:
            self._record("running")
            if self._end.wait(RECORD_EVERY):
                return

    def _record(self, state: str) -> None:
        if self._state is None:
            return
        record = Record(
            state=state,
            done=self._before + self._done,
            total=self._before + self._total,
            failed=self._failed,
            rate=round(self._done / max(time.monotonic() - self._started, 1e-9), 3),
            host=socket.gethostname(),
            slurm_job=os.environ.get("SLURM_JOB_ID"),
            started=self._began,
            updated=time.time(),
        )
        try:
            with atomic_write(self._state / RECORD) as part:
                part.write_text(json.dumps(asdict(record)))
        except OSError as error:  # a full disk stops the job where it writes its results, not here
            print(f"{self._name}: progress is not recorded: {one_line(error)}", flush=True)

    def __enter__(self) -> Self:
        self._recorder.start()
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._end.set()
        self._recorder.join()
        self._record("broken" if error else "ended")
        if self._terminal:
            self._terminal.write("\r\x1b[K")
            self._terminal.flush()
        sys.stdout.flush()
