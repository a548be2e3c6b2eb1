"""How well a mask keeps the sector and takes the text, judged on phantoms and on the real cine."""

import dataclasses

import cv2
import numpy as np

from echo_embeddings.convert import video
from echo_embeddings.core.manifest import Row
from echo_embeddings.core.recipe import Recipe
from echo_embeddings.dicom.frames import decode_frames
from echo_embeddings.dicom.header import check_clip, describe_header, read_header
from echo_embeddings.embed import masks

from . import phantoms
from .conversion import SETTINGS
from .corpus import CINE

SECTOR = Recipe("sector", mask="sector")


def row_of(**facts):
    """The row of a clip with these facts."""
    return Row("clip.dcm", "clip.mp4", "converted", "", **facts)


def clip_of(name):
    """The header's facts and the picture, with its true masks, of a phantom or a size of the cine."""
    if name in phantoms.LAYOUTS:
        return {}, phantoms.draw(name)
    dataset, offset = read_header(CINE[name])
    frames = np.stack(list(decode_frames(check_clip(CINE[name], dataset, offset, ("US",)))))
    return describe_header(dataset), phantoms.of_cine(frames)


def as_mp4(picture, size, path):
    """The frames as they come out of the pipeline's MP4."""
    low, high = int(picture.frames.min()), int(picture.frames.max())
    small = (cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA) for frame in picture.frames)
    video.write(
        path,
        (((frame.astype(np.float32) - low) / (high - low) * 255).astype(np.uint8) for frame in small),
        dataclasses.replace(SETTINGS, size=size),
        30,
    )
    seen = masks.overview(SECTOR, row_of(frames=len(picture.frames)))
    return video.read(path, seen, len(picture.frames))


def judge(keep, picture):
    """The share of the sector that is kept, and the share of text pixels that are gone, at the DICOM's size."""
    rows, columns = picture.sector.shape
    kept = cv2.resize(keep.astype(np.uint8), (columns, rows), interpolation=cv2.INTER_NEAREST).astype(bool)
    return kept[picture.sector].mean(), 1 - kept[picture.text].mean()
