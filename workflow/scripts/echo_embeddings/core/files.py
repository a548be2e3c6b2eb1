"""Files that appear whole or not at all, their digests, and free disk space."""

import contextlib
import errno
import functools
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)  # error numbers of a disk without room
PART = ".part"  # how the name of a file in the making ends


def part_of(path: Path, *more: object, end: str = PART) -> Path:
    """Where the file `path` is made, beside it: under a short name, since its own may be as long as names can be.

    The name has 16 bytes before its `end` and is the same each time, for each `more`.
    """
    digest = hashlib.sha256(b"\0".join(map(os.fsencode, (path.name, *map(str, more)))))
    return path.with_name(digest.hexdigest()[:16] + end)


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Have an `OSError` of the block that names no file, as of a disk that is full, name `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)
        raise


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its name only if the block ends well.

    The content is flushed to disk before the rename, so that after a power cut `path` is either the
    old file or the whole new one. On an error the temporary file is removed, and an `OSError` names a file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path)
    with contextlib.suppress(OSError):  # none is there, mostly: what version 0.1.0 left where it was killed
        path.with_name(path.name + PART).unlink()
    try:
        with naming(path):
            yield part
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def link(source: Path, target: Path) -> None:
    """Give the file `source` the second name `target`, or copy it to another file system."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        with atomic_write(target) as part:
            shutil.copy2(source, part)


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The digest of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def blake2b_of(path: str | os.PathLike[str]) -> str:
    """The BLAKE2b digest of 128 bits of a file's content, which `b2sum --length 128` gives too."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, functools.partial(hashlib.blake2b, digest_size=16)).hexdigest()


def free_bytes(*places: str | os.PathLike[str]) -> int:
    """What is free where the first of `places` lies that is there: it may be a link to another disk."""
    return shutil.disk_usage(next(place for place in places if os.path.isdir(place))).free
