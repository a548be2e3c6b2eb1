"""The house is as its docstrings say: a room imports only from floors below it."""

import ast
import re

import pytest

from testing import REPOSITORY

LIBRARY = REPOSITORY / "workflow/scripts/echo_embeddings"


def rooms(package):
    """The rooms in the order of the package's docstring, lowest floor first."""
    return re.findall(r"^    (\w+) {2,}\S", ast.get_docstring(ast.parse((package / "__init__.py").read_text())), re.M)


def imported(package, path):
    """The rooms of `package` that the module at `path` imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        top = path.parents[node.level - 1]
        if top == package:
            names |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
    return names


@pytest.mark.parametrize("package", [LIBRARY, LIBRARY / "qc"], ids=["library", "qc"])
def test_a_room_imports_only_from_floors_below_it(package):
    order = rooms(package)
    there = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert sorted(order) == sorted(there - {"__init__"})
    for floor, room in enumerate(order):
        paths = [package / f"{room}.py"] if (package / f"{room}.py").exists() else (package / room).glob("*.py")
        for path in paths:
            assert imported(package, path) <= set(order[:floor]), f"{path.name} looks up"


def test_the_library_knows_nothing_of_snakemake():
    for path in LIBRARY.rglob("*.py"):
        tree = ast.parse(path.read_text())
        names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level]
        assert not [name for name in names if name.split(".")[0].startswith("snakemake")], path
