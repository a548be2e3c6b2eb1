"""What became of each file of a folder, kept through any kill: the rows of its manifest as they are made."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, Self

from ..collection.folders import Folder
from ..core import corrections, fingerprint, manifest, state
from ..core.files import atomic_write, naming
from ..core.keys import Key
from ..core.manifest import Row
from ..core.names import decode_name
from ..core.settings import ConvertSettings
from . import ids


class Journal:
    """One JSON object a line, added as it is made.

    Each row is kept with the fingerprint of the settings that it was made under, and with the corrections that
    apply to it: under others it does not count, and is not lost either. Of rows of one file the last counts. Hashes of
    identifiers are kept with the name of their key, and forgotten under another and without one.
    """

    def __init__(
        self, path: Path, folder: Folder, settings: ConvertSettings, listed: set[str], key: Key | None = None
    ) -> None:
        """Read the journal at `path` of `folder`, forget files that are not in `listed`, and open it for more."""
        self._path, self._folder = path, folder
        self._settings, self._fingerprint = settings, settings.fingerprint()
        self._key = key.name if key else None
        earlier = fingerprint.convert_0_1_0(settings)
        self._records: dict[str, dict[str, Any]] = {}
        found, damage = records(path)
        for record in found:
            if record["settings"] in earlier:
                record["settings"] = self._fingerprint
            if self._key is None or record.get("key") != self._key:
                record["row"] |= ids.NONE
                record.pop("key", None)
            if record["row"]["path"] in listed:
                self._records[record["row"]["path"]] = record
        if damage:
            state.set_aside(path, damage, copy=True)
        with atomic_write(path) as part:
            part.write_text("".join(json.dumps(r) + "\n" for r in self._records.values()), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")

    def row(self, path: str) -> Row | None:
        """The row of the file, if it was made under these settings."""
        record = self._records.get(path)
        row = Row(**record["row"]) if record else None
        return row if record and row and record["settings"] == self._made_under(row) else None

    def lacks_ids(self, row: Row) -> bool:
        """Whether the row is kept and was made without the key of now."""
        return "key" not in self._records.get(row.path, {"key": None})

    def add(self, row: Row) -> None:
        """Append a row; from here on it survives whatever becomes of this process. Raises `OSError`: a full disk."""
        record = {"settings": self._made_under(row), "row": dataclasses.asdict(row)}
        if self._key:
            record["key"] = self._key
        self._records[row.path] = record
        with naming(self._path):
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()

    def _made_under(self, row: Row) -> str:
        source = os.path.join(self._folder.path, decode_name(row.path))
        return self._fingerprint + corrections.term(corrections.CONVERT, row, self._settings, source)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with naming(self._path):
            self._file.close()


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
