"""Tables in: joins that never multiply rows, the selection, the record list against the disk."""

import dataclasses
import gzip
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from echo_embeddings.collection.folders import find_folders
from echo_embeddings.collection.units import Folder
from echo_embeddings.core import manifest
from echo_embeddings.core.errors import UserError
from echo_embeddings.core.manifest import Row
from echo_embeddings.core.settings import Table, Tables
from echo_embeddings.tables import inventory, selection
from echo_embeddings.tables.join import check_joins, files_table, join_tables, selected_mask

FILES = [
    Row("p100/s1/1_0001.dcm", "p100/s1/1_0001.mp4", "converted", "", 40, kind="bmode", mtime_ns=2**62 + 1),
    Row("p100/s1/1_0002.dcm", "p100/s1/1_0002.mp4", "converted", "", 12, kind="colour", heart_rate=70),
    Row("p100/s2/2_0001.dcm", "", "skipped", "single frame"),
    Row("p100/s2/2_0002.dcm", "p100/s2/2_0002.mp4", "converted", "", 30, kind="bmode"),
    Row("p200/s3/a%25b.DCM", "p200/s3/a%25b.mp4", "converted", "", 30, kind="bmode"),
]


@pytest.fixture
def files(tmp_path):
    manifest.write(tmp_path / "p10.manifest.tsv", FILES)
    return files_table({"p10": tmp_path / "p10.manifest.tsv"})


@pytest.fixture
def write(tmp_path):
    """Writes a table; returns what the configuration says of it."""

    def write(name, text, by="path", key="dicom_filepath", columns=(), of="tables.0"):
        path = tmp_path / name
        if isinstance(text, pd.DataFrame):
            text.to_parquet(path)
        elif name.endswith(".gz"):
            path.write_bytes(gzip.compress(text.encode()))
        else:
            path.write_text(text)
        return Table(str(path), by, key, columns, of)

    return write


RECORDS = (  # in the columns of MIMIC-IV-Echo 0.1; one path stands twice, one file has no row, one is not there
    "subject_id,study_id,acquisition_datetime,dicom_filepath\n"
    "100,1,2110-05-01 10:00:00,files/p10/p100/s1/1_0001.dcm\n"
    "100,1,2110-05-01 10:01:00,files/p10/p100/s1/1_0002.dcm\n"
    "100,1,2110-05-09 10:09:00,files/p10/p100/s1/1_0002.dcm\n"
    "100,2,,files/p10/p100/s2/2_0001.dcm\n"
    "200,3,2110-05-01 10:03:00,files/p10/p200/s3/a%b.DCM\n"
    "300,4,2110-05-01 10:04:00,files/p10/p300/s4/4_0001.dcm\n"
)
STUDIES = (  # in the columns of 1.0
    "subject_id,study_id,study_datetime,note_id,note_seq,note_charttime,measurement_id,measurement_datetime\n"
    "100,1,2110-05-01 09:00:00,100-DS-7,7,2110-05-02 00:00:00,11,2110-05-01 09:30:00\n"
    "200,3,2110-05-03 09:00:00,,,,,\n"
)


def test_identifiers_come_from_paths_that_have_the_form(files, tmp_path):
    assert files["subject_id"].tolist() == [100, 100, 100, 100, 200]
    assert files["dicom_id"].tolist() == ["1_0001", "1_0002", "2_0001", "2_0002", "a%25b"]
    assert files["mtime_ns"][0] == 2**62 + 1
    assert files["file_path"].isna().tolist() == [False, False, True, False, False]
    manifest.write(tmp_path / "site.manifest.tsv", [Row("x/IM1", "x/IM1.mp4", "converted", "", 20)])
    other = files_table({"site": tmp_path / "site.manifest.tsv"})
    assert other[["subject_id", "study_id", "dicom_id"]].isna().all(axis=None)


def test_lists_join_one_to_one_and_repeated_paths_are_named(files, write):
    known = Tables(
        write("echo-record-list.csv", RECORDS, of="record_list"),
        write("echo-study-list.csv.gz", STUDIES, "study", "study_id", of="study_list"),
    )
    joined, joins = join_tables(files, known)
    assert joined["path"].tolist() == files["path"].tolist()
    assert joined["dicom_filepath"].tolist()[:3] == [f"files/p10/{FILES[i].path}" for i in range(3)]
    assert pd.isna(joined["dicom_filepath"][3])
    assert joined["dicom_filepath"][4] == "files/p10/p200/s3/a%b.DCM"
    assert joined["acquisition_datetime"][1] == pd.Timestamp("2110-05-01 10:01:00")  # the first of two rows
    assert joined["note_id"].tolist()[:2] == ["100-DS-7", "100-DS-7"]
    assert joined["note_seq"][0] == 7
    assert joined["note_id"].isna().tolist() == [False, False, True, True, True]
    records, studies = joins
    assert (records.repeated, int(records.found.sum())) == (["files/p10/p100/s1/1_0002.dcm"], 4)
    assert (studies.repeated, int(studies.found.sum())) == ([], 3)
    assert "found for 4 of 5 files; 1 keys have more than one row" in str(records)


@pytest.mark.parametrize(
    ("rows", "used", "says"),
    [
        (
            "s1,A4C,1\ns2,A2C,2\n1,PLAX,1\n",
            {"view"},
            "the rows of 's1' contradict each other: view is 'A4C' and 'PLAX'",
        ),
        (
            "s1,A4C,1\n1,A4C,2\n1.0,A4C,3\n",
            {"view", "ef"},
            "the rows of 's1' contradict each other: ef is 1 and 2; keep",
        ),
        ("1,A4C,1\n1,,1\n2,A,2\n2,B,2\n", {"view"}, "view is 'A4C' and <NA>, and so do 1 other keys; keep one row"),
        ("s1,A4C,1\n1,A4C,2\n", {"view"}, None),  # they differ in what nobody asks for
        ("s1,A4C,1\n1,PLAX,1\n", set(), None),
    ],
)
def test_rows_of_one_key_that_contradict_each_other_are_one_line(files, write, rows, used, says):
    known = Tables(others=(write("m.csv", "study_id,view,ef\n" + rows, "study", "study_id"),))
    if says is None:
        joined, (join,) = join_tables(files, known, used)
        assert (joined["view"][0], join.repeated) == ("A4C", ["1"])
        return
    with pytest.raises(UserError, match=rf"config: tables\.0: .*m\.csv: .*{re.escape(says)}") as error:
        join_tables(files, known, used)
    assert "\n" not in str(error.value)


def test_identifiers_contradict_each_other_where_another_table_is_looked_up_by_them(files, write):
    records = "dicom_filepath,study_id\nsite/x/IM0,71\nx/IM1,72\nx/IM1,73\n"
    known = Tables(
        write("r.csv", records, of="record_list"), write("s.csv", "study_id,ward\n1,A\n", "study", "study_id")
    )
    assert join_tables(files, known)[0]["ward"][0] == "A"
    with pytest.raises(UserError, match="the rows of 'x/IM1' contradict each other: study_id is '72' and '73'"):
        join_tables(files, known, {"ward"})


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_further_tables_by_path_study_and_patient(files, write, form):
    views = pd.DataFrame({
        "video": ["p100/s1/1_0001.mp4", "files/p10/p100/s1/1_0002.dcm", "p10/p100/s2/2_0002", "p200/s3/a%25b.mp4", "z"],
        "view": ["A4C", "PLAX", "A2C", "A4C", "none"],
    })  # fmt: skip
    measured = pd.DataFrame({"study_id": ["s1", "s2", "s2"], "ef": [55.5, 60.0, 61.0], "subject_id": [1, 2, 3]})
    people = pd.DataFrame({"subject_id": [100.0, None], "male": [True, False]})
    content = {"views": views, "measured": measured, "people": people}
    if form == "csv":
        content = {name: table.to_csv(index=False) for name, table in content.items()}
    known = Tables(others=(
        write(f"views.{form}", content["views"], key="video"),
        write(f"measured.{form}", content["measured"], "study", "study_id", of="tables.1"),
        write(f"people.{form}", content["people"], "patient", "subject_id", of="tables.2"),
    ))  # fmt: skip
    joined, joins = join_tables(files, known)
    assert joined["view"].fillna("-").tolist() == ["A4C", "PLAX", "-", "A2C", "A4C"]
    assert joined["ef"].fillna(0).tolist() == [55.5, 55.5, 60, 60, 0]
    assert joined["male"].fillna(False).tolist() == [True, True, True, True, False]
    assert joins[1].repeated == ["s2"]
    assert joined["subject_id"].tolist() == files["subject_id"].tolist()


@pytest.mark.parametrize("seed", range(3))
def test_joins_equal_a_pandas_merge_on_shuffled_rows(files, write, seed):
    rng = np.random.default_rng(seed)
    rows = [f"files/p10/{row.path.replace('%25', '%')}" for row in FILES for _ in range(rng.integers(1, 4))]
    table = pd.DataFrame({"dicom_filepath": rng.permutation(rows)})
    table["label"] = rng.integers(0, 1000, len(table))
    joined, _ = join_tables(files, Tables(others=(write("t.csv", table.to_csv(index=False)),)))
    left = pd.DataFrame({"dicom_filepath": ["files/p10/" + row.path.replace("%25", "%") for row in FILES]})
    expected = left.merge(table.drop_duplicates("dicom_filepath"), how="left", validate="1:1")
    assert joined["label"].tolist() == expected["label"].tolist()


def test_a_record_list_gives_identifiers_that_paths_do_not_say(tmp_path, write):
    manifest.write(tmp_path / "m.tsv", [Row(f"x/IM{i}", f"x/IM{i}.mp4", "converted", "", 20) for i in range(3)])
    files = files_table({"site": tmp_path / "m.tsv"})
    records = "dicom_filepath,subject_id,study_id\nsite/x/IM0,7,71\nx/IM1,P-8,81\n"
    known = Tables(
        write("r.csv", records, of="record_list"), write("s.csv", "study_id,ward\n71,A\n", "study", "study_id")
    )
    joined, _ = join_tables(files, known)
    assert joined["subject_id"].fillna("-").tolist() == ["7", "P-8", "-"]
    assert joined["study_id"].fillna(0).tolist() == [71, 81, 0]
    assert joined["ward"].fillna("-").tolist() == ["A", "-", "-"]
    assert selected_mask(joined, "study_id == 71 and subject_id == '7'").tolist() == [True, False, False]


@pytest.mark.parametrize("suffix", ["", ".avi", ".mp4", ".AVI", ".mov", ".mkv", ".webm"])
@pytest.mark.parametrize("before", ["", "Videos/", "A4C/Videos/", "EchoNet/A4C/Videos/"])
def test_videos_are_found_however_their_names_are_written(tmp_path, write, before, suffix):
    paths = ["Videos/0X1C.avi", "Videos/0X1D.mp4", "Videos/0X1E.webm", "Videos/a.b.AVI"]
    manifest.write(tmp_path / "A4C.tsv", [Row(path, path, "converted", "", 20) for path in paths])
    files = files_table({"A4C": tmp_path / "A4C.tsv"})
    names = ["0X1C", "0X1D", "a.b", "0X1"]
    content = "FileName,EF\n" + "".join(f"{before}{name}{suffix},{50 + i}\n" for i, name in enumerate(names))
    joined, _ = join_tables(files, Tables(others=(write("FileList.csv", content, key="FileName"),)))
    assert joined["EF"].fillna(0).tolist() == [50, 51, 0, 52]


def test_a_name_alone_is_of_one_video_and_of_no_dicom(tmp_path, write):
    paths = {"a/one.avi": "a/one.avi", "b/one.avi": "b/one.avi", "b/two.avi": "b/two.avi", "b/IM1": "b/IM1.mp4"}
    manifest.write(tmp_path / "m.tsv", [Row(path, key, "converted", "", 20) for path, key in paths.items()])
    manifest.write(tmp_path / "n.tsv", [Row("one.avi", "one.avi", "converted", "", 20)])
    files = files_table({"site": tmp_path / "m.tsv", "other": tmp_path / "n.tsv"})
    known = Tables(others=(write("t.csv", "dicom_filepath,label\none,1\ntwo.avi,2\nIM1,3\nb/one.avi,4\n"),))
    joined, _ = join_tables(files, known)
    labels = dict(zip(joined["folder"] + "/" + joined["path"], joined["label"].fillna(0), strict=True))
    assert labels == {
        "site/a/one.avi": 0,
        "site/b/IM1": 0,
        "site/b/one.avi": 4,
        "site/b/two.avi": 2,
        "other/one.avi": 1,
    }


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (("t.csv", "a,b\n1,2\n"), r"tables\.0: .*t\.csv: no column 'dicom_filepath'; it has: a, b"),
        (("t.csv", "dicom_filepath,frames\n1,2\n"), "the column 'frames' is known from the manifest; say in 'columns'"),
        (("t.csv", "dicom_filepath,a,a\n1,2,3\n"), "has two columns 'a'; rename one"),
        (("t.parquet", "PAR1 and nothing else"), "is neither CSV nor Parquet"),
        (("t.csv.gz", "dicom_filepath,a\n1,2\n", "path", "dicom_filepath", ("b",)), "no column 'b'; it has"),
        (("t.csv", 'dicom_filepath,a\n1,"2\n'), "cannot be read"),
    ],
)
def test_a_wrong_table_is_one_line(files, write, table, message):
    with pytest.raises(UserError, match=message) as error:
        join_tables(files, Tables(others=(write(*table),)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["x" * 10**7, "dicom_filepath,a\n" + "x,1\n" * 2_500_000], ids=["line", "rows"])
def test_a_gzip_that_grows_out_of_all_proportion_is_one_line(files, write, monkeypatch, text):
    """A decompression bomb, made for the header or for the rows; it is left before it is in memory."""
    monkeypatch.setattr(selection, "UNPACKED", 10**5)
    table = write("t.csv.gz", text)
    limit = 100 * Path(table.file).stat().st_size
    with pytest.raises(UserError, match=rf"t\.csv\.gz: unpacks to more than {limit:,} bytes") as error:
        join_tables(files, Tables(others=(table,)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("at", [2, 15, 400, -6, None])
def test_a_damaged_gzip_is_one_line(files, write, at):
    """Bytes turned over in its head, its content and its check sum; and its end cut off."""
    rng = np.random.default_rng(0)
    table = write("t.csv.gz", "dicom_filepath,a\n" + "".join(f"p100/s1/{i},{rng.random()}\n" for i in range(500)))
    path = Path(table.file)
    content = bytearray(path.read_bytes())
    if at is None:
        content = content[:-20]
    else:
        content[at : at + 3] = bytes(255 - byte for byte in content[at : at + 3])
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"t\.csv\.gz") as error:
        join_tables(files, Tables(others=(table,)))
    assert "\n" not in str(error.value)


def test_columns_can_be_chosen_where_names_clash(files, write):
    table = write("t.csv", "dicom_filepath,frames,view\np100/s1/1_0001,1,A4C\n", columns=("view",))
    joined, _ = join_tables(files, Tables(others=(table,)))
    assert joined["frames"].tolist()[0] == 40
    assert joined["view"][0] == "A4C"


def test_values_that_are_no_dates_are_counted(files, write):
    records = RECORDS.replace("2110-05-01 10:00:00", "yesterday")
    joined, (join,) = join_tables(files, Tables(write("r.csv", records, of="record_list")))
    assert pd.isna(joined["acquisition_datetime"][0])
    assert join.notes == ("1 values of acquisition_datetime are no dates",)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            ("v.csv", "video,view\nabc.avi,A4C\nx,A2C\n", "path", "video"),
            r"config: tables\.0: .*v\.csv: none of its 2 keys is that of a file: it has 'abc\.avi', the files are like "
            r"'p100/s1/1_0001'; correct 'key' or 'by'$",
        ),
        (("v.csv", "study_id,view\ns77,A4C\n", "study", "study_id"), "it has 's77', the files are like '1'; correct"),
        (("v.csv", "study_id,view\n", "study", "study_id"), r"v\.csv: it has no key, the files are like '1'"),
        (("v.csv", "dicom_filepath,view\nz,A\n", *("path", "dicom_filepath", (), "record_list")), "take that of this"),
    ],
)
def test_a_table_that_has_a_row_for_no_file_is_one_line(tmp_path, write, table, message):
    folder = tmp_path / "dicom/p10"
    (folder / "p100/s1").mkdir(parents=True)
    folders = {"p10": Folder("p10", str(folder))}
    made = write(*table)
    known = Tables(made) if made.name == "record_list" else Tables(others=(made,))
    known = dataclasses.replace(known, select="view == 'A4C'")
    check_joins(folders, known)  # a collection without a file says nothing about a table
    (folder / "p100/s1/1_0001.dcm").touch()
    with pytest.raises(UserError, match=message) as error:
        check_joins(folders, known)
    assert "\n" not in str(error.value)
    check_joins(folders, dataclasses.replace(known, select="kind == 'bmode'"))  # which does not use it


def test_identifiers_that_no_path_says_are_what_a_table_lacks(tmp_path, write):
    (tmp_path / "site").mkdir()
    (tmp_path / "site/IM1").touch()
    people = write("people.csv", "subject_id,sex\n7,F\n", "patient", "subject_id")
    with pytest.raises(UserError, match="it has '7', no file has a subject_id: their paths do not say it"):
        check_joins({"site": Folder("site", str(tmp_path / "site"))}, Tables(None, None, (people,), "sex == 'F'"))


def test_tables_join_a_collection_of_mp4(tmp_path, write):
    """The path of a file is that of its MP4, which tables name with or without the ending."""
    manifest.write(tmp_path / "m.tsv", [Row(f"p1/s2/{i}.mp4", f"p1/s2/{i}.mp4", "converted", "", 20) for i in range(2)])
    views = write("views.csv", "dicom_filepath,view\np10/p1/s2/0.mp4,A4C\np1/s2/1,A2C\n")
    joined, _ = join_tables(files_table({"p10": tmp_path / "m.tsv"}), Tables(others=(views,)))
    assert joined["view"].tolist() == ["A4C", "A2C"]
    assert joined["dicom_id"].tolist() == ["0", "1"]


# --- the selection ----------------------------------------------------------------------------------


@pytest.fixture
def joined(files, write):
    views = write("views.csv", "dicom_filepath,view,E wave\np100/s1/1_0001,A4C,0.8\np100/s1/1_0002,PLAX,\n")
    known = Tables(others=(views,))
    return join_tables(files, known)[0], known


@pytest.mark.parametrize(
    ("expression", "rows"),
    [
        ("kind == 'bmode' and frames >= 16 and view in ['A4C', 'PLAX']", [0]),
        ("16 <= frames < 40", [3, 4]),
        ("view != 'A4C'", [1, 2, 3, 4]),
        ("view not in ['A4C']", [1, 2, 3, 4]),
        ("view == view", [0, 1]),
        ("not (frames > 16)", [1, 2]),
        ("heart_rate > 0 | frames > 35", [0, 1]),
        ("`E wave` < 1.0", [0]),
        ("frames / 2 >= 20", [0]),
        ("rows == rows or columns > 0 or index_ == 1", None),
        ("study_id in (1, 2) and status == 'converted'", [0, 1, 3]),
    ],
)
def test_expressions(joined, expression, rows):
    frame, _ = joined
    if rows is None:
        with pytest.raises(UserError, match="no column 'index_'"):
            selected_mask(frame, expression)
    else:
        assert np.flatnonzero(selected_mask(frame, expression)).tolist() == rows


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("kind == bmode", "no column 'bmode'; a text stands in quotes; columns: folder, file_path"),
        ("frame >= 16", r"no column 'frame'; did you mean 'frames'\? columns: "),
        ("frames >= ", r"'frames >= ' is no expression: invalid syntax.*; columns: folder, .*, view"),
        ("kind.str.len() > 3", r"'kind.str.len\(\)' is not allowed: only comparisons.*; columns: "),
        ("__import__('os').system('true')", "is not allowed"),
        ("@frames > 1", "is no expression"),
        ("[x for x in frames]", "is not allowed"),
        ("frames[0] > 1", "is not allowed"),
        ("9 ** 9 ** 9 > frames", "is not allowed"),
        ("view == None", "'None' is not allowed"),
        ("lambda: 1", "is not allowed"),
        ("frames > 'a'", "cannot be worked out: Invalid comparison"),
        ("frames", "is neither true nor false of each clip"),
        ("5 > 3", "is neither true nor false of each clip"),
        ("frames = 3", "is no expression"),
        ("", None),
    ],
)
def test_a_wrong_expression_is_one_line_with_the_columns(joined, expression, message):
    frame, known = joined
    tables_with = Tables(others=known.others, select=expression)
    if message is None:
        assert selected_mask(frame, expression).all()
        return
    with pytest.raises(UserError, match=message) as error:
        selection.check(tables_with, ["default"])
        selected_mask(frame, expression)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("config: select: ")


def test_only_the_tables_that_decide_are_read(joined, write):
    _, known = joined
    records = write("r.csv", RECORDS, of="record_list")
    measured = write("m.csv", "study_id,ef\n1,55\n", "study", "study_id", of="tables.1")
    every = Tables(records, None, (*known.others, measured), "frames > 16")
    assert selection.used(every).all == []
    assert selection.used(Tables(records, None, every.others, "view == 'A4C'")).all == list(known.others)
    assert selection.used(Tables(records, None, every.others, "ef > 50")).all == [records, measured]
    with pytest.raises(UserError, match=r"export\.columns: no column 'viwe'; did you mean 'view'"):
        selection.check(every, ["default", "viwe"])


# --- the record list against the disk ---------------------------------------------------------------


@pytest.fixture
def disk(tmp_path, write):
    """Two folders of files that bear DICOM's mark, and one that does not; and a record list of other files."""
    for name in ("p10/p100/s1/1_0001.dcm", "p10/p100/s1/1_0002.dcm", "p11/p110/s5/5_0001.dcm", "p11/p110/s5/a%b"):
        path = tmp_path / "dicom" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(128) + b"DICM")
    (tmp_path / "dicom/p10/index.html").write_text("no DICOM")
    listed = [
        "p10/p100/s1/1_0001.dcm",
        "p10/p100/s1/1_0001.dcm",
        "p11/p110/s5/a%b",
        "p10/p100/s9/9_0001.dcm",
        "p19/x.dcm",
    ]
    text = "dicom_filepath\n" + "".join(f"files/{name}\n" for name in listed)
    return tmp_path / "dicom", write("record.csv", text, of="record_list")


def test_differences_are_named_and_counted(disk, tmp_path):
    dicom_dir, record_list = disk
    summary = tmp_path / "record_list/summary.tsv"
    folders = find_folders(str(dicom_dir), [])
    inventory.check(record_list, folders, summary, everything=True, require_complete=False)
    counts = pd.read_csv(summary, sep="\t", index_col="folder")
    assert counts.loc["p10"].tolist() == [2, 1, 1, 1]
    assert counts.loc["p11"].tolist() == [1, 0, 1, 0]
    assert counts.loc[inventory.NO_FOLDER].tolist() == [1, 1, 0, 0]
    differences = pd.read_csv(inventory.differences_of(summary), sep="\t")
    assert {(row.what, row.path) for row in differences.itertuples()} == {
        (inventory.NOT_FOUND, "files/p10/p100/s9/9_0001.dcm"),
        (inventory.NOT_FOUND, "files/p19/x.dcm"),
        (inventory.NOT_LISTED, "p100/s1/1_0002.dcm"),
        (inventory.NOT_LISTED, "p110/s5/5_0001.dcm"),
        (inventory.REPEATED, "files/p10/p100/s1/1_0001.dcm"),
    }


def test_an_incomplete_collection_is_an_error_where_it_must_be_complete(disk, tmp_path):
    dicom_dir, record_list = disk
    summary = tmp_path / "record_list/summary.tsv"
    chosen = find_folders(str(dicom_dir), ["p10"])
    with pytest.raises(UserError, match=r"1 of them are not on the disk, 1 files of .*names are in .*differences\.tsv"):
        inventory.check(record_list, chosen, summary, everything=False, require_complete=True)
    assert not summary.exists()
    assert inventory.differences_of(summary).exists()
    (dicom_dir / "p10/p100/s1/1_0002.dcm").unlink()
    (dicom_dir / "p10/p100/s9").mkdir()
    (dicom_dir / "p10/p100/s9/9_0001.dcm").write_bytes(bytes(128) + b"DICM")
    inventory.check(record_list, chosen, summary, everything=False, require_complete=True)
    assert summary.exists()


@pytest.mark.parametrize("name", ["embedding", "n_clips"])
def test_a_column_called_like_one_of_the_exports_may_select_and_not_leave(files, write, name):
    known = Tables(others=(write("t.csv", f"dicom_filepath,{name}\np100/s1/1_0001,3\n"),), select=f"{name} > 2")
    selection.check(known, ["default"])
    assert selected_mask(join_tables(files, known)[0], known.select).tolist() == [True, *[False] * 4]
    for exported in ["default", name], ["all"]:
        with pytest.raises(UserError, match=rf"t\.csv: the column '{name}' is called like one that the .*; rename it"):
            selection.check(known, exported)


@pytest.mark.parametrize("name", ["folder", "file_path", "subject_id", "status", "mp4_blake2b"])
def test_a_column_called_like_one_that_a_clip_has_is_refused(files, write, name):
    """Where it is asked for by name; tables may well have identifiers besides their key."""
    text = f"dicom_filepath,{name}\np100/s1/1_0001,3\n"
    with pytest.raises(UserError, match=f"the column '{name}' is known from the manifest; .* or rename it"):
        selection.check(Tables(others=(write("t.csv", text, columns=(name,)),)), ["default"])
    if name in selection.NOT_TAKEN:
        selection.check(Tables(others=(write("t.csv", text),)), ["all"])
        selection.check(Tables(write("t.csv", text, of="record_list")), ["all"])
