"""Tables of any content: identifiers of any length, cells of any kind; and what pandas writes by itself."""

import datetime
import decimal
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet

from echo_embeddings.core import manifest
from echo_embeddings.core.errors import UserError
from echo_embeddings.core.manifest import Row
from echo_embeddings.core.settings import Table, Tables
from echo_embeddings.tables import export
from echo_embeddings.tables.join import files_table, join_tables, selected_mask, studies_table

CLIP = "p100/s1/1_0001.dcm"


def files_of(directory: Path, *paths: str) -> pd.DataFrame:
    rows = [Row(path, path.replace(".dcm", ".mp4"), "converted", "", 40) for path in paths]
    manifest.write(directory / "m.tsv", rows)
    return files_table({"p10": directory / "m.tsv"})


def table(path: Path, content: str | bytes | pd.DataFrame, by="path", key="dicom_filepath") -> Table:
    if isinstance(content, pd.DataFrame):
        content.to_parquet(path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return Table(str(path), by, key, (), "tables.0")


# --- identifiers ------------------------------------------------------------------------------------

LENGTHS = [1, 15, 16, 17, 18, 19, 20, 40]


def neighbours(length: int) -> list[str]:
    """Three identifiers of so many digits that differ in the last alone."""
    return ["1" * (length - 1) + last for last in "124"]


@pytest.mark.parametrize("length", LENGTHS)
def test_an_identifier_of_any_length_matches_itself_alone(tmp_path, length):
    ids = neighbours(length)
    files = files_of(tmp_path, *(f"p{one}/s{one}/{i}.dcm" for i, one in enumerate(ids)))
    for name in ("subject_id", "study_id"):
        for literal in (ids[1], repr(ids[1])):
            assert selected_mask(files, f"{name} == {literal}").tolist() == [False, True, False]
            assert selected_mask(files, f"{name} in [{literal}]").tolist() == [False, True, False]
            assert selected_mask(files, f"{name} != {literal}").tolist() == [True, False, True]
        assert selected_mask(files, f"{name} > {ids[0]}").tolist() == [False, True, True]
    assert export.to_arrow(files)["study_id"].to_pylist() == [int(i) if length <= 18 else i for i in ids]


@pytest.mark.parametrize(
    ("length", "form"),
    [(n, form) for n in LENGTHS for form in ("csv", "text.parquet", "integers.parquet") if n <= 18 or form[0] != "i"],
)
def test_an_identifier_of_any_length_joins_itself_alone(tmp_path, length, form):
    first, second, third = neighbours(length)
    files = files_of(tmp_path, f"p1/s{first}/a.dcm", f"p1/s{second}/b.dcm", f"p1/s{third}/c.dcm")
    content = pd.DataFrame({"study_id": [second, third], "ef": [50, 60]})
    if form == "integers.parquet":
        content["study_id"] = content["study_id"].astype("int64")
    made = table(tmp_path / form, content.to_csv(index=False) if form == "csv" else content, "study", "study_id")
    joined, _ = join_tables(files, Tables(others=(made,)))
    assert joined["ef"].fillna(0).tolist() == [0, 50, 60]


@pytest.mark.parametrize("length", LENGTHS)
def test_a_record_list_gives_identifiers_of_any_length(tmp_path, length):
    ids = neighbours(length)
    files = files_of(tmp_path, *(f"IM{i}.dcm" for i in range(3)))
    lines = [f"IM{i}.dcm,{one},{one}" for i, one in enumerate(ids)]
    content = "\n".join(["dicom_filepath,subject_id,study_id", *lines, ""])
    known = Tables(Table(table(tmp_path / "r.csv", content).file, "path", "dicom_filepath", (), "record_list"))
    joined, _ = join_tables(files, known)
    assert joined["study_id"].astype(str).tolist() == ids
    assert studies_table(files, known, everything=True)["study_id"].astype(str).tolist() == ids


def test_zeros_before_a_number_make_no_difference_to_a_join(tmp_path):
    files = files_of(tmp_path, "p007/s01/a.dcm", "p8/s2/b.dcm")
    assert files["subject_id"].tolist() == [7, 8]
    made = table(tmp_path / "t.csv", "subject_id,a\n7,1\n0008,2\n", "patient", "subject_id")
    assert join_tables(files, Tables(others=(made,)))[0]["a"].tolist() == [1, 2]


def test_identifiers_that_floating_point_numbers_cannot_hold_are_one_line(tmp_path):
    files = files_of(tmp_path, CLIP)
    content = pd.DataFrame({"study_id": [1.2345678901234567e16, np.nan], "a": [1, 2]})
    with pytest.raises(UserError, match=r"tables\.0: .*s\.parquet: column 'study_id': identifiers of 16 digits"):
        join_tables(files, Tables(others=(table(tmp_path / "s.parquet", content, "study", "study_id"),)))


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("frames == '40'", "'40': 'frames' holds numbers: write it without quotes"),
        ("'40' in frames", "'40': 'frames' holds numbers"),
        ("status == 1", "1: 'status' holds texts: write it in quotes"),
        ("status in ['converted', 2]", "2: 'status' holds texts"),
        ("frames >= 10**10", r"'10 \*\* 10' is not allowed"),
        ("frames >= 1 << 3", "'1 << 3' is not allowed"),
    ],
)
def test_what_can_never_be_equal_is_one_line(tmp_path, expression, message):
    with pytest.raises(UserError, match=message) as error:
        selected_mask(files_of(tmp_path, CLIP), expression)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("expression", ["view == 'A4C'", "view == 5", "view in ['A4C']"])
def test_an_empty_column_equals_nothing(tmp_path, expression):
    made = table(tmp_path / "t.csv", f"dicom_filepath,view\n{CLIP},\n")
    joined, _ = join_tables(files_of(tmp_path, CLIP), Tables(others=(made,)))
    assert selected_mask(joined, expression).tolist() == [False]


def test_numbers_beyond_what_a_column_holds_are_compared(tmp_path):
    files = files_of(tmp_path, CLIP)
    for number in (10**10, 2**63, 10**40, 1e300):
        assert selected_mask(files, f"frames >= {number}").tolist() == [False]
        assert selected_mask(files, f"frames < {number}").tolist() == [True]


# --- what pandas writes -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
@pytest.mark.parametrize("index", [None, "dicom_filepath", "a"])
def test_an_index_of_pandas_is_a_column_if_it_has_a_name(tmp_path, name, index):
    content = pd.DataFrame({"dicom_filepath": [CLIP], "a": [5], "b": [6]}, index=["z"])
    content = content.set_index(index) if index else content
    made = table(tmp_path / name, content.to_csv() if name == "t.csv" else content)
    joined, _ = join_tables(files_of(tmp_path, CLIP), Tables(others=(made,)))
    assert joined[["a", "b"]].to_numpy().tolist() == [[5, 6]]
    assert list(joined.columns[-2:]) in (["a", "b"], ["b", "a"])


@pytest.mark.parametrize("other", ["2020-01-01T00:00:00+02:00", "2020-01-01 00:00:00"])
def test_times_of_different_offsets_are_one_line(tmp_path, other):
    content = f"dicom_filepath,a_datetime\n{CLIP},2020-01-01T00:00:00+01:00\nx,{other}\n"
    with pytest.raises(UserError, match=r"tables\.0: .*t\.csv: column 'a_datetime': its times have different offsets"):
        join_tables(files_of(tmp_path, CLIP), Tables(others=(table(tmp_path / "t.csv", content),)))


def test_days_compare_as_text_says_them(tmp_path):
    content = pd.DataFrame({"dicom_filepath": [CLIP], "day": [datetime.date(2020, 1, 2)]})
    joined, _ = join_tables(files_of(tmp_path, CLIP), Tables(others=(table(tmp_path / "t.parquet", content),)))
    assert selected_mask(joined, "'2020-01-02' <= day < '2020-01-03'").tolist() == [True]
    assert selected_mask(joined, "day > '2020-01-02'").tolist() == [False]
    for expression in ("day == '2020-01-02'", "day != '2020-01-02'", "day in ['2020-01-02']"):
        with pytest.raises(UserError, match="'day' holds times: say from when with >=, and until when with <"):
            selected_mask(joined, expression)


# --- any cell ---------------------------------------------------------------------------------------

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.datetimes(),
    st.datetimes(timezones=st.timezones()),
    st.dates(),
    st.timedeltas(),
    st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-999, max_value=999),
    st.binary(max_size=4),
    st.lists(st.integers(0, 9), max_size=2),
    st.sampled_from(["", "NA", "1e400", "0x10", "-0", "1_000", "2110-05-01", "24:00", "\0", "'", '"', "1,5"]),
)
SELECTIONS = ("{} == {}", "{} == 'a'", "{} >= 1", "{} in [1, 2]", "not ({} > '2020-01-01')", "{} + 1 > 2")


@pytest.mark.parametrize("examples", [50, pytest.param(250, marks=pytest.mark.slow)])
def test_any_cells_join_or_are_one_line(tmp_path_factory, examples):
    """In a column with and without a meaning, as text and as Parquet's types: every clip keeps its one row."""

    @hypothesis.settings(max_examples=examples, deadline=None, derandomize=True, database=None)
    @hypothesis.given(data=st.data())
    def joined(data):
        join_any_cells(tmp_path_factory.mktemp("cells"), data)

    joined()


def join_any_cells(top, data):
    kinds = data.draw(st.sampled_from([VALUES, *VALUES.original_strategies]))
    cells = data.draw(st.lists(kinds, min_size=1, max_size=4))
    name = data.draw(st.sampled_from(["a", "E wave", "a_datetime", "charttime", "subject_id"]))
    by, key = data.draw(st.sampled_from([("path", "dicom_filepath"), ("study", "study_id")]))
    keys = [CLIP, *"xyz"] if by == "path" else ["1", "2", "3", "4"]
    content = pd.DataFrame({key: keys[: len(cells)], name: pd.Series(cells, dtype=object)})
    files = files_of(top, CLIP, "p100/s2/2_0001.dcm")
    try:
        if data.draw(st.booleans()):
            made = table(
                top / "t.csv", content.to_csv(index=data.draw(st.booleans())).encode("utf-8", "replace"), by, key
            )
        else:
            made = table(top / "t.parquet", content, by, key)
    except Exception:  # no file of the kind holds these cells
        hypothesis.reject()
    try:
        joined, _ = join_tables(files, Tables(others=(made,)))
        assert joined["path"].tolist() == files["path"].tolist()
        export.write_parquet(top / "out.parquet", export.to_arrow(joined), np.zeros((2, 3), np.float32))
        assert parquet.read_table(top / "out.parquet")["path"].to_pylist() == files["path"].tolist()
        column = f"`{name}`"
        chosen = data.draw(st.sampled_from(SELECTIONS)).format(column, column)
        if name in joined.columns:
            assert selected_mask(joined, chosen).shape == (2,)
    except UserError as error:
        assert str(error).isprintable()
        assert (
            "t.csv" in str(error) or "t.parquet" in str(error) or "config: select: " in str(error) or name in str(error)
        )


def test_decimals_compare_as_numbers(tmp_path):
    content = pd.DataFrame({"dicom_filepath": [CLIP], "a": [decimal.Decimal("1.5")]})
    joined, _ = join_tables(files_of(tmp_path, CLIP), Tables(others=(table(tmp_path / "t.parquet", content),)))
    assert selected_mask(joined, "a > 1").tolist() == [True]
