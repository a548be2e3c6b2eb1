"""What the quality page says of files, folders, records and weights: counts add up, and what differs is named."""

from pathlib import Path
from typing import Any

import pytest

from echo_embeddings.core import manifest
from echo_embeddings.core.settings import Table, Tables
from echo_embeddings.qc.index import make_index
from echo_embeddings.qc.provenance import Training
from echo_embeddings.tables import inventory
from testing.qc import FACTS, Collection, check, levels


def test_files_are_counted_by_folder_and_reason(collection: Collection) -> None:
    lost = collection.embedded.pop()
    collection.matrix = collection.matrix[:-1]
    collection.failed["p11"] = {lost: "no frame can be decoded"}
    collection.runs["p11"]["counts"]["failed"] = 1
    collection.others = [
        manifest.Row("a.txt", "", manifest.SKIPPED, "not DICOM"),
        manifest.Row("b.txt", "", manifest.SKIPPED, "not DICOM"),
        manifest.Row("c.dcm", "", manifest.FAILED, "empty file"),
    ]
    numbers, html = collection.page(pictures=False)
    p10, p11, total = numbers["accounting"]["folders"]
    assert p10 == {
        **{"folder": "p10", "seen": 13, "clips": 11, "converted": 10, "skipped": 2, "failed": 1},
        **{"left_out": 0, "embedded": 10, "not_embedded": 0, "missing": 0},
    }
    assert (p11["embedded"], p11["not_embedded"], p11["missing"]) == (9, 1, 0)
    assert (total["seen"], total["converted"], total["embedded"], total["not_embedded"]) == (26, 20, 19, 1)
    assert [(r["outcome"], r["reason"], r["files"], r["by_folder"]) for r in numbers["accounting"]["reasons"]] == [
        ("failed", "empty file", 2, {"p10": 1, "p11": 1}),
        ("not embedded", "no frame can be decoded", 1, {"p11": 1}),
        ("skipped", "not DICOM", 4, {"p10": 2, "p11": 2}),
    ]
    assert (levels(numbers)["Accounting"], levels(numbers)["Failures"]) == ("good", "check")
    assert "no frame can be decoded" in html


def lose_one(c: Collection) -> None:
    c.embedded.pop()
    c.matrix = c.matrix[:-1]


def add_a_stranger(c: Collection) -> None:
    c.embedded[0] = "p99/unheard_of.mp4"


def fail_an_embedded_one(c: Collection) -> None:
    c.failed["p10"] = {c.embedded[0]: "out of memory"}


def fail_an_unknown_one(c: Collection) -> None:
    c.failed["p10"] = {"p99/unheard_of.mp4": "out of memory"}


def miscount_in_the_record(c: Collection) -> None:
    c.runs["p10"]["counts"]["converted"] = 11


@pytest.mark.parametrize(
    "spoil", [lose_one, add_a_stranger, fail_an_embedded_one, fail_an_unknown_one, miscount_in_the_record]
)
def test_counts_that_do_not_add_up_are_a_fault(collection: Collection, spoil: Any) -> None:
    spoil(collection)
    report = collection.report()
    assert check(report, "Accounting").level == report.status == "fault"
    assert report.accounting.problems


def test_lost_and_strange_clips_are_named(collection: Collection) -> None:
    lost = collection.embedded[0]
    add_a_stranger(collection)
    numbers, html = collection.page(pictures=False)
    text = " ".join(numbers["accounting"]["problems"])
    assert lost in text
    assert "p99/unheard_of.mp4" in text
    assert "p99/unheard_of.mp4" in html
    assert numbers["accounting"]["folders"][-1]["embedded"] == 20
    assert numbers["accounting"]["folders"][0]["missing"] == 1


@pytest.mark.parametrize("field", ["checkpoint_sha256", "precision", "num_frames", "entry"])
def test_folders_made_differently_are_a_fault(collection: Collection, field: str) -> None:
    collection.runs["p11"][field] = "another"
    found = check(collection.report(), "Provenance")
    assert found.level == "fault"
    assert field in found.sentence


@pytest.mark.parametrize(("field", "value"), [("model", "vith"), ("embed_dim", 1024)])
def test_record_of_other_vectors_is_a_fault(collection: Collection, field: str, value: object) -> None:
    for run in collection.runs.values():
        run[field] = value
    assert check(collection.report(), "Provenance").level == "fault"


def test_absent_record_is_said(collection: Collection) -> None:
    del collection.runs["p11"]
    numbers, html = collection.page(pictures=False)
    assert levels(numbers)["Provenance"] == "check"
    assert "There is no run record of: p11." in html
    collection.runs.clear()
    (collection.root / "p10.json").unlink()
    assert collection.report().provenance.missing == ["p10", "p11"]


def test_note_on_the_weights_is_a_banner_on_page_and_index(collection: Collection) -> None:
    note = "drawn at random from seed 0: the vectors mean nothing"
    collection.runs["p11"]["weights"] = note
    numbers, html = collection.page(pictures=False)
    body = html.split("</style>")[1]
    assert body.index('class="banner fault"') < body.index(note) < body.index('id="summary"')
    assert levels(numbers)["Weights"] == "check"
    index = collection.root / "qc/index.html"
    make_index({"vitl": index.with_name("vitl.html")}, {"vitl": collection.root / "all.pt"}, index, {"vitl": FACTS})
    assert note in index.read_text()


def test_training_on_the_collection_at_hand_is_a_warning(collection: Collection) -> None:
    numbers, html = collection.page(
        training=Training(["VideoMix22M", "MIMIC-IV-Echo"], "mimic iv echo"), pictures=False
    )
    assert levels(numbers)["Pretraining"] == "check"
    assert "Pretrained on the collection at hand." in html
    numbers = collection.numbers(training=Training(["VideoMix22M"], "MIMIC-IV-Echo"))
    assert "Pretraining" not in levels(numbers)
    assert numbers["provenance"]["training"]["pretrained_on"] == ["VideoMix22M"]


def test_what_differs_from_the_record_list_is_counted_and_named(collection: Collection) -> None:
    summary = collection.root / "record_list/summary.tsv"
    summary.parent.mkdir()
    summary.write_text(
        "folder\tlisted\tlisted_unseen\tseen_unlisted\trepeated\n"
        "p10\t10\t1\t1\t1\np11\t0\t0\t10\t0\n(in no folder)\t1\t1\t0\t0\n"
    )
    inventory.differences_of(summary).write_text(
        "folder\tpath\twhat\n"
        + "".join(f"p11\tx{i}.dcm\t{inventory.NOT_LISTED}\n" for i in range(11))
        + f"p10\tfiles/p10/never_came.dcm\t{inventory.NOT_FOUND}\n"
    )
    numbers, html = collection.page(record_list=summary, pictures=False)
    p10, p11, other, total = numbers["accounting"]["folders"]
    assert (p10["listed"], p10["listed_unseen"], p10["seen_unlisted"]) == (10, 1, 1)
    assert (p11["listed"], p11["seen_unlisted"]) == (0, 10)
    assert (other["listed"], other["listed_unseen"]) == (1, 1)
    assert (total["listed"], total["listed_unseen"], total["seen_unlisted"], total["seen"]) == (11, 2, 11, 20)
    assert levels(numbers)["Record list"] == "check"
    assert "files/p10/never_came.dcm" in html
    assert "On the disk, not listed: x0.dcm, x1.dcm, x2.dcm, ..." in html
    assert 'href="../record_list/differences.tsv"' in html
    _, html = collection.page(record_list=summary, hash_names=True)
    assert "never_came" not in html


def test_clips_that_are_not_selected_are_counted_and_not_missed(collection: Collection) -> None:
    lost = collection.embedded[-1]
    collection.matrix, collection.embedded = collection.matrix[:-1], collection.embedded[:-1]
    numbers = collection.numbers(tables=Tables(select=f"file_path != '{lost}'"))
    _, p11, total = numbers["accounting"]["folders"]
    assert (p11["converted"], p11["left_out"], p11["embedded"], p11["missing"]) == (10, 1, 9, 0)
    assert total["left_out"] == 1
    assert levels(numbers)["Accounting"] == "good"
    numbers = collection.numbers(tables=Tables(select=f"file_path not in ['{lost}', '{collection.embedded[0]}']"))
    assert any("1 clip (" in problem and "not selected" in problem for problem in numbers["accounting"]["problems"])


@pytest.mark.parametrize(("rows", "level", "part"), [(9, "check", ": fewer than half."), (10, "good", ".")])
def test_a_table_that_says_something_of_few_clips_is_told(
    collection: Collection, tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: int, level: str, part: str
) -> None:
    lines = [f"{key},A4C\n" for key in collection.embedded[:rows]]
    (tmp_path / "views.csv").write_text("video,view\n" + "".join(lines))
    collection.others = [manifest.Row(f"{i}.dcm", "", manifest.SKIPPED, "single frame") for i in range(9)]  # no clips
    table = Table(str(tmp_path / "views.csv"), "path", "video", name="tables.0")
    numbers, html = collection.page(tables=Tables(None, None, (table,), "view != 'PLAX'"), pictures=False)
    sentence = f"Of the tables that select clips, tables.0 (views.csv) has a row for {rows} of 20 clips{part}"
    assert sentence in [check["sentence"] for check in numbers["checks"] if check["level"] == level]
    assert sentence in html
    assert ("note: tables.0 (views.csv) has a row for" in capsys.readouterr().out) == (level == "check")
