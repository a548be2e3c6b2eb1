"""The benchmarks run, in small, and print their figures."""

import pytest

from benchmarks.reading import JOBS
from testing import REPOSITORY
from testing.commands import LIBRARY, run_module

CODECS = ["reference: mp4v through OpenCV", "mpeg4 q 2.7, rd, trellis (default)"]
GPU = [
    *("x transformers", "% of the encoder alone", "x the encoder, ", "ours / reference"),
    *("fp32 on cpu: straight from DICOM", "later job:", "first batch computed"),
]
READING = ["40 files of 20 studies", "snakemake -n, units=16:"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["convert", "speed"], ["x per CPU-second", "% of the conversion", "with two workers"]),
        (["convert", "memory"], ["130 frames of 240 x 320, mask none: worker", "mask sector: worker"]),
        (["convert", "masks"], ["(1 of 1 masked)", "masked by motion: median"]),
        (["direct", "speed"], ["x direct", "clips/s of 8 workers"]),
        (["direct", "memory"], ["16 of 130 frames of 240 x 320: peak"]),
        (["direct", "error"], ["through our MP4", "direct           0.0000 %"]),
        (["qc"], ["GB resident", "exact duplicates: recall 1.0000"]),
        (["convert", "codecs", "--only", "default"], CODECS),
        pytest.param(["convert", "codecs"], [*CODECS, "libx264 crf 13 medium, psnr, 4:4:4"], marks=pytest.mark.slow),
        (["evaluate"], ["420 clips of 16: ", "t1: ", "2 tasks: "]),
        (["encoder", "--device", "cpu", "--precision", "fp32"], ["% of the peak", "x transformers"]),
        pytest.param(["gpu", "--device", "cpu"], GPU, marks=pytest.mark.slow),
        (["export"], ["2,000 vectors of 48", "parquet: ", "study: ", "matrix: "]),
        (["reading", "--jobs", "embed"], [*READING, "a job of embed"]),
        pytest.param(["reading"], [*READING, *(f"a job of {rule}" for rule in JOBS)], marks=pytest.mark.slow),
        (["store"], ["read_vectors of that file", "of a dict of separate tensors"]),
    ],
)
def test_quick(monkeypatch, arguments, said):
    monkeypatch.chdir(REPOSITORY)
    done = run_module(f"benchmarks.{arguments[0]}", *arguments[1:], "--quick", imported=LIBRARY)
    assert done.returncode == 0, done.stdout
    for words in said:
        assert words in done.stdout
