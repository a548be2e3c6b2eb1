"""`snakemake evaluate` on the demo: what is made, and what is made again."""

import pandas as pd
import pytest
import yaml

from testing.commands import pending, run_demo, run_snakemake

TASK = "lvef-drawn-at-random"


def test_the_demo_says_that_nothing_was_tested(finished):
    top = finished / "results/evaluate"
    for page in (top / "index.html", top / TASK / "index.html"):
        assert "Not tested: 3 patients, fewer than 50" in page.read_text()
    table = pd.read_parquet(top / TASK / "vit-tiny.predictions.parquet")
    assert len(table) == 5
    labels = pd.read_csv(finished / "labels.csv")
    assert dict(zip(table["key"].astype(int), table["truth"], strict=True)) == dict(
        zip(labels["study_id"], labels["lvef"], strict=True)
    )


def test_only_what_changed_is_evaluated_again(work):
    assert pending(work, "evaluate") == set()
    job, pages = f"evaluate_task {TASK} vit-tiny", {"evaluate_index", "evaluate"}
    another = {"table": "labels.csv", "by": "study", "target": "lvef", "kind": "classification"}
    added = yaml.safe_dump({"evaluate": {"tasks": {"another": another}}})
    assert pending(work, "evaluate", change=added) == {"evaluate_task another vit-tiny", *pages}
    assert pending(work, "evaluate", change="evaluate: {bootstrap: 200}") == {job, *pages}
    labels = work / "labels.csv"
    labels.write_text(labels.read_text().replace(",lvef", ",lvef") + "10000009,99999999,50\n")
    assert pending(work, "evaluate") == {job, *pages}
    assert pending(work) == set()  # a plain run asks for none of it


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"table": "absent.csv"}, "config: evaluate.tasks.wrong: no file 'absent.csv' in "),
        (
            {"target": "lvfe"},
            "config: evaluate.tasks.wrong: labels.csv: no column 'lvfe'; it has: subject_id, study_id, ",
        ),
        ({"kind": "regresion"}, "config: evaluate.tasks.wrong.kind: 'regresion' is not one of"),
        ({"where": "frames >"}, "config: evaluate.tasks.wrong.where: 'frames >' is no expression"),
        (None, "config: evaluate.tasks: name what is to be predicted, and the table that has it (docs/evaluate.md)"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line(work, task, said):
    if task is None:
        kept = yaml.safe_load((work.parent / "config/demo.yaml").read_text())
        del kept["evaluate"]
        (work / "own.yaml").write_text(yaml.safe_dump(kept))
        done = run_snakemake(work, "--configfile", str(work / "own.yaml"), "-n", "evaluate")
    else:
        wrong = {"table": "labels.csv", "by": "study", "target": "lvef", "kind": "regression"} | task
        done = run_demo(work, "-n", "evaluate", change=yaml.safe_dump({"evaluate": {"tasks": {"wrong": wrong}}}))
    assert done.returncode != 0
    assert sum(said in line for line in done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stdout


def test_label_tables_are_made_on_the_way(work):
    for name in ("structured-measurement.csv", "echo-study-list.csv"):
        (work / name).write_text("subject_id,study_id,measurement_id\n")
    task = {"table": "results/labels/lvef.csv", "by": "study", "target": "value", "kind": "regression"}
    change = {
        "labels": {"measurements": "structured-measurement.csv"},
        **{"study_list": "echo-study-list.csv", "evaluate": {"tasks": {"lvef": task}}},
    }
    found = pending(work, "evaluate", change=yaml.safe_dump(change))
    assert {"make_labels", "evaluate_task lvef vit-tiny"} <= found
