"""Video streams as ffmpeg makes them, and DICOM files around them."""

import functools
import subprocess
import tempfile
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from .dicoms import save

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
FRAMES, ROWS, COLUMNS, RATE = 20, 96, 128, 30
# What a stream is: its transfer syntax, and how ffmpeg makes one.
H264 = ["-c:v", "libx264", "-crf", "10", "-pix_fmt", "yuv420p"]
MPEG2 = ["-c:v", "mpeg2video", "-q:v", "2"]
HEVC = ["-c:v", "libx265", "-crf", "10"]
STREAMS = {
    "MPEG-2": (uid.MPEG2MPML, [*MPEG2, "-f", "mpeg2video"]),
    "MPEG-2 program stream": (uid.MPEG2MPHL, [*MPEG2, "-f", "vob"]),
    "MPEG-2 transport stream": (uid.MPEG2MPMLF, [*MPEG2, "-f", "mpegts"]),
    "H.264": (uid.MPEG4HP41, [*H264, "-f", "h264"]),
    "H.264 in MP4": (uid.MPEG4HP41BD, [*H264, "-f", "mp4"]),
    "H.264 in a transport stream": (uid.MPEG4HP422D, [*H264, "-f", "mpegts"]),
    "MPEG-4 part 2 in MP4": (uid.MPEG4HP41F, ["-c:v", "mpeg4", "-q:v", "2", "-f", "mp4"]),
    "HEVC": (uid.HEVCMP51, [*HEVC, "-pix_fmt", "yuv420p", "-f", "hevc"]),
    "HEVC of 10 bits": (uid.HEVCM10P51, [*HEVC, "-pix_fmt", "yuv420p10le", "-f", "hevc"]),
}


def moving(frames: int = FRAMES, rows: int = ROWS, columns: int = COLUMNS) -> np.ndarray:
    """Frames that a codec keeps well and that all differ: soft blobs that travel, of several colours."""
    y, x = np.mgrid[:rows, :columns]
    made = [
        np.stack([60 + 50 * np.sin((x + 3 * i) / 9) + 40 * np.cos((y - i * c) / 11) for c in (1, 2, 3)], axis=2)
        for i in range(frames)
    ]
    return np.clip(made, 0, 255).astype(np.uint8)


def encoded(frames: np.ndarray, options: list[str], rate: float | str = RATE, filters: str = "null") -> bytes:
    """The stream that ffmpeg makes of RGB frames."""
    size = f"{frames.shape[2]}x{frames.shape[1]}"
    with tempfile.NamedTemporaryFile() as made:  # MP4 is not written to a pipe
        command = [
            FFMPEG, "-y", "-loglevel", "error", "-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", size,
            "-framerate", str(rate), "-i", "-", "-vf", filters, *options, made.name,
        ]  # fmt: skip
        subprocess.run(command, input=frames.tobytes(), check=True, capture_output=True)
        return made.read()


@functools.cache
def stream_of(name: str) -> bytes:
    return encoded(moving(), STREAMS[name][1])


def dicom(path: Path, stream: bytes, syntax: str, fragments: int = 1, **elements) -> Path:
    """A DICOM file around a video stream."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = uid.UltrasoundMultiFrameImageStorage, "1.2.3"
    dataset.Modality, dataset.NumberOfFrames, dataset.Rows, dataset.Columns = "US", FRAMES, ROWS, COLUMNS
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    dataset.PhotometricInterpretation = "YBR_PARTIAL_420"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.FrameTime = f"{1000 / RATE:.8g}"
    cut = -(-len(stream) // fragments) + 1 & ~1
    pieces = [stream[i : i + cut] for i in range(0, len(stream), cut)]
    dataset.PixelData = encapsulate([b"".join(pieces)], has_bot=False, fragments_per_frame=len(pieces))
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return save(path, dataset, syntax)
