"""What worker processes are given to do: it goes well, or wrong in every way."""

import os
import signal
import sys
import time
from pathlib import Path


def do(what: str, directory: Path, name: str) -> str | list[str]:
    """Note the attempt in `directory`, and do `what`; returns its own name, or for "alone" who else was at work."""
    attempts = directory / f"{name}.attempts"
    with attempts.open("a") as file:
        file.write(f"{os.getpid()}\n")
    number = len(attempts.read_text().split())
    at_work = directory / f"{name}.at-work"
    at_work.touch()
    others = sorted(path.stem for path in directory.glob("*.at-work") if path != at_work)
    if what == "raise":
        raise ValueError("two\nlines")
    if what == "crash":
        os.abort()
    if what == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(3600)
    if what == "die" or (what == "die twice" and number < 3):
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "full disk":
        raise OSError(28, "No space left on device", "results")
    if what == "slow":
        time.sleep(0.5)
    at_work.unlink()
    return others if what == "die twice" else name


def imported(module: str, _: object) -> bool:
    """Whether the process, once it has received `_`, has imported `module`."""
    return module in sys.modules


class EndsItsProcess:
    """A function that ends the process that receives it."""

    def __call__(self) -> None:
        raise NotImplementedError

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (3,)
