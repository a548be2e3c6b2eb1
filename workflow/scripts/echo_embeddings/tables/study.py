"""One vector a study: the mean over its clips."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from ..core.errors import UserError
from ..core.settings import Tables
from . import export
from .export import Part
from .identity import comparable
from .join import join_tables, selected_mask, studies_table
from .selection import IDENTITY, N_CLIPS, STUDY_WHERE, parse


def write(
    parts: Mapping[str, Part],
    path: Path,
    known: Tables,
    wanted: Collection[str],
    dim: int,
    *,
    where: str | None = None,
    everything: bool,
) -> None:
    """Write one row a study: `subject_id`, `study_id`, what tables by study or patient add, `n_clips`, `embedding`.

    The embedding is the mean of the vectors [dim] of those of the study's selected clips that `where` is true of (see
    `join.selected_mask`), summed in float64, or null where it has none. Studies are those of the manifests, and where
    the folders are `everything` there is, those of the record list and study list too. `wanted` is export.columns, of
    which those apply that say something of a study.
    Raises `UserError` if a file is broken or no study is known.
    """
    names = export.columns({*wanted, *IDENTITY}, known)
    files = export.read(parts, known, {*names, *IDENTITY, *(parse(where) if where else ())})
    studies = studies_table(files.table, known, everything)
    if studies.empty:
        raise UserError(
            "study: no study is known: paths have not the form p10002221/s94106955/94106955_0001.dcm; say in layout "
            "where they name it, or give a record_list with the columns dicom_filepath and study_id"
        )
    code = pd.Index(_key(studies)).get_indexer(pd.Index(_key(files.table)))
    averaged = selected_mask(files.table, where, STUDY_WHERE)
    sums, counts = _sums(parts, files, code, averaged, len(studies), dim)
    by_study = replace(known, record_list=None, others=tuple(t for t in known.others if t.by != "path"))
    studies, joins = join_tables(studies, by_study)
    for join in joins:
        print(f"studies: {join}", flush=True)
    names = [name for name in names if name in studies.columns]
    content = export.to_arrow(studies[names].assign(**{N_CLIPS: counts}))
    mean = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
    export.write_parquet(path, content, mean, counts == 0, made_by=export.made_by(parts))
    print(f"{len(studies):,} studies, {int((counts == 0).sum()):,} of them without a clip", flush=True)


def _key(frame: pd.DataFrame) -> npt.NDArray[np.object_]:
    """Patient and study of each row as one text: by its number alone a study may be that of several patients."""
    subject, study = (comparable(frame[name]).fillna("") for name in IDENTITY)
    return (subject + "/" + study).to_numpy(dtype=object)


def _sums(
    parts: Mapping[str, Part],
    files: export.Files,
    code: npt.NDArray[np.intp],
    averaged: npt.NDArray[np.bool_],
    studies: int,
    dim: int,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Of each study the sum of its vectors, float64 [studies, dim], and their number.

    `code` is each file's study, -1 where it is not known, and `averaged` whether it is wanted; clips of which this is
    not so are counted in the log.
    """
    sums, counts = np.zeros((studies, dim)), np.zeros(studies, np.int64)
    unknown = left_out = 0
    for folder, part in parts.items():
        keys, matrix = part.read(dim)
        at = files.rows(folder, keys)
        left_out += int((~averaged[at]).sum())
        unknown += int((averaged[at] & (code[at] < 0)).sum())
        of_folder = np.where(averaged[at], code[at], -1)
        for start in range(0, len(keys), export.ROWS):
            block = matrix[start : start + export.ROWS]
            of_block = of_folder[start : start + export.ROWS]
            known = np.flatnonzero(of_block >= 0)
            add_to(sums, block[known], of_block[known])
            counts += np.bincount(of_block[known], minlength=studies)
    if left_out:
        print(f"{left_out:,} clips are left out by {STUDY_WHERE}", flush=True)
    if unknown:
        print(f"{unknown:,} clips belong to no known study", flush=True)
    return sums, counts


def add_to(sums: npt.NDArray[np.float64], block: npt.NDArray[np.float32], of: npt.NDArray[np.integer[Any]]) -> None:
    """Add vectors [b, dim] to the sums [s, dim] that they are `of` [b]."""
    there, local = np.unique(of, return_inverse=True)
    which = sparse.csr_matrix((np.ones(len(block)), (local, np.arange(len(block)))), shape=(len(there), len(block)))
    sums[there] += which @ block.astype(np.float64)
