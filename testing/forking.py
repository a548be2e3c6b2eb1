"""Snakemake, imported once, for many runs: most of the time of a dry run is that of imports.

For each line of stdin, `[directory, pipe, argument, ...]` as JSON, this process forks. The child runs in that directory
what `python -m snakemake argument ...` runs, and writes to that named pipe; its exit status is a line of stdout.
Snakemake has read no Snakefile before, and nothing of the package is imported: each child does that itself, and starts
the jobs' processes as ever.
"""

import gc
import json
import os
import runpy
import sys

import jsonschema  # noqa: F401 (of what the Snakefile imports, what takes longest)
import smart_open  # noqa: F401 (Snakemake imports it late, and always)
from snakemake.cli import get_argument_parser

get_argument_parser()  # imports Snakemake's plugins
gc.freeze()  # else each child goes through all that is imported, and copies the memory, when it ends

print("ready", flush=True)
for line in sys.stdin:
    directory, pipe, *arguments = json.loads(line)
    child = os.fork()
    if not child:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()

os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
os.dup2(os.open(pipe, os.O_WRONLY), 1)
os.dup2(1, 2)
os.chdir(directory)
sys.path[0] = directory
sys.argv[1:] = arguments
runpy.run_module("snakemake", run_name="__main__", alter_sys=True)
