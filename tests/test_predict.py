"""Heads on vectors: `echo-embeddings predict`, and what its tables choose."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from echo_embeddings.core import configuration, settings
from echo_embeddings.core.errors import UserError
from echo_embeddings.core.settings import Table, Tables
from echo_embeddings.core.vectors import read_vectors, write_vectors
from echo_embeddings.tables import export, join, selection, study
from testing import REPOSITORY
from testing.commands import call_command, pending, run_command, run_demo, run_snakemake
from testing.evaluation import MODEL, Collection, plant

NUMBER = {"by": "study", "target": "y", "kind": "regression"}
CLASS = {"by": "study", "target": "y", "kind": "classification"}
QUICK = {"bootstrap": 200}
UNLABELLED = 60  # studies of the last 30 patients


def mark(collection, fingerprint):
    """Say beside the merged file how its vectors were made."""
    beside = (collection.top / collection.layout.merged(MODEL)).with_suffix(".json")
    beside.write_text(json.dumps({"short_fingerprint": fingerprint}))


def merged(collection):
    """Keys and vectors."""
    keys, matrix = read_vectors(collection.top / collection.layout.merged(MODEL))
    return keys, matrix.numpy()


def head_of(collection):
    return collection.top / collection.layout.evaluation_head("task", MODEL)


def predictions_of(collection, name="task-vitl.csv"):
    return collection.top / collection.layout.predictions() / name


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """150 patients with two studies of three clips each, in two folders; their vectors have a fingerprint."""
    made = plant(tmp_path_factory.mktemp("planted"), 150, 2, folders=("p10", "p11"))
    mark(made, "0123456789abcdef")
    return made


def labels(collection):
    """A value of each study but those of the last patients, of which the most is in the vectors."""
    generator = np.random.default_rng(1)
    y = collection.says @ generator.normal(size=collection.says.shape[1]) + generator.normal(size=300)
    y[-UNLABELLED:] = np.nan
    return y


@pytest.fixture(scope="module")
def fitted(collection):
    """The head of a regression, and beside it what its evaluation predicted of each labelled study."""
    collection.evaluate({"table": collection.label("y", labels(collection)), **NUMBER}, **QUICK)
    return pd.read_parquet(collection.top / collection.layout.evaluation_predictions("task", MODEL))


def of_studies(table, *columns):
    """The mean over the clips of each study."""
    return table.groupby(table["path"].str.extract(r"/s(\d+)/")[0])[list(columns)].mean()


def test_predictions_are_those_of_the_evaluation_and_others_are_of_the_last_head(collection, fitted):
    done = run_command("predict", "--head", head_of(collection), "--directory", collection.top)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "results/predictions/task-vitl.csv: 900 clips; 720 of patients that it was fitted to, by heads that never saw "
        "them; 180 of others, by the last head\n"
    )
    table = pd.read_csv(predictions_of(collection))
    assert list(table) == ["path", "y"]
    keys, matrix = merged(collection)
    assert [path.split("/", 1)[1] for path in table["path"]] == [key.replace(".dcm", "") for key in keys]
    found = of_studies(table, "y")["y"]
    expected = fitted.set_index("key")["prediction"]
    assert len(expected) == 240
    assert np.abs(found.loc[expected.index] - expected).max() < 1e-6
    head = load_file(head_of(collection))
    rest = ~table["path"].str.extract(r"/s(\d+)/")[0].isin(expected.index).to_numpy()
    by_hand = ((matrix[rest].astype(float) - head["mean"]) / head["scale"]) @ head["weights"][:, 0] + head["bias"][0]
    assert rest.sum() == 180
    assert np.abs(table["y"][rest] - by_hand).max() < 1e-6
    before = predictions_of(collection).read_bytes()
    assert call_command("predict", "--head", head_of(collection), "--directory", collection.top).returncode == 0
    assert predictions_of(collection).read_bytes() == before


def test_probabilities_of_classes_as_parquet(collection, fitted, tmp_path):
    kept = tmp_path / "kept.safetensors"
    shutil.copy(head_of(collection), kept)
    y = np.where(np.isnan(labels(collection)), None, np.where(labels(collection) > 0, "high", "low"))
    collection.evaluate({"table": collection.label("y", y), **CLASS}, **QUICK)
    out = tmp_path / "made.parquet"
    done = call_command("predict", "--head", head_of(collection), "--directory", collection.top, "--out", out)
    assert done.returncode == 0, done.stderr
    expected = pd.read_parquet(collection.top / collection.layout.evaluation_predictions("task", MODEL))
    table = pd.read_parquet(out)
    assert list(table) == ["path", "y", "y_confidence"]
    assert table["y_confidence"].between(0.5, 1).all()
    table["high"] = np.where(table["y"] == "high", table["y_confidence"], 1 - table["y_confidence"])
    expected = expected.set_index("key")["p_high"]
    assert np.abs(of_studies(table, "high")["high"].loc[expected.index] - expected).max() < 1e-6
    shutil.copy(kept, head_of(collection))


def test_whom_every_head_saw_has_no_prediction(tmp_path):
    """Train and val of a given split; and clips of nobody that is known."""
    planted = plant(tmp_path, 100)
    part = np.array(["train", "val", "test", "train"])[np.arange(100) % 4]
    y = planted.says[:, 0].copy()
    y[-8:] = np.nan
    planted.evaluate({"table": planted.label("y", y, part=part), **NUMBER, "split": "part"}, **QUICK)
    clips = tmp_path / planted.layout.evaluated_clips(MODEL)
    table = pd.read_parquet(clips)
    last = table["_merged_key"].str.contains("/s50000099/")
    table.assign(subject_id=table["subject_id"].where(~last)).to_parquet(clips, index=False)
    done = call_command("predict", "--head", head_of(planted), "--directory", tmp_path)
    said = done.stdout.removeprefix("results/predictions/task-vitl.csv: ").rstrip().split("; ")
    assert said == [
        "300 clips",
        "69 of patients that it was fitted to, by heads that never saw them",
        "21 of others, by the last head",
        "207 without a prediction: every head was fitted to their patients, as the task's split has it",
        "3 without a prediction: their patient is not known",
        "the evaluation says of this head: not tested, 23 patients to test, fewer than 50",
    ]
    made = pd.read_csv(predictions_of(planted))
    number = made["path"].str.extract(r"/s500000(\d\d)/")[0].astype(int).to_numpy()
    assert np.array_equal(made["y"].notna(), ((part[number] == "test") | (number >= 92)) & (number < 99))


@pytest.mark.parametrize(
    ("units", "folder", "path", "written"),
    [
        ("folders", "p10", "p1/s{}/1.2.dcm", "p10/p1/s{}/1.2.mp4"),
        ("folders", "a%25", "s{} 50%25.dcm", "a%25/s{} 50%25.mp4"),
        ("folders", "Videos", "0X{}.avi", "Videos/0X{}.mp4"),
        ("folders", "Videos", "0X{} 50%25.avi", "Videos/0X{} 50%25.mp4"),
        (2, "u001", "p10/p1/s{}.dcm", "p10/p1/s{}.mp4"),
        (2, "u001", "s{}.dcm", "s{}.mp4"),
    ],
)
def test_its_table_joins_by_path_whatever_clips_are_called(
    collection, fitted, tmp_path, monkeypatch, units, folder, path, written
):
    keys, matrix = merged(collection)
    frame = pd.read_parquet(collection.top / collection.layout.evaluated_clips(MODEL))
    paths = [path.format(f"{i:03d}") for i in range(len(keys))]
    files = [name.replace(".dcm", ".mp4") for name in paths]
    frame = frame.assign(folder=folder, path=paths, file_path=files, _merged_key=files)
    monkeypatch.chdir(tmp_path)
    clips = collection.layout.evaluated_clips(MODEL)
    clips.parent.mkdir(parents=True)
    frame.to_parquet(clips)
    write_vectors(collection.layout.merged(MODEL), files, torch.from_numpy(matrix.copy()))
    mark(Collection(tmp_path, collection.layout, (), collection.studies, collection.says, files), "0123456789abcdef")
    Path("my.yaml").write_text(yaml.safe_dump({"units": units}))
    done = call_command("predict", "--head", head_of(collection), "--configfile", "my.yaml", "--out", "made.csv")
    assert done.returncode == 0, done.stderr
    made = pd.read_csv("made.csv")
    assert made["path"].tolist() == [written.format(f"{i:03d}") for i in range(len(keys))]
    assert made["y"].nunique() == len(keys)
    table = Table("made.csv", "path", "path", name="tables.0")
    shuffled = frame.sample(frac=1, random_state=0)
    found, joined = join.look_up(table, shuffled, Tables(divided=units == 2))
    assert joined.found.all()
    assert np.allclose(found["y"].sort_index().to_numpy(float), made["y"])


# --- what is refused --------------------------------------------------------------------------------


def refused(collection, *arguments):
    """The one line by which the command refuses."""
    done = call_command("predict", "--directory", collection.top, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert not (collection.top / "none.csv").exists()
    return done.stderr.removeprefix("echo-embeddings: ")


@pytest.mark.parametrize(
    ("ours", "said"),
    [
        ("f" * 16, "of the fingerprint 0123456789abcdef, and {} holds vectors of the fingerprint ffffffffffffffff: "),
        (None, "of the fingerprint 0123456789abcdef, and {} holds vectors without a fingerprint: "),
    ],
    ids=["another", "none"],
)
def test_vectors_that_were_made_differently_are_refused(collection, fitted, ours, said):
    mark(collection, ours)
    try:
        line = refused(collection, "--head", head_of(collection), "--out", collection.top / "none.csv")
    finally:
        mark(collection, "0123456789abcdef")
    assert line == (
        f"{head_of(collection)}: fitted to vectors {said.format(collection.layout.merged(MODEL))}another model, recipe "
        "or checkpoint; `snakemake evaluate` fits a head to these\n"
    )


def test_a_head_without_a_fingerprint_goes_with_vectors_without_one(tmp_path):
    planted = plant(tmp_path, 60)
    planted.evaluate({"table": planted.label("y", planted.says[:, 0]), **NUMBER}, **QUICK)
    assert call_command("predict", "--head", head_of(planted), "--directory", tmp_path).returncode == 0
    mark(planted, "f" * 16)
    assert "fitted to vectors without a fingerprint, and" in refused(planted, "--head", head_of(planted))


def changed(collection, tmp_path, about=None, drop=(), **tensors):
    """A copy of the head of which something is another."""
    with safe_open(head_of(collection), "np") as file:
        known = file.metadata()
    content = {name: value for name, value in (load_file(head_of(collection)) | tensors).items() if name not in drop}
    save_file(content, tmp_path / "changed.safetensors", known | (about or {}))
    return tmp_path / "changed.safetensors"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"about": {"model": "vith"}}, "results/embeddings/vith_embeddings_all.pt: no such embedding file"),
        ({"about": {"model": "../vitl"}}, "'task' or '../vitl' cannot be part of a file's name"),
        ({"about": {"target": "path"}}, "its target is called 'path', as the column that names the clips"),
        ({"about": {"kind": "classification"}}, "no head of an evaluation: "),
        ({"drop": ("weights",)}, "no head of an evaluation: 'weights'"),
        ({"weights": np.zeros((7, 1))}, "the shapes of its tensors do not go together"),
        ({"groups": np.zeros(3, np.int64)}, "its patients and their groups do not go together"),
    ],
    ids=["model", "name", "target", "kind", "part", "shape", "patients"],
)
def test_a_head_that_says_what_cannot_be_is_one_line(collection, fitted, tmp_path, change, said):
    assert said in refused(collection, "--head", changed(collection, tmp_path, **change))


def test_what_is_no_head_or_damaged_is_one_line(collection, fitted, tmp_path):
    assert "no head of an evaluation: no such file;" in refused(collection, "--head", tmp_path / "none.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(head_of(collection).read_bytes()[:-100])
    assert "no head of an evaluation: " in refused(collection, "--head", broken)
    save_file({"a": np.zeros(3)}, broken)
    assert "no head of an evaluation: it does not say its task;" in refused(collection, "--head", broken)
    done = call_command("predict", "--head", broken, "--out", "view.txt")
    assert done.returncode == 2
    assert "'view.txt' ends with neither .csv nor .parquet" in done.stderr


def test_other_dimensions_are_refused(collection, fitted, tmp_path):
    whole = load_file(head_of(collection))
    half = {name: value[:12] for name, value in whole.items() if name.endswith(("mean", "scale", "weights"))}
    head = changed(collection, tmp_path, **half)
    assert "fitted to vectors of 12 values, and those of results/emb" in refused(collection, "--head", head)


def test_without_what_says_whose_the_clips_are_it_says_what_to_run(collection, fitted):
    clips = collection.top / collection.layout.evaluated_clips(MODEL)
    table, content = pd.read_parquet(clips), clips.read_bytes()
    fix = "; `snakemake evaluate` makes it, or `snakemake results/evaluate/vitl.clips.parquet` alone\n"
    found = []
    for spoil in (clips.unlink, lambda: clips.write_bytes(content[:500]), lambda: table.iloc[1:].to_parquet(clips)):
        spoil()
        try:
            found.append(refused(collection, "--head", head_of(collection)))
        finally:
            clips.write_bytes(content)
    assert all(line.startswith("results/evaluate/vitl.clips.parquet: ") and line.endswith(fix) for line in found)
    assert "its clips are not those of results/embeddings/vitl_embeddings_all.pt" in found[2]


# --- what its tables choose -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def viewed(tmp_path_factory):
    """A collection of which a third of the clips, of the view PSAX, say nothing of their study; and a head's table.

    Views are labelled of two thirds of the patients. Returns collection and the view of each key.
    """
    made = plant(tmp_path_factory.mktemp("viewed"), 240)
    keys, matrix = merged(made)
    generator = np.random.default_rng(5)
    views = np.where(np.array([key[-9] for key in keys]) == "2", "PSAX", "A4C")
    rows = matrix.copy()
    silent = np.flatnonzero(views == "PSAX")
    rows[silent] = rows[generator.permutation(silent)]
    rows += np.where(views == "PSAX", 1.0, -1.0)[:, None] * generator.normal(size=rows.shape[1])
    for path in (made.layout.merged(MODEL), made.layout.vectors(MODEL, "p10")):
        write_vectors(made.top / path, keys, torch.from_numpy(rows.astype(np.float32)))
    labelled = pd.DataFrame({"path": [key.removesuffix(".mp4") for key in keys], "view": views})[: len(keys) * 2 // 3]
    labelled.to_csv(made.top / "views.csv", index=False)
    task = {"table": "views.csv", "by": "path", "key": "path", "target": "view", "kind": "classification"}
    made.evaluate(task, **QUICK)
    done = call_command("predict", "--head", head_of(made), "--directory", made.top)
    assert done.returncode == 0, done.stderr
    return made, pd.Series(views, keys)


COLUMNS = ["view", "view_confidence"]
TABLE = {"file": "results/predictions/task-vitl.csv", "by": "path", "key": "path"}


def test_a_task_uses_the_clips_that_a_head_chose(viewed):
    collection, views = viewed
    table = pd.read_csv(predictions_of(collection))
    assert (table["view"] == views.to_numpy()).mean() > 0.99
    signal = collection.says[:, 0]
    y = signal + 0.3 * np.random.default_rng(2).normal(size=len(signal))
    task = {"table": collection.label("y", y), **NUMBER}
    where = "view == 'A4C' and view_confidence > 0.6"
    chosen = collection.evaluate(task | {"where": where}, tables=[TABLE], **QUICK)
    every = collection.evaluate(task, tables=[TABLE], **QUICK)
    wanted = (table["view"] == "A4C") & (table["view_confidence"] > 0.6)
    assert chosen["counts"]["clips"] == wanted.sum()
    assert every["counts"]["clips"] == len(views)
    r2 = [made["probes"]["ridge"]["figures"]["r2"].value for made in (chosen, every)]
    assert r2[0] > r2[1] + 0.01


def test_exports_have_its_columns(viewed, monkeypatch):
    collection, _ = viewed
    monkeypatch.chdir(collection.top)
    known = settings.tables(configuration.defaults() | {"tables": [TABLE]})
    parts = export.parts(collection.layout, MODEL, "256", ["p10"])
    export.write_shards(
        parts, [Path("train-00000-of-00001.parquet")], known, ["default", *COLUMNS], 24, export.Merging()
    )
    made = pd.read_parquet("train-00000-of-00001.parquet")
    table = pd.read_csv(TABLE["file"])
    made.index = "p10/" + made["path"].str.replace(".dcm", ".mp4")
    expected = table.set_index("path")[COLUMNS]
    pd.testing.assert_frame_equal(made.loc[expected.index, COLUMNS], expected, check_dtype=False, check_names=False)


def test_a_study_vector_is_of_the_clips_that_a_head_chose(viewed, monkeypatch, capsys):
    collection, _ = viewed
    monkeypatch.chdir(collection.top)
    known = settings.tables(configuration.defaults() | {"tables": [TABLE]})
    parts = export.parts(collection.layout, MODEL, "256", ["p10"])
    where = "view == 'A4C' and study_id != 50000003"
    study.write(parts, Path("chosen.parquet"), known, ["default"], 24, where=where, everything=True)
    made = pd.read_parquet("chosen.parquet").set_index("study_id")
    keys, matrix = merged(collection)
    of = pd.Series(keys).str.extract(r"/s(\d+)/")[0].astype(int).to_numpy()
    table = pd.read_csv(TABLE["file"])
    mask = ((table["view"] == "A4C") & (of != 50000003)).to_numpy()
    assert f"{(~mask).sum():,} clips are left out by study.where" in capsys.readouterr().out
    for number, row in made.iterrows():
        mine = matrix[(of == number) & mask].astype(float)
        assert row["n_clips"] == len(mine)
        if len(mine):
            assert np.abs(row["embedding"] - mine.mean(axis=0)).max() < 1e-6
    assert made["embedding"].isna().sum() == (made["n_clips"] == 0).sum() >= 1
    with pytest.raises(UserError, match=r"config: study\.where: no column 'viwe'; did you mean 'view'"):
        study.write(parts, Path("x.parquet"), known, ["default"], 24, where="viwe == 'A4C'", everything=True)


def test_the_rule_of_study_vectors_asks_it_and_select_cannot(viewed, tmp_path):
    collection, _ = viewed
    before = {"dicom_dir": str(tmp_path), "tables": [TABLE]}

    def said(**change):
        (tmp_path / "my.yaml").write_text(yaml.safe_dump(before | change))
        return run_snakemake(collection.top, "--configfile", str(tmp_path / "my.yaml"), "--list-rules")

    circle = said(select="view == 'A4C'")
    assert circle.returncode == 1
    assert (
        "config: select: 'view' of results/predictions/task-vitl.csv is predicted from vectors, and select decides "
        "which clips get one; use it in study.where, in the where of a task, or in export.columns"
    ) in circle.stdout
    wrong = said(study={"where": "viwe == 'A4C'"})
    assert "config: study.where: no column 'viwe'; did you mean 'view'?" in wrong.stdout
    good = said(study={"where": "view == 'A4C'"}, select="frames >= 30")
    assert good.returncode == 0, good.stdout


def test_what_is_predicted_decides_nothing_of_what_is_embedded(viewed, monkeypatch):
    """Nor need it be there while vectors are made; by its absolute path it is the same file."""
    collection, _ = viewed
    monkeypatch.chdir(collection.top)
    table = Table(str(Path(TABLE["file"]).absolute()), "path", "path", name="tables.0")
    known = Tables(others=(table,), select="frames >= 30")
    assert selection.used(known).others == ()
    gone = Table("results/predictions/gone.csv", "path", "path", ("view",), name="tables.0")
    assert selection.used(Tables(others=(gone,), select="frames >= 30"), identities=True).others == ()
    for one in (table, gone):
        with pytest.raises(UserError, match=r"config: select: 'view' of .* is predicted from vectors"):
            selection.used(Tables(others=(one,), select="view == 'A4C'"))
    label = Table("results/labels/lvef.csv", "study", "study_id", name="tables.0")
    assert selection.used(Tables(others=(label,), select="lvef > 30")).others == (label,)


def test_a_run_averages_the_clips_that_a_head_chose_and_embeds_nothing(work):
    head = work / "results/evaluate/lvef-drawn-at-random/vit-tiny.head.safetensors"
    done = call_command("predict", "--head", head, "--directory", work, "--configfile", REPOSITORY / "config/demo.yaml")
    assert done.returncode == 0, done.stderr
    assert "8 clips; 8 of patients that it was fitted to" in done.stdout
    assert "the evaluation says of this head: not tested, " in done.stdout
    table = pd.read_csv(work / "results/predictions/lvef-drawn-at-random-vit-tiny.csv")
    target = table.columns[1]
    least = float(table[target].min() + table[target].max()) / 2
    change = f"""
tables: [{{file: results/predictions/lvef-drawn-at-random-vit-tiny.csv, by: path, key: path}}]
study: {{where: "{target} > {least!r}"}}
"""
    assert pending(work, change=change) == {"qc_model vit-tiny", "qc_index", "all"}  # the page shows it
    made = run_demo(work, "--", "results/study/vit-tiny.parquet", change=change)
    assert made.returncode == 0, made.stdout
    assert set(re.findall(r"^(?:local)?rule (\w+):", made.stdout, re.MULTILINE)) == {"export_study"}
    vectors = torch.load(work / "results/embeddings/vit-tiny_embeddings_all.pt")
    of_key = dict(zip(table["path"].str.split("/", n=1).str[1], table[target], strict=True))
    assert of_key.keys() == vectors.keys()
    studies = pd.read_parquet(work / "results/study/vit-tiny.parquet")
    assert 0 < studies["n_clips"].sum() == (table[target] > least).sum() < 8
    for row in studies[studies["n_clips"] > 0].itertuples():
        mine = [vectors[key].double() for key in vectors if f"/s{row.study_id}/" in key and of_key[key] > least]
        assert np.abs(torch.stack(mine).mean(0).numpy() - row.embedding).max() < 1e-6
