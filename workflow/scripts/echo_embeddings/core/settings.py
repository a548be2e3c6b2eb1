"""The configuration and the model registry: read, checked, and what of them decides results."""

import copy
import difflib
import functools
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, validators

from . import fingerprint
from .errors import UserError
from .recipe import GUIDE, RECIPES, Recipe

REPOSITORY = Path(__file__).resolve().parents[4]
SCHEMAS = REPOSITORY / "workflow/schemas"

# Raise these when the code changes what it computes of every file: everything made before is then made again. What it
# changes of some files only is a line in `corrections`.
CONVERT_VERSION = 1
EMBED_VERSION = 1
QC_VERSION = 2  # of the pages: what they say or how they look


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


@dataclass(frozen=True)
class Model(_Settings):
    """What decides a vector, besides the weights themselves and the MP4."""

    name: str = field(metadata={"term": None})
    constructor: str  # a key of `architectures.ARCHITECTURES`
    resolution: int  # edge of the square input, pixels
    embed_dim: int
    entry: str  # of the checkpoint file
    num_frames: int
    precision: str  # "fp32" or "bf16"
    family: str = "vjepa2"  # a key of `architectures.FAMILIES`
    recipe: Recipe = GUIDE  # how it is fed
    version: int = EMBED_VERSION


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

    @property
    def all(self) -> list[Table]:
        """Every table, in the order in which their columns stand."""
        return [table for table in (self.record_list, self.study_list, *self.others) if table]


# JSON Schema takes 16.0 for an integer and has no word for NaN; frame counts and rates do not go with either.
_TYPES = Draft202012Validator.TYPE_CHECKER.redefine_many(
    {
        "integer": lambda _, value: isinstance(value, int) and not isinstance(value, bool),
        "number": lambda _, value: (
            isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        ),
    }
)
_Validator = validators.extend(Draft202012Validator, type_checker=_TYPES)


# The schema's types, in words that a configuration is written in.
_WORDS = {
    "object": "a section of keys",
    "array": "a list, as [a, b]",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}


def _as_written(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return repr(value)


def _problems(schema: Mapping[str, Any], document: Any, name: str) -> list[str]:
    """One line for each way in which `document` breaks the schema, in order of place."""
    lines = []
    for error in sorted(_Validator(schema).iter_errors(document), key=lambda e: [str(p) for p in e.path]):
        place = ".".join(str(part) for part in error.absolute_path)
        where = f"{name}: {place}: " if place else f"{name}: "
        if error.validator == "additionalProperties":
            known = error.schema.get("properties", {})
            for key in error.instance:
                if key not in known:
                    near = difflib.get_close_matches(str(key), known, n=1)
                    hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
                    lines.append(f"{where}unknown key {key!r}{hint}")
        elif error.validator == "required":
            missing = [key for key in error.validator_value if key not in error.instance]
            lines.extend(f"{where}key {key!r} is missing" for key in missing)
        elif error.validator == "type":
            types = [error.validator_value] if isinstance(error.validator_value, str) else error.validator_value
            hint = ": write it in quotes" if isinstance(error.instance, int | float) and "string" in types else ""
            lines.append(
                f"{where}{_as_written(error.instance)} is not {' or '.join(_WORDS[name] for name in types)}{hint}"
            )
        else:
            hint = (
                f": {error.schema['description']}"
                if error.validator == "pattern" and "description" in error.schema
                else ""
            )
            lines.append(where + " ".join(error.message.split()) + hint)
    return list(dict.fromkeys(lines))


def _fill_defaults(schema: Mapping[str, Any], document: dict[str, Any]) -> None:
    """Set what `document` leaves out to the defaults that the schema documents."""
    for key, part in schema.get("properties", {}).items():
        if part.get("type") == "object" and "properties" in part:
            _fill_defaults(part, document.setdefault(key, {}))
        elif "default" in part:
            document.setdefault(key, copy.deepcopy(part["default"]))


_PYTHON: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def _unquoted(schema: Mapping[str, Any], value: Any) -> Any:
    """`value` with strings that stand for something else by the schema: `--config` hands over `{limit: '5'}`.

    A string becomes what YAML reads in it where the schema takes that type there.
    """
    if isinstance(value, dict):
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        more = others if isinstance(others, dict) else {}
        return {key: _unquoted(known.get(key, more), part) for key, part in value.items()}
    if isinstance(value, list):
        return [_unquoted(schema.get("items", {}), part) for part in value]
    if isinstance(value, str) and value:
        types = schema.get("type", [])
        read = _plain(value)
        for name in [types] if isinstance(types, str) else types:
            if name in _PYTHON and isinstance(read, _PYTHON[name]) and (name == "boolean") == isinstance(read, bool):
                return read
    return value


def _plain(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


class _Once(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML's readers silently take the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in lines:
                problem = f"{key.value!r} stands in line {lines[key.value]} already; keep one"
                raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
            lines[key.value] = key.start_mark.line + 1
        return node


def _load(path: Path, name: str) -> Any:
    """What the YAML file at `path` holds. Raises `UserError`, which begins with `name`, if it cannot be read."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Once)
    except OSError as error:
        raise UserError(f"{name}: cannot read {path}: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        hint = "; indent with spaces, not tabs" if "'\\t'" in str(error.problem) else ""
        raise UserError(f"{name}: {path} is not YAML: {line}{error.problem}{hint}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{name}: {path} is not YAML: {' '.join(str(error).split())}") from error


def check_files(paths: Iterable[str | os.PathLike[str]]) -> None:
    """Raise `UserError` if a YAML file among the configuration's says a key twice; Snakemake does not mind."""
    for path in map(Path, paths):
        if path.suffix != ".json":
            _load(path, "config")


@functools.cache
def _schema(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = yaml.safe_load((SCHEMAS / f"{name}.schema.yaml").read_text())
    return schema


def _read_registry(path: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The registry at `path` and what is wrong with it."""
    try:
        registry = _load(path, "config: models_file")
    except UserError as error:
        return {}, [str(error)]
    problems = _problems(_schema("models"), registry, str(path))
    if problems:
        return {}, problems
    for entry in registry.values():
        _fill_defaults(_schema("models")["additionalProperties"], entry)
    return registry, []


def check(config: dict[str, Any], *, data: bool = True) -> dict[str, dict[str, Any]]:
    """Check the configuration and complete it in place with the documented defaults.

    Returns the model registry: model name -> entry. Raises `UserError` with one line for each
    problem, all at once, folders excepted: those are looked for by `find_folders`. Without `data` nothing
    is asked of dicom_dir.
    """
    config |= _unquoted(_schema("config"), config)
    problems = _problems(_schema("config"), config, "config")
    registry: dict[str, dict[str, Any]] = {}
    if isinstance(config.get("models_file"), str | None):
        path = Path(config.get("models_file") or REPOSITORY / "config/models.yaml")
        registry, more = _read_registry(path)
        problems += more
        models = config.get("models")
        for i, model in enumerate(models if registry and isinstance(models, list) else []):
            if isinstance(model, str) and model not in registry:
                problems.append(f"config: models.{i}: {model!r} is not in {path}: {', '.join(registry)}")
        problems += _override_checkpoints(config.get("checkpoints"), registry, path)
        problems += _recipe_problems(config.get("recipes") or {}, registry, path)
    dicom_dir = config.get("dicom_dir", _schema("config")["properties"]["dicom_dir"]["default"])
    mp4_dir, physionet = config.get("mp4_dir"), config.get("physionet")
    if data and isinstance(mp4_dir, str) and not Path(mp4_dir).is_dir():
        problems.append(f"config: mp4_dir: no directory {mp4_dir!r} in {Path.cwd()}; null converts dicom_dir instead")
    fetched = isinstance(physionet, dict) and physionet.get("version") is not None
    needed = data and not mp4_dir and not fetched
    if needed and isinstance(dicom_dir, str) and not Path(dicom_dir).is_dir():
        problems.append(
            f"config: dicom_dir: no directory {dicom_dir!r} in {Path.cwd()}; "
            "set dicom_dir to the directory whose sub-folders hold the DICOM files"
            + ("; ~ and $ mean nothing here, write the whole path" if dicom_dir[:1] in ("~", "$") else "")
        )
    if mp4_dir and config.get("record_list"):
        problems.append(
            "config: record_list: it says which DICOM there should be, and mp4_dir holds none; "
            f"its columns join as tables: [{{file: {config['record_list']}, by: path}}]"
        )
    if config.get("require_complete") is True and not config.get("record_list"):
        problems.append("config: require_complete: set record_list too, which says what complete is")
    folders = config.get("folders")
    for i, folder in enumerate(folders if isinstance(folders, list) else []):
        if "/" in str(folder):
            problems.append(f"config: folders.{i}: {folder!r} has a '/': point dicom_dir one level deeper")
    if problems:
        raise UserError("\n".join(problems))
    _fill_defaults(_schema("config"), config)
    return registry


def _override_checkpoints(checkpoints: Any, registry: dict[str, dict[str, Any]], path: Path) -> list[str]:
    """Put the configuration's places of checkpoints into the registry read from `path`; returns what is wrong."""
    problems = []
    for name, place in checkpoints.items() if registry and isinstance(checkpoints, dict) else ():
        if name in registry:
            # Nothing is fetched to a place that somebody named because the file is there.
            here = str(Path(str(place)).absolute())
            registry[name] |= {"checkpoint": here, "url": None, "obtain": "config: checkpoints names it"}
        else:
            problems.append(f"config: checkpoints: {name!r} is not in {path}: {', '.join(registry)}")
    return problems


def _recipe_problems(own: Any, registry: Mapping[str, Mapping[str, Any]], path: Path) -> list[str]:
    """What is wrong with the configuration's recipes, and with those that the registry read from `path` names."""
    problems = []
    own = own if isinstance(own, dict) else {}
    for name, keys in own.items():
        if name in RECIPES:
            problems.append(f"config: recipes: {name!r} is there already and stays as it is; take another name")
        for key in ("rate", "stride") if isinstance(keys, dict) else ():
            if (keys.get("sampling") == key) != (key in keys):
                problems.append(f"config: recipes.{name}: {key} goes with sampling: {key}, and with nothing else")
    known = [*RECIPES, *map(str, own)]
    problems += [
        f"{path}: {model}.recipe: no recipe {entry['recipe']!r}: {', '.join(known)}"
        for model, entry in registry.items()
        if entry["recipe"] not in known
    ]
    return problems


def read(directory: str, *paths: str) -> dict[str, Any]:
    """The base configuration with that of the working directory and the files at `paths` laid over it.

    That is what the Snakefile does; it is not checked yet. Raises `UserError` if one cannot be read, is not YAML or
    has no keys, which Snakemake refuses too.
    """
    if not Path(directory).is_dir():
        raise UserError(f"--directory: there is no directory {directory!r}")
    config: dict[str, Any] = {}
    own = Path(directory, "config/config.yaml")
    for path in [REPOSITORY / "config/config.yaml", *([own] if own.is_file() else []), *map(Path, paths)]:
        content = _load(path, "config")
        if not isinstance(content, dict):
            raise UserError(f"config: {path} has no keys; write one a line, as `models: [vitl]`")
        _lay_over(config, content)
    return config


def _lay_over(config: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(config.get(key), dict):
            _lay_over(config[key], value)
        else:
            config[key] = value


def defaults() -> dict[str, Any]:
    """The configuration that an empty one stands for."""
    config: dict[str, Any] = {}
    _fill_defaults(_schema("config"), config)
    return config


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
    )


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
    return Tables(lists["record_list"], lists["study_list"], tuple(others), config["select"])


def batch_size(config: Mapping[str, Any], registry: Mapping[str, Mapping[str, Any]], name: str) -> int:
    """Clips a batch of model `name`; where the configuration says auto, the largest that is tried."""
    chosen = config["embed"]["batch_size"]
    return int(registry[name]["batch_size"] if chosen == "auto" else chosen)


def model(config: Mapping[str, Any], registry: Mapping[str, Mapping[str, Any]], name: str) -> Model:
    """What the configuration and the registry say of the vectors of model `name`."""
    entry = registry[name]
    return Model(
        name=name,
        constructor=entry["constructor"],
        resolution=entry["resolution"],
        embed_dim=entry["embed_dim"],
        entry=entry["entry"],
        num_frames=config["embed"]["num_frames"],
        precision=config["embed"]["precision"],
        family=entry["family"],
        recipe=recipes(config)[entry["recipe"]],
    )


def recipes(config: Mapping[str, Any]) -> dict[str, Recipe]:
    """The recipes by name: those named for good, and the configuration's."""
    return RECIPES | {name: Recipe(name, **keys) for name, keys in config["recipes"].items()}
