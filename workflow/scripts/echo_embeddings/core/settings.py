"""What of the configuration and the model registry decides results, and which tables join them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from . import fingerprint
from .files import sha256_of
from .layout import DICOM, masked
from .names import encode_name
from .recipe import GUIDE, RECIPES, Recipe
from .registry import DIRECT

# Raise these when the code changes what it computes of every file: everything made before is then made again. What it
# changes of some files only is a line in `corrections`.
CONVERT_VERSION = 1
EMBED_VERSION = 1
PROBE_VERSION = 3  # of the manifests of videos that were there already, which cost a look at each file
HEADERS_VERSION = 1  # of the manifests by headers alone
QC_VERSION = 3  # of the pages: what they say or how they look
AUDIT_VERSION = 1  # of what `audit_text` says
EVALUATE_VERSION = 1  # of what `evaluate` makes

UNMASKED = "none"  # the mask of a conversion that leaves pictures as they are
TO_THE_SECTOR = ("sector", "regions")  # masks of a conversion that leave what a recipe's mask: sector leaves

CPU_BATCH = 4  # clips; more are no faster on a CPU, and take more of its memory


@dataclass(frozen=True)
class Codec:
    """A video codec: the ffmpeg option of its quality, and what docs/codec.md found best for it."""

    quality_option: str
    quality: float
    options: dict[str, str | int | float]


CODECS = {
    "mpeg4": Codec("-q:v", 2.7, {"mbd": "rd", "trellis": 1}),
    "libx264": Codec("-crf", 14, {"preset": "medium", "tune": "psnr"}),
}


class _Settings:
    """Base of the frozen dataclasses below: everything in them but labels decides the result."""

    def fingerprint(self) -> str:
        """A digest of all that decides results: equal fingerprints mean interchangeable results."""
        return fingerprint.fingerprint(self)


@dataclass(frozen=True)
class ConvertSettings(_Settings):
    """What decides which MP4 files a folder becomes, and their pixels."""

    size: int  # edge of the square frames, pixels
    fps: float | str  # of the MP4, frames a second; "source" is what the DICOM states
    codec: str  # an encoder of ffmpeg
    quality: float  # constant rate factor (libx264) or quantiser scale (mpeg4); lower is better
    gop: int  # frames from one key frame to the next, at most
    pixel_format: str  # of the MP4, as ffmpeg calls it
    scaler_flags: str  # of ffmpeg's conversion from RGB
    encoder_options: dict[str, str | int | float]  # further ones of the codec, as ffmpeg calls them
    modalities: tuple[str, ...]  # Modality values to convert; none means all
    version: int = CONVERT_VERSION
    # What the pictures keep: `UNMASKED`, sector, regions, or boxes:x0,y0,x1,y1;... in parts of the picture.
    mask: str = field(default="none", metadata={"neutral": "none"})
    # What becomes of a clip without a sector, which is tried again in any case.
    mask_fallback: str = field(default="fail", metadata={"term": None})

    @property
    def clips(self) -> int | str:
        """Where the MP4 files lie, as paths of `Layout` say it: those that are masked have a tree of their own."""
        return self.size if self.mask == UNMASKED else masked(self.size)


@dataclass(frozen=True)
class Model(_Settings):
    """What decides a vector, besides the weights themselves and the MP4."""

    name: str = field(metadata={"term": None})
    constructor: str  # the encoder's size, by its name in the official code
    resolution: int  # edge of the square input, pixels
    embed_dim: int
    entry: str  # of the checkpoint file
    num_frames: int
    precision: str  # "fp32" or "bf16"
    family: str = "vjepa2"  # a key of `contract.FAMILIES`
    recipe: Recipe = GUIDE  # how it is fed
    version: int = EMBED_VERSION
    module: str | None = field(default=None, metadata={"term": None})  # the file with the encoder of family python
    code: str | None = field(default=None, metadata={"neutral": None})  # the SHA-256 of that file
    mp4_mask: str = field(
        default="none", metadata={"neutral": "none"}
    )  # that of the conversion, as its settings have it

    @property
    def clips(self) -> int | str:
        """What it is fed with, as paths of `Layout` say it: MP4 files of a size, masked or not, or DICOM."""
        if self.recipe.source == "dicom":
            return DICOM
        return self.resolution if self.mp4_mask == UNMASKED else masked(self.resolution)


KEY_COLUMNS = {"path": "dicom_filepath", "study": "study_id", "patient": "subject_id"}


@dataclass(frozen=True)
class Table:
    """A table whose columns join the clips."""

    file: str
    by: str  # a key of `KEY_COLUMNS`
    key: str  # the column that names the path, study or patient
    columns: tuple[str, ...] = ()  # those that join; none means all
    name: str = ""  # of the configuration's key, for messages


@dataclass(frozen=True)
class Tables:
    """What is known of clips besides their manifest, and which of them are wanted."""

    record_list: Table | None = None
    study_list: Table | None = None
    others: tuple[Table, ...] = ()
    select: str | None = None  # see `selection.parse`
    layout: str | None = None  # where paths say whose file it is, see `pattern.PathPattern`
    direct: str = ""  # with a layout, the folder of the files that lie directly in the collection's directory
    divided: bool = False  # into units, so that paths are relative to the collection's directory

    @property
    def all(self) -> list[Table]:
        """Every table, in the order in which their columns stand."""
        return [table for table in (self.record_list, self.study_list, *self.others) if table]


def convert_settings(config: Mapping[str, Any], size: int) -> ConvertSettings:
    """What the configuration says of the MP4 tree of `size` pixels."""
    convert = config["convert"]
    codec = CODECS[convert["codec"]]
    return ConvertSettings(
        size=size,
        fps=convert["fps"],
        codec=convert["codec"],
        quality=codec.quality if convert["quality"] is None else convert["quality"],
        gop=convert["gop"],
        pixel_format=convert["pixel_format"],
        scaler_flags=convert["scaler_flags"],
        encoder_options=codec.options | convert["encoder_options"],
        modalities=tuple(convert["modalities"]),
        mask=convert_mask(config),
        mask_fallback=convert["mask_fallback"],
    )


def convert_mask(config: Mapping[str, Any]) -> str:
    """The mask of the conversion, in one text."""
    mask = config["convert"]["mask"]
    if isinstance(mask, str):
        return mask
    return "boxes:" + ";".join(",".join(f"{edge:g}" for edge in box) for box in mask["boxes"])


def convert_rule(mask: str) -> str:
    """The rule that makes MP4 files under this mask."""
    return "convert" if mask == UNMASKED else "convert_masked"


def unmasked(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without the mask of the conversion."""
    return {**config, "convert": {**config["convert"], "mask": UNMASKED}}


def tables(config: Mapping[str, Any]) -> Tables:
    """What the configuration says of tables and the selection."""
    lists = {
        name: Table(config[name], by, KEY_COLUMNS[by], name=name) if config[name] else None
        for name, by in (("record_list", "path"), ("study_list", "study"))
    }
    others = [
        Table(
            entry["file"], entry["by"], entry.get("key", KEY_COLUMNS[entry["by"]]),
            tuple(entry.get("columns", ())), f"tables.{i}",
        )
        for i, entry in enumerate(config["tables"])
    ]  # fmt: skip
    top = config["mp4_dir"] or config["dicom_dir"]
    direct = os.path.basename(os.path.abspath(top))  # which is the name of a sub-folder, if there is such a one
    divided = config["units"] != "folders"
    has_direct = config["layout"] and not divided and not os.path.isdir(os.path.join(top, direct))
    return Tables(
        lists["record_list"], lists["study_list"], tuple(others), config["select"],
        config["layout"], encode_name(direct) if has_direct else "", divided,
    )  # fmt: skip


def batch_size(config: Mapping[str, Any], registry: Mapping[str, Mapping[str, Any]], name: str) -> int:
    """Clips a batch of model `name`; where the configuration says auto, the registry's number, on a CPU a few."""
    chosen, usual = config["embed"]["batch_size"], registry[name]["batch_size"]
    if chosen == "auto":
        return int(usual if config["embed"]["device"] == "cuda" else min(usual, CPU_BATCH))
    return int(chosen)


def model(config: Mapping[str, Any], registry: Mapping[str, Mapping[str, Any]], name: str) -> Model:
    """What the configuration and the registry say of the vectors of model `name`."""
    entry, how = registry[name], recipe(config, registry, name)
    mask = UNMASKED if how.source == "dicom" or config["mp4_dir"] else convert_mask(config)
    if mask in TO_THE_SECTOR and how.mask == "sector":
        how = replace(how, mask="none")  # it has been done
    return Model(
        name=name,
        constructor=entry["constructor"],
        resolution=entry["resolution"],
        embed_dim=entry["embed_dim"],
        entry=entry["entry"],
        num_frames=how.frames or config["embed"]["num_frames"],
        precision=how.precision or config["embed"]["precision"],
        family=entry["family"],
        recipe=how,
        module=entry["module"],
        code=sha256_of(entry["module"]) if entry["module"] else None,
        mp4_mask=mask,
    )


def recipe(config: Mapping[str, Any], registry: Mapping[str, Mapping[str, Any]], name: str) -> Recipe:
    """How model `name` is fed."""
    found = recipes(config)[registry[name]["recipe"]]
    return replace(found, source="dicom") if name.endswith(DIRECT) else found


def unfit(name: str, recipe: Recipe, videos: bool) -> str | None:
    """Why model `name` cannot be fed by its `recipe` from your `videos`, or else from DICOM; None if it can."""
    if videos and recipe.source == "dicom":
        usual = name.removesuffix(DIRECT) if name.endswith(DIRECT) else "a model whose recipe says source: mp4"
        return f"model {name} is fed straight from DICOM, and these are videos; take {usual}"
    if not videos and recipe.source == "mp4" and (recipe.aspect == "native" or recipe.margin is not None):
        shape = f"recipe {recipe.name} shows pictures in their own shape, and MP4 files are squeezed to a square"
        return f"model {name}: {shape}; take {name}{DIRECT}"
    return None


def recipes(config: Mapping[str, Any]) -> dict[str, Recipe]:
    """The recipes by name: those named for good, and the configuration's."""
    return RECIPES | {name: _recipe(name, keys) for name, keys in config["recipes"].items()}


def _recipe(name: str, keys: Mapping[str, Any]) -> Recipe:
    made: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in keys.items()}
    return Recipe(name, **made)
