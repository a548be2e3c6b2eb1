"""What must be so before jobs are given to SLURM, and what is said of one that failed."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ..core.errors import UserError
from ..core.job import last_words
from ..core.layout import Layout
from ..core.names import one_line


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


def refusal(message: str) -> str | None:
    """Why `sbatch` took no job, from what Snakemake's plugin says of it; None where that is not what it says."""
    found = re.search(r"SLURM sbatch failed\. The error message was '(.*?)'\.$", message, re.DOTALL | re.MULTILINE)
    return one_line(found[1]) if found else None


def failure_line(number: str | None, message: str, logs: Sequence[str]) -> str:
    """One line of a failed job: rule and wildcards, SLURM's number for it, how it ended, the line that matters, logs.

    `number` is None where SLURM took no job, `message` what Snakemake's plugin says, `logs` the rule's log,
    `results/logs/{rule}/{wildcards}.log`, and last, if there was a job, SLURM's own.
    """
    name = " ".join(Path(logs[0]).relative_to(Layout().logs()).with_suffix("").parts)
    if number is None:
        return f"{name}: SLURM takes no such job: {refusal(message)}; change the line of the profile that asks for it"
    status = re.search(r"SLURM status is: '(\w+)'", message)
    reason = last_words(logs[0], logs[-1])
    return (
        f"{name}: SLURM job {number} {status[1] if status else 'failed'}: {reason}  "
        f"[log: {logs[0]}; SLURM's: {logs[-1]}]"
    )
