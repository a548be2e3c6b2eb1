"""Which folders a collection has, of DICOM or of videos."""

import os
import re

from ..core.errors import UserError
from ..core.layout import MERGED
from ..core.names import decode_name, encode_name
from ..dicom.mark import seems_dicom
from .kinds import DICOM, VIDEO, VIDEOS, Kind, is_video
from .units import Folder
from .walk import is_directory, list_directory

LONGEST = 200  # bytes of a folder's name: results are called by it and the model's, and file systems allow 255
LOOK = 32  # files of a folder that are opened to find out whether it holds DICOM
# How names of files end that are no DICOM, nor archives of it. Where many files are none, the names of others decide.
OTHERS = (
    *(
        ".bmp",
        ".bz2",
        ".csv",
        ".doc",
        ".docx",
        ".exe",
        ".gif",
        ".gz",
        ".htm",
        ".html",
        ".inf",
        ".ini",
        ".jpeg",
        ".jpg",
        ".json",
    ),
    *(".log", ".md", ".parquet", ".pdf", ".png", ".svg", ".tif", ".tiff", ".tsv", ".txt", ".xls", ".xlsx", ".xml"),
    *(".xz", ".yaml", ".yml", ".zip", *VIDEOS),
)
ARCHIVES = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")


def find_folders(top: str, chosen: list[str], kind: Kind = DICOM) -> dict[str, Folder]:
    """The folders of the collection in byte order, by name.

    A folder is a direct sub-folder of `top` with at least one file of the kind at any depth; those lying
    directly in `top` form one more, named after it. `chosen` are the names wanted, percent-encoded
    where need be; none means all. Raises `UserError` where there are none, or a chosen one is not there,
    or a name is not usable.
    """
    if chosen:
        found = [find_folder(top, name, kind) for name in sorted(set(chosen), key=os.fsencode)]
    else:
        below = sorted((e.path for e in list_directory(top) if is_directory(e)), key=os.fsencode)
        every = [*(Folder(encode_name(os.path.basename(path)), path) for path in below), direct_files(top)]
        found = [folder for folder in every if holds(folder, kind)]
    if not found:
        raise UserError(no_files(top, kind))
    names = [folder.name for folder in found]
    for name in names:
        if reason := _reserved(name):
            raise UserError(f"config: {kind.key}: rename the folder {name!r}: {reason}")
        if names.count(name) > 1:
            raise UserError(
                f"config: {kind.key}: {kind.name} files lie directly in {top!r} and in its sub-folder {name!r}; "
                "move the former into a sub-folder of their own, or name the folder you want in 'folders'"
            )
    return {folder.name: folder for folder in found}


def find_folder(top: str, name: str, kind: Kind = DICOM) -> Folder:
    """The folder `name` of the collection. Raises `UserError` if it is not there or holds no file of the kind."""
    folder = there(top, name, kind)
    if holds(folder, kind):
        return folder
    if folder.deep:
        raise UserError(f"folder {name!r}: no {kind.name} below {folder.path} (looked for {kind.sign})")
    raise UserError(f"folder {name!r}: there is none in {kind.key} {top!r}")


def there(top: str, name: str, kind: Kind = DICOM) -> Folder:
    """The folder `name`, whatever it holds. Raises `UserError` if it is not there."""
    raw = decode_name(name)
    if raw in ("", ".", "..") or "/" in raw:
        raise UserError(f"folder {name!r}: not the name of a direct sub-folder of {kind.key} {top!r}")
    path = os.path.join(top, raw)
    if os.path.isdir(path):
        return Folder(name, path)
    direct = direct_files(top)
    if name == direct.name:
        return direct
    raise UserError(f"folder {name!r}: there is none in {kind.key} {top!r}")


def direct_files(top: str) -> Folder:
    """The folder of what lies directly in `top`."""
    return Folder(encode_name(os.path.basename(os.path.abspath(top))), top, deep=False)


def no_files(top: str, kind: Kind) -> str:
    """What is wrong where there is no file of the kind."""
    return (
        f"config: {kind.key}: no {kind.name} below {top!r} (looked for {kind.sign}); "
        f"set {kind.key} to the directory whose sub-folders hold {kind.name} files"
    )


def _reserved(name: str) -> str | None:
    """Why no folder can have this name, None if one can: results are called by it, and Snakemake reads their names."""
    if name == MERGED:
        return f"{MERGED!r} is reserved"
    if match := re.search(r"[{}]|<[a-z][a-z0-9_]*>", name):
        return f"{match[0]} stands for something else in Snakemake"
    if match := re.search(r"(.+)\1{19,99}$", name):
        return f"Snakemake refuses a name that ends with {match[1]!r} twenty times or more"
    if len(os.fsencode(name)) > LONGEST:
        return f"names of results would be too long; {LONGEST} bytes are the most"
    return None


def holds(folder: Folder, kind: Kind) -> bool:
    """Whether there is a file of the kind in the folder; of DICOM, whether there may be: its job finds out.

    At most `LOOK` files are opened. Where none of them is DICOM, there may be some in an archive, or among further
    files of which the names do not say that they are something else.
    """
    if kind is VIDEO:
        return any(is_video(entry.name) for directory in folder.directories() for entry in directory.entries)
    others: list[str] = []
    opened, archives = 0, False
    for directory in folder.directories():
        for entry in directory.entries:
            name = entry.name.lower()
            archives |= name.endswith(ARCHIVES)
            if name.endswith(OTHERS):
                others.append(entry.path)
            elif opened == LOOK or seems_dicom(entry.path):
                return True
            else:
                opened += 1
    return archives or any(seems_dicom(path) for path in others[: LOOK - opened])
