"""Which labels there are: the definitions of a YAML file, checked. It is read while a run is planned."""

import collections
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..core import schema
from ..core.errors import UserError
from .results import Definition, same


def definitions(path: str | None) -> dict[str, Definition]:
    """The labels that the YAML file at `path` defines, by name; None: those that the package comes with.

    Raises `UserError`, one line for each mistake.
    """
    file = Path(path) if path else Path(schema.__file__).with_name("labels.yaml")
    content = schema.load(file, "config: labels.definitions")
    wrong = schema.problems(schema.schema("labels"), content, str(file))
    if not wrong:
        made = {
            name: _definition(name, keys) for name, keys in schema.completed(schema.schema("labels"), content).items()
        }
        wrong = [f"{file}: {name}: {line}" for name, one in made.items() for line in _mistakes(one)]
    if wrong:
        raise UserError("\n".join(wrong))
    return made


def _definition(name: str, keys: Mapping[str, Any]) -> Definition:
    low, high = keys["between"]
    lists = {key: tuple(keys[key]) for key in ("measurements", "without_test_types")}
    return Definition(name, **{**keys, **lists, "between": (low, high)})


def _mistakes(one: Definition) -> Iterator[str]:
    """What the schema cannot say."""
    if bool(one.grades) == bool(one.units):
        yield "give units, of results that are numbers, or grades, of those that are words"
    if one.between[0] >= one.between[1]:
        yield f"between: {one.between[0]:g} is not below {one.between[1]:g}"
    for key, texts in (("grades", one.grades), ("units", one.units)):
        numbers = collections.defaultdict(set)
        for text, number in texts.items():
            numbers[same(text)].add(number)
        for text, found in numbers.items():
            if len(found) > 1:
                yield f"{key}: {text!r} stands there with two numbers; case and spaces do not tell texts apart"
