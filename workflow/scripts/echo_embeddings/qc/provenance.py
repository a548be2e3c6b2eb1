"""Where the vectors come from, as the folders' run records and the registry say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.origin import of_record
from ..core.state import read_run_record
from .base import Check, Level, named
from .tables import FolderFiles

MUST_AGREE = ("checkpoint_sha256", "entry", "recipe", "precision", "num_frames")
SHARED = (
    *("model", "family", "constructor", "embed_dim", "resolution", "checkpoint"),
    *MUST_AGREE,
    *("preprocessing", "versions", "commit", "device"),
)


@dataclass(frozen=True)
class Training:
    """What an encoder has learnt from, against what it is used on."""

    pretrained_on: Sequence[str]  # names of data sets, as the registry has them; none means not known
    collection: str | None  # the name of the data set at hand; None means not said

    @property
    def seen(self) -> bool:
        """Whether the encoder was pretrained on the collection at hand."""
        names = {_bare(name) for name in self.pretrained_on}
        return self.collection is not None and _bare(self.collection) in names


@dataclass(frozen=True)
class Provenance:
    """Where the vectors come from."""

    runs: dict[str, dict[str, Any] | None]  # folder -> its record; None where there is none
    shared: dict[str, dict[str, list[str]]]  # field -> value as text -> the folders that have it
    notes: list[str]  # what the records say of weights that are not a proper checkpoint
    training: Training

    @property
    def missing(self) -> list[str]:
        """The folders without a run record."""
        return [folder for folder, run in self.runs.items() if run is None]

    @property
    def conflicts(self) -> list[str]:
        """The fields that must be the same in all folders and are not."""
        return [name for name in MUST_AGREE if len(self.shared.get(name, {})) > 1]


def read(folders: Mapping[str, FolderFiles], training: Training) -> Provenance:
    """Read the folders' run records. Raises `UserError` if one is there and is not a JSON object."""
    runs = {folder: read_run_record(files.run) for folder, files in folders.items()}
    shared: dict[str, dict[str, list[str]]] = {name: {} for name in SHARED}
    notes = []
    for folder, run in runs.items():
        if run is None:
            continue
        whole = run | of_record(run)
        for name in SHARED:
            shared[name].setdefault(_text(whole.get(name)), []).append(folder)
        if run.get("weights") is not None:
            notes.append(str(run["weights"]))
    return Provenance(runs, shared, list(dict.fromkeys(notes)), training)


def _bare(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(part)}" for name, part in value.items() if part is not None)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not recorded" if value is None else str(value)


def judge(model: str, shape: tuple[int, ...], provenance: Provenance) -> list[Check]:
    """The checks of a page for `model`, whose merged file holds vectors of `shape` [N, D]."""
    checks = [Check("Weights", "check", f"Not a proper checkpoint: {note}.", "provenance") for note in provenance.notes]
    if provenance.training.seen:
        sentence = (
            f"The encoder was pretrained on {provenance.training.collection}, the collection at hand: it has seen "
            "these clips, and results on them say nothing about unseen patients."
        )
        checks.append(Check("Pretraining", "check", sentence, "provenance"))
    said = {name: sorted(values) for name, values in provenance.shared.items()}
    level: Level = "fault"
    if provenance.conflicts:
        sentence = f"The folders were not made alike; they differ in: {', '.join(provenance.conflicts)}."
    elif set(said["model"]) - {model}:
        sentence = f"The run records are of another model: {', '.join(said['model'])}."
    elif shape[0] and set(said["embed_dim"]) - {str(shape[1])}:
        sentence = f"The vectors have {shape[1]} dimensions, the run records say {', '.join(said['embed_dim'])}."
    elif provenance.missing:
        level, sentence = "check", f"No run record of {named(provenance.missing)}: how it was made is not known."
    else:
        level, sentence = "good", "All folders were made with one checkpoint and the same settings."
    return [*checks, Check("Provenance", level, sentence, "provenance")]
