"""What is to be measured on a GPU, in ten minutes: the tests that need one, the encoder, the extraction, the start.

    python -m benchmarks.gpu                            by the torch and packages of this Python
    python -m benchmarks.gpu --device cpu --quick       the same in small, to see that it works before a GPU is paid for

The most wanted comes first. What the ten minutes do not suffice for is cut off, and named.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time

import torch

from benchmarks.common import REPOSITORY

SECONDS = 600
FILES = ["tests/test_gpu.py", "tests/test_cards.py", "tests/test_one_file.py", "tests/test_encoders.py"]
TESTS = ["pytest", "-n", "0", "-q", "-rs", "-m", "gpu", *FILES]
STEPS = [
    ["benchmarks.encoder", "--models", "vitl"],
    ["benchmarks.embed", "run", "--reference-clips", "1280"],
    ["benchmarks.embed", "run", "--source", "dicom", "--clips", "10000"],
    ["benchmarks.embed", "startup"],
    ["benchmarks.encoder", "--models", "echoprime", "panecho", "echoclip", "dinov2-vitb"],
    *(
        ["benchmarks.encoder", "--models", model, "--runs", "3", "--batch", "8"]
        for model in ("vjepa2_1_vit_giant_384", "vjepa2_1_vit_gigantic_384", "vith", "vjepa2_1_vit_base_384")
    ),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--quick", action="store_true", help="in small: a small encoder and few clips")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no GPU here; --device cpu --quick tries it without")
    more = ["--device", arguments.device]
    if arguments.quick:  # in fp32, which every CPU is quick at
        more += ["--quick", "--precision", "fp32"]
    steps = [TESTS, *([*step, *more] for step in (STEPS[:4] if arguments.quick else STEPS))]
    deadline, wrong = time.monotonic() + SECONDS, []
    with tempfile.TemporaryDirectory() as scratch:  # what is cut off leaves gigabytes behind
        environment = os.environ | {"TMPDIR": scratch}
        for step in steps:
            print(f"== {' '.join(step)}", flush=True)
            command, left = [sys.executable, "-m", *step], deadline - time.monotonic()
            try:
                done = subprocess.run(command, cwd=REPOSITORY, env=environment, check=False, timeout=left)
                wrong += [] if done.returncode == 0 else [f"{' '.join(step)}: exit status {done.returncode}"]
            except subprocess.TimeoutExpired:
                wrong.append(f"{' '.join(step)}: cut off, {SECONDS} s were over")
    sys.exit("\n".join(wrong) or 0)


if __name__ == "__main__":
    main()
