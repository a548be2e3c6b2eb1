"""The DICOM files that come with pydicom and pydicom-data, and the real cine among them."""

import importlib.util
from pathlib import Path

import pydicom

PACKAGES = {
    "pydicom": Path(pydicom.__file__).parent / "data",
    "pydicom-data": Path(next(iter(importlib.util.find_spec("data_store").submodule_search_locations))) / "data",
}


def path_of(name: str) -> str:
    """The path of a file, named by its package and its place there."""
    package, _, rest = name.partition("/")
    return str(PACKAGES[package] / rest)


# One cine in two sizes: 120 frames of 480 x 640 and 30 frames of 240 x 320.
CINE = {
    "large": path_of("pydicom-data/color3d_jpeg_baseline.dcm"),
    "small": path_of("pydicom/test_files/examples_ybr_color.dcm"),
}
