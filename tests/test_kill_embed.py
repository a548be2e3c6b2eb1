"""Killing an extraction at any moment: what is saved is kept, and the next run completes it."""

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
import torch
from safetensors import safe_open

from echo_embeddings.core.errors import UserError
from echo_embeddings.core.files import PART
from echo_embeddings.embed import folder
from echo_embeddings.embed.reader import Reader
from testing.embedding import CLIPS, SAVE_EVERY, EmbedPaths, paths_in, run_job, write_source
from testing.embedding_job import HostileReader
from testing.processes import PATIENCE, environment_of_python, processes_of, small_disk, start_python, until


def start(source: Path, top: Path, pause: float = 0, hold: int = 0, **options) -> subprocess.Popen:
    """A job that pauses after every batch, seconds, and after batch `hold` until the file `go` is there."""
    arguments = (source, top, str(pause), str(hold), json.dumps(options))
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return start_python("-m", "testing.embedding_job", *arguments, **quiet)


def batches(process: subprocess.Popen, number: int) -> None:
    """Wait until the job has computed so many."""
    for _ in range(number):
        while "a batch" not in process.stdout.readline():
            assert process.poll() is None


def written(top: Path) -> EmbedPaths:
    """What a job leaves below `top`; what it read does not matter."""
    return paths_in(Path(), top)


def shards(top: Path) -> list[Path]:
    return list(written(top).state.glob("*.pt"))


def saved(top: Path) -> int:
    """Clips with a vector in shards, each of which opens; in two, where the kill came while they were put together."""
    return len({key for path in shards(top) for key in torch.load(path)["keys"]})


def counts(top: Path) -> dict[str, int]:
    return json.loads(written(top).run.read_text())["counts"]


@pytest.fixture(scope="session")
def source(made_once) -> Path:
    """Every run goes to a directory of its own."""
    return made_once("kill-embed", write_source)


@pytest.fixture(scope="session")
def expected(source, made_once) -> dict[str, torch.Tensor]:
    undisturbed = made_once("kill-embed-undisturbed", lambda top: run_job(source, top))
    return torch.load(written(undisturbed).vectors)


def check(top: Path, expected: dict[str, torch.Tensor]) -> None:
    made = torch.load(written(top).vectors)
    assert list(made) == list(expected)
    for key, vector in made.items():
        assert (vector - expected[key]).norm() / expected[key].norm() < 1e-5
    assert not list(top.rglob(f"*{PART}"))


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_any_moment(source, expected, tmp_path, kills):
    """Kills are spread over the run, one in each part of it, from its start to its last clips."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    draw = random.Random(seed)
    at_start = kills // 5 + 1
    landed = 0
    while landed < kills:  # a kill that comes too late, on a busy machine, is tried again
        top = tmp_path / "killed"
        process = start(source, top, pause=0.02, num_workers=int(landed % 4 == 0))
        if landed < at_start:
            time.sleep(draw.uniform(0, 2))
        else:
            wanted = 1 + (landed - at_start) * (CLIPS // SAVE_EVERY) // (kills - at_start)
            until(lambda top=top, wanted=wanted: len(shards(top)) >= wanted, process)
            time.sleep(draw.uniform(0, 0.1))
        if process.poll() is None:
            (os.killpg if landed % 8 else os.kill)(process.pid, signal.SIGKILL)  # now and then its worker is left
        process.communicate()
        kept = saved(top)
        finished = written(top).vectors.exists()
        run_job(source, top)  # starts at once: no orphan holds the lock
        check(top, expected)
        assert finished or counts(top)["reused"] == kept
        shutil.rmtree(top)
        landed += not finished and (kept > 0 or landed < at_start)


@pytest.mark.parametrize("kills", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_killed_while_it_keeps_tokens(source, expected, tmp_path, kills):
    """Vectors and features of one clip are two files; a kill between them loses and doubles nothing."""
    draw = random.Random(0)
    landed = 0
    while landed < kills:  # as above
        top = tmp_path / "tokens"
        process = start(source, top, pause=0.02, pooling="tokens")
        wanted = 1 + 8 * landed // (kills - 1)
        until(lambda top=top, wanted=wanted: len(list(top.rglob("*.safetensors"))) >= wanted, process)
        time.sleep(draw.uniform(0, 0.05))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        landed += not written(top).vectors.exists()
        run_job(source, top, pooling="tokens")
        check(top, expected)
        keys = []
        for path in top.rglob("*.safetensors"):
            with safe_open(path, "pt") as shard:
                keys += list(shard.keys())
        assert sorted(keys) == list(expected)
        assert (top / "features/tokens/tiny/p10.index.tsv").read_text().count(".mp4") == CLIPS
        shutil.rmtree(top)


def test_workers_die_with_their_parent(source, tmp_path):
    process = start(source, tmp_path, hold=1, num_workers=2)
    batches(process, 1)
    assert processes_of(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    until(lambda: not processes_of(process.pid))


def test_nothing_depends_on_dev_shm(source, expected, tmp_path):
    """Full, as in a container where another program fills its 64 MB."""
    script = 'mount -t tmpfs -o size=4k tmpfs /dev/shm && head -c 4k /dev/zero > /dev/shm/full && exec "$@"'
    job = (sys.executable, "-m", "testing.embedding_job", source, tmp_path, "0", "0", '{"num_workers": 2}')
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *map(str, job)],
        env=environment_of_python(), capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    if "unshare" in done.stderr:
        pytest.skip("only root can give a process a /dev/shm of its own")
    assert done.returncode == 0, done.stderr
    check(tmp_path, expected)


@pytest.mark.parametrize("what", ["hang", "crash", "die", "die once"])
def test_a_clip_that_ends_its_reader_is_one_failed_row(source, expected, tmp_path, monkeypatch, what):
    """It hangs or crashes its decoder, or the kernel kills that for its memory."""
    monkeypatch.setattr(folder, "Reader", lambda *keys: HostileReader(Reader(*keys), what, tmp_path / "attempts"))
    reason = {
        "hang": "took longer than 6 s (embed.timeout)",
        "crash": "the decoder crashed (exit code -6)",
        "die": "the decoder was killed; the job ran out of memory?",
    }.get(what)
    timeout = 6.0 if what == "hang" else 600.0
    run_job(source, tmp_path, num_workers=2, timeout=timeout, max_failed_fraction=0.1)
    failed = paths_in(source, tmp_path).failed.read_text().splitlines()[1:]
    assert failed == ([f"05.mp4\t{reason}"] if reason else [])
    check(tmp_path, {key: vector for key, vector in expected.items() if not reason or key != "05.mp4"})
    assert (tmp_path / "attempts").stat().st_size == {"die": 3, "die once": 2}.get(what, 1)


def test_sigterm_saves_what_is_finished_and_ends(source, expected, tmp_path):
    process = start(source, tmp_path, hold=5, save_every=1000, num_workers=2)
    batches(process, 5)
    assert not shards(tmp_path)
    os.killpg(process.pid, signal.SIGTERM)  # workers too, as SLURM does
    assert process.wait(timeout=PATIENCE) == 128 + signal.SIGTERM
    assert "stopped: TerminatedError; saving what is done" in process.stdout.read()
    kept = saved(tmp_path)
    assert 8 <= kept < CLIPS
    run_job(source, tmp_path)
    check(tmp_path, expected)
    assert counts(tmp_path)["reused"] == kept


def test_a_job_that_dies_of_a_full_disk_has_lost_nothing_that_was_saved(source, expected, tmp_path):
    with small_disk(tmp_path / "disk", "40k") as resize:
        top = tmp_path / "disk"
        with pytest.raises(OSError, match="No space left on device"):
            run_job(source, top)
        kept = saved(top)
        assert 0 < kept < CLIPS
        resize("40m")
        run_job(source, top)
        check(top, expected)
        assert counts(top)["reused"] == kept


def test_two_jobs_on_one_folder_are_one_too_many(source, expected, tmp_path):
    process = start(source, tmp_path, hold=1)
    batches(process, 1)
    with pytest.raises(UserError, match="p10: another run is at work on this folder"):
        run_job(source, tmp_path)
    (tmp_path / "go").touch()
    process.communicate()
    check(tmp_path, expected)
