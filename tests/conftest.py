import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import filelock
import numpy as np
import pytest

# Some virtual machines advertise AMX and trap on its first instruction; torch must not have looked yet.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores: threads of one would wait for the others'
    os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).resolve().parents[1]

from echo_embeddings.convert import video  # noqa: E402
from echo_embeddings.core import configuration, settings  # noqa: E402
from echo_embeddings.encoders import checkpoint  # noqa: E402
from echo_embeddings.encoders.architectures import ARCHITECTURES  # noqa: E402
from echo_embeddings.encoders.vjepa import Encoder  # noqa: E402
from echo_embeddings.tools import demo  # noqa: E402

SETTINGS = settings.convert_settings(configuration.defaults(), 256)


def run_snakemake(
    directory: Path, *arguments: str, snakefile: str | Path = "workflow/Snakefile"
) -> subprocess.CompletedProcess:
    """The workflow as a user runs it; stdout and stderr together in `stdout`."""
    command = [sys.executable, "-m", "snakemake", "-s", str(REPOSITORY / snakefile), "--directory", str(directory)]
    return subprocess.run(
        [*command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=environment(),
    )


def run_command(*arguments: str | Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    """The command `echo-embeddings` as a user runs it."""
    command = [sys.executable, "-m", "echo_embeddings.tools.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def run_demo(directory, *arguments, change=None, snakefile="workflow/Snakefile"):
    """The demo's run; `change` is YAML to lay over its configuration."""
    files = [str(REPOSITORY / "config/demo.yaml")]
    if change:
        path = directory.parent / f"change-{os.getpid()}.yaml"  # pytest's processes share the finished demo
        path.write_text(change)
        files.append(str(path))
    return run_snakemake(directory, "--configfile", *files, "--cores", "2", *arguments, snakefile=snakefile)


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
    """That of a user's shell: without what the `make` that runs the tests would hand to another `make`."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MAKE")} | {
        "PYTHONWARNINGS": "ignore"
    }


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """A directory in which `make demo` has run, once for all of pytest's processes; copy it before changing it."""
    directory = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        directory = directory.parent
    directory /= "repository"
    with filelock.FileLock(f"{directory}.lock"):
        if not directory.exists():
            directory.mkdir()
            copy_repository(directory)
            with (directory / "said.txt").open("w") as said:
                status = subprocess.call(["make", "demo"], cwd=directory, stdout=said, stderr=said, env=environment())
                print("exit status", status, file=said)
    text = (directory / "said.txt").read_text()
    assert text.endswith("The report: demo/results/qc/index.html\nexit status 0\n"), text
    return directory / "demo"


@pytest.fixture(scope="session")
def installed(tmp_path_factory) -> Path:
    """A directory in which the package's wheel is installed."""
    directory = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "LICENSE", "workflow"):  # pip builds where the source lies
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, directory / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(directory), str(directory)]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = directory.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(directory / "target"), str(wheel)], check=True)
    return directory / "target"


@pytest.fixture(scope="session")
def collection_dir(tmp_path_factory) -> Path:
    """The demo's collection; copy it before changing it."""
    directory = tmp_path_factory.mktemp("collection")
    demo.write_collection(directory)
    return directory


@pytest.fixture(scope="session")
def large_encoder() -> Encoder:
    """A ViT-L with drawn weights under which different videos lie apart."""
    return checkpoint.draw(ARCHITECTURES["vit_large"], seed=1)


@pytest.fixture
def write_video(tmp_path):
    """Writes a small moving pattern to an MP4 below tmp_path; returns its path."""

    def write(name: str, frames: int = 20, size: int = 64, seed: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        blob = np.kron(rng.integers(0, 256, (size // 8, size // 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        made = dataclasses.replace(SETTINGS, size=size)
        video.write(path, (np.roll(blob, i, axis=1) for i in range(frames)), made, 30)
        return path

    return write
