# The configuration, and what the rules ask of it. Nothing here imports torch or pydicom.

import functools
import logging
import re
import sys
from dataclasses import asdict
from pathlib import Path

from snakemake.logging import logger
from snakemake_interface_logger_plugins.common import LogEvent

sys.path.insert(0, f"{workflow.current_basedir}/../scripts")
from echo_embeddings import collection, estimate, job, settings, slurm
from echo_embeddings.architectures import architecture
from echo_embeddings.files import UserError

try:
    REGISTRY = settings.check(config)
    TOP, KIND = collection.source(config)
    FOLDERS = collection.folders(TOP, config["folders"], KIND)
except UserError as error:
    sys.exit(str(error))


wildcard_constraints:
    size="|".join(sorted({str(entry["resolution"]) for entry in REGISTRY.values()})),
    # Any name but "all": that is the merged file.
    folder=r"[^/]{1,2}|(?!all)[^/]{3}|[^/]{4}[^/]*",
    model="|".join(map(re.escape, REGISTRY)),


@functools.cache  # Snakemake asks several times a job
def survey(folder):
    """What the folder looks like now: its fingerprint and its number of files."""
    try:
        return collection.find(TOP, folder, KIND).survey()
    except UserError as error:
        sys.exit(str(error))


def clips(*folders):
    """How many clips the folders hold at most, for estimates of time and memory."""
    files = [survey(folder).files for folder in folders]
    return sum(min(n, config["limit"]) if config["limit"] else n for n in files)


def checkpoint(wildcards):
    """The path of the model's checkpoint, which must be there."""
    path = Path(config["weights_dir"], REGISTRY[wildcards.model]["checkpoint"])
    if not path.is_file():
        url = REGISTRY[wildcards.model]["url"]
        fetch = f"fetch it ({url})" if url else "put it there"
        sys.exit(f"model {wildcards.model}: no checkpoint {path}; {fetch} or set weights_dir to where it lies")
    return str(path)


def check_slurm():
    """Stop where there is no SLURM, or an earlier run's jobs are still at work."""
    try:
        slurm.check(Path(".snakemake/slurm_logs"))
    except UserError as error:
        sys.exit(str(error))


def manifest_digest(model, folder):
    """The file that changes when the manifest does that the model's clips stand in."""
    return f"results/mp4/{REGISTRY[model]['resolution']}/{folder}.manifest.sha256"


class FailureLine(logging.Handler):
    """Ends what Snakemake says of a failed SLURM job with one line: which job, why, and where to read on."""

    def emit(self, record):
        """Called for everything that Snakemake logs."""
        if getattr(record, "event", None) != LogEvent.JOB_ERROR or "external_jobid" not in record.aux:
            return
        log, slurm_log = record.log[0], record.log[-1]
        name = " ".join(Path(log).relative_to("results/logs").with_suffix("").parts)
        reason = job.last_words(log, slurm_log)
        number, status = record.aux["external_jobid"], re.search(r"SLURM status is: '(\w+)'", str(record.rule_msg))
        logger.error(
            f"{name}: SLURM job {number} {status[1] if status else 'failed'}: {reason}  [log: {log}; SLURM's: {slurm_log}]"
        )


logger.addHandler(FailureLine())
