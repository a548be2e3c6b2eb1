"""Whose a file is: which source of patient and study counts, for joins, exports, study vectors and pages alike."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

from echo_embeddings.collection.units import Folder
from echo_embeddings.core import configuration, manifest, settings
from echo_embeddings.core.errors import UserError
from echo_embeddings.core.layout import Layout
from echo_embeddings.core.manifest import Row
from echo_embeddings.core.settings import Table, Tables
from echo_embeddings.core.vectors import write_vectors
from echo_embeddings.qc.report import Options, measure
from echo_embeddings.qc.similarity import ALL
from echo_embeddings.qc.tables import FolderFiles
from echo_embeddings.tables import export, selection, study
from echo_embeddings.tables.join import check_joins, files_table, join_tables
from testing.qc import check

DIM = 16
# By MIMIC's names patient 1 and study 2, by the layout patient A and study b.
PATH = "p1/s2/A_b.dcm"
LAYOUT = "*/*/*/{patient}_{study}"


def files_of(top, *paths, folder="site", **cells):
    """The files of a folder."""
    rows = [Row(path, f"{path.removesuffix('.dcm')}.mp4", "converted", "", 20, **cells) for path in paths]
    manifest.write(top / f"{folder}.tsv", rows)
    return files_table({folder: top / f"{folder}.tsv"})


def table(path, text, by="path", key="dicom_filepath", of="tables.0", columns=()):
    path.write_text(text)
    return Table(str(path), by, key, columns, of)


def whose(frame, tables):
    """Patient and study of each file, and what is said of each table."""
    joined, joins = join_tables(frame, tables)
    pairs = joined[["subject_id", "study_id"]].astype("string").fillna("-")
    return list(map(tuple, pairs.to_numpy())), [note for join in joins for note in join.notes]


def test_each_source_beats_the_next(tmp_path):
    frame = files_of(tmp_path, PATH, patient_id_hash="c0ffee", study_instance_uid_hash="decade")
    records = table(tmp_path / "r.csv", f"dicom_filepath,subject_id,study_id\n{PATH},R,r\n", of="record_list")
    first = table(tmp_path / "t.csv", f"dicom_filepath,subject_id,study_id\n{PATH},T,t\n", columns=())
    second = table(tmp_path / "u.csv", f"dicom_filepath,subject_id,study_id,view\n{PATH},U,u,A4C\n", of="tables.1")
    known = Tables(records, None, (first, second), layout=LAYOUT)
    assert whose(frame, known)[0] == [("R", "r")]
    assert whose(frame, dataclasses.replace(known, record_list=None))[0] == [("T", "t")]
    # What joins of a table does not matter: it says whose a file is all the same.
    named = dataclasses.replace(second, columns=("view",))
    assert whose(frame, Tables(others=(named,), layout=LAYOUT))[0] == [("U", "u")]
    assert whose(frame, Tables(layout=LAYOUT))[0] == [("A", "b")]
    assert whose(frame, Tables())[0] == [("1", "2")]
    other = files_of(tmp_path, "x/IM1.dcm", patient_id_hash="c0ffee", study_instance_uid_hash="decade")
    assert whose(other, Tables())[0] == [("c0ffee", "decade")]
    assert whose(files_of(tmp_path, "x/IM1.dcm"), Tables())[0] == [("-", "-")]


def test_each_source_is_asked_file_by_file_and_column_by_column(tmp_path):
    frame = files_of(tmp_path, "a/IM1.dcm", "b/IM1.dcm", "c/IM1.dcm", study_instance_uid_hash="decade")
    records = table(tmp_path / "r.csv", "dicom_filepath,subject_id\na/IM1,R\nb/IM1,\n", of="record_list")
    found, notes = whose(frame, Tables(records, layout="site/{patient}/*"))
    assert found == [("R", "decade"), ("b", "decade"), ("c", "decade")]
    assert notes == ["1 files have another subject_id by path: that of the table counts"]


def test_a_record_list_that_contradicts_the_paths_counts_and_is_told(tmp_path):
    """A corrected list moves a study to another patient; a number that is written otherwise contradicts nothing."""
    frame = files_of(tmp_path, "p1/s2/1.dcm", "p1/s2/2.dcm", "p3/s4/1.dcm")
    content = "dicom_filepath,subject_id,study_id\np1/s2/1,7,2\np1/s2/2,7,2\np3/s4/1,p3,04\n"
    records = table(tmp_path / "r.csv", content, of="record_list")
    found, notes = whose(frame, Tables(records))
    assert found == [("7", "2"), ("7", "2"), ("3", "04")]
    assert notes == ["2 files have another subject_id by path: that of the table counts"]
    assert str(join_tables(frame, Tables(records))[1][0]).endswith(f"; {notes[0]}")


def test_one_patient_is_written_in_one_way(tmp_path):
    """The list knows 007 of one file, the path 7 of another: they are of one patient."""
    frame = files_of(tmp_path, "p7/s1/1.dcm", "p7/s1/2.dcm", "x/IM1.dcm")
    content = "dicom_filepath,subject_id\np7/s1/1,007\nx/IM1,P-8\n"
    found, notes = whose(frame, Tables(table(tmp_path / "r.csv", content, of="record_list")))
    assert found == [("007", "1"), ("007", "1"), ("P-8", "-")]
    assert notes == []


@pytest.mark.parametrize("inside", [False, True])
def test_the_layout_begins_below_the_collections_directory(tmp_path, inside):
    """Files that lie directly in it are in a folder of its name, which is no part of their paths."""
    top = tmp_path / "ward"
    (top / "ward" if inside else top).mkdir(parents=True)
    config = configuration.defaults() | {"dicom_dir": str(top), "layout": "{patient}/*" if inside else "{patient}_*"}
    frame = files_of(tmp_path, "A_1.dcm", folder="ward")
    assert whose(frame, settings.tables(config))[0] == [("ward" if inside else "A", "-")]
    assert settings.tables(configuration.defaults()).layout is None


def test_tables_join_by_the_patient_and_study_of_a_layout(tmp_path):
    """And so in a collection of videos, whose paths end otherwise."""
    rows = [Row(path, path, "converted", "", 20) for path in ("A/1/x.avi", "A/2/x.avi", "B/1/x.avi")]
    manifest.write(tmp_path / "m.tsv", rows)
    frame = files_table({"site": tmp_path / "m.tsv"})
    people = table(tmp_path / "p.csv", "subject_id,sex\nA,F\nB,M\n", "patient", "subject_id")
    studies = table(
        tmp_path / "s.csv", "subject_id,study_id,ef\nB,1,30\nA,1,60\nA,2,50\n", "study", "study_id", "tables.1"
    )
    known = Tables(others=(people, studies), layout="site/{patient}/{study}/*")
    joined, joins = join_tables(frame, known, {"ef"})
    assert joined["sex"].tolist() == ["F", "F", "M"]
    assert joined["ef"].tolist() == [60, 50, 30]
    assert [join.repeated for join in joins] == [[], []]
    # So it is in the job of a folder that holds one of the patients alone.
    assert join_tables(frame[:1], known, {"ef"})[0]["ef"].tolist() == [60]
    lone = dataclasses.replace(known, others=(people, studies), select="ef > 40")
    assert selection.used(lone).layout == known.layout
    assert selection.used(dataclasses.replace(known, select="frames > 3")).layout is None


def test_a_study_of_several_patients_needs_a_table_that_says_whose(tmp_path):
    frame = files_of(tmp_path, "A/1/x.dcm", "B/1/x.dcm")
    studies = table(tmp_path / "s.csv", "study_id,ef\n1,30\n", "study", "study_id")
    known = Tables(others=(studies,), layout="site/{patient}/{study}/*", select="ef > 40")
    with pytest.raises(
        UserError, match=r"tables\.0: .*: the patients 'A' and 'B' both have a study '1'; give"
    ) as error:
        join_tables(frame, known)
    assert "\n" not in str(error.value)
    folder = tmp_path / "site"
    for path in frame["path"]:
        (folder / path).parent.mkdir(parents=True)
        (folder / path).touch()
    with pytest.raises(UserError, match="'A' and 'B' both have a study '1'"):
        check_joins({"site": Folder("site", str(folder))}, known)


# --- a hospital's collection ------------------------------------------------------------------------

PATIENTS, STUDIES, CLIPS = 24, 2, 3


@pytest.fixture
def hospital(tmp_path):
    """Two wards of patients whose studies are called 1 and 2, with vectors that tell patients apart."""
    rng = np.random.default_rng(0)
    for ward in ("north", "south"):
        paths = [
            f"{ward[0].upper()}-{i:02d}/{number + 1}/IM{clip}.dcm"
            for i in range(PATIENTS // 2) for number in range(STUDIES) for clip in range(CLIPS)
        ]  # fmt: skip
        frame = files_of(tmp_path, *paths, folder=ward)
        people = np.repeat(rng.normal(size=(PATIENTS // 2, DIM)), STUDIES * CLIPS, axis=0)
        matrix = people + 0.1 * rng.normal(size=people.shape)
        layout = Layout(tmp_path / "results")
        layout.manifest(256, ward).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{ward}.tsv").rename(layout.manifest(256, ward))
        write_vectors(layout.vectors("m", ward), sorted(frame["mp4"]), torch.from_numpy(matrix.astype(np.float32)))
    return tmp_path


def report_of(top, tables):
    """What the page of both wards says."""
    parts = export.parts(Layout(top / "results"), "m", "256", ["north", "south"])
    vectors = {key: vector for part in parts.values() for key, vector in torch.load(part.vectors).items()}
    write_vectors(top / "all.pt", list(vectors), torch.stack(list(vectors.values())))
    files = {ward: FolderFiles(part.manifest, top, part.run, top / "none.tsv") for ward, part in parts.items()}
    return measure("m", top / "all.pt", files, Options(tables=tables))


def test_the_page_of_a_hospital_gets_its_signal_check(hospital, capsys):
    silent = report_of(hospital, Tables())
    assert silent.similarity.patients == 0
    assert check(silent, "Patients").sentence.endswith("patients are not known.")

    report = report_of(hospital, Tables(layout="*/{patient}/{study}/*.dcm"))
    assert report.similarity.patients == PATIENTS
    of_patient = STUDIES * CLIPS * (STUDIES * CLIPS - 1) // 2
    assert report.similarity.compared[ALL].pairs == {
        # A study 1 of one patient has nothing to do with that of another.
        "same study": PATIENTS * STUDIES * CLIPS * (CLIPS - 1) // 2,
        "same patient, other study": PATIENTS * (of_patient - STUDIES * CLIPS * (CLIPS - 1) // 2),
        "different patients": (PATIENTS * (PATIENTS - 1) // 2) * (STUDIES * CLIPS) ** 2,
    }
    signal = check(report, "Patients")
    assert signal.level == "not tested"  # the drawn manifests say nothing of devices
    assert "Clips of the same patient, other study, are closer to each other" in signal.sentence
    # Where studies are not known, clips of a patient are still compared, and not taken for those of one study.
    report = report_of(hospital, Tables(layout="*/{patient}/*"))
    pairs = report.similarity.compared[ALL].pairs
    assert pairs["same patient, study not known"] == PATIENTS * of_patient
    assert pairs["same study"] == pairs["same patient, other study"] == 0
    assert check(report, "Patients").level == "not tested"

    content = "dicom_filepath,subject_id\nnorth/N-00/1/IM0,S-00\n"
    records = table(hospital / "r.csv", content, of="record_list")
    report = report_of(hospital, Tables(records, layout="*/{patient}/{study}/*"))
    assert report.similarity.compared[ALL].pairs["same study"] == PATIENTS * STUDIES * CLIPS * (CLIPS - 1) // 2 + 1
    assert "1 files have another subject_id by path" in capsys.readouterr().out
    assert report.accounting.tables == []  # it selects nothing


def test_a_record_list_that_contradicts_itself_stops_the_page(hospital):
    content = "dicom_filepath,subject_id\nnorth/N-00/1/IM0,1\nN-00/1/IM0.dcm,1\nnorth/N-00/1/IM0.dcm,2\n"
    with pytest.raises(UserError, match="the rows of 'north/N-00/1/IM0' contradict each other: subject_id is '1' and"):
        report_of(hospital, Tables(table(hospital / "r.csv", content, of="record_list")))


def test_study_vectors_are_of_the_layouts_studies(hospital):
    parts = export.parts(Layout(hospital / "results"), "m", "256", ["north", "south"])
    studies = table(
        hospital / "s.csv",
        "subject_id,study_id,ef\nS-03,2,35\nN-03,2,65\nS-99,1,50\n",
        "study",
        "study_id",
        "study_list",
    )
    known = Tables(study_list=studies, layout="*/{patient}/{study}/*")
    out = hospital / "study.parquet"
    study.write(parts, out, known, ["ef"], DIM, everything=True)
    made = pd.read_parquet(out)
    assert len(made) == PATIENTS * STUDIES + 1
    made = made.set_index(["subject_id", "study_id"])
    assert made.loc[("N-03", 2), "ef"] == 65
    assert made.loc[("S-03", 2), "ef"] == 35
    assert made["ef"].notna().sum() == 3
    assert made.loc[("S-99", 1), "n_clips"] == 0
    vectors = torch.load(parts["south"].vectors)
    mean = np.mean([vectors[f"S-03/2/IM{i}.mp4"].double().numpy() for i in range(CLIPS)], axis=0)
    assert np.abs(made.loc[("S-03", 2), "embedding"] - mean).max() < 1e-6
    assert set(made["n_clips"]) == {0, CLIPS}


def test_exports_hold_the_answer_where_the_path_says_it_too(hospital):
    parts = export.parts(Layout(hospital / "results"), "m", "256", ["north", "south"])
    content = "dicom_filepath,subject_id\nnorth/N-00/1/IM0,X\n"
    known = Tables(table(hospital / "r.csv", content, of="record_list"), layout="*/{patient}/{study}/*")
    shards = [hospital / "out/train-0.parquet", hospital / "out/train-1.parquet"]
    for wanted, first in ((["default"], None), (["default", "subject_id"], "X")):
        made = export.write_shards(parts, shards, known, wanted, DIM, export.Merging())
        subjects = pd.read_parquet(shards[0])["subject_id"]
        assert (None if pd.isna(subjects[0]) else subjects[0]) == first
        assert subjects[1:].notna().all()
        assert made.patients == PATIENTS + 1
        assert made.studies == PATIENTS * STUDIES + 1


def test_what_says_whose_files_are_is_what_the_page_reads(tmp_path):
    records = table(tmp_path / "r.csv", "dicom_filepath,subject_id\n", of="record_list")
    views = table(tmp_path / "v.csv", "dicom_filepath,view\n")
    people = table(tmp_path / "p.csv", "subject_id,sex\n", "patient", "subject_id", "tables.1")
    known = Tables(records, None, (views, people), layout="{patient}/*")
    assert selection.used(known) == Tables()
    assert selection.used(known, identities=True) == Tables(records, layout="{patient}/*")
    by_view = dataclasses.replace(known, select="view == 'A4C'")
    assert selection.used(by_view).all == [views]
    assert selection.used(by_view, identities=True).all == [records, views]
    by_sex = dataclasses.replace(known, select="sex == 'F'")
    assert selection.used(by_sex).all == [records, people]
    absent = dataclasses.replace(views, file="nowhere.csv")
    assert selection.used(Tables(records, None, (absent, people)), identities=True).all == [records, absent]
    assert json.dumps(dataclasses.asdict(by_sex))  # as Snakemake compares it
