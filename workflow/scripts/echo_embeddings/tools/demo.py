"""A small collection of real echo and a small model, made from what PyPI packages carry.

The clips are windows of one apical four-chamber cine at two sizes, its JPEG frames untouched: one
acquisition of one patient. The model's weights are drawn at random. Together they show that the
workflow works, and nothing about hearts.
"""

import os
import random
from pathlib import Path

import pydicom
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import generate_uid

from ..core.errors import UserError
from ..core.files import atomic_write
from ..encoders.architectures import ARCHITECTURES

LARGE = "color3d_jpeg_baseline.dcm"  # 120 frames, 480 x 640; in pydicom-data
SMALL = "examples_ybr_color.dcm"  # the first 30 of them at half size; in pydicom
STILL = "US1_UNCR.dcm"  # a colour still; in pydicom-data

# folder / patient / study / file: the source and the window of its frames (first, last + 1).
CLIPS = {
    "p10/p10000001/s90000001/90000001_0001.dcm": (LARGE, 0, 40),
    "p10/p10000001/s90000001/90000001_0002.dcm": (LARGE, 40, 80),
    "p10/p10000001/s90000002/90000002_0001.dcm": (LARGE, 80, 120),
    "p10/p10000002/s90000003/90000003_0001.dcm": (SMALL, 0, 30),
    "p11/p11000001/s90000004/90000004_0001.dcm": (LARGE, 20, 60),
    "p11/p11000001/s90000004/90000004_0002.dcm": (LARGE, 60, 100),
    "p11/p11000001/s90000004/90000004_0003.dcm": (SMALL, 0, 12),
    "p11/p11000001/s90000005/90000005_0001.dcm": (SMALL, 5, 25),
}
STILLS = ("p10/p10000001/s90000001/90000001_0003.dcm", "p11/p11000001/s90000005/90000005_0002.dcm")
TRUNCATED = "p10/p10000002/s90000003/90000003_0002.dcm"
WORDS = "drawn at random from seed {seed}: the vectors mean nothing"


def _source(name: str) -> pydicom.Dataset:
    path = get_testdata_file(name, download=False)
    if path is None:
        raise UserError(f"demo: {name} is not there; install pydicom-data (requirements/)")
    return pydicom.dcmread(str(path))


def _identify(dataset: pydicom.Dataset, name: str) -> None:
    """Give the data set the patient, study and instance that its place in the collection says."""
    _, patient, study, file = name.split("/")
    dataset.PatientID = patient[1:]
    dataset.PatientName = ""
    dataset.StudyID = study[1:]
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=[study])
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[study, file])
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID


def write_collection(directory: str | os.PathLike[str]) -> None:
    """Write the collection below `directory`, laid out as MIMIC-IV-Echo: 8 clips, 2 stills, 1 truncated file."""
    directory = Path(directory)
    for name, (source, first, last) in CLIPS.items():
        dataset = _source(source)
        frames = list(generate_frames(dataset.PixelData, number_of_frames=int(dataset.NumberOfFrames)))
        dataset.PixelData = encapsulate(frames[first:last])
        dataset.NumberOfFrames = last - first
        _identify(dataset, name)
        _write(dataset, directory / name)
    for name in STILLS:
        dataset = _source(STILL)
        _identify(dataset, name)
        _write(dataset, directory / name)
    content = (directory / next(iter(CLIPS))).read_bytes()
    with atomic_write(directory / TRUNCATED) as part:
        part.write_bytes(content[: len(content) // 2])


def write_labels(path: str | os.PathLike[str], seed: int) -> None:
    """Write a table of LVEF of the collection's studies, drawn at random."""
    generator = random.Random(seed)
    studies = dict.fromkeys((patient[1:], study[1:]) for _, patient, study, _ in (name.split("/") for name in CLIPS))
    lines = [f"{patient},{study},{generator.uniform(20, 75):.1f}" for patient, study in studies]
    with atomic_write(path) as part:
        part.write_text("\n".join(["subject_id,study_id,lvef", *lines, ""]))


def _write(dataset: pydicom.Dataset, path: Path) -> None:
    with atomic_write(path) as part:
        dataset.save_as(part)


def write_weights(path: str | os.PathLike[str], constructor: str, entry: str, seed: int) -> None:
    """Write random weights for `constructor` under `entry` of a checkpoint in the official format."""
    from ..encoders import checkpoint  # noqa: PLC0415  torch takes seconds, and the collection needs none

    encoder = checkpoint.draw(ARCHITECTURES[constructor], seed)
    checkpoint.save(path, {entry: encoder.state_dict()}, WORDS.format(seed=seed))
