"""Which folders a collection has, of DICOM or of videos, and which files a folder holds."""

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.layout import MERGED, Layout
from ..core.names import decode_name, encode_name
from ..dicom.archives import unpack_command
from ..dicom.mark import has_dicom_mark

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm")  # how names of videos end, in any case
LONGEST = 200  # bytes of a folder's name: results are called by it and the model's, and file systems allow 255
APPLE_DOUBLE = "._"  # how the names of files begin in which macOS keeps what another file system cannot


@dataclass(frozen=True)
class Survey:
    """What a folder looks like from outside.

    `fingerprint` changes when a file is added to or removed from it, at any depth, or a link gets the file that it
    leads to, and not when one is rewritten in place; `files` is how many there are, DICOM or not.
    """

    fingerprint: str  # of the names and modification times (ns) of its directories, and links that lead nowhere
    files: int


@dataclass(frozen=True)
class Folder:
    """A folder of the collection: one job a stage.

    `name` is safe in tables and file names; `path` is where the DICOM lie. A folder that is not
    `deep` is the files lying directly in `dicom_dir`, without its sub-folders.
    """

    name: str
    path: str
    deep: bool = True

    def survey(self) -> Survey:
        """Look through the folder: directories only, so that half a million files are not touched one by one."""
        digest = hashlib.sha256()
        number = 0
        for directory, found in sorted(_walk(self.path, self.deep), key=lambda pair: os.fsencode(pair[0])):
            number += len(found)
            if self.deep:
                relative = os.path.relpath(directory, self.path)
                time = os.stat(directory).st_mtime_ns
                digest.update(os.fsencode(relative) + b"\0" + str(time).encode() + b"\0")
            else:  # the directory's time also changes with its sub-folders
                for name in sorted(os.fsencode(entry.name) for entry in found):
                    digest.update(name + b"\0")
            for path in sorted(os.fsencode(entry.path) for entry in found if leads_nowhere(entry)):
                digest.update(b"nowhere\0" + os.path.relpath(path, os.fsencode(self.path)) + b"\0")
        return Survey(digest.hexdigest(), number)


def _walk(top: str, deep: bool = True) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """Yield each directory below and including `top`, or only that, with what is in it and no directory.

    Symbolic links are followed, but never back into a directory that they lie in. Raises `UserError` if one
    cannot be listed.
    """
    pending: list[tuple[str, frozenset[tuple[int, int]]]] = [(top, frozenset())]
    while pending:
        directory, above = pending.pop()
        seen = os.stat(directory)
        identity = (seen.st_dev, seen.st_ino)
        if identity in above:
            continue
        found = []
        for entry in _entries(directory):
            if not _is_directory(entry):
                found.append(entry)
            elif deep:
                pending.append((entry.path, above | {identity}))
        yield directory, found


def _entries(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except OSError as error:
        raise UserError(
            f"cannot list {directory}: {error.strerror}; make it readable, or say in config: folders which to work on"
        ) from error


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself, say: it is listed, and the reader says why it fails
        return False


def leads_nowhere(link: Path | os.DirEntry[str]) -> bool:
    """Whether it is a link to what is not there: a file that git-annex has not fetched yet, say."""
    try:
        if link.is_symlink():
            link.stat()  # which an entry that was looked at remembers
    except FileNotFoundError:
        return True
    except OSError:  # a link that leads to itself
        return False
    return False


def _holds_dicom(paths: list[str]) -> bool:
    for path in paths:
        try:
            if has_dicom_mark(path):
                return True
        except OSError:  # unreadable files get their row when their folder is converted
            continue
    return False


def _holds_video(paths: list[str]) -> bool:
    return any(is_video(path) for path in paths)


def is_video(path: str) -> bool:
    """Whether the file is a video by its name."""
    return path.lower().endswith(VIDEOS) and not os.path.basename(path).startswith(APPLE_DOUBLE)


@dataclass(frozen=True)
class Kind:
    """What a collection is made of."""

    key: str  # of the configuration: where it lies
    name: str
    sign: str  # by which its files are known
    holds: Callable[[list[str]], bool]  # whether one of the paths is such a file
    archives: bool  # whether archives of it are looked for, and refused


DICOM = Kind("dicom_dir", "DICOM", "the mark 'DICM' at byte 128", _holds_dicom, archives=True)
VIDEO = Kind("mp4_dir", "video", f"names that end with {', '.join(VIDEOS)}", _holds_video, archives=False)


def collection_source(config: Mapping[str, Any]) -> tuple[str, Kind]:
    """Where the collection lies, and what it is made of: videos, if the configuration has some, or else DICOM."""
    return (config["mp4_dir"], VIDEO) if config["mp4_dir"] else (config["dicom_dir"], DICOM)


def mp4_tree(config: Mapping[str, Any], layout: Layout, size: int | str, folder: str) -> Path:
    """Where the videos of a folder lie: the MP4 files of `size` x `size` pixels, or those that were there."""
    if config["mp4_dir"]:
        return Path(find_folder(config["mp4_dir"], folder, VIDEO).path)
    return layout.mp4(size, folder)


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
        below = sorted((e.path for e in _entries(top) if _is_directory(e)), key=os.fsencode)
        found = [Folder(encode_name(os.path.basename(p)), p) for p in below if _is_folder(p, kind)]
        direct = list_files(_direct(top), full=True)
        if kind.holds(direct):
            found.append(_direct(top))
        elif kind.archives:
            _refuse_archives(direct)
    if not found:
        raise UserError(
            f"config: {kind.key}: no {kind.name} below {top!r} (looked for {kind.sign}); "
            f"set {kind.key} to the directory whose sub-folders hold {kind.name} files"
        )
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


def _direct(top: str) -> Folder:
    return Folder(encode_name(os.path.basename(os.path.abspath(top))), top, deep=False)


def _is_folder(path: str, kind: Kind) -> bool:
    """Whether there is a file of the kind below. Raises `UserError` if there is, and all of it in archives."""
    if any(kind.holds([entry.path for entry in found]) for _, found in _walk(path)):
        return True
    for _, found in _walk(path) if kind.archives else ():
        _refuse_archives(entry.path for entry in found)
    return False


def _refuse_archives(paths: Iterable[str]) -> None:
    for path in sorted(paths, key=os.fsencode):
        with contextlib.suppress(OSError):  # unreadable: no archive that anybody could unpack
            if command := unpack_command(path):
                raise UserError(f"{path}: DICOM in an archive; unpack it, and others like it: {command}")


def find_folder(top: str, name: str, kind: Kind = DICOM) -> Folder:
    """The folder `name` of the collection. Raises `UserError` if it is not there or holds no file of the kind."""
    raw = decode_name(name)
    if raw in ("", ".", "..") or "/" in raw:
        raise UserError(f"folder {name!r}: not the name of a direct sub-folder of {kind.key} {top!r}")
    path = os.path.join(top, raw)
    if os.path.isdir(path):
        if _is_folder(path, kind):
            return Folder(name, path)
        raise UserError(f"folder {name!r}: no {kind.name} below {path} (looked for {kind.sign})")
    direct = _direct(top)
    if name == direct.name and kind.holds(list_files(direct, full=True)):
        return direct
    raise UserError(f"folder {name!r}: there is none in {kind.key} {top!r}")


def list_files(folder: Folder, full: bool = False) -> list[str]:
    """Every path in the folder that is no directory, relative to it (or `full`), in byte order."""
    found = [entry.path for _, entries in _walk(folder.path, folder.deep) for entry in entries]
    if not full:
        found = [os.path.relpath(path, folder.path) for path in found]
    return sorted(found, key=os.fsencode)


def mp4_name(path: str) -> str:
    """The MP4 name of the DICOM at `path`, both relative to the folder; percent-encoded.

    One final `.dcm` (any case) is taken off and nothing else: `1.2.840.55` and `1.2.840.56` stay two.
    """
    stem = path[:-4] if path.lower().endswith(".dcm") else path
    return encode_name(stem) + ".mp4"
