"""Fixtures that several files of tests use."""

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Some virtual machines advertise AMX and trap on its first instruction; torch must not have looked yet.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores: threads of one would wait for the others'
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# More threads than free cores, as those of a job beside this process: one that waits must not spin for others' cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Some containers set it: hundreds of processes would each compile the package.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import torch

from echo_embeddings.core import manifest
from echo_embeddings.core.layout import Layout
from echo_embeddings.core.locks import file_lock
from echo_embeddings.core.manifest import Row
from echo_embeddings.embed import inference
from echo_embeddings.tools import demo
from testing import REPOSITORY
from testing.browser import CHROMIUM
from testing.commands import copy_repository, environment
from testing.conversion import write_pattern
from testing.embedding import EmbedPaths, write_weights
from testing.qc import Collection


def pytest_xdist_auto_num_workers():
    """One process more than cores, four at most: many tests wait for other processes most of their time."""
    return min(4, len(os.sched_getaffinity(0)) + 1)


LONG = ("test_benchmarks", "test_divided_runs", "test_kill_embed", "test_kill", "test_units", "test_cards")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Long tests come early: processes without work take over what others have last, and that should be short.

    The first process begins with those that run the workflow, the second with those of LONG.
    """
    workflow = [item for item in items if "finished" in item.fixturenames]
    long = [item for item in items if item.path.stem in LONG and item not in workflow]
    others = [item for item in items if item not in workflow and item not in long]
    share = len(items) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    first = max(0, share - len(workflow))
    items[:] = [*workflow, *others[:first], *long, *others[first:]]


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What is imported here stays: a third of the time would go into looking for garbage in it, and more later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_runtest_setup(item):
    """Skip what needs a GPU where torch sees none."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no GPU here")


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Makes a directory once for all of pytest's processes: `made_once(name, make)`; `make` gets the empty one."""
    top = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        top = top.parent

    def directory_of(name: str, make: Callable[[Path], object]) -> Path:
        directory, done = top / name, top / f"{name}.done"
        with file_lock(top / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(directory, ignore_errors=True)
                directory.mkdir()
                make(directory)
                done.touch()
        return directory

    return directory_of


def make_demo(directory: Path) -> None:
    """`make demo` in a copy of the repository; what it said stands in said.txt."""
    copy_repository(directory)
    with (directory / "said.txt").open("w") as said:
        status = subprocess.call(["make", "demo"], cwd=directory, stdout=said, stderr=said, env=environment())
        print("exit status", status, file=said)


@pytest.fixture(scope="session")
def finished(made_once) -> Path:
    """A directory in which `make demo` has run; copy it before changing it."""
    directory = made_once("repository", make_demo)
    text = (directory / "said.txt").read_text()
    assert text.endswith("The report: demo/results/qc/index.html\nexit status 0\n"), text
    return directory / "demo"


@pytest.fixture
def work(finished, tmp_path) -> Path:
    """A copy of it to change."""
    shutil.copytree(finished.parent / "config", tmp_path / "config")
    return shutil.copytree(finished, tmp_path / "demo", symlinks=True)


def install_wheel(directory: Path) -> None:
    """Build the package's wheel, and install it into `directory`/target."""
    for name in ("pyproject.toml", "LICENSE", "workflow"):  # pip builds where the source lies
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, directory / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(directory), str(directory)]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = directory.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(directory / "target"), str(wheel)], check=True)


@pytest.fixture(scope="session")
def installed(made_once) -> Path:
    """A directory in which the package's wheel is installed."""
    return made_once("wheel", install_wheel) / "target"


@pytest.fixture(scope="session")
def collection_dir(made_once) -> Path:
    """The demo's collection; copy it before changing it."""
    return made_once("collection", demo.write_collection)


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory) -> Path:
    """A drawn checkpoint of the small encoder."""
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    write_weights(path)
    return path


@pytest.fixture
def write_video(tmp_path):
    """Writes such a pattern to a name below tmp_path; returns its path."""
    return lambda name, **options: write_pattern(tmp_path / name, **options)


SIX = (20, 21, 9, 23, 24, 25)  # frames


def write_six(top: Path) -> None:
    for i, frames in enumerate(SIX):
        write_pattern(top / f"s{i}/clip.mp4", frames, seed=i)


@pytest.fixture
def six_clips(tmp_path, tiny_weights, made_once) -> EmbedPaths:
    """Six clips of different content, the third of 9 frames, and their manifest, to be embedded."""
    tree = shutil.copytree(made_once("six", write_six), tmp_path / "mp4/p10")
    rows = []
    for i, frames in enumerate(SIX):
        size = (tree / f"s{i}/clip.mp4").stat().st_size
        rows.append(Row(f"s{i}/clip.dcm", f"s{i}/clip.mp4", "converted", "", frames, mp4_bytes=size))
    rows.append(Row("s0/still.dcm", "", "skipped", "single frame"))
    paths = EmbedPaths(tree, tiny_weights, Layout(tmp_path / "results"))
    manifest.write(paths.table, rows)
    return paths


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  few tests need it

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def collection(tmp_path) -> Collection:
    """Vectors of twenty clips in two folders, for a quality page."""
    return Collection(tmp_path)


@pytest.fixture
def scalar_code():
    """What torch compiles has no vector instructions: it would first compile and run a program for each kind."""
    with torch._inductor.config.patch({"cpp.vec_isa_ok": False}):
        yield


@pytest.fixture
def computed(monkeypatch) -> list[int]:
    """How many clips each batch had that this process has shown to an encoder."""
    sizes, real = [], inference.forward

    def counted(encoder, clips, *rest):
        sizes.append(len(clips))
        return real(encoder, clips, *rest)

    monkeypatch.setattr(inference, "forward", counted)
    return sizes
