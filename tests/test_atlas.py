"""The file for Embedding Atlas: rows of the merged file, places, neighbours by row, pictures."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from sklearn.neighbors import NearestNeighbors

from echo_embeddings.core.errors import UserError
from echo_embeddings.core.settings import Table, Tables
from echo_embeddings.core.vectors import merge_vectors, read_vectors, write_vectors
from echo_embeddings.qc import atlas, sampling
from echo_embeddings.tables.export import Merging, Part
from testing import planted
from testing.commands import run_demo
from testing.conversion import write_pattern

CLIPS, DIM = 400, 32


@pytest.fixture
def parts(tmp_path: Path) -> tuple[planted.Planted, dict[str, Part]]:
    """A collection whose folders have embedding files of their own, and a merged one with prefixed keys."""
    made = planted.write(tmp_path, CLIPS, DIM)
    keys, matrix = read_vectors(made.merged)
    found = {}
    for folder, files in made.folders.items():
        rows = [i for i, key in enumerate(keys) if key.startswith(folder)]
        found[folder] = Part(tmp_path / f"{folder}.pt", files.manifest, files.run)
        write_vectors(found[folder].vectors, [keys[i] for i in rows], matrix[rows].clone())
    merge_vectors({folder: part.vectors for folder, part in found.items()}, tmp_path / "merged.pt", DIM, True)
    return made, found


def test_rows_are_those_of_the_merged_file_and_neighbours_are_rows(
    parts: tuple[planted.Planted, dict[str, Part]], tmp_path: Path
) -> None:
    made, found = parts
    some = read_vectors(made.merged)[0][7]
    write_pattern(made.folders[some[:3]].tree / some, 43 + 7)
    out = tmp_path / "atlas.parquet"
    atlas.write(out, tmp_path / "merged.pt", found, Tables(), ["default"], Merging(True), made.folders)
    table = pd.read_parquet(out)
    vectors = torch.load(tmp_path / "merged.pt")
    assert table["key"].tolist() == list(vectors)
    assert table["row"].tolist() == list(range(CLIPS))
    assert (table["key"] == table["folder"] + "/" + table["file_path"]).all()
    assert np.isfinite(table[["x", "y"]]).all(axis=None)
    matrix = np.stack([vector.numpy() for vector in vectors.values()])
    centred = matrix - matrix.mean(axis=0)  # all 32 components are kept
    apart, near = NearestNeighbors(n_neighbors=11, metric="cosine", algorithm="brute").fit(centred).kneighbors(centred)
    ids = np.stack(table["neighbors"].map(lambda cell: cell["ids"]))
    assert ids.shape == (CLIPS, 10)
    assert (ids == near[:, 1:]).mean() > 0.99
    distances = np.stack(table["neighbors"].map(lambda cell: cell["distances"]))
    assert np.abs(distances - apart[:, 1:]).max() < 1e-4
    pictured = table[table["picture"].notna()]
    assert pictured["file_path"].tolist() == [some]
    with Image.open(io.BytesIO(pictured["picture"].iloc[0]["bytes"])) as image:
        assert image.size == (112, 112)


def test_trees_find_nearly_all_neighbours_of_many_clips(
    parts: tuple[planted.Planted, dict[str, Part]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, found = parts
    tables = []
    for most in (sampling.POINTS, 100):
        monkeypatch.setattr(atlas, "POINTS", most)
        atlas.write(tmp_path / "a", tmp_path / "merged.pt", found, Tables(), ["frames"], Merging(True), None)
        tables.append(pd.read_parquet(tmp_path / "a"))
    assert "picture" not in tables[0]
    exact, trees = ([set(cell["ids"]) for cell in table["neighbors"]] for table in tables)
    assert np.mean([len(a & b) / 10 for a, b in zip(exact, trees, strict=True)]) > 0.9


def test_what_cannot_be_an_atlas_is_told(parts: tuple[planted.Planted, dict[str, Part]], tmp_path: Path) -> None:
    _, found = parts
    out, merged = tmp_path / "atlas.parquet", tmp_path / "merged.pt"
    with pytest.raises(UserError, match="its keys are not those of the folders' files"):
        atlas.write(out, merged, found, Tables(), ["default"], Merging(False), None)
    (tmp_path / "places.csv").write_text("subject_id,x\n10000000,1\n")
    known = Tables(others=(Table(str(tmp_path / "places.csv"), "patient", "subject_id", name="tables.0"),))
    with pytest.raises(UserError, match="a table has the column 'x', which the atlas makes; rename it"):
        atlas.write(out, merged, found, known, ["x"], Merging(True), None)
    one = {"p10": Part(tmp_path / "p10.pt", found["p10"].manifest, found["p10"].run)}
    keys, _ = read_vectors(found["p10"].vectors)
    write_vectors(one["p10"].vectors, keys[:3], torch.ones(3, DIM))
    merge_vectors({"p10": one["p10"].vectors}, merged, DIM)
    with pytest.raises(UserError, match="an atlas takes two vectors that differ"):
        atlas.write(out, merged, one, Tables(), ["default"], Merging(False), None)
    assert not out.exists()


def test_the_target_atlas_makes_it_and_nothing_else(work: Path) -> None:
    made = run_demo(work, "--", "atlas")
    assert made.returncode == 0, made.stdout
    file = parquet.read_table(work / "results/atlas/vit-tiny.parquet")
    assert file.num_rows == 8
    assert file["row"].to_pylist() == list(range(8))
    assert all(cell["bytes"].startswith(b"\xff\xd8") for cell in file["picture"].to_pylist())
    assert all(len(cell["ids"]) == 7 for cell in file["neighbors"].to_pylist())
    assert sorted(path.name for path in (work / "results/atlas").iterdir()) == ["vit-tiny.parquet"]
