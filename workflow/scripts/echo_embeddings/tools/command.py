"""What the commands beside Snakemake (`make doctor`, `make status`, ...) do around their one call."""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from ..core import settings
from ..core.errors import UserError


@contextlib.contextmanager
def told() -> Iterator[None]:
    """End the process with one line where the user can mend what is wrong."""
    try:
        yield
    except UserError as error:
        sys.exit(str(error))


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that takes no option for another one that is like it."""
    return argparse.ArgumentParser(description=description, allow_abbrev=False)


def configured(description: str) -> argparse.ArgumentParser:
    """A parser with the options by which Snakemake is told of the configuration; `configuration` reads it."""
    made = parser(description)
    made.add_argument("--configfile", nargs="+", default=[], metavar="FILE", help="as given to snakemake")
    made.add_argument("--directory", default=".", metavar="DIR", help="as given to snakemake")
    return made


def configuration(arguments: argparse.Namespace) -> dict[str, Any]:
    """The configuration that Snakemake would read, not checked yet; goes to its working directory."""
    config = settings.read(arguments.directory, *arguments.configfile)
    os.chdir(arguments.directory)
    return config
