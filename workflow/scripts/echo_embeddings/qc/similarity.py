"""Cosine similarity: between clips of a study, of a patient, of different patients; a heat map; neighbours."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from .base import (
    BLOCK,
    MIN_PATIENTS,
    PICTURE,
    Check,
    Floats,
    Histogram,
    Integers,
    Level,
    Vectors,
    blocks,
    count,
    histogram,
    named,
    sample,
    share_out,
    worst,
)
from .pairs import Comparison, Cosines, Separation, draw, judged, separations
from .pairs import compare as compare_sorts
from .tables import UNKNOWN

HEAT_MAP = 200  # clips
LOOKED_AT = 2000  # clips whose cosine similarities, each with each, are described
SIGNAL = 0.6  # the interval of an AUC must begin above it
MIN_OF_FOLDER = 5  # patients with pairs; of fewer, a folder's AUC is not told
NO_SIGNAL = 0.55  # an AUC of at most this is a fault
BELOW = 0.05  # by how much a folder's AUC must be below that of the best quarter, beyond twice its interval
ALL, DEVICE, FOLDER = "all pairs", "pairs made by one model of device", "pairs of one folder"
BOTH = "pairs of one folder made by one model of device"
FEWEST, MOST = 1000, 10_000  # pairs of a sort that are looked at in each folder


@dataclass(frozen=True)
class HeatMap:
    """Cosine similarity of a few clips, those next to each other that are alike."""

    matrix: Floats  # [P, P]
    folders: list[str]  # [P]
    patients: list[str]  # [P]


@dataclass(frozen=True)
class FolderSeparation:
    """How much closer clips of a patient are than others, within one folder."""

    folder: str
    found: Separation
    falls_out: bool  # far below the other folders


@dataclass(frozen=True)
class Similarity:
    """Cosine similarity between clips.

    `sampled` to `everything` are of the vectors as they are, those of zeros left out, which have no direction. Pairs
    are compared by their vectors less the mean vector: what all clips have in common tells no two apart.
    """

    sampled: int  # clips of a seeded sample, each of which is compared with each other one
    mean: float  # of these pairs, as are min and max
    min: float
    max: float
    everything: Histogram
    patients: int  # known ones
    devices: int  # known models
    folders: int
    compared: dict[str, Comparison]  # `ALL`, `DEVICE`, `FOLDER` and `BOTH`, those that have pairs
    by_folder: list[FolderSeparation]  # lowest first, those of enough patients
    heat_map: HeatMap = field(metadata=PICTURE)

    @property
    def tells(self) -> bool:
        """Whether there are enough patients to say anything about them."""
        return self.patients >= MIN_PATIENTS

    @property
    def judged(self) -> dict[str, Separation]:
        """What the verdict goes by: of each comparison with enough patients one sort of pairs, the same of all."""
        first = judged(self.compared[ALL].separation, MIN_PATIENTS) if self.tells and ALL in self.compared else None
        if first is None:
            return {}
        of_sort = {
            name: next((of for of in compared.separation if of.sort == first.sort), None)
            for name, compared in self.compared.items()
        }
        return {name: of for name, of in of_sort.items() if of is not None and of.patients >= MIN_PATIENTS}


def compare(vectors: Vectors, norms: Floats, clips: pd.DataFrame, mean: Floats, varied: bool) -> Similarity | None:
    """Compare the n vectors of L2 `norms` [n] and `mean` [D], whose `clips` say patient, study, device and group.

    `mean` is that of the vectors without outliers; `varied`: not all are equal. None of fewer than two vectors other
    than zero.
    """
    directed = np.flatnonzero(norms > 0)
    if len(directed) < 2:
        return None
    directions = unit(vectors, norms, directed[sample(len(directed), LOOKED_AT)])
    cosines = (directions @ directions.T)[np.triu_indices(len(directions), 1)].clip(-1, 1)
    patient, study, device, group = (_codes(clips[name]) for name in ("patient", "study", "device", "group"))
    compared: dict[str, Comparison] = {}
    by_folder: list[FolderSeparation] = []
    if varied:

        def centred(first: Integers, second: Integers) -> Floats:
            return _cosines(vectors, mean, first, second)

        both = np.where((device < 0) | (group < 0), -1, group * (device.max() + 1) + device)
        for name, of in ((ALL, np.zeros_like(patient)), (DEVICE, device), (FOLDER, group), (BOTH, both)):
            found = compare_sorts(draw(of, patient, study, centred))
            compared |= {name: found} if found else {}
        by_folder = _by_folder(clips["group"].to_numpy(), group, patient, study, centred)
    return Similarity(
        sampled=len(directions),
        mean=float(cosines.mean(dtype=np.float64)),
        min=float(cosines.min()),
        max=float(cosines.max()),
        everything=histogram(cosines),
        patients=int(patient.max()) + 1,
        devices=int(device.max()) + 1,
        folders=int(group.max()) + 1,
        compared=compared,
        by_folder=by_folder,
        heat_map=_heat_map(vectors, norms, directed, clips),
    )


def _by_folder(
    names: npt.NDArray[Any], group: Integers, patient: Integers, study: Integers, cosines: Cosines
) -> list[FolderSeparation]:
    """Lowest first, folders of `MIN_OF_FOLDER` patients with pairs or more.

    One falls out whose AUC is below that of the best quarter of the others by more than twice its interval: the best,
    since it may be most of them whose vectors lie under the wrong keys.
    """
    codes = np.unique(group[group >= 0]).tolist()
    most = min(MOST, max(FEWEST, MOST * 20 // max(1, len(codes))))
    found: dict[str, Separation] = {}
    for code in codes:
        inside = group == code
        if len(np.unique(patient[inside])) < MIN_OF_FOLDER:
            continue
        sorts = draw(np.where(inside, 0, -1), patient, study, cosines, most)
        of = judged(separations(sorts), MIN_OF_FOLDER)
        found |= {str(names[inside.argmax()]): of} if of else {}
    aucs = np.array([of.auc for of in found.values()])
    lines = []
    for i, (name, of) in enumerate(found.items()):
        others = np.delete(aucs, i)
        low = len(others) and of.auc + 2 * (of.high - of.auc) < float(np.quantile(others, 0.75)) - BELOW
        lines.append(FolderSeparation(name, of, bool(low)))
    return sorted(lines, key=lambda line: line.found.auc)


def _codes(names: pd.Series) -> Integers:
    """A number for each name, -1 for an unknown one."""
    return pd.factorize(names.where(names != UNKNOWN))[0].astype(np.int32)


def unit(vectors: Vectors, norms: Floats, places: Integers) -> Floats:
    """The vectors at `places` [p], of length one, float32 [p, D]; `norms` [n] are the lengths of all."""
    return (vectors.take(places) / norms[places, None]).astype(np.float32)


def _cosines(vectors: Vectors, mean: Floats, first: Integers, second: Integers) -> Floats:
    """The cosine similarity [p] of the clips at `first` and at `second` [p] less the `mean` [D]; 0 of the mean."""
    found = np.empty(len(first))

    def multiply(places: Sequence[slice]) -> None:
        for place in places:
            a, b = (vectors.take(clips[place]) - mean for clips in (first, second))
            lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
            products = np.einsum("ij,ij->i", a, b)
            found[place] = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)

    share_out(blocks(len(first)), multiply)
    return found.clip(-1, 1)


def _heat_map(vectors: Vectors, norms: Floats, directed: Integers, clips: pd.DataFrame) -> HeatMap:
    """Of at most `HEAT_MAP` clips, in the order of leaves of an average-linkage clustering."""
    places = directed[sample(len(directed), HEAT_MAP)]
    directions = unit(vectors, norms, places)
    matrix = (directions @ directions.T).clip(-1, 1)
    apart = 1 - (matrix + matrix.T) / 2
    np.fill_diagonal(apart, 0)
    order: npt.NDArray[np.intp] = leaves_list(
        linkage(squareform(apart, checks=False), "average", optimal_ordering=True)
    )
    found = clips.iloc[places[order]]
    return HeatMap(matrix[np.ix_(order, order)], list(found["folder"]), list(found["patient"]))


def nearest(vectors: Vectors, norms: Floats, queries: Integers, k: int) -> tuple[Integers, Floats]:
    """The `k` nearest of all vectors to each of `queries` [q], by cosine similarity, itself left out.

    Returns places among the n [q, k] and similarities [q, k], nearest first; fewer where there are fewer.
    """
    targets = unit(vectors, norms, queries).T
    cosines = np.empty((len(vectors), len(queries)), np.float32)
    lengths = np.where(norms > 0, norms, 1)[:, None]

    def multiply(places: Sequence[slice]) -> None:
        space = np.empty((BLOCK, vectors.matrix.shape[1]), np.float32)
        for place in places:
            block = vectors.block(place)
            cosines[place] = np.divide(block, lengths[place], out=space[: len(block)], casting="unsafe") @ targets

    share_out(blocks(len(vectors)), multiply)
    cosines[queries, range(len(queries))] = -np.inf
    cosines[norms == 0] = -np.inf
    k = min(k, len(vectors) - 1)
    places = np.argpartition(-cosines, k - 1, axis=0)[:k].T
    values = np.take_along_axis(cosines.T, places, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(places, order, axis=1), np.take_along_axis(values, order, axis=1)


def judge(similarity: Similarity | None) -> list[Check]:
    """The checks that clips of a patient are closer than clips of different patients, in every folder."""
    if similarity is None:
        return []
    return [_judge_patients(similarity), *_judge_folders(similarity)]


def _judge_patients(similarity: Similarity) -> Check:
    """The worst of all pairs, of those made by one model of device, of those of one folder, and of those of both."""
    name, section = "Patients", "similarity"
    if not similarity.patients:
        sentence = "Neither paths (config: layout) nor tables say whose a clip is: patients are not known."
        return Check(name, "not tested", sentence, section)
    if not similarity.tells:
        people = f"There are only {count(similarity.patients, 'patient')}"
        return Check(name, "not tested", f"{people}; at least {MIN_PATIENTS} are needed.", section)
    found = similarity.judged
    if not found:
        words = f"Fewer than {MIN_PATIENTS} patients have two clips, so there is too little to compare."
        return Check(name, "not tested", words, section)
    levels = {name: _level(of) for name, of in found.items()}
    level = worst(levels.values())
    said = ", ".join(f"{of.auc:.3f} ({of.low:.3f} to {of.high:.3f}) of {name}" for name, of in found.items())
    sort = found[ALL].sort + ("," if "," in found[ALL].sort else "")  # so that a clause between commas ends with one
    closer = {"good": "closer to each other", "check": "hardly closer", "fault": "no closer"}[level]
    sentence = (
        f"Clips of the {sort} are {closer} than clips of different patients: the AUC, with its "
        f"95\u00a0% interval, is {said}; 0.5 means no difference."
    )
    if level == "good" and BOTH not in found:
        words = " Whether devices or folders alone make it so is not tested: too few pairs are known to share both."
        return Check(name, "not tested", sentence + words, section)
    if level != "good" and levels[ALL] == "good":
        part = "explain" if level == "fault" else "explain in part"
        sentence += f" Differences between devices or folders {part} what all pairs show."
    if level == "good":
        sentence += " This is no evidence of a clinical signal, which only labels can give (evaluate)."
    return Check(name, level, sentence, section)


def _level(found: Separation) -> Level:
    return "good" if found.low > SIGNAL else "check" if found.auc > NO_SIGNAL else "fault"


def _judge_folders(similarity: Similarity) -> list[Check]:
    """Whether the clips of a patient are as much closer in every folder as in the others."""
    name, section = "Patients by folder", "similarity"
    lines = similarity.by_folder
    if similarity.folders < 2:
        return []
    aucs = [line.found.auc for line in lines]
    best = float(np.quantile(aucs, 0.75)) if aucs else 0.0
    out = [line for line in lines if line.falls_out]
    if out:
        level: Level = "fault" if out[0].found.auc <= NO_SIGNAL < SIGNAL < best else "check"
        sentence = (
            f"Clips of one patient are less close than elsewhere in {named([line.folder for line in out])}: the AUC of "
            f"{out[0].folder} is {out[0].found.auc:.3f}, that of the best quarter of folders {best:.3f}. Its vectors "
            "may lie under the wrong keys or come from other weights, or its patients, views or devices are others."
        )
        return [Check(name, level, sentence, section)]
    shown = [line for line in lines if best - BELOW > 0.5 + 2 * (line.found.high - line.found.auc)]
    if len(lines) < 2 or 2 * len(shown) < len(lines):
        sentence = (
            "With so few patients in a folder, or so little that tells them apart, vectors under the wrong keys in one "
            "folder would not show."
        )
        return [Check(name, "not tested", sentence, section)]
    blind = f" (in {len(lines) - len(shown):,} of them, wrong keys would not show)" if len(shown) < len(lines) else ""
    sentence = f"Clips of one patient are about as close in each of {count(len(lines), 'folder')}{blind}."
    return [Check(name, "good", sentence, section)]
