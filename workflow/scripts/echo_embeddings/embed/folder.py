"""An MP4 tree and an encoder to embeddings: one vector a clip, or one row that says why not.

Work in progress is kept in shards that no rule declares: a job that is killed and started again computes
only what is missing, and a vector is used again only if everything that makes it is the same.
"""

import hashlib
import json
import math
import platform
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import torch
from torch import Tensor

from ..convert import video
from ..core import corrections, fingerprint, manifest
from ..core.errors import UserError
from ..core.files import atomic_write
from ..core.locks import exclusive_lock
from ..core.manifest import CONVERTED, Row
from ..core.progress import Progress
from ..core.recipe import Recipe
from ..core.settings import Model, Tables
from ..core.vectors import write_vectors
from ..encoders import checkpoint
from . import devices, inference, loader, run_record, sampling
from .features import Features
from .inference import Extractor
from .limits import SAVE_SECONDS, SHARD_BYTES
from .loader import Chunk
from .pooling import POOLS
from .shards import Shards


@dataclass(frozen=True)
class EmbedPaths:
    """Where one folder's extraction reads and writes."""

    tree: Path  # of MP4 files
    table: Path  # their manifest
    checkpoint: Path
    state: Path  # what the job remembers; no rule declares it
    digests: Path  # digests of checkpoints, shared by all jobs
    vectors: Path  # the embedding file; `run` and `failed` lie beside it
    features: Path = Path("results/features")  # of all pools and models

    @property
    def run(self) -> Path:
        """The record of how the vectors were made."""
        return self.vectors.with_suffix(".json")

    def index(self, pool: str, model: str, folder: str) -> Path:
        """The index of a folder's features, which lie in the directory of its name beside it."""
        return self.features / pool / model / f"{folder}.index.tsv"

    @property
    def failed(self) -> Path:
        """The table of clips without a vector; no rule declares it, so it outlives the failure it explains."""
        return self.vectors.with_suffix(".failed.tsv")


@dataclass(frozen=True)
class Means:
    """With what vectors are computed. None of it changes them."""

    device: str  # "cuda" (a card that no other job holds) or "cpu"
    batch_size: int  # clips; where `auto`, the largest batch that is tried
    auto: bool
    num_workers: int  # processes that decode; 0 decodes in this one
    threads: int  # of torch on a CPU
    save_every: int  # vectors that a kill loses, at most


def embed_folder(
    name: str,
    places: EmbedPaths,
    model: Model,
    means: Means,
    *,
    max_failed_fraction: float,
    keep: str = "mean",
    tables: Tables | None = None,
    terminal: TextIO | None = None,
) -> None:
    """Embed every clip that the manifest has as converted, `tables` selects, and that has no vector yet.

    `keep`, one of `pooling.POOLS`, says which features of a clip are kept besides its vector.
    A kill loses at most `means.save_every` vectors, SIGTERM those being computed. Raises `UserError` if
    another run has the folder, there is no such device, the checkpoint does not fit, or more than
    `max_failed_fraction` of the clips have no vector.
    """
    started = time.monotonic()
    torch.set_num_threads(means.threads)
    with exclusive_lock(places.state, name):
        converted = [row for row in manifest.read(places.table) if row.status == CONVERTED]
        rows = _selected(name, places.table, converted, tables)
        digest = checkpoint.sha256(places.checkpoint, places.digests)
        made_by = f"{model.fingerprint()} {digest}"
        indices = {other: places.index(other, model.name, name) for other in POOLS if other != "mean"}
        for directory in (places.state, *(path.parent / name for path in indices.values())):
            fingerprint.adopt(directory, made_by, [f"{old} {digest}" for old in fingerprint.model_0_1_0(model)])
        shards = Shards(places.state, made_by)
        index = indices.pop(keep, None)
        features = Features(index.parent / name, made_by) if index else None
        identities = {row.mp4: identity(places.tree, row, model.recipe) for row in rows}
        have = shards.vectors(identities)
        done = have.keys() & features.have(identities) if features else have.keys()
        todo = [row for row in rows if row.mp4 not in done]
        print(f"{name}: {len(rows)} clips, {len(todo)} to do", flush=True)
        failed: dict[str, str] = {}
        speed: dict[str, object] = {}
        if todo:
            card = _card(means.device)
            with (
                _Fresh(shards, features, identities, means.save_every) as fresh,
                Progress(name, len(todo), "clips", terminal, state=places.state, before=len(done)) as progress,
            ):
                failed, speed = _extract(places, model, means, keep, card, todo, fresh, progress)
            have = {key: vector for key, vector in shards.vectors(identities).items() if key not in failed}
        if len(have) + len(failed) != len(rows):
            raise RuntimeError(f"{name}: {len(rows)} clips became {len(have)} vectors and {len(failed)} failures")
        shards.compact()
        _write_failed(places.failed, failed)
        _judge(name, places, len(rows), failed, max_failed_fraction)
        counts = {
            "converted": len(converted),
            "left_out": len(converted) - len(rows),
            "embedded": len(have),
            "reused": len(rows) - len(todo),
            "failed": len(failed),
            "short": sum(_is_short(row, model) for row in rows),
        }
        seconds = time.monotonic() - started
        kept = {"pool": keep, **features.says(identities)} if features else None
        run_record.write(places.run, model, places.checkpoint, digest, counts, seconds, speed, kept)
        identities = {key: identities[key] for key in have}
        if features and index:
            features.write_index(index, identities)
        for other in filter(Path.exists, indices.values()):
            _renew(other, Features(other.parent / name, made_by), identities)
        keys = sorted(have)
        write_vectors(places.vectors, keys, torch.stack([have[k] for k in keys]) if keys else torch.empty(0, 0))
        print(f"{name}: {len(have)} vectors, {len(failed)} failed, in {seconds:.0f} s", flush=True)


def _renew(index: Path, features: Features, identities: Mapping[str, str]) -> None:
    """See to it that an index that another `embed.pool` made speaks of the vectors that are there now, or is gone."""
    if features.have(identities) == identities.keys():
        features.write_index(index, identities)
    else:
        index.unlink()


def _selected(name: str, table: Path, converted: list[Row], tables: Tables | None) -> list[Row]:
    """The clips that the configuration selects; `table` is their manifest."""
    if tables is None or not tables.select:
        return converted
    # pandas is slow to import, and the processes that decode import this file.
    from ..tables.join import wanted_keys  # noqa: PLC0415

    keys = wanted_keys({name: table}, tables)[name]
    rows = [row for row in converted if row.mp4 in keys]
    print(f"{name}: {len(rows)} of {len(converted)} clips are selected: {tables.select}", flush=True)
    return rows


def _extract(
    places: EmbedPaths,
    model: Model,
    means: Means,
    keep: str,
    card: torch.device,
    rows: Sequence[Row],
    fresh: "_Fresh",
    progress: Progress,
) -> tuple[dict[str, str], dict[str, object]]:
    """Compute `rows` into `fresh`; returns why clips have no vector, by key, and what `run_record.SPEED` names."""
    failed: dict[str, str] = {}
    pin_memory = card.type == "cuda"
    chunks = iter(loader.load(places.tree, rows, model.num_frames, model.recipe, means.num_workers, pin_memory))
    extractor = _extractor(places, model, means, keep, card)  # while the workers start
    started = time.monotonic()
    for indices, made in extractor.run(_readable(chunks, rows, failed, progress), len(rows)):
        keys = [rows[i].mp4 for i in indices]
        vectors = dict(zip(keys, made.vectors, strict=True))
        features = dict(zip(keys, made.features, strict=True)) if made.features is not None else {}
        unsound = {}
        if made.sound is not None:
            beyond = "a token is beyond float16; embed.pool: time or mean can hold it"
            unsound = {key: beyond for key, sound in zip(keys, made.sound.tolist(), strict=True) if not sound}
        unsound |= {key: "the encoder gave NaN or Inf" for key in keys if not vectors[key].isfinite().all()}
        for key in unsound:
            del vectors[key]
            features.pop(key, None)
        failed |= unsound
        fresh.add(vectors, features, extractor.in_flight)
        progress.step(len(keys), failed=len(unsound))
    measured = (
        torch.cuda.get_device_name(card) if card.type == "cuda" else platform.processor() or "cpu",
        extractor.batch_size,
        extractor.compiled,
        round((len(rows) - len(failed)) / (time.monotonic() - started), 2),
        round(extractor.waited, 1),
    )
    return failed, dict(zip(run_record.SPEED, measured, strict=True))


def _extractor(places: EmbedPaths, model: Model, means: Means, keep: str, card: torch.device) -> Extractor:
    """The encoder on its device, ready to run."""
    encoder = checkpoint.load(
        places.checkpoint, model.name, model.constructor, model.embed_dim, model.entry, model.family
    )
    most = max(1, means.save_every // (1 + inference.ahead(card)))  # what is under way is at risk too
    if most < means.batch_size:
        print(f"batches of at most {most} clips, so that embed.save_every is kept", flush=True)
    return Extractor(
        encoder.to(card, inference.DTYPES[model.precision]),
        card,
        model.precision,
        model.resolution,
        min(means.batch_size, most),
        auto=means.auto,
        # On a CPU compiling does not pay (docs/benchmarks.md).
        compile_from=inference.COMPILE_FROM if card.type == "cuda" else math.inf,
        recipe=model.recipe,
        keep=keep,
    )


def _card(device: str) -> torch.device:
    """The CPU, or a GPU that no other job has, until this process ends."""
    if device == "cpu":
        return torch.device("cpu")
    card = torch.device("cuda", devices.take(devices.visible()))
    torch.cuda.set_device(card)
    return card


def _readable(
    chunks: Iterable[Chunk], rows: Sequence[Row], failed: dict[str, str], progress: Progress
) -> Iterator[Chunk]:
    """The chunks; clips that cannot be read go to `failed`."""
    for chunk in chunks:
        failed |= {rows[i].mp4: reason for i, reason in chunk.failed.items()}
        progress.step(len(chunk.failed), failed=len(chunk.failed))
        yield chunk


class TerminatedError(SystemExit):
    """SIGTERM came; the process ends as a shell says of one that SIGTERM ended: with 143."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


class _Fresh:
    """What is not saved yet; a context manager that saves it however its block ends, SIGTERM included."""

    def __init__(self, shards: Shards, features: Features | None, identities: dict[str, str], save_every: int) -> None:
        self._shards, self._kept, self._identities, self._save_every = shards, features, identities, save_every
        self._vectors: dict[str, Tensor] = {}
        self._features: dict[str, Tensor] = {}
        self._saved = time.monotonic()
        self._terminated = False

    def add(self, vectors: dict[str, Tensor], features: dict[str, Tensor], in_flight: int) -> None:
        """Take vectors, float32 [embed_dim], and features by key; `in_flight` more clips would be lost with them."""
        self._vectors |= vectors
        self._features |= features
        if (
            len(self._vectors) + in_flight > self._save_every
            or time.monotonic() - self._saved > SAVE_SECONDS
            or sum(tensor.nbytes for tensor in self._features.values()) > SHARD_BYTES
        ):
            self._save()
        if self._terminated:  # an exception raised by a signal can be lost in a destructor
            raise TerminatedError

    def _save(self) -> None:
        # Vectors first: a disk that features fill has room for them.
        self._shards.add(self._vectors, self._identities)
        if self._kept:
            self._kept.add(self._features, self._identities)
        self._vectors, self._features = {}, {}
        self._saved = time.monotonic()

    def _terminate(self, *_: object) -> None:
        if not self._terminated:  # SLURM says it several times
            self._terminated = True
            # Workers get the signal too, and the loader would raise for each of them, in the midst of saving.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            raise TerminatedError

    def __enter__(self) -> "_Fresh":
        self._before = signal.signal(signal.SIGTERM, self._terminate)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._terminated = True  # from here on SIGTERM waits for the saving
        loader_handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if kind is not None:
            print(f"stopped: {kind.__name__ if isinstance(kind, type) else kind}; saving what is done", flush=True)
        self._save()
        signal.signal(signal.SIGCHLD, loader_handler)
        signal.signal(signal.SIGTERM, self._before)


def _is_short(row: Row, model: Model) -> bool:
    """Whether the clip ends before the recipe's window does, so that it is padded or frames are repeated."""
    frames = (row.frames or 0) // model.recipe.clips_per_video
    return frames < sampling.window(model.recipe, model.num_frames, row.fps)


def identity(tree: Path, row: Row, recipe: Recipe) -> str:
    """What the vector of a clip depends on besides model and settings: the MP4, and what it was made of.

    Of the manifest's row that is what `recipe` asks of it. The corrections that apply to it stand behind.
    """
    try:
        status = (tree / row.mp4).stat()
        mp4 = (status.st_size, status.st_mtime_ns)
    except OSError:  # the reader says why when it comes to it
        mp4 = (-1, -1)
    facts: list[object] = [*mp4, row.path, row.mp4, row.frames, row.bytes, row.mtime_ns, row.mp4_bytes]
    if recipe.sampling == "rate":
        facts.append(f"{row.fps:.6g}" if row.fps else None)  # as manifests have it
    if recipe.mask == "sector" or recipe.aspect == "letterboxed":
        facts += [row.rows, row.columns, row.tissue_box]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
    return digest + corrections.term(corrections.EMBED, row, recipe)


def _write_failed(path: Path, failed: dict[str, str]) -> None:
    with atomic_write(path) as part:
        lines = [f"{key}\t{reason}" for key, reason in sorted(failed.items())]
        part.write_text("\n".join(["key\treason", *lines, ""]), encoding="utf-8")


def _judge(name: str, places: EmbedPaths, clips: int, failed: dict[str, str], max_failed_fraction: float) -> None:
    if clips and len(failed) / clips > max_failed_fraction:
        gone = "; MP4 files are gone: --forcerun convert makes them again" if video.GONE in failed.values() else ""
        raise UserError(
            f"{name}: {len(failed)} of {clips} clips have no vector, more than embed.max_failed_fraction "
            f"({max_failed_fraction:g}) allows; the reasons stand in {places.failed}{gone}; "
            "mend those files or raise it"
        )
