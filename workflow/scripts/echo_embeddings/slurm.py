"""What must be so before jobs are given to SLURM."""

import os
import shutil
import subprocess
from pathlib import Path

from .files import UserError, one_line


def check(logs: Path) -> None:
    """Raise `UserError` where there is no SLURM, or jobs of an earlier run are still in its queue.

    Jobs outlive a Snakemake that is killed, and the next one does not know of them: it would submit each a second
    time. They are known by their logs, which lie below the directory `logs`.
    """
    if not shutil.which("sbatch"):
        raise UserError(
            "SLURM: there is none here (no sbatch in PATH); run this on a node of the cluster, or without --profile"
        )
    command = ["squeue", "--me", "--noheader", "--Format=JobArrayID:|,stdout:"]
    try:
        queue = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except subprocess.CalledProcessError as error:
        raise UserError(
            f"SLURM: run this on a node of the cluster; squeue fails here: {one_line(error.stderr)}"
        ) from error
    jobs = {}
    for line in queue.splitlines():
        number, _, log = line.partition("|")
        if log.startswith(f"{logs.resolve()}{os.sep}"):
            rule, *rest = Path(log).relative_to(logs.resolve()).parts
            jobs[number] = " ".join([rule.removeprefix("rule_"), *rest[:-1]])
    if jobs:
        names = ", ".join(f"{number} ({name})" for number, name in jobs.items())
        raise UserError(
            f"SLURM: jobs of an earlier run are still in the queue: {names}; wait for them (make status), or end "
            f"them (scancel {' '.join(jobs)}), then run again: what is done is kept"
        )
