"""The conversion of a folder as the tests have it; as a program, a job to be killed.

python -m testing.conversion DICOM TOP
"""

import sys
from pathlib import Path

from echo_embeddings.collection.folders import Folder
from echo_embeddings.convert import folder as conversion
from echo_embeddings.convert.folder import ConvertPaths
from echo_embeddings.core import manifest, settings
from echo_embeddings.core.manifest import Row
from echo_embeddings.core.settings import ConvertSettings

SETTINGS = settings.convert_settings(settings.defaults(), 256)


def places_in(top: Path) -> ConvertPaths:
    """Everything that one folder's conversion writes, below `top`."""
    return ConvertPaths(top / "tree", top / "state", top / "m.tsv", top / "m.sha256")


def convert_folder(
    folder: Folder, places: ConvertPaths, settings: ConvertSettings = SETTINGS, **changes
) -> dict[str, Row]:
    """Convert a folder by two workers, however many files fail; returns its rows by path."""
    options = {"limit": 0, "workers": 2, "timeout": 600, "max_failed_fraction": 1.0} | changes
    conversion.convert_folder(folder, places, settings, **options)
    return {row.path: row for row in manifest.read(places.table)}


if __name__ == "__main__":
    convert_folder(Folder("p10", sys.argv[1]), places_in(Path(sys.argv[2])))
