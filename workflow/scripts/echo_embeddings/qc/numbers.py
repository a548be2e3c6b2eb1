"""What the quality page says, as numbers: nothing here draws or writes.

Vectors that hold NaN or Inf are counted by `health` and left out of every figure after it. Spreads
are those of the population (divided by N).
"""

import hashlib
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import entropy
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import cosine_similarity

from .. import manifest, store
from ..files import UserError, one_line

Floats = npt.NDArray[np.floating[Any]]
Level = Literal["good", "warn", "bad"]

SEED = 0
HEAT_MAP_CLIPS = 200
SCATTER_CLIPS = 5000
PROFILES = 4
COMPONENTS = 10
BINS = 60  # at most
NAMED = 3  # things named in a sentence; the others are only counted
NO_FOLDER = "(in no manifest)"
TOTAL = "all folders"
COUNTS = ("seen", "converted", "skipped", "failed", "embedded", "not_embedded", "missing")

MUST_AGREE = ("checkpoint_sha256", "entry", "precision", "num_frames")
SHARED = ("model", "constructor", "embed_dim", "resolution", "checkpoint", *MUST_AGREE, "versions", "commit")
PICTURE: dict[str, Any] = {"picture": True}  # marks arrays that are drawn and not told as numbers


@dataclass(frozen=True)
class FolderFiles:
    """What a folder left behind."""

    manifest: Path  # the ledger of its conversion
    run: Path  # the run record of its embedding, JSON; may be absent
    failed: Path  # columns `key` and `reason`, tab-separated; absent means that no clip failed


@dataclass(frozen=True)
class Check:
    """One line of the summary."""

    name: str
    level: Level
    sentence: str
    section: str  # id of the section that shows the details


@dataclass(frozen=True)
class Provenance:
    """Where the vectors come from, as the run records say."""

    runs: dict[str, dict[str, Any] | None]  # folder -> its record; None where there is none
    shared: dict[str, dict[str, list[str]]]  # field -> value as text -> the folders that have it
    notes: list[str]  # what the records say of weights that are not a proper checkpoint

    @property
    def missing(self) -> list[str]:
        """The folders without a run record."""
        return [folder for folder, run in self.runs.items() if run is None]

    @property
    def conflicts(self) -> list[str]:
        """The fields that must be the same in all folders and are not."""
        return [name for name in MUST_AGREE if len(self.shared.get(name, {})) > 1]


@dataclass(frozen=True)
class Reason:
    """Why files ended without a vector."""

    outcome: str  # skipped or failed, as in the manifest, or not embedded
    reason: str
    files: int
    by_folder: dict[str, int]


@dataclass(frozen=True)
class Accounting:
    """Where every file went."""

    folders: pd.DataFrame  # one row a folder and their sum as the last; columns: see `account`
    reasons: list[Reason]  # by outcome, most frequent first
    problems: list[str]  # a sentence for each sum that does not come out


@dataclass(frozen=True)
class Health:
    """Vectors and dimensions with a defect. The names are keys of the embedding file."""

    nan: list[str]  # vectors with a NaN
    inf: list[str]  # vectors with an infinity
    zero: list[str]  # vectors of zeros only
    duplicates: list[list[str]]  # groups of vectors that are equal in every value
    dead: list[int] | None  # dimensions with one value in all finite vectors; None for fewer than two
    finite: npt.NDArray[np.bool_] = field(metadata=PICTURE)  # [N]: neither NaN nor Inf

    @property
    def duplicated(self) -> int:
        """How many vectors equal another one."""
        return sum(len(group) for group in self.duplicates)


@dataclass(frozen=True)
class Histogram:
    """Counts [B] of the values between edges [B + 1]."""

    edges: Floats
    counts: npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Cosine:
    """Cosine similarity between the clips of a sample."""

    clips: int
    of: int  # what the sample was drawn from: finite vectors other than zero
    mean: float  # of all pairs of two different clips, as are min and max
    min: float
    max: float
    pairs: Histogram  # of all pairs of two different clips
    matrix: Floats = field(metadata=PICTURE)  # [clips, clips]
    labels: list[str] = field(metadata=PICTURE)  # [clips] folders, equal ones side by side


@dataclass(frozen=True)
class Dimensions:
    """Each of the D dimensions over all clips."""

    mean: Floats  # float64 [D]
    variance: Floats  # float64 [D]


@dataclass(frozen=True)
class Components:
    """Principal components, and how many directions the vectors use."""

    explained: Floats  # [K], K <= COMPONENTS: share of the variance, largest first
    effective_rank: float  # exp of the entropy of all components' shares: 1 is a line, D is a ball
    points: Floats = field(metadata=PICTURE)  # [P, 2], P <= SCATTER_CLIPS; second column 0 if K is 1
    labels: list[str] = field(metadata=PICTURE)  # [P] folders


@dataclass(frozen=True)
class Report:
    """Everything a model's page shows. None stands for what so few vectors cannot give."""

    model: str
    file: str  # name of the merged file
    bytes: int
    vectors: int
    finite: int
    dim: int
    checks: list[Check]
    provenance: Provenance
    accounting: Accounting
    health: Health
    statistics: pd.DataFrame  # see `statistics`
    values: Histogram | None
    norms: Histogram | None
    cosine: Cosine | None
    dimensions: Dimensions | None
    components: Components | None
    profiles: dict[str, Floats] = field(metadata=PICTURE)  # key -> [D]

    @property
    def status(self) -> Level:
        """The worst level of the checks."""
        return worst(check.level for check in self.checks)


def worst(levels: Iterable[Level]) -> Level:
    """The worst of the levels; "good" of none."""
    order: tuple[Level, ...] = ("good", "warn", "bad")
    return max(levels, key=order.index, default="good")


def measure(model: str, embeddings: Path, folders: Mapping[str, FolderFiles], prefix_folder: bool) -> Report:
    """Measure the merged file `embeddings`, and count what its `folders` left behind.

    With `prefix_folder` the merged file's keys are `{folder}/{key}`. Raises `UserError` if a file is
    missing or not what it should be.
    """
    keys, tensor = store.read(embeddings)
    matrix: Floats = tensor.numpy()
    provenance = read_provenance(folders)
    accounting, labels = account(keys, folders, provenance.runs, prefix_folder)
    found = health(keys, matrix)

    rows = matrix if found.finite.all() else matrix[found.finite]
    names = list(itertools.compress(keys, found.finite))
    labels = list(itertools.compress(labels, found.finite))
    norms: Floats = np.linalg.norm(rows.astype(np.float64), axis=1)
    return Report(
        model=model,
        file=embeddings.name,
        bytes=embeddings.stat().st_size,
        vectors=len(keys),
        finite=len(rows),
        dim=matrix.shape[1],
        checks=judge(model, matrix.shape, provenance, accounting, found),
        provenance=provenance,
        accounting=accounting,
        health=found,
        statistics=statistics(rows, norms, labels),
        values=histogram(rows) if rows.size else None,
        norms=histogram(norms) if rows.size else None,
        cosine=cosine(rows, norms, labels),
        dimensions=dimensions(rows),
        components=components(rows, labels),
        profiles={names[i]: rows[i] for i in sample(len(rows), PROFILES)},
    )


def sample(n: int, size: int) -> npt.NDArray[np.int64]:
    """At most `size` of the numbers 0 .. n - 1, ascending: all of them, or a seeded draw."""
    if n <= size:
        return np.arange(n)
    return np.sort(np.random.default_rng(SEED).choice(n, size, replace=False))


def read_provenance(folders: Mapping[str, FolderFiles]) -> Provenance:
    """Read the folders' run records. Raises `UserError` if one is there and is not a JSON object."""
    runs = {folder: _read_run(files.run) for folder, files in folders.items()}
    shared: dict[str, dict[str, list[str]]] = {name: {} for name in SHARED}
    notes = []
    for folder, run in runs.items():
        if run is None:
            continue
        for name in SHARED:
            shared[name].setdefault(_text(run.get(name)), []).append(folder)
        if run.get("weights") is not None:
            notes.append(str(run["weights"]))
    return Provenance(runs, shared, list(dict.fromkeys(notes)))


def _read_run(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a run record: {one_line(error)}") from error
    if not isinstance(run, dict):
        raise UserError(f"{path}: holds a {type(run).__name__}, not a run record")
    return run


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return "not recorded" if value is None else str(value)


def _read_failed(path: Path) -> dict[str, str]:
    """Key -> reason, of the clips that could not be embedded."""
    if not path.exists():
        return {}
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, quoting=3)
        return dict(zip(table["key"], table["reason"], strict=True))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not a table with the columns key and reason: {one_line(error)}") from error


@dataclass(frozen=True)
class _Ledger:
    """One folder's files by what became of them. The clips are named as in the merged file."""

    rows: list[manifest.Row]
    converted: set[str]
    failed: dict[str, str]  # clip -> why it was not embedded
    embedded: set[str]


def account(
    keys: Sequence[str],
    folders: Mapping[str, FolderFiles],
    runs: Mapping[str, Mapping[str, Any] | None],
    prefix_folder: bool,
) -> tuple[Accounting, list[str]]:
    """Follow every file from the manifests to the N `keys` of the merged file.

    Returns the accounting and each key's folder, `NO_FOLDER` where no manifest knows it. The columns
    of the accounting's table: `folder`; files `seen`, `converted`, `skipped` and `failed`, as the
    manifest has them; clips `embedded`, `not_embedded` (listed as failed) and `missing` (converted,
    and neither of the two). Raises `UserError` on a manifest or list of failed clips that is broken.
    """
    ledgers = {folder: _read_ledger(files, f"{folder}/" if prefix_folder else "") for folder, files in folders.items()}
    claims = [(key, folder) for folder, ledger in ledgers.items() for key in ledger.converted]
    claims.sort(key=lambda claim: claim[0] in ledgers[claim[1]].failed)  # who failed to embed it, claims it last
    owner: dict[str, str] = {}
    for key, folder in claims:
        owner.setdefault(key, folder)
    labels = [owner.get(key, NO_FOLDER) for key in keys]
    stray: set[str] = set()
    for key, label in zip(keys, labels, strict=True):
        (stray if label == NO_FOLDER else ledgers[label].embedded).add(key)

    lines = [_count_files(folder, ledger) for folder, ledger in ledgers.items()]
    problems = [p for line in lines for p in _problems(ledgers[line["folder"]], line, runs[line["folder"]])]
    if stray:
        lines.append({"folder": NO_FOLDER, "embedded": len(stray)})
        problems.append(f"{_clips(stray)} embedded, but in no manifest")
    counts = pd.DataFrame(lines, columns=["folder", *COUNTS]).fillna(0)
    counts.loc[len(counts)] = {"folder": TOTAL, **counts[list(COUNTS)].sum()}
    counts = counts.astype(dict.fromkeys(COUNTS, int))
    return Accounting(counts, _reasons(ledgers), problems), labels


def _read_ledger(files: FolderFiles, prefix: str) -> _Ledger:
    rows = manifest.read(files.manifest)
    converted = {prefix + row.mp4 for row in rows if row.status == manifest.CONVERTED}
    failed = {prefix + key: reason for key, reason in _read_failed(files.failed).items()}
    return _Ledger(rows, converted, failed, embedded=set())


def _count_files(folder: str, ledger: _Ledger) -> dict[str, Any]:
    status = Counter(row.status for row in ledger.rows)
    return {
        "folder": folder,
        "seen": len(ledger.rows),
        "converted": status[manifest.CONVERTED],
        "skipped": status[manifest.SKIPPED],
        "failed": status[manifest.FAILED],
        "embedded": len(ledger.embedded),
        "not_embedded": len(ledger.failed),
        "missing": len(ledger.converted - ledger.embedded - ledger.failed.keys()),
    }


def _problems(ledger: _Ledger, line: Mapping[str, Any], run: Mapping[str, Any] | None) -> list[str]:
    """A sentence for each way in which a folder's files and its run record do not fit together."""
    failed = ledger.failed.keys()
    faults = (
        (ledger.converted - ledger.embedded - failed, "converted, but neither embedded nor listed as failed"),
        (ledger.embedded & failed, "both embedded and listed as failed"),
        (failed - ledger.converted, "listed as failed, but not converted in the manifest"),
    )
    problems = [f"{line['folder']}: {_clips(clips)} {fault}" for clips, fault in faults if clips]
    recorded = (run or {}).get("counts") or {}
    for name, column in (("converted", "converted"), ("failed", "not_embedded")):
        if name in recorded and recorded[name] != line[column]:
            problems.append(f"{line['folder']}: the run record has {recorded[name]} {name}, the tables {line[column]}")
    return problems


def _reasons(ledgers: Mapping[str, _Ledger]) -> list[Reason]:
    files: dict[tuple[str, str], Counter[str]] = {}
    for folder, ledger in ledgers.items():
        ends = [(row.status, row.reason) for row in ledger.rows if row.status != manifest.CONVERTED]
        for end in ends + [("not embedded", reason) for reason in ledger.failed.values()]:
            files.setdefault(end, Counter())[folder] += 1
    reasons = [Reason(outcome, why, count.total(), dict(count)) for (outcome, why), count in files.items()]
    return sorted(reasons, key=lambda r: (r.outcome, -r.files, r.reason))


def health(keys: Sequence[str], matrix: Floats) -> Health:
    """Look for defects in the float32 vectors [N, D] under N `keys`."""
    nan = np.asarray(np.isnan(matrix).any(axis=1))
    inf = np.asarray(np.isinf(matrix).any(axis=1))
    zero = np.asarray((matrix == 0).all(axis=1))
    finite = ~(nan | inf)
    rows = matrix if finite.all() else matrix[finite]
    groups: dict[bytes, list[str]] = {}
    for key, row in zip(keys, matrix, strict=True):
        digest = hashlib.blake2b((row + 0.0).tobytes(), digest_size=16).digest()  # + 0.0 makes -0.0 equal 0.0
        groups.setdefault(digest, []).append(key)
    return Health(
        nan=list(itertools.compress(keys, nan)),
        inf=list(itertools.compress(keys, inf)),
        zero=list(itertools.compress(keys, zero)),
        duplicates=[group for group in groups.values() if len(group) > 1],
        dead=np.flatnonzero(rows.min(axis=0) == rows.max(axis=0)).tolist() if len(rows) > 1 else None,
        finite=finite,
    )


def statistics(rows: Floats, norms: Floats, labels: Sequence[str]) -> pd.DataFrame:
    """Values and L2 norms of the finite vectors [N, D], for each folder and, as the last row, for all.

    `norms` is [N], `labels` the N folders. Columns: `folder`, `vectors`, then of all values `mean`,
    `std`, `min`, `median`, `max`, and of the norms `norm_mean`, `norm_std`, `norm_min`, `norm_q1`,
    `norm_median`, `norm_q3`, `norm_max`. Empty if there is no vector.
    """
    if not rows.size:
        return pd.DataFrame()
    column = np.array(labels, dtype=object)
    masks = {folder: column == folder for folder in sorted(set(labels))}
    lines = [_describe(folder, rows[mask], norms[mask]) for folder, mask in masks.items()]
    return pd.DataFrame([*lines, _describe(TOTAL, rows, norms)])


def _describe(folder: str, rows: Floats, norms: Floats) -> dict[str, Any]:
    low, q1, middle, q3, high = np.quantile(norms, [0, 0.25, 0.5, 0.75, 1])
    return {
        "folder": folder,
        "vectors": len(rows),
        "mean": rows.mean(dtype=np.float64),
        "std": rows.std(dtype=np.float64),
        "min": rows.min(),
        "median": np.median(rows),
        "max": rows.max(),
        "norm_mean": norms.mean(),
        "norm_std": norms.std(),
        "norm_min": low,
        "norm_q1": q1,
        "norm_median": middle,
        "norm_q3": q3,
        "norm_max": high,
    }


def histogram(values: Floats) -> Histogram:
    """Counts of `values`, of any shape but empty, in equal bins from the smallest to the largest.

    Values that are equal but for rounding lie in the middle of a range of their own size.
    """
    low, high = np.float64(values.min()), np.float64(values.max())
    size = max(abs(low), abs(high))
    if high - low <= 1e-9 * size:
        margin = size / 2 or 0.5
        low, high = low - margin, high + margin
    counts, edges = np.histogram(values, bins=min(BINS, 1 + 2 * math.isqrt(values.size)), range=(low, high))
    return Histogram(edges, counts)


def cosine(rows: Floats, norms: Floats, labels: Sequence[str]) -> Cosine | None:
    """Cosine similarity of at most `HEAT_MAP_CLIPS` of the vectors [N, D]; None of fewer than two.

    Vectors of `norms` [N] zero have no direction and are left out. `labels`: the N folders.
    """
    with_direction = np.flatnonzero(norms > 0)
    if len(with_direction) < 2:
        return None
    chosen = with_direction[sample(len(with_direction), HEAT_MAP_CLIPS)]
    chosen = np.array(sorted(chosen, key=lambda i: labels[i]))
    matrix = cosine_similarity(rows[chosen] / norms[chosen, None])
    pairs = matrix[np.triu_indices(len(chosen), k=1)]
    return Cosine(
        clips=len(chosen),
        of=len(with_direction),
        mean=float(pairs.mean()),
        min=float(pairs.min()),
        max=float(pairs.max()),
        pairs=histogram(pairs),
        matrix=matrix,
        labels=[labels[i] for i in chosen],
    )


def dimensions(rows: Floats) -> Dimensions | None:
    """Mean and variance of each dimension of the vectors [N, D]; None of none."""
    if not rows.size:
        return None
    return Dimensions(rows.mean(axis=0, dtype=np.float64), rows.var(axis=0, dtype=np.float64))


def components(rows: Floats, labels: Sequence[str]) -> Components | None:
    """Principal components of the float32 vectors [N, D]; `labels`: the N folders.

    None where there are none: fewer than two vectors, or all of them equal.
    """
    n, d = rows.shape
    if n < 2 or not d:
        return None
    # Scaled and centred beforehand: squares of large values overflow float32, those of a large mean drown the rest
    peak = np.abs(rows).max() or np.float32(1)
    centred = rows / peak
    centred -= centred.mean(axis=0, dtype=np.float64)
    spread = np.abs(centred).max()
    if not spread:
        return None
    centred /= spread
    pca = PCA(min(COMPONENTS, n - 1, d), svd_solver="covariance_eigh" if n > d else "full").fit(centred)
    chosen = sample(n, SCATTER_CLIPS)
    points = pca.transform(centred[chosen])[:, :2] * np.float64(peak) * np.float64(spread)
    spectrum = np.linalg.eigvalsh(np.atleast_2d(np.cov(centred, rowvar=False, dtype=np.float64)))
    return Components(
        explained=pca.explained_variance_ratio_,
        effective_rank=float(np.exp(entropy(spectrum.clip(min=0)))),
        points=np.pad(points, ((0, 0), (0, 2 - points.shape[1]))),
        labels=[labels[i] for i in chosen],
    )


def judge(
    model: str, shape: tuple[int, ...], provenance: Provenance, accounting: Accounting, found: Health
) -> list[Check]:
    """The summary of a page for `model`, whose merged file holds vectors of `shape` [N, D]."""
    return [
        *_judge_provenance(model, shape, provenance),
        *_judge_accounting(accounting),
        *_judge_vectors(shape, found),
    ]


def _judge_provenance(model: str, shape: tuple[int, ...], provenance: Provenance) -> list[Check]:
    checks = [Check("Weights", "warn", f"Not a proper checkpoint: {note}.", "provenance") for note in provenance.notes]
    said = {name: sorted(values) for name, values in provenance.shared.items()}
    level: Level = "bad"
    if provenance.conflicts:
        sentence = f"The folders were not made alike; they differ in: {', '.join(provenance.conflicts)}."
    elif set(said["model"]) - {model}:
        sentence = f"The run records are of another model: {', '.join(said['model'])}."
    elif shape[0] and set(said["embed_dim"]) - {str(shape[1])}:
        sentence = f"The vectors have {shape[1]} dimensions, the run records say {', '.join(said['embed_dim'])}."
    elif provenance.missing:
        level, sentence = "warn", f"No run record of {_named(provenance.missing)}: how it was made is not known."
    else:
        level, sentence = "good", "All folders were made with one checkpoint and the same settings."
    return [*checks, Check("Provenance", level, sentence, "provenance")]


def _judge_accounting(accounting: Accounting) -> list[Check]:
    total = accounting.folders.iloc[-1]
    if accounting.problems:
        shown, more = accounting.problems[:NAMED], len(accounting.problems) - NAMED
        sentence = "; ".join(shown + ([f"and {more} more"] if more > 0 else []))
        sums = Check("Accounting", "bad", f"The counts do not add up: {sentence}.", "files")
    else:
        sentence = (
            f"All {_count(total['seen'], 'file')} accounted for: {total['converted']:,} converted, "
            f"{total['skipped']:,} skipped, {total['failed']:,} failed; of those converted {total['embedded']:,} "
            f"embedded, {total['not_embedded']:,} not."
        )
        sums = Check("Accounting", "good", sentence, "files")
    failures = total["failed"] + total["not_embedded"]
    sentence = (
        f"{_count(total['failed'], 'file')} could not be converted, {_count(total['not_embedded'], 'clip')} "
        "could not be embedded."
        if failures
        else "Every video could be converted and embedded."
    )
    return [sums, Check("Failures", "warn" if failures else "good", sentence, "files")]


def _judge_vectors(shape: tuple[int, ...], found: Health) -> list[Check]:
    n, d = shape
    if not n:
        return [Check("Vectors", "bad", "The embedding file holds no vectors.", "health")]
    few = n < 3
    sentence = f"{_count(n, 'vector')} of {_count(d, 'dimension')}" + (": too few for most statistics." if few else ".")
    checks = [Check("Vectors", "warn" if few else "good", sentence, "provenance")]
    for name, names in (("NaN", found.nan), ("Inf", found.inf)):
        sentence = f"{_count(len(names), 'vector')} with {name}: {_named(names)}." if names else f"No value is {name}."
        checks.append(Check(name, "bad" if names else "good", sentence, "health"))
    sentence = f"{_count(len(found.zero), 'vector')} of zeros only: {_named(found.zero)}."
    checks.append(Check("Zeros", "bad", sentence, "health") if found.zero else _good("Zeros", "No vector is zero."))
    if found.duplicates:
        sentence = (
            f"{_count(found.duplicated, 'vector')} in {_count(len(found.duplicates), 'group')} of exact duplicates, "
            f"the first: {_named(found.duplicates[0])}."
        )
        checks.append(Check("Duplicates", "bad" if found.duplicated == n else "warn", sentence, "health"))
    else:
        checks.append(_good("Duplicates", "No two vectors are equal."))
    if found.dead:
        sentence = f"{len(found.dead):,} of {_count(d, 'dimension')} with the same value in every vector."
        checks.append(Check("Dimensions", "bad" if len(found.dead) == d else "warn", sentence, "health"))
    elif found.dead is not None:
        checks.append(_good("Dimensions", "Every dimension varies between the vectors."))
    return checks


def _good(name: str, sentence: str) -> Check:
    return Check(name, "good", sentence, "health")


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _named(names: Iterable[str]) -> str:
    """The first names in order, and how many more there are."""
    ordered = sorted(names)
    more = [f"{len(ordered) - NAMED:,} more"] if len(ordered) > NAMED else []
    return ", ".join(ordered[:NAMED] + more)


def _clips(clips: Iterable[str]) -> str:
    clips = list(clips)
    return f"{_count(len(clips), 'clip')} ({_named(clips)})"
