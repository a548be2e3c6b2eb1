"""Killing an extraction at any moment: what is saved is kept, and the next run completes it."""

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import test_embed
from conftest import REPOSITORY, SETTINGS
from echo_embeddings.convert import video
from echo_embeddings.core import manifest
from echo_embeddings.core.errors import UserError
from echo_embeddings.core.files import PART
from echo_embeddings.core.layout import Layout
from echo_embeddings.core.manifest import Row
from echo_embeddings.encoders import checkpoint
from echo_embeddings.encoders.architectures import ARCHITECTURES
from test_embed import Paths
from test_kill import processes_of

CLIPS = 24
SIZE = 64
KILLS = 20
SAVE_EVERY = 2

JOB = """
import sys
import time
sys.path[:0] = {paths!r}
from pathlib import Path
import test_kill_embed
from echo_embeddings.embed import inference

if __name__ == "__main__":
    real = inference.forward

    def slowly(*arguments):
        made = real(*arguments)
        print("a batch", flush=True)
        time.sleep({pause})
        return made

    inference.forward = slowly
    source, top = map(Path, sys.argv[1:])
    test_kill_embed.run(source, top, pooling={pooling!r}, save_every={save_every}, num_workers={workers})
"""


def run(source: Path, top: Path, pooling: str = "mean", **changes) -> None:
    paths = Paths(source / "mp4/p10", source / "tiny.pt", Layout(top))
    paths.table.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source / "mp4/p10.manifest.tsv", paths.table)
    changes = {"batch_size": 2, "threads": 1, "save_every": SAVE_EVERY} | changes
    test_embed.run(paths, max_failed_fraction=0, pooling=pooling, **changes)


def start(
    source: Path, top: Path, save_every: int, pause: float, workers: int = 0, pooling: str = "mean"
) -> subprocess.Popen:
    """A job that says when it has computed a batch, and then pauses, seconds."""
    script = source / f"job-{top.name}.py"
    paths = [str(REPOSITORY / "workflow/scripts"), str(REPOSITORY / "tests")]
    script.write_text(JOB.format(paths=paths, save_every=save_every, pause=pause, workers=workers, pooling=pooling))
    return subprocess.Popen(
        [sys.executable, script, source, top],
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def shards(top: Path) -> list[Path]:
    return list((top / "state/embed/tiny/p10").glob("*.pt"))


def saved(top: Path) -> int:
    """Clips with a vector in shards, each of which opens; in two, where the kill came while they were put together."""
    return len({key for path in shards(top) for key in torch.load(path)["keys"]})


def counts(top: Path) -> dict[str, int]:
    return json.loads((top / "embeddings/tiny_embeddings_p10.json").read_text())["counts"]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Clips, their manifest and a checkpoint; every run goes to a directory of its own below."""
    top = tmp_path_factory.mktemp("kill-embed")
    settings = dataclasses.replace(SETTINGS, size=SIZE)
    rows = []
    (top / "mp4/p10").mkdir(parents=True)
    for i in range(CLIPS):
        frames = np.random.default_rng(i).integers(0, 256, (18, SIZE, SIZE, 3), dtype=np.uint8)
        video.write(top / f"mp4/p10/{i:02d}.mp4", frames, settings, 30)
        size = (top / f"mp4/p10/{i:02d}.mp4").stat().st_size
        rows.append(Row(f"{i:02d}.dcm", f"{i:02d}.mp4", "converted", "", len(frames), mp4_bytes=size))
    manifest.write(top / "mp4/p10.manifest.tsv", rows)
    state = checkpoint.draw(ARCHITECTURES["vit_tiny"], 0).state_dict()
    checkpoint.save(top / "tiny.pt", {"encoder": state}, "drawn for a test")
    return top


@pytest.fixture(scope="module")
def expected(source) -> dict[str, torch.Tensor]:
    run(source, source / "undisturbed")
    return torch.load(source / "undisturbed/embeddings/tiny_embeddings_p10.pt")


def check(top: Path, expected: dict[str, torch.Tensor]) -> None:
    made = torch.load(top / "embeddings/tiny_embeddings_p10.pt")
    assert list(made) == list(expected)
    for key, vector in made.items():
        assert (vector - expected[key]).norm() / expected[key].norm() < 1e-5
    assert not list(top.rglob(f"*{PART}"))


def test_killed_at_twenty_moments(source, expected):
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    draw = random.Random(seed)
    between = 0
    for i in range(KILLS):
        top = source / f"killed-{i}"
        process = start(source, top, SAVE_EVERY, 0.02, workers=i % 4 == 0)
        if i < 3:  # while it starts
            time.sleep(draw.uniform(0, 2))
        else:
            wanted = 1 + (i - 3) * (CLIPS // SAVE_EVERY) // (KILLS - 3)
            while len(shards(top)) < wanted and process.poll() is None:
                time.sleep(0.002)
            time.sleep(draw.uniform(0, 0.1))
        if process.poll() is None:
            (os.killpg if i % 8 else os.kill)(process.pid, signal.SIGKILL)  # now and then its worker is left
        process.communicate()
        kept = saved(top)
        finished = (top / "embeddings/tiny_embeddings_p10.pt").exists()
        between += kept > 0 and not finished
        run(source, top)  # starts at once: no orphan holds the lock
        check(top, expected)
        assert finished or counts(top)["reused"] == kept
        shutil.rmtree(top)
    assert between >= 12


def test_killed_while_it_keeps_tokens(source, expected):
    """Vectors and features of one clip are two files; a kill between them loses and doubles nothing."""
    draw = random.Random(0)
    between = 0
    for i in range(5):
        top = source / f"tokens-{i}"
        process = start(source, top, SAVE_EVERY, 0.02, pooling="tokens")
        while len(list(top.rglob("*.safetensors"))) <= 2 * i and process.poll() is None:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.05))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        between += not (top / "embeddings/tiny_embeddings_p10.pt").exists()
        run(source, top, pooling="tokens")
        check(top, expected)
        keys = []
        for path in top.rglob("*.safetensors"):
            with safe_open(path, "pt") as shard:
                keys += list(shard.keys())
        assert sorted(keys) == list(expected)
        assert (top / "features/tokens/tiny/p10.index.tsv").read_text().count(".mp4") == CLIPS
    assert between >= 3


def test_workers_die_with_their_parent(source):
    process = start(source, source / "orphans", SAVE_EVERY, 0.2, workers=2)
    while "a batch" not in process.stdout.readline():
        assert process.poll() is None
    assert processes_of(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while left := processes_of(process.pid):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_sigterm_saves_what_is_finished_and_ends(source, expected):
    top = source / "terminated"
    process = start(source, top, save_every=1000, pause=0.2, workers=2)
    for _ in range(5):
        while "a batch" not in process.stdout.readline():
            assert process.poll() is None
    assert not shards(top)
    os.killpg(process.pid, signal.SIGTERM)  # workers too, as SLURM does
    assert process.wait(timeout=10) == 128 + signal.SIGTERM
    assert "stopped: TerminatedError; saving what is done" in process.stdout.read()
    kept = saved(top)
    assert 8 <= kept < CLIPS
    run(source, top)
    check(top, expected)
    assert counts(top)["reused"] == kept


def test_a_job_that_dies_of_a_full_disk_has_lost_nothing_that_was_saved(source, expected):
    top = source / "disk"
    top.mkdir()
    if (
        os.getuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", top], check=False).returncode
    ):
        pytest.skip("only root can mount a small disk")
    try:
        with pytest.raises(OSError, match="No space left on device"):
            run(source, top)
        kept = saved(top)
        assert 0 < kept < CLIPS
        subprocess.run(["mount", "-o", "remount,size=40m", top], check=True)
        run(source, top)
        check(top, expected)
        assert counts(top)["reused"] == kept
    finally:
        subprocess.run(["umount", "--lazy", top], check=True)


def test_two_jobs_on_one_folder_are_one_too_many(source, expected):
    process = start(source, source / "twice", SAVE_EVERY, 0.2)
    while "a batch" not in process.stdout.readline():
        assert process.poll() is None
    with pytest.raises(UserError, match="p10: another run is at work on this folder"):
        run(source, source / "twice")
    process.communicate()
    check(source / "twice", expected)
