"""Strips of four frames of the clips worth a look, from their MP4 files, or their DICOM where there are none."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.cluster import KMeans

from ..convert import video
from ..core import manifest
from ..core.errors import UserError
from ..core.names import one_line
from ..core.recipe import GUIDE
from ..core.workers import Failure, KilledError, at_work
from ..embed import sampling
from ..embed.direct import DicomReader
from .base import PICTURE, SAMPLE, SEED, THREADS, Floats, Integers, Naming, Vectors, hashed, sample
from .components import Components
from .health import Health
from .privacy import without_names
from .similarity import nearest
from .tables import FolderFiles

Frames = npt.NDArray[np.uint8]

FRAMES, EDGE, GAP = 4, 112, 2  # of a strip: frames, pixels of each, pixels between
QUALITY = 80  # JPEG
TIMEOUT = 60.0  # seconds in which a process has read the frames of a DICOM file, or is killed
GROUPS, MEMBERS, TYPICAL, QUERIES, NEIGHBOURS = 6, 4, 8, 12, 5


@dataclass(frozen=True)
class Strip:
    """A clip, and what it looks like."""

    clip: str
    caption: str  # folder, kind, frames, and why it is shown
    reason: str  # why there is no picture; empty where there is one
    source: str = field(metadata=PICTURE)  # data URI of a JPEG


@dataclass(frozen=True)
class Row:
    """Clips that belong together."""

    title: str
    strips: list[Strip]


@dataclass(frozen=True)
class Gallery:
    """Rows of clips under one heading."""

    title: str
    about: str
    rows: list[Row]


@dataclass(frozen=True)
class _Wanted:
    title: str
    clips: list[tuple[int, str]]  # place in the file, and what to say of it


def show(
    clips: pd.DataFrame,
    folders: Mapping[str, FolderFiles],
    vectors: Vectors,
    norms: Floats,
    health: Health,
    components: Components | None,
    naming: Naming,
) -> list[Gallery]:
    """Galleries of the N `clips`; `norms` [n] are those of the finite `vectors`. Empty ones are left out."""
    farthest = [
        (o.place, f"norm {o.norm_deviation:+.1f}, distance {o.distance_deviation:+.1f}") for o in health.farthest
    ]
    groups = [
        _Wanted(f"{kind} group {i}, {len(g.clips):,} clips", [(place, "") for place in g.places[:MEMBERS]])
        for kind, found in (("Equal", health.duplicates), ("Nearly equal", health.near))
        for i, g in enumerate(found[:GROUPS], 1)
    ]
    plan = {
        "Farthest clips": (
            "The clips most unlike the others, outliers or not: robust standard deviations from the median of the L2 "
            "norm, and of the distance to the mean vector.",
            [_Wanted("", farthest)] if farthest else [],
        ),
        "Duplicates": (
            f"The first {GROUPS} groups of equal and of nearly equal vectors, {MEMBERS} clips of each.",
            groups,
        ),
        "Typical clips": (
            f"One for each of up to {TYPICAL} clusters (k-means): the clip nearest to the cluster's centre.",
            _typical(components, vectors) if components is not None else [],
        ),
        "Neighbours": (
            f"Clips drawn at random, each first in its row, and their {NEIGHBOURS} nearest of all clips.",
            _neighbours(vectors, norms),
        ),
    }
    places = {place for _, rows in plan.values() for wanted in rows for place, _ in wanted.clips}
    frames = read_frames(clips.iloc[sorted(places)], folders)

    def row(wanted: _Wanted) -> Row:
        return Row(wanted.title, [strip(clips.iloc[place], said, frames, naming) for place, said in wanted.clips])

    return [Gallery(title, about, [row(wanted) for wanted in rows]) for title, (about, rows) in plan.items() if rows]


def strip(clip: pd.Series, said: str, frames: Mapping[str, Frames | Failure], naming: Naming) -> Strip:
    """The strip of a row of `tables.clips`, of which there is something to be `said`; `frames` as `read_frames` has."""
    found = frames[clip["key"]]
    hide = without_names if naming is hashed else str
    reason, source = (hide(found), "") if isinstance(found, Failure) else ("", _encode(found))
    return Strip(naming(clip["key"]), _caption(clip, said), reason, source)


def sources(clips: pd.DataFrame, folders: Mapping[str, FolderFiles]) -> dict[str, str]:
    """The strips of the rows of `tables.clips` that have a picture, as data URIs by key."""
    frames = read_frames(clips, folders)
    return {key: _encode(found) for key, found in frames.items() if not isinstance(found, Failure)}


def _typical(components: Components, vectors: Vectors) -> list[_Wanted]:
    chosen = sample(len(vectors), SAMPLE)
    scores = components.scores[chosen].astype(np.float64)
    clusters = min(TYPICAL, len(np.unique(scores, axis=0)))
    scores /= np.sqrt(components.variance)
    fit = KMeans(clusters, n_init=3, random_state=SEED).fit(scores)
    apart = fit.transform(scores)
    sizes = np.bincount(fit.labels_, minlength=clusters)
    order = np.argsort(-sizes, kind="stable")
    share = sizes / len(chosen)
    return [
        _Wanted("", [(int(vectors.rows[chosen[apart[:, i].argmin()]]), f"for {share[i]:.0%} of clips") for i in order])
    ]


def _neighbours(vectors: Vectors, norms: Floats) -> list[_Wanted]:
    directed: Integers = np.flatnonzero(norms > 0)
    if len(directed) < 2:
        return []
    queries = directed[sample(len(directed), QUERIES, SEED + 1)]
    places, cosines = nearest(vectors, norms, queries, NEIGHBOURS)
    return [
        _Wanted(
            "",
            [(int(vectors.rows[query]), "query")]
            + [(int(vectors.rows[p]), f"cosine {c:.3f}") for p, c in zip(near, values, strict=True) if np.isfinite(c)],
        )
        for query, near, values in zip(queries, places, cosines, strict=True)
    ]


def _caption(clip: pd.Series, said: str) -> str:
    frames = f"{clip['frames']:,} frames" if clip["frames"] else ""
    return ", ".join(part for part in (said, clip["folder"], clip["kind"], frames) if part)


def read_frames(clips: pd.DataFrame, folders: Mapping[str, FolderFiles]) -> dict[str, Frames | Failure]:
    """Frames of the rows of `tables.clips`, uint8 [FRAMES, height, width, 3], or why there are none; by key.

    Those of DICOM files are read in processes of their own: they are other ones than the encoder was shown, and may
    crash or hang a decoder.
    """
    found: dict[str, Frames | Failure] = {}
    videos, tasks = [], []
    for clip in clips.to_dict("records"):
        if clip["folder"] not in folders:
            found[clip["key"]] = Failure("in no manifest")
        elif clip["status"] == manifest.READABLE:
            reader = DicomReader(folders[clip["folder"]].tree, FRAMES, GUIDE, EDGE)
            tasks.append((reader, manifest.Row(clip["path"], clip["key"], clip["status"], "", clip["frames"])))
        else:
            videos.append((clip["key"], folders[clip["folder"]].tree / clip["mp4"], clip["frames"]))
    with ThreadPoolExecutor(THREADS) as pool:
        found |= pool.map(_of_video, videos)
    with at_work(DicomReader.read, tasks, THREADS, TIMEOUT, limit="the limit of a picture") as results:
        found |= ((row.mp4, images) for (_, row), images in results)
    return found


def _of_video(video_of: tuple[str, Path, int]) -> tuple[str, Frames | Failure]:
    """The key of a clip, and frames of its video at that path, which has so many, or why there are none."""
    key, path, frames = video_of
    try:
        return key, video.read(path, sampling.frame_indices(max(frames, 1), FRAMES).tolist(), frames)
    except (video.VideoError, KilledError, OSError) as error:
        return key, Failure(one_line(error))


def _encode(images: Iterable[Frames]) -> str:
    """RGB uint8 frames side by side, as the data URI of a JPEG."""
    small = [cv2.resize(image, (EDGE, EDGE), interpolation=cv2.INTER_AREA) for image in images]
    gap = np.full((EDGE, GAP, 3), 255, np.uint8)
    parts: Sequence[npt.NDArray[Any]] = [part for image in small for part in (image, gap)][:-1]
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(np.hstack(parts))).decode()


def jpeg(image: npt.NDArray[Any]) -> bytes:
    """An RGB uint8 image as JPEG. Raises `UserError` where OpenCV has none."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not done:
        raise UserError("a picture cannot be encoded as JPEG: this build of OpenCV has no JPEG")
    return data.tobytes()
