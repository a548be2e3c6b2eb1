"""What a measurement's result says, which is text: a number, or why it is left out. Nothing is guessed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)"
THOUSANDS = r"[-+]?\d{1,3}(?:,\d{3})+\.\d+"  # without decimals 1,234 may as well be 1.234
UNIT = r"(?:\D*[^\d,.\s]\S*)?"
BOUND = re.compile(r"[<>≤≥]|=[<>]|(?:less|greater|more) than|at (?:least|most)|under|over|up to", re.IGNORECASE)
RANGE = re.compile(rf"({NUMBER})\s*(?:-|\N{{EN DASH}}|to)\s*({NUMBER})\s*({UNIT})", re.IGNORECASE)
SINGLE = re.compile(rf"({NUMBER}|{THOUSANDS})\s*({UNIT})")


class LeftOutError(Exception):
    """A result stands for no value."""

    def __init__(self, reason: str, text: str = "") -> None:
        """`text` is told with the reason, where that helps to extend a definition."""
        super().__init__(reason)
        self.reason, self.text = reason, text


@dataclass(frozen=True)
class Definition:
    """How results become a label; the keys are those of labels.schema.yaml."""

    name: str
    measurements: tuple[str, ...]
    units: Mapping[str, float]
    between: tuple[float, float]
    grades: Mapping[str, float]
    middle_of_ranges: bool
    without_test_types: tuple[str, ...]

    def value(self, result: str, unit: str) -> float:
        """The number that a result in `unit` stands for, in the label's unit. Raises `LeftOutError`."""
        result = result.strip()
        if not result:
            raise LeftOutError("empty")
        if self.grades:
            known = {same(text): number for text, number in self.grades.items()}
            if same(result) not in known:
                raise LeftOutError("not among the grades", result)
            return known[same(result)]
        found = self._number(result, unit)
        if not self.between[0] <= found <= self.between[1]:
            raise LeftOutError("not between {:g} and {:g}".format(*self.between))
        return found

    def _number(self, text: str, unit: str) -> float:
        if BOUND.match(text):
            raise LeftOutError("a bound, as < 20")
        if match := RANGE.fullmatch(text):
            if not self.middle_of_ranges:
                raise LeftOutError("a range, as 50-55")
            low, high = float(match[1]), float(match[2])
            if low > high:
                raise LeftOutError("a range from high to low", text)
            return (low + high) / 2 * self._factor(match[3], unit)
        if match := SINGLE.fullmatch(text):
            return float(match[1].replace(",", "")) * self._factor(match[2], unit)
        raise LeftOutError("a comma that may be of decimals or of thousands" if "," in text else "no number", text)

    def _factor(self, written: str, unit: str) -> float:
        """What makes a number with the unit `written` behind it, of a row that says `unit`, one in the label's unit."""
        written, unit = same(written), same(unit)
        if written and unit and written != unit:
            raise LeftOutError("two units", f"{written} and {unit}")
        factors = {same(name): factor for name, factor in self.units.items()}
        said = written or unit
        if said not in factors:
            raise LeftOutError("another unit" if said else "no unit", said)
        return factors[said]


def same(text: str) -> str:
    """A text as it is compared: in any case, with any spaces."""
    return " ".join(text.casefold().split())
