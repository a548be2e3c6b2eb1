"""A collection divided into units: who has which file, whose files a unit touches, and that nothing is made twice."""

import os
import shutil

import pandas as pd
import pytest
import torch

from echo_embeddings.collection import folders
from echo_embeddings.collection.kinds import DICOM
from echo_embeddings.collection.units import Division, Folder
from echo_embeddings.core import configuration, manifest, settings
from echo_embeddings.core.errors import TransientError, UserError
from echo_embeddings.core.files import PART
from echo_embeddings.core.layout import Layout
from echo_embeddings.core.pattern import PathPattern
from echo_embeddings.tables import identity, inventory, join
from testing.units import SIZE, collection_of, convert, mp4s, run, vectors_of, write_clips

PATIENTS = [f"pat{i:02}/s{j}/IM_{k:04}" for i in range(12) for j in range(2) for k in range(2)]
FLAT = [f"{i:03}_A4C.dcm" for i in range(40)]
LAYOUTS = [
    (None, PATIENTS),
    (None, FLAT),
    (None, [*PATIENTS, *FLAT]),
    ("*/{patient}/{study}/*", [f"site{i % 2}/{name}" for i, name in enumerate(PATIENTS)]),
    ("{patient}_*", FLAT),
    ("{patient}/*", [*PATIENTS, *FLAT, "x.mp4/1", "x.dcm"]),
]


def touched(top, names):
    for name in names:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).touch()


# --- who has which file -----------------------------------------------------------------------------


def test_the_bucket_of_a_path_is_for_good():
    """Changing this costs users a GPU-week: what jobs remember is found again by it."""
    division = Division(16, DICOM)
    assert {key: division.bucket(key) for key in ("p10/x/1.mp4", "p11/x/1.mp4", "pat01/1.mp4", "1.mp4", "Ä/1.mp4")} == {
        "p10/x/1.mp4": 233, "p11/x/1.mp4": 115, "pat01/1.mp4": 177, "1.mp4": 228, "Ä/1.mp4": 0,
    }  # fmt: skip
    by_patient = Division(16, DICOM, PathPattern("*/{patient}/*"))
    assert by_patient.bucket("siteA/pat01/1.mp4") == by_patient.bucket("siteB/pat01/2.mp4") == division.bucket("pat01/")
    assert by_patient.bucket("pat01/1.mp4") == division.bucket("pat01/1.mp4")  # too short for the pattern


@pytest.mark.parametrize("number", [1, 5, 16, 256])
@pytest.mark.parametrize(("layout", "names"), LAYOUTS)
def test_each_file_is_in_one_unit_and_all_units_are_there(tmp_path, layout, names, number):
    touched(tmp_path, names)
    collection = collection_of(dicom_dir=str(tmp_path), units=number, layout=layout)
    units = [collection.unit(name) for name in collection.division.names()]
    assert [unit.name for unit in units] == [f"u{i:03}" for i in range(number)]
    assert sorted(path for unit in units for path in unit.files()) == sorted(names)
    assert sorted(b for unit in units for b in unit.buckets) == [f"buckets/{b:02x}" for b in range(256)]
    surveys = collection.surveys()
    for unit in units:
        keys = [DICOM.clip_key(path) for path in unit.files()]
        assert all(unit.has(key) and unit.bucket(key) in unit.buckets for key in keys)
        assert surveys[unit.name] == unit.survey()
        assert surveys[unit.name].files == len(keys)


@pytest.mark.parametrize(("layout", "names"), LAYOUTS)
def test_every_clip_below_a_directory_of_one_bucket_is_in_it(layout, names):
    division = Division(7, DICOM, PathPattern(layout) if layout else None)
    for key in map(DICOM.clip_key, names):
        parts = key.split("/")
        for depth in range(len(parts)):
            assert division.bucket_of_directory("/".join(parts[:depth])) in (None, division.bucket(key))


def test_a_division_into_more_units_splits_each_and_a_new_patient_moves_nobody(tmp_path):
    touched(tmp_path, PATIENTS)

    def units(number):
        collection = collection_of(dicom_dir=str(tmp_path), units=number)
        return {path: int(name[1:]) for name, unit in collection.units().items() for path in unit.files()}

    touched(tmp_path, ["pat00/s0/IM_0000.dcm"])
    (tmp_path / "pat00/s0/IM_0000.dcm").write_bytes(b"\0" * 128 + b"DICM")
    before = units(16)
    assert {path: unit // 2 for path, unit in units(32).items()} == before
    touched(tmp_path, ["new patient/1", "pat00/s0/IM_0000"])
    assert units(16).items() > before.items()


def test_one_new_file_changes_the_digest_of_one_unit(tmp_path):
    touched(tmp_path, [*PATIENTS, *FLAT])
    collection = collection_of(dicom_dir=str(tmp_path), units=9)
    before = collection.surveys()
    assert collection.surveys() == before

    def changed():
        now = collection.surveys()
        return [name for name in now if now[name] != before[name]]

    for name in ("pat03/s1/new", "new.dcm", "another patient/1"):
        touched(tmp_path, [name])
        unit = collection.division.unit(collection.division.bucket(DICOM.clip_key(name)))
        assert changed() == [f"u{unit:03}"]
        before = collection.surveys()
    os.symlink("nowhere", tmp_path / "link.dcm")
    (one,) = changed()
    before = collection.surveys()
    touched(tmp_path, ["nowhere"])
    assert one in changed()
    assert collection_of(dicom_dir=str(tmp_path), units=10).surveys()["u000"] != before["u000"]


def test_folders_filters_directories(tmp_path):
    write_clips(tmp_path / "dicom", [*PATIENTS[:8], *FLAT[:3]])
    for chosen, wanted in (
        (["pat01"], [name for name in PATIENTS[:8] if name.startswith("pat01")]),
        (["dicom", "pat00"], [*(name for name in PATIENTS[:8] if name.startswith("pat00")), *FLAT[:3]]),
    ):
        collection = collection_of(dicom_dir=str(tmp_path / "dicom"), units=4, folders=chosen)
        assert sorted(path for unit in collection.units().values() for path in unit.files()) == sorted(wanted)
    with pytest.raises(UserError, match="folder 'pat99': there is none"):
        collection_of(dicom_dir=str(tmp_path / "dicom"), units=4, folders=["pat99"]).units()


def test_a_unit_that_is_none_and_a_collection_without_dicom_are_one_line(tmp_path):
    touched(tmp_path, ["a/notes.txt"])
    collection = collection_of(dicom_dir=str(tmp_path), units=4)
    with pytest.raises(UserError, match="no DICOM below"):
        collection.units()
    with pytest.raises(UserError, match="unit 'p10': there is none; config: units: 4 makes u000 to u003"):
        collection.unit("p10")


@pytest.mark.parametrize(("prefix", "problem"), [(True, "config: merge.prefix_folder: "), (False, None)])
def test_keys_of_units_have_no_prefix(tmp_path, prefix, problem):
    config = configuration.defaults() | {"dicom_dir": str(tmp_path), "units": 4, "merge": {"prefix_folder": prefix}}
    if problem:
        with pytest.raises(UserError, match=problem):
            configuration.check(config)
    else:
        configuration.check(config)


# --- what is opened ---------------------------------------------------------------------------------


@pytest.fixture
def opened(monkeypatch):
    """The paths that are opened to find out whether they are DICOM."""
    paths = []
    real = folders.seems_dicom
    monkeypatch.setattr(folders, "seems_dicom", lambda path: paths.append(path) or real(path))
    return paths


@pytest.mark.parametrize(("suffix", "found"), [("", ["p10", "p11"]), (".txt", ["p10"])])
def test_few_files_are_opened_to_find_folders(tmp_path, opened, suffix, found):
    write_clips(tmp_path, ["p10/s/1"])
    touched(tmp_path, [f"p11/{i}{suffix}" for i in range(500)])
    assert list(folders.find_folders(str(tmp_path), [])) == found
    assert len(opened) <= 1 + folders.LOOK


def test_files_beside_dicom_are_no_reason_to_leave_it_out(tmp_path, opened):
    touched(tmp_path, [f"p10/{i}.jpg" for i in range(500)])
    write_clips(tmp_path, ["p10/deep/er/1.dcm"])
    assert list(folders.find_folders(str(tmp_path), [])) == ["p10"]
    assert len(opened) == 1


# --- what is made -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "layout"), [(PATIENTS, None), (FLAT[:12], None), ([f"p10/{n}" for n in PATIENTS[:12]], "*/{patient}/*")]
)
def test_another_division_makes_nothing_again(tmp_path, tiny_weights, names, layout):
    write_clips(tmp_path / "dicom", names)
    results = Layout(tmp_path / "results")

    def run_with(units):
        collection = collection_of(dicom_dir=str(tmp_path / "dicom"), units=units, layout=layout)
        return run(collection, tiny_weights, results), vectors_of(collection, results)

    made, vectors = run_with("folders")
    assert made == (len(names), len(names))
    vectors = {key.removeprefix("dicom/"): vector for key, vector in vectors.items()}  # of files directly in it
    for units in (3, 16, 5, 3):
        made, found = run_with(units)
        assert made == (0, 0), units
        assert found.keys() == vectors.keys()
        assert all(torch.equal(found[key], vectors[key]) for key in vectors)


def test_another_layout_and_back(tmp_path, tiny_weights):
    names = [f"p10/{name}" for name in PATIENTS[:12]]
    write_clips(tmp_path / "dicom", names)
    results, vectors = Layout(tmp_path / "results"), []
    for layout in (None, "*/{patient}/*", None, "*/{patient}/*"):
        collection = collection_of(dicom_dir=str(tmp_path / "dicom"), units=3, layout=layout)
        run(collection, tiny_weights, results)
        vectors.append(vectors_of(collection, results))
    assert all(found.keys() == vectors[0].keys() for found in vectors)
    assert run(collection, tiny_weights, results) == (0, 0)


def test_a_division_of_videos_too(tmp_path, tiny_weights):
    names = [f"pat{i}/{k}" for i in range(4) for k in range(2)]
    write_clips(tmp_path / "dicom", names)
    made = collection_of(dicom_dir=str(tmp_path / "dicom"), units=1)
    run(made, tiny_weights, Layout(tmp_path / "made"))
    shutil.copytree(Layout(tmp_path / "made").mp4(SIZE), tmp_path / "videos", ignore=shutil.ignore_patterns("u0*"))
    results = Layout(tmp_path / "results")
    assert run(collection_of(mp4_dir=str(tmp_path / "videos")), tiny_weights, results) == (0, len(names))
    for units in (3, 8):
        collection = collection_of(mp4_dir=str(tmp_path / "videos"), units=units)
        assert run(collection, tiny_weights, results) == (0, 0)
        assert vectors_of(collection, results).keys() == {f"{name}.mp4" for name in names}


def test_no_unit_touches_anothers_files(tmp_path, tiny_weights):
    write_clips(tmp_path / "dicom", FLAT)
    results = Layout(tmp_path / "results")
    collection = collection_of(dicom_dir=str(tmp_path / "dicom"), units=4)
    run(collection, tiny_weights, results)
    before, tree = mp4s(results), results.mp4(SIZE)
    units = list(collection.units().values())
    # One of each unit goes, the others' jobs are at work: only the first unit's own is to be deleted.
    gone = [unit.files()[0] for unit in units]
    for name in gone:
        (tmp_path / "dicom" / name).unlink()
    parts = [tree / f"0123456789abcdef.{unit.buckets[3].rpartition('/')[2]}{PART}" for unit in units]
    for part in (*parts, tree / f"u001{PART}"):
        part.touch()
    convert(collection, units[0], results)
    assert before.keys() - mp4s(results).keys() == {DICOM.clip_key(gone[0])}
    assert [part.exists() for part in parts] == [False, True, True, True]
    assert (tree / f"u001{PART}").exists()


def test_what_was_made_of_a_directory_that_is_away_is_kept(tmp_path, tiny_weights):
    names = [f"site{i % 2}/{name}" for i, name in enumerate(PATIENTS[:12])]
    write_clips(tmp_path / "dicom", names)
    results = Layout(tmp_path / "results")
    keys = {"dicom_dir": str(tmp_path / "dicom"), "units": 2, "layout": "*/{patient}/*"}
    assert run(collection_of(**keys), tiny_weights, results) == (12, 12)
    before = mp4s(results)
    (tmp_path / "dicom/site1").rename(tmp_path / "away")
    (tmp_path / "dicom/site1").mkdir()
    assert run(collection_of(**keys), tiny_weights, results) == (0, 0)
    assert mp4s(results) == before
    (tmp_path / "dicom/site1").rmdir()
    (tmp_path / "away").rename(tmp_path / "dicom/site1")
    assert run(collection_of(**keys), tiny_weights, results) == (0, 0)
    # All of it: the job, which Snakemake started a moment ago, says so.
    (tmp_path / "dicom").rename(tmp_path / "away")
    (tmp_path / "dicom").mkdir()
    with pytest.raises(UserError, match="no DICOM below"):
        collection_of(**keys).unit("u000")
    # Another collection in its place.
    write_clips(tmp_path / "dicom", ["other/1", "2"])
    assert run(collection_of(**keys), tiny_weights, results) == (2, 2)
    assert before.items() <= mp4s(results).items()


def test_an_mp4_that_other_settings_have_replaced_is_made_again(tmp_path, tiny_weights):
    write_clips(tmp_path / "dicom", ["p10/1", "p10/2"])
    results = Layout(tmp_path / "results")

    def converted(units, fps):
        before = mp4s(results)
        collection = collection_of(dicom_dir=str(tmp_path / "dicom"), units=units)
        for unit in collection.units().values():
            convert(collection, unit, results, fps=fps)
        return len(set(mp4s(results).values()) - set(before.values()))

    steps = [("folders", 30), (2, 30), (2, 25), (2, 30), ("folders", 30), ("folders", 25), (2, 30), (2, 30)]
    # In folders what was made with units is found by its content.
    assert [converted(*step) for step in steps] == [2, 0, 2, 2, 0, 2, 2, 0]


def test_units_of_one_name_exclude_each_other(tmp_path, tiny_weights):
    write_clips(tmp_path / "dicom", PATIENTS[:4])
    units = [collection_of(dicom_dir=str(tmp_path / "dicom"), units=number).unit("u001") for number in (16, 32)]
    assert not {*units[0].buckets} & {*units[1].buckets}
    with units[0].locked(tmp_path), pytest.raises(TransientError, match="u001: another run is at work"):
        units[1].locked(tmp_path).__enter__()


def test_a_raw_name_of_a_folder_counts(tmp_path):
    write_clips(tmp_path / "dicom", ["50%/1", "p11/1"])
    for name in ("50%", "50%25"):
        collection = collection_of(dicom_dir=str(tmp_path / "dicom"), units=2, folders=[name])
        assert [path for unit in collection.units().values() for path in unit.files()] == ["50%/1"]


def test_files_that_folders_leaves_out_are_kept(tmp_path, tiny_weights):
    write_clips(tmp_path / "dicom", PATIENTS[:12])
    results = Layout(tmp_path / "results")
    keys = {"dicom_dir": str(tmp_path / "dicom"), "units": 2}
    assert run(collection_of(**keys), tiny_weights, results) == (12, 12)
    before = mp4s(results)
    some = collection_of(**keys, folders=["pat01"])
    assert run(some, tiny_weights, results) == (0, 0)
    assert len(vectors_of(some, results)) == 4
    assert mp4s(results) == before
    assert run(collection_of(**keys), tiny_weights, results) == (0, 0)


def test_limit_counts_in_each_unit(tmp_path, tiny_weights):
    write_clips(tmp_path / "dicom", FLAT)
    results = Layout(tmp_path / "results")
    collection = collection_of(dicom_dir=str(tmp_path / "dicom"), units=3)
    run(collection, tiny_weights, results, limit=2)
    for name, unit in collection.units().items():
        rows = manifest.read(results.manifest(SIZE, name))
        assert [row.path for row in rows] == unit.files()[:2]


def test_two_names_that_become_one_are_told_in_whichever_unit(tmp_path):
    write_clips(tmp_path / "dicom", ["a.dcm", "a", "b.mp4/1", "b.dcm", "c"])
    results = Layout(tmp_path / "results")
    collection = collection_of(dicom_dir=str(tmp_path / "dicom"), units=256)
    for unit in collection.units().values():
        convert(collection, unit, results)
    rows = {row.path: row for name in collection.units() for row in manifest.read(results.manifest(SIZE, name))}
    assert {path: row.status for path, row in rows.items()} == dict.fromkeys(rows, "failed") | {"c": "converted"}
    assert all(row.reason.startswith("name collision") for path, row in rows.items() if path != "c")


def test_a_folder_is_a_unit_of_its_own():
    folder = Folder("p10", "/data/p10")
    assert folder.buckets == ("p10",)
    assert folder.in_folder("a/b") is None


# --- tables -----------------------------------------------------------------------------------------

MIMIC = [f"p1{i % 2}/p1{i % 2}00000{i}/s9000000{i}/9000000{i}_000{k}.dcm" for i in range(6) for k in range(2)]


@pytest.mark.parametrize(
    ("names", "layout", "prefix"),
    [
        (MIMIC, None, "files/"),
        (MIMIC, "*/{patient}/{study}/*", ""),
        ([f"{n}.dcm" for n in PATIENTS], "{patient}/{study}/*", "old/place/"),
        (FLAT, "{patient}_*", ""),
    ],
)
def test_tables_join_as_with_folders(tmp_path, names, layout, prefix):
    write_clips(tmp_path / "dicom", names)
    by_path = pd.DataFrame(
        {"name": [prefix + name for name in names], "view": [f"v{i % 5}" for i in range(len(names))]}
    )
    by_path.iloc[:-3].to_csv(tmp_path / "views.csv", index=False)
    pd.DataFrame({"dicom_filepath": [*by_path["name"][2:], f"{prefix}{names[0][:4]}gone.dcm"]}).to_csv(
        tmp_path / "list.csv", index=False
    )
    found = []
    for units in ("folders", 5):
        keys = {"dicom_dir": str(tmp_path / "dicom"), "units": units, "layout": layout}
        keys |= {"tables": [{"file": str(tmp_path / "views.csv"), "by": "path", "key": "name"}]}
        config = configuration.defaults() | keys | {"record_list": str(tmp_path / "list.csv")}
        collection = collection_of(**keys)
        tables = settings.tables(config)
        frame, (_, views) = join.join_tables(join.listed_files(collection.units()), tables)
        path = identity.below(frame, tables).str.removeprefix("dicom/")
        found.append(frame.assign(path=path).set_index("path").sort_index()[["view", "subject_id", "study_id"]])
        assert int(views.found.sum()) == len(names) - 3
        differences, listed = inventory.compare(tables.record_list, collection.units(), everything=True)
        assert differences["what"].value_counts().to_dict() == {
            inventory.NOT_FOUND: 1, inventory.NOT_LISTED: 2,
        }  # fmt: skip
        assert listed.sum() == len(names) - 1
        assert inventory.NO_FOLDER not in listed.index or units == "folders"
    assert found[0].equals(found[1])
    assert found[0]["subject_id"].notna().all()
