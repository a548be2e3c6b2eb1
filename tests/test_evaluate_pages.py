"""The pages of what vectors can predict say what the files say, of any number of tasks, models and classes."""

import base64
import hashlib
import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from echo_embeddings.core import manifest
from echo_embeddings.core.errors import UserError
from echo_embeddings.core.layout import Layout
from echo_embeddings.evaluate import comparison, intervals, metrics, outcome
from echo_embeddings.qc.tables import FolderFiles
from testing.outcomes import BOOTSTRAP, Task, pages, write
from testing.qc import Links

LVEF = Task("lvef")
VIEW = Task("view", 60, ("A2C", "A4C", "PLAX"))
LONG = "parasternal short axis at the level of the papillary muscles, with colour Doppler"


def text_of(page: str) -> str:
    """What is read on a page, its spaces as one."""
    text = re.sub(r"<[^>]+>", " ", re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.S))
    return " ".join(html.unescape(text).split())


def page_of(root: Path, task: str) -> str:
    return Layout(root).evaluation_page(task).read_text()


def minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def test_the_index_has_each_models_figure_its_interval_and_the_controls(tmp_path: Path) -> None:
    path = write(tmp_path, LVEF, "vitl")
    text = text_of(pages(tmp_path, ["lvef"], ["vitl"]))
    numbers = json.loads(path.read_text())
    for probe in (numbers["probes"]["ridge"], *numbers["controls"].values()):
        found = probe["figures"]["r2"]
        assert minus(f"{found['value']:z.3f} {found['low']:z.3f} to {found['high']:z.3f}") in text
    against = numbers["against_metadata"]["r2"]
    assert numbers["beats_metadata"] is True
    assert f"a difference of {against['value']:.3f} ({against['low']:.3f} to {against['high']:.3f})" in text
    assert "Beats the headers' metadata" in text
    assert f"{BOOTSTRAP} samples of the patients" in text
    assert "nothing is fitted again" in text
    assert "Models are not compared: fewer than two models are tested" in text
    beside = json.loads(Layout(tmp_path).evaluation_index().with_suffix(".json").read_text())
    assert beside["lvef"]["models"]["vitl"]["figures"] == numbers["probes"]["ridge"]["figures"]


def test_a_model_that_does_not_beat_metadata_is_said_so_at_the_top(tmp_path: Path) -> None:
    path = write(tmp_path, LVEF, "weak", skill=0.25)
    write(tmp_path, LVEF, "strong", skill=0.9)
    assert json.loads(path.read_text())["beats_metadata"] is False
    index = pages(tmp_path, ["lvef"], ["strong", "weak"])
    assert "Does not beat the headers' metadata: a difference of" in text_of(index)
    page = page_of(tmp_path, "lvef")
    top = text_of(page[: page.index("<section")])
    assert "weak. Does not beat the headers' metadata: R²" in top
    assert "strong." not in top
    assert index.count(">does not beat metadata<") == 2  # of tasks by models, and among the task's figures


def test_a_probe_that_cannot_be_told_from_a_control_is_said_so(tmp_path: Path) -> None:
    write(tmp_path, LVEF, "weak", skill=0.25)
    write(tmp_path, LVEF, "strong", skill=0.9)
    pages(tmp_path, ["lvef"], ["strong", "weak"])
    weak, strong = (outcome.read(Layout(tmp_path).evaluation("lvef", name)) for name in ("weak", "strong"))
    ridge, metadata = weak.probes[0].figures["r2"], weak.control("metadata")
    assert metadata is not None
    assert ridge.low < metadata.figures["r2"].value < ridge.high
    text = text_of(page_of(tmp_path, "lvef"))
    given = f"“metadata only” gives ({metadata.figures['r2'].value:.3f})"
    assert f"The interval of ridge, {ridge.low:.3f} to {ridge.high:.3f}, includes what the control {given}." in text
    write(tmp_path, LVEF, "worse", skill=0.02)
    pages(tmp_path, ["lvef"], ["worse"])
    worse = outcome.read(Layout(tmp_path).evaluation("lvef", "worse")).probes[0].figures["r2"]
    assert worse.high < metadata.figures["r2"].value
    below = minus(f"The interval of ridge, {worse.low:z.3f} to {worse.high:z.3f}, lies below what the control {given}.")
    assert below in text_of(page_of(tmp_path, "lvef"))
    best = strong.probes[0].figures["r2"]
    assert f"The interval of ridge, {best.low:.3f} to {best.high:.3f}, " not in text


def test_what_is_not_tested_is_shown_as_such_and_not_compared(tmp_path: Path) -> None:
    task = Task("few", 30)
    for model in ("vitl", "vith"):
        write(tmp_path, task, model, not_tested="30 patients, fewer than 50", beats_metadata=None)
    text = text_of(pages(tmp_path, ["few"], ["vitl", "vith"]))
    assert text.count("Not tested: 30 patients, fewer than 50.") == 2
    assert "eats the headers' metadata" not in text
    assert "Models are not compared: fewer than two models are tested" in text
    page = page_of(tmp_path, "few")
    assert "vitl. Not tested: 30 patients, fewer than 50." in text_of(page[: page.index("<section")])
    own = text_of(page)
    assert "The interval of" not in own


def test_differences_are_of_the_same_units_and_patients(tmp_path: Path) -> None:
    write(tmp_path, LVEF, "vitl", units=slice(0, 100))
    write(tmp_path, LVEF, "vith", skill=0.5, units=slice(20, None))
    outcomes = [outcome.read(Layout(tmp_path).evaluation("lvef", name)) for name in ("vitl", "vith")]
    found = comparison.compare(outcomes, 200, seed=3)
    tables = [pd.read_parquet(one.predictions).set_index("key") for one in outcomes]
    both = tables[0].join(tables[1]["prediction"].rename("other"), how="inner").sort_index()
    assert found.shared == found.units == len(both) == 80
    assert found.patients == both["subject_id"].nunique()
    truth, mine, other = (both[name].to_numpy() for name in ("truth", "prediction", "other"))

    def figures(weights: Any) -> dict[str, Any]:
        first, second = (metrics.regression(truth, predicted, weights) for predicted in (mine, other))
        return {name: first[name] - second[name] for name in first}

    patients = pd.factorize(both["subject_id"])[0].astype(np.int64)
    assert found.differences == {("vitl", "vith"): intervals.intervals(figures, patients, 200, 3)}
    text = text_of(pages(tmp_path, ["lvef"], ["vitl", "vith"], bootstrap=200, seed=3))
    r2 = found.differences["vitl", "vith"]["r2"]
    assert minus(f"vitl - vith {r2.value:.3f} {r2.low:.3f} to {r2.high:.3f}") in text
    assert f"on the 80 studies of {found.patients} patients" in text


def test_differences_of_classes_add_up_and_many_units_are_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for model, skill in (("a", 0.9), ("b", 0.6), ("c", 0.3)):
        write(tmp_path, VIEW, model, skill)
    outcomes = [outcome.read(Layout(tmp_path).evaluation("view", name)) for name in "abc"]
    apart = comparison.compare(outcomes, 50, 0).differences
    own = [one.probes[0].figures["auroc"].value for one in outcomes]
    assert apart["a", "b"]["auroc"].value == pytest.approx(own[0] - own[1])
    assert apart["a", "c"]["auroc"].value == pytest.approx(own[0] - own[2])
    monkeypatch.setattr(comparison, "SAMPLE", 50)
    sampled = comparison.compare(outcomes, 50, 0)
    assert (sampled.units, sampled.shared) == (50, len(pd.read_parquet(outcomes[0].predictions)))
    assert sampled == comparison.compare(outcomes, 50, 0)
    assert "(drawn at random from a fixed seed, of " in text_of(pages(tmp_path, ["view"], list("abc")))


def test_models_that_cannot_be_compared_are_told(tmp_path: Path) -> None:
    write(tmp_path, LVEF, "a", units=slice(0, 60))
    write(tmp_path, LVEF, "b", units=slice(60, None))
    assert "no unit is predicted by all models" in pages(tmp_path, ["lvef"], ["a", "b"])
    write(tmp_path, VIEW, "a")
    write(tmp_path, Task("view", 60, ("A2C", "A4C")), "b")
    assert "tested on different classes" in pages(tmp_path, ["view"], ["a", "b"])


def test_other_truths_of_one_unit_stop(tmp_path: Path) -> None:
    write(tmp_path, LVEF, "a")
    write(tmp_path, LVEF, "b")
    path = Layout(tmp_path).evaluation_predictions("lvef", "b")
    table = pd.read_parquet(path)
    table.loc[3, "truth"] += 1
    table.to_parquet(path)
    with pytest.raises(UserError, match=r"b\.predictions\.parquet: another truth of 1 unit than in .*a\.pred"):
        pages(tmp_path, ["lvef"], ["a", "b"])


@pytest.mark.parametrize("tasks", [[], ["lvef"]])
def test_no_task_and_no_model_give_a_page(tmp_path: Path, tasks: list[str]) -> None:
    assert "There is no task to show." in pages(tmp_path, tasks, [])
    for task in tasks:
        assert "There is no model to show." in page_of(tmp_path, task)


def _break(path: Path, how: str) -> None:
    numbers = json.loads(path.read_text())
    if how == "cut":
        path.write_text(path.read_text()[:200])
    elif how == "list":
        path.write_text("[1]")
    elif how == "gone":
        path.unlink()
    else:
        if how == "figure":
            del numbers["controls"]["metadata"]["figures"]["r2"]
        elif how == "kind":
            numbers["kind"] = "ranking"
        elif how == "number":
            numbers["probes"]["ridge"]["figures"]["r2"]["low"] = "low"
        elif how == "probes":
            numbers["probes"] = {}
        else:
            del numbers[how]
        path.write_text(json.dumps(numbers))


@pytest.mark.parametrize("how", ["cut", "list", "gone", "figure", "kind", "number", "probes", "counts", "strata"])
def test_a_broken_file_stops_with_its_name(tmp_path: Path, how: str) -> None:
    path = write(tmp_path, LVEF, "vitl")
    _break(path, how)
    with pytest.raises(UserError, match=r"vitl\.json: not the figures of an evaluation: .*run again$") as error:
        pages(tmp_path, ["lvef"], ["vitl"])
    assert "\n" not in str(error.value)
    assert not Layout(tmp_path).evaluation_index().exists()


@pytest.mark.parametrize("how", ["gone", "column", "twice", "class"])
def test_broken_predictions_stop_with_their_name(tmp_path: Path, how: str) -> None:
    for model in ("a", "b"):
        write(tmp_path, VIEW, model)
    path = Layout(tmp_path).evaluation_predictions("view", "b")
    table = pd.read_parquet(path)
    path.unlink()
    if how == "column":
        table.drop(columns="p_A2C").to_parquet(path)
    elif how == "twice":
        pd.concat([table, table]).to_parquet(path)
    elif how == "class":
        table.assign(truth="none").to_parquet(path)
    with pytest.raises(UserError, match=r"b\.predictions\.parquet: .*run again$") as error:
        pages(tmp_path, ["view"], ["a", "b"])
    assert "\n" not in str(error.value)


def test_many_tasks_models_and_classes_with_long_names(tmp_path: Path) -> None:
    models = [f"model-{i}" for i in range(5)]
    first = [write(tmp_path, Task("task-0", 20), model, scatter=None, calibration=[], shots=[]) for model in models]
    for i in range(1, 20):
        for path in first:
            copied = tmp_path / f"evaluate/task-{i}" / path.name
            copied.parent.mkdir(exist_ok=True)
            shutil.copy(path.with_suffix(".predictions.parquet"), copied.parent)
            copied.write_text(path.read_text().replace("task-0", f"task-{i}"))
    classes = Task("task-19", 60, tuple(f"{LONG} {i}" for i in range(25)))
    for model in models:
        write(tmp_path, classes, model)
    links = Links(pages(tmp_path, [f"task-{i}" for i in range(20)], models))
    assert set(links.addresses) == {"data:,"} | {f"task-{i}/index.html" for i in range(20)}
    assert len(links.ids) == len(set(links.ids)) == 21
    page = page_of(tmp_path, "task-19")
    assert all(text_of(page).count(f"{LONG} {i} ") >= len(models) for i in range(25))
    drawn = [base64.b64decode(found).decode() for found in re.findall(r"svg\+xml;base64,([^\"]+)", page)]
    assert len(drawn) == 3 * len(models)


def test_the_page_of_a_task_is_one_file_that_asks_for_no_other(tmp_path: Path) -> None:
    for task in (LVEF, VIEW):
        for model in ("vitl", "vith"):
            write(tmp_path, task, model)
    pages(tmp_path, ["lvef", "view"], ["vitl", "vith"], pictures=True)
    for task in ("lvef", "view"):
        page = page_of(tmp_path, task)
        links = Links(page)
        assert len(links.images) == 6
        assert all(image["alt"] and (image["src"] or "").startswith("data:image/") for image in links.images)
        beside = {"../index.html", "vitl.json", "vith.json"}
        inside = {f"#{name}" for name in links.ids}
        assert {address for address in links.addresses if not address.startswith("data:")} <= inside | beside
        assert len(links.ids) == len(set(links.ids)) == 4
        assert links.tags.count("script") == 1
        assert "url(" not in page


def test_all_that_a_file_holds_is_on_the_page_of_its_task(tmp_path: Path) -> None:
    said = "7 pairs of nearly equal clips lie on two sides of a split"
    path = write(tmp_path, VIEW, "vitl", told=[said])
    write(tmp_path, VIEW, "vith")
    pages(tmp_path, ["view"], ["vitl", "vith"])
    numbers, text = json.loads(path.read_text()), text_of(page_of(tmp_path, "view"))
    assert f"vitl. {said}." in text
    assert f"Split: {numbers['split']}." in text
    for probe in (*numbers["probes"].values(), *numbers["controls"].values()):
        assert probe["says"] in text
        assert all(minus(f"{found['value']:z.3f}") in text for found in probe["figures"].values())
    for stratum in numbers["strata"]:
        assert f"{stratum['value']} {stratum['units']} {stratum['figures']['balanced_accuracy']:.3f}" in text
    for shot in numbers["shots"]:
        assert f"{shot['patients']} {shot['figures']['auroc']['value']:.3f}" in text
    for unit in numbers["worst"]:
        assert f"{unit['key']} {unit['truth']} {unit['prediction']}" in text
    counts = np.array(numbers["confusion"])
    for i, name in enumerate(VIEW.classes):
        of = numbers["counts"]["of_class"][name]
        assert f"{name} {of['units']} {of['patients']} {100 * counts[i, i] / counts[i].sum():.1f} %" in text


def test_figures_that_are_not_defined_are_dashes(tmp_path: Path) -> None:
    path = write(tmp_path, LVEF, "vitl")
    numbers = json.loads(path.read_text())
    nothing = {"value": None, "low": None, "high": None}
    numbers["controls"]["mean"]["figures"]["pearson"] = nothing
    numbers["probes"]["ridge"]["figures"]["r2"] = nothing
    numbers["against_metadata"]["r2"] = nothing
    path.write_text(json.dumps(numbers | {"calibration": [], "strata": [], "worst": [], "shots": []}))
    text = text_of(pages(tmp_path, ["lvef"], ["vitl"]) + page_of(tmp_path, "lvef"))
    assert "nan" not in text.split()
    assert "\N{EN DASH} (\N{EN DASH})" in text


def test_names_are_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    task = Task("view", 60, (f"{evil} a", "b$\\frac$ & c"))
    write(tmp_path, task, "vitl", told=[evil], split=evil, target=evil, not_tested=evil)
    both = pages(tmp_path, ["view"], ["vitl"]), page_of(tmp_path, "view")
    assert [page.count("<script") for page in both] == [1, 1]


def test_hashed_names_hide_every_unit_and_clip(tmp_path: Path) -> None:
    for task in (LVEF, VIEW):
        write(tmp_path, task, "vitl")
    index = pages(tmp_path, ["lvef", "view"], ["vitl"], pictures=True, hash_names=True, folders={"vitl": {}})
    beside = Layout(tmp_path).evaluation_index().with_suffix(".json").read_text()
    both = [page_of(tmp_path, task) for task in ("lvef", "view")]
    drawn = [base64.b64decode(found).decode() for page in both for found in re.findall(r"xml;base64,([^\"]+)", page)]
    numbers = [json.loads(Layout(tmp_path).evaluation(task, "vitl").read_text()) for task in ("lvef", "view")]
    shown = "".join([index, beside, *both, *drawn])
    for unit in (unit for one in numbers for unit in one["worst"]):
        assert f"#{hashlib.sha256(unit['key'].encode()).hexdigest()[:10]}" in shown
        names = {*unit["key"].split("/")[1:], *(part for _, mp4 in unit["clips"] for part in mp4.split("/"))}
        assert not [name for name in names if name in shown]
    (_, mp4), *_ = numbers[0]["worst"][0]["clips"]
    assert f"#{hashlib.sha256(mp4.encode()).hexdigest()[:10]}" in both[0]  # as the quality page names this clip


def test_the_clips_with_the_largest_errors_are_shown_where_pictures_are_allowed(
    tmp_path: Path, write_video: Any
) -> None:
    path = write(tmp_path, LVEF, "vitl")
    worst = json.loads(path.read_text())["worst"]
    clips = [mp4 for unit in worst for _, mp4 in unit["clips"]][:-6]  # of the last there is none
    rows = [manifest.Row(mp4.replace(".mp4", ".dcm"), mp4, manifest.CONVERTED, "", 16, kind="bmode") for mp4 in clips]
    manifest.write(tmp_path / "p10.manifest.tsv", rows)
    for i, mp4 in enumerate(clips):
        write_video(f"p10/{mp4}", frames=16, seed=i)
    files = FolderFiles(*(tmp_path / name for name in ("p10.manifest.tsv", "p10", "p10.json", "p10.failed.tsv")))
    pages(tmp_path, ["lvef"], ["vitl"], {"vitl": {"p10": files}}, pictures=True)
    page = page_of(tmp_path, "lvef")
    assert page.count("data:image/jpeg;base64,") == 4 * (len(worst) - 1)
    assert page.count("no picture: in no manifest") == 4
    assert page.count("p10, bmode, 16 frames") == 4 * (len(worst) - 1)
    files.manifest.unlink()  # which is not read for no pictures
    pages(tmp_path, ["lvef"], ["vitl"], {"vitl": {"p10": files}}, pictures=False)
    page = page_of(tmp_path, "lvef")
    assert "data:image/jpeg" not in page
    assert "Pictures are left out" in page
    assert clips[0].split("/")[1] in page  # the studies are named all the same


def test_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path, LVEF, "a")
    write(tmp_path, LVEF, "b")
    first = pages(tmp_path, ["lvef"], ["a", "b"]), page_of(tmp_path, "lvef")
    assert first == (pages(tmp_path, ["lvef"], ["a", "b"]), page_of(tmp_path, "lvef"))
