"""What became of each file of a folder, kept through any kill: the rows of its manifest as they are made."""

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self, TextIO

from ..collection.kinds import mp4_name
from ..collection.units import Unit
from ..core import corrections, fingerprint, manifest, state
from ..core.files import atomic_write, link, naming
from ..core.keys import Key
from ..core.manifest import CONVERTED, Row
from ..core.names import decode_name
from ..core.settings import ConvertSettings
from . import ids

JOURNAL = "rows.jsonl"  # its name in a job's state directory


class Journal:
    """One JSON object a line, added as it is made; a file for each bucket.

    Each row is kept with the fingerprint of the settings that it was made under, and with the corrections that
    apply to it: under others it does not count, and is not lost either. Of rows of one file the last counts. Hashes of
    identifiers are kept with the name of their key, and forgotten under another and without one.
    """

    def __init__(
        self, top: Path, tree: Path, folder: Unit, settings: ConvertSettings, listed: set[str], key: Key | None = None
    ) -> None:
        """Read that of each bucket of `folder`, below `top`, and forget files that are not `listed`.

        `tree` holds the MP4 files.
        """
        self._top, self._tree = top, tree
        self._folder, self._settings, self._fingerprint = folder, settings, settings.fingerprint()
        self._earlier = dict.fromkeys(fingerprint.convert_0_1_0(settings), self._fingerprint)
        self._key = key.name if key else None
        self._records: dict[str, dict[str, Any]] = {}
        self._files: dict[str, TextIO] = {}
        sees = folder.sees(map(_key, listed))
        for bucket in folder.buckets:
            path = top / bucket / JOURNAL
            found, damage = records(path)
            kept: dict[str, dict[str, Any]] = {}
            for record in map(self._as_now, found):
                name = record["row"]["path"]
                is_own = folder.bucket(_key(name)) == bucket  # no other, under an earlier layout
                if is_own and name not in listed and sees(_key(name)):
                    continue
                kept[name] = record
                if is_own:
                    self._records[name] = record
            if damage:
                state.set_aside(path, damage, copy=True)
            with atomic_write(path) as part:
                part.write_text("".join(json.dumps(record) + "\n" for record in kept.values()), encoding="utf-8")

    def _as_now(self, record: dict[str, Any]) -> dict[str, Any]:
        """The record under the fingerprint of this version, and without hashes under another key."""
        record["settings"] = self._earlier.get(record["settings"], record["settings"])
        if self._key is None or record.get("key") != self._key:
            record["row"] |= ids.NONE
            record.pop("key", None)
        return record

    def row(self, path: str) -> Row | None:
        """The row of the file, if it was made under these settings."""
        record = self._records.get(path)
        row = Row(**record["row"]) if record else None
        return row if record and row and record["settings"] == self._made_under(row) else None

    def rows(self) -> Iterator[Row]:
        """Those that were made under these settings, of files that are not seen now, too."""
        return (row for path in [*self._records] if (row := self.row(path)))

    def mp4_time(self, row: Row) -> int | None:
        """When the MP4 of the row was written, ns since the epoch; None where an earlier version did not note it."""
        time: int | None = self._records[row.path].get("mp4_mtime_ns")
        return time

    def confirm(self, row: Row, mp4_time: int) -> None:
        """Note another time of writing of the row's MP4, which has been found to be the one that was made."""
        self._append(self._records[row.path] | {"mp4_mtime_ns": mp4_time})

    def carry(self, paths: Iterable[str]) -> set[str]:
        """Take over what was made of files where each folder was a unit, and MP4 files with it; returns of which.

        `paths` are the manifest's names of the files.
        """
        wanted: dict[str, dict[str, str]] = {}  # folder -> name there -> name here
        for path in paths:
            known = self._folder.in_folder(path)
            if known and path not in self._records:  # else another MP4 has been made here since
                wanted.setdefault(known[0], {})[known[1]] = path
        carried = set()
        for folder, names in wanted.items():
            for record in map(self._as_now, records(self._top / folder / JOURNAL)[0]):
                row = record["row"]
                path = names.get(row["path"], "")
                if path:
                    key = _key(path) if row["mp4"] else ""
                    old, new = self._tree / folder / row["mp4"], self._tree / key
                    if old != new and old.is_file() and not new.exists():
                        link(old, new)
                    self._append(record | {"row": row | {"path": path, "mp4": key}})
                    carried.add(path)
        return carried

    def lacks_ids(self, row: Row) -> bool:
        """Whether the row is kept and was made without the key of now."""
        return "key" not in self._records.get(row.path, {"key": None})

    def add(self, row: Row) -> None:
        """Append a row; from here on it survives whatever becomes of this process. Raises `OSError`: a full disk."""
        record: dict[str, Any] = {"settings": self._made_under(row), "row": dataclasses.asdict(row)}
        if self._key:
            record["key"] = self._key
        if row.status == CONVERTED:
            record["mp4_mtime_ns"] = (self._tree / row.mp4).stat().st_mtime_ns
        self._append(record)

    def _append(self, record: dict[str, Any]) -> None:
        path = record["row"]["path"]
        self._records[path] = record
        bucket = self._folder.bucket(_key(path))
        place = self._top / bucket / JOURNAL
        with naming(place):
            if bucket not in self._files:
                self._files[bucket] = place.open("a", encoding="utf-8")
            file = self._files[bucket]
            file.write(json.dumps(record) + "\n")
            file.flush()

    def _made_under(self, row: Row) -> str:
        source = os.path.join(self._folder.path, decode_name(row.path))
        return self._fingerprint + corrections.term(corrections.CONVERT, row, self._settings, source)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            with naming(file.name):
                file.close()


def _key(path: str) -> str:
    """The key of a clip by its path in the manifest."""
    return mp4_name(decode_name(path))


def records(path: Path) -> tuple[list[dict[str, Any]], str]:
    """The records in the journal at `path`, each `settings` and `row`; and what is damaged of it, in words.

    A last line that a kill cut short is no damage.
    """
    found: list[dict[str, Any]] = []
    if not path.exists():
        return found, ""
    *lines, last = path.read_bytes().split(b"\n")
    if last and not last.startswith(b"{"):
        lines.append(last)
    for line in lines:
        try:
            record = json.loads(line)
            manifest.check_row(record["row"])
            if isinstance(record["settings"], str):
                found.append(record)
        except (ValueError, TypeError, LookupError, RecursionError):
            continue
    damaged = len(lines) - len(found)
    verb = "is no row" if damaged == 1 else "are no rows"
    return found, f"{damaged} of {len(lines)} lines {verb}" if damaged else ""
