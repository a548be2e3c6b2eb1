"""The merged file of MIMIC-IV-Echo, 525,328 x 1,024: merged and read, against a dict of separate tensors.

    python -m benchmarks.store [--vectors N] [--quick]

Each step is a process of its own; memory is its peak, torch included, over the size of the file.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks.common import machine
from echo_embeddings.core.vectors import merge_vectors, read_vectors, write_vectors

DIM = 1024
FOLDERS = [f"p{i}" for i in range(10, 20)]


def keys_of(folder: str, count: int) -> list[str]:
    """Keys as long as those of the collection, in order."""
    return [f"{folder}{i // 70:06d}/s{90000000 + i // 7}/{90000000 + i // 7}_{i % 7:04d}.mp4" for i in range(count)]


def separate(count: int) -> dict[str, torch.Tensor]:
    """The same vectors as the folders' files hold, each a tensor of its own."""
    return {key: torch.randn(DIM) for folder in FOLDERS for key in keys_of(folder, count // len(FOLDERS))}


def write_folders(top: Path, count: int) -> None:
    for folder in FOLDERS:
        keys = keys_of(folder, count // len(FOLDERS))
        write_vectors(top / f"{folder}.pt", keys, torch.randn(len(keys), DIM))


def merge(top: Path, _: int) -> None:
    merge_vectors({folder: top / f"{folder}.pt" for folder in FOLDERS}, top / "all.pt", DIM)


def read(top: Path, count: int) -> None:
    keys, matrix = read_vectors(top / "all.pt")
    assert len(keys) == len(matrix) == count // len(FOLDERS) * len(FOLDERS)


def load(top: Path, _: int) -> None:
    torch.load(top / "all.pt")


def load_mapped(top: Path, _: int) -> None:
    """What `read_vectors` gives, by torch alone: a tensor is built for every row, then one over their storage."""
    vectors = torch.load(top / "all.pt", mmap=True)
    next(iter(vectors.values())).as_strided((len(vectors), DIM), (DIM, 1))


def save_separate(top: Path, count: int) -> float:
    vectors = separate(count)
    started = time.perf_counter()
    torch.save(vectors, top / "separate.pt")
    return started


def load_separate(top: Path, _: int) -> None:
    torch.load(top / "separate.pt")


# What each does, and what it is called; one that prepares something first returns when it had.
STEPS: dict[str, tuple[Callable[[Path, int], float | None], str]] = {
    "write_folders": (write_folders, ""),
    "merge": (merge, "merge ten folders' files, torch.save included"),
    "load": (load, "torch.load of that file"),
    "load_mapped": (load_mapped, "torch.load of it, mapped: keys and matrix"),
    "read": (read, "read_vectors of that file: keys and mapped matrix"),
    "save_separate": (save_separate, "torch.save of a dict of separate tensors"),
    "load_separate": (load_separate, "torch.load of that file"),
}


def step(name: str, top: Path, count: int) -> tuple[float, int, int]:
    """One step in this process: seconds, and peak memory before and after it, bytes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    started = STEPS[name][0](top, count) or started
    seconds = time.perf_counter() - started
    return seconds, before * 1024, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=525328)
    parser.add_argument("--quick", action="store_true", help="few vectors, to see that it works")
    arguments = parser.parse_args()
    count = 5000 if arguments.quick else arguments.vectors
    print(machine())
    with tempfile.TemporaryDirectory() as directory:
        top = Path(directory)
        for name, (_, words) in STEPS.items():
            with ProcessPoolExecutor(1, get_context("fork")) as process:  # which has imported torch already
                taken, before, peak = process.submit(step, name, top, count).result()
            if words:
                size = (top / ("separate.pt" if "separate" in name else "all.pt")).stat().st_size
                print(
                    f"{words:48s} {taken:6.1f} s, file {size / 1e9:.2f} GB, peak memory {peak / 1e9:.2f} GB = "
                    f"{peak / size:.2f} x the file ({(peak - before) / size:.2f} x beyond the imports)",
                    flush=True,
                )


if __name__ == "__main__":
    main()
