"""Compare two embedding files clip by clip: python workflow/scripts/compare.py A.pt B.pt --output compare.html"""

from pathlib import Path

from echo_embeddings import qc
from echo_embeddings.tools import command

if __name__ == "__main__":
    parser = command.parser(__doc__)
    parser.add_argument("a", type=Path, help="an embedding file: dict of key -> float32 vector")
    parser.add_argument("b", type=Path, help="another, of the same clips")
    parser.add_argument("--output", type=Path, default=Path("compare.html"), help="the page; its numbers beside it")
    arguments = parser.parse_args()
    with command.exit_on_user_error():
        qc.make_comparison(arguments.a, arguments.b, arguments.output)
    print(f"{arguments.output} and {arguments.output.with_suffix('.json')}")
