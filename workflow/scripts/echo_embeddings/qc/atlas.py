"""All clips as points on a plane, as a Parquet file that Embedding Atlas shows: `snakemake atlas`."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
from openTSNE.nearest_neighbors import Annoy
from pyarrow import parquet
from threadpoolctl import threadpool_limits

from ..core.errors import UserError
from ..core.files import atomic_write
from ..core.settings import Tables
from ..core.vectors import read_vectors
from ..core.workers import Failure
from ..tables import export
from ..tables.export import Merging, Part
from ..tables.selection import KEY, ROW
from . import components, moments, pictures, projection, tables
from .base import NEIGHBOURS, SEED, THREADS, Floats, Integers, Vectors, blocks
from .closest import closest, unit
from .sampling import POINTS
from .tables import FolderFiles

X, Y, NEAR, PICTURE = "x", "y", "neighbors", "picture"  # the third is spelled as Embedding Atlas has it
AT_ONCE = 512  # clips whose frames are in memory together
EDGE = 112  # pixels of a picture
NEAREST = 30  # neighbours that the plane is laid out by


def write(
    path: Path,
    merged: Path,
    parts: Mapping[str, Part],
    known: Tables,
    wanted: Collection[str],
    merging: Merging,
    pictured: Mapping[str, FolderFiles] | None,
) -> None:
    """Write a row a clip of the `merged` file, in its order: what leaves in an export, and its place on the plane.

    `x` and `y` by t-SNE, or by two principal components of fewer than `projection.FEWEST` clips; `neighbors` are the
    ids (rows) and distances (1 - cosine similarity) of the nearest; `picture`, where `pictured` says where the clips
    are, is a JPEG. Raises `UserError` if a file is broken, or a column is called like one of these.
    """
    keys, tensor = read_vectors(merged)
    _, clips, content = export.leaving(parts, known, wanted, tensor.shape[1], merging)
    content = content.take(np.argsort(clips.merged[ROW].to_numpy()))
    taken = {X, Y, NEAR, PICTURE}.intersection(content.column_names)
    if taken:
        raise UserError(f"atlas: a table has the column {min(taken)!r}, which the atlas makes; rename it")
    if keys != content[KEY].to_pylist():
        raise UserError(f"{merged}: its keys are not those of the folders' files; delete it and run again")
    with threadpool_limits(1):  # see `report.measure`
        points, near, apart = lay_out(merged, tensor.numpy())
    content = content.append_column(X, pa.array(points[:, 0])).append_column(Y, pa.array(points[:, 1]))
    ids, distances = (pa.FixedSizeListArray.from_arrays(pa.array(v.ravel()), v.shape[1]) for v in (near, apart))
    lists = [ids.cast(pa.list_(pa.int32())), distances.cast(pa.list_(pa.float32()))]
    content = content.append_column(NEAR, pa.StructArray.from_arrays(lists, ["ids", "distances"]))
    schema = content.schema
    if pictured is not None:
        schema = schema.append(pa.field(PICTURE, pa.struct([("bytes", pa.binary())])))
        files, _ = tables.read_files(pictured, merging.prefix_folder, known)
        known_clips = tables.clips(keys, files)
    with atomic_write(path) as part, parquet.ParquetWriter(part, schema, compression="zstd") as writer:
        for place in blocks(len(keys), AT_ONCE if pictured is not None else export.ROWS):
            rows = content.slice(place.start, place.stop - place.start)
            if pictured is not None:
                made = [{"bytes": one} if one else None for one in _thumbnails(known_clips.iloc[place], pictured)]
                rows = rows.append_column(schema.field(PICTURE), pa.array(made, schema.field(PICTURE).type))
            writer.write_table(rows)
    print(f"{len(keys):,} clips in {path}, {path.stat().st_size:,} bytes", flush=True)


def lay_out(merged: Path, matrix: Floats) -> tuple[Floats, Integers, Floats]:
    """Of N vectors [N, D] the places on a plane, float32 [N, 2], the nearest [N, K] and how far they are, float32."""
    rows, totals = moments.measure(matrix, np.zeros(len(matrix), np.int64), 1)
    vectors = Vectors(matrix, np.flatnonzero(rows.finite))
    parts = components.analyse(vectors, moments.sum_of(totals))[1] if len(vectors) == len(matrix) else None
    if parts is None:
        raise UserError(f"{merged}: an atlas takes two vectors that differ, and none with NaN or Inf")
    directions = unit(parts.scores)
    near, cosines = _nearest(directions)
    flat = projection.components(parts.scores[:, :3], parts.explained)[0]
    plane = projection.neighbourhoods(near, cosines, flat.points) or flat
    apart = 1 - np.where(np.isfinite(cosines), cosines, -1)
    return plane.points, near[:, :NEIGHBOURS].astype(np.int32), apart[:, :NEIGHBOURS].astype(np.float32)


def _nearest(directions: Floats) -> tuple[Integers, Floats]:
    """The nearest of each clip as `closest.closest` has them; of more than `POINTS` clips those that trees find."""
    if len(directions) <= POINTS:
        return closest(directions, NEAREST)
    trees = Annoy(directions, NEAREST, metric="cosine", n_jobs=THREADS, random_state=SEED)
    near, angular = trees.build()
    return near, (1 - angular**2 / 2).astype(np.float32)


def _thumbnails(clips: pd.DataFrame, folders: Mapping[str, FolderFiles]) -> Iterator[bytes | None]:
    """A frame from the middle of each of the clips as JPEG, None where it cannot be read."""
    frames = pictures.read_frames(clips, folders)
    for key in clips["key"]:
        found = frames[key]
        if isinstance(found, Failure):
            yield None
            continue
        small = cv2.resize(found[len(found) // 2], (EDGE, EDGE), interpolation=cv2.INTER_AREA)
        yield pictures.jpeg(small)
