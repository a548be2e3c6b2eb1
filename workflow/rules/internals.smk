# What this workflow takes from Snakemake without a promise that it stays: all of it, and nothing else. A test of
# tests/test_module.py names the release of Snakemake for which it holds.

import logging
from pathlib import Path

from snakemake.cli import get_argument_parser
from snakemake.logging import logger
from snakemake_interface_logger_plugins.common import LogEvent

# The directory `workflow`; no path of this machine where Snakemake fetches this file from elsewhere.
WORKFLOW_DIR = Path(str(workflow.current_basedir)).parent

# All that the configuration was read from.
CONFIGFILES = workflow.configfiles

# Whether this is read as a module with `prefix` or `replace_prefix`.
PREFIXED = workflow.modifier.path_modifier is not None and (
    workflow.modifier.path_modifier.prefix is not None or workflow.modifier.path_modifier.modifies_prefixes
)

# False in a job, which reads the Snakefile too.
MAIN_PROCESS = workflow.is_main_process

# The targets of the command line, which Snakemake looks at only after this file; none in a job.
TARGETS = []
if MAIN_PROCESS:
    try:
        TARGETS = get_argument_parser().parse_known_args()[0].targets
    except SystemExit:  # another program's command line, which uses Snakemake as a library
        pass

# What --cores says, None where jobs go to a cluster: `workflow.cores` stops there.
CORES = workflow.resource_settings.cores


def jobs_go_to_slurm():
    """Whether jobs are given to SLURM; to be asked when the run starts."""
    return workflow.executor_plugin.name == "slurm"


def on_job_error(tell):
    """Call `tell` after Snakemake has said of a job that it failed.

    Its arguments are the number that a cluster gave the job, None without one; what the executor says; and the logs.
    """

    class JobErrors(logging.Handler):

        def emit(self, record):
            if getattr(record, "event", None) == LogEvent.JOB_ERROR:
                tell(record.aux.get("external_jobid"), str(record.rule_msg), record.log)

    # A module's Snakefile is read once for each `use rule`.
    for handler in [one for one in logger.handlers if type(one).__qualname__ == JobErrors.__qualname__]:
        logger.removeHandler(handler)
    logger.addHandler(JobErrors())


def end_executor():
    """End the thread that asks SLURM for jobs, before Python ends: late, it prints an error of its own below ours.

    One that is past its first look sleeps quietly, and is not waited for longer than this.
    """
    executor = workflow.scheduler._executor
    executor.wait = False
    executor.wait_thread.join(timeout=2)
