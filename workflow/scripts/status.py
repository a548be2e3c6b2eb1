"""`make status`: a table of folders, stages and models, while jobs run or not; no rule, and no lock."""

import argparse
import os
import sys
import time
from pathlib import Path

from echo_embeddings import collection, settings, status
from echo_embeddings.files import UserError


def main() -> None:
    """Print the table once, or every few seconds."""
    parser = argparse.ArgumentParser(description="How far the workflow is, from the files that its jobs leave.")
    parser.add_argument("--configfile", nargs="+", default=[], metavar="FILE", help="as given to snakemake")
    parser.add_argument("--directory", default=".", metavar="DIR", help="as given to snakemake")
    parser.add_argument("--watch", nargs="?", type=float, const=5.0, metavar="SECONDS", help="refresh it (5)")
    arguments = parser.parse_args()
    config = settings.read(arguments.directory, *arguments.configfile)
    os.chdir(arguments.directory)
    registry = settings.check(config)
    while True:
        top, kind = collection.source(config)
        folders = collection.folders(top, config["folders"], kind)
        text = status.table(status.collect(Path("results"), folders, config["models"], registry))
        if arguments.watch is None:
            print(text)
            return
        print(f"\x1b[2J\x1b[H{text}", flush=True)
        time.sleep(arguments.watch)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(0)
