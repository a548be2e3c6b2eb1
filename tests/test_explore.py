"""What the plane of clips is made of: whole patients, true neighbours, columns; and what neighbours tell."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.manifold import trustworthiness
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from echo_embeddings.core.settings import Table, Tables
from echo_embeddings.qc import knows, projection, sampling
from echo_embeddings.qc.closest import closest, unit
from echo_embeddings.qc.columns import MISSING, Column, column_of
from echo_embeddings.qc.explore import colouring
from echo_embeddings.qc.report import Options, measure
from echo_embeddings.qc.tables import UNKNOWN
from testing import planted
from testing.qc import Collection


def test_whole_patients_are_drawn_and_what_is_named_stays() -> None:
    patients = pd.Series([f"P{i // 10}" for i in range(1000)])
    drawn = sampling.draw(patients, [5, 999, 5], size=205)
    assert len(drawn.places) == 205
    assert {5, 999} <= set(drawn.places.tolist())
    sizes = patients.iloc[drawn.places[drawn.by_patient]].value_counts()
    assert (sizes == 10).sum() >= len(sizes) - 1  # the last may find no room for all of its clips
    assert drawn.dropped == 0
    assert sampling.draw(patients, range(1000), size=100).dropped == 950
    everything = sampling.draw(patients, [3], size=1000)
    assert everything.by_patient.all()
    assert len(everything.places) == 1000
    nobody = sampling.draw(pd.Series([UNKNOWN] * 50), [], size=20)
    assert len(nobody.places) == 20
    assert len(sampling.draw(pd.Series([], dtype=str), []).places) == 0


def test_the_closest_are_those_of_scikit_learn() -> None:
    rows = np.random.default_rng(0).normal(size=(1500, 12)).astype(np.float32)
    places, cosines = closest(unit(rows), 6)
    apart, expected = NearestNeighbors(n_neighbors=7, metric="cosine", algorithm="brute").fit(rows).kneighbors(rows)
    assert (places == expected[:, 1:]).mean() > 0.999
    assert np.abs(cosines - (1 - apart[:, 1:])).max() < 1e-5


def test_neighbours_of_other_patients_are_of_other_patients_and_zeros_have_none() -> None:
    rows = np.random.default_rng(1).normal(size=(200, 5)).astype(np.float32) * 1e30
    rows[7] = 0
    owners = np.arange(200) // 20
    places, cosines = closest(unit(rows), 10, owners)
    assert (owners[places] != owners[:, None])[np.isfinite(cosines)].all()
    assert not np.isfinite(cosines[7]).any()
    assert not (places == 7)[np.isfinite(cosines)].any()
    assert closest(unit(rows[:1]), 3)[0].shape == (1, 0)


def test_neighbourhoods_keep_neighbours_that_two_components_lose() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(40, 16)) * 3)[np.arange(600) % 40] + rng.normal(size=(600, 16)) * 0.5
    rows[3] = 0
    near, cosines = closest(unit(rows), projection.NEAREST)
    view = projection.neighbourhoods(near, cosines, rows[:, :2])
    assert view is not None
    assert np.isfinite(view.points).all()
    kept = [trustworthiness(rows, plane, n_neighbors=10, metric="cosine") for plane in (view.points, rows[:, :2])]
    assert kept[0] > 0.95 > kept[1] + 0.1
    again = projection.neighbourhoods(near, cosines, rows[:, :2])
    assert again is not None
    assert np.array_equal(view.points, again.points)
    assert projection.neighbourhoods(near[:20], cosines[:20], rows[:20, :2]) is None


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (["a", "b", "b", None], ["b", "a"]),
        ([True, False, True, pd.NA], ["True", "False"]),
        ([4, 0, 2, 0], ["0", "2", "4"]),
        (pd.array([4, None, 2, 0], "Int64"), ["0", "2", "4"]),
        (list(np.linspace(0, 1, 40)), []),
        (pd.to_datetime(["2110-01-01", "2111-01-01"]), "dates"),
        ([f"n{i}" for i in range(300)], "300 different texts"),
        (["a", "a"], "one value"),
        ([None, None], "no value"),
    ],
)
def test_columns_are_groups_numbers_or_nothing_to_colour_by(values: object, labels: object) -> None:
    found = column_of("x", pd.Series(values))  # type: ignore[call-overload]
    assert (found.labels if isinstance(found, Column) else found) == labels


def test_numbers_are_cut_into_parts_of_as_many_clips() -> None:
    numbers = np.arange(100.0)
    numbers[40] = np.nan
    made = colouring(Column("n", [], np.zeros(100, np.int64), numbers))
    codes = np.frombuffer(base64.b64decode(made["codes"]), np.uint8)
    assert codes[40] == 255
    assert np.bincount(np.delete(codes, 40)).tolist() == [20, 20, 19, 20, 20]
    assert made["labels"][0] == "0 to 19"
    assert np.all(np.diff(np.delete(codes, 40).astype(int)) >= 0)
    few = colouring(Column("n", [], np.zeros(100, np.int64), np.repeat([1.0, 5.0], 50)))
    assert few["labels"] == ["1 to 1", "5 to 5"]


# --- what the vectors know --------------------------------------------------------------------------

PATIENTS, EACH = 60, 10


def scores(signal: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of clips in which a device of each patient shows, the patients and the devices."""
    rng = np.random.default_rng(2)
    patients = np.repeat(np.arange(PATIENTS), EACH)
    devices = (np.arange(PATIENTS) % 3)[patients]
    own = rng.normal(size=(PATIENTS, 8))[patients] * 2  # a patient's clips are alike, whatever the device
    return own + signal * np.eye(3, 8)[devices] * 3 + rng.normal(size=(len(patients), 8)), patients, devices


def test_what_shows_in_the_vectors_is_known_and_what_does_not_is_chance() -> None:
    for signal in (2.0, 0.0):
        points, patients, devices = scores(signal)
        number = Column("n", [], np.zeros(len(devices), np.int64), devices + np.linspace(0, 0.1, len(devices)))
        found = knows.examine(points, patients, [Column("device", ["a", "b", "c"], devices, None), number])
        for known in found:
            assert known.above == (signal > 0), known
            assert known.value is not None
            assert known.chance is not None
            if signal:
                assert known.value > known.chance + 0.2
            assert (known.patients, known.clips) == (PATIENTS, PATIENTS * EACH)
            assert abs(known.chance - (0.5 if known.measure == knows.AUC else 0)) < 0.06


def test_a_patients_own_clips_never_vote() -> None:
    """A label that each patient has, and no device: with their own clips neighbours would tell it without fail."""
    points, patients, _ = scores(0)
    label = np.random.default_rng(3).integers(0, 2, PATIENTS)[patients]
    (known,) = knows.examine(points, patients, [Column("label", ["no", "yes"], label, None)])
    own = NearestNeighbors(n_neighbors=6).fit(points).kneighbors(points, return_distance=False)[:, 1:]
    assert roc_auc_score(label, label[own].mean(axis=1)) > 0.75
    assert known.value is not None
    assert not known.above


def test_the_auc_is_that_of_scikit_learn() -> None:
    points, patients, devices = scores(0.5)
    near = closest(unit(points), 10, patients)[0]
    expected = [roc_auc_score(devices == code, (devices[near] == code).mean(axis=1)) for code in range(3)]
    (known,) = knows.examine(points, patients, [Column("device", ["a", "b", "c"], devices, None)])
    assert known.value == pytest.approx(np.mean(expected))


def test_too_few_patients_and_values_are_not_tested() -> None:
    points, patients, devices = scores(1)
    few = np.where(patients < 10, devices, MISSING)
    rare = np.where(patients < 3, 1, 0)
    columns = [Column(name, ["a", "b", "c"], codes, None) for name, codes in (("few", few), ("rare", rare))]
    found = {known.column: known for known in knows.examine(points, patients, columns)}
    assert found["few"].reason == f"fewer than {knows.MIN_PATIENTS} patients"
    assert found["rare"].reason == f"no two values that {knows.CLASS} patients have"
    assert all(known.value is None and not known.above for known in found.values())
    (nobody,) = knows.examine(points, np.full(len(points), -1), columns[:1])
    assert nobody.reason == "no patient is known"


# --- the whole --------------------------------------------------------------------------------------


def test_tables_and_predictions_are_shown_and_what_is_none_is_said(tmp_path: Path) -> None:
    made = planted.write(tmp_path, 1200, 16)
    keys = [key for _, key in planted.keys_of(1200, 10)]
    people = sorted({key.split("/")[0][1:] for key in keys})
    (tmp_path / "people.csv").write_text(
        "subject_id,sex,surname,born,seen_datetime\n"
        + "".join(f"{p},{'fm'[i % 2]},N{i},{1900 + i},2110-01-{1 + i:02}\n" for i, p in enumerate(people))
    )
    (tmp_path / "views.csv").write_text("file_path,view\n" + "".join(f"{k},V{i % 4}\n" for i, k in enumerate(keys)))
    (tmp_path / "twice.csv").write_text(f"file_path,odd\n{keys[0]},1\n{keys[0]},2\n")
    files = [("people", "patient", "subject_id"), ("views", "path", "file_path"), ("twice", "path", "file_path")]
    files.append(("no", "patient", "k"))
    others = [Table(str(tmp_path / f"{name}.csv"), by, key, name=f"tables.{name}") for name, by, key in files]
    report = measure("vitl", made.merged, made.folders, Options(tables=Tables(others=tuple(others)), pictures=False))
    assert report.explorer is not None
    found = {column.name: column for column in report.explorer.columns}
    assert set(found) == {"folder", "device", "kind", "frames", "sex", "born", "view", "finding"}
    at = report.explorer.drawn["key"].tolist().index(keys[42])
    assert found["view"].labels[found["view"].codes[at]] == "V2"
    assert found["born"].numbers is not None
    assert found["born"].numbers[at] == 1901
    said = {line.partition(": ")[0].rpartition("/")[2]: line.partition(": ")[2] for line in report.explorer.left_out}
    assert said["no.csv"] == "not there yet"
    assert said["twice.csv"].startswith("cannot be joined")
    assert said["surname"].startswith("names:")
    assert said["seen_datetime"] == "dates"
    assert {known.column for known in report.explorer.knows} == set(found) - {"finding"}


def test_hashed_names_are_hashed_on_the_plane_too(collection: Collection) -> None:
    for hidden in (False, True):
        _, html = collection.page(hash_names=hidden, pictures=False)
        found = re.search(r'id="explore-data">(.*?)</script>', html, re.S)
        assert found
        data = json.loads(found[1])
        assert len(data["names"]) == 20
        assert all(name.startswith("#") for name in data["names"]) == hidden
        assert all(name.startswith("patient #") for name in data["patients"]) == hidden
        assert ("p10000001" in html) != hidden


def test_strips_follow_qc_pictures(collection: Collection, write_video: object) -> None:
    for folder, keys in collection.folders.items():
        for i, key in enumerate(keys):
            write_video(f"{folder}/{key}", frames=16, seed=i)  # type: ignore[operator]
    for pictures in (True, False):
        html = collection.page(pictures=pictures)[1]
        found = re.search(r'id="explore-data">(.*?)</script>', html, re.S)
        assert found
        assert len(json.loads(found[1])["strips"]) == (20 if pictures else 0)
