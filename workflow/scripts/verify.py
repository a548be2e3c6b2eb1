"""`make verify MODEL=name`: one known clip embedded and compared with what the registry records; no rule."""

import argparse
import dataclasses
import os
import sys

import torch

from echo_embeddings import models, settings, verify
from echo_embeddings.files import UserError


def main() -> None:
    """Embed and compare."""
    parser = argparse.ArgumentParser(
        description="Embed one known clip and compare its vector with the recorded one.", allow_abbrev=False
    )
    parser.add_argument("model", help="a name in the registry")
    parser.add_argument("--configfile", nargs="+", default=[], metavar="FILE", help="as given to snakemake")
    parser.add_argument("--directory", default=".", metavar="DIR", help="as given to snakemake")
    parser.add_argument("--device", choices=["cuda", "cpu"], help="by default a GPU where there is one")
    arguments = parser.parse_args()
    config = settings.read(arguments.directory, *arguments.configfile)
    os.chdir(arguments.directory)
    registry = settings.check(config, data=False)
    if arguments.model not in registry:
        raise UserError(f"no model {arguments.model!r} in the registry: {', '.join(registry)}")
    entry = registry[arguments.model]
    model = dataclasses.replace(settings.model(config, registry, arguments.model), precision="fp32")
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    threads = os.cpu_count() or 1
    digest, vector = verify.vector(model, models.place(config, entry), config, device, threads)
    print(verify.judge(model, digest, vector.tolist(), entry["known_vectors"]))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
