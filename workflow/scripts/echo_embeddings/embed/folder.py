"""A folder's MP4 tree and an encoder to embeddings: for each clip one vector, or one row that says why there is none.

Work in progress is kept in shards that no rule declares: a job that is killed and started again computes
only what is missing, and a vector is used again only if everything that makes it is the same.
"""

import dataclasses
import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

import torch
from torch import Tensor

from ..collection.units import Unit
from ..convert import video
from ..core import corrections, fingerprint, manifest
from ..core.errors import UserError
from ..core.files import atomic_write
from ..core.layout import Layout
from ..core.manifest import Row
from ..core.progress import Progress
from ..core.recipe import NOMINAL_FPS, Recipe, echojepa_stride
from ..core.settings import Model, Tables, convert_rule
from ..core.vectors import write_vectors
from ..core.workers import Failure
from ..encoders import contract
from ..encoders.checkpoint import load as load_encoder
from ..encoders.checkpoint import sha256 as checkpoint_digest
from . import devices, inference, loader, run_record, sampling
from .direct import DicomReader
from .features import Features, update_indices
from .inference import Extractor
from .pooling import POOLS, Pooled
from .reader import Reader
from .saving import Unsaved, largest_batch
from .shards import Shards, carry

# Floating-point operations of a job from which on compiling the encoder pays: it takes 15 to 20 s and saves a fifth of
# the time, and an H200 computes these in 80 s (docs/benchmarks.md). They are 18,000 clips of ViT-L.
COMPILE_FROM = 3e16


@dataclass(frozen=True)
class ComputeOptions:
    """How vectors are computed, which is not part of their fingerprint.

    Another device, batch size or compilation sums in another order and so changes the last bits of a vector. Vectors
    that were computed with other options are used again all the same.
    """

    device: str  # "cuda" (a GPU that no other job has) or "cpu"
    batch_size: int  # clips
    num_workers: int  # processes that decode; 0 decodes in this one
    threads: int  # of torch on a CPU
    save_every: int  # vectors that a kill loses, at most
    timeout: float = 300.0  # seconds in which a process has read a clip, or is killed
    compile: bool | Literal["auto"] = "auto"  # the encoder; auto: on a GPU, where there is enough to compute


def embed_folder(
    unit: Unit,
    model: Model,
    checkpoint: Path,
    tree: Path,
    layout: Layout,
    options: ComputeOptions,
    *,
    max_failed_fraction: float,
    pooling: str = "mean",
    tables: Tables | None = None,
    collection: Callable[[], Mapping[str, Unit]] | None = None,
    terminal: TextIO | None = None,
) -> None:
    """Embed every clip that the manifest has, that `tables` selects, and that has no vector yet.

    `tree` holds the clips of `unit`, MP4 or DICOM files; the manifest and all results lie where `layout` says.
    `pooling`, one of `pooling.POOLS`, says which features of a clip are kept besides its vector. `collection` finds all
    folders of the run: a table may have nothing for this one, and not for all of them. A kill loses at most
    `options.save_every` vectors, SIGTERM those that are being computed. Raises `UserError` if another run is at work
    on the folder, there is no such device, the checkpoint does not fit, a table that selects has a row for no file of
    the collection, or more than `max_failed_fraction` of the clips have no vector.
    """
    started = time.monotonic()
    torch.set_num_threads(options.threads)
    folder = unit.name
    state = layout.state("embed", model.name, folder)
    with unit.locked(layout.state("embed", model.name)):
        # Load: which clips there are, and what is computed already.
        table = layout.manifest(model.clips, folder)
        converted = [row for row in manifest.read(table) if row.is_clip]
        # By bucket, so that what is saved at a time lies in few of them.
        rows = sorted(_selected(folder, table, converted, tables, collection), key=lambda row: unit.bucket(row.mp4))
        digest = checkpoint_digest(checkpoint, layout.checkpoint_digests())
        made_by = f"{model.fingerprint()} {digest}"
        identities = {row.mp4: corrected(tree, row, model) for row in rows}
        shards = _shards(layout, model, unit, tree, rows, identities, digest)
        features = Features(layout.feature_files(pooling, model.name), unit, made_by) if pooling != "mean" else None
        done = set(shards.vectors(identities))
        if features:
            done &= features.have(identities)
        todo = [row for row in rows if row.mp4 not in done]
        print(f"{folder}: {len(rows)} clips, {len(todo)} to do", flush=True)

        # Loop: batch by batch, what is missing.
        failed: dict[str, str] = {}
        speed: dict[str, object] = {}
        if todo:
            device = devices.choose(options.device)
            with (
                Unsaved(shards, features, identities, options.save_every) as unsaved,
                Progress(folder, len(todo), "clips", terminal, state=state, before=len(done)) as progress,
            ):
                failed, speed = _embed(todo, model, checkpoint, tree, device, options, pooling, unsaved, progress)

        # Save: the failures, the record, the indices of features, and the vectors last.
        vectors = {key: vector for key, vector in shards.vectors(identities).items() if key not in failed}
        if len(vectors) + len(failed) != len(rows):
            raise RuntimeError(f"{folder}: {len(rows)} clips became {len(vectors)} vectors and {len(failed)} failures")
        shards.compact()
        failed_clips = layout.failed_clips(model.name, folder)
        _write_failed(failed_clips, failed)
        _check_failed(folder, failed_clips, failed, len(rows), max_failed_fraction, convert_rule(model.mp4_mask))
        counts = {
            "converted": len(converted),
            "left_out": len(converted) - len(rows),
            "embedded": len(vectors),
            "reused": len(rows) - len(todo),
            "failed": len(failed),
            "short": sum(_is_short(row, model) for row in rows),
        }
        seconds = time.monotonic() - started
        identities = {key: identities[key] for key in vectors}
        kept = {"pool": pooling, **features.summary(identities)} if features else None
        record = layout.run_record(model.name, folder)
        embedded = [row for row in rows if row.mp4 in vectors]
        run_record.write(record, model, checkpoint, digest, embedded, counts, seconds, speed, kept)
        update_indices(layout, model.name, unit, made_by, identities, features)
        keys = sorted(vectors)
        matrix = torch.stack([vectors[key] for key in keys]) if keys else torch.empty(0, 0)
        write_vectors(layout.vectors(model.name, folder), keys, matrix)
        print(f"{folder}: {len(vectors)} vectors, {len(failed)} failed, in {seconds:.0f} s", flush=True)


def _shards(
    layout: Layout, model: Model, unit: Unit, tree: Path, rows: Sequence[Row], ids: Mapping[str, str], digest: str
) -> Shards:
    """What has been computed of the unit, by version 0.1.0 too, and where each folder was a unit."""
    state, made_by = layout.state("embed", model.name), f"{model.fingerprint()} {digest}"
    earlier = [f"{one} {digest}" for one in fingerprint.model_0_1_0(model)]
    tops = [state, *(layout.feature_files(pool, model.name) for pool in POOLS if pool != "mean")]

    def read() -> Shards:
        for directory in (top / bucket for top in tops for bucket in unit.buckets):
            fingerprint.adopt(directory, made_by, earlier)
        return Shards(state, unit, made_by)

    shards = read()
    done = shards.vectors(ids)
    missing = [row for row in rows if row.mp4 not in done]
    return read() if _carry(state, unit, tree, missing, model.recipe, [made_by, *earlier]) else shards


def _carry(state: Path, unit: Unit, tree: Path, rows: Iterable[Row], recipe: Recipe, made_by: Iterable[str]) -> int:
    """Take over the vectors of clips that were computed where each folder was a unit; returns how many."""
    under: dict[str, dict[tuple[str, str], tuple[Path, str, str]]] = {}
    for row in rows:
        if known := unit.in_folder(row.mp4):
            folder, key = known
            there = dataclasses.replace(row, path=(unit.in_folder(row.path) or known)[1], mp4=key)
            old = tree / row.file.removesuffix(there.file)
            was, is_now = identity(old, there, recipe), identity(tree, row, recipe)
            under.setdefault(folder, {})[key, was] = (state / unit.bucket(row.mp4), row.mp4, is_now)
    return sum(
        carry(path, clips)
        for folder, clips in under.items()
        for prefix in map(fingerprint.prefix, made_by)
        for path in sorted((state / folder).glob(f"{prefix}-*.pt"))
    )


def _selected(
    folder: str,
    table: Path,
    converted: list[Row],
    tables: Tables | None,
    collection: Callable[[], Mapping[str, Unit]] | None,
) -> list[Row]:
    """The clips that the configuration selects; `table` is their manifest."""
    if tables is None or not tables.select:
        return converted
    # pandas takes half a second to import, and most runs select nothing.
    from ..tables.join import check_joins, depends_on_others, wanted_keys  # noqa: PLC0415

    keys, joins = wanted_keys({folder: table}, tables)
    # Only then: it takes a look into every directory.
    if collection and (any(join.error for join in joins) or depends_on_others(tables)):
        check_joins(collection(), tables)
    rows = [row for row in converted if row.mp4 in keys[folder]]
    print(f"{folder}: {len(rows)} of {len(converted)} clips are selected: {tables.select}", flush=True)
    return rows


def _embed(
    rows: Sequence[Row],
    model: Model,
    checkpoint: Path,
    tree: Path,
    device: torch.device,
    options: ComputeOptions,
    pooling: str,
    unsaved: Unsaved,
    progress: Progress,
) -> tuple[dict[str, str], dict[str, object]]:
    """Compute the clips of `rows` into `unsaved`.

    Returns why clips have no vector, by key, and what `run_record.SPEED` names.
    """
    failed: dict[str, str] = {}
    reader = reader_of(model, tree)
    with loader.load(reader, rows, options.num_workers, options.timeout, device.type == "cuda") as clips:
        extractor = _extractor(model, checkpoint, device, options, pooling, len(rows))  # while the workers start
        started = time.monotonic()
        for indices, pooled in extractor.run(_readable(clips, rows, failed, progress)):
            keys = [rows[i].mp4 for i in indices]
            not_finite = _not_finite(keys, pooled)
            failed |= not_finite
            vectors = dict(zip(keys, pooled.vectors, strict=True))
            features = dict(zip(keys, pooled.features, strict=True)) if pooled.features is not None else {}
            for key in not_finite:
                del vectors[key]
                features.pop(key, None)
            unsaved.add(vectors, features, extractor.in_flight)
            progress.step(len(keys), failed=len(not_finite))
    measured = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        extractor.batch_size,
        extractor.compiled,
        round((len(rows) - len(failed)) / (time.monotonic() - started), 2),
        round(extractor.waited, 1),
    )
    return failed, dict(zip(run_record.SPEED, measured, strict=True))


def reader_of(model: Model, tree: Path) -> Reader:
    """What reads the clips below `tree` for the model."""
    made = DicomReader if model.recipe.source == "dicom" else Reader
    return made(tree, model.num_frames, model.recipe, model.resolution)


def _extractor(
    model: Model, checkpoint: Path, device: torch.device, options: ComputeOptions, pooling: str, clips: int
) -> Extractor:
    """The encoder on its device, ready to run on that many clips."""
    encoder = load_encoder(checkpoint, model)
    most = largest_batch(options.save_every, inference.ahead(device))
    if most < options.batch_size:
        print(f"batches of at most {most} clips, so that embed.save_every is kept", flush=True)
    return Extractor(
        encoder.to(device, inference.DTYPES[model.precision]),
        device,
        model.precision,
        model.resolution,
        min(options.batch_size, most),
        compiled=_pays(model, device, clips) if options.compile == "auto" else options.compile,
        recipe=model.recipe,
        pooling=pooling,
        tokens=contract.FAMILIES[model.family].tokens,
    )


def _pays(model: Model, device: torch.device, clips: int) -> bool:
    """Whether compiling the encoder saves more time than it takes; on a CPU it does not (docs/benchmarks.md)."""
    size = contract.size(model)
    flop = size.flop if size else 0  # what it costs is not known: it runs as it is
    return device.type == "cuda" and clips * model.recipe.clips_per_video * flop > COMPILE_FROM


def _readable(
    clips: Iterable[tuple[int, Tensor | Failure]], rows: Sequence[Row], failed: dict[str, str], progress: Progress
) -> Iterator[tuple[int, Tensor]]:
    """The clips that can be read; why the others cannot goes to `failed`."""
    for i, frames in clips:
        if isinstance(frames, Failure):
            failed[rows[i].mp4] = frames
            progress.step(failed=1)
        else:
            yield i, frames


def _not_finite(keys: Sequence[str], pooled: Pooled) -> dict[str, str]:
    """Why clips of a batch, which has these keys, have no vector after all."""
    found = {}
    if pooled.finite is not None:
        beyond = "a token is beyond float16; embed.pool: time or mean can hold it"
        found = {key: beyond for key, finite in zip(keys, pooled.finite.tolist(), strict=True) if not finite}
    finite_vectors = pooled.vectors.isfinite().all(dim=1).tolist()
    return found | {
        key: "the encoder gave NaN or Inf" for key, finite in zip(keys, finite_vectors, strict=True) if not finite
    }


def _is_short(row: Row, model: Model) -> bool:
    """Whether the clip ends before the recipe's window does, so that it is padded or frames are repeated."""
    frames = (row.frames or 0) // model.recipe.clips_per_video
    return frames < sampling.window(model.recipe, model.num_frames, sampling.rate_of(row, model.recipe))


def identity(tree: Path, row: Row, recipe: Recipe) -> str:
    """A digest of what the vector of a clip depends on besides model and settings: its file, and what that was made of.

    Of the manifest's row it covers what `recipe` uses.
    """
    try:
        status = (tree / row.file).stat()
        return identity_of(status.st_size, status.st_mtime_ns, row, recipe)
    except OSError:  # the reader says why when it comes to it
        return identity_of(-1, -1, row, recipe)


def identity_of(size: int | None, mtime_ns: int | None, row: Row, recipe: Recipe) -> str:
    """The same of a file that has this size, bytes, and modification time, ns since the epoch."""
    facts: list[object] = [size, mtime_ns, row.path, row.mp4, row.frames, row.bytes, row.mtime_ns, row.mp4_bytes]
    if recipe.sampling == "rate":
        facts.append(f"{row.fps:.6g}" if row.fps else None)  # as manifests have it
    if recipe.sampling == "echojepa" and row.is_video:
        stride = echojepa_stride(row.fps or NOMINAL_FPS)
        facts += [stride] if stride != echojepa_stride(NOMINAL_FPS) else []  # vectors of earlier versions have none
    if recipe.mask == "sector" or recipe.aspect == "letterboxed":
        facts += [row.rows, row.columns, row.tissue_box]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def corrected(tree: Path, row: Row, model: Model) -> str:
    """What the vector of a clip is kept under: its identity, and the corrections that apply to it."""
    return identity(tree, row, model.recipe) + corrections.term(corrections.EMBED, row, model)


def _write_failed(path: Path, failed: dict[str, str]) -> None:
    with atomic_write(path) as part:
        lines = [f"{key}\t{reason}" for key, reason in sorted(failed.items())]
        part.write_text("\n".join(["key\treason", *lines, ""]), encoding="utf-8")


def _check_failed(
    folder: str, table: Path, failed: dict[str, str], clips: int, max_failed_fraction: float, rule: str
) -> None:
    """Raise `UserError` if too many of the folder's `clips` clips have no vector; `table` has the reasons.

    `rule` makes MP4 files.
    """
    if clips and len(failed) / clips > max_failed_fraction:
        hint = f"; MP4 files are gone: --forcerun {rule} makes them again" if video.GONE in failed.values() else ""
        if video.DAMAGED in failed.values():
            hint += "; MP4 files are damaged: `echo-embeddings scrub` says which, and what to do"
        raise UserError(
            f"{folder}: {len(failed)} of {clips} clips have no vector, more than embed.max_failed_fraction "
            f"({max_failed_fraction:g}) allows; the reasons are in {table}{hint}; "
            "repair those files or raise it"
        )
