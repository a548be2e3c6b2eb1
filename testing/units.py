"""Small collections, and what the jobs of all their units do with them."""

import dataclasses
import json
import shutil
from pathlib import Path

import torch
from pydicom.uid import ExplicitVRLittleEndian

from echo_embeddings.collection.kinds import VIDEO
from echo_embeddings.collection.source import Collection
from echo_embeddings.collection.units import Unit
from echo_embeddings.convert.folder import convert_folder
from echo_embeddings.convert.headers import read_folder
from echo_embeddings.convert.probe import probe_folder
from echo_embeddings.core import configuration, settings
from echo_embeddings.core.layout import DICOM, Layout
from echo_embeddings.core.settings import Model
from echo_embeddings.embed.folder import ComputeOptions, embed_folder

from .dicoms import cine, drawn, save

SIZE = 32
KINDS = 7  # different clips, one after the other
MODEL = Model("tiny", "vit_tiny", SIZE, 192, "encoder", 16, "fp32")
DIRECT = dataclasses.replace(MODEL, recipe=dataclasses.replace(MODEL.recipe, source="dicom"))


def write_clips(top: Path, names: list[str]) -> None:
    """A clip of 2 frames at each of the paths below `top`: of a few kinds, so that vectors differ."""
    made: dict[int, Path] = {}
    for i, name in enumerate(names):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        seed = i % KINDS
        if seed in made:
            shutil.copyfile(made[seed], path)
        else:
            made[seed] = save(path, cine(drawn(2, 24, 24, seed=seed), "MONOCHROME2"), ExplicitVRLittleEndian)


def collection_of(**keys: object) -> Collection:
    """That of the default configuration with these keys."""
    config = configuration.defaults() | keys
    configuration.check(config)
    return Collection.of(config)


def run(
    collection: Collection, weights: Path, layout: Layout, limit: int = 0, model: Model = MODEL, **changes: object
) -> tuple[int, int]:
    """Convert and embed every unit in this process; returns how many clips were converted, and embedded, anew.

    `changes` are those of the compute options.
    """
    before, computed = mp4s(layout), 0
    for unit in collection.units().values():
        if model.clips == DICOM:
            read_headers(unit, layout, limit)
        else:
            convert(collection, unit, layout, limit)
        usual = ComputeOptions("cpu", batch_size=16, num_workers=0, threads=1, save_every=100)
        compute = dataclasses.replace(usual, **changes)
        tree = collection.tree(unit, layout, model.clips)
        embed_folder(unit, model, weights, tree, layout, compute, max_failed_fraction=1.0)
        counts = json.loads(layout.run_record("tiny", unit.name).read_text())["counts"]
        computed += counts["embedded"] - counts["reused"]
    return len(set(mp4s(layout).values()) - set(before.values())), computed


def convert(collection: Collection, unit: Unit, layout: Layout, limit: int = 0, fps: float = 30) -> None:
    """Convert a unit, or look through its videos."""
    made = dataclasses.replace(settings.convert_settings(configuration.defaults(), SIZE), fps=fps)
    options = {"limit": limit, "workers": 1, "timeout": 60, "max_failed_fraction": 1.0}
    if collection.kind is VIDEO:
        probe_folder(unit, layout, SIZE, **options)
    else:
        convert_folder(unit, layout, made, **options)


def read_headers(unit: Unit, layout: Layout, limit: int = 0, **options) -> None:
    """List a unit by its headers."""
    read_folder(
        unit, layout, (), **({"limit": limit, "workers": 1, "timeout": 60, "max_failed_fraction": 1.0} | options)
    )


def mp4s(layout: Layout) -> dict[str, tuple[int, int]]:
    """Each MP4, by its path in the tree: which file it is, under whatever name, and when it was written (ns)."""
    tree = layout.mp4(SIZE)
    found = {path.relative_to(tree).as_posix(): path.stat() for path in tree.rglob("*.mp4")}
    return {name: (status.st_ino, status.st_mtime_ns) for name, status in found.items()}


def vectors_of(collection: Collection, layout: Layout) -> dict[str, torch.Tensor]:
    """The vectors of all units, by their paths below the collection's directory."""
    found = {}
    for name in collection.units():
        prefix = "" if collection.division else f"{name}/"
        found |= {prefix + key: vector for key, vector in torch.load(layout.vectors("tiny", name)).items()}
    return found
