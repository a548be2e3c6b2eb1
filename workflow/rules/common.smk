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
from echo_embeddings import collection, estimate, settings, slurm
from echo_embeddings.architectures import ARCHITECTURES
from echo_embeddings.files import UserError

try:
    REGISTRY = settings.check(config)
    FOLDERS = collection.folders(config["dicom_dir"], config["folders"])
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
        return collection.find(config["dicom_dir"], folder).survey()
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
        if getattr(record, "event", None) != LogEvent.JOB_ERROR:
            return
        number, message = record.aux.get("external_jobid"), str(record.rule_msg)
        if number is not None or slurm.refusal(message):
            logger.error(slurm.failure_line(number, message, record.log))


logger.addHandler(FailureLine())
