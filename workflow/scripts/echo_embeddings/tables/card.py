"""The data set card: what Parquet files hold, for a person and for the Hugging Face library `datasets`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import yaml

from ..core.files import atomic_write
from ..core.origin import SHORT, of_record
from ..core.settings import Tables
from ..core.state import read_run_record
from . import selection
from .export import Exported, Part

COLUMNS = {
    "subject_id": "the patient: a number, or as the collection writes it",
    "study_id": "the study; those of several patients may have the same one",
    "dicom_id": "the file, from the path",
    "file_path": "the clip's key in the embedding files: the MP4 that it has or would have, relative to its folder",
    "dicom_filepath": "the DICOM, spelled as in the record list",
    "folder": "the folder of the collection",
    selection.KEY: "the clip's key in the merged file, and in the table of keys beside the NumPy matrix",
    selection.ROW: "its row in these two, from 0; the rows of the files here stand in another order",
    selection.FOLD: "the fold of its patient, by a hash, as `evaluate` has it; none where no patient is known",
    selection.EMBEDDING: "the frozen encoder's vector of the clip",
}
PHYSIONET = (
    "MIMIC-IV-Echo is under the PhysioNet Credentialed Health Data License 1.5.0 and its data use agreement. What is "
    "derived from it, these vectors included, may be passed on only to people who are credentialed for it and have "
    "signed the agreement, and may not be used to find out who a patient is."
)
OTHERS = (
    "These vectors are derived from data of patients. Pass them on only as the terms allow under which you have the "
    "collection, and do not try to find out who a patient is."
)
RECORDED = (
    *("checkpoint_sha256", "entry", "constructor", "family", "code", "resolution", "num_frames", "preprocessing"),
    *("precision", SHORT, "commit", "weights"),
)


@dataclass(frozen=True)
class About:
    """What the configuration and the registry say of the vectors."""

    model: str
    dim: int
    facts: Mapping[str, str]  # of the encoder: family, input, licence, commercial use
    pretrained_on: Sequence[str]
    collection: str | None
    access: str | None  # who may have the files; None stands for what is said above


def write(path: Path, about: About, exported: Exported, parts: Mapping[str, Part], known: Tables) -> None:
    """Write the card, Markdown with YAML before it. Raises `UserError` if a run record is broken."""
    with atomic_write(path) as part:
        part.write_text(_front(exported) + _text(about, exported, parts, known), encoding="utf-8")


def _front(exported: Exported) -> str:
    """The card's YAML.

    The library `datasets` streams a split that is called `all`, and refuses to build one, because the word asks it for
    the union of all splits. So the same rows are in a second configuration, the default, where they are that union.
    """
    files = f"train-*-of-{len(exported.rows):05d}.parquet"
    configs = [
        {"config_name": "all", "data_files": [{"split": "all", "path": files}]},
        {"config_name": "default", "default": True, "data_files": [{"split": "train", "path": files}]},
    ]
    front = {"license": "other", "license_name": "access-rule-of-the-collection", "configs": configs}
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n"


def _text(about: About, exported: Exported, parts: Mapping[str, Part], known: Tables) -> str:
    total = sum(exported.rows.values())
    collection = about.collection or "a collection of echocardiograms"
    access = about.access or (PHYSIONET if "mimic" in collection.lower() else OTHERS)
    trained = ", ".join(about.pretrained_on) or "data that the model registry does not name"
    sections = [
        f"# Embeddings of {collection} by {about.model}",
        f"One row a clip: {total:,} vectors of {about.dim:,} float32 values, of {_known(exported.patients)} patients "
        f"in {_known(exported.studies)} studies. They are not divided into training and test: that is yours to do, by "
        "patient; `fold` may serve for it. The one split is named `all`; the library `datasets` loads it as below, and "
        "streams it from the configuration `all`.",
        "## Access",
        access,
        "## Counts",
        _table(("folder", "rows"), [*exported.rows.items(), ("all", total)]),
        "\n".join(f"- {line}" for line in _counts(exported, known, total)),
        "## Encoder",
        "The licence is that of the weights, as the model registry of the run has it.\n\n"
        + _table(("", about.model), list(about.facts.items())),
        "## Provenance",
        f"The encoder `{about.model}` was pretrained on {trained}"
        + (" - **this collection: it has seen these clips.**" if _seen(about) else ".")
        + " As the run records of the folders say:",
        _table(("", "value"), _provenance(parts)),
        "## Columns",
        _table(
            ("column", "type", "missing", "what"),
            [
                (f"`{f.name}`", _type(f.type), exported.nulls.get(f.name, 0), _what(f.name, known))
                for f in exported.schema
            ],
        ),
        "## Reading it",
        _READING.format(dim=about.dim),
    ]
    return "\n\n".join(sections) + "\n"


_READING = """```python
import glob, os

import datasets, duckdb, numpy, pandas, polars  # any one of them will do

rows = datasets.load_dataset(os.getcwd(), split="all")  # this directory; the others read its files
table = pandas.concat(map(pandas.read_parquet, sorted(glob.glob("train-*.parquet"))), ignore_index=True)
matrix = numpy.stack(table["embedding"])  # float32 [N, {dim}]
frame = polars.read_parquet("train-*.parquet")
found = duckdb.sql("SELECT file_path, embedding FROM 'train-*.parquet'")
```"""


def _counts(exported: Exported, known: Tables, total: int) -> list[str]:
    lines = []
    if known.select:
        lines.append(f"Selected: `{known.select}`; it leaves out {exported.left_out:,} clips.")
    for join in exported.joins:
        table, found = join.table, exported.found[join.table.name]
        line = (
            f"`{Path(table.file).name}` ({table.name}), by {table.by}: found for {found:,} rows, not for "
            f"{total - found:,}, whose columns are empty"
        )
        if join.repeated:
            line += f"; {len(join.repeated):,} of its keys have more than one row, of which the first counts"
        lines.append(". ".join((line, *join.notes)) + ".")
    return lines


def _provenance(parts: Mapping[str, Part]) -> list[tuple[str, str]]:
    """Each recorded fact; several values where the folders differ."""
    runs = [run | of_record(run) for part in parts.values() if (run := read_run_record(part.run)) is not None]
    facts = [
        (name.replace("_", " "), ", ".join(sorted({str(run[name]) for run in runs if run.get(name) is not None})))
        for name in RECORDED
    ]
    versions = {f"{name} {version}" for run in runs for name, version in run.get("versions", {}).items()}
    finished = [str(run["finished"]) for run in runs if "finished" in run]
    facts += [("versions", ", ".join(sorted(versions))), ("finished", max(finished, default=""))]
    return [(name, value) for name, value in facts if value]


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")


def _what(name: str, known: Tables) -> str:
    if name in COLUMNS:
        return COLUMNS[name]
    table = selection.columns(known).get(name)
    return f"of `{Path(table.file).name}`, by {table.by}" if table else "of the manifest"


def _type(kind: pa.DataType) -> str:
    return f"list of {kind.list_size:,} float32" if pa.types.is_fixed_size_list(kind) else str(kind)


def _known(number: int) -> str:
    return f"{number:,}" if number else "unknown"


def _seen(about: About) -> bool:
    names = {_bare(name) for name in about.pretrained_on}
    return about.collection is not None and _bare(about.collection) in names


def _bare(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
