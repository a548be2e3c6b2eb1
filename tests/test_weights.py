"""Rule download_weights as users meet it: only what is absent is fetched, and nothing that is there is touched."""

import json
import os
import re
import shutil
import threading
import time

import pytest
import yaml

from echo_embeddings.tools import demo
from testing import REPOSITORY
from testing.commands import run_demo, run_snakemake
from testing.server import File, serving

ABOUT = {"constructor": "vit_tiny", "resolution": 256, "embed_dim": 192, "batch_size": 4, "entry": "encoder"}
VECTORS = "results/embeddings/vit-tiny_embeddings_p11.pt"
RULE = "download_weights_vit-tiny"


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("weights") / "vit-tiny.pt"
    demo.write_weights(path, "vit_tiny", "encoder", seed=0)
    return path.read_bytes()


@pytest.fixture
def server(content):
    with serving() as server:
        server.files["/w/vit-tiny.pt"] = File(content)
        yield server


@pytest.fixture
def work(collection_dir, tmp_path, server):
    """A working directory of the demo without weights, whose registry says where to fetch them; one small folder."""
    (tmp_path / "config").mkdir()
    register(tmp_path, vit_tiny={"checkpoint": "vit-tiny.pt", "url": f"{server.url}/w/vit-tiny.pt"})
    work = tmp_path / "demo"
    source = sorted((collection_dir / "p11").rglob("*.dcm"))[0]
    target = work / "dicom" / source.relative_to(collection_dir)
    target.parent.mkdir(parents=True)
    shutil.copy(source, target)
    return work


def register(directory, **models):
    registry = {name.replace("_", "-"): {**ABOUT, **more} for name, more in models.items()}
    (directory / "config/demo-models.yaml").write_text(yaml.safe_dump(registry))


def identity(path):
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def test_one_that_is_there_is_never_touched_and_an_absent_one_is_not_fetched_by_a_dry_run(work, server, content):
    """That a run fetches it, the tests below see."""
    dry = run_demo(work, "-n", VECTORS)
    assert dry.returncode == 0, dry.stdout
    assert RULE in dry.stdout
    path = work / "weights/vit-tiny.pt"
    path.parent.mkdir()
    path.write_bytes(content)
    before = identity(path)
    register(work.parent, vit_tiny={"checkpoint": "vit-tiny.pt", "url": f"{server.url}/another.pt", "sha256": "0" * 64})
    forced = run_demo(work, "-n", "--forceall", VECTORS)
    assert forced.returncode == 0, forced.stdout
    assert "rule embed:" in forced.stdout
    assert "download_weights" not in forced.stdout
    run_demo(work, "-F", "weights/vit-tiny.pt")  # which no rule makes
    assert identity(path) == before
    assert path.read_bytes() == content
    assert not server.requests


@pytest.mark.slow
def test_only_an_absent_one_is_fetched_and_one_that_is_there_is_never_touched(work, server, content):
    dry = run_demo(work, "-n", VECTORS)
    assert dry.returncode == 0, dry.stdout
    assert RULE in dry.stdout
    assert not server.requests
    result = run_demo(work, VECTORS)
    assert result.returncode == 0, result.stdout
    path = work / "weights/vit-tiny.pt"
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["vit-tiny.pt"]
    assert len(server.requests) == 1

    before = identity(path)
    register(work.parent, vit_tiny={"checkpoint": "vit-tiny.pt", "url": f"{server.url}/another.pt", "sha256": "0" * 64})
    assert "Nothing to be done" in run_demo(work, "-n", VECTORS).stdout
    forced = run_demo(work, "--forceall", VECTORS)
    assert forced.returncode == 0, forced.stdout
    assert "download_weights" not in forced.stdout
    run_demo(work, "-F", "weights/vit-tiny.pt")  # which no rule makes
    assert identity(path) == before
    assert len(server.requests) == 1


def test_what_a_failed_job_fetched_is_kept_for_the_next(work, server, content):
    server.files["/w/vit-tiny.pt"] = File(content, status=404)
    result = run_demo(work, "weights/vit-tiny.pt")
    assert result.returncode == 1
    assert (
        "/w/vit-tiny.pt: the server has no such file (404); correct the url, or get the file by hand" in result.stdout
    )
    assert "Traceback" not in result.stdout
    # As a job leaves it that is killed halfway.
    server.files["/w/vit-tiny.pt"] = File(content, pause=0.001)
    job = threading.Thread(target=run_demo, args=(work, "weights/vit-tiny.pt"))
    job.start()
    part = work / "weights/vit-tiny.pt.part"
    while not part.exists() or part.stat().st_size < 100_000:
        assert job.is_alive()
        time.sleep(0.01)
    server.files["/w/vit-tiny.pt"] = File(content, status=403)
    server.stop_sending()
    job.join()
    have = part.stat().st_size
    assert 100_000 <= have < len(content)
    assert part.read_bytes() == content[:have]
    server.files["/w/vit-tiny.pt"] = File(content)
    assert run_demo(work, "weights/vit-tiny.pt").returncode == 0
    assert server.requests[-1][1]["Range"] == f"bytes={have}-"
    assert (work / "weights/vit-tiny.pt").read_bytes() == content


@pytest.mark.slow
def test_runs_at_once_fetch_it_once(work, server, content, tmp_path):
    """Two working directories, as two people have them, and one directory of weights."""
    server.files["/w/vit-tiny.pt"].pause = 0.0005
    other = tmp_path / "other"
    shutil.copytree(work, other)
    weights = tmp_path / "shared"
    results = []

    def run(directory):
        change = f"weights_dir: {weights}"
        results.append(run_demo(directory, str(weights / "vit-tiny.pt"), change=change))

    jobs = [threading.Thread(target=run, args=(directory,)) for directory in (work, other)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [result.returncode for result in results] == [0, 0], "\n".join(result.stdout for result in results)
    assert (weights / "vit-tiny.pt").read_bytes() == content
    assert len(server.requests) == 1
    assert os.listdir(weights) == ["vit-tiny.pt"]


def test_one_that_another_run_fetched_meanwhile_is_left_as_it_is(work, server, content):
    """It comes after the workflow was read and before the job starts, when Snakemake deletes what is to be made."""
    snakefile = work.parent / "Snakefile"
    snakefile.write_text(
        f"include: '{REPOSITORY}/workflow/Snakefile'\n"
        "onstart:\n    Path('weights').mkdir()\n    Path('another').rename('weights/vit-tiny.pt')\n"
    )
    (work / "another").write_bytes(content)
    inode = (work / "another").stat().st_ino
    result = run_snakemake(
        work,
        *("--configfile", str(REPOSITORY / "config/demo.yaml"), "--cores", "1", "weights/vit-tiny.pt"),
        snakefile=str(snakefile),
    )
    assert result.returncode == 0, result.stdout
    assert "it is there: left as it is" in (work / "results/logs/download_weights/vit-tiny.log").read_text()
    assert (work / "weights/vit-tiny.pt").stat().st_ino == inode
    assert not server.requests


def test_one_that_needs_hands_says_where_to_get_it_and_where_to_put_it(work):
    register(
        work.parent,
        vit_tiny={"checkpoint": "vit-tiny.pt", "obtain": "it lies in the drive folder https://example.org/x"},
        bare={"checkpoint": "/nowhere/bare.pt"},
    )
    result = run_demo(work, "-n")
    assert result.returncode == 1
    assert result.stdout.splitlines()[-1] == (
        "model vit-tiny: no checkpoint weights/vit-tiny.pt: it lies in the drive folder https://example.org/x; "
        "put the file there, or set weights_dir to where it lies"
    )
    result = run_demo(work, "-n", "results/embeddings/bare_embeddings_all.pt")
    assert "model bare: no checkpoint /nowhere/bare.pt: the registry has no url" in result.stdout


def test_the_registry_takes_no_address_with_a_password_and_no_half_digest(work):
    register(
        work.parent,
        vit_tiny={"checkpoint": "w.pt", "url": "https://me:secret@example.org/w.pt", "sha256": "abc"},
    )
    result = run_demo(work, "-n")
    assert result.returncode == 1
    assert "vit-tiny.sha256: 'abc' does not match" in result.stdout
    assert "vit-tiny.url" in result.stdout


def test_the_four_official_files_are_fetched_from_their_publisher():
    registry = yaml.safe_load((REPOSITORY / "config/models.yaml").read_text())
    for name in ("vitl", "vith", "vitg", "vitg-384"):
        assert registry[name]["url"] == f"https://dl.fbaipublicfiles.com/vjepa2/{name}.pt"


def test_what_lies_in_the_place_of_one_and_is_none_stops_before_any_job(work):
    (work / "weights").mkdir()
    (work / "weights/vit-tiny.pt").write_text("<!DOCTYPE html><html></html>")
    result = run_demo(work, VECTORS)
    assert result.returncode == 1
    assert result.stdout.splitlines()[-1].startswith("model vit-tiny: weights/vit-tiny.pt: a web page (HTML), ")
    assert not (work / "results/mp4").exists()
    shutil.rmtree(work / "weights")
    (work / "weights/vit-tiny.pt").mkdir(parents=True)
    result = run_demo(work, "-n", VECTORS)
    assert result.stdout.splitlines()[-1].startswith("model vit-tiny: weights/vit-tiny.pt: a directory; name the file")


# Python runs it at its start.
COUNTING = """
import atexit, sys
opened = []
sys.addaudithook(lambda event, what: opened.append(1) if event == "open" and str(what[0]).endswith(".pt") else None)
atexit.register(lambda: print("opened", len(opened)))
"""


def test_a_plan_looks_into_the_checkpoint_once_however_many_folders_there_are(work, content, monkeypatch):
    (work / "weights").mkdir()
    (work / "weights/vit-tiny.pt").write_bytes(content)
    (work / "sitecustomize.py").write_text(COUNTING)
    monkeypatch.setenv("PYTHONPATH", f"{work}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    (source,) = (work / "dicom").rglob("*.dcm")

    def opened():
        said = run_demo(work, "-n").stdout
        return said.count("rule embed:"), int(re.search(r"^opened (\d+)$", said, re.MULTILINE)[1])

    folders, looks = opened()
    for i in range(5):
        (work / f"dicom/q{i}").mkdir()
        shutil.copy(source, work / f"dicom/q{i}")
    assert (folders, *opened()) == (1, 6, looks)
    assert looks > 0


def test_one_that_was_fetched_by_hand_and_is_another_file_is_told_in_the_log(work, content):
    (work / "weights").mkdir()
    (work / "weights/vit-tiny.pt").write_bytes(content)
    register(work.parent, vit_tiny={"checkpoint": "vit-tiny.pt", "obtain": "by hand", "sha256": "0" * 64})
    merged = "results/embeddings/vit-tiny_embeddings_all.pt"
    result = run_demo(work, merged)
    assert result.returncode == 0, result.stdout
    log = (work / "results/logs/embed/vit-tiny/p11.log").read_text()
    assert "weights/vit-tiny.pt: another file than the registry's: its SHA-256 is " in log
    records = [json.loads((work / name).with_suffix(".json").read_text()) for name in (VECTORS, merged)]
    assert records[0]["short_fingerprint"] == records[1]["short_fingerprint"]
    assert records[1]["folders"] == ["p11"]
