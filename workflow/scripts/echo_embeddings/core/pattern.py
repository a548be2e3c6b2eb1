"""Where a path says whose study a file is: the configuration's `layout`, as `{patient}/{study}/*`."""

import functools
import re
from dataclasses import dataclass

from .errors import UserError

FIELDS = ("patient", "study")


@dataclass(frozen=True)
class PathPattern:
    """A pattern of paths below the collection's directory, one part for each directory and one for the file.

    A part is text with `*` (any characters) and at most one each of `{patient}` and `{study}` (at least one character).
    What the directories up to a field's part say holds for everything below them, however deep it lies; a field in the
    last part is looked for in names of files alone, which are compared without their suffix.
    """

    text: str

    def __post_init__(self) -> None:
        """Raise `UserError` if the pattern cannot be one."""
        fields = re.findall(r"\{(.*?)\}", self.text)
        if wrong := [name for name in fields if name not in FIELDS]:
            why = f"{{{wrong[0]}}} is none of {', '.join(f'{{{name}}}' for name in FIELDS)}"
        elif "patient" not in fields:
            why = "{patient} is missing"
        elif len(set(fields)) < len(fields):
            why = "a field stands in it twice"
        elif re.search(r"[{}]", re.sub(r"\{(.*?)\}", "", self.text)):
            why = "a { or } stands alone"
        elif not all(self._parts):
            why = "it has an empty part"
        else:
            return
        raise UserError(f"config: layout: {self.text!r}: {why}; write it like '{{patient}}/{{study}}/*'")

    @functools.cached_property
    def _parts(self) -> list[str]:
        return re.sub(r"\.(dcm|mp4|avi|mov|mkv|webm)$", "", self.text, flags=re.I).split("/")

    def depth(self, field: str) -> int | None:
        """How many directories of a path say the field; None where the name of the file has a share in it.

        Raises `KeyError` if the field does not stand in the pattern.
        """
        return self._found[field][0]

    @functools.cached_property
    def _found(self) -> dict[str, tuple[int | None, re.Pattern[str]]]:
        """Of each field that stands in the pattern its depth, and what the path up to there looks like."""
        found: dict[str, tuple[int | None, re.Pattern[str]]] = {}
        for at, part in enumerate(self._parts):
            for field in FIELDS:
                if f"{{{field}}}" in part:
                    is_last = at == len(self._parts) - 1
                    found[field] = None if is_last else at + 1, re.compile("/".join(map(_regex, self._parts[: at + 1])))
        return found

    def value(self, field: str, path: str) -> str | None:
        """What the path of a file says of the field, None where it does not have the pattern's form.

        `path` is relative to the collection's directory, percent-encoded, without suffix.
        """
        if field not in self._found:
            return None
        depth, regex = self._found[field]
        parts = path.split("/")
        if depth is not None and len(parts) <= depth:
            return None
        match = regex.fullmatch("/".join(parts[:depth]))
        return match[field] if match else None


def _regex(part: str) -> str:
    """The regular expression of one part of a pattern."""
    pieces = re.split(r"(\*|\{patient\}|\{study\})", part)
    return "".join(
        "[^/]*" if piece == "*" else f"(?P<{piece[1:-1]}>[^/]+?)" if piece[:1] == "{" else re.escape(piece)
        for piece in pieces
    )
