"""Every video against the digest that its manifest has: what disks and copies have damaged, no decoder tells."""

import collections
import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..collection.source import Collection
from ..collection.units import Unit
from ..core import manifest, settings
from ..core.files import blake2b_of
from ..core.layout import DICOM, Layout
from ..core.manifest import CONVERTED, Row

OUTCOMES = AS_MADE, DAMAGED, GONE, UNREADABLE, UNKNOWN = "as made", "damaged", "gone", "unreadable", "without digest"
UNMADE = "without manifest"  # a folder that no job has converted yet


@dataclass(frozen=True)
class Tree:
    """The videos of one unit: its MP4 files of one size, or those of a collection."""

    unit: Unit
    clips: int | str  # the size of its MP4 files, or what `layout.masked` makes of it
    directory: Path

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.unit.name} at {self.clips}"

    @property
    def table(self) -> Path:
        """The manifest."""
        return Layout().manifest(self.clips, self.unit.name)


def trees(config: Mapping[str, Any], registry: Mapping[str, Mapping[str, Any]]) -> Iterator[Tree]:
    """Those that the models of the configuration read; what is fed straight from DICOM reads none."""
    collection = Collection.of(config)
    units = collection.units().values()
    fed_with = {settings.model(config, registry, name).clips for name in config["models"]}
    for clips in sorted(fed_with - {DICOM}, key=str):
        for unit in units:
            yield Tree(unit, clips, collection.tree(unit, Layout(), clips))


def scrub(tree: Tree, say: Callable[[str], None], delete: bool = False) -> collections.Counter[str]:
    """Read the videos of a tree, one a core at a time; returns how many are what.

    What is `UNKNOWN` has the manifest's size, and was made before manifests had digests. With `delete` what is
    `DAMAGED` is deleted, and nothing else. `say` gets a line about each file that is not well, and one about all.
    Raises `UserError` if the manifest is none or, with `delete`, a job is at work on the folder.
    """
    if not tree.table.is_file():
        say(f"{tree.name}: no manifest yet")
        return collections.Counter([UNMADE])
    counts = collections.Counter[str]()
    with tree.unit.locked(Layout().state("convert", tree.clips)) if delete else contextlib.nullcontext():
        rows = [row for row in manifest.read(tree.table) if row.status == CONVERTED]
        threads = ThreadPoolExecutor(os.cpu_count())
        try:
            for row, (outcome, why) in zip(rows, threads.map(lambda row: _outcome(tree, row), rows), strict=True):
                counts[outcome] += 1
                if outcome not in (AS_MADE, UNKNOWN):
                    say(f"{tree.directory / row.mp4}: {outcome}{why}")
                if outcome == DAMAGED and delete:
                    (tree.directory / row.mp4).unlink()
        finally:
            threads.shutdown(cancel_futures=True)
    found = ", ".join(f"{counts[outcome]:,} {outcome}" for outcome in OUTCOMES if counts[outcome])
    say(f"{tree.name}: {len(rows):,} videos" + (f": {found}" if found else ""))
    return counts


def _outcome(tree: Tree, row: Row) -> tuple[str, str]:
    """What an MP4 is, and why it cannot be read."""
    path = tree.directory / row.mp4
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return UNREADABLE, ": not a file"
        if status.st_size != row.mp4_bytes:
            return DAMAGED, ""
        if row.mp4_blake2b is None:
            return UNKNOWN, ""
        return AS_MADE if blake2b_of(path) == row.mp4_blake2b else DAMAGED, ""
    except FileNotFoundError:
        return GONE, ""
    except OSError as error:
        return UNREADABLE, f": {error.strerror}"


def advice(found: Mapping[str, int], theirs: bool, deleted: bool, rule: str = "convert") -> str:
    """What to do about it; nothing if all is well.

    `theirs` is a collection of videos that is never changed, `rule` the one that makes others.
    """
    said = []
    if theirs and (found[DAMAGED] or found[GONE]):
        said.append("the collection is yours and never changed: get these files again, and run with --forcerun probe")
    elif found[DAMAGED] and not deleted:
        said.append(f"--delete deletes what is damaged; then --forcerun {rule} makes it again, and what is gone")
    elif found[DAMAGED] or found[GONE]:
        said.append(f"run with --forcerun {rule}, which makes what is deleted and gone again")
    if found[UNREADABLE]:
        said.append("what cannot be read may be whole: look to the disk first")
    if found[UNMADE]:
        said.append(f"folders without manifest, which nobody looked at: {found[UNMADE]}")
    return "; ".join(said)
