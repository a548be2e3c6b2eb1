"""A DICOM to the frames that the encoder sees: without an MP4, through ours, and by the reference's method, in one run.

python -m benchmarks.direct speed     CPU seconds a clip, with those of children; all take turns
python -m benchmarks.direct memory    what a process takes for 2,000 frames of 708 x 1016, above its imports
python -m benchmarks.direct error     vector error against lossless frames, with weights drawn at random
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from pydicom.data import get_testdata_file

from benchmarks import reference
from benchmarks.common import LARGE, QUICK, SMALL, machine
from benchmarks.convert import DEFAULT, cpu_seconds, long_clip, only_plugin, relative, small_frames, vector
from echo_embeddings.convert.folder import convert_file
from echo_embeddings.core.manifest import Row
from echo_embeddings.core.names import encode_name
from echo_embeddings.core.recipe import GUIDE
from echo_embeddings.core.workers import Failure
from echo_embeddings.embed import sampling
from echo_embeddings.embed.direct import DicomReader
from echo_embeddings.embed.reader import Reader
from echo_embeddings.encoders import checkpoint
from echo_embeddings.encoders.architectures import ARCHITECTURES, Architecture

FRAMES, SIZE = 16, DEFAULT.size
WORKERS = 8


def row_of(source: str, target: Path) -> Row:
    """The row of a clip that is converted to `target`."""
    row = convert_file(source, encode_name(os.path.basename(source)), target, DEFAULT)
    if row.status != "converted":
        sys.exit(f"{source}: {row.reason}")
    return row


def read(reader: Reader, row: Row) -> np.ndarray:
    """What the encoder sees of a clip."""
    frames = reader.read(row)
    if isinstance(frames, Failure):
        sys.exit(f"{row.path}: {frames}")
    return frames


def by_mp4(source: str, row: Row, directory: Path) -> np.ndarray:
    """Through an MP4, as this workflow makes and reads it."""
    made = row_of(source, directory / row.mp4)
    return read(Reader(directory, FRAMES, GUIDE, SIZE), made)


def direct(source: str, row: Row, _: Path) -> np.ndarray:
    """Without one."""
    return read(DicomReader(Path(source).parent, FRAMES, GUIDE, SIZE), row)


def by_reference(source: str, _: Row, directory: Path) -> np.ndarray:
    """The reference's conversion and its reading, as far as its loader's normalised input."""
    target = str(directory / "reference.mp4")
    reference.convert(source, target, SIZE)
    return reference.Clips([target], SIZE, FRAMES)[0][1].numpy()


METHODS: dict[str, Callable[[str, Row, Path], np.ndarray]] = {
    "reference": by_reference,
    "through our MP4": by_mp4,
    "direct": direct,
}


def speed(name: str, runs: int) -> None:
    """CPU seconds of a clip by every method, interleaved; medians of the times and of their ratios."""
    only_plugin("pillow")
    source = str(get_testdata_file(name, download=False))
    spent: dict[str, list[float]] = {method: [] for method in METHODS}
    with tempfile.TemporaryDirectory() as out:
        row = row_of(source, Path(out, "first.mp4"))
        for _ in range(runs + 1):
            for method, work in METHODS.items():
                began = cpu_seconds()
                work(source, row, Path(out))
                spent[method].append(cpu_seconds() - began)
    print(f"{name}: {row.frames} frames of {row.rows} x {row.columns}, {FRAMES} sampled, median of {runs} rounds")
    for method, times in spent.items():
        del times[0]  # what is loaded and kept for good
        ratio = statistics.median(a / b for a, b in zip(times, spent["direct"][-runs:], strict=True))
        print(f"{method:16s} {1e3 * statistics.median(times):7.1f} ms of CPU a clip, {ratio:5.1f} x direct")
    rate = 1 / statistics.median(spent["direct"])
    print(f"direct: {rate:.1f} clips/s of one core, {WORKERS * rate:.0f} clips/s of {WORKERS} workers on as many")


WORKER = """
import sys
from pathlib import Path
from echo_embeddings.core.manifest import Row
from echo_embeddings.core.recipe import GUIDE
from echo_embeddings.embed.direct import DicomReader

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

reader = DicomReader(Path(sys.argv[1]), 16, GUIDE, 256)
before = peak()
frames = reader.read(Row("long.dcm", "", "converted", "", int(sys.argv[2])))
print(len(frames), before, peak())
"""


def memory(frames: int, rows: int, columns: int) -> None:
    """Peak resident memory of a process that reads a long clip, above what its imports take."""
    with tempfile.TemporaryDirectory() as out:
        long_clip(os.path.join(out, "long.dcm"), frames, rows, columns)
        command = [sys.executable, "-c", WORKER, out, str(frames)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    shown, before, peak = map(int, done.stdout.split())
    print(
        f"{shown} of {frames} frames of {rows} x {columns}: peak {peak / 1024:.0f} MB, {(peak - before) / 1024:.0f} MB "
        "above the imports"
    )


def error(names: tuple[str, ...], label: str, architecture: Architecture, seeds: int) -> None:
    """Vector error of both our ways against the frames that the conversion hands to its codec."""
    encoders = [checkpoint.draw(architecture, seed) for seed in range(seeds)]
    found: dict[str, list[float]] = {"through our MP4": [], "direct": []}
    with tempfile.TemporaryDirectory() as out:
        for source in (str(get_testdata_file(name, download=False)) for name in names):
            row = row_of(source, Path(out, "first.mp4"))
            lossless = small_frames(source)[sampling.frame_indices(row.frames or 0, FRAMES)]
            for encoder in encoders:
                exact = vector(encoder, lossless)
                for method, errors in found.items():
                    errors.append(relative(vector(encoder, METHODS[method](source, row, Path(out))), exact))
    print(f"vector error against lossless frames: {len(names)} clips, {seeds} seeds, {label}")
    for method, errors in found.items():
        print(f"{method:16s} {100 * np.mean(errors):.4f} % (largest {100 * max(errors):.4f} %)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "memory", "error"])
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="small, to see that it works")
    arguments = parser.parse_args()
    print(machine())
    cv2.setNumThreads(1)
    if arguments.what == "speed":
        speed(SMALL if arguments.quick else LARGE, 1 if arguments.quick else arguments.runs)
    elif arguments.what == "memory":
        memory(*((130, 240, 320) if arguments.quick else (2000, 708, 1016)))
    else:
        large = ARCHITECTURES["vit_large"]
        quick = (SMALL,), "vit_tiny of 2 blocks", QUICK, 1
        error(*(quick if arguments.quick else ((LARGE, SMALL), "vit_large", large, 3)))


if __name__ == "__main__":
    main()
