"""A disk that is full, or a file system that cannot lock: the error names the file, whatever is being written."""

import errno
import fcntl
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from echo_embeddings.collection.units import Folder
from echo_embeddings.convert.journal import Journal
from echo_embeddings.core import manifest
from echo_embeddings.core.errors import UserError
from echo_embeddings.core.files import FULL, atomic_write
from echo_embeddings.core.manifest import Row
from echo_embeddings.core.vectors import write_vectors
from echo_embeddings.embed.features import Features
from echo_embeddings.embed.shards import Shards
from echo_embeddings.encoders import checkpoint
from echo_embeddings.fetch import download
from echo_embeddings.tables import export
from testing.conversion import SETTINGS
from testing.processes import small_disk

ROWS = [Row(f"{i:05d}/" + "x" * 100, "", "skipped", "single frame") for i in range(2000)]
CLIPS = {f"{i:03d}.mp4": torch.randn(300) for i in range(300)}
KEYS, MATRIX = list(CLIPS), torch.stack(list(CLIPS.values()))
SAME = dict.fromkeys(KEYS, "identity")


def write_journal(top: Path) -> None:
    with Journal(top, top, Folder("p10", "."), SETTINGS, {row.path for row in ROWS}) as journal:
        for row in ROWS:
            journal.add(row)


def write_matrix(top: Path) -> None:
    write_vectors(top.parent / "all.pt", KEYS, MATRIX)
    clips = pd.DataFrame({"key": KEYS, "row": range(len(KEYS)), "fold": 0})
    export.write_matrix(top.parent / "all.pt", top / "all.npy", top / "all.keys.tsv", clips)


def write_parquet(top: Path) -> None:
    export.write_parquet(top / "x.parquet", pa.table({"file_path": KEYS}), MATRIX.numpy())


WRITERS = {
    "manifest.tsv": lambda top: manifest.write(top / "manifest.tsv", ROWS),
    "rows.jsonl": write_journal,
    "vectors.pt": lambda top: write_vectors(top / "vectors.pt", KEYS, MATRIX),
    "all.npy": write_matrix,
    "x.parquet": write_parquet,
    ".pt": lambda top: Shards(top, Folder("p10", "."), "f").add(CLIPS, SAME),
    ".safetensors": lambda top: Features(top, Folder("p10", "."), "f").add(CLIPS, SAME),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path, name):
    with small_disk(tmp_path / "disk", "100k"):
        with pytest.raises(OSError, match="No space left on device") as caught:
            WRITERS[name](tmp_path / "disk")
        assert caught.value.errno in FULL
        assert caught.value.filename.startswith(str(tmp_path / "disk"))
        assert caught.value.filename.endswith(name)
        left = [path.name for path in (tmp_path / "disk").rglob("*") if path.is_file()]
        assert left in ([], ["rows.jsonl"], ["all.keys.tsv"])


def test_the_matrix_is_what_numpy_would_have_saved(tmp_path):
    write_matrix(tmp_path / "d")
    np.save(tmp_path / "numpy.npy", MATRIX.numpy())
    assert (tmp_path / "d/all.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_any_error_without_a_name_gets_that_of_the_file(tmp_path, number):
    with pytest.raises(OSError, match="x") as caught, atomic_write(tmp_path / "x"):
        raise OSError(number, os.strerror(number))
    assert (caught.value.errno, caught.value.filename) == (number, str(tmp_path / "x"))


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_lock_is_named(tmp_path, monkeypatch, number, tiny_weights):
    def refuses(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuses)
    for place, locks in (
        ("digests", lambda: checkpoint.sha256(tiny_weights, tmp_path / "digests")),
        ("weights", lambda: download.fetch("http://127.0.0.1:9/x.pt", tmp_path / "weights/x.pt")),
    ):
        said = rf"^{tmp_path / place}\S*: its file system has no locks \({os.strerror(number)}\), "
        with pytest.raises(UserError, match=said):
            locks()
