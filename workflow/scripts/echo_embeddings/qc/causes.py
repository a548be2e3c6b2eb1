"""Why two files may hold different vectors of the same clips."""

from collections.abc import Mapping
from typing import Any

from ..core.origin import DECIDES, differences, in_words
from .base import Check

# Relative distance of a clip's two vectors from which on it is neither rounding (0.5 % in bfloat16) nor a codec's error
# (a few per cent).
FAR = 0.05
LIKELY = (
    "another entry (checkpoint key), another size, another recipe (frames, mask), or another family: a V-JEPA 2.1 file "
    "read as V-JEPA 2 with missing keys ignored"
)


def judge(
    names: tuple[str, str], origins: tuple[Mapping[str, Any], Mapping[str, Any]], apart: float, same: bool
) -> list[Check]:
    """What the files called `names` say of how they were made, and what is likely where they do not say it.

    `apart` is the median distance of a clip's two vectors, relative to their length; `same` says that they are equal
    but for rounding. Files of which nothing is said and that are alike need no check.
    """
    unlike = differences(*origins)
    said = [f"{words} {a} and {b}" for words, (a, b) in unlike.items()]
    if said:
        return [Check("Origin", "check", f"The files were made differently: {'; '.join(said)}.", "summary")]
    if same:
        return []
    silent = [name for name, origin in zip(names, origins, strict=True) if not origin.keys() & DECIDES.keys()]
    if not silent:
        words = "Nothing that the files say of how they were made differs: MP4 or DICOM files, versions or devices do."
        return [Check("Origin", "check", words, "summary")]
    nothing = f"No file beside {' and '.join(silent)} says how it was made."
    others = [of for of in map(_in_words, origins) if of]
    other = f" The other file: {others[0]}." if others else ""
    if apart < FAR:
        return [Check("Origin", "check", f"{nothing}{other} MP4 files of another codec may differ so.", "summary")]
    words = (
        f"{nothing}{other} {apart:.0%} is neither rounding nor a codec's error. Likely causes: {LIKELY}. Same names, "
        "keys and shapes do not make files comparable (docs/guide.md)."
    )
    return [Check("Origin", "check", words, "summary")]


def _in_words(origin: Mapping[str, Any]) -> str:
    """What an origin says, for comparison with what is known of the other file by other ways."""
    said = {name: words for name, words in DECIDES.items() if name in origin and name != "checkpoint_sha256"}
    return ", ".join(f"{words} {in_words(name, origin[name])}" for name, words in said.items())
