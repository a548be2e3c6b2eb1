"""The configuration: the files that it is read from, the defaults, and the check of all of it.

Everywhere else it is the nested dict that Snakemake calls `config`. Its keys, their types and their defaults stand in
config.schema.yaml; what the schema cannot say is checked here.
"""

import importlib.metadata
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from . import registry, settings
from .errors import UserError
from .keys import read_key
from .package import repository
from .pattern import PathPattern
from .recipe import RECIPES
from .schema import completed, load, problems, schema, unquoted


def check(config: dict[str, Any], *, data: bool = True) -> registry.Registry:
    """Check the configuration and complete it in place with the documented defaults.

    Returns the model registry: model name -> entry. Raises `UserError` with one line for each
    problem, all at once, folders excepted: those are looked for by `find_folders`. Without `data` nothing
    is asked of dicom_dir and mp4_dir.
    """
    config |= unquoted(schema("config"), config)
    wrong = problems(schema("config"), config, "config")
    sound = completed(schema("config"), config)
    models = registry.Registry()
    if "models_file" in sound:
        file = registry.path(sound["models_file"])
        models, more = registry.read(file)
        wrong += more
        if models:
            wrong += _model_problems(sound, models, file)
    wrong += _recipe_problems(sound)
    wrong += _input_problems(sound, data)
    wrong += _path_problems(sound)
    if wrong:
        raise UserError("\n".join(wrong))
    config |= sound
    for name, place in config["checkpoints"].items():
        # Nothing is fetched to a place that somebody named because the file is there.
        here = str(Path(place).absolute())
        models[name] |= {"checkpoint": here, "url": None, "obtain": "config: checkpoints names it"}
    return models


# Each of these is given the configuration complete but for the keys that the schema finds wrong.


def _model_problems(config: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]], file: Path) -> Iterator[str]:
    """The names of models against the registry read from `file`, and its recipes against those that there are."""
    known = [*RECIPES, *config.get("recipes", {})]
    for i, name in enumerate(config.get("models", [])):
        if name not in models:
            yield f"config: models.{i}: {registry.unknown(name, models, file)}"
        elif "recipes" in config and models[name]["recipe"] in known:
            recipe = settings.recipe(config, models, name)
            if reason := settings.unfit(name, recipe, bool(config.get("mp4_dir"))):
                yield f"config: models.{i}: {reason}"
    for name in config.get("checkpoints", {}):
        if name not in list(models):  # which a model and its twin share
            yield f"config: checkpoints: {registry.unknown(name, models, file)}"
    if "recipes" in config:
        for name, entry in models.items():
            if entry["recipe"] not in known:
                yield f"{file}: {name}.recipe: no recipe {entry['recipe']!r}: {', '.join(known)}"


def _recipe_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the configuration's own recipes."""
    for name, keys in config.get("recipes", {}).items():
        if name in RECIPES:
            yield f"config: recipes: {name!r} is there already and stays as it is; take another name"
        for key in ("rate", "stride"):
            if (keys.get("sampling") == key) != (key in keys):
                yield f"config: recipes.{name}: {key} goes with sampling: {key}, and with nothing else"
        if keys.get("aspect") == "native" and keys.get("crop") is False and "margin" not in keys:
            yield f"config: recipes.{name}: without crop a picture must be square: a margin, or not aspect: native"
        if keys.get("padding") == "zeros" and not ("frames" in keys and keys.get("clips_per_video", 1) == 1):
            yield f"config: recipes.{name}: padding: zeros goes with frames, and with one clip a video"


def _input_problems(config: Mapping[str, Any], data: bool) -> Iterator[str]:
    """Whether the collection is there, where `data` asks for it, and what is said of it agrees."""
    mp4_dir, dicom_dir, record_list = (config.get(key) for key in ("mp4_dir", "dicom_dir", "record_list"))
    if data and mp4_dir and not Path(mp4_dir).is_dir():
        yield f"config: mp4_dir: no directory {mp4_dir!r} in {Path.cwd()}; null converts dicom_dir instead"
    fetched = config.get("physionet", {}).get("version")
    if data and dicom_dir and not (mp4_dir or fetched) and not Path(dicom_dir).is_dir():
        yield (
            f"config: dicom_dir: no directory {dicom_dir!r} in {Path.cwd()}; "
            "set dicom_dir to the directory whose sub-folders hold the DICOM files"
            + ("; ~ and $ mean nothing here, write the whole path" if dicom_dir[:1] in ("~", "$") else "")
        )
    if mp4_dir and record_list:
        yield (
            "config: record_list: it says which DICOM there should be, and mp4_dir holds none; "
            f"its columns join as tables: [{{file: {record_list}, by: path}}]"
        )
    if config.get("require_complete") and "record_list" in config and not record_list:
        yield "config: require_complete: set record_list too, which says what complete is"


def _path_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with what is said of folders, units and whose a file is."""
    if config.get("convert", {}).get("keep_ids"):
        if config.get("mp4_dir"):
            yield "config: convert.keep_ids: mp4_dir holds videos, which have no such identifiers; take it out"
        elif "key_file" in config:
            try:
                read_key(config["key_file"])
            except UserError as error:
                yield str(error)
    yield from _mask_problems(config)
    if config.get("units", "folders") != "folders" and config.get("merge", {}).get("prefix_folder"):
        yield "config: merge.prefix_folder: keys begin with the folder where units is a number; leave it out"
    if layout := config.get("layout"):
        try:
            PathPattern(layout)
        except UserError as error:
            yield str(error)
    for i, folder in enumerate(config.get("folders", [])):
        if "/" in folder:
            yield f"config: folders.{i}: {folder!r} has a '/': point dicom_dir one level deeper"


def _mask_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the mask of the conversion."""
    mask = config.get("convert", {}).get("mask", "none")
    if mask != "none" and config.get("mp4_dir"):
        yield "config: convert.mask: mp4_dir holds videos, which stay as they are; take it out"
    for i, (x0, y0, x1, y1) in enumerate(mask["boxes"] if isinstance(mask, dict) else ()):
        if not (x0 < x1 and y0 < y1):
            yield f"config: convert.mask.boxes.{i}: [left, top, right, bottom] must have left < right and top < bottom"


def defaults() -> dict[str, Any]:
    """The configuration that an empty one stands for."""
    return completed(schema("config"), {})


def check_files(paths: Iterable[str | os.PathLike[str]]) -> None:
    """Raise `UserError` if a YAML file among the configuration's says a key twice; Snakemake does not mind."""
    for path in map(Path, paths):
        if path.suffix != ".json":
            load(path, "config")


def read(directory: str, *paths: str) -> dict[str, Any]:
    """The base configuration with that of the working directory and the files at `paths` laid over it.

    That is what the Snakefile does; it is not checked yet. The base is the clone's; where there is none, nothing, which
    `check` completes to the same. Raises `UserError` if a file cannot be read, is not YAML or has no keys, which
    Snakemake refuses too.
    """
    if not Path(directory).is_dir():
        raise UserError(f"--directory: there is no directory {directory!r}")
    clone, own = repository(), Path(directory, "config/config.yaml")
    base = [clone / "config/config.yaml"] if clone else []
    config: dict[str, Any] = {}
    for path in [*base, *([own] if own.is_file() else []), *map(Path, paths)]:
        content = load(path, "config")
        if not isinstance(content, dict):
            raise UserError(f"config: {path} has no keys; write one a line, as `models: [vitl]`")
        _lay_over(config, content)
    return config


def profile_file(profile: str) -> Path:
    """The YAML file of a profile as given to snakemake: a file, a directory, or one where Snakemake keeps its own.

    Raises `UserError` where there is none.
    """
    major = int(importlib.metadata.version("snakemake").split(".")[0])
    home = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    for place in (Path(profile), home / "snakemake" / profile, Path("/etc/xdg/snakemake", profile)):
        if place.is_file():
            return place
        matches = [re.fullmatch(r"(?:profile|config)(?:\.v(\d+)\+)?\.yaml", path.name) for path in place.glob("*.yaml")]
        versions = {int(match[1] or 0): match[0] for match in matches if match and int(match[1] or 0) <= major}
        if versions:
            return place / versions[max(versions)]
    raise UserError(
        f"--profile: {profile!r} in {Path.cwd()} is no profile: there is no config.yaml or profile.yaml in it"
    )


def profile_of(file: Path) -> dict[str, Any]:
    """What a profile says. Raises `UserError` if it is not YAML with keys."""
    content = load(file, "--profile")
    if not isinstance(content, dict):
        raise UserError(f"--profile: {file} has no keys")
    return content


def configfiles_of(file: Path) -> list[str]:
    """The configuration files that a profile names, as Snakemake takes them: one that lies beside it is that one."""
    profile = profile_of(file)
    named = profile.get("configfile", profile.get("configfiles")) or []
    if isinstance(named, list):
        return [str(name) for name in named]
    path = os.path.expanduser(os.path.expandvars(str(named)))
    return [str(file.parent / path) if (file.parent / path).exists() else path]


def _lay_over(config: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(config.get(key), dict):
            _lay_over(config[key], value)
        else:
            config[key] = value
