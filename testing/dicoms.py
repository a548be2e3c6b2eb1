"""DICOM files written for tests: any pixels, any encoding, also such as contradict themselves."""

import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info

from echo_embeddings.convert.folder import convert_file
from echo_embeddings.core.manifest import Row
from echo_embeddings.dicom.frames import decode_frames
from echo_embeddings.dicom.header import Clip, check_clip, read_header

from .conversion import SETTINGS

FRAMES, ROWS, COLUMNS = 4, 24, 32
US_MULTI_FRAME = uid.UltrasoundMultiFrameImageStorage
NATIVE = [
    uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian,
]  # fmt: skip


def drawn(*shape: int, dtype=np.uint8, seed: int = 0) -> np.ndarray:
    """Pixels that differ in every frame, row, column and channel."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 200, shape).astype(dtype)


def cine(pixels: np.ndarray, photometric: str, **elements) -> Dataset:
    """A data set of ultrasound with these pixels, [frames, rows, columns] or [.., 3], not subsampled."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = US_MULTI_FRAME, "1.2.3", "US"
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = pixels.shape[:3]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 4 else 1
    if pixels.ndim == 4:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsAllocated - 1, 0
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def save(path: Path, dataset: Dataset, syntax: str, implicit: bool | None = None, tail: bytes = b"") -> Path:
    """Write the data set; `implicit` VR in spite of what the transfer syntax says, if not None."""
    syntax = uid.UID(syntax)
    content = body_of(dataset, syntax.is_implicit_VR if implicit is None else implicit, syntax.is_little_endian) + tail
    return save_bytes(path, deflated(content) if syntax.is_deflated else content, syntax, dataset.SOPClassUID)


def body_of(dataset: Dataset, implicit: bool = False, little_endian: bool = True) -> bytes:
    """The data set as bytes, without a file's meta information."""
    body = DicomBytesIO()
    body.is_little_endian, body.is_implicit_VR = little_endian, implicit
    write_dataset(body, dataset)
    return body.getvalue()


def save_bytes(path: Path, body: bytes, syntax: str, sop_class: str = US_MULTI_FRAME) -> Path:
    """Write meta information, and behind it `body`."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, "1.2.3"
    meta.TransferSyntaxUID = syntax
    with path.open("wb") as file:
        file.write(bytes(128) + b"DICM")
        write_file_meta_info(file, meta, enforce_standard=True)
        file.write(body)
    return path


def deflated(content: bytes) -> bytes:
    """As the transfer syntax Deflated Explicit VR Little Endian has it."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    return compressor.compress(content) + compressor.flush()


def clip_of(path: str | Path) -> Clip:
    """The clip in the file; raises what `check_clip` does."""
    return check_clip(str(path), *read_header(str(path)), ("US",))


def decoded(path: str | Path, indices: Sequence[int] | None = None) -> np.ndarray:
    """The frames `indices` of the clip; None: all of them."""
    return np.stack(list(decode_frames(clip_of(path), indices)))


def converted(path: Path) -> Row:
    """The row of the file; its MP4 is where the row says, or is not."""
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory, "clip.mp4")
        row = convert_file(str(path), path.name, target, SETTINGS)
        assert (row.status == "converted") == target.exists()
        assert (row.status == "converted") == (row.reason == "")
    return row


def subsampled(pixels: np.ndarray) -> bytes:
    """YBR_FULL_422 as DICOM stores it: two luminances, then the chrominance that they share."""
    pairs = pixels.reshape(-1, 2, 3)
    return np.stack([pairs[:, 0, 0], pairs[:, 1, 0], pairs[:, 0, 1], pairs[:, 0, 2]], axis=1).tobytes()


def as_words(dataset: Dataset) -> Dataset:
    """The data set with its pixels as OW, padded to whole words."""
    dataset["PixelData"].VR = "OW"
    if len(dataset.PixelData) % 2:
        dataset.PixelData += b"\x00"
    return dataset


def palette() -> Dataset:
    """A clip whose pixels are entries of a palette of 16 bits."""
    dataset = cine(drawn(FRAMES, ROWS, COLUMNS), "PALETTE COLOR")
    for i, name in enumerate(("Red", "Green", "Blue")):
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        table = (np.arange(256, dtype="<u2") * (100 + 50 * i)).astype("<u2")
        setattr(dataset, f"{name}PaletteColorLookupTableData", table.tobytes())
    return dataset


# How uncompressed pixels may be stored.
STORED = {
    "RGB": lambda: cine(drawn(FRAMES, ROWS, COLUMNS, 3), "RGB"),
    "RGB, as words": lambda: as_words(cine(drawn(FRAMES, ROWS, COLUMNS, 3), "RGB")),
    "planes": lambda: cine(drawn(FRAMES, ROWS, COLUMNS, 3), "RGB", PlanarConfiguration=1),
    "YBR_FULL": lambda: cine(drawn(FRAMES, ROWS, COLUMNS, 3), "YBR_FULL"),
    "YBR_FULL_422": lambda: cine(
        drawn(FRAMES, ROWS, COLUMNS, 3), "YBR_FULL_422", PixelData=subsampled(drawn(FRAMES, ROWS, COLUMNS, 3))
    ),
    "grey": lambda: cine(drawn(FRAMES, ROWS, COLUMNS), "MONOCHROME2"),
    "grey of an odd size": lambda: as_words(cine(drawn(3, 5, 7), "MONOCHROME2")),
    "16 bits": lambda: cine(drawn(FRAMES, ROWS, COLUMNS, dtype=np.uint16), "MONOCHROME2"),
    "palette": palette,
}
