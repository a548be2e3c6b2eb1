"""YAML files and what the schemas beside this module say of them: read, checked, completed with defaults."""

import copy
import datetime
import difflib
import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from .errors import UserError


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


def load(path: Path, name: str) -> Any:
    """What the YAML file at `path` holds. Raises `UserError`, which begins with `name`, if it cannot be read."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Once)
    except FileNotFoundError as error:
        raise UserError(f"{name}: no file {str(path)!r} in {Path.cwd()}") from error
    except OSError as error:
        raise UserError(f"{name}: cannot read {path}: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        hint = "; indent with spaces, not tabs" if "'\\t'" in str(error.problem) else ""
        raise UserError(f"{name}: {path} is not YAML: {line}{error.problem}{hint}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{name}: {path} is not YAML: {' '.join(str(error).split())}") from error


@functools.cache
def schema(name: str) -> dict[str, Any]:
    """The schema of that name: "config", "models" or "labels"."""
    fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # PyYAML may have been built without libyaml
    read: dict[str, Any] = yaml.load(Path(__file__).with_name(f"{name}.schema.yaml").read_text(), fast)
    return read


@functools.cache
def _validator() -> Any:
    """JSON Schema's, but for what it takes for numbers: 16.0 for an integer, and NaN for a number."""
    from jsonschema import Draft202012Validator, validators  # noqa: PLC0415  no process that decodes waits for it

    types = Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "integer": lambda _, value: isinstance(value, int) and not isinstance(value, bool),
            "number": lambda _, value: (
                isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            ),
        }
    )
    return validators.extend(Draft202012Validator, type_checker=types)


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
    if isinstance(value, datetime.date):  # YAML makes one of 2024-03-01
        return str(value)
    return json.dumps(value) if isinstance(value, bool | None) else repr(value)


def problems(schema: Mapping[str, Any], document: Any, name: str) -> list[str]:
    """One line for each way in which `document` breaks the schema, in order of place; `name` begins them."""
    lines = []
    for error in sorted(_validator()(schema).iter_errors(document), key=lambda e: [str(p) for p in e.path]):
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
            types = _types(error.schema)
            words = " or ".join(_WORDS[name] for name in types)
            scalar = isinstance(error.instance, int | float | datetime.date)
            hint = ": write it in quotes" if scalar and "string" in types else ""
            lines.append(f"{where}{_as_written(error.instance)} is not {words}{hint}")
        else:
            described = error.validator == "pattern" and "description" in error.schema
            hint = f": {error.schema['description']}" if described else ""
            lines.append(where + " ".join(error.message.split()) + hint)
    return list(dict.fromkeys(lines))


def _types(schema: Mapping[str, Any]) -> list[str]:
    types: str | list[str] = schema.get("type", [])
    return [types] if isinstance(types, str) else types


def completed(schema: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """`document` with the schema's defaults for what it leaves out, and without the keys whose values are wrong."""
    made = {}
    others = dict.fromkeys(document, schema["additionalProperties"])
    for key, part in (others | schema.get("properties", {})).items():
        if part is False:  # an unknown key
            continue
        if part.get("type") == "object":
            section = document.get(key, {})
            if isinstance(section, dict):
                made[key] = completed(part, section)
        elif key not in document:
            if "default" in part:
                made[key] = copy.deepcopy(part["default"])
        elif _validator()(part).is_valid(document[key]):
            made[key] = document[key]
    return made


_PYTHON: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def unquoted(schema: Mapping[str, Any], value: Any) -> Any:
    """`value` with strings that stand for something else by the schema: `--config` hands over `{limit: '5'}`.

    A string becomes what YAML reads in it where the schema takes that type there.
    """
    if isinstance(value, dict):
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        more = others if isinstance(others, dict) else {}
        return {key: unquoted(known.get(key, more), part) for key, part in value.items()}
    if isinstance(value, list):
        return [unquoted(schema.get("items", {}), part) for part in value]
    if isinstance(value, str) and value:
        try:
            read = yaml.safe_load(value)
        except yaml.YAMLError:
            return value
        if any(type(read) in _PYTHON.get(name, ()) for name in _types(schema)):
            return read
    return value
