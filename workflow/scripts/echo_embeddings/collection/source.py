"""The collection that a configuration names, and the units of work that it is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.layout import DICOM as DICOM_CLIPS
from ..core.layout import Layout
from ..core.names import decode_name, encode_name
from ..core.pattern import PathPattern
from .folders import direct_files, find_folder, find_folders, holds, no_files, there
from .kinds import DICOM, VIDEO, Kind
from .units import Division, Folder, Share, Survey, Unit
from .walk import is_empty


@dataclass(frozen=True)
class Collection:
    """Where the files are, what they are, and how they are divided into jobs."""

    top: str
    kind: Kind
    chosen: tuple[str, ...] = ()  # config: folders
    division: Division | None = None  # None where each folder is a unit

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Collection":
        """That of a configuration which has been checked. Nothing is looked at."""
        kind = VIDEO if config["mp4_dir"] else DICOM
        top = config[kind.key]
        division = None
        if config["units"] != "folders":
            direct = direct_files(top).name
            pattern = PathPattern(config["layout"]) if config["layout"] else None
            names = [encode_name(decode_name(name)) for name in config["folders"]]
            chosen = ("" if name == direct and not Path(top, decode_name(name)).is_dir() else name for name in names)
            division = Division(config["units"], kind, pattern, frozenset(chosen))
        return cls(top, kind, tuple(config["folders"]), division)

    def units(self) -> Mapping[str, Unit]:
        """All units of the run, by name. Raises `UserError` where there is no file of the kind, or no such folder."""
        if not self.division:
            return find_folders(self.top, list(self.chosen), self.kind)
        folders = [there(self.top, name, self.kind) for name in self.chosen] or [Folder("", self.top)]
        if not any(holds(folder, self.kind) for folder in folders):
            raise UserError(no_files(self.top, self.kind))
        return {name: Share(name, self.top, at, self.division) for at, name in enumerate(self.division.names())}

    def unit(self, name: str) -> Unit:
        """The unit with this name. Raises `UserError` where there is none."""
        if not self.division:
            return find_folder(self.top, name, self.kind)
        if is_empty(self.top):  # a disk that is away: nothing that was made is to be forgotten
            raise UserError(no_files(self.top, self.kind))
        names = self.division.names()
        if name not in names:
            raise UserError(
                f"unit {name!r}: there is none; config: units: {len(names)} makes {names[0]} to {names[-1]}"
            )
        return Share(name, self.top, names.index(name), self.division)

    def surveys(self) -> Mapping[str, Survey]:
        """What all units look like from outside. Raises `UserError` as `units` does."""
        if not self.division:
            return {name: unit.survey() for name, unit in self.units().items()}
        found = self.division.surveys(self.top, range(self.division.units))
        return dict(zip(self.division.names(), found.values(), strict=True))

    def tree(self, unit: Unit, layout: Layout, clips: int | str) -> Path:
        """Where the clips of a unit lie: the MP4 files of a size, or what was there, as `Layout` says."""
        return Path(unit.path) if self.kind is VIDEO or clips == DICOM_CLIPS else unit.tree(layout, clips)
