"""Modules imported once, for many runs: most of the time of a dry run is that of imports.

    python -m testing.forking MODULE ...

imports those modules. For each line of stdin, `[directory, environment, pipe, module, argument, ...]` as JSON, it then
forks. The child runs in that directory and environment what `python -m module argument ...` runs, and writes to that
named pipe; its exit status is a line of stdout. Processes that the child starts are started as ever.
"""

import gc
import importlib
import json
import os
import runpy
import sys

for name in sys.argv[1:]:
    importlib.import_module(name)
if "snakemake.cli" in sys.modules:
    sys.modules["snakemake.cli"].get_argument_parser()  # imports Snakemake's plugins
gc.freeze()  # else each child goes through all that is imported, and copies the memory, when it ends

print("ready", flush=True)
for line in sys.stdin:
    directory, environment, pipe, module, *arguments = json.loads(line)
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
os.environ.clear()
os.environ.update(environment)
sys.path[0] = directory
sys.argv[1:] = arguments
runpy.run_module(module, run_name="__main__", alter_sys=True)
