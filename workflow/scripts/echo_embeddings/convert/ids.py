"""What manifests keep of a header's identifiers: hashes under the user's key, and never what they are of."""

import dataclasses
import os
from collections.abc import Iterator, Mapping

import pydicom

from ..collection.units import Unit
from ..core.keys import Key
from ..core.manifest import Row
from ..core.workers import at_work
from ..dicom.header import Skip, Unreadable, read_header

KEYWORDS = {"patient_id_hash": "PatientID", "study_instance_uid_hash": "StudyInstanceUID"}  # by column
NONE = dict.fromkeys(KEYWORDS)


def hashed(dataset: pydicom.Dataset, key: Key | None) -> dict[str, str | None]:
    """The cells of the manifest: None without a key, and of what the header does not say."""
    return {column: _hash(dataset, keyword, key) if key else None for column, keyword in KEYWORDS.items()}


def _hash(dataset: pydicom.Dataset, keyword: str, key: Key) -> str | None:
    try:
        value = str(dataset.get(keyword) or "").strip()
    except Exception:  # pydicom raises whatever a broken value leads it to
        return None
    return key.hash(keyword, value) if value else None


def renewed(folder: Unit, rows: Mapping[str, Row], key: Key, number: int, timeout: float) -> Iterator[tuple[str, Row]]:
    """The rows of files, by path, with the cells under `key`; headers are read in `number` processes, nothing else.

    A file that cannot be read now is left out.
    """
    if rows:
        print(f"{folder.name}: reading {len(rows)} headers again, for hashes of identifiers", flush=True)
    paths = {os.path.join(folder.path, path): path for path in rows}
    tasks = [(source, key) for source in paths]
    with at_work(cells_of, tasks, number, timeout, limit="convert.timeout") as results:
        for (source, _), cells in results:
            if isinstance(cells, dict):
                yield paths[source], dataclasses.replace(rows[paths[source]], **cells)


def cells_of(source: str, key: Key) -> dict[str, str | None] | None:
    """The cells of the file at `source`; None if it cannot be read."""
    try:
        dataset, _ = read_header(source)
    except Skip:
        return dict(NONE)
    except Unreadable:
        return None
    return hashed(dataset, key)
