"""The workflow and its commands as a user runs them, each in a process of its own."""

import contextlib
import functools
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from echo_embeddings.tools import cli

from . import REPOSITORY

# What is imported before Snakemake is forked: nothing of the package, and no Snakefile has been read.
SNAKEMAKE = ("jsonschema", "smart_open", "snakemake.cli")
# Before a benchmark is.
LIBRARY = ("benchmarks.common", "benchmarks.reference", "testing.planted", "echo_embeddings.embed.folder", "pandas")


def run_snakemake(
    directory: Path, *arguments: str, snakefile: str | Path = "workflow/Snakefile"
) -> subprocess.CompletedProcess:
    """The workflow in a working directory; stdout and stderr together in `stdout`."""
    command = ("-s", str(REPOSITORY / snakefile), "--directory", str(directory), *arguments)
    return run_module("snakemake", *command, imported=SNAKEMAKE)


def run_module(module: str, *arguments: str, imported: tuple[str, ...]) -> subprocess.CompletedProcess:
    """`python -m module argument ...`, forked with `imported` where that can be; both outputs in `stdout`."""
    # What was imported depends on Python's own variables; the others are handed on. One run at a time is forked.
    if of_python() == AT_FIRST and FORKING.acquire(blocking=False):
        try:
            return fork(imported, module, *arguments)
        finally:
            FORKING.release()
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=environment(),
    )


FORKING = threading.Lock()


@functools.cache
def forking(*imported: str, path: str | None = None) -> subprocess.Popen:
    """The process that forks with these modules; it ends with this one, which holds the other end of its stdin.

    `path` is its PYTHONPATH, if not that of this process.
    """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-m", "testing.forking", *imported]
    of_path = {} if path is None else {"PYTHONPATH": path}
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment() | of_path, **pipes)
    if not process.stdout.readline():  # else who asks it would wait for ever
        raise RuntimeError(f"testing.forking has ended with status {process.wait()}")
    return process


def fork(
    imported: tuple[str, ...], *command: str, cwd: Path | None = None, changes: dict[str, str] | None = None
) -> subprocess.CompletedProcess:
    """`python -m` with this command, without those imports; it too returns when nobody writes any more.

    It works in `cwd`, and in the environment of now with `changes`.
    """
    changes = changes or {}
    of_path = {"path": changes["PYTHONPATH"]} if "PYTHONPATH" in changes else {}
    with tempfile.TemporaryDirectory() as directory:
        pipe = os.path.join(directory, "said")
        os.mkfifo(pipe)
        process = forking(*imported, **of_path)
        order = [str(cwd or Path.cwd()), environment() | changes, pipe, *command]
        print(json.dumps(order), file=process.stdin, flush=True)
        said = Path(pipe).read_text()
        return subprocess.CompletedProcess(command, int(process.stdout.readline()), said)


def run_command(*arguments: str | Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    """The command `echo-embeddings` as a user runs it."""
    command = [sys.executable, "-m", "echo_embeddings.tools.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def call_command(*arguments: str | Path) -> subprocess.CompletedProcess:
    """The same within this process, which spares the start of another."""
    command, said, wrong = list(map(str, arguments)), io.StringIO(), io.StringIO()
    with contextlib.chdir(os.getcwd()), contextlib.redirect_stdout(said), contextlib.redirect_stderr(wrong):
        try:
            status = cli.main(command)
        except SystemExit as end:  # of a command that was called wrongly
            status = end.code
    return subprocess.CompletedProcess(command, status, said.getvalue(), wrong.getvalue())


def run_demo(directory, *arguments, change=None, snakefile="workflow/Snakefile"):
    """The demo's run; `change` is YAML to lay over its configuration."""
    files = [str(REPOSITORY / "config/demo.yaml")]
    if change:
        path = directory.parent / f"change-{os.getpid()}.yaml"  # pytest's processes share the finished demo
        path.write_text(change)
        files.append(str(path))
    return run_snakemake(directory, "--configfile", *files, "--cores", "2", *arguments, snakefile=snakefile)


ALL_AFTER_MERGE = {"merge vit-tiny", "qc_model vit-tiny", "qc_index", "all"}


def pending(directory, *arguments, **options) -> set[str]:
    """The jobs of a dry run, as `rule folder` or `rule model` and so on; `options` are those of `run_demo`."""
    result = run_demo(directory, "-n", *arguments, **options)
    assert result.returncode == 0, result.stdout
    jobs = set()
    for rule, block in re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)+)", result.stdout, re.MULTILINE):
        wildcards = re.search(r"wildcards: (.*)", block)
        values = [pair.split("=")[1] for pair in wildcards[1].split(", ")] if wildcards else []
        jobs.add(" ".join([rule, *values]))
    if not jobs:
        assert "Nothing to be done" in result.stdout
    return jobs


def copy_repository(to: Path) -> None:
    """What a user clones, and beside it the environment in which the tests run, as if `make test` had just made it."""
    for name in ("Makefile", "README.md", "pyproject.toml", "config", "docs", "profiles", "requirements", "workflow"):
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, to / name)
    (to / ".venv").mkdir()
    for entry in Path(sys.prefix).iterdir():
        if entry.suffix != ".stamp":
            (to / ".venv" / entry.name).symlink_to(entry)
    for name in ("run.stamp", "dev.stamp"):
        (to / ".venv" / name).touch()


def environment() -> dict[str, str]:
    """That of a user's shell: without what the `make` that runs the tests would hand to another `make`.

    Nor has it what pytest sets for each test, and what scikit-learn, torch and Polars set when they are imported.
    """
    ours = ("MAKE", "PYTEST_CURRENT_TEST", "KMP_", "TORCHINDUCTOR_CACHE_DIR", "_RJEM_MALLOC_CONF")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | {
        "PYTHONWARNINGS": "ignore"
    }


def of_python() -> dict[str, str]:
    """The variables that say where Python imports from, and what it does at its start."""
    return {name: value for name, value in os.environ.items() if name.startswith("PYTHON")}


AT_FIRST = of_python()
