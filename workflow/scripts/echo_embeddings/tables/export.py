"""Embedding files and tables -> Parquet for other tools, and a memory-mapped matrix."""

import csv
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from ..core import manifest
from ..core.errors import UserError
from ..core.files import atomic_write
from ..core.layout import Layout
from ..core.manifest import CLIPS
from ..core.origin import SHORT, of_records
from ..core.settings import Table, Tables
from ..core.state import read_run_record
from ..core.vectors import merged_key, read_vectors
from . import identity, selection
from .join import Join, files_table, join_tables, selected_mask
from .selection import ALL, DEFAULT, EMBEDDING, FOLD, IDENTIFIERS, IDENTITY, KEY, ROW

FIRST = (
    *(*IDENTIFIERS, "file_path", "acquisition_datetime", "study_datetime"),
    *("note_id", "note_seq", "note_charttime"),
)
# What holds no identifier or date beyond what the paths hold; a file's time may be when the patient was examined, and
# by its digest a clip is found again under another name.
HARMLESS = {"folder", "file_path", *IDENTIFIERS, "dicom_filepath", *manifest.COLUMNS} - {
    *("mtime_ns", "mp4_blake2b", *identity.HASHES.values())
}
ROWS = 8192  # of a row group: 32 MB of vectors of ViT-L


@dataclass(frozen=True)
class Part:
    """What an export reads of one folder."""

    vectors: Path  # its embedding file
    manifest: Path
    run: Path  # the record of how the vectors were made; may be absent

    def read(self, dim: int) -> tuple[list[str], npt.NDArray[np.float32]]:
        """The N keys and the mapped vectors [N, dim]. Raises `UserError` if they have another dimension."""
        keys, matrix = read_vectors(self.vectors)
        if keys and matrix.shape[1] != dim:
            raise UserError(f"{self.vectors}: vectors of dimension {matrix.shape[1]}, the model's is {dim}")
        return keys, matrix.numpy().reshape(len(keys), dim)

    def made_by(self) -> dict[str, Any]:
        """What its run record says of how its vectors were made, see `origin`; empty without one."""
        return of_records([read_run_record(self.run)])


@dataclass(frozen=True)
class Merging:
    """How the merged file's keys and the folds of patients follow from the folders' files."""

    prefix_folder: bool = False  # keys are `{folder}/{key}`
    folds: int = 5
    seed: int = 0  # of the folds, as in `evaluate`


def made_by(parts: Mapping[str, Part]) -> dict[str, Any]:
    """What the folders' run records agree on, see `origin`."""
    return of_records(read_run_record(part.run) for part in parts.values())


def parts(layout: Layout, model: str, clips: str, folders: Sequence[str]) -> dict[str, Part]:
    """What an export of `model`, whose clips lie as `clips` of `Layout` says, reads of each folder."""
    return {
        folder: Part(
            vectors=layout.vectors(model, folder),
            manifest=layout.manifest(clips, folder),
            run=layout.run_record(model, folder),
        )
        for folder in folders
    }


@dataclass(frozen=True)
class Files:
    """The files of all folders, with what the tables say of them."""

    table: pd.DataFrame  # see `join_tables`
    joins: list[Join]  # how each table went onto them
    chosen: npt.NDArray[np.bool_]  # which are converted clips that the configuration selects
    left_out: int  # converted clips that it does not

    def rows(self, folder: str, keys: Sequence[str]) -> npt.NDArray[np.intp]:
        """Where the clips stand that have vectors in a folder's embedding file.

        Raises `UserError` if one of them is none that is selected.
        """
        places = np.flatnonzero((self.table["folder"] == folder).to_numpy() & self.chosen)
        names = pd.Index(self.table["mp4"].iloc[places].to_numpy(dtype=object))
        at = names.get_indexer(pd.Index(np.array(keys, dtype=object)))
        if (at < 0).any():
            stray = keys[int(np.argmin(at))]
            raise UserError(f"{folder}: {stray!r} has a vector and is no selected clip of the manifest; run again")
        found: npt.NDArray[np.intp] = places[at]
        return found


@dataclass(frozen=True)
class Clips:
    """The N clips that have vectors, in the order of the folders' embedding files."""

    at: npt.NDArray[np.intp]  # [N]: where each stands in `Files.table`
    places: dict[str, slice]  # of each folder, among the N
    merged: pd.DataFrame  # N rows: `key` and `row` in the merged file, and `fold`, missing where no patient is known


def of_vectors(parts: Mapping[str, Part], files: Files, dim: int, merging: Merging) -> Clips:
    """The clips of the folders' embedding files. Raises `UserError` if one is broken or holds a stray vector."""
    taken, names, places, n = [], list[str](), {}, 0
    for folder, part in parts.items():
        keys, _ = part.read(dim)
        taken.append(files.rows(folder, keys))
        names += [merged_key(folder, key, merging.prefix_folder) for key in keys]
        places[folder] = slice(n, n + len(keys))
        n += len(keys)
    at = np.concatenate([np.empty(0, np.intp), *taken])
    row = np.empty(n, np.int64)
    row[np.argsort(np.array(names, dtype=object), kind="stable")] = np.arange(n)  # as the merged file is sorted
    patients = files.table["subject_id"].astype("string").iloc[at]
    folds = {p: identity.fold_of(p, merging.seed, merging.folds) for p in patients.dropna().unique()}
    fold = patients.map(folds).astype("Int64").to_numpy()
    merged = pd.DataFrame({KEY: pd.Series(names, dtype="string"), ROW: row, FOLD: pd.array(fold, "Int64")})
    return Clips(at, places, merged)


def read(parts: Mapping[str, Part], known: Tables, used: Collection[str]) -> Files:
    """What manifests and tables say of all files, of which the columns `used` leave.

    Raises `UserError` if one is broken, or a table contradicts itself.
    """
    files = files_table({folder: part.manifest for folder, part in parts.items()})
    files, joins = join_tables(files, known, {*used, *selection.selecting(known)})
    converted = files["status"].isin(CLIPS).to_numpy()
    chosen = selected_mask(files, known.select) & converted
    for join in joins:
        print(join, flush=True)
    return Files(files, joins, chosen, int(converted.sum() - chosen.sum()))


def columns(wanted: Collection[str], known: Tables) -> list[str]:
    """The names of the columns that leave, in order; `wanted` is export.columns. Raises `UserError` on others."""
    names = selection.columns(known)
    selection.check_export(wanted, names)
    lists = {known.record_list, known.study_list} - {None}

    def place(name: str) -> int:
        if name in FIRST:
            return FIRST.index(name)
        table: Table | None = names[name]
        return len(FIRST) + (0 if table in lists else 1 if table is None else 2)

    leaving = [n for n in names if n in wanted or ALL in wanted or (DEFAULT in wanted and n in HARMLESS)]
    return sorted(leaving, key=place)


def without_identifiers(frame: pd.DataFrame, known: Tables, wanted: Collection[str]) -> pd.DataFrame:
    """The clips without the identifiers that their paths do not say, unless `wanted` names them."""
    if ALL in wanted:
        return frame
    own = identity.of_paths(frame, known)
    kept = {name: identity.comparable(frame[name]) == identity.comparable(own[name]) for name in IDENTITY}
    hidden = {name: frame[name].where(same.fillna(False)) for name, same in kept.items() if name not in wanted}
    return frame.assign(**hidden)


def to_arrow(frame: pd.DataFrame) -> pa.Table:
    """The table with types that every reader knows."""
    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata()
    plain = [f.with_type(pa.string()) if f.type in (pa.large_string(), pa.null()) else f for f in table.schema]
    return table.cast(pa.schema(plain)).combine_chunks()


def write_parquet(
    path: Path,
    table: pa.Table,
    matrix: npt.NDArray[np.float32],
    empty: npt.NDArray[np.bool_] | None = None,
    *,
    made_by: Mapping[str, Any] | None = None,
) -> None:
    """Write `table` and, as its last column, the rows of `matrix` [N, D]; whole. A row is null where `empty` [N].

    The short fingerprint that `made_by` has, see `origin`, stands in the metadata of the file.
    """
    field = pa.field(EMBEDDING, pa.list_(pa.float32(), matrix.shape[1]))
    names = table.schema.names
    schema = table.schema.append(field)
    if made_by and SHORT in made_by:
        schema = schema.with_metadata({SHORT: made_by[SHORT]})
    packing = dict.fromkeys(names, "zstd") | {f"{EMBEDDING}.list.element": "none"}  # floats do not shrink
    with (
        atomic_write(path) as part,
        parquet.ParquetWriter(
            part, schema, use_dictionary=names, write_statistics=names, compression=packing
        ) as writer,
    ):
        for start in range(0, max(1, len(matrix)), ROWS):
            block = matrix[start : start + ROWS]
            mask = None if empty is None else pa.array(empty[start : start + ROWS])
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), matrix.shape[1], mask=mask)
            written = table.slice(start, len(block)).append_column(field, vectors)
            writer.write_table(written.replace_schema_metadata(schema.metadata))


@dataclass(frozen=True)
class Exported:
    """What a data set card tells of the Parquet files."""

    schema: pa.Schema
    nulls: dict[str, int]  # by column
    rows: dict[str, int]  # by folder
    joins: list[Join]
    found: dict[str, int]  # by name of a table's key in the configuration: exported rows that it knows
    left_out: int
    patients: int
    studies: int


def leaving(
    parts: Mapping[str, Part], known: Tables, wanted: Collection[str], dim: int, merging: Merging
) -> tuple[Files, Clips, pa.Table]:
    """The files, their N clips that have vectors, and what leaves of each clip, N rows.

    Raises `UserError` if a file is broken or no column of a name is known.
    """
    names = columns(wanted, known)
    # Identifiers stand there by default, where the paths have them.
    files = read(parts, known, {name for name in names if name not in IDENTIFIERS or {name, ALL} & {*wanted}})
    clips = of_vectors(parts, files, dim, merging)
    left = without_identifiers(files.table, known, wanted)[names].iloc[clips.at].reset_index(drop=True)
    return files, clips, to_arrow(pd.concat([left, clips.merged], axis=1))


def write_shards(
    parts: Mapping[str, Part],
    shards: Sequence[Path],
    known: Tables,
    wanted: Collection[str],
    dim: int,
    merging: Merging,
) -> Exported:
    """Write the clips that have vectors [dim], one file a folder, in the order of the folders' embedding files.

    Each has its `key` and `row` in the merged file, and the `fold` of its patient. Files of an earlier export in the
    same directory that are none of `shards` are deleted: a reader of the directory would take them for a part. Raises
    `UserError` if a file is broken or no column of a name is known.
    """
    files, clips, exported = leaving(parts, known, wanted, dim, merging)
    written = files.table.iloc[clips.at]
    rows = {}
    for (folder, part), shard in zip(parts.items(), shards, strict=True):
        place = clips.places[folder]
        content = exported.slice(place.start, place.stop - place.start)
        write_parquet(shard, content, part.read(dim)[1], made_by=part.made_by())
        rows[folder] = len(content)
        print(f"{folder}: {len(content):,} rows in {shard}", flush=True)
    for stale in set(shards[0].parent.glob("train-*.parquet")) - set(shards):
        stale.unlink()
    return Exported(
        parquet.read_schema(shards[0]),
        {name: exported[name].null_count for name in exported.column_names},
        rows,
        files.joins,
        {join.table.name: int(join.found[clips.at].sum()) for join in files.joins},
        files.left_out,
        written["subject_id"].nunique(),
        len(written[["subject_id", "study_id"]].dropna(subset="study_id").drop_duplicates()),
    )


def write_matrix(merged: Path, path: Path, keys_path: Path, clips: pd.DataFrame) -> None:
    """Write a merged file's vectors as NumPy's float32 [N, D], and as a table `row`, `key` and `fold` of each.

    `clips` are `Clips.merged` of the folders' files. Raises `UserError` if the merged file has others.
    """
    keys, matrix = read_vectors(merged)
    table = clips.sort_values(ROW)
    if keys != table[KEY].tolist():
        raise UserError(f"{merged}: its keys are not those of the folders' files; delete it and run again")
    with atomic_write(keys_path) as part:
        table[[ROW, KEY, FOLD]].to_csv(part, sep="\t", index=False, quoting=csv.QUOTE_NONE, lineterminator="\n")
    with atomic_write(path) as part, open(part, "wb") as file:
        # np.save hands a file of its own to the C library, and does not learn that its disk is full.
        header = {"descr": "<f4", "fortran_order": False, "shape": tuple(matrix.shape)}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(matrix.numpy().data)
    print(f"{len(keys):,} vectors, {os.path.getsize(path):,} bytes", flush=True)
