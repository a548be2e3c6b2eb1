"""Cosine similarity: between clips of a study, of a patient, of different patients; a heat map; neighbours."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from .base import (
    BLOCK,
    MIN_PATIENTS,
    PICTURE,
    SAMPLE,
    Check,
    Floats,
    Histogram,
    Integers,
    Level,
    Vectors,
    blocks,
    sample,
    share_out,
)
from .pairs import BETWEEN, CLASSES, SORTS, Comparison, classes_of, histograms, sampled, unit, within_patients
from .pairs import compare as compare_sorts
from .tables import UNKNOWN

HEAT_MAP = 200  # clips
SIGNAL = 0.6  # the interval of the AUC must begin above it
NO_SIGNAL = 0.55  # an AUC of at most this is a fault


@dataclass(frozen=True)
class HeatMap:
    """Cosine similarity of a few clips, those next to each other that are alike."""

    matrix: Floats  # [P, P]
    folders: list[str]  # [P]
    patients: list[str]  # [P]


@dataclass(frozen=True)
class Similarity:
    """Cosine similarity between clips. Vectors of zeros have no direction and are left out."""

    clips: int  # with a direction
    patients: int  # known ones
    sampled: int  # clips whose pairs between patients were looked at
    mean: float  # of all pairs of the sample, as are min and max
    min: float
    max: float
    everything: Histogram  # all pairs of the sample
    all_devices: Comparison | None  # None where patients are not known
    one_device: Comparison | None  # pairs of clips made by one model of device
    heat_map: HeatMap = field(metadata=PICTURE)

    @property
    def tells(self) -> bool:
        """Whether there are enough patients to say anything about them."""
        return self.patients >= MIN_PATIENTS


def compare(vectors: Vectors, norms: Floats, clips: pd.DataFrame) -> Similarity | None:
    """Compare the n vectors of L2 `norms` [n], whose `clips` say patient, study and device.

    Pairs within a patient are all there are; pairs of different patients are those of a seeded sample.
    None of fewer than two vectors other than zero.
    """
    directed = np.flatnonzero(norms > 0)
    if len(directed) < 2:
        return None
    codes = np.stack([_codes(clips[name].iloc[directed]) for name in ("patient", "study", "device")])
    chosen = sample(len(directed), SAMPLE)
    of_sample = sampled(unit(vectors, norms, directed[chosen]), codes[:, chosen])
    within = within_patients(vectors, norms, directed, codes)
    patients = int(codes[0].max()) + 1

    def compared(one_device: bool) -> Comparison | None:
        sorts = {s: (of_sample if s == BETWEEN else within).of(classes_of(s, one_device)) for s in SORTS}
        return compare_sorts(sorts, patients) if patients else None

    everything = of_sample.of(range(CLASSES))
    return Similarity(
        clips=len(directed),
        patients=patients,
        sampled=len(chosen),
        mean=everything.sum / everything.number,
        min=of_sample.low,
        max=of_sample.high,
        everything=histograms([everything])[0],
        all_devices=compared(one_device=False),
        one_device=compared(one_device=True),
        heat_map=_heat_map(vectors, norms, directed, clips),
    )


def _codes(names: pd.Series) -> Integers:
    """A number for each name, -1 for an unknown one."""
    return pd.factorize(names.where(names != UNKNOWN))[0].astype(np.int32)


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
    """The check that clips of a patient are more alike than clips of different patients."""
    if similarity is None:
        return []
    name, section = "Signal", "similarity"
    if not similarity.patients:
        sentence = (
            "Patients are not known: neither paths (config: layout) nor tables say whose a clip is. So whether the "
            "vectors tell them apart is not known."
        )
        return [Check(name, "warn", sentence, section)]
    if not similarity.tells:
        people = "1 patient" if similarity.patients == 1 else f"{similarity.patients} patients"
        sentence = f"There are only {people}: that says nothing about patients (at least {MIN_PATIENTS} are needed)."
        return [Check(name, "warn", sentence, section)]
    separation = similarity.all_devices.separation if similarity.all_devices else []
    if not separation:
        return [Check(name, "warn", "No patient has two clips, so there is nothing to compare.", section)]
    best = separation[0]
    sentence = (
        f"Two clips of the {best.sort} are more alike than two of different patients with a chance of "
        f"{best.auc:.3f} (95\u00a0% interval {best.low:.3f} to {best.high:.3f}; 0.5 is no signal)."
    )
    level: Level = "good" if best.low > SIGNAL else "warn" if best.auc > NO_SIGNAL else "bad"
    return [Check(name, level, sentence, section)]
