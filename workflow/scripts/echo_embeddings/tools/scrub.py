"""Every MP4 against the digest that its manifest has: what disks and copies have damaged, no decoder tells."""

import collections
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..collection.folders import collection_source, find_folders, mp4_tree
from ..core import manifest
from ..core.files import blake2b_of
from ..core.layout import Layout
from ..core.manifest import CONVERTED, Row

AS_MADE, DAMAGED, GONE, UNKNOWN = "as made", "damaged", "gone", "without digest"


@dataclass(frozen=True)
class Tree:
    """The MP4 files of one folder at one size."""

    name: str
    table: Path  # the manifest
    directory: Path


def trees(config: Mapping[str, Any], registry: Mapping[str, Mapping[str, Any]]) -> Iterator[Tree]:
    """Those that the models of the configuration read."""
    top, kind = collection_source(config)
    layout = Layout()
    for size in sorted({registry[model]["resolution"] for model in config["models"]}):
        for folder in find_folders(top, config["folders"], kind):
            directory = mp4_tree(config, layout, size, folder)
            yield Tree(f"{folder} at {size}", layout.manifest(size, folder), directory)


def scrub(tree: Tree, say: Callable[[str], None]) -> list[Path]:
    """Read the MP4 files of a tree by as many threads as there are cores; returns those that are damaged or gone.

    What is `UNKNOWN` has the manifest's size, and was converted by version 0.1.0, which kept no digest. `say` gets a
    line about each damaged file and one about all. Raises `UserError` if the manifest is none, `OSError` if a file
    cannot be read.
    """
    if not tree.table.is_file():
        say(f"{tree.name}: no manifest yet")
        return []
    rows = [row for row in manifest.read(tree.table) if row.status == CONVERTED]
    paths = [tree.directory / row.mp4 for row in rows]
    counts, wrong = collections.Counter[str](), []
    with ThreadPoolExecutor() as threads:
        for path, outcome in zip(paths, threads.map(_outcome, rows, paths), strict=True):
            counts[outcome] += 1
            if outcome in (DAMAGED, GONE):
                wrong.append(path)
                say(f"{path}: {outcome}")
    found = ", ".join(f"{counts[what]:,} {what}" for what in (AS_MADE, DAMAGED, GONE, UNKNOWN) if counts[what])
    say(f"{tree.name}: {len(rows):,} MP4 files" + (f": {found}" if found else ""))
    return wrong


def _outcome(row: Row, path: Path) -> str:
    try:
        if path.stat().st_size != row.mp4_bytes:
            return DAMAGED
        if row.mp4_blake2b is None:
            return UNKNOWN
        return AS_MADE if blake2b_of(path) == row.mp4_blake2b else DAMAGED
    except FileNotFoundError:
        return GONE
