"""The shipped profile on a real SLURM of one node: what a cluster does to jobs, and what becomes of the results.

The profile is used as it is; only the status command and the polling interval come from the command line. The
encoder runs on the CPU, because the node's two L40S are pretended; they are asked for and granted all the same.
"""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from pydicom.encaps import encapsulate, generate_frames

from conftest import REPOSITORY, run_snakemake
from echo_embeddings import demo, progress
from server import File, serving

pytestmark = pytest.mark.slurm

CLUSTER = Path(__file__).with_name("cluster.sh")
PROFILE = ("--profile", str(REPOSITORY / "profiles/slurm"))
POLLING = ("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "2")
SAVE_EVERY = 8
CHANGE = {"embed": {"num_frames": 4, "batch_size": 4, "save_every": SAVE_EVERY}}
LONG, SHORT = {"p10": 200}, {"p11": 40, "p12": 40, "p13": 40}  # clips a folder
PATIENCE = 400  # seconds until a test gives up waiting


# --- the cluster ------------------------------------------------------------------------------------


@pytest.fixture(scope="session", autouse=True)
def cluster(tmp_path_factory):
    """A SLURM of one node, which every command of these tests speaks to."""
    missing = [name for name in ("slurmctld", "slurmd", "munged", "sbatch", "unshare") if not find(name)]
    if missing:
        pytest.skip(f"no {', '.join(missing)} here; apt-get install slurm-wlm munge")
    if os.getuid() != 0:
        pytest.skip("only root can start slurmd")
    directory = tmp_path_factory.mktemp("cluster")
    started = subprocess.run([CLUSTER, "start", directory], capture_output=True, text=True, check=False)
    if started.returncode:
        pytest.skip(f"SLURM does not run here: {started.stderr}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(directory / "slurm.conf"))
        patch.setenv("PYTHONWARNINGS", "ignore")
        yield
    subprocess.run([CLUSTER, "stop", directory], check=True)


def find(name):
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")


@dataclasses.dataclass
class Job:
    """A job as SLURM tells of it."""

    number: str
    rule: str
    wildcards: str
    state: str
    partition: str
    gres: str | None
    minutes: int
    restarts: int


def jobs(work):
    """The jobs that Snakemake submitted from the directory, oldest first; MinJobAge keeps them in the list."""
    text = subprocess.run(
        ["scontrol", "show", "job", "--details", "--oneliner"], capture_output=True, text=True, check=True
    )
    found = []
    for line in text.stdout.splitlines():
        fields = dict(re.findall(r"(\S+?)=(\S*)", line))
        if str(work / ".snakemake") not in fields.get("StdOut", ""):
            continue
        rule, _, wildcards = fields["Comment"].removeprefix("rule_").partition("_wildcards_")
        hours, minutes, _ = map(int, fields["TimeLimit"].split("-")[-1].split(":"))
        gres = fields.get("JOB_GRES")
        found.append(
            Job(
                fields["JobId"],
                rule,
                wildcards,
                fields["JobState"],
                fields["Partition"],
                None if gres == "(null)" else gres,
                60 * hours + minutes,
                int(fields["Restarts"]),
            )
        )
    return sorted(found, key=lambda job: int(job.number))


def attempts(work, folder):
    """The embedding jobs of a folder, oldest first."""
    return [job for job in jobs(work) if job.rule == "embed" and job.wildcards == f"vit-tiny_{folder}"]


def until(condition, what):
    """Wait for `condition()` to be true, and return what it returns."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.2)
    return value


# --- the workflow -----------------------------------------------------------------------------------


def arguments(work, *more, profile=(*PROFILE, *POLLING), change=None):
    text = yaml.safe_dump(CHANGE | (change or {}))
    (work.parent / "change.yaml").write_text(text)
    configuration = ("--configfile", str(REPOSITORY / "config/demo.yaml"), str(work.parent / "change.yaml"))
    return [*configuration, *profile, *more]


@contextlib.contextmanager
def running(work, *more, **options):
    """Snakemake in the background; ends what is left of it."""
    command = [sys.executable, "-m", "snakemake", "-s", REPOSITORY / "workflow/Snakefile", "--directory", work]
    with (work.parent / "output.txt").open("w") as output:
        process = subprocess.Popen(
            [*command, *arguments(work, *more, **options)], stdout=output, stderr=subprocess.STDOUT
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def output(work):
    return (work.parent / "output.txt").read_text()


def record(work, folder):
    return json.loads((work / f"results/embeddings/vit-tiny_embeddings_{folder}.json").read_text())["counts"]


def vectors(work, folder):
    return torch.load(work / f"results/embeddings/vit-tiny_embeddings_{folder}.pt")


def target(folder):
    return f"results/embeddings/vit-tiny_embeddings_{folder}.pt"


def done(work, folder):
    """How many clips the folder's job has told of."""
    found = progress.read(work / "results/state/embed/vit-tiny" / folder)
    return found.done if found else 0


def saved(work, folder):
    """Whether the folder's job has saved vectors."""
    return any((work / "results/state/embed/vit-tiny" / folder).glob("*.pt"))


def process_of(work, folder):
    """The embedding process of a folder."""
    owner = (work / "results/state/embed/vit-tiny" / folder / "owner").read_text()
    return int(re.search(r"process (\d+)", owner)[1])


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(vector, b[key]) for key, vector in a.items())


def write_clips(directory, folders):
    """Windows of the demo's cine, each another."""
    source = demo._source(demo.LARGE)
    frames = list(generate_frames(source.PixelData, number_of_frames=int(source.NumberOfFrames)))
    for folder, clips in folders.items():
        for i in range(clips):
            first, length = i % 110, 5 + i // 110
            source.PixelData = encapsulate(frames[first : first + length])
            source.NumberOfFrames = length
            name = f"{folder}/{folder}{i:06d}/s{i:08d}/{i:08d}_0001.dcm"
            demo._identify(source, name)
            demo._write(source, directory / name)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A directory in which the short folders were embedded, without a cluster and without a mishap."""
    directory = tmp_path_factory.mktemp("undisturbed")
    (directory / "config").mkdir()
    shutil.copy(REPOSITORY / "config/demo-models.yaml", directory / "config")
    work = directory / "demo"
    write_clips(work / "dicom", LONG | SHORT)
    demo.write_weights(work / "weights/vit-tiny.pt", "vit_tiny", "encoder", 0)
    made = run_snakemake(work, *arguments(work, "--cores", "2", "--", *map(target, SHORT), profile=()))
    assert made.returncode == 0, made.stdout
    return work


@pytest.fixture
def work(undisturbed, tmp_path):
    """A copy of it with the MP4 trees and no embeddings."""
    shutil.copytree(undisturbed.parent / "config", tmp_path / "config")
    copy = shutil.copytree(undisturbed, tmp_path / "demo", symlinks=True)
    shutil.rmtree(copy / "results/embeddings")
    shutil.rmtree(copy / "results/state/embed")
    return copy


# --- the tests --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A directory in which the demo has run through the profile."""
    directory = tmp_path_factory.mktemp("finished")
    (directory / "config").mkdir()
    shutil.copy(REPOSITORY / "config/demo-models.yaml", directory / "config")
    work = directory / "demo"
    made = run_snakemake(work, "--cores", "2", snakefile="workflow/rules/demo.smk")
    assert made.returncode == 0, made.stdout
    result = run_snakemake(work, "--configfile", str(REPOSITORY / "config/demo.yaml"), *PROFILE, *POLLING)
    assert result.returncode == 0, result.stdout
    return work


def test_the_demo_runs_whole_and_each_job_gets_what_it_asked_for(finished):
    found = jobs(finished)
    assert {job.state for job in found} == {"COMPLETED"}
    assert sorted(job.rule for job in found) == [
        "convert",
        "convert",
        "embed",
        "embed",
        "merge",
        "qc_index",
        "qc_model",
    ]
    for job in found:
        gpu = job.rule == "embed"
        assert job.partition == ("mit_preemptable" if gpu else "mit_normal")
        assert job.gres == ("gpu:l40s:1" if gpu else None)
    cards = []
    for log in sorted((finished / "results/logs/embed/vit-tiny").glob("p1?.log")):
        first = log.read_text().splitlines()[0]
        number, card = re.fullmatch(r".*, SLURM job (\d+), CUDA_VISIBLE_DEVICES=(.*)", first).groups()
        assert number in {job.number for job in found if job.rule == "embed"}
        cards.append(card)
    # Submitted together, they ran side by side, each on a card of its own.
    assert sorted(cards) == ["0", "1"]
    for log in finished.glob("results/logs/convert/*/*.log"):
        assert "CUDA_VISIBLE_DEVICES" not in log.read_text()
    assert len(torch.load(finished / "results/embeddings/vit-tiny_embeddings_all.pt")) == 8
    assert (finished / "results/qc/index.html").is_file()


@pytest.fixture
def server(finished):
    """It has the checkpoint of the second model."""
    with serving() as server:
        server.files["/w.pt"] = File((finished / "weights/vit-tiny.pt").read_bytes())
        yield server


def test_a_second_model_is_fetched_on_the_head_node_and_uses_the_mp4_trees_again(finished, server):
    registry = yaml.safe_load((REPOSITORY / "config/demo-models.yaml").read_text())
    registry["second"] = {**registry["vit-tiny"], "checkpoint": "second.pt", "url": f"{server.url}/w.pt"}
    (finished.parent / "two.yaml").write_text(yaml.safe_dump(registry))
    (finished.parent / "change.yaml").write_text("models_file: ../two.yaml")
    files = [*(finished / "results/mp4").rglob("*.*"), *(finished / "results/embeddings").glob("vit-tiny*")]
    before = {path: path.stat().st_mtime_ns for path in files if path.is_file()}
    configuration = ("--configfile", str(REPOSITORY / "config/demo.yaml"), str(finished.parent / "change.yaml"))
    result = run_snakemake(
        finished, *PROFILE, *POLLING, *configuration, "--", "results/embeddings/second_embeddings_all.pt"
    )
    assert result.returncode == 0, result.stdout
    started = re.findall(r"^(?:local)?rule (\w+):", result.stdout, re.MULTILINE)
    assert started == ["download_weights_second", "embed", "embed", "merge"]
    assert "download_weights_second" not in {job.rule for job in jobs(finished)}
    assert len(server.requests) == 1
    assert {path: path.stat().st_mtime_ns for path in before} == before
    first, second = (
        torch.load(finished / f"results/embeddings/{name}_embeddings_all.pt") for name in ("vit-tiny", "second")
    )
    assert equal(first, second)  # it has the same weights


def test_a_preempted_job_goes_on_where_it_was(work):
    with running(work, "--", target("p10")) as snakemake:
        until(lambda: done(work, "p10") >= 60, "60 clips are done")
        higher = ["sbatch", "--parsable", "-p", "mit_normal", "-c", "64", "-o", "/dev/null", "--wrap", "sleep 5"]
        subprocess.run(higher, check=True, stdout=subprocess.DEVNULL)
        seen = 0
        while not (restarts := attempts(work, "p10")[0].restarts):
            assert snakemake.poll() is None, output(work)
            seen = max(seen, done(work, "p10"))
            time.sleep(0.2)
        assert snakemake.wait(PATIENCE) == 0, output(work)
    (job,) = attempts(work, "p10")  # one job, requeued by SLURM, not a second one by Snakemake
    assert (job.state, restarts, job.restarts) == ("COMPLETED", 1, 1)
    counts = record(work, "p10")
    print(f"told of {seen} clips before, used {counts['reused']} again")
    assert 60 - SAVE_EVERY <= counts["reused"] < 200
    assert seen - counts["reused"] <= SAVE_EVERY
    disturbed = vectors(work, "p10")
    shutil.rmtree(work / "results/embeddings")
    shutil.rmtree(work / "results/state/embed")
    undisturbed = run_snakemake(work, *arguments(work, "--cores", "2", "--", target("p10"), profile=()))
    assert undisturbed.returncode == 0, undisturbed.stdout
    assert (record(work, "p10")["reused"], record(work, "p10")["embedded"]) == (0, 200)
    assert equal(disturbed, vectors(work, "p10"))


def test_cancelled_timed_out_and_killed_jobs_are_tried_again_and_go_on(work, undisturbed):
    folders = list(SHORT)
    with running(work, "--", *map(target, folders)) as snakemake:
        untouched = set(folders)
        while untouched:
            assert snakemake.poll() is None, output(work)
            for folder in sorted(untouched):
                if saved(work, folder):
                    disturb(work, folder)
                    untouched.remove(folder)
            time.sleep(0.1)
        assert snakemake.wait(PATIENCE) == 0, output(work)
    ended = {folder: [job.state for job in attempts(work, folder)] for folder in folders}
    assert ended == {
        "p11": ["CANCELLED", "COMPLETED"],
        "p12": ["TIMEOUT", "COMPLETED"],
        "p13": ["FAILED", "COMPLETED"],
    }
    first, second = attempts(work, "p12")
    assert (first.minutes, second.minutes) == (1, 2 * attempts(work, "p11")[0].minutes)
    for folder in folders:
        assert SAVE_EVERY <= record(work, folder)["reused"] < SHORT[folder]
        assert equal(vectors(work, folder), vectors(undisturbed, folder))
    said = {folder: said_of(work, folder) for folder in folders}
    assert [len(lines) for lines in said.values()] == [1, 1, 1], said
    assert f"SLURM job {attempts(work, 'p11')[0].number} CANCELLED: " in said["p11"][0]
    assert f"SLURM job {first.number} TIMEOUT: " in said["p12"][0]
    assert f"SLURM job {attempts(work, 'p13')[0].number} FAILED: died with <Signals.SIGKILL: 9>" in said["p13"][0]


def disturb(work, folder):
    """Cancel the job of p11, let that of p12 hang until its time runs out, kill the process of p13."""
    (job,) = attempts(work, folder)
    process = process_of(work, folder)
    if folder == "p11":
        subprocess.run(["scancel", job.number], check=True)
    elif folder == "p12":
        os.kill(process, signal.SIGSTOP)
        subprocess.run(["scontrol", "update", f"JobId={job.number}", "TimeLimit=1"], check=True)
    else:
        os.kill(process, signal.SIGKILL)


def said_of(work, folder):
    """The lines that the terminal ended the folder's failures with."""
    return re.findall(rf"^embed vit-tiny {folder}: SLURM job \d+ .*", output(work), re.MULTILINE)


def test_snakemake_killed_while_a_job_runs(work, undisturbed):
    with running(work, "--", target("p11")) as snakemake:
        until(lambda: saved(work, "p11"), "p11 is under way")
        process = process_of(work, "p11")
        os.kill(process, signal.SIGSTOP)  # so that the job is at work below, whatever the speed of this machine
        snakemake.kill()
        snakemake.wait()
    (job,) = attempts(work, "p11")
    again = run_snakemake(work, *arguments(work, "--", target("p11")))
    assert again.returncode != 0
    assert "--unlock" in again.stdout
    assert run_snakemake(work, *arguments(work, "--unlock")).returncode == 0
    again = run_snakemake(work, *arguments(work, "--", target("p11")))
    assert again.returncode != 0
    assert f"jobs of an earlier run are still in the queue: {job.number} (embed vit-tiny_p11)" in again.stdout
    assert f"scancel {job.number}" in again.stdout
    assert "Traceback" not in again.stdout
    assert [found.number for found in attempts(work, "p11")] == [job.number]
    os.kill(process, signal.SIGCONT)
    until(lambda: attempts(work, "p11")[0].state == "COMPLETED", "the job of the killed Snakemake has ended")
    assert equal(vectors(work, "p11"), vectors(undisturbed, "p11"))
    made = record(work, "p11")
    again = run_snakemake(work, *arguments(work, "--", target("p11")))
    assert again.returncode == 0, again.stdout
    # Whether Snakemake takes the file as it is or asks for it again: no clip is computed a second time.
    assert record(work, "p11") == made or record(work, "p11")["reused"] == SHORT["p11"]
    assert equal(vectors(work, "p11"), vectors(undisturbed, "p11"))


def test_a_failure_names_its_job_its_logs_and_its_reason(work):
    for path in (work / "results/mp4/256/p11").rglob("*.mp4"):
        path.write_bytes(b"not a video")
    with running(work, "--", target("p11")) as snakemake:
        assert snakemake.wait(PATIENCE) == 1
    found = attempts(work, "p11")
    assert [job.state for job in found] == ["FAILED"] * 3  # retries: 2
    lines = said_of(work, "p11")
    assert [line.split()[5:7] for line in lines] == [[job.number, "FAILED:"] for job in found]
    for job, line in zip(found, lines, strict=True):
        assert "40 of 40 clips have no vector, more than embed.max_failed_fraction (0.05) allows" in line
        assert "[log: results/logs/embed/vit-tiny/p11.log; SLURM's: " in line
        assert Path(re.search(r"SLURM's: (.*)\]", line)[1]).name == f"{job.number}.log"
        assert Path(re.search(r"SLURM's: (.*)\]", line)[1]).is_file()
    assert "Traceback" not in output(work)
