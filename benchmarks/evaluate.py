"""What `evaluate` costs at the size of a collection: 300,000 clips, 7,000 studies, 20 tasks of numbers.

    python -m benchmarks.evaluate                  as many jobs beside each other as cores
    python -m benchmarks.evaluate --quick          in small

The vectors are drawn, with a signal of known strength in a few directions; so are the labels, one in eight missing.
"""

import argparse
import contextlib
import functools
import io
import multiprocessing
import os
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.common import machine
from echo_embeddings.core import configuration, manifest, settings
from echo_embeddings.core.layout import Layout
from echo_embeddings.core.manifest import Row
from echo_embeddings.core.vectors import merge_vectors, write_vectors
from echo_embeddings.evaluate import clips, evaluation, tasks
from echo_embeddings.evaluate.predictions import Options
from echo_embeddings.tables import export
from testing.processes import peak_memory

CORES = len(os.sched_getaffinity(0))
RANK = 32  # directions that studies differ in


def plant(top: Path, studies: int, of_study: int, dim: int, labels: int) -> Layout:
    """Manifest, vectors and label tables below `top`."""
    generator = np.random.default_rng(0)
    directions = generator.normal(size=(RANK, dim)) / np.sqrt(dim)
    of = generator.normal(size=(studies, RANK))
    numbers = 50000000 + np.arange(studies)
    names = [f"p{10000000 + s // 2}/s{numbers[s]}/{c:04d}.dcm" for s in range(studies) for c in range(of_study)]
    rows = [
        Row(name, f"{name}.mp4", "converted", "", frames=60, rows=600, columns=800, fps=30.0, kind="bmode")
        for name in names
    ]
    matrix = np.empty((len(names), dim), np.float32)
    for start in range(0, len(names), 10_000):
        block = matrix[start : start + 10_000]
        own = of[np.arange(start, start + len(block)) // of_study]
        block[:] = 3 + (own + 0.5 * generator.normal(size=own.shape)) @ directions
        block += 0.3 * generator.standard_normal(block.shape, np.float32)
    layout = Layout(top / "results")
    manifest.write(layout.manifest(256, "p10"), rows)
    write_vectors(layout.vectors("vitl", "p10"), [row.mp4 for row in rows], torch.from_numpy(matrix))
    merge_vectors({"p10": layout.vectors("vitl", "p10")}, layout.merged("vitl"), dim, False)
    for i in range(labels):
        y = of @ generator.normal(size=RANK) / np.sqrt(RANK) + generator.normal(size=studies)
        table = pd.DataFrame({"study_id": numbers, "y": y})[generator.random(studies) > 1 / 8]
        table.to_csv(top / f"label{i}.csv", index=False)
    return layout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--studies", type=int, default=7000)
    parser.add_argument("--clips", type=int, default=43, help="of a study")
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--quick", action="store_true", help="few clips, to see that it works")
    arguments = parser.parse_args()
    size = (140, 3, 16, 2) if arguments.quick else (arguments.studies, arguments.clips, arguments.dim, arguments.tasks)
    print(machine())
    with tempfile.TemporaryDirectory() as directory, contextlib.chdir(directory):
        layout = plant(Path(directory), *size)
        config = configuration.defaults()
        keys = {"by": "study", "target": "y", "kind": "regression"}
        config["evaluate"]["tasks"] = {f"t{i}": {"table": f"label{i}.csv", **keys} for i in range(size[3])}
        known, parts = settings.tables(config), export.parts(layout, "vitl", "256", ["p10"])
        started = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            clips.write(layout.merged("vitl"), parts, known, set(), layout.evaluated_clips("vitl"), prefix_folder=False)
        print(f"{size[0] * size[1]:,} clips of {size[2]}: {time.perf_counter() - started:.1f} s for the table of clips")
        started = time.perf_counter()
        spawn = multiprocessing.get_context("spawn")
        with ThreadPoolExecutor(1) if arguments.quick else ProcessPoolExecutor(CORES, spawn) as pool:
            peaks = []
            for line, peak in pool.map(functools.partial(evaluate, config), config["evaluate"]["tasks"]):
                print(line, flush=True)
                peaks.append(peak)
        taken = time.perf_counter() - started
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(
            f"{size[3]} tasks: {taken:.1f} s on {CORES} cores, {used.ru_utime + used.ru_stime:.1f} s of the "
            f"processor's; {max(peaks) / 1e6:.2f} GB a process at the most, the mapped vectors included"
        )


def evaluate(config: dict[str, Any], name: str) -> tuple[str, int]:
    """Evaluate a task as a job does; a line about it, and the most memory of this process so far, KB."""
    begun = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        made = evaluation.evaluate(
            tasks.tasks(config)[name],
            "vitl",
            settings.tables(config),
            Options.of(config),
            Layout(),
        )
    r2 = made["probes"]["ridge"]["figures"]["r2"]
    line = f"{name}: {time.perf_counter() - begun:.1f} s, R2 {r2.value:.3f} ({r2.low:.3f} to {r2.high:.3f})"
    return line, peak_memory()


if __name__ == "__main__":
    main()
