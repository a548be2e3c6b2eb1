"""What every Snakemake script of this workflow does around its one call: the log, and what is said of errors."""

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from .errors import UserError
from .locks import whereabouts
from .names import one_line

ERROR = "error: "  # begins the last line of a failed job's log
# How SLURM's log tells of a job that could not: the second only where the first does not say more.
KILLED = (
    re.compile(
        r"(?:slurmstepd|srun)\S*: (?:error|fatal): "
        r".*(?:CANCELLED|KILLED|[Oo]ut.[Oo]f.[Mm]emory|oom|exceeded memory limit).*"
    ),
    re.compile(r"died with <Signals\.\w+: \d+>"),
)


@contextlib.contextmanager
def logged(log: str) -> Iterator[TextIO | None]:
    """Send everything that this process and its children print to the file `log`.

    Yields the terminal, for a live line, None where there is none. An error's traceback goes to the log
    too, and one line to the terminal: what the user can mend, or where to read on. The process then ends
    with 1.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    terminal = os.dup(2)
    try:
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        with open(log, "wb", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        cards = os.environ.get("CUDA_VISIBLE_DEVICES")
        print(whereabouts() + (f", CUDA_VISIBLE_DEVICES={cards}" if cards else ""), flush=True)
        yield os.fdopen(os.dup(terminal), "w") if os.isatty(terminal) else None
    except UserError as error:
        _stop(terminal, log, str(error))
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _stop(terminal, log, f"{place}{error.strerror or error}; what is done is kept: mend it and run again")
    except Exception as error:
        _stop(terminal, log, f"{type(error).__name__}: {one_line(error)[:300]}")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _stop(terminal: int, log: str, message: str) -> None:
    traceback.print_exc()
    print(f"{ERROR}{message}", file=sys.stderr, flush=True)
    os.write(terminal, f"{message}  [log: {log}]\n".encode())
    sys.exit(1)


def error(log: str | os.PathLike[str]) -> str | None:
    """The error that ended the job of this log; None where it has not ended, ended well, or was killed."""
    own = _lines(log)
    return own[-1].removeprefix(ERROR) if own and own[-1].startswith(ERROR) else None


def last_words(log: str, slurm_log: str) -> str:
    """Why a job on another machine failed: the line that matters, of its log or else of SLURM's.

    A job that was killed could not say so itself; SLURM's log names the time limit, or the signal.
    """
    if said := error(log):
        return said
    own, slurm = _lines(log), _lines(slurm_log)
    for pattern in KILLED:
        found = [match[0] for match in map(pattern.search, slurm) if match]
        if found:
            return found[-1]
    return own[-1] if own else slurm[-1] if slurm else "it left no log"


def _lines(path: str | os.PathLike[str]) -> list[str]:
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return [line for line in map(str.strip, text.splitlines()) if line]
