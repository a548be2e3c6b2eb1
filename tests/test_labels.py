"""Labels from tables of measurements that the tests write: every value is one that stands there, or is told as none."""

import gzip
import random

import pandas as pd
import pytest
import yaml

from echo_embeddings.core.errors import UserError
from echo_embeddings.evaluate.definitions import definitions
from echo_embeddings.evaluate.labels import make
from echo_embeddings.evaluate.results import LeftOutError
from testing.commands import run_snakemake

KNOWN = definitions(None)
MIDDLE = {"measurements": ["lvef"], "units": {"%": 1, "": 1}, "middle_of_ranges": True}


def defined(tmp_path, **keys):
    """The definition "mine" with these keys."""
    path = tmp_path / "labels.yaml"
    path.write_text(yaml.safe_dump({"mine": {"measurements": ["x"], "units": {"cm": 1}} | keys}))
    return definitions(str(path))["mine"]


# --- results ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "result", "unit", "value"),
    [
        ("lvef", "55", "%", 55),
        ("lvef", " 55.5 ", "%", 55.5),
        ("lvef", "55%", "", 55),
        ("lvef", "55 %", "%", 55),
        ("lvef", "55.", "%", 55),
        ("lvef", "+55", "", 55),
        ("tapse", "21", "mm", 2.1),
        ("tapse", "2.1 CM", "", 2.1),
        ("tapse", ".9", "cm", 0.9),
        ("av_pk_vel", "230", "cm/sec", 2.3),
        ("av_area", "1.1 cm2", "cm2", 1.1),
        ("mitral_regurg", "Mod [2+]", "", 2),
        ("mitral_regurg", "  mod   [2+] ", "whatever", 2),
        ("mitral_regurg", "None", "", 0),
    ],
)
def test_a_result_is_a_number(label, result, unit, value):
    assert KNOWN[label].value(result, unit) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(
    ("label", "result", "unit", "reason", "text"),
    [
        ("lvef", "", "%", "empty", ""),
        ("lvef", "   ", "%", "empty", ""),
        ("lvef", "50-55", "%", "a range, as 50-55", ""),
        ("lvef", "50 to 55 %", "%", "a range, as 50-55", ""),
        ("lvef", "50\N{EN DASH}55", "%", "a range, as 50-55", ""),
        ("lvef", "<20", "%", "a bound, as < 20", ""),
        ("lvef", "> 70", "%", "a bound, as < 20", ""),
        ("lvef", ">=70", "%", "a bound, as < 20", ""),
        ("lvef", "Less than 20", "%", "a bound, as < 20", ""),
        ("lvef", "5,5", "%", "a comma that may be of decimals or of thousands", "5,5"),
        ("lvef", "1,234", "%", "a comma that may be of decimals or of thousands", "1,234"),
        ("lvef", "1,234.5", "%", "not between 5 and 95", ""),
        ("lvef", "normal", "%", "no number", "normal"),
        ("lvef", "nan", "%", "no number", "nan"),
        ("lvef", "inf", "%", "no number", "inf"),
        ("lvef", "55 60", "%", "no number", "55 60"),
        ("lvef", "5.5.5", "%", "no number", "5.5.5"),
        ("lvef", "55e0", "%", "two units", "e0 and %"),
        ("lvef", "0x37", "%", "two units", "x37 and %"),
        ("lvef", "0.55", "%", "not between 5 and 95", ""),
        ("lvef", "-55", "%", "not between 5 and 95", ""),
        ("lvef", "55", "mL", "another unit", "ml"),
        ("lvef", "55 mL", "", "another unit", "ml"),
        ("tapse", "2.1 cm", "mm", "two units", "cm and mm"),
        ("mitral_regurg", "2", "", "not among the grades", "2"),
        ("mitral_regurg", "Mod or so", "", "not among the grades", "Mod or so"),
    ],
)
def test_or_says_why_it_is_none(label, result, unit, reason, text):
    with pytest.raises(LeftOutError) as error:
        KNOWN[label].value(result, unit)
    assert (error.value.reason, error.value.text) == (reason, text)


def test_what_a_definition_allows(tmp_path):
    assert defined(tmp_path, **MIDDLE).value("50-55", "%") == 52.5
    assert defined(tmp_path, **MIDDLE).value("50 - 60%", "") == 55
    with pytest.raises(LeftOutError, match="a range from high to low"):
        defined(tmp_path, **MIDDLE).value("55-50", "%")
    with pytest.raises(LeftOutError, match="no unit"):
        defined(tmp_path).value("5", "")
    assert defined(tmp_path).value("1,234.5", "cm") == 1234.5


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"units": {}}, "give units, of results that are numbers, or grades, of those that are words"),
        ({"grades": {"a": 1}}, "give units, of results that are numbers, or grades, of those that are words"),
        ({"between": [5, 5]}, "between: 5 is not below 5"),
        ({"units": {"cm": 1, " CM": 2}}, "units: 'cm' stands there with two numbers; case and spaces do not tell"),
        ({"measurement": ["x"]}, "unknown key 'measurement'; did you mean 'measurements'?"),
        ({"measurements": []}, "mine.measurements: [] should be non-empty"),
        ({"units": {"cm": 0}}, "mine.units.cm: 0 is less than or equal to the minimum of 0"),
    ],
)
def test_a_wrong_definition_is_one_line(tmp_path, keys, line):
    with pytest.raises(UserError) as error:
        defined(tmp_path, **keys)
    assert "\n" not in str(error.value)
    assert line in str(error.value)


# --- tables -----------------------------------------------------------------------------------------

COLUMNS = ["subject_id", "measurement_id", "measurement_datetime", "test_type", "measurement"]
COLUMNS += ["measurement_description", "result", "unit"]
DAY = "2150-03-01 10:00:00"


def line(number, measurement, result, unit="%", test_type="TTE", subject=None, day=DAY):
    """A measurement of study `number`."""
    return [subject or f"1{number:04}", f"9{number:04}", day, test_type, measurement, "", result, unit]


# Of studies 0, 1, ...: the measurements, and what is to become of them.
STUDIES = [
    ([("lvef", "55")], (55, "lvef")),
    ([("biplane_lvef", "40"), ("lvef", "45")], (45, "lvef")),
    ([("lvef", "50-55"), ("rest_lvef", "52")], (52, "rest_lvef")),
    ([("lvef", "50-55")], "a range, as 50-55"),
    ([("lvef", "55"), ("lvef", "55.0")], (55, "lvef")),
    ([("lvef", "55"), ("lvef", "60")], "several values that differ"),
    ([("lvef", "55"), ("lvef", "60"), ("lvef_3d", "58")], (58, "lvef_3d")),
    ([("lvef", "55", "%", "Stress Echo")], "a test type that is left out"),
    ([("lvef", "70", "%", "stress"), ("lvef", "55")], (55, "lvef")),
    ([("lvef_upper", "60")], "none of the measurements"),
    ([("tapse", "2.1", "cm")], "none of the measurements"),
    ([("lvef", "55", "%", "TTE", "10000")], "the measurement is another subject's"),
    ([], "none of the measurements"),
    (None, "the study has no measurement_id"),
    ([("lvef", "55", "%", "TTE", None, "2150-03-04 09:00:00")], (55, "lvef")),
    ([("lvef", "55", "%", "TTE", None, "")], (55, "lvef")),
]


@pytest.fixture
def tables(tmp_path):
    """A study list and measurements, among them those of studies that nobody asks for, in any order."""
    lines = [line(i, *one) for i, (found, _) in enumerate(STUDIES) for one in found or ()]
    lines += [line(5000 + i, "lvef", str(20 + i % 70)) for i in range(500)]
    random.Random(0).shuffle(lines)
    frame = pd.DataFrame(lines, columns=COLUMNS)
    frame.to_csv(tmp_path / "structured-measurement.csv.gz", index=False)
    studies = [
        [f"1{i:04}", f"3{i:04}", DAY, "" if found is None else f"9{i:04}", "note"]
        for i, (found, _) in enumerate(STUDIES)
    ]
    names = ["subject_id", "study_id", "study_datetime", "measurement_id", "note_id"]
    pd.DataFrame(studies, columns=names).to_csv(tmp_path / "echo-study-list.csv", index=False)
    return tmp_path


def made(top, *names):
    """Make the labels of these names below `top`; returns their tables, by name, and what is left out."""
    places = {name: top / f"{name}.csv" for name in names}
    wanted = {name: KNOWN[name] for name in names}
    make(top / "structured-measurement.csv.gz", top / "echo-study-list.csv", wanted, places, top / "left_out.tsv")
    read = {name: pd.read_csv(place, dtype={"study_id": str, "subject_id": str}) for name, place in places.items()}
    return read, pd.read_csv(top / "left_out.tsv", sep="\t", keep_default_na=False)


@pytest.mark.parametrize("rows", [1_000_000, 7])
def test_every_study_has_a_value_or_is_counted(tables, monkeypatch, rows):
    monkeypatch.setattr("echo_embeddings.evaluate.labels.ROWS", rows)
    read, left_out = made(tables, "lvef", "tapse")
    expected = {f"3{i:04}": value for i, (_, value) in enumerate(STUDIES) if not isinstance(value, str)}
    found = {row.study_id: (row.value, row.measurement) for row in read["lvef"].itertuples()}
    assert found == expected
    reasons = pd.Series([value for _, value in STUDIES if isinstance(value, str)]).value_counts().to_dict()
    of_lvef = left_out[left_out["label"] == "lvef"].set_index("reason")["studies"].to_dict()
    assert of_lvef == reasons
    for name in ("lvef", "tapse"):
        assert len(read[name]) + left_out.loc[left_out["label"] == name, "studies"].sum() == len(STUDIES)
    days = read["lvef"].set_index("study_id")["days"]
    assert (days["30000"], days["30014"]) == (0, 3)
    assert pd.isna(days["30015"])
    assert read["tapse"][["study_id", "value"]].to_numpy().tolist() == [["30010", 2.1]]
    assert left_out.loc[left_out["reason"] == "a test type that is left out", "result"].tolist() == ["Stress Echo"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda top: (top / "echo-study-list.csv").write_text("study_id,subject_id\n"),
            "has no column 'study_datetime'",
        ),
        (lambda top: (top / "structured-measurement.csv.gz").write_bytes(b"text"), "cannot read .*gz: "),
        (lambda top: cut(top / "structured-measurement.csv.gz"), "cannot read .*gz: "),
        (lambda top: (top / "structured-measurement.csv.gz").write_bytes(gzip.compress(b"")), "cannot read .*gz: "),
        (lambda top: (top / "echo-study-list.csv").unlink(), "cannot read .*csv: .*No such file"),
    ],
)
def test_a_broken_table_is_one_line(tables, change, words):
    change(tables)
    with pytest.raises(UserError, match=f"^config: [a-z_.]+: .*{words}"):
        made(tables, "lvef")
    assert not (tables / "lvef.csv").exists()


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_the_workflow_makes_them(tables):
    (tables / "dicom").mkdir()
    config = {"dicom_dir": "dicom", "study_list": "echo-study-list.csv"}
    (tables / "my.yaml").write_text(yaml.safe_dump(config))
    run = ("--configfile", str(tables / "my.yaml"), "--cores", "1")
    asked = run_snakemake(tables, *run, "labels")
    assert asked.returncode != 0
    assert "config: labels.measurements: labels are made from it; name the file" in asked.stdout
    mine = {"measurements": "structured-measurement.csv.gz", "definitions": "mine.yaml"}
    (tables / "my.yaml").write_text(yaml.safe_dump(config | {"labels": mine}))
    (tables / "mine.yaml").write_text(yaml.safe_dump({"ef": MIDDLE}))
    done = run_snakemake(tables, *run, "results/labels/ef.csv")
    assert done.returncode == 0, done.stdout
    assert pd.read_csv(tables / "results/labels/ef.csv")["value"].tolist().count(52.5) == 2
    assert "ef: 8 of 16 studies have a value" in (tables / "results/logs/make_labels.log").read_text()
    assert "Nothing to be done" in run_snakemake(tables, *run, "-n", "labels").stdout
    (tables / "mine.yaml").write_text(yaml.safe_dump({"ef": MIDDLE | {"middle_of_ranges": False}}))
    assert "params have changed" in run_snakemake(tables, *run, "-n", "labels").stdout
