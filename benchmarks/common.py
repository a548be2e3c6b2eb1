"""What the benchmarks share: where the library lies, real clips, and one line about the machine."""

import contextlib
import dataclasses
import io
import os
import platform
import subprocess
import sys
from pathlib import Path

import cv2
import torch
from pydicom.data import get_testdata_file

from echo_embeddings.convert.folder import convert_file
from echo_embeddings.core import configuration, settings
from echo_embeddings.encoders.architectures import ARCHITECTURES

REPOSITORY = Path(__file__).resolve().parents[1]

LARGE, SMALL = "color3d_jpeg_baseline.dcm", "examples_ybr_color.dcm"  # one cine in two sizes, from PyPI packages
QUICK = dataclasses.replace(ARCHITECTURES["vit_tiny"], depth=2)  # the encoder of what runs in small


def machine() -> str:
    """One line that says where a figure was measured."""
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    commit = subprocess.run(
        ["git", "-C", REPOSITORY, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    card = ""
    if torch.cuda.is_available():
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        card = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip() + ", "
    return (
        f"{card}{model.partition(': ')[2]}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"torch {torch.__version__}, OpenCV {cv2.__version__}, commit {commit.stdout.strip() or 'unknown'}"
    )


def run_program(program: str, *arguments: str, quick: bool) -> str:
    """What a Python program prints: in a process of its own, so that its memory is its own; with `quick` in this one.

    Most of what a small program takes is its imports, and this process has them.
    """
    if not quick:
        command = [sys.executable, "-c", program, *arguments]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    said, before = io.StringIO(), sys.argv
    sys.argv = ["-c", *arguments]
    try:
        with contextlib.redirect_stdout(said):
            exec(program, {"__name__": "__main__"})
    finally:
        sys.argv = before
    return said.getvalue()


def write_videos(directory: Path, count: int, size: int) -> list[tuple[Path, int]]:
    """`count` MP4 files of the real clips, `size` pixels, and their numbers of frames; the content is that of two."""
    directory.mkdir(parents=True, exist_ok=True)
    made = settings.convert_settings(configuration.defaults(), size)
    first: list[tuple[Path, int]] = []
    for name in (LARGE, SMALL):
        path = directory / f"{len(first):06d}.mp4"
        row = convert_file(str(get_testdata_file(name, download=False)), name, path, made)
        first.append((path, row.frames or 0))
    more = []
    for i in range(2, count):
        source, frames = first[i % 2]
        os.link(source, directory / f"{i:06d}.mp4")
        more.append((directory / f"{i:06d}.mp4", frames))
    return [*first, *more][:count]


def unknown_to_workers() -> None:
    """Keep worker processes from importing this program, and torch with it, as a job's do not import its script."""
    program = sys.modules["__main__"]
    program.__spec__ = None
    del program.__file__  # None would make torch.compile fail


def synchronize(device: str) -> None:
    """Wait for the device's queue of work."""
    if device == "cuda":
        torch.cuda.synchronize()
