"""What jobs remember for later ones, read again: a piece that is damaged costs its work and nothing else."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from .errors import UserError
from .files import naming
from .names import one_line

DAMAGED = ".damaged"  # how the name of a file ends that was set aside

Content = TypeVar("Content")


def load(path: Path, read: Callable[[Path], Content], *, leave: bool = False) -> Content | None:
    """What `read` makes of the file at `path`; None where there is none, or it is damaged.

    `read` raises any exception where the file does not hold what a job wrote. It is then set aside, and one line says
    so; with `leave` it is left where it is. Raises `OSError`, which names the file, where it cannot be read.
    """
    try:
        with naming(path):
            return read(path)
    except FileNotFoundError:
        return None
    except (OSError, MemoryError):
        raise
    except Exception as error:  # there is no end to what a damaged file brings
        (leave_alone if leave else set_aside)(path, error)
        return None


def set_aside(path: Path, why: object, *, copy: bool = False) -> None:
    """Give the damaged file at `path` another name, or a copy of it; and say in one line why."""
    aside = path.with_name(path.name + DAMAGED)
    (shutil.copy2 if copy else os.replace)(path, aside)
    _say(path, why, f"set aside as {aside.name}")


def leave_alone(path: Path, why: object) -> None:
    """Say in one line why the file at `path`, which is another run's, is damaged."""
    _say(path, why, "left where it is")


def _say(path: Path, why: object, what: str) -> None:
    print(f"{path}: damaged ({one_line(why)[:160]}); {what}, and what it held is done again", flush=True)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in the file at `path`. Raises `ValueError` if it holds anything else."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"a {type(content).__name__}, not an object")
    return content


def read_run_record(path: Path) -> dict[str, Any] | None:
    """How a folder's vectors were made, None where no record says it. Raises `UserError` if the record is damaged."""
    try:
        return read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        vectors = path.with_suffix(".pt")
        raise UserError(
            f"{path}: no run record: {one_line(error)[:160]}; delete {vectors} and run again: both are written anew, "
            "and no vector that a job remembers is computed again"
        ) from error
