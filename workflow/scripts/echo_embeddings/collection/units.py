"""What one job of a stage works on: a folder, or a share of a collection that is divided."""

import abc
import contextlib
import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..core.layout import Layout
from ..core.locks import exclusive_lock
from ..core.names import encode_name
from ..core.pattern import PathPattern
from .kinds import VIDEOS, Kind
from .walk import Directory, leads_nowhere, walk

BUCKETS = 256


@dataclass(frozen=True)
class Survey:
    """What a unit looks like from outside.

    `fingerprint` changes when a file is added to or removed from it, at any depth, or a link gets the file that it
    leads to, and not when one is rewritten in place; `files` is how many there are, DICOM or not.
    """

    fingerprint: str
    files: int


@dataclass(frozen=True)
class Unit(abc.ABC):
    """What one job of a stage works on.

    `name` is safe in tables and file names; the paths of its files are relative to `path`. What its jobs remember lies
    in one directory for each of its `buckets`, so that another division of the collection finds it again.
    """

    name: str
    path: str

    @property
    @abc.abstractmethod
    def buckets(self) -> tuple[str, ...]:
        """The names of the directories in which jobs keep what they remember of its clips."""

    @abc.abstractmethod
    def bucket(self, key: str) -> str:
        """The bucket of the clip with this key."""

    @abc.abstractmethod
    def has(self, key: str) -> bool:
        """Whether the clip with this key is its own, there or not."""

    @abc.abstractmethod
    def sees(self, listed: Iterable[str]) -> Callable[[str], bool]:
        """Whether the clip with a key would be among those whose keys are `listed`, if its file were there.

        Not where a directory is away as a whole: what was made of its files stays, as it does of a folder.
        """

    @abc.abstractmethod
    def in_folder(self, path: str) -> tuple[str, str] | None:
        """Which folder has the file or clip at `path`, and as what, where folders are units; None if this is one."""

    @abc.abstractmethod
    def directories(self) -> Iterator[Directory]:
        """The directories in which its files lie, with these files."""

    @abc.abstractmethod
    def survey(self) -> Survey:
        """Look through it: directories only, so that half a million files are not touched one by one."""

    @abc.abstractmethod
    def tree(self, layout: Layout, size: int | str) -> Path:
        """The directory of its MP4 files, to which their keys are relative."""

    @abc.abstractmethod
    def made(self, tree: Path) -> Iterator[tuple[Path, list[str], bool]]:
        """The directories below `tree` in which its MP4 files lie, parents first.

        Each with the names of all files in it, and whether all of them are its own.
        """

    def files(self) -> list[str]:
        """Every path of its that is no directory, relative to `path`, in byte order."""
        found = (directory.path_of(entry) for directory in self.directories() for entry in directory.entries)
        return sorted(found, key=os.fsencode)

    @contextlib.contextmanager
    def locked(self, state: Path) -> Iterator[None]:
        """Hold the locks of its buckets below `state`, the directory of what a stage remembers.

        Raises `TransientError` if another run has one, `UserError` where the file system has no locks.
        """
        with contextlib.ExitStack() as locks:
            # Its own too: another division's unit of this name writes the same results.
            for name in {self.name: None, **dict.fromkeys(self.buckets)}:
                locks.enter_context(exclusive_lock(state / name, self.name))
            yield


def _below(tree: Path) -> Iterator[tuple[Path, str, list[str], list[str]]]:
    """Each directory below `tree` and itself: path, relative path, names of directories to enter, and of files."""
    for directory, names, files in os.walk(tree):
        relative = os.path.relpath(directory, tree)
        yield Path(directory), "" if relative == "." else relative, names, files


# --- a folder ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Folder(Unit):
    """A folder of the collection.

    One that is not `deep` is the files lying directly in `dicom_dir`, without its sub-folders.
    """

    deep: bool = True

    @property
    def buckets(self) -> tuple[str, ...]:
        """It is one itself."""
        return (self.name,)

    def bucket(self, key: str) -> str:
        """Always itself."""
        del key
        return self.name

    def has(self, key: str) -> bool:
        """Every clip below it."""
        del key
        return True

    def sees(self, listed: Iterable[str]) -> Callable[[str], bool]:
        """All below it: a folder without files is none."""
        del listed
        return self.has

    def in_folder(self, path: str) -> None:
        """It is one."""

    def directories(self) -> Iterator[Directory]:
        """All of them."""
        return walk(self.path, lambda _: self.deep)

    def survey(self) -> Survey:
        """By the names and times of modification (ns) of its directories."""
        digest = hashlib.sha256()
        number = 0
        for directory in sorted(self.directories(), key=lambda one: os.fsencode(one.relative)):
            number += len(directory.entries)
            if self.deep:
                digest.update(os.fsencode(directory.relative or ".") + b"\0%d\0" % directory.mtime_ns)
            else:  # the directory's time also changes with its sub-folders
                for name in sorted(os.fsencode(entry.name) for entry in directory.entries):
                    digest.update(name + b"\0")
            for path in sorted(_dangling(directory)):
                digest.update(b"nowhere\0" + path + b"\0")
        return Survey(digest.hexdigest(), number)

    def tree(self, layout: Layout, size: int | str) -> Path:
        """A directory that is called like it."""
        return layout.mp4(size, self.name)

    def made(self, tree: Path) -> Iterator[tuple[Path, list[str], bool]]:
        """All of them."""
        return ((directory, files, True) for directory, _, _, files in _below(tree))


def _dangling(directory: Directory) -> Iterator[bytes]:
    return (os.fsencode(directory.path_of(entry)) for entry in directory.entries if leads_nowhere(entry))


# --- a share ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Division:
    """A collection divided into `units` shares by its files' paths alone: a new patient moves nobody.

    Each file falls into one of 256 buckets by its patient as the `pattern` gives it, else by the first directory of its
    path, else by the name of its clip; and a unit has about an equal number of buckets, one after the other.
    """

    units: int
    kind: Kind
    pattern: PathPattern | None = None
    folders: frozenset[str] = frozenset()  # the first directories that count, "" for no directory; empty means all

    def bucket(self, key: str) -> int:
        """That of the clip with this key."""
        key = _SUFFIX.sub("", key)
        patient = self.pattern.value("patient", key) if self.pattern else None
        return _hash(patient or _first(key))

    def bucket_of_directory(self, path: str) -> int | None:
        """That of every clip below a directory; None where they may be in several. `path` is percent-encoded."""
        depth = path.count("/") + 1 if path else 0
        if not self.pattern:
            known = depth > 0
        elif (patient_depth := self.pattern.depth("patient")) is not None:
            known = depth >= patient_depth
        else:  # names of files say it, as deep as the pattern is
            known = depth > self.pattern.text.count("/")
        return self.bucket(f"{path}/") if known else None

    def unit(self, bucket: int) -> int:
        """The number of the unit that has the bucket."""
        return bucket * self.units // BUCKETS

    def counts(self, path: str) -> bool:
        """Whether `folders` lets a directory count, or the clip with this key."""
        return not self.folders or path.partition("/")[0] in self.folders

    def name(self, bucket: int) -> str:
        """The name of the unit that has the bucket."""
        return f"u{self.unit(bucket):03d}"

    def names(self) -> list[str]:
        """The names of all units."""
        return sorted({self.name(bucket) for bucket in range(BUCKETS)})

    def placed(self, top: str, units: Iterable[int]) -> Iterator[tuple[int, Directory, bool]]:
        """The directories below `top`, once for each of the `units` that has files in it.

        With these files, and whether no other unit has files in it.
        """
        wanted = set(units)

        def enters(path: str) -> bool:
            path = encode_name(path)
            bucket = self.bucket_of_directory(path)
            return self.counts(path) and (bucket is None or self.unit(bucket) in wanted)

        for directory in walk(top, enters):
            path = encode_name(directory.relative)
            bucket = self.bucket_of_directory(path)
            if bucket is not None:
                yield self.unit(bucket), directory, True
                continue
            parts: dict[int, list[os.DirEntry[str]]] = {}
            for entry in directory.entries if path or self.counts("") else ():
                key = self.kind.clip_key(directory.path_of(entry))
                parts.setdefault(self.unit(self.bucket(key)), []).append(entry)
            for unit in wanted & parts.keys():
                yield unit, Directory(directory.relative, directory.mtime_ns, parts[unit]), False

    def surveys(self, top: str, units: Iterable[int]) -> dict[int, Survey]:
        """What the `units` look like from outside, by one walk.

        The names and times of modification (ns) of directories that one unit has alone, and the names of other files.
        """
        facts: dict[int, list[bytes]] = {unit: [] for unit in units}
        files = dict.fromkeys(facts, 0)
        for unit, directory, alone in self.placed(top, facts):
            of_unit = facts[unit]
            files[unit] += len(directory.entries)
            if alone:
                of_unit.append(b"directory\0%b\0%d" % (os.fsencode(directory.relative), directory.mtime_ns))
            else:
                of_unit += [b"file\0" + os.fsencode(directory.path_of(entry)) for entry in directory.entries]
            of_unit += [b"nowhere\0" + path for path in _dangling(directory)]
        return {
            unit: Survey(hashlib.sha256(b"\0\0".join([b"%d" % self.units, *sorted(of_unit)])).hexdigest(), files[unit])
            for unit, of_unit in facts.items()
        }


_SUFFIX = re.compile(rf"(?:{'|'.join(map(re.escape, VIDEOS))})$", re.IGNORECASE)


def _first(path: str) -> str:
    """The first part of a path, without suffix: of `x.mp4/y` that of `x.mp4`, which cannot both be there."""
    return _SUFFIX.sub("", path.partition("/")[0])


def _directory(path: str) -> str:
    """The first directory of a path, "" for none."""
    first, slash, _ = path.partition("/")
    return first if slash else ""


def _hash(text: str) -> int:
    """One of the `BUCKETS`, for good: results are found again by it."""
    return hashlib.blake2b(os.fsencode(text), digest_size=1).digest()[0]


@dataclass(frozen=True)
class Share(Unit):
    """One of the equal shares of a divided collection."""

    number: int
    division: Division

    @functools.cached_property
    def buckets(self) -> tuple[str, ...]:
        """About an equal number for each share."""
        return tuple(_called(b) for b in range(BUCKETS) if self.division.unit(b) == self.number)

    def bucket(self, key: str) -> str:
        """By its patient or its place, whichever share has that."""
        return _called(self.division.bucket(key))

    def has(self, key: str) -> bool:
        """Those of its buckets that `folders` lets count."""
        counts = self.division.counts(_directory(key))
        return counts and self.division.unit(self.division.bucket(key)) == self.number

    def sees(self, listed: Iterable[str]) -> Callable[[str], bool]:
        """Those below a first directory that has files of this unit, or beside such a file."""
        there = {_directory(key) for key in listed}
        return lambda key: _directory(key) in there and self.has(key)

    def in_folder(self, path: str) -> tuple[str, str]:
        """That which is called like the first directory, or like the collection's own."""
        first, _, rest = path.partition("/")
        return (first, rest) if rest else (encode_name(os.path.basename(os.path.abspath(self.path))), path)

    def directories(self) -> Iterator[Directory]:
        """Those of its buckets."""
        return (directory for _, directory, _ in self.division.placed(self.path, [self.number]))

    def survey(self) -> Survey:
        """As `Division.surveys` does."""
        return self.division.surveys(self.path, [self.number])[self.number]

    def tree(self, layout: Layout, size: int | str) -> Path:
        """One directory for the whole collection."""
        return layout.mp4(size)

    def made(self, tree: Path) -> Iterator[tuple[Path, list[str], bool]]:
        """Those that its buckets have to themselves, and those that all share."""
        for directory, relative, names, files in _below(tree):
            alone = self.division.bucket_of_directory(relative) is not None
            yield directory, files, alone
            names[:] = [name for name in names if self._enters(f"{relative}/{name}" if relative else name)]

    def _enters(self, path: str) -> bool:
        bucket = self.division.bucket_of_directory(path)
        return self.division.counts(path) and (bucket is None or self.division.unit(bucket) == self.number)


def owner(units: Mapping[str, Unit], path: str) -> str | None:
    """The one of all `units` that would have the file at `path`, below the collection's directory, without suffix."""
    first = path.partition("/")[0]
    if isinstance(units.get(first), Folder):
        return first
    any_unit = next(iter(units.values()))
    if not isinstance(any_unit, Share) or not any_unit.division.counts(_directory(path)):
        return None
    return any_unit.division.name(any_unit.division.bucket(f"{path}.mp4"))


def files_of(units: Iterable[Unit]) -> dict[Unit, list[str]]:
    """The files of each unit, as `Unit.files` has them, by one walk through a divided collection."""
    found: dict[Unit, list[str]] = {unit: [] if isinstance(unit, Share) else unit.files() for unit in units}
    shares = {unit.number: unit for unit in found if isinstance(unit, Share)}
    for share in [*shares.values()][:1]:
        for number, directory, _ in share.division.placed(share.path, shares):
            found[shares[number]] += map(directory.path_of, directory.entries)
    return {unit: sorted(paths, key=os.fsencode) for unit, paths in found.items()}


def _called(bucket: int) -> str:
    """The directory of a bucket among those of folders."""
    return f"buckets/{bucket:02x}"
