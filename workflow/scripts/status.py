"""`make status`: a table of folders, stages and models, while jobs run or not; no rule, and no lock."""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from echo_embeddings import collection, settings, status
from echo_embeddings.files import UserError


def seconds(text: str) -> float:
    """A time to wait."""
    value = float(text)
    if not 0.1 <= value <= 86_400:
        raise ValueError
    return value


def main() -> None:
    """Print the table once, or every few seconds."""
    parser = argparse.ArgumentParser(
        description="How far the workflow is, from the files that its jobs leave.", allow_abbrev=False
    )
    parser.add_argument("--configfile", nargs="+", default=[], metavar="FILE", help="as given to snakemake")
    parser.add_argument("--directory", default=".", metavar="DIR", help="as given to snakemake")
    parser.add_argument("--watch", nargs="?", type=seconds, const=5.0, metavar="SECONDS", help="refresh it (5)")
    arguments = parser.parse_args()
    config = settings.read(arguments.directory, *arguments.configfile)
    os.chdir(arguments.directory)
    registry = settings.check(config)

    def look() -> Iterator[status.Line]:
        top, kind = collection.source(config)
        folders = collection.folders(top, config["folders"], kind)
        return status.collect(Path("results"), folders, config["models"], registry)

    if arguments.watch is None:
        print(status.table(look()))
    else:
        status.watch(look, arguments.watch, sys.stdout)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
