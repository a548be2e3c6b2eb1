"""Files that appear whole or not at all, their digests, and free disk space."""

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)  # error numbers of a disk without room
PART = ".part"  # what a file in the making is called: its final name and this


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its name only if the block ends well.

    The content is flushed to disk before the rename, so that after a power cut `path` is either the
    old file or the whole new one. On an error the temporary file is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + PART)
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The digest of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def free_bytes(*places: str | os.PathLike[str]) -> int:
    """What is free where the first of `places` lies that is there: it may be a link to another disk."""
    return shutil.disk_usage(next(place for place in places if os.path.isdir(place))).free
