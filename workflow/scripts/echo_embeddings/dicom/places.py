"""Where the frames of encapsulated pixel data lie (DICOM PS3.5, A.4), found without reading what lies between."""

import itertools
import os
import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from pydicom.encaps import parse_basic_offsets

from .header import Clip, Unreadable, check_number

_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"  # tags, in little endian
_HEADER = 8  # bytes of an item's tag and length
_EOI = b"\xff\xd9"  # the end mark of the JPEG family
_TAIL = 10  # bytes of a fragment among which it is looked for: there may be padding behind it

Fragment = tuple[int, int]  # where its content begins in the file, and its length, in bytes


def fragments(file: BinaryIO, position: int, end: int | None = None) -> Iterator[Fragment]:
    """The fragments from the item at `position` to the one at `end`; None: to the end of the sequence or file.

    Raises `Unreadable` where there is no item, or the last one does not end at `end`.
    """
    while position != end:
        file.seek(position)
        header = file.read(_HEADER)
        if end is None and (len(header) < 4 or header[:4] == _END):
            return
        length = int.from_bytes(header[4:], "little")
        if header[:4] != _ITEM or len(header) < _HEADER or length == 0xFFFFFFFF or (end and position > end):
            raise Unreadable(f"its pixel data has no fragment where one should begin, at byte {position}")
        yield position + _HEADER, length
        position += _HEADER + length


def places(clip: Clip, file: BinaryIO, wanted: Sequence[int]) -> list[list[Fragment]]:
    """The fragments of each frame in `wanted`; `file` stands where the value of the pixel data begins.

    An offset table is believed if it can be right, each frame wanted of it ends where the next one begins, and the last
    frame where the pixel data ends; else all fragments' headers are read. Raises `Unreadable` if what is found are not
    NumberOfFrames frames.
    """
    table: Sequence[int] = parse_basic_offsets(file)
    start = file.tell()
    if extended := clip.dataset.get("ExtendedOffsetTable"):
        table = struct.unpack(f"<{len(extended) // 8}Q", extended[: len(extended) // 8 * 8])
    if len(table) == clip.number_of_frames and (found := _by_table(file, start, table, wanted)):
        return [found[i] for i in wanted]
    frames = _scan(clip, file, start)
    return [frames[i] for i in wanted]


def _by_table(
    file: BinaryIO, start: int, table: Sequence[int], wanted: Sequence[int]
) -> dict[int, list[Fragment]] | None:
    """The fragments of the frames `wanted` and of the last one by the offset table; None if it is seen to be wrong."""
    ends = [*(start + offset for offset in table[1:]), None]
    if table[0] or any(a >= b for a, b in itertools.pairwise(table)) or start + table[-1] > file.seek(0, os.SEEK_END):
        return None
    try:
        found = {i: list(fragments(file, start + table[i], ends[i])) for i in {*wanted, len(table) - 1}}
    except Unreadable:  # the scan will say so, if it is not the table
        return None
    return found if all(found.values()) else None


def _scan(clip: Clip, file: BinaryIO, start: int) -> list[list[Fragment]]:
    """The fragments of each frame: one has one, or those up to one that ends with the end mark of the JPEG family."""
    found = list(fragments(file, start))
    if clip.number_of_frames == 1:
        return [found]
    frames = [[fragment] for fragment in found]
    if len(found) > clip.number_of_frames:
        frames = [[]]
        for fragment in found:
            frames[-1].append(fragment)
            if _ends_a_frame(file, fragment):
                frames.append([])
        frames = frames if frames[-1] else frames[:-1]
    if len(frames) < clip.number_of_frames and found and sum(found[-1]) > file.seek(0, os.SEEK_END):
        raise Unreadable("the file ends within a frame")
    check_number(clip, len(frames))
    return frames


def _ends_a_frame(file: BinaryIO, fragment: Fragment) -> bool:
    place, length = fragment
    file.seek(place + max(0, length - _TAIL))
    return _EOI in file.read(min(length, _TAIL))
