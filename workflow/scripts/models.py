"""`make models`: the registry as a table; no rule."""

import argparse
import os
import sys

from echo_embeddings import models, settings
from echo_embeddings.files import UserError

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Which models there are, whose checkpoint is missing, and their cost.", allow_abbrev=False
    )
    parser.add_argument("--configfile", nargs="+", default=[], metavar="FILE", help="as given to snakemake")
    parser.add_argument("--directory", default=".", metavar="DIR", help="as given to snakemake")
    arguments = parser.parse_args()
    try:
        config = settings.read(arguments.directory, *arguments.configfile)
        os.chdir(arguments.directory)
        print(models.table(config, settings.check(config, data=False)))
    except UserError as error:
        sys.exit(str(error))
