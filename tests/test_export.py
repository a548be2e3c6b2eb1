"""Tables out: Parquet that every reader opens, one vector a study, a mapped matrix."""

import json
import runpy
from pathlib import Path

import datasets
import duckdb
import numpy as np
import pandas as pd
import polars
import pytest
import torch
import yaml
from pyarrow import parquet

from echo_embeddings.core import manifest
from echo_embeddings.core.errors import UserError
from echo_embeddings.core.layout import Layout
from echo_embeddings.core.manifest import Row
from echo_embeddings.core.settings import Table, Tables
from echo_embeddings.core.vectors import merge_vectors, read_vectors, write_vectors
from echo_embeddings.tables import card, export, identity, study

DIM = 24


@pytest.fixture
def collection(tmp_path):
    """Two folders of 30 clips each in studies of different size, the last of which has none; a list of studies."""
    rng = np.random.default_rng(0)
    for folder in ("p10", "p11"):
        keys = [f"{folder}000{i % 4}/s{folder[1:]}{i % 7}/{folder[1:]}{i % 7}_{i:04d}.mp4" for i in range(30)]
        rows = [
            Row(key.replace(".mp4", ".dcm"), key, "converted", "", 10 + i, mtime_ns=i, heart_rate=None if i else 60)
            for i, key in enumerate(keys)
        ]
        rows.append(Row(f"{folder}0009/s{folder[1:]}9/still.dcm", "", "skipped", "single frame"))
        manifest.write(tmp_path / f"results/mp4/256/{folder}.manifest.tsv", rows)
        made = tmp_path / f"results/embeddings/tiny_embeddings_{folder}.pt"
        write_vectors(made, keys, torch.from_numpy(rng.normal(size=(30, DIM)).astype(np.float32)))
        made.with_suffix(".json").write_text(json.dumps({"checkpoint_sha256": "ab" * 32, "versions": {"torch": "2"}}))
    (tmp_path / "record.csv").write_text(
        "subject_id,study_id,acquisition_datetime,dicom_filepath\n"
        "100000,100,2110-05-01 10:00:00,files/p10/p100000/s100/100_0000.dcm\n"
    )
    (tmp_path / "study.csv").write_text("subject_id,study_id,study_datetime\n7,777,2110-05-01 10:00:00\n100000,100,\n")
    return tmp_path


def parts_of(collection):
    return export.parts(Layout(collection / "results"), "tiny", "256", ["p10", "p11"])


def tables_of(collection, select=None):
    lists = [
        Table(str(collection / f"{name}.csv"), by, key, name=f"{name}_list")
        for name, by, key in (("record", "path", "dicom_filepath"), ("study", "study", "study_id"))
    ]
    return Tables(*lists, select=select)


NOT_PREFIXED = export.Merging()
ABOUT = card.About("tiny", DIM, {"licence": "CC0", "commercial use": "yes"}, ["Some-Echo"], "Some Echo", None)


def write(collection, known=None, wanted=("default",), merging=NOT_PREFIXED):
    """Export; returns the directory."""
    out = collection / "results/parquet/tiny"
    shards = [out / f"train-{i:05d}-of-00002.parquet" for i in range(2)]
    known = known or tables_of(collection)
    exported = export.write_shards(parts_of(collection), shards, known, wanted, DIM, merging)
    card.write(out / "README.md", ABOUT, exported, parts_of(collection), known)
    return out


def vectors_of(collection):
    return {k: v for f in ("p10", "p11") for k, v in torch.load(parts_of(collection)[f].vectors).items()}


def test_every_reader_opens_it_and_finds_the_same(collection, monkeypatch, tmp_path):
    out = write(collection)
    expected = vectors_of(collection)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    rows = datasets.load_dataset(str(out), split="all", cache_dir=str(tmp_path / "hf"))
    files = [str(path) for path in sorted(out.glob("*.parquet"))]
    other = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "hf"))
    assert rows.features["embedding"].length == DIM
    streamed = datasets.load_dataset(str(out), "all", split="all", streaming=True, cache_dir=str(tmp_path / "hf"))
    assert list(rows["file_path"]) == list(other["file_path"]) == [row["file_path"] for row in streamed]
    rows.set_format("numpy", columns=["embedding"])
    table = pd.concat(map(pd.read_parquet, files), ignore_index=True)
    frame = polars.read_parquet(out / "train-*.parquet")
    assert frame.schema["embedding"] == polars.Array(polars.Float32, DIM)
    found = duckdb.sql(f"SELECT file_path, embedding FROM '{out}/train-*.parquet' ORDER BY file_path").df()
    assert list(table["file_path"]) == list(expected) == list(frame["file_path"]) == list(found["file_path"])
    matrix = np.stack(list(expected.values()))
    for read in (np.stack(table["embedding"]), frame["embedding"].to_numpy(), np.stack(found["embedding"]),
                 rows[:]["embedding"]):  # fmt: skip
        assert read.dtype == np.float32
        assert np.array_equal(read, matrix)


def test_rows_that_contradict_each_other_in_what_leaves_stop_an_export(collection):
    key = "p100000/s100/100_0000.mp4"
    (collection / "views.csv").write_text(f"dicom_filepath,view\np10/{key},A4C\nfiles/p10/{key},PLAX\n")
    known = Tables(others=(Table(str(collection / "views.csv"), "path", "dicom_filepath", name="tables.0"),))
    write(collection, known)  # by default no column of a table leaves
    with pytest.raises(UserError, match="contradict each other: view is 'A4C' and 'PLAX'"):
        write(collection, known, ("default", "view"))


def test_the_lines_of_the_card_run(collection, monkeypatch, tmp_path):
    out = write(collection)
    text = (out / "README.md").read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "lines.py").write_text(text)
    monkeypatch.chdir(out)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    made = runpy.run_path(str(tmp_path / "lines.py"))
    assert made["matrix"].shape == (60, DIM)
    assert len(made["rows"]) == len(made["frame"]) == len(made["found"]) == 60


def test_columns_order_types_and_nulls(collection):
    out = write(collection, wanted=("all",))
    schema = parquet.read_schema(out / "train-00000-of-00002.parquet")
    lists = ["subject_id", "study_id", "dicom_id", "file_path", "acquisition_datetime", "study_datetime"]
    assert schema.names == [*lists, "dicom_filepath", "folder", *manifest.COLUMNS, "key", "row", "fold", "embedding"]
    assert str(schema.field("embedding").type) == f"fixed_size_list<element: float>[{DIM}]"
    assert str(schema.field("mtime_ns").type) == "int64"
    assert schema == parquet.read_schema(out / "train-00001-of-00002.parquet")
    table = pd.read_parquet(out / "train-00000-of-00002.parquet")
    assert table["dicom_filepath"].notna().sum() == 1
    assert table["acquisition_datetime"].dropna().tolist() == [pd.Timestamp("2110-05-01 10:00:00")]
    page = (out / "README.md").read_text()
    assert "`record.csv` (record_list), by path: found for 1 rows, not for 59" in page
    assert "| `dicom_filepath` | string | 59 |" in page
    assert "| p10 | 30 |" in page


def test_by_default_nothing_leaves_that_the_paths_do_not_say(collection):
    out = write(collection)
    names = parquet.read_schema(out / "train-00000-of-00002.parquet").names
    left_behind = {"acquisition_datetime", "study_datetime", "mtime_ns", "patient_id_hash", "study_instance_uid_hash"}
    assert not left_behind & set(names)
    assert {"subject_id", "study_id", "dicom_id", "dicom_filepath", "frames"} <= set(names)
    named = write(collection, wanted=("default", "study_datetime"))
    assert "study_datetime" in parquet.read_schema(named / "train-00000-of-00002.parquet").names
    few = write(collection, wanted=("file_path",))
    assert parquet.read_schema(few / "train-00000-of-00002.parquet").names == [
        "file_path",
        "key",
        "row",
        "fold",
        "embedding",
    ]
    with pytest.raises(UserError, match=r"export\.columns: no column 'study_date'; did you mean 'study_datetime'"):
        write(collection, wanted=("study_date",))


def test_identifiers_that_only_the_record_list_knows_stay_unless_named(collection):
    path = parts_of(collection)["p10"].manifest
    manifest.write(path, [Row("x/IM1", "x/IM1.mp4", "converted", "", 20)])
    write_vectors(parts_of(collection)["p10"].vectors, ["x/IM1.mp4"], torch.ones(1, DIM))
    (collection / "record.csv").write_text("dicom_filepath,subject_id,study_id\np10/x/IM1,P-7,3\n")
    for wanted, subject in ((("default",), None), (("default", "subject_id"), "P-7"), (("all",), "P-7")):
        out = write(collection, wanted=wanted)
        assert pd.read_parquet(out / "train-00000-of-00002.parquet").subject_id.replace({np.nan: None}).tolist() == [
            subject
        ]


def test_the_card_is_for_people_and_programs(collection):
    known = tables_of(collection, "frames >= 20")
    for part in parts_of(collection).values():
        keys, matrix = read_vectors(part.vectors)
        chosen = [i for i, key in enumerate(keys) if int(key[-8:-4]) >= 10]
        write_vectors(part.vectors, [keys[i] for i in chosen], matrix[chosen])
    (collection / "results/parquet/tiny").mkdir(parents=True)
    stale = collection / "results/parquet/tiny/train-00002-of-00003.parquet"
    stale.write_text("of an earlier run, when there were three folders")
    page = (write(collection, known) / "README.md").read_text()
    assert not stale.exists()
    front = yaml.safe_load(page.split("---")[1])
    assert front["license"] == "other"
    assert front["configs"][0]["data_files"] == [{"split": "all", "path": "train-*-of-00002.parquet"}]
    assert "Selected: `frames >= 20`; it leaves out 20 clips." in page
    assert "| licence | CC0 |\n| commercial use | yes |" in page
    assert "pretrained on Some-Echo - **this collection: it has seen these clips.**" in page
    assert "ab" * 32 in page
    assert "Pass them on only as the terms allow" in page
    assert "40 vectors of 24 float32" in page


def test_a_vector_of_no_selected_clip_stops(collection):
    with pytest.raises(UserError, match="has a vector and is no selected clip of the manifest"):
        write(collection, tables_of(collection, "frames >= 20"))
    with pytest.raises(UserError, match="vectors of dimension 24, the model's is 7"):
        export.write_shards(parts_of(collection), [Path("a"), Path("b")], Tables(), ["all"], 7, export.Merging())


@pytest.mark.parametrize("seed", range(3))
def test_studies_equal_a_group_by_in_any_order(collection, seed):
    rng = np.random.default_rng(seed)
    for part in parts_of(collection).values():
        vectors = list(torch.load(part.vectors).items())
        torch.save({vectors[i][0]: vectors[i][1].clone() for i in rng.permutation(len(vectors))}, part.vectors)
    out = collection / "results/study/tiny.parquet"
    study.write(parts_of(collection), out, tables_of(collection), ["default"], DIM, everything=True)
    table = pd.read_parquet(out)
    assert list(table) == ["subject_id", "study_id", "n_clips", "embedding"]
    vectors = pd.DataFrame(vectors_of(collection)).T
    ids = vectors.index.to_series().str.extract(r"p(\d+)/s(\d+)/").astype(int)
    expected = vectors.astype(np.float64).groupby([ids[0], ids[1]]).mean()
    counts = ids.groupby([0, 1]).size()
    got = table[table.n_clips > 0].set_index(["subject_id", "study_id"])
    assert len(got) == len(expected) == len(counts)
    assert np.abs(np.stack(got.embedding) - expected.loc[got.index].to_numpy()).max() < 1e-6
    assert got.n_clips.tolist() == counts.loc[got.index].tolist()
    none = table[table.n_clips == 0]
    assert {(row.subject_id, row.study_id) for row in none.itertuples()} == {(100009, 109), (110009, 119), (7, 777)}
    assert none.embedding.isna().all()


def test_studies_of_chosen_folders_and_with_chosen_columns(collection):
    out = collection / "results/study/tiny.parquet"
    study.write(parts_of(collection), out, tables_of(collection), ["all"], DIM, everything=False)
    table = pd.read_parquet(out)
    assert list(table) == ["subject_id", "study_id", "study_datetime", "n_clips", "embedding"]
    assert 777 not in table.study_id.tolist()


def test_where_no_study_is_known_it_says_what_to_give(collection):
    manifest.write(parts_of(collection)["p10"].manifest, [Row("x/IM1", "x/IM1.mp4", "converted", "", 20)])
    parts = {"p10": parts_of(collection)["p10"]}
    with pytest.raises(UserError, match=r"no study is known: .* give a record_list"):
        study.write(parts, collection / "x.parquet", Tables(), ["default"], DIM, everything=True)


@pytest.mark.parametrize("prefix", [False, True])
def test_matrix_and_parquet_share_keys_rows_and_folds(collection, prefix):
    merged, merging = collection / "all.pt", export.Merging(prefix, folds=3, seed=1)
    parts = parts_of(collection)
    merge_vectors({f: part.vectors for f, part in parts.items()}, merged, DIM, prefix)
    clips = export.of_vectors(parts, export.read(parts, tables_of(collection), ["subject_id"]), DIM, merging)
    export.write_matrix(merged, collection / "all.npy", collection / "all.keys.tsv", clips.merged)
    matrix = np.load(collection / "all.npy", mmap_mode="r")
    keys = pd.read_csv(collection / "all.keys.tsv", sep="\t")
    assert keys["row"].tolist() == list(range(60))
    vectors = torch.load(merged)
    assert keys["key"].tolist() == list(vectors)
    assert np.array_equal(matrix, np.stack(list(vectors.values())))
    out = write(collection, merging=merging)
    table = pd.concat(map(pd.read_parquet, sorted(out.glob("*.parquet"))))
    assert np.array_equal(np.stack(table["embedding"]), matrix[table["row"]])
    joined = table.merge(keys, on=["key", "row", "fold"])
    assert len(joined) == 60
    assert (table["key"] == (table["folder"] + "/" if prefix else "") + table["file_path"]).all()
    assert table["fold"].tolist() == [identity.fold_of(str(subject), 1, 3) for subject in table["subject_id"]]
    assert table["fold"].nunique() > 1


def test_a_fold_is_none_where_no_patient_is_known_and_that_of_a_patient_only_a_list_knows(collection):
    part = parts_of(collection)["p10"]
    manifest.write(part.manifest, [Row(f"x/IM{i}", f"x/IM{i}.mp4", "converted", "", 20) for i in (1, 2)])
    write_vectors(part.vectors, ["x/IM1.mp4", "x/IM2.mp4"], torch.ones(2, DIM))
    (collection / "record.csv").write_text("dicom_filepath,subject_id,study_id\np10/x/IM1,P-7,3\n")
    table = pd.read_parquet(write(collection) / "train-00000-of-00002.parquet")
    assert table["fold"].fillna(-1).tolist() == [identity.fold_of("P-7", 0, 5), -1]
    assert table["subject_id"].isna().all()  # which does not leave
    assert table["row"].tolist() == [30, 31]  # behind those of p11, by their keys


def test_a_merged_file_of_other_clips_has_no_matrix(collection):
    clips = export.of_vectors(
        parts_of(collection), export.read(parts_of(collection), Tables(), []), DIM, export.Merging()
    )
    write_vectors(collection / "all.pt", ["a.mp4"], torch.ones(1, DIM))
    with pytest.raises(UserError, match="its keys are not those of the folders' files; delete it and run again"):
        export.write_matrix(collection / "all.pt", collection / "x.npy", collection / "x.tsv", clips.merged)


def test_a_column_called_like_one_of_the_exports_is_refused(collection):
    (collection / "split.csv").write_text("subject_id,fold\n100000,1\n")
    known = Tables(others=(Table(str(collection / "split.csv"), "patient", "subject_id", name="tables.0"),))
    write(collection, known)  # it may be there for anything else
    with pytest.raises(UserError, match="the column 'fold' is called like one that the exports make; rename it"):
        write(collection, known, ("default", "fold"))
