"""A new record list: what is there goes under its new names, and nothing is computed again."""

import dataclasses
import json
import os

import numpy as np
import pandas as pd
import pytest
import torch

from echo_embeddings.collection.folders import find_folders
from echo_embeddings.convert.folder import convert_folder
from echo_embeddings.core import configuration, manifest, settings
from echo_embeddings.core.errors import UserError
from echo_embeddings.core.layout import Layout
from echo_embeddings.core.settings import Table
from echo_embeddings.core.vectors import write_vectors
from echo_embeddings.embed.folder import ComputeOptions, embed_folder
from echo_embeddings.tools import demo, rekey
from testing import units
from testing.commands import call_command
from testing.embedding import MODEL

SETTINGS = dataclasses.replace(settings.convert_settings(configuration.defaults(), 64))
# Of the demo's clips: two whose identifiers are corrected (one into the other folder), and one that leaves.
CORRECTED = {
    "p10/p10000001/s90000002/90000002_0001.dcm": "p11/p11000009/s90000002/90000002_0001.dcm",
    "p11/p11000001/s90000005/90000005_0001.dcm": "p11/p11000001/s95555555/95555555_0001.dcm",
}
GONE = "p10/p10000002/s90000003/90000003_0001.dcm"


def run(top, dicom, weights):
    """What the workflow's jobs do; returns how many files each folder converted and embedded anew."""
    layout, anew = Layout(top / "results"), []
    for name, folder in find_folders(str(dicom), []).items():
        tree = layout.mp4(64, name)
        before = {path: path.stat().st_mtime_ns for path in tree.rglob("*.mp4")}
        convert_folder(folder, layout, SETTINGS, limit=0, workers=1, timeout=600, max_failed_fraction=1)
        converted = [p for p in tree.rglob("*.mp4") if before.get(p) != p.stat().st_mtime_ns]
        options = ComputeOptions("cpu", batch_size=4, num_workers=0, threads=2, save_every=3)
        embed_folder(folder, MODEL, weights, tree, layout, options, max_failed_fraction=1)
        counts = json.loads(layout.run_record("tiny", name).read_text())["counts"]
        anew.append((len(converted), counts["embedded"] - counts["reused"]))
    return anew


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_weights):
    """An old collection with results, and its new version on the disk with a record list."""
    top = tmp_path_factory.mktemp("rekey")
    demo.write_collection(top / "dicom-1")
    assert run(top / "old", top / "dicom-1", tiny_weights) == [(4, 4), (4, 4)]
    listed = []
    for path in sorted((top / "dicom-1").rglob("*.dcm")):
        name = path.relative_to(top / "dicom-1").as_posix()
        if name != GONE:
            target = top / "dicom-2" / CORRECTED.get(name, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())  # fetched again: another time
            listed.append(CORRECTED.get(name, name))
    listed.append("p10/p10000001/s90000001/90000001_0099.dcm")  # announced, and not fetched
    (top / "record.csv").write_text("dicom_filepath\n" + "".join(f"files/{name}\n" for name in listed))
    (top / "renamed.csv").write_text(
        "old,new\np11/p11000001/s90000005/90000005_0001.dcm,files/p11/p11000001/s95555555/95555555_0001.dcm\n"
    )
    return top


def record_list(world):
    return Table(str(world / "record.csv"), "path", "dicom_filepath", name="record_list")


def expected(world):
    """The old vectors under their new keys."""
    found = {}
    for folder in ("p10", "p11"):
        for key, vector in torch.load(world / f"old/results/embeddings/tiny_embeddings_{folder}.pt").items():
            old = f"{folder}/{key.replace('.mp4', '.dcm')}"
            if old != GONE:
                found[CORRECTED.get(old, old).replace(".dcm", ".mp4")] = vector
    return found


def vectors_in(top):
    return {
        f"{folder}/{key}": vector
        for folder in ("p10", "p11")
        for key, vector in torch.load(top / f"results/embeddings/tiny_embeddings_{folder}.pt").items()
    }


def same(found, wanted):
    assert found.keys() == wanted.keys()
    return all(torch.equal(found[key], wanted[key]) for key in wanted)


def run_direct(top, dicom, weights):
    """The same without MP4 files; returns how many were embedded anew."""
    return units.run(units.collection_of(dicom_dir=str(dicom)), weights, Layout(top / "results"), model=units.DIRECT)[1]


def test_clips_without_an_mp4_go_too(world, tiny_weights, tmp_path):
    assert run_direct(tmp_path / "old", world / "dicom-1", tiny_weights) == 8
    lists = (record_list(world), str(world / "dicom-2"), world / "renamed.csv")
    rekey.rekey(tmp_path / "old", tmp_path / "new", *lists)
    before = vectors_in(tmp_path / "new")
    assert len(before) == 7
    assert run_direct(tmp_path / "new", world / "dicom-2", tiny_weights) == 0
    assert same(vectors_in(tmp_path / "new"), before)


def test_units_of_clips_without_an_mp4_are_refused_too(world, tiny_weights, tmp_path):
    collection = units.collection_of(dicom_dir=str(world / "dicom-1"), units=2)
    units.run(collection, tiny_weights, Layout(tmp_path / "old/results"), model=units.DIRECT)
    with pytest.raises(UserError, match="results of `units: N` cannot be carried to other names yet"):
        rekey.rekey(tmp_path / "old", tmp_path / "new", record_list(world), str(world / "dicom-2"), None)
    assert not (tmp_path / "new").exists()


def test_the_workflow_goes_on_under_the_new_names_and_computes_nothing(world, tiny_weights):
    new = world / "new"
    report = rekey.rekey(world / "old", new, record_list(world), str(world / "dicom-2"), world / "renamed.csv")
    assert report["what"].value_counts().to_dict() == {"same name": 8, "renamed": 2, "left the collection": 1, "new": 1}
    assert report.loc[report["what"] == "left the collection", "old"].tolist() == [GONE]
    assert dict(report.loc[report["what"] == "renamed", ["old", "new"]].to_numpy()) == CORRECTED
    assert pd.read_csv(new / "results/rekey.tsv", sep="\t", keep_default_na=False).equals(report)
    assert same(vectors_in(new), expected(world))
    assert run(new, world / "dicom-2", tiny_weights) == [(0, 0), (0, 0)]
    assert same(vectors_in(new), expected(world))
    rows = [row for f in ("p10", "p11") for row in manifest.read(new / f"results/mp4/64/{f}.manifest.tsv")]
    assert {row.path for row in rows if row.status == "converted"} == {
        key.split("/", 1)[1].replace(".mp4", ".dcm") for key in expected(world)
    }
    assert run(world / "old", world / "dicom-1", tiny_weights) == [(0, 0), (0, 0)]  # untouched


def test_without_the_new_files_the_embeddings_go_under_the_new_names(world, tmp_path):
    arguments = ["rekey", world / "old", tmp_path, "--record-list", world / "record.csv"]
    done = call_command(*arguments, "--renamed", world / "renamed.csv")
    assert done.returncode == 0, done.stderr
    assert "1 files: left the collection" in done.stdout
    assert same(vectors_in(tmp_path), expected(world))
    assert not (tmp_path / "results/state").exists()
    again = call_command(*arguments)
    assert again.returncode == 1
    assert again.stderr.strip().endswith("is there already; give a directory without results")


def test_a_file_whose_study_changed_and_is_not_told_is_computed_anew(world, tmp_path, tiny_weights):
    report = rekey.rekey(world / "old", tmp_path, record_list(world), str(world / "dicom-2"), None)
    left = set(report.loc[report["what"] == "left the collection", "old"])
    assert left == {GONE, "p11/p11000001/s90000005/90000005_0001.dcm"}
    assert run(tmp_path, world / "dicom-2", tiny_weights) == [(0, 0), (1, 1)]
    found, wanted = vectors_in(tmp_path), expected(world)
    assert found.keys() == wanted.keys()
    assert all(np.allclose(found[key], wanted[key], rtol=1e-4, atol=1e-5) for key in wanted)


def test_another_file_of_the_same_name_is_not_taken_for_it(world, tmp_path, tiny_weights):
    changed = tmp_path / "dicom"
    for path in (world / "dicom-2").rglob("*.dcm"):
        target = changed / path.relative_to(world / "dicom-2")
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, target)
    clip = changed / "p10/p10000001/s90000001/90000001_0001.dcm"
    other = (changed / "p10/p10000001/s90000001/90000001_0002.dcm").read_bytes()
    clip.unlink()
    clip.write_bytes(other)
    new = tmp_path / "new"
    report = rekey.rekey(world / "old", new, record_list(world), str(changed), world / "renamed.csv")
    assert report.loc[report["what"] == "the DICOM has another size", "old"].tolist() == [
        "p10/p10000001/s90000001/90000001_0001.dcm"
    ]
    assert run(new, changed, tiny_weights) == [(1, 1), (0, 0)]


def test_vectors_of_videos_keep_their_extensions(tmp_path):
    keys = ["a/0X1C.avi", "a/0X1D.mp4", "a/0X1E.webm", "a/gone.avi"]
    vectors = torch.randn(4, 3)
    write_vectors(Layout(tmp_path / "old/results").vectors("tiny", "site"), keys, vectors)
    listed = ["site/a/0X1C.avi", "site/a/0X1D.mp4", "site/b/new.avi"]
    (tmp_path / "list.csv").write_text("dicom_filepath\n" + "".join(f"{name}\n" for name in [*listed, "site/a/0X1E"]))
    list_of_all = Table(str(tmp_path / "list.csv"), "path", "dicom_filepath", name="record_list")
    rekey.rekey(tmp_path / "old", tmp_path / "new", list_of_all, None, None)
    found = torch.load(Layout(tmp_path / "new/results").vectors("tiny", "site"))
    assert found.keys() == {"a/0X1C.avi", "a/0X1D.mp4", "a/0X1E.webm"}
    assert all(torch.equal(found[key], vectors[i]) for i, key in enumerate(keys[:3]))


@pytest.mark.parametrize(
    ("renamed", "message"),
    [
        ("a,b\n1,2\n", "no CSV with the columns old and new"),
        ("old,new\np10/x.dcm,p10/nowhere.dcm\n", "'p10/nowhere.dcm' is not in the record list"),
        (f"old,new\n{GONE},p11/p11000001/s90000004/90000004_0001.dcm\n", "two files would become p11/"),
    ],
)
def test_wrong_tables_are_one_line(world, tmp_path, renamed, message):
    (tmp_path / "renamed.csv").write_text(renamed)
    with pytest.raises(UserError, match=message) as error:
        rekey.rekey(world / "old", tmp_path / "new", record_list(world), None, tmp_path / "renamed.csv")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "new/results").exists()


def test_nothing_to_carry_is_one_line(world, tmp_path):
    with pytest.raises(UserError, match=r"no .*results/embeddings; give the directory"):
        rekey.rekey(tmp_path, tmp_path / "new", record_list(world), None, None)
