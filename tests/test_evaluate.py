"""What vectors can predict, of collections with planted signals, against plain scikit-learn, and every leak."""

import json

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from echo_embeddings.core.errors import UserError
from echo_embeddings.core.vectors import read_vectors, write_vectors
from echo_embeddings.evaluate import controls, evaluation, linear, metrics, ridge, splits
from echo_embeddings.evaluate.intervals import intervals
from echo_embeddings.qc.base import Vectors
from testing.evaluation import MODEL, plant

NUMBER = {"by": "study", "target": "y", "kind": "regression"}
CLASS = {"by": "study", "target": "y", "kind": "classification"}
QUICK = {"bootstrap": 200}


def value(made, probe, figure):
    return {**made["probes"], **made["controls"]}[probe]["figures"][figure].value


def weighted(collection, seed=1):
    """A value of each study that lies along one direction, of unit variance."""
    along = np.random.default_rng(seed).normal(size=collection.says.shape[1])
    signal = collection.says @ along
    return (signal - signal.mean()) / signal.std()


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """400 patients with two studies of three clips each, in two folders."""
    return plant(tmp_path_factory.mktemp("planted"), 400, 2, folders=("p10", "p11"))


@pytest.fixture(scope="module")
def found(collection):
    """A label of which half is signal, evaluated; and the R2 of the signal itself."""
    signal = weighted(collection)
    y = np.sqrt(0.5) * signal + np.sqrt(0.5) * np.random.default_rng(2).normal(size=len(signal))
    made = collection.evaluate({"table": collection.label("y", y), **NUMBER, "pool": "both"}, shots=[8, 64], **QUICK)
    error = y - np.sqrt(0.5) * signal
    return made, 1 - (error**2).sum() / ((y - y.mean()) ** 2).sum()


def test_a_planted_signal_is_found(found):
    made, truth = found
    for probe in ("ridge", "ridge, vectors averaged"):
        assert value(made, probe, "r2") == pytest.approx(truth, abs=0.02)
        interval = made["probes"][probe]["figures"]["r2"]
        assert interval.low < truth < interval.high
    assert made["not_tested"] is None
    assert made["beats_metadata"]
    assert made["counts"] == {
        **{"clips": 2400, "units": 800, "tested": 800, "patients": 400, "unlabelled": 0, "of_class": None}
    }


def test_controls_find_nothing_of_it(found):
    made, truth = found
    assert list(made["controls"]) == ["mean", "shuffled", "metadata"]
    for control in made["controls"]:
        assert -0.1 < value(made, control, "r2") < 0.03 < truth
    assert 0 < value(made, "neighbours", "r2") < truth
    curve = [one["figures"]["r2"].value for one in made["shots"]]
    assert curve[0] < curve[1] < value(made, "ridge", "r2")


def test_what_is_written_says_the_same(collection, found):
    made, _ = found
    numbers = collection.top / collection.layout.evaluation("task", MODEL)
    read = json.loads(numbers.read_text())
    assert read["probes"]["ridge"]["figures"]["r2"]["value"] == value(made, "ridge", "r2")
    table = pd.read_parquet(collection.top / collection.layout.evaluation_predictions("task", MODEL))
    assert list(table) == ["key", "subject_id", "fold", "truth", "prediction"]
    error = ((table["truth"] - table["prediction"]) ** 2).sum() / ((table["truth"] - table["truth"].mean()) ** 2).sum()
    assert 1 - error == pytest.approx(value(made, "ridge", "r2"))
    assert table.groupby("subject_id")["fold"].nunique().max() == 1
    expected = [splits.fold_of(patient, 0, 5) for patient in table["subject_id"]]
    assert table["fold"].tolist() == expected
    # The head of a fold gives the predictions of that fold.
    head = load_file(collection.top / collection.layout.evaluation_head("task", MODEL))
    keys, matrix = read_vectors(collection.top / collection.layout.merged(MODEL))
    study = table["key"].iloc[5]
    mine = matrix.numpy()[[f"/s{study}/" in key for key in keys]].astype(float)
    at = f"group.{table['fold'].iloc[5]}."
    by_hand = ((mine - head[at + "mean"]) / head[at + "scale"]) @ head[at + "weights"] + head[at + "bias"]
    assert by_hand.mean() == pytest.approx(table["prediction"].iloc[5])


@pytest.mark.parametrize("chosen_by", [None, (1,)])
def test_ridge_is_scikit_learn_s(chosen_by):
    """Nested choice of the penalty, standardisation of training groups alone, by a plain script."""
    generator = np.random.default_rng(0)
    x = (5 + generator.normal(size=(300, 6)) @ generator.normal(size=(6, 12))).astype(np.float32)
    x += 0.1 * generator.normal(size=x.shape).astype(np.float32)
    x[:, 3] = 7  # of no meaning
    y = x @ generator.normal(size=12) + 4 * generator.normal(size=300)
    split = splits.Split(generator.integers(0, 4, 300), (0, 1, 2, 3) if chosen_by is None else (3,), chosen_by, "")
    made = ridge.fit(Vectors(x, np.arange(300)), np.stack([y, -y], axis=1), split)
    values = linear.predict(made.heads, Vectors(x, np.arange(300)), split.group, split.tested)

    def fitted(training, penalty):
        scaler = StandardScaler().fit(x[training].astype(float))
        model = Ridge(alpha=penalty * training.sum()).fit(scaler.transform(x[training].astype(float)), y[training])
        return lambda rows: model.predict(scaler.transform(x[rows].astype(float)))

    for tested in split.tested:
        training = ~np.isin(split.group, split.tested if chosen_by else tested)
        errors = []
        for penalty in ridge.PENALTIES:
            error = 0.0
            for out in chosen_by or sorted(set(split.group[training])):
                held = split.group == out
                error += ((fitted(training & ~held, penalty)(held) - y[held]) ** 2).sum()
            errors.append(error)
        best = ridge.PENALTIES[int(np.argmin(errors))]
        assert made.penalties[tested] == pytest.approx([best, best])
        expected = fitted(training, best)(split.group == tested)
        assert np.abs(values[split.group == tested, 0] - expected).max() < 1e-4 * np.abs(expected).max()
        assert np.abs(values[split.group == tested, 1] + expected).max() < 1e-4 * np.abs(expected).max()


def test_classes_are_found(collection):
    signal = weighted(collection)
    y = np.where(signal > 0.4, "high", np.where(signal < -0.4, "low", "middle"))
    made = collection.evaluate({"table": collection.label("y", y), **CLASS}, **QUICK)
    assert made["classes"] == ["high", "low", "middle"]
    assert value(made, "logistic", "auroc") > 0.95
    assert value(made, "neighbours", "auroc") > 0.8
    assert value(made, "majority", "balanced_accuracy") == pytest.approx(1 / 3, abs=0.02)
    assert 0.4 < value(made, "shuffled", "auroc") < 0.6
    assert np.sum(made["confusion"]) == 800
    table = pd.read_parquet(collection.top / collection.layout.evaluation_predictions("task", MODEL))
    assert list(table)[-3:] == ["p_high", "p_low", "p_middle"]
    assert np.allclose(table[["p_high", "p_low", "p_middle"]].sum(axis=1), 1)
    assert made["counts"]["of_class"]["high"]["units"] == (y == "high").sum()


def test_two_classes_of_clips(collection):
    """Labels by path: a unit is a clip."""
    signal = np.repeat(weighted(collection) > 0, 3)
    paths = [f"{key.removesuffix('.mp4')}" for key in sorted(collection.keys)]
    pd.DataFrame({"path": paths, "y": np.where(signal, "b", "a")}).to_csv(collection.top / "paths.csv", index=False)
    made = collection.evaluate({"table": "paths.csv", "key": "path", **CLASS, "by": "path"}, **QUICK)
    assert value(made, "logistic", "auroc") > 0.95
    assert made["counts"]["units"] == made["counts"]["clips"] == 2400


@pytest.mark.parametrize(("rounds", "least"), [(60, 0.85), pytest.param(500, 0.925, marks=pytest.mark.slow)])
def test_intervals_of_no_signal_hold_what_is_expected(rounds, least):
    """The expectation of a cross-validated R2 lies below 0 then."""
    generator = np.random.default_rng(0)
    patients = np.arange(200) // 2
    found = []
    for i in range(rounds):
        x, y = generator.normal(size=(200, 10)).astype(np.float32), generator.normal(size=200)
        split = splits.by_hash([str(patient) for patient in patients], i, 5)
        vectors = Vectors(x, np.arange(200))
        heads = ridge.fit(vectors, y[:, None], split).heads
        made = linear.predict(heads, vectors, split.group, split.tested)[:, 0]
        noise = linear.noise_share(heads, x, split.tested)

        def figures(weights, y=y, made=made):
            return {"r2": metrics.regression(y, made, weights)["r2"]}

        found.append(intervals(figures, patients, 400 if rounds < 100 else 1000, i, lambda _, noise=noise: noise)["r2"])
    expected = np.mean([one.value for one in found])
    assert -0.1 < expected < 0
    covered = np.mean([one.low <= expected <= one.high for one in found])
    assert least <= covered, covered


@pytest.mark.parametrize(("rounds", "most"), [(12, 2), pytest.param(100, 6, marks=pytest.mark.slow)])
def test_labels_without_signal_beat_nothing(tmp_path, rounds, most):
    collection = plant(tmp_path, 150, of_study=1, dim=16)
    beats = 0
    for seed in range(rounds):
        label = collection.label("y", np.random.default_rng(seed).normal(size=150))
        made = collection.evaluate({"table": label, **NUMBER}, seed=seed, **QUICK)
        assert value(made, "metadata", "r2") > -0.2
        beats += made["beats_metadata"]
    assert beats <= most


def test_few_to_test_or_of_a_class_to_train_with_are_said(collection):
    signal = weighted(collection)
    patient = np.arange(800) // 2
    few = collection.label("y", signal, Split=np.where(patient < 4, "test", "train"))
    made = collection.evaluate({"table": few, **NUMBER, "split": "Split"}, **QUICK)
    assert made["not_tested"] == "4 patients to test, fewer than 50"
    assert made["beats_metadata"] is None
    words = np.where(patient < 60, "a", "b")
    one = collection.label("y", words, Split=np.where(patient < 60, "train", np.where(patient < 80, "train", "test")))
    made = collection.evaluate({"table": one, **CLASS, "split": "Split"}, **QUICK)
    assert made["not_tested"] == "every label to test is b"


def test_shots_that_there_are_not_are_left_out(tmp_path):
    collection = plant(tmp_path, 100, 2)
    signal = weighted(collection)
    made = collection.evaluate({"table": collection.label("y", signal), **NUMBER}, shots=[16, 90], **QUICK)
    assert [one["patients"] for one in made["shots"]] == [16]
    part = np.where(np.arange(200) // 2 < 60, "test", "train")
    table = collection.label("y", np.where(signal > 0, "b", "a"), Split=part)
    made = collection.evaluate({"table": table, **CLASS, "split": "Split"}, shots=[8, 32], **QUICK)
    curve = [one["figures"]["auroc"].value for one in made["shots"]]
    assert 0.6 < curve[0] < curve[1]


def test_figures_of_any_scale_are_the_same():
    generator = np.random.default_rng(0)
    truth, weights = generator.normal(size=50), generator.integers(0, 3, (4, 50)).astype(float)
    predicted = truth + generator.normal(size=50)
    plain = metrics.regression(truth, predicted, weights)
    for scale, away in ((1e-8, 0.0), (1e4, 1e10)):
        found = metrics.regression(truth * scale + away, predicted * scale + away, weights)
        for name in ("r2", "pearson", "spearman"):
            assert found[name] == pytest.approx(plain[name], rel=1e-4)


def test_more_units_than_are_drawn_keep_their_figures(collection, monkeypatch):
    table = collection.label("y", weighted(collection))
    whole = collection.evaluate({"table": table, **NUMBER}, **QUICK)["probes"]["ridge"]["figures"]["mae"]
    monkeypatch.setattr(evaluation, "SAMPLE", 400)
    part = collection.evaluate({"table": table, **NUMBER}, **QUICK)["probes"]["ridge"]["figures"]["mae"]
    assert part.value == whole.value
    assert part.low < part.value < part.high
    assert whole.high - whole.low < part.high - part.low < 3 * (whole.high - whole.low)


def test_a_site_that_predicts_the_label_is_told(tmp_path):
    collection = plant(tmp_path, 200, shift=3.0)
    by_maker = (collection.studies["manufacturer"] == "GE").to_numpy()
    y = 2.0 * by_maker + np.random.default_rng(3).normal(size=200)
    made = collection.evaluate({"table": collection.label("y", y), **NUMBER}, **QUICK)
    assert value(made, "ridge", "r2") > 0.3
    assert value(made, "metadata", "r2") > 0.3
    assert made["beats_metadata"] is False
    exact = collection.label("y", np.where(by_maker, "here", "there"))
    told = collection.evaluate({"table": exact, **CLASS}, **QUICK)["told"]
    assert told == ["each label goes with one manufacturer that headers say, and the reverse"]


def test_nothing_depends_on_the_order_of_files_or_folders(collection, found, tmp_path):
    again = plant(tmp_path, 400, 2, folders=("p11", "p10"))
    signal = weighted(again)
    y = np.sqrt(0.5) * signal + np.sqrt(0.5) * np.random.default_rng(2).normal(size=len(signal))
    again.label("y", y)
    table = pd.read_csv(tmp_path / "y.csv").sample(frac=1, random_state=0)
    table.to_csv(tmp_path / "y.csv", index=False)
    made = again.evaluate({"table": "y.csv", **NUMBER, "pool": "both"}, shots=[8, 64], **QUICK)
    same = ("probes", "controls", "against_metadata", "shots", "strata", "calibration")
    assert {name: made[name] for name in same} == {name: found[0][name] for name in same}


# --- splits and leaks -------------------------------------------------------------------------------


def test_folds_stay_when_patients_are_added():
    few, many = [f"{i}" for i in range(50)], [f"{i}" for i in range(500)]
    first, more = splits.by_hash(few, 0, 5), splits.by_hash(many, 0, 5)
    assert np.array_equal(first.group, more.group[:50])
    assert not np.array_equal(first.group, splits.by_hash(few, 1, 5).group)
    assert np.bincount(more.group).min() > 70


def test_a_given_split_is_kept(collection):
    signal = weighted(collection)
    part = np.where(np.arange(800) // 2 % 4 == 0, "TEST", np.where(np.arange(800) // 2 % 4 == 1, "VAL", "TRAIN"))
    table = collection.label("y", signal, Split=part)
    made = collection.evaluate({"table": table, **NUMBER, "split": "Split"}, **QUICK)
    assert made["counts"]["tested"] == made["probes"]["ridge"]["units"] == 200
    assert value(made, "ridge", "r2") > 0.9
    found = pd.read_parquet(collection.top / collection.layout.evaluation_predictions("task", MODEL))
    assert sorted(found["key"].astype(int)) == collection.studies["study_id"][part == "TEST"].tolist()
    folds = collection.label("y", signal, Split=np.arange(800) // 2 % 10)
    made = collection.evaluate({"table": folds, **NUMBER, "split": "Split"}, **QUICK)
    assert made["split"] == "10 folds, as the table has them"
    assert made["counts"]["tested"] == 800


def test_echonet_s_table_works_as_it_comes(tmp_path):
    collection = plant(tmp_path, 300, of_study=1, folders=("Videos",), form="0X{subject_id}.avi")
    names = [key.removesuffix(".avi") for key in collection.keys]
    parts = np.repeat(["TRAIN", "VAL", "TEST"], [180, 50, 70])
    columns = {"FileName": names, "EF": 50 + 10 * weighted(collection), "ESV": 1.0, "Split": parts}
    pd.DataFrame(columns).to_csv(tmp_path / "FileList.csv", index=False)
    task = {"table": "FileList.csv", "by": "path", "key": "FileName", "target": "EF", "kind": "regression"}
    collection_keys = {"mp4_dir": str(tmp_path), "layout": "Videos/{patient}"}
    made = collection.evaluate(task | {"split": "Split"}, **QUICK, **collection_keys)
    assert made["counts"] == {
        **{"clips": 300, "units": 300, "tested": 70, "patients": 300, "unlabelled": 0, "of_class": None}
    }
    assert value(made, "ridge", "r2") > 0.8
    with pytest.raises(UserError, match=r"the patient of 300 labelled clips is not known, '0X10000000.avi' among them"):
        collection.evaluate(task, **QUICK, mp4_dir=str(tmp_path))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (lambda i: np.where(i % 2, "train", "test"), "patient 10000000 is in 'test' and in 'train'"),
        (lambda i: np.where(i // 2 % 2, "train", "tset"), "its values are train, tset; they must be train, val and te"),
        (lambda i: np.full(len(i), "train"), "its values are train; they must be train, val and test"),
        (lambda i: np.full(len(i), 3), "y.csv: 'Split': 1 folds; take 3 to 20"),
        (lambda i: np.where(i < 2, None, "train"), "2 labels have no 'Split'; fill it in"),
    ],
    ids=["patient", "word", "alone", "fold", "missing"],
)
def test_a_split_that_cannot_be_is_one_line(collection, values, said):
    table = collection.label("y", weighted(collection), Split=values(np.arange(800)))
    with pytest.raises(UserError) as raised:
        collection.evaluate({"table": table, **NUMBER, "split": "Split"}, **QUICK)
    assert str(raised.value).startswith("config: evaluate.tasks.task: y.csv: ")
    assert said in str(raised.value)


def test_nearly_equal_clips_on_two_sides_are_counted(tmp_path):
    collection = plant(tmp_path, 60, noise=0.3)
    path = collection.layout.merged(MODEL)
    keys, matrix = read_vectors(tmp_path / path)
    rows = matrix.clone()
    fold = [splits.fold_of(key[1:9], 0, 5) for key in keys]
    other = next(i for i in range(len(keys)) if fold[i] != fold[0])
    same = next(i for i in range(3, len(keys)) if fold[i] == fold[0])
    rows[other] = rows[0]
    rows[same] = rows[0] + 1e-6
    write_vectors(tmp_path / path, keys, rows)
    told = collection.evaluate({"table": collection.label("y", weighted(collection)), **NUMBER}, **QUICK)["told"]
    assert len(told) == 1
    assert told[0].startswith("3 clips have a nearly equal one on another side of the split, 1 groups of them")


@pytest.mark.parametrize(
    ("patients", "task", "label", "reason"),
    [
        (40, NUMBER, lambda i: i.astype(float), "40 patients, fewer than 50"),
        (60, NUMBER, lambda i: np.full(len(i), 3.5), "every label is 3.5"),
        (60, CLASS, lambda i: np.full(len(i), "yes"), "every label is yes"),
        (60, CLASS, lambda i: np.where(i < 19, "a", "b"), "classes with fewer than 20 patients: a 19"),
        (60, CLASS, lambda i: np.where(i == 0, "a", "b"), "classes with fewer than 20 patients: a 1"),
        (3, CLASS, lambda i: np.where(i == 0, "a", "b"), "3 patients, fewer than 50"),
    ],
    ids=["few", "constant", "one class", "few of a class", "one of a class", "three"],
)
def test_what_cannot_be_tested_says_why(tmp_path, patients, task, label, reason):
    collection = plant(tmp_path, patients)
    made = collection.evaluate({"table": collection.label("y", label(np.arange(patients))), **task}, **QUICK)
    assert made["not_tested"] == reason
    assert made["beats_metadata"] is None
    json.loads((tmp_path / collection.layout.evaluation("task", MODEL)).read_text())


def test_a_table_of_other_keys_stops_it(collection):
    table = collection.label("y", weighted(collection))
    with pytest.raises(UserError, match=r"config: evaluate.tasks.task: .* none of its 800 keys is that of a file"):
        collection.evaluate({"table": table, **NUMBER, "by": "patient", "key": "study_id"}, **QUICK)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"target": "z"}, "no column 'z'; it has: subject_id, study_id, y"),
        ({"where": "fps > 31"}, "no clip has a value of 'y' where it should"),
        ({"where": "fsp > 31"}, "config: evaluate.tasks.task.where: no column 'fsp'; did you mean 'fps'?"),
        ({"where": "fps >"}, "config: evaluate.tasks.task.where: 'fps >' is no expression"),
    ],
    ids=str,
)
def test_a_task_that_cannot_be_meant_is_one_line(collection, change, said):
    table = collection.label("y", weighted(collection))
    with pytest.raises(UserError) as raised:
        collection.evaluate({"table": table, **NUMBER, **change}, **QUICK)
    assert said in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_a_text_where_a_number_should_be_is_one_line(collection):
    y = [f"{value:.2f}" for value in weighted(collection)]
    y[7] = "about 60"
    with pytest.raises(UserError, match="'about 60' in 'y' is no number, and 0 others; correct the table"):
        collection.evaluate({"table": collection.label("y", y), **NUMBER}, **QUICK)


def test_clips_can_be_chosen_and_missing_labels_are_counted(collection):
    signal = weighted(collection)
    y = np.where(np.arange(800) % 8 == 0, np.nan, signal)
    made = collection.evaluate({"table": collection.label("y", y), **NUMBER, "where": "frames >= 40"}, **QUICK)
    assert 0 < made["counts"]["unlabelled"] < 300
    assert made["counts"]["units"] <= 700
    assert value(made, "ridge", "r2") > 0.8


def test_shuffled_labels_go_to_other_patients_whole():
    patients = np.array([0, 0, 1, 2, 2, 2])
    truth = np.array([10, 11, 20, 30, 31, 32])
    made = controls.shuffled(truth, patients, 1)
    assert sorted(made[patients == 2] // 10) in ([1, 1, 1], [2, 2, 2], [3, 3, 3])
    for patient in range(3):
        assert len(set(made[patients == patient] // 10)) == 1
