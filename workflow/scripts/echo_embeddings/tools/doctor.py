"""Is everything there that a run needs, and what will the run cost?

Each check says what it found, green, amber or red, and what to do about it. None changes anything.
"""

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..collection.source import Collection
from ..core import configuration, settings
from ..core.errors import UserError
from ..core.files import free_bytes
from ..core.layout import DICOM, Layout
from ..core.names import one_line
from ..core.registry import DIRECT, origin, place
from ..encoders import checkpoint, contract, kinds
from . import collection_checks, estimate, machine
from .collection_checks import Sample
from .machine import AMBER, GREEN, RED, Finding


@dataclass(frozen=True)
class Cost:
    """What one stage of a full run costs here, about."""

    stage: str
    hours: float | None  # None where that is not known
    gigabytes: float


# --- the models -------------------------------------------------------------------------------------


def weights(config: Mapping[str, Any], registry: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether each model's checkpoint is there and fits, and what is to be known of it."""
    for name in dict.fromkeys(name.removesuffix(DIRECT) for name in config["models"]):  # twins share theirs
        entry = registry[name]
        path = place(config, entry)
        if kinds.absent(path):
            if entry["url"]:
                fix = f"nothing: a run fetches {entry['url']}; or set weights_dir or checkpoints to where it lies"
                yield Finding(AMBER, "weights", f"{name}: no {path}", fix)
            else:
                fix = f"get it ({origin(entry)}), or set weights_dir or checkpoints"
                yield Finding(RED, "weights", f"{name}: no {path}", fix)
            continue
        told: list[str] = []
        try:
            model = settings.model(config, registry, name)
            checkpoint.load(path, model, tell=told.append)
        except UserError as error:
            yield Finding(RED, "weights", str(error), "take the file that the registry names")
            continue
        if entry["sha256"]:
            try:
                digest = checkpoint.look_up_sha256(path, Layout().checkpoint_digests())
                told += filter(None, [checkpoint.unlike_registry(path, digest, entry["sha256"])])
            except OSError as error:
                told.append(f"{path}: its SHA-256 cannot be compared with the registry's: {one_line(error)}")
        for line in told:
            yield Finding(AMBER, "weights", line, "nothing, if it is the file you mean")
        network = model.constructor or contract.FAMILIES[model.family].title
        yield Finding(GREEN, "weights", f"{name}: {path} fits {network}")


# --- what it will cost ------------------------------------------------------------------------------


def costs(config: Mapping[str, Any], registry: Mapping[str, Any], found: Sample, folders: int) -> list[Cost]:
    """Hours and gigabytes of each stage for the whole collection, on the cores and cards of this machine."""
    clips, cores = found.all_clips, os.cpu_count() or 1
    if config["limit"]:
        clips = min(clips, config["limit"] * folders)
    device = config["embed"]["device"]
    machines = max(1, torch.cuda.device_count()) if device == "cuda" else 1

    def hours(seconds: float) -> float:
        """Of a stage's work, and the start of each of its jobs."""
        return (seconds + folders * estimate.START_SECONDS) / 3600

    made = []
    models = [settings.model(config, registry, name) for name in config["models"]]
    fed_with = set() if config["mp4_dir"] else {model.clips for model in models}
    if DICOM in fed_with:
        made.append(Cost("read headers", hours(estimate.headers_seconds(found.files, cores)), 0))
    for edge in sorted({model.resolution for model in models if model.clips in fed_with - {DICOM}}):
        hundreds = round(clips * found.frames / 100)
        seconds = estimate.convert_seconds(hundreds, cores)
        made.append(
            Cost(f"convert {edge}", hours(seconds), estimate.mp4_bytes(round(clips * found.frames), edge) / 1e9)
        )
    for model in models:
        size = contract.size(model)
        took = estimate.embed_seconds(clips, model, size, device=device, threads=cores) if size else None
        vectors = estimate.vector_bytes(clips, model.embed_dim)
        features = estimate.feature_bytes(clips, model, config["embed"]["pool"])
        each = None if took is None else hours(took) / machines
        made.append(Cost(f"embed {model.name}", each, (vectors + features) / 1e9))
    return made


def disk(made: Sequence[Cost], directory: str) -> Finding:
    """Disk needed against disk free below the working directory."""
    needed = 1e9 * sum(cost.gigabytes for cost in made)
    results = Path(directory).absolute() / Layout().root
    free = free_bytes(results, directory)
    words = map(estimate.bytes_in_words, (needed, free))
    says = "a full run takes about {}, {} are free for {}".format(*words, results)
    if needed > free:
        return Finding(RED, "disk", says, "run elsewhere: snakemake --directory DIR")
    return Finding(AMBER if 2 * needed > free else GREEN, "disk", says)


# --- all of it --------------------------------------------------------------------------------------


def examine(config: dict[str, Any], profile: Path | None = None) -> Iterator[Finding | Cost]:
    """Every check in turn, from the working directory; a check that cannot be made says why.

    `profile` is the file of the one that snakemake will be given.
    """
    yield from machine.software()
    yield from machine.cluster(profile)
    yield machine.credentials()
    results = Path.cwd() / Layout().root
    yield machine.locks(results if results.is_dir() else Path.cwd())
    try:
        registry = configuration.check(config)
    except UserError as error:
        for line in str(error).splitlines():
            yield Finding(RED, "configuration", line, "config/README.md explains every key")
        return
    yield Finding(GREEN, "configuration", f"models {', '.join(config['models'])}")
    yield machine.encoder_of_video(config)
    yield from machine.cards(config, registry)
    yield from weights(config, registry)
    collection = Collection.of(config)
    try:
        units = collection.units()
        found = collection_checks.sample(config, collection.kind, list(units.values()))
    except UserError as error:
        yield Finding(RED, collection.kind.name, str(error))  # which says what to do
        return
    yield from collection_checks.examine(config, collection, units, found)
    made = costs(config, registry, found, len(units))
    yield disk(made, ".")
    yield from made


def _hours(cost: Cost) -> str:
    return "unknown" if cost.hours is None else f"{cost.hours:,.1f}"


_COLOURS = {GREEN: "\x1b[32m", AMBER: "\x1b[33m", RED: "\x1b[31m"}


def page(found: Sequence[Finding | Cost], colour: bool) -> str:
    """What was found, as text for a terminal."""
    findings = [one for one in found if isinstance(one, Finding)]
    lines = []
    for what, group in itertools.groupby(findings, key=lambda finding: finding.what):
        for i, finding in enumerate(group):
            level = f"{_COLOURS[finding.level]}{finding.level:5}\x1b[0m" if colour else f"{finding.level:5}"
            lines.append(f"{level}  {'' if i else what:13}  {finding.says}")
            if finding.fix and finding.level != GREEN:
                lines.append(f"{'':5}  {'':13}  -> {finding.fix}")
    costs = [one for one in found if isinstance(one, Cost)]
    if costs:
        wide = max(20, *(len(cost.stage) for cost in costs))
        lines += ["", f"{'A full run, about':{wide + 2}}     hours       GB"]
        lines += [f"  {cost.stage:{wide}}  {_hours(cost):>8} {cost.gigabytes:8,.1f}" for cost in costs]
    reds = sum(finding.level == RED for finding in findings)
    lines += ["", f"{reds} problem{'s' * (reds > 1)}" if reds else "ready to run"]
    return "\n".join(lines)
