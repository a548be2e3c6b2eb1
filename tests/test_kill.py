"""Killing a conversion at any moment, and full disks: what is done is kept, and the next run completes it."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import REPOSITORY, SETTINGS
from echo_embeddings.collection.folders import Folder
from echo_embeddings.convert.folder import ConvertPaths, convert_folder
from echo_embeddings.core import manifest
from test_dicom import path_of

CLIPS = 28
KILLS = 20

JOB = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
from conftest import SETTINGS
from echo_embeddings import convert
from echo_embeddings.collection import Folder

if __name__ == "__main__":
    top = Path(sys.argv[1])
    places = convert.Places(top / "tree", top / "state", top / "m.tsv", top / "m.sha256")
    convert.convert_folder(
        Folder("p10", {folder!r}), places, SETTINGS, limit=0, workers=2, timeout=60, max_failed_fraction=1.0
    )
"""


def places_in(top: Path) -> ConvertPaths:
    return ConvertPaths(top / "tree", top / "state", top / "m.tsv", top / "m.sha256")


def finish(folder: Folder, top: Path) -> None:
    """Run in this process, with whatever is there already."""
    convert_folder(folder, places_in(top), SETTINGS, limit=0, workers=2, timeout=60, max_failed_fraction=1.0)


def tree(top: Path) -> dict[str, bytes]:
    return {str(p.relative_to(top / "tree")): p.read_bytes() for p in (top / "tree").rglob("*") if p.is_file()}


def rows_done(top: Path) -> int:
    journal = top / "state/rows.jsonl"
    return journal.read_text().count("\n") if journal.exists() else 0


@pytest.fixture
def folder(tmp_path) -> Folder:
    (tmp_path / "dicom").mkdir()
    for i in range(CLIPS):
        shutil.copy(path_of("pydicom/test_files/examples_ybr_color.dcm"), tmp_path / f"dicom/{i:03d}.dcm")
    return Folder("p10", str(tmp_path / "dicom"))


def start(folder: Folder, tmp_path: Path, top: Path) -> subprocess.Popen:
    script = tmp_path / "job.py"
    paths = [str(REPOSITORY / "workflow/scripts"), str(REPOSITORY / "tests")]
    script.write_text(JOB.format(paths=paths, folder=folder.path))
    return subprocess.Popen(
        [sys.executable, script, top], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def test_killed_at_twenty_moments(folder, tmp_path):
    began = time.monotonic()
    process = start(folder, tmp_path, tmp_path / "undisturbed")
    while not rows_done(tmp_path / "undisturbed"):
        time.sleep(0.01)
    first = time.monotonic() - began
    process.wait()
    last = time.monotonic() - began
    expected = tree(tmp_path / "undisturbed")
    table = (tmp_path / "undisturbed/m.tsv").read_text()
    assert len(expected) == CLIPS

    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}; an undisturbed run takes {last:.1f} s, its first file {first:.1f} s")
    draw = random.Random(seed)
    alone = set(draw.sample(range(KILLS), 5))
    between = 0
    for i in range(KILLS):
        top = tmp_path / f"killed-{i}"
        # Spread over the run, one drawn moment in each twentieth of it; the machine may be slower now than then.
        moment = time.monotonic() + (last - 0.3) * (i + draw.random()) / KILLS
        process = start(folder, tmp_path, top)
        while (time.monotonic() < moment and rows_done(top) < CLIPS - 3) or (i >= 3 and not rows_done(top)):
            if process.poll() is not None:  # the machine stalled; the count below judges
                break
            time.sleep(0.005)
        with contextlib.suppress(ProcessLookupError):
            (os.kill if i in alone else os.killpg)(process.pid, signal.SIGKILL)
        process.wait()
        done = rows_done(top)
        between += 0 < done < CLIPS
        # Whole files only, whatever the moment.
        assert {name: made for name, made in tree(top).items() if name.endswith(".mp4")}.items() <= expected.items()
        finish(folder, top)  # starts at once: no orphan holds the lock
        assert tree(top) == expected
        assert (top / "m.tsv").read_text() == table
        assert rows_done(top) == CLIPS
        shutil.rmtree(top)
    assert between >= 15


def test_workers_and_ffmpeg_die_with_their_parent(folder, tmp_path):
    top = tmp_path / "out"
    process = start(folder, tmp_path, top)
    while not rows_done(top):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while left := processes_of(process.pid):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def processes_of(session: int) -> list[str]:
    """What still runs in the session that a process led."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().rpartition(")")
        except OSError:  # it ended meanwhile
            continue
        state, _, _, number = rest.split()[:4]
        if int(number) == session and state != "Z":
            found.append(name)
    return found


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_stops_the_job_with_nothing_half_written(folder, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk], check=False)
    if mounted.returncode:
        pytest.skip("no mounts here")
    try:
        with pytest.raises(OSError, match="No space left on device"):
            finish(folder, disk)
        half = {p.name for p in disk.rglob("*") if p.is_file()} - {"lock", "owner", "rows.jsonl", "progress.json"}
        assert all(name.endswith(".mp4") for name in half)
        assert not (disk / "m.tsv").exists()
        done = rows_done(disk)
        assert 0 < done < CLIPS
        kept = {path: path.stat().st_mtime_ns for path in (disk / "tree").rglob("*.mp4")}
        subprocess.run(["mount", "-o", "remount,size=40m", disk], check=True)
        finish(folder, disk)
        assert len(tree(disk)) == CLIPS
        journal = (disk / "state/rows.jsonl").read_text().splitlines()[:done]
        recorded = [json.loads(line)["row"]["mp4"] for line in journal]
        assert all((disk / "tree" / name).stat().st_mtime_ns == kept[disk / "tree" / name] for name in recorded)
        assert {row.status for row in manifest.read(disk / "m.tsv")} == {"converted"}
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
