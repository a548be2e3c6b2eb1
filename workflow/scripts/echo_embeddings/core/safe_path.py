"""Paths that come from outside: the lists of a server, record lists, archives."""

import os
from pathlib import Path

from .errors import UserError
from .names import one_line


def inside(directory: Path, name: str) -> Path:
    """The path below `directory` that `name`, a relative path with `/` from outside, stands for.

    What is checked is the path that is returned, with `..` and doubled slashes resolved: call this after the last
    change to `name`. Links below `directory` are followed, since they are the user's own: a folder may lie on another
    disk. Raises `UserError`, one line, where the path is not below `directory`, or not printable.
    """
    top = os.path.abspath(directory)
    path = os.path.abspath(os.path.join(top, name))
    if not name.isprintable() or path == top or os.path.commonpath([top, path]) != top:
        raise UserError(f"{one_line(name)!r} is no path below {directory}")
    return directory / os.path.relpath(path, top)
