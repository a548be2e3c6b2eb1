"""The package's parts are as their docstrings say: a part imports only from those below it."""

import ast
import re

import pytest

from echo_embeddings.convert.folder import convert_file
from echo_embeddings.convert.probe import probe_file
from echo_embeddings.core.workers import at_work
from echo_embeddings.embed.reader import share
from echo_embeddings.qc.index import make_index
from testing import REPOSITORY, tasks

PACKAGE = REPOSITORY / "workflow/scripts/echo_embeddings"


def listed(package):
    """The parts in the order of the package's docstring, lowest layer first."""
    return re.findall(r"^    (\w+) {2,}\S", ast.get_docstring(ast.parse((package / "__init__.py").read_text())), re.M)


def imported(package, path):
    """The parts of `package` that the module at `path` imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        if path.parents[node.level - 1] == package:
            names |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
    return names - {"__version__"}


@pytest.mark.parametrize("package", [PACKAGE, PACKAGE / "qc"], ids=["package", "qc"])
def test_a_part_imports_only_from_those_below_it(package):
    order = listed(package)
    there = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert sorted(order) == sorted(there - {"__init__"})
    for layer, part in enumerate(order):
        paths = [package / f"{part}.py"] if (package / f"{part}.py").exists() else (package / part).rglob("*.py")
        for path in paths:
            assert imported(package, path) <= {*order[:layer], part}, f"{path.relative_to(package)} imports upwards"


def test_every_import_within_the_package_is_relative():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and not node.level:
                assert node.module.split(".")[0] != "echo_embeddings", path


def test_the_library_knows_nothing_of_snakemake():
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level]
        assert not [name for name in names if name.split(".")[0].startswith("snakemake")], path


@pytest.mark.parametrize("function", [convert_file, probe_file, share])
def test_processes_that_decode_import_nothing_else(function):
    """torch takes longer to import than all that they need, and JSON Schema a third of what probing needs."""
    looked_for = [(name, function) for name in ("cv2", "torch", "jsonschema")]
    with at_work(tasks.imported, looked_for, 1, 600, limit="seconds") as results:
        assert [task[0] for task, made in results if made] == ["cv2"]


def test_the_index_does_not_wait_for_what_the_pages_need():
    looked_for = [(name, make_index) for name in ("jinja2", "torch", "sklearn", "scipy", "matplotlib")]
    with at_work(tasks.imported, looked_for, 1, 600, limit="seconds") as results:
        assert [task[0] for task, made in results if made] == ["jinja2"]
