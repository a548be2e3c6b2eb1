"""DICOM packed in zip and tar files: told from other files, and how to unpack it. It is not read in place."""

import itertools
import os
import shlex
import stat
import tarfile
import zipfile

from .mark import bears_mark

LOOK_AT = 20  # files in an archive, until it counts as one without DICOM


def unpack_command(path: str) -> str | None:
    """The command that unpacks the zip or tar (plain, gzip, bzip2, xz) at `path` beside it.

    None if it is no archive, or none with DICOM among its first files. Raises `OSError` if it cannot be read.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        return None
    where, there = shlex.quote(path), shlex.quote(os.path.dirname(path) or ".")
    try:
        if zipfile.is_zipfile(path):
            return f"unzip {where} -d {there}" if _zip_holds_dicom(path) else None
        if tarfile.is_tarfile(path):
            return f"tar -xf {where} -C {there}" if _tar_holds_dicom(path) else None
    except OSError:
        raise
    except Exception:  # there is no end to what an archive brings that is damaged, encrypted or packed in another way
        return None
    return None


def _zip_holds_dicom(path: str) -> bool:
    with zipfile.ZipFile(path) as archive:
        for member in itertools.islice((m for m in archive.infolist() if not m.filename.endswith("/")), LOOK_AT):
            with archive.open(member) as file:
                if bears_mark(file):
                    return True
    return False


def _tar_holds_dicom(path: str) -> bool:
    with tarfile.open(path) as archive:
        for member in itertools.islice((m for m in archive if m.isfile()), LOOK_AT):
            file = archive.extractfile(member)
            if file and bears_mark(file):
                return True
    return False
