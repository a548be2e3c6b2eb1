"""`make doctor`: is everything there that a run needs, and what will it cost? No rule, and no lock."""

import argparse
import os
import sys

from echo_embeddings import doctor, settings
from echo_embeddings.files import UserError


def main() -> int:
    """Print what was found; the number of things to mend decides the exit status."""
    parser = argparse.ArgumentParser(
        description="Is everything there that a run needs, and what will it cost?", allow_abbrev=False
    )
    parser.add_argument("--configfile", nargs="+", default=[], metavar="FILE", help="as given to snakemake")
    parser.add_argument("--directory", default=".", metavar="DIR", help="as given to snakemake")
    arguments = parser.parse_args()
    try:
        config = settings.read(arguments.directory, *arguments.configfile)
    except UserError as error:
        sys.exit(str(error))
    os.chdir(arguments.directory)
    found = list(doctor.examine(config))
    print(doctor.page(found, colour=sys.stdout.isatty()))
    return any(isinstance(one, doctor.Finding) and one.level == doctor.RED for one in found)


if __name__ == "__main__":
    sys.exit(main())
