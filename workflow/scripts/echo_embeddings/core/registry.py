"""The model registry: name -> how to build the encoder and what feeds it (models.schema.yaml)."""

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from .errors import UserError
from .package import repository
from .schema import completed, load, problems, schema

DIRECT = "-direct"  # what ends the name of a model that is fed straight from DICOM


class Registry(dict[str, dict[str, Any]]):
    """Model name -> entry, in the file's order. `in` and `[]` know `NAME-direct` too, whose entry is that of NAME.

    It is counted and iterated without them.
    """

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and dict.__contains__(self, name.removesuffix(DIRECT))

    def __missing__(self, name: str) -> dict[str, Any]:
        if name not in self:
            raise KeyError(name)
        return self[name.removesuffix(DIRECT)]


def path(models_file: str | None) -> Path:
    """The registry that the configuration's `models_file` names; for None the one that the package comes with.

    In a clone config/models.yaml links to that, and may be replaced by a file of its own.
    """
    if models_file:
        return Path(models_file)
    clone = repository()
    return clone / "config/models.yaml" if clone else Path(__file__).with_name("models.yaml")


def unknown(name: str, models: Collection[str], file: Path) -> str:
    """That there is no model `name` among the `models` of the registry at `file`, and which one may be meant."""
    lower = {model.lower(): model for model in models}
    near = difflib.get_close_matches(name.lower(), lower, n=1)
    hint = f"; did you mean {lower[near[0]]!r}?" if near else ""
    return f"{name!r} is not in {file}: {', '.join(models)}{hint}"


def read(file: Path) -> tuple[Registry, list[str]]:
    """The registry at `file`, complete with defaults, and one line for each mistake; with any the registry is empty."""
    try:
        entries = load(file, "config: models_file")
    except UserError as error:
        return Registry(), [str(error)]
    wrong = problems(schema("models"), entries, str(file))
    if not wrong:
        taken = f"names with {DIRECT} behind them are those of models fed straight from DICOM; take another"
        wrong = [f"{file}: {name}: {taken}" for name in entries if name.endswith(DIRECT)]
    if wrong:
        return Registry(), wrong
    made = Registry(completed(schema("models"), entries))
    for name, entry in made.items():
        if entry["module"] is not None:
            entry["module"] = str(file.absolute().parent / entry["module"])
            if entry["family"] != "python":
                wrong.append(f"{file}: {name}.module: goes with family: python, and with no other")
            elif not Path(entry["module"]).is_file():
                wrong.append(f"{file}: {name}.module: no file {entry['module']}")
    return (Registry(), wrong) if wrong else (made, [])


def place(config: Mapping[str, Any], entry: Mapping[str, Any]) -> Path:
    """Where the checkpoint of a registry entry is looked for."""
    return Path(config["weights_dir"], entry["checkpoint"])


def origin(entry: Mapping[str, Any]) -> str:
    """Where the checkpoint of a registry entry comes from, in words."""
    return str(entry["url"] or entry["obtain"] or "the registry does not say where from")
