"""What it costs to read the workflow: CPU of `snakemake -n`, and of a cluster's job before it is at work.

    python -m benchmarks.reading                             3,500 patients' folders, one file each
    python -m benchmarks.reading --studies 2 --files 75      525,000 files in 7,000 directories

Each collection is read as units and, with --folders, as folders. Files are empty but for the mark of DICOM, links of a
few; nothing is converted. A job is planned as an executor starts it, and directories listed and files opened are those
of the collection. The same for a collection of one file is what Snakemake itself takes.
"""

import argparse
import math
import os
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common import REPOSITORY, machine

LINKS = 10_000  # names of one file; file systems allow some 65,000
JOBS = {"convert": "folder=u000,size=256", "embed": "folder=u000,model=vit-tiny", "merge": "model=vit-tiny"}
# Python runs it at its start: counts what is done below COLLECTION.
COUNTING = """
import atexit, collections, os, sys
counts, place = collections.Counter(), os.environ["COLLECTION"]

def count(event, what):
    if event in ("open", "os.scandir", "os.listdir") and place in str(what[0]):
        counts[event] += 1

sys.addaudithook(count)
atexit.register(lambda: print("counted", counts["os.scandir"] + counts["os.listdir"], counts["open"], file=sys.stderr))
"""


def draw(top: Path, patients: int, studies: int, files: int) -> None:
    """Write the collection: a directory a patient, with one for each study."""
    top.mkdir(parents=True)
    source = top
    for i in range(patients * studies * files):
        if i % LINKS == 0:
            source = top.parent / f"source-{i}"
            source.write_bytes(bytes(128) + b"DICM")
        study, number = divmod(i, files)
        directory = top / f"pat{study // studies:06d}/s{study % studies}"
        directory.mkdir(parents=True, exist_ok=True)
        os.link(source, directory / f"IM_{number:04d}")


def measure(top: Path, *arguments: str) -> str:
    """Read the workflow in a process of its own; returns the figures."""
    hook = top.parent / "hook"
    hook.mkdir(exist_ok=True)
    (hook / "sitecustomize.py").write_text(COUNTING)
    checkpoint = top.parent / "vit-tiny.pt"
    checkpoint.write_bytes(b"looked at, and not read")
    command = [
        *(sys.executable, "-m", "snakemake", "-s", REPOSITORY / "workflow/Snakefile", "-d", top.parent, "-n", "-q"),
        *("--configfile", REPOSITORY / "config/demo.yaml", "--config", f"dicom_dir={top}", f"weights_dir={top.parent}"),
        *(f"models_file={REPOSITORY / 'config/demo-models.yaml'}", *arguments),
    ]
    path = f"{hook}:{REPOSITORY / 'workflow/scripts'}:{os.environ.get('PYTHONPATH', '')}"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"PYTHONPATH": path, "COLLECTION": str(top)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    listed, opened = re.findall(r"^counted (\d+) (\d+)$", done.stderr, re.MULTILINE)[-1]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return f"{cpu:5.2f} s of CPU, {int(listed):6,} directories listed, {int(opened):5,} files opened"


def job(rule: str, wildcards: str) -> list[str]:
    """The arguments with which an executor has Snakemake run one job."""
    return ["--target-jobs", f"{rule}:{wildcards}", "--allowed-rules", rule, "--force", "--mode", "remote", "--nolock"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=3500)
    parser.add_argument("--studies", type=int, default=1, help="of each")
    parser.add_argument("--files", type=int, default=1, help="of each study")
    parser.add_argument("--units", type=int, default=16)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS), help="the rules to plan a job of")
    parser.add_argument("--folders", action="store_true", help="as folders too, which takes Snakemake long")
    parser.add_argument("--quick", action="store_true", help="small, to see that it works")
    arguments = parser.parse_args()
    shape = (20, 1, 2) if arguments.quick else (arguments.patients, arguments.studies, arguments.files)
    print(machine())
    with tempfile.TemporaryDirectory(prefix="reading-") as place:
        one, top = Path(place, "one/collection"), Path(place, "many/collection")
        draw(one, 1, 1, 1)
        draw(top, *shape)
        print(f"{math.prod(shape):,} files of {math.prod(shape[:2]):,} studies")
        units = f"units={arguments.units}"
        print(f"one file, as units=1:      {measure(one, 'units=1')}")
        print(f"snakemake -n, {units}:     {measure(top, units)}")
        for rule in arguments.jobs:
            print(f"a job of {rule:8} {units}: {measure(top, units, *job(rule, JOBS[rule]))}")
        if arguments.folders:
            print(f"snakemake -n, as folders:  {measure(top)}")


if __name__ == "__main__":
    main()
