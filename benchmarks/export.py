"""What the exports cost at the size of MIMIC-IV-Echo: 525,328 vectors of 1,024 in ten folders, with all tables.

    python -m benchmarks.export                 Parquet, one vector a study, matrix: seconds and peak memory of each
    python -m benchmarks.export --clips 50000   fewer

Each is a process of its own, as the rule's script is, but with --quick. Vectors, manifests, record list, study list and
a table of views (5 GB with what is written) are drawn into a temporary directory and deleted; mapped pages of the
vectors count as memory.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.common import machine, run_program
from echo_embeddings.core import manifest
from echo_embeddings.core.manifest import Row
from echo_embeddings.core.vectors import merge_vectors, write_vectors

FOLDERS = [f"p{i}" for i in range(10, 20)]
STUDY = 72  # clips of a study
JOB = """
import resource, sys, time
started = time.perf_counter()
from pathlib import Path
from echo_embeddings.core.layout import Layout
from echo_embeddings.core.settings import Table, Tables
from echo_embeddings.tables import card, export, study

top, dim = Path({top!r}), {dim}
parts = export.parts(Layout(top / "results"), "vitl", "256", {folders!r})
known = Tables(
    Table(str(top / "record.csv"), "path", "dicom_filepath", name="record_list"),
    Table(str(top / "study.csv"), "study", "study_id", name="study_list"),
    (Table(str(top / "views.csv"), "path", "key", name="tables.0"),),
    select="frames >= 16 and view in ['A4C', 'PLAX', 'A2C']",
)
out = top / "results/parquet/vitl"
if {what!r} == "parquet":
    shards = [out / f"train-{{i:05d}}-of-{{len(parts):05d}}.parquet" for i in range(len(parts))]
    made = export.write_shards(parts, shards, known, ["all"], dim, export.Merging())
    card.write(out / "README.md", card.About("vitl", dim, {{}}, [], None, None), made, parts, known)
elif {what!r} == "study":
    study.write(parts, top / "study.parquet", known, ["all"], dim, everything=True)
else:
    clips = export.of_vectors(parts, export.read(parts, known, ["subject_id"]), dim, export.Merging())
    export.write_matrix(top / "all.pt", top / "all.npy", top / "keys.tsv", clips.merged)
print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def draw(top: Path, clips: int, dim: int) -> None:
    """Write the collection's results and tables."""
    records, studies, views = [], [], []
    number = 0
    for folder in FOLDERS:
        rows = []
        for _ in range(clips // len(FOLDERS)):
            study, number = 90000000 + number // STUDY, number + 1
            stem = f"{folder}{study % 1000000:06d}/s{study}/{study}_{number % STUDY:04d}"
            size = {"frames": 16 + number % 100, "rows": 708, "columns": 1016, "fps": 30.0, "bytes": 4_000_000 + number}
            rows.append(
                Row(f"{stem}.dcm", f"{stem}.mp4", manifest.CONVERTED, "", **size, mtime_ns=number, mp4_bytes=300_000,
                    photometric="YBR_FULL_422", transfer_syntax="1.2.840.10008.1.2.4.50", manufacturer="Philips",
                    manufacturer_model_name="iE33", region_data_types="1", tissue_box="100,50,900,700", kind="bmode")
            )  # fmt: skip
            records.append((study, study, "2110-05-01 10:00:00", f"files/{folder}/{stem}.dcm"))
            views.append((f"{stem}.mp4", ("A4C", "PLAX", "A2C")[number % 3]))
            if number % STUDY == 1:
                studies.append((study, study, "2110-05-01 09:00:00", f"{study}-DS-1", 1, "2110-05-02 00:00:00"))
        manifest.write(top / f"results/mp4/256/{folder}.manifest.tsv", rows)
        path = top / f"results/embeddings/vitl_embeddings_{folder}.pt"
        write_vectors(path, sorted(row.mp4 for row in rows), torch.randn(len(rows), dim))
    for name, columns, content in (
        ("record", "subject_id study_id acquisition_datetime dicom_filepath", records),
        ("study", "subject_id study_id study_datetime note_id note_seq note_charttime", studies),
        ("views", "key view", views),
    ):
        order = np.random.default_rng(0).permutation(len(content))
        pd.DataFrame(content, columns=columns.split()).iloc[order].to_csv(top / f"{name}.csv", index=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=525_328)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--quick", action="store_true", help="small, to see that it works")
    arguments = parser.parse_args()
    clips, dim = (2000, 48) if arguments.quick else (arguments.clips, arguments.dim)
    print(machine())
    with tempfile.TemporaryDirectory() as directory:
        top = Path(directory)
        started = time.perf_counter()
        draw(top, clips, dim)
        parts = {folder: top / f"results/embeddings/vitl_embeddings_{folder}.pt" for folder in FOLDERS}
        rows = merge_vectors(parts, top / "all.pt", dim)
        print(f"{rows:,} vectors of {dim:,} drawn and written in {time.perf_counter() - started:.0f} s", flush=True)
        for what in ("parquet", "study", "matrix"):
            job = JOB.format(top=directory, dim=dim, folders=FOLDERS, what=what)
            seconds, kilobytes = map(float, run_program(job, quick=arguments.quick).split()[-2:])
            print(f"{what}: {seconds:.1f} s, at most {kilobytes / 1e6:.2f} GB resident", flush=True)


if __name__ == "__main__":
    main()
