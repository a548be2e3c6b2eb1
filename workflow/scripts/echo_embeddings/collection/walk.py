"""Directories, looked through without touching the files in them."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import UserError

Entry = os.DirEntry[str]


@dataclass(frozen=True)
class Directory:
    """A directory below the one that is looked through."""

    relative: str  # to that; "" is that itself
    mtime_ns: int
    entries: list[Entry]  # everything in it but directories

    def path_of(self, entry: Entry) -> str:
        """The path of an entry, relative to the directory that is looked through."""
        return f"{self.relative}/{entry.name}" if self.relative else entry.name


def walk(top: str, enters: Callable[[str], bool] = lambda _: True) -> Iterator[Directory]:
    """Yield `top` and each directory below whose relative path `enters` wants, parents before what is in them.

    Symbolic links are followed, but never back into a directory that they lie in. Raises `UserError` if one
    cannot be listed.
    """
    pending: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while pending:
        relative, above = pending.pop()
        path = os.path.join(top, relative) if relative else top
        seen = os.stat(path)
        identity = (seen.st_dev, seen.st_ino)
        if identity in above:
            continue
        within = above | {identity}
        directory = Directory(relative, seen.st_mtime_ns, [])
        for entry in list_directory(path):
            if not is_directory(entry):
                directory.entries.append(entry)
            elif enters(directory.path_of(entry)):
                pending.append((directory.path_of(entry), within))
        yield directory


def list_directory(path: str) -> list[Entry]:
    """What is in a directory. Raises `UserError` if it cannot be listed."""
    with _listing(path) as entries:
        return list(entries)


@contextlib.contextmanager
def _listing(path: str) -> Iterator[Iterator[Entry]]:
    try:
        with os.scandir(path) as entries:
            yield entries
    except OSError as error:
        raise UserError(
            f"cannot list {path}: {error.strerror}; make it readable, or say in config: folders which to work on"
        ) from error


def is_empty(path: str) -> bool:
    """Whether a directory has nothing in it. Raises `UserError` if it cannot be listed."""
    with _listing(path) as entries:
        return next(entries, None) is None


def is_directory(entry: Entry) -> bool:
    """Whether it is a directory, or leads to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself, say: it is listed, and the reader says why it fails
        return False


def leads_nowhere(link: Path | Entry) -> bool:
    """Whether it is a link to what is not there: a file that git-annex has not fetched yet, say."""
    try:
        if link.is_symlink():
            link.stat()  # which an entry that was looked at remembers
    except FileNotFoundError:
        return True
    except OSError:  # a link that leads to itself
        return False
    return False
