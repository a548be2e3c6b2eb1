"""The benchmarks run, in small, and print their figures."""

import subprocess
import sys

import pytest

from testing import REPOSITORY

CODECS = ["reference: mp4v through OpenCV", "mpeg4 q 2.7, rd, trellis (default)"]
EMBED = ["% of the encoder alone", "x the encoder, ", "ours / reference"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["convert.py", "speed"], ["x per CPU-second", "with two workers"]),
        (["convert.py", "memory"], ["130 frames of 240 x 320: worker"]),
        (["qc.py"], ["GB resident", "exact duplicates: recall 1.0000"]),
        (["convert.py", "codecs", "--only", "default"], CODECS),
        pytest.param(["convert.py", "codecs"], [*CODECS, "libx264 crf 13 medium, psnr, 4:4:4"], marks=pytest.mark.slow),
        (["encoder.py", "--precision", "fp32"], ["% of the peak", "x transformers"]),
        (["embed.py", "run", "--precision", "fp32"], EMBED),
        pytest.param(["embed.py", "run"], EMBED, marks=pytest.mark.slow),
        (["embed.py", "startup"], ["later job:", "first batch computed"]),
        (["export.py"], ["2,000 vectors of 48", "parquet: ", "study: ", "matrix: "]),
        (["store.py"], ["store.read of that file", "of a dict of separate tensors"]),
    ],
)
def test_quick(arguments, said):
    command = [sys.executable, str(REPOSITORY / "benchmarks" / arguments[0]), *arguments[1:], "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for words in said:
        assert words in done.stdout
