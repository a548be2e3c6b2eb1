"""Results made under old names, written again under the names of a new record list, with nothing computed.

A new version of a collection drops files and corrects identifiers: paths change, and with them keys and folders. Old
results are read and never changed; what is carried over lies in a directory of its own.
"""

import collections
import dataclasses
import json
import os
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..collection.folders import find_folders
from ..collection.kinds import mp4_name
from ..collection.units import Folder
from ..convert import journal
from ..core import manifest, state
from ..core.errors import UserError
from ..core.files import atomic_write, link
from ..core.layout import DICOM, Layout
from ..core.manifest import CONVERTED, Row
from ..core.names import decode_name, one_line
from ..core.recipe import Recipe
from ..core.settings import Table
from ..core.vectors import read_vectors, write_vectors
from ..embed import shards
from ..embed.folder import identity, identity_of
from ..tables.identity import SUFFIX
from ..tables.join import clip_names, folder_paths, read_table

SAME, RENAMED = "same name", "renamed"
LEFT, CHANGED, NEW = "left the collection", "the DICOM has another size", "new"
# MIMIC-IV-Echo's file names hold the study: of two files with one such name, one is the other renamed.
_TELLING = r"\d{6,}_\d+"
# Recipes that ask different things of a manifest's row, and so tell clips apart differently.
ASKING = [Recipe("", sampling=sampling, mask=mask) for sampling in ("uniform", "rate") for mask in ("none", "sector")]
_FOLDER = re.compile(r"([^/]+)/p\d+/s\d+/[^/]+$")


@dataclass(frozen=True)
class Name:
    """A file of the collection."""

    folder: str
    path: str  # in its folder, percent-encoded

    @property
    def key(self) -> str:
        """Of its MP4 and its vector."""
        return mp4_name(decode_name(self.path))

    def __str__(self) -> str:
        return f"{self.folder}/{self.path}"


def rekey(old: Path, new: Path, record_list: Table, dicom_dir: str | None, renamed: Path | None) -> pd.DataFrame:
    """Carry the results of the working directory `old` over to `new`, under the names of the record list.

    A file keeps its name if the list has it; else it has the name that the CSV file `renamed` (columns `old` and
    `new`) gives it; else that of the one file of the list with the same file name, where this holds a study's number
    as MIMIC-IV-Echo's do. What has none of these left the collection. Embedding files are written by new folder.
    Where `dicom_dir` is given, what jobs remember and the MP4 files (as hard links) are carried over too, so that the
    workflow in `new` converts and embeds only what is new; a DICOM of another size than before counts as new.

    Returns a table with `old` and `new` (folder/path) and `what`, which is also written to rekey.tsv there.
    Raises `UserError` if there is nothing to carry, something in `new`, or a table is broken.
    """
    before, after = Layout(old / Layout().root), Layout(new / Layout().root)
    if after.root.exists():
        raise UserError(f"rekey: {after.root} is there already; give a directory without results")
    if not before.embeddings().is_dir():
        raise UserError(f"rekey: no {before.embeddings()}; give the directory in which the workflow ran")
    if units := next(before.state("").glob("*/*/buckets/??"), None):
        raise UserError(f"rekey: {units}: results of `units: N` cannot be carried to other names yet")
    journals = {
        (path.parents[1].name, path.parent.name): _journal(path)
        for path in sorted(before.state("convert").glob("*/*/rows.jsonl"))
    }
    straight = {
        path.name.removesuffix(".manifest.tsv"): manifest.read(path)
        for path in sorted(before.root.glob(f"{DICOM}/*.manifest.tsv"))
    }
    vectors = before.folder_vectors()
    rows = {Name(folder, row.path): row for folder, made in straight.items() for row in made}
    rows |= {Name(folder, row.path): row for (_, folder), made in journals.items() for _, row in made}
    by_key = {(name.folder, name.key): name for name in rows}
    for (_, folder), path in vectors.items():
        for key in read_vectors(path)[0]:  # clips of which no journal is left have no other name
            by_key.setdefault((folder, key), Name(folder, key.removesuffix(".mp4")))
    sources = find_folders(dicom_dir, []) if dicom_dir is not None else None
    listed = _listed(record_list, {name.folder for name in by_key.values()}, sources)
    names = _match({*rows, *by_key.values()}, listed, renamed)
    what = dict.fromkeys({*rows, *by_key.values()} - names.keys(), LEFT)
    what |= {name: SAME if _full(name) == _full(to) else RENAMED for name, to in names.items()}
    if sources is not None:
        for name in _changed(rows, names, sources):
            what[name] = CHANGED
            del names[name]
        _carry_state(before, after, sources, journals, straight, names)
    _carry_vectors(vectors, after, by_key, names, rows.keys())
    lines = [(str(name), str(names.get(name, "")), what[name]) for name in what]
    lines += [("", str(name), NEW) for name in set(listed) - set(names.values())]
    report = pd.DataFrame(sorted(lines), columns=["old", "new", "what"])
    with atomic_write(after.rekeyed()) as part:
        report.to_csv(part, sep="\t", index=False)
    return report


def _journal(path: Path) -> list[tuple[str, Row]]:
    """Of each file in a journal of conversion the last row, with the fingerprint of the settings it was made under."""
    found, damage = journal.records(path)
    if damage:
        state.leave_alone(path, damage)
    return list({record["row"]["path"]: (record["settings"], Row(**record["row"])) for record in found}.values())


# --- which file is which ----------------------------------------------------------------------------


def _full(name: Name) -> str:
    """Folder and path as the names in tables are compared."""
    return _bare(str(name))


def _bare(path: str) -> str:
    return re.sub(SUFFIX, "", path, flags=re.IGNORECASE)


def _listed(record_list: Table, folders: set[str], sources: Mapping[str, Folder] | None) -> list[Name]:
    """The files that the record list names."""
    content, _ = read_table(record_list, [])
    paths = content[record_list.key].dropna()
    known = set(sources) if sources is not None else folders | set(paths.str.extract(_FOLDER, expand=False).dropna())
    found = folder_paths(paths, known).drop_duplicates().str.split("/", n=1)
    return [Name(*parts) for parts in found if parts[0] in known]


def _match(files: set[Name], listed: list[Name], renamed: Path | None) -> dict[Name, Name]:
    """The new name of each file that has one."""
    by_full = {_full(name): name for name in listed}
    told = _told(renamed, {name.folder for name in (*files, *listed)}, by_full)
    names = {name: by_full[_full(name)] for name in files if _full(name) in by_full}
    by_file_name = _by_file_name(set(listed) - set(names.values()))
    for text, name in _by_file_name(files - names.keys()).items():
        if text in by_file_name:
            names[name] = by_file_name[text]
    names |= {name: told[_full(name)] for name in files if _full(name) in told}
    twice = [to for to, n in collections.Counter(names.values()).items() if n > 1]
    if twice:
        raise UserError(f"rekey: two files would become {twice[0]}; say where both go in the table of renamed files")
    return names


def _told(renamed: Path | None, folders: set[str], by_full: Mapping[str, Name]) -> dict[str, Name]:
    """Old -> new, as the user's table has it."""
    if renamed is None:
        return {}
    try:
        table = pd.read_csv(renamed, dtype="string", usecols=["old", "new"]).dropna()
    except (OSError, ValueError) as error:
        raise UserError(f"rekey: {renamed}: no CSV with the columns old and new: {one_line(error)}") from error
    old, new = (clip_names(table[name], folders) for name in ("old", "new"))
    unknown = table["new"][~new.isin(list(by_full))]
    if len(unknown):
        raise UserError(f"rekey: {renamed}: {unknown.iloc[0]!r} is not in the record list")
    return {one: by_full[other] for one, other in zip(old, new, strict=True)}


def _by_file_name(names: Iterable[Name]) -> dict[str, Name]:
    """Those whose file name tells of its study and stands once."""
    found: dict[str, list[Name]] = {}
    for name in names:
        found.setdefault(os.path.basename(_full(name)), []).append(name)
    return {text: same[0] for text, same in found.items() if len(same) == 1 and re.fullmatch(_TELLING, text)}


# --- carrying over ----------------------------------------------------------------------------------


def _stat(sources: Mapping[str, Folder], name: Name) -> os.stat_result | None:
    """Of the DICOM; None if it is not there."""
    try:
        return os.stat(os.path.join(sources[name.folder].path, decode_name(name.path)))
    except FileNotFoundError:
        return None


def _changed(rows: Mapping[Name, Row], names: Mapping[Name, Name], sources: Mapping[str, Folder]) -> list[Name]:
    """The files whose DICOM is there under its new name and has another size."""
    changed = []
    for name, to in names.items():
        status = _stat(sources, to)
        size = rows[name].bytes if name in rows else None
        if status is not None and size is not None and status.st_size != size:
            changed.append(name)
    return changed


def _carry_state(
    old: Layout,
    new: Layout,
    sources: Mapping[str, Folder],
    journals: Mapping[tuple[str, str], list[tuple[str, Row]]],
    straight: Mapping[str, list[Row]],
    names: Mapping[Name, Name],
) -> None:
    """Write journals, MP4 files and shards where `new` has them; `straight` are the rows of clips without an MP4."""
    lines = collections.defaultdict(list)  # journal -> its lines
    clips: dict[str, dict[tuple[str, str], tuple[str, str, str]]] = {}  # folder -> key, identity -> all three anew
    for folder, rows in straight.items():
        for before in filter(lambda row: row.is_clip, rows):
            to = names.get(Name(folder, before.path))
            status = _stat(sources, to) if to else None
            if to is None or status is None:
                continue
            row = dataclasses.replace(before, path=to.path, mp4=to.key, mtime_ns=status.st_mtime_ns)
            for recipe in ASKING:
                was = identity_of(before.bytes, before.mtime_ns, before, recipe)
                is_now = identity_of(row.bytes, row.mtime_ns, row, recipe)
                clips.setdefault(folder, {})[before.mp4, was] = (to.folder, row.mp4, is_now)
    for (size, folder), made in journals.items():
        for fingerprint, before in made:
            to = names.get(Name(folder, before.path))
            status = _stat(sources, to) if to else None
            if to is None or status is None:
                continue
            key = to.key if before.mp4 else ""
            row = dataclasses.replace(before, path=to.path, mp4=key, mtime_ns=status.st_mtime_ns)
            if row.status == CONVERTED:
                trees = old.mp4(size, folder), new.mp4(size, to.folder)
                if not _link(trees[0] / before.mp4, trees[1] / row.mp4, row.mp4_bytes):
                    continue
                for recipe in ASKING:
                    was = identity(trees[0], before, recipe)
                    is_now = identity(trees[1], row, recipe)
                    clips.setdefault(folder, {})[before.mp4, was] = (to.folder, row.mp4, is_now)
            record = {"settings": fingerprint, "row": dataclasses.asdict(row)}
            lines[new.state("convert", size, to.folder) / "rows.jsonl"].append(json.dumps(record) + "\n")
    for path, content in lines.items():
        with atomic_write(path) as part:
            part.write_text("".join(content), encoding="utf-8")
    for path in sorted(old.state("embed").glob("*/*/*.pt")):
        model, folder = path.parents[1].name, path.parent.name
        under = {
            clip: (new.state("embed", model, to), key, made) for clip, (to, key, made) in clips.get(folder, {}).items()
        }
        shards.carry(path, under)


def _link(source: Path, target: Path, size: int | None) -> bool:
    """Link an MP4 under its new name; False if it is not what its row says."""
    if not source.is_file() or source.stat().st_size != size:
        return False
    link(source, target)
    return True


def _carry_vectors(
    vectors: Mapping[tuple[str, str], Path],
    layout: Layout,
    by_key: Mapping[tuple[str, str], Name],
    names: Mapping[Name, Name],
    dicom: Container[Name],
) -> None:
    """Write the embedding files of each model anew, by new folder.

    `dicom` are the files known to be some: the key of another may be a video's own path, whose extension stays.
    """
    for model in sorted({model for model, _ in vectors}):
        found: dict[str, list[tuple[str, Path, int]]] = {}  # new folder -> key, old file, row in it
        for (of, folder), path in vectors.items():
            if of == model:
                for i, key in enumerate(read_vectors(path)[0]):
                    before = by_key[folder, key]
                    to = names.get(before)
                    if to:
                        anew = to.key if before in dicom else _bare(to.path) + Path(key).suffix
                        found.setdefault(to.folder, []).append((anew, path, i))
        for folder, rows in found.items():
            matrices = {path: read_vectors(path)[1] for path in {path for _, path, _ in rows}}
            matrix = torch.from_numpy(np.stack([matrices[path][i].numpy() for _, path, i in rows]))
            write_vectors(layout.vectors(model, folder), [key for key, _, _ in rows], matrix)
            print(f"{model} {folder}: {len(rows):,} vectors", flush=True)
