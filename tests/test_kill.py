"""Killing a conversion at any moment, and full disks: what is done is kept, and the next run completes it."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import imageio_ffmpeg
import pytest

from echo_embeddings.collection.units import Folder
from echo_embeddings.convert import pictures, video
from echo_embeddings.convert.folder import convert_file
from echo_embeddings.core import manifest, workers
from testing.conversion import SETTINGS, convert_folder, paths_in
from testing.corpus import CINE
from testing.processes import processes_of, small_disk, start_python, until

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
CLIPS = 12


def folder_of(directory: Path, clips: int) -> Folder:
    directory.mkdir()
    for i in range(clips):
        shutil.copy(CINE["small"], directory / f"{i:03d}.dcm")
    return Folder("p10", str(directory))


@pytest.fixture
def folder(tmp_path) -> Folder:
    return folder_of(tmp_path / "dicom", CLIPS)


def finish(folder: Folder, top: Path) -> None:
    """Run in this process, with whatever is there already."""
    convert_folder(folder, paths_in(top), workers=1)


def start(folder: Folder, top: Path) -> subprocess.Popen:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return start_python("-m", "testing.conversion", folder.path, top, **quiet)


def tree(top: Path) -> dict[str, bytes]:
    mp4 = paths_in(top).tree
    return {str(p.relative_to(mp4)): p.read_bytes() for p in mp4.rglob("*") if p.is_file()}


def rows_done(top: Path) -> int:
    journal = paths_in(top).state / "rows.jsonl"
    return journal.read_text().count("\n") if journal.exists() else 0


@pytest.mark.parametrize(("clips", "kills"), [(8, 4), pytest.param(28, 20, marks=pytest.mark.slow)])
def test_killed_at_any_moment(tmp_path, clips, kills):
    """Kills are spread over the run, one in each part of it, from its start to its last clips."""
    folder = folder_of(tmp_path / "dicom", clips)
    finish(folder, tmp_path / "undisturbed")
    expected = tree(tmp_path / "undisturbed")
    table = paths_in(tmp_path / "undisturbed").table.read_text()
    assert len(expected) == clips

    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    draw = random.Random(seed)
    alone = set(draw.sample(range(kills), kills // 4))
    at_start = kills // 5 + 1
    landed = 0
    while landed < kills:  # a kill that comes too late, on a busy machine, is tried again
        top = tmp_path / "killed"
        process = start(folder, top)
        if landed < at_start:
            until(paths_in(top).state.exists, process)
            time.sleep(draw.uniform(0, 1))
        else:
            wanted = 1 + (clips - 4) * (landed - at_start) // max(1, kills - at_start - 1)
            until(lambda top=top, wanted=wanted: rows_done(top) >= wanted, process)
            time.sleep(draw.uniform(0, 0.1))
        ended = process.poll() is not None
        if not ended:
            (os.kill if landed in alone else os.killpg)(process.pid, signal.SIGKILL)
        process.wait()
        # Whole files only, whatever the moment.
        assert {name: made for name, made in tree(top).items() if name.endswith(".mp4")}.items() <= expected.items()
        finish(folder, top)  # starts at once: no orphan holds the lock
        assert tree(top) == expected
        assert paths_in(top).table.read_text() == table
        assert rows_done(top) == clips
        shutil.rmtree(top)
        landed += not ended


def test_workers_and_ffmpeg_die_with_their_parent(folder, tmp_path):
    process = start(folder, tmp_path / "out")
    until(lambda: rows_done(tmp_path / "out"), process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    until(lambda: not processes_of(process.pid))


def test_ffmpeg_has_ended_when_its_pool_has(folder, tmp_path, monkeypatch):
    """One that has only just started when its worker is killed: it would create its file after the sweep."""
    begun = tmp_path / "begun"
    late = tmp_path / "late-ffmpeg"
    late.write_text(f'#!/bin/sh\necho $$ > {begun}.new && mv {begun}.new {begun}\nsleep 3\nexec {FFMPEG} "$@"\n')
    late.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(late))
    files = [("/dev/null", "no-dicom"), (f"{folder.path}/000.dcm", "000.dcm")]
    tasks = [(*file, tmp_path / f"tree/{file[1]}.mp4", SETTINGS) for file in files]
    with pytest.raises(KeyboardInterrupt), workers.at_work(convert_file, tasks, 1, 600.0, limit="seconds") as results:
        next(results)
        until(begun.exists)
        raise KeyboardInterrupt
    assert not Path(f"/proc/{begun.read_text().strip()}/exe").exists()  # a zombie has none either
    assert not list(tmp_path.glob("tree/*"))


def test_a_long_clip_waits_beside_its_mp4(folder, tmp_path, monkeypatch):
    """And not in TMPDIR, which is another disk, and full here."""
    monkeypatch.setattr(pictures, "WAITING_MEMORY", 2**16)
    with small_disk(tmp_path / "tmp", "16k"):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
        row = convert_file(f"{folder.path}/000.dcm", "000.dcm", tmp_path / "tree/000.mp4", SETTINGS)
        assert (row.status, row.frames) == ("converted", 30)
    assert os.listdir(tmp_path / "tree") == ["000.mp4"]
    with small_disk(tmp_path / "full", "16k"), pytest.raises(OSError, match="No space left on device") as error:
        convert_file(f"{folder.path}/000.dcm", "000.dcm", tmp_path / "full/000.mp4", SETTINGS)
    assert error.value.filename.startswith(str(tmp_path / "full"))


def test_a_quota_that_ffmpeg_meets_is_a_full_disk(folder, tmp_path, monkeypatch):
    over = tmp_path / "over-quota"
    line = f"av_interleaved_write_frame(): {os.strerror(errno.EDQUOT)}"
    over.write_text(f"#!/bin/sh\ncat > /dev/null\necho '{line}' >&2\nexit 1\n")
    over.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(over))
    with pytest.raises(OSError, match="Disk quota exceeded"):
        convert_file(f"{folder.path}/000.dcm", "000.dcm", tmp_path / "tree/000.mp4", SETTINGS)


def test_ffmpeg_that_is_killed_now_and_then_fails_no_file(folder, tmp_path, monkeypatch):
    """Its first two runs end as if the kernel had taken them for their memory."""
    mortal = tmp_path / "mortal"
    mortal.write_text(
        f'#!/bin/sh\nfor i in 1 2; do mkdir {tmp_path}/run-$i 2> /dev/null && kill -KILL $$; done\nexec {FFMPEG} "$@"\n'
    )
    mortal.chmod(0o755)
    paths = paths_in(tmp_path)
    monkeypatch.setattr(video, "check", lambda settings: None)  # it would be the first run
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(mortal))
    rows = convert_folder(folder, paths)
    assert (tmp_path / "run-2").exists()
    assert {row.status for row in rows.values()} == {"converted"}


def test_a_full_disk_stops_the_job_with_nothing_half_written(folder, tmp_path):
    disk = tmp_path / "disk"
    paths = paths_in(disk)
    with small_disk(disk, "200k") as resize:
        with pytest.raises(OSError, match="No space left on device"):
            convert_folder(folder, paths)
        half = {p.name for p in disk.rglob("*") if p.is_file()} - {"lock", "owner", "rows.jsonl", "progress.json"}
        assert all(name.endswith(".mp4") for name in half)
        assert not paths.table.exists()
        done = rows_done(disk)
        assert 0 < done < CLIPS
        kept = {path: path.stat().st_mtime_ns for path in paths.tree.rglob("*.mp4")}
        resize("40m")
        finish(folder, disk)
        assert len(tree(disk)) == CLIPS
        journal = (paths.state / "rows.jsonl").read_text().splitlines()[:done]
        recorded = [json.loads(line)["row"]["mp4"] for line in journal]
        assert all((paths.tree / name).stat().st_mtime_ns == kept[paths.tree / name] for name in recorded)
        assert {row.status for row in manifest.read(paths.table)} == {"converted"}
