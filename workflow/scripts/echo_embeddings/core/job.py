"""What every Snakemake script of this workflow does around its one call: the log, and what is said of errors."""

import contextlib
import gc
import os
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

from .errors import TransientError, UserError
from .layout import Layout
from .locks import whereabouts
from .names import one_line

# What begins the last line of a failed job's log. The user must act on an error, and until then every attempt ends
# with it; what failed otherwise may go well at the next one.
ERROR, FAILED = "error: ", "failed: "
# How SLURM's log tells of a job that could not: the second only where the first does not say more.
KILLED = (
    re.compile(
        r"(?:slurmstepd|srun)\S*: (?:error|fatal): "
        r".*(?:CANCELLED|KILLED|[Oo]ut.[Oo]f.[Mm]emory|oom|exceeded memory limit).*"
    ),
    re.compile(r"died with <Signals\.\w+: \d+>"),
)


@contextlib.contextmanager
def logged(log: str, attempt: int = 1) -> Iterator[TextIO | None]:
    """Send everything that this process and its children print to the file `log`.

    Yields the terminal, for a live line, None where there is none. An error's traceback goes to the log
    too, and one line to the terminal: what the user can do about it, or where to read on. The process then ends
    with 1.

    `attempt` counts the retries of a run. The log keeps what earlier attempts wrote, and the block is not entered if
    the last of them ended with a `UserError` that is no `TransientError`: it is raised again.
    """
    gc.freeze()  # what is imported stays: to look for garbage in it would take half a second of each job's end
    sys.stdout.flush()
    sys.stderr.flush()
    terminal = os.dup(2)
    try:
        last = _last_line(Layout().kept_log(Path(log))) if attempt > 1 else ""
        with _open(Path(log), attempt) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        cards = os.environ.get("CUDA_VISIBLE_DEVICES")
        print(whereabouts() + (f", CUDA_VISIBLE_DEVICES={cards}" if cards else ""), flush=True)
        if last.startswith(ERROR):
            print(f"attempt {attempt}: not tried, it would end as the one before", flush=True)
            raise UserError(last.removeprefix(ERROR))
        with _script_unknown():
            yield os.fdopen(os.dup(terminal), "w") if os.isatty(terminal) else None
    except TransientError as error:
        _stop(terminal, log, FAILED, str(error))
    except UserError as error:
        _stop(terminal, log, ERROR, str(error))
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        message = f"{place}{error.strerror or error}; what is done is kept: correct it and run again"
        _stop(terminal, log, FAILED, message)
    except Exception as error:
        _stop(terminal, log, FAILED, f"{type(error).__name__}: {one_line(error)[:300]}")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _open(log: Path, attempt: int) -> BinaryIO:
    """The log, to be written to at its end.

    Snakemake deletes it before every attempt. It has a second name, by which the next attempt finds it; so does a job
    that SLURM starts again under the same number, and to which Snakemake counts no attempt.
    """
    kept = Layout().kept_log(log)
    again = rf", SLURM job {os.environ.get('SLURM_JOB_ID')}(,|$)"
    if attempt == 1 and not any(re.search(again, line) for line in _lines(kept)):
        kept.unlink(missing_ok=True)
    for path in (log, kept):
        path.parent.mkdir(parents=True, exist_ok=True)
    file = open(kept, "ab", buffering=0)  # noqa: SIM115 - the caller closes it
    log.unlink(missing_ok=True)
    try:
        os.link(kept, log)
    except OSError:  # a file system without hard links
        log.symlink_to(os.path.relpath(kept, log.parent))
    return file


@contextlib.contextmanager
def _script_unknown() -> Iterator[None]:
    """Keep worker processes from importing the script, of which they need nothing.

    Where Snakemake fetched it from elsewhere they could not: its `__file__` is a URL.
    """
    script = sys.modules["__main__"].__dict__
    file = script.pop("__file__", None)
    try:
        yield
    finally:
        if file is not None:
            script["__file__"] = file


def _stop(terminal: int, log: str, how: str, message: str) -> None:
    traceback.print_exc()
    print(f"{how}{message}", file=sys.stderr, flush=True)
    os.write(terminal, f"{message}  [log: {log}]\n".encode())
    sys.exit(1)


def error(log: str | os.PathLike[str]) -> str | None:
    """The error that ended the job of this log; None where it has not ended, ended well, or was killed."""
    last = _last_line(log)
    return next((last.removeprefix(how) for how in (ERROR, FAILED) if last.startswith(how)), None)


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


def _last_line(path: str | os.PathLike[str]) -> str:
    return next(reversed(_lines(path)), "")


def _lines(path: str | os.PathLike[str]) -> list[str]:
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return [line for line in map(str.strip, text.splitlines()) if line]
