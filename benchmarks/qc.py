"""What the quality page costs on drawn vectors with planted defects, from the merged file to the page.

    python -m benchmarks.qc                    525,328 vectors of 1,024: seconds, memory, page, what was found
    python -m benchmarks.qc --clips 50000      fewer

The collection (2.2 GB, no MP4 files: strips say so) is drawn into a temporary directory and deleted.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from benchmarks.common import machine, run_program
from testing import planted

# Runs in a process of its own, as the rule's script does, so that its memory is its own. Mapped pages of the vectors
# count as resident.
JOB = """
import json, resource, sys, time
started = time.perf_counter()
from pathlib import Path
from echo_embeddings.qc.page import make_model_page
from echo_embeddings.qc.report import Options
from echo_embeddings.qc.tables import FolderFiles

merged, page = map(Path, sys.argv[1:3])
folders = {name: FolderFiles(*map(Path, files)) for name, files in json.loads(sys.argv[3]).items()}
make_model_page("vitl", merged, folders, page, Options())
used = resource.getrusage(resource.RUSAGE_SELF)
print(time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss)
"""


def recall(groups: list[dict[str, list[str]]], pairs: list[tuple[str, str]]) -> float:
    """The share of the pairs whose two clips stand in one group."""
    group_of = {clip: i for i, group in enumerate(groups) for clip in group["clips"]}
    return sum(a in group_of and group_of[a] == group_of.get(b) for a, b in pairs) / len(pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=525_328)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--pairs", type=int, default=1000, help="planted duplicates, and as many near duplicates")
    parser.add_argument("--quick", action="store_true", help="small, to see that it works")
    arguments = parser.parse_args()
    clips, dim, pairs = (2000, 48, 40) if arguments.quick else (arguments.clips, arguments.dim, arguments.pairs)
    print(machine())
    with tempfile.TemporaryDirectory() as top:
        started = time.perf_counter()
        made = planted.write(Path(top), clips, dim, pairs=pairs)
        print(f"{clips:,} vectors of {dim:,} drawn and written in {time.perf_counter() - started:.0f} s", flush=True)
        folders = {
            name: [str(path) for path in (files.manifest, files.tree, files.run, files.failed)]
            for name, files in made.folders.items()
        }
        page = Path(top, "qc/vitl.html")
        said = run_program(JOB, str(made.merged), str(page), json.dumps(folders), quick=arguments.quick)
        seconds, processor, kilobytes = map(float, said.split())
        size, numbers = page.stat().st_size, json.loads(page.with_suffix(".json").read_text())
    print(f"page in {seconds:.1f} s, {processor:.1f} s of CPU time")
    print(f"at most {kilobytes / 1e6:.2f} GB resident, {size / 1e6:.1f} MB of HTML")
    health, truth = numbers["health"], made.truth
    for name in ("nan", "inf", "zero", "dead"):
        print(f"{name}: {'as planted' if health[name] == getattr(truth, name) else 'NOT as planted'}")
    found = {outlier["clip"] for outlier in health["outliers"]}
    print(f"outliers: {len(found & set(truth.outliers))} of {len(truth.outliers)} found, {len(found)} told")
    print(f"exact duplicates: recall {recall(health['duplicates'], truth.duplicates):.4f}")
    print(f"near duplicates: recall {recall(health['near'], truth.near):.4f}, {len(health['near'])} groups told")


if __name__ == "__main__":
    main()
