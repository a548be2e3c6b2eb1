"""Record list, tables and `select` in whole runs."""

import json
import os
import re

import pandas as pd
import pytest
import torch

from testing.commands import ALL_AFTER_MERGE, pending, run_demo

TABLES = """
record_list: record.csv
tables: [{file: views.csv, by: path, key: video}]
select: "frames >= 16 and view in ['A4C', 'PLAX']"
"""


@pytest.fixture
def listed(work):
    """A record list of the demo's files but one, and of one that is not there; a table of views."""
    names = sorted(path.relative_to(work / "dicom").as_posix() for path in (work / "dicom").rglob("*.dcm"))
    names = [*names[1:], "p10/p10000001/s90000001/90000001_0099.dcm"]
    (work / "record.csv").write_text("dicom_filepath\n" + "".join(f"files/{name}\n" for name in names))
    keys = list(torch.load(work / "results/embeddings/vit-tiny_embeddings_all.pt"))
    lines = [f"{key},{'PLAX' if i % 2 else 'A2C'}\n" for i, key in enumerate(keys)]
    (work / "views.csv").write_text("video,view\n" + "".join(lines))
    return work


def test_a_selection_of_one_folder_computes_nothing_twice_and_can_be_taken_back(listed):
    target = "results/embeddings/vit-tiny_embeddings_p10.pt"
    before = torch.load(listed / target)
    for change, fewer in ((TABLES, True), (None, False)):
        done = run_demo(listed, "--", target, change=change)
        assert done.returncode == 0, done.stdout
        assert set(re.findall(r"^(?:local)?rule (\w+):", done.stdout, re.MULTILINE)) == {"embed"}
        made = torch.load(listed / target)
        assert (0 < len(made) < 4) if fewer else (made.keys() == before.keys())
        assert all(torch.equal(vector, before[key]) for key, vector in made.items())
        counts = json.loads((listed / target).with_suffix(".json").read_text())["counts"]
        assert counts["embedded"] == counts["reused"] == len(made)
        assert counts["left_out"] == 4 - len(made)


@pytest.mark.slow
def test_a_selection_makes_its_jobs_pending_computes_nothing_twice_and_can_be_taken_back(listed):
    embed = {"embed vit-tiny p10", "embed vit-tiny p11", *ALL_AFTER_MERGE}
    before = torch.load(listed / "results/embeddings/vit-tiny_embeddings_all.pt")
    assert pending(listed, change="record_list: record.csv") == {
        "check_record_list", "qc_model vit-tiny", "qc_index", "all"
    }  # fmt: skip
    assert pending(listed, change=TABLES) == {*embed, "check_record_list"}
    targets = ["export", "export_studies", "export_matrices", "all"]
    done = run_demo(listed, *targets, change=TABLES)
    assert done.returncode == 0, done.stdout
    assert pending(listed, *targets, change=TABLES) == set()
    results = listed / "results"
    chosen = torch.load(results / "embeddings/vit-tiny_embeddings_all.pt")
    assert 0 < len(chosen) < len(before)
    assert all(torch.equal(vector, before[key]) for key, vector in chosen.items())
    records = [results / f"embeddings/vit-tiny_embeddings_{folder}.json" for folder in ("p10", "p11")]
    counts = [json.loads(record.read_text())["counts"] for record in records]
    assert all(c["embedded"] == c["reused"] and c["embedded"] + c["left_out"] == c["converted"] == 4 for c in counts)
    table = pd.concat(map(pd.read_parquet, sorted((results / "parquet/vit-tiny").glob("*.parquet"))))
    assert table.file_path.tolist() == list(chosen)
    card = (results / "parquet/vit-tiny/README.md").read_text()
    assert f"it leaves out {8 - len(chosen)} clips" in card
    assert pd.read_parquet(results / "study/vit-tiny.parquet").n_clips.sum() == len(chosen)
    assert len(pd.read_csv(results / "embeddings/vit-tiny_embeddings_all.keys.tsv", sep="\t")) == len(chosen)
    accounting = json.loads((results / "qc/vit-tiny.json").read_text())["accounting"]["folders"][-1]
    assert (accounting["left_out"], accounting["embedded"]) == (8 - len(chosen), len(chosen))
    assert (accounting["listed"], accounting["listed_unseen"], accounting["seen_unlisted"]) == (11, 1, 1)

    os.utime(listed / "record.csv")
    text = (listed / "views.csv").read_text()
    (listed / "views.csv").write_text(text + "nowhere,A4C\n")
    after_views = {*embed, "export_parquet vit-tiny", "export_study vit-tiny", "export_matrix vit-tiny", *targets}
    assert pending(listed, *targets, change=TABLES) == after_views
    by_manifest = TABLES.replace(" and view in ['A4C', 'PLAX']", "")
    assert pending(listed, change=by_manifest) == embed
    merged = "results/embeddings/vit-tiny_embeddings_all.pt"
    assert run_demo(listed, "--", merged, change="record_list: record.csv").returncode == 0
    after = torch.load(listed / merged)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], vector) for key, vector in before.items())


def test_an_incomplete_collection_stops_before_the_merge(listed):
    result = run_demo(listed, "--keep-going", "--forcerun", "merge", change=TABLES + "require_complete: true")
    assert result.returncode != 0
    assert "record.csv lists 11 files: 1 of them are not on the disk, 1 files of the disk are not" in result.stdout
    assert "their names are in results/record_list/differences.tsv" in result.stdout
    assert "Traceback" not in result.stdout
    differences = pd.read_csv(listed / "results/record_list/differences.tsv", sep="\t")
    assert differences["what"].tolist() == ["listed, not on the disk", "on the disk, not listed"]
    assert not re.search(r"^rule merge:", result.stdout, re.MULTILINE)


def test_a_table_that_fits_no_file_stops_the_run(listed):
    (listed / "views.csv").write_text("video,view\nabc.avi,A4C\n")
    target = "results/embeddings/vit-tiny_embeddings_p10.pt"
    result = run_demo(listed, "--", target, change=TABLES)
    assert result.returncode != 0
    assert "config: tables.0: views.csv: none of its 1 keys is that of a file: it has 'abc.avi'" in result.stdout
    assert "Traceback" not in result.stdout
