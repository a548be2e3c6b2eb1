"""Compare two embedding files clip by clip: python workflow/scripts/compare.py A.pt B.pt --output compare.html"""

import argparse
import sys
from pathlib import Path

from echo_embeddings import qc
from echo_embeddings.files import UserError

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("a", type=Path, help="an embedding file: dict of key -> float32 vector")
    parser.add_argument("b", type=Path, help="another, of the same clips")
    parser.add_argument("--output", type=Path, default=Path("compare.html"), help="the page; its numbers beside it")
    arguments = parser.parse_args()
    try:
        qc.make_comparison(arguments.a, arguments.b, arguments.output)
    except UserError as error:
        sys.exit(str(error))
    print(f"{arguments.output} and {arguments.output.with_suffix('.json')}")
