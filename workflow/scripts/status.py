"""`make status`: a table of folders, stages and models, while jobs run or not; no rule, and no lock."""

import sys
from collections.abc import Iterator

from echo_embeddings.collection.folders import collection_source, find_folders
from echo_embeddings.core import settings
from echo_embeddings.core.layout import Layout
from echo_embeddings.tools import command, status


def seconds(text: str) -> float:
    """A time to wait."""
    value = float(text)
    if not 0.1 <= value <= 86_400:
        raise ValueError
    return value


if __name__ == "__main__":
    parser = command.configured("How far the workflow is, from the files that its jobs leave.")
    parser.add_argument("--watch", nargs="?", type=seconds, const=5.0, metavar="SECONDS", help="refresh it (5)")
    arguments = parser.parse_args()
    with command.exit_on_user_error():
        config = command.configuration(arguments)
        registry = settings.check(config)

        def look() -> Iterator[status.Line]:
            """The table's lines, as things are now."""
            top, kind = collection_source(config)
            folders = find_folders(top, config["folders"], kind)
            return status.collect(Layout(), folders, config["models"], registry)

        if arguments.watch is None:
            print(status.table(look()))
        else:
            status.watch(look, arguments.watch, sys.stdout)
