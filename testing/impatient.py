"""Snakemake as ever, except that it asks a cluster for its jobs every two seconds.

    python -m testing.impatient ARGUMENT ...

Else it asks after 2 s, then after 12 s, 22 s and so on, until a job has ended: most of the time of a test of SLURM.
"""

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

RemoteExecutor.next_seconds_between_status_checks = property(lambda executor: 2, lambda executor, seconds: None)

if __name__ == "__main__":
    main()
