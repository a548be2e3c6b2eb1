"""The units with the largest errors, and strips of frames of their clips."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import pandas as pd

from ..core import manifest
from ..qc import pictures
from ..qc.base import Naming
from ..qc.pictures import Strip
from ..qc.tables import FolderFiles
from .outcome import Outcome, Unit

UNITS, CLIPS = 12, 4  # of a model, at most: units shown, clips of each


@dataclass(frozen=True)
class Shown:
    """A unit with a large error, as the page has it."""

    name: str
    truth: float | str
    prediction: float | str
    strips: list[Strip]  # of its first clips; empty where there are to be no pictures


def clips_of(outcomes: Iterable[Outcome], folders: Mapping[str, FolderFiles], prefix_folder: bool) -> pd.DataFrame:
    """What a model's manifests say of the clips that are shown of its `outcomes`, for `pictures.read_frames`.

    The rows' index is folder and MP4. A clip that no manifest has gets a row that says so. Raises `UserError` if a
    manifest cannot be read.
    """
    wanted = {clip for outcome in outcomes for unit in outcome.worst[:UNITS] for clip in unit.clips[:CLIPS]}
    found: dict[tuple[str, str], manifest.Row] = {}
    for folder in sorted({folder for folder, _ in wanted} & folders.keys()):
        rows = (row for row in manifest.read(folders[folder].manifest) if row.is_clip)
        found |= {(folder, row.mp4): row for row in rows if (folder, row.mp4) in wanted}
    lines = {}
    for folder, mp4 in sorted(wanted):
        row = found.get((folder, mp4))
        known = asdict(row or manifest.Row("", mp4, "", ""))
        lines[folder, mp4] = {
            **{name: known[name] or "" for name in ("path", "mp4", "status", "kind")},
            "frames": known["frames"] or 0,
            "folder": folder if row else "",
            "key": f"{folder}/{mp4}" if prefix_folder else mp4,
        }
    return pd.DataFrame.from_dict(lines, orient="index")


def shown(
    outcome: Outcome, clips: pd.DataFrame | None, folders: Mapping[str, FolderFiles], naming: Naming
) -> list[Shown]:
    """The units with the largest errors; `clips` as `clips_of` has them, or None for no pictures."""
    units = outcome.worst[:UNITS]
    wanted = list(dict.fromkeys(clip for unit in units for clip in unit.clips[:CLIPS]))
    if clips is None or not wanted:
        return [_shown(unit, [], naming) for unit in units]
    rows = clips.loc[wanted]
    frames = pictures.read_frames(rows, folders)
    strips = {clip: pictures.strip(rows.iloc[i], "", frames, naming) for i, clip in enumerate(wanted)}
    return [_shown(unit, [strips[clip] for clip in unit.clips[:CLIPS]], naming) for unit in units]


def _shown(unit: Unit, strips: list[Strip], naming: Naming) -> Shown:
    return Shown(naming(unit.key), unit.truth, unit.prediction, strips)
