"""What the configuration asks to be predicted. It is read while a run is planned."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..core.errors import UserError
from ..core.settings import KEY_COLUMNS, Table
from ..tables import selection

REGRESSION, CLASSIFICATION = "regression", "classification"
OF_EACH, OF_MEANS, BOTH = "predictions", "vectors", "both"  # what is averaged over the clips of a unit


@dataclass(frozen=True)
class Task:
    """A label to be predicted."""

    name: str
    file: str  # the table
    by: str  # what a row of it is of, and so a unit of the evaluation: path, study or patient
    key: str  # the table's column that names it
    target: str  # its column that is predicted
    kind: str
    split: str | None  # its column that says which units train and which test
    pool: str
    where: str | None  # which clips take part, an expression as `select`

    @property
    def table(self) -> Table:
        """The label table, for a join."""
        columns = (self.target, self.split) if self.split else (self.target,)
        return Table(self.file, self.by, self.key, columns, f"evaluate.tasks.{self.name}")

    @property
    def pools(self) -> tuple[str, ...]:
        """What is averaged, the first for the figure that counts; of clips themselves there is nothing to average."""
        if self.by == "path":
            return (OF_EACH,)
        return (OF_EACH, OF_MEANS) if self.pool == BOTH else (self.pool,)


def tasks(config: Mapping[str, Any]) -> dict[str, Task]:
    """Those of the configuration, by name. Raises `UserError`, one line for each mistake."""
    made = {name: _task(name, entry) for name, entry in config["evaluate"]["tasks"].items()}
    if wrong := [line for task in made.values() for line in _mistakes(task)]:
        raise UserError("\n".join(wrong))
    return made


def _task(name: str, entry: Mapping[str, Any]) -> Task:
    return Task(
        name=name,
        file=entry["table"],
        by=entry["by"],
        key=entry.get("key", KEY_COLUMNS[entry["by"]]),
        target=entry["target"],
        kind=entry["kind"],
        split=entry.get("split"),
        pool=entry.get("pool", OF_EACH),
        where=entry.get("where"),
    )


def _mistakes(task: Task) -> Iterator[str]:
    """What the schema cannot say; of a table, once it is there."""
    where = f"config: evaluate.tasks.{task.name}"
    if task.split == task.target:
        yield f"{where}: split and target are the same column {task.target!r}"
    if task.target == task.key:
        yield f"{where}: target is the key {task.key!r}; name the column to be predicted"
    if task.by == "path" and task.pool != OF_EACH:
        yield f"{where}: pool: there is nothing to average where a label is a clip's (by: path); leave it out"
    try:
        if task.where:
            selection.parse(task.where, key=f"evaluate.tasks.{task.name}.where")
    except UserError as error:
        yield str(error)


def selecting(tasks: Mapping[str, Task]) -> set[str]:
    """The columns that the conditions of the tasks name."""
    return {name for task in tasks.values() if task.where for name in selection.parse(task.where)}
