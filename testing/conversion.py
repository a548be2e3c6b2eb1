"""The conversion of a folder as the tests have it; as a program, a job to be killed.

python -m testing.conversion DICOM TOP [MASK]
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from echo_embeddings.collection.units import Folder
from echo_embeddings.convert import folder as conversion
from echo_embeddings.convert import video
from echo_embeddings.convert.pictures import waiting
from echo_embeddings.core import configuration, manifest, settings
from echo_embeddings.core.layout import Layout
from echo_embeddings.core.manifest import Row
from echo_embeddings.core.settings import ConvertSettings
from echo_embeddings.dicom.header import Clip

SETTINGS = settings.convert_settings(configuration.defaults(), 256)


@dataclass(frozen=True)
class ConvertPaths:
    """Where the conversion of a folder writes, for tests that look at it."""

    layout: Layout
    folder: str = "p10"
    size: int | str = SETTINGS.size

    tree = property(lambda self: self.layout.mp4(self.size, self.folder))
    table = property(lambda self: self.layout.manifest(self.size, self.folder))
    digest = property(lambda self: self.layout.manifest_digest(self.size, self.folder))
    state = property(lambda self: self.layout.state("convert", self.size, self.folder))


def paths_in(top: Path) -> ConvertPaths:
    """Those of the folder p10, all below `top`."""
    return ConvertPaths(Layout(top))


def convert_folder(
    folder: Folder, paths: ConvertPaths, settings: ConvertSettings = SETTINGS, **changes
) -> dict[str, Row]:
    """Convert a folder by one worker, however many files fail; returns its rows by path."""
    options = {"limit": 0, "workers": 1, "timeout": 600, "max_failed_fraction": 1.0} | changes
    conversion.convert_folder(folder, paths.layout, settings, **options)
    return {row.path: row for row in manifest.read(paths.layout.manifest(settings.clips, folder.name))}


def small_frames(clip: Clip, size: int, directory: Path) -> Iterator[np.ndarray]:
    """A clip's frames as the conversion hands them to its codec, uint8 [size, size, 3] each."""
    with waiting(clip, size, directory) as small:
        yield from small.frames()


def write_pattern(path: Path, frames: int = 20, size: int = 64, seed: int = 0) -> Path:
    """Write a small moving pattern to an MP4."""
    rng = np.random.default_rng(seed)
    blob = np.kron(rng.integers(0, 256, (size // 8, size // 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    made = replace(SETTINGS, size=size)
    video.write(path, (np.roll(blob, i, axis=1) for i in range(frames)), made, 30)
    return path


if __name__ == "__main__":
    made = replace(SETTINGS, mask=(*sys.argv, SETTINGS.mask)[3])
    convert_folder(Folder("p10", sys.argv[1]), paths_in(Path(sys.argv[2])), made, workers=2)
