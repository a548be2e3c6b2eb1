"""The bytes of a DICOM file: its data set, inflated as it is read where it is deflated, and where its pixels begin."""

import contextlib
import io
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

from pydicom import uid
from pydicom.filereader import read_dataset

from .mark import MARK_END

PIECE = 2**16  # bytes that are read or inflated at a time
_LONG_VRS = (b"OB", b"OW", b"UN")  # of PixelData in explicit VR; none of them begins an even length in implicit VR


@contextlib.contextmanager
def open_data_set(path: str, inflate_to: int | None = None) -> Iterator[tuple[BinaryIO, bool]]:
    """Yield the file at its start; or, and True, a deflated data set at its start, which is inflated as it is read.

    The latter can be sought in; backwards that costs inflating it again. Reading it raises `ValueError` behind
    `inflate_to` bytes, if that is given. Raises `OSError`.
    """
    with open(path, "rb") as file:
        file.seek(MARK_END)
        meta = read_dataset(file, False, True, stop_when=lambda tag, *_: tag.group != 2)  # as pydicom ends it
        if meta.get("TransferSyntaxUID") == uid.DeflatedExplicitVRLittleEndian:
            inflated = _Inflated(file, inflate_to)
            # A header is read to and fro; what a buffer reads ahead of pixels would have to be inflated again.
            yield cast(BinaryIO, io.BufferedReader(inflated, PIECE) if inflate_to else inflated), True
        else:
            file.seek(0)
            yield file, False


class _Inflated(io.RawIOBase):
    """What the rest of a file holds, a raw stream of RFC 1951, inflated as it is read. A stream cut off ends there."""

    def __init__(self, file: BinaryIO, limit: int | None) -> None:
        self._file, self._start, self._limit = file, file.tell(), limit
        self.name = file.name  # pydicom asks for it
        self._wanted = 0  # the position that is told: nothing is inflated until something is read
        self._rewind()

    def _rewind(self) -> None:
        self._file.seek(self._start)
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._wanted

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("a deflated stream is not read from its end")
        self._wanted = offset + (self._wanted if whence == io.SEEK_CUR else 0)
        return self._wanted

    def read(self, size: int = -1) -> bytes:
        pieces = []
        while size and (piece := self._inflate(size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def] # no name for what has a buffer in 3.11
        piece = self._inflate(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def _inflate(self, size: int) -> bytes:
        """Up to `size` bytes from the position that is wanted; none behind the end."""
        if self._wanted < self._position:
            self._rewind()
        while self._position < self._wanted and self._next(self._wanted - self._position):
            pass
        piece = self._next(size)
        self._wanted = self._position
        return piece

    def _next(self, size: int) -> bytes:
        if self._limit and self._position > self._limit:
            raise ValueError(f"it inflates to more than {self._limit / 2**20:.0f} MB")
        made = b""
        while not made and not self._inflater.eof:
            data = self._inflater.unconsumed_tail or self._file.read(PIECE)
            made = self._inflater.decompress(data, min(size, PIECE))
            if not data and not made:
                break
        self._position += len(made)
        return made


def pixel_element(file: BinaryIO, offset: int, little_endian: bool) -> tuple[str, int | None]:
    """VR and length in bytes (None: encapsulated) of the pixel data at `offset`; leaves `file` where its value begins.

    Its own bytes say whether its VR is explicit: the transfer syntax may contradict them.
    """
    file.seek(offset + 4)
    vr, order = file.read(4)[:2], "little" if little_endian else "big"
    if vr in _LONG_VRS:
        length = int.from_bytes(file.read(4), order)  # type: ignore[arg-type]
    else:
        file.seek(offset + 4)
        vr, length = b"OW", int.from_bytes(file.read(4), order)  # type: ignore[arg-type] # PS3.5, A.1
    return vr.decode(), None if length == 0xFFFFFFFF else length
