"""What the tests of the profile share: a real SLURM of one node, a collection, and what was said and done.

The profile is used as it is; only the status command and the polling interval come from the command line. The
encoder runs on the CPU, because the node's two L40S are pretended; they are asked for and granted all the same.

Much of the time here is waiting, so the tests run side by side, each process of pytest with a cluster of its own, and
Snakemake asks for its jobs more often (`testing.impatient`).
"""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from pydicom.encaps import encapsulate, generate_frames

from echo_embeddings.core import progress
from echo_embeddings.tools import demo
from testing import REPOSITORY
from testing.commands import run_snakemake
from testing.processes import environment_of_python

CLUSTER = Path(__file__).with_name("cluster.sh")
PROFILE = ("--profile", str(REPOSITORY / "profiles/slurm"))
POLLING = ("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "2")
SAVE_EVERY = 8
CHANGE = {"embed": {"num_frames": 4, "batch_size": 4, "save_every": SAVE_EVERY}}
PATIENCE = 800  # seconds until a test gives up waiting


# --- the cluster ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
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
    mb: int
    cores: int
    account: str
    nice: int
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
                number=fields["JobId"],
                rule=rule,
                wildcards=wildcards,
                state=fields["JobState"],
                partition=fields["Partition"],
                gres=None if gres == "(null)" else gres,
                minutes=60 * hours + minutes,
                mb=megabytes(fields["MinMemoryNode"]),
                cores=int(fields["NumCPUs"]),
                account=fields["Account"],
                nice=int(fields["Nice"]),
                restarts=int(fields["Restarts"]),
            )
        )
    return sorted(found, key=lambda job: int(job.number))


def megabytes(text):
    """SLURM writes 20480M as 20G."""
    return int(text[:-1]) * {"M": 1, "G": 1024}[text[-1]]


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


def arguments(work, *more, profile=(*PROFILE, *POLLING), change=CHANGE):
    """What a command line says of an own collection: its configuration, the profile, and `more`."""
    (work.parent / "change.yaml").write_text(yaml.safe_dump(change))
    configuration = ("--configfile", str(REPOSITORY / "config/demo.yaml"), str(work.parent / "change.yaml"))
    return [*configuration, *profile, *more]


def command(work, *more, **options):
    """Snakemake on the cluster; `options` are those of `arguments`."""
    snakemake = [
        sys.executable,
        "-m",
        "testing.impatient",
        "-s",
        REPOSITORY / "workflow/Snakefile",
        "--directory",
        work,
    ]
    return [*snakemake, *arguments(work, *more, **options)]


def run(work, *more, **options):
    """Its end; both outputs together in `stdout`."""
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(command(work, *more, **options), text=True, check=False, env=environment_of_python(), **both)


@contextlib.contextmanager
def running(work, *more, **options):
    """Snakemake in the background; ends what is left of it."""
    with (work.parent / "output.txt").open("w") as output:
        process = subprocess.Popen(
            command(work, *more, **options), stdout=output, stderr=subprocess.STDOUT, env=environment_of_python()
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


def write_world(directory, folders):
    """A working directory with clips and weights, and beside it the registry; returns it."""
    (directory / "config").mkdir()
    shutil.copy(REPOSITORY / "config/demo-models.yaml", directory / "config")
    work = directory / "demo"
    write_clips(work / "dicom", folders)
    demo.write_weights(work / "weights/vit-tiny.pt", "vit_tiny", "encoder", 0)
    return work


def run_here(work, *targets, change=CHANGE):
    """Make the targets without a cluster and without a mishap."""
    made = run_snakemake(work, *arguments(work, "--cores", "2", "--", *targets, profile=(), change=change))
    assert made.returncode == 0, made.stdout


def forget_vectors(work):
    shutil.rmtree(work / "results/embeddings")
    shutil.rmtree(work / "results/state/embed")


def said_of(work, folder):
    """The lines that the terminal ended the folder's failures with."""
    return re.findall(rf"^embed vit-tiny {folder}: .*", output(work), re.MULTILINE)


def check_line(work, line, job, reason):
    """The line names rule, model, folder, SLURM's job and its state, why, and both logs, which are there."""
    log = f"results/logs/embed/{job.wildcards.replace('_', '/')}.log"
    name = job.wildcards.replace("_", " ")
    start, own, of_slurm = re.fullmatch(r"(.*)  \[log: (.*); SLURM's: (.*)\]", line).groups()
    assert re.fullmatch(rf"embed {name}: SLURM job {job.number} {job.state}: {reason}", start), line
    assert own == log
    assert (work / own).is_file()
    assert Path(of_slurm).name == f"{job.number}.log"
    assert Path(of_slurm).is_file()
