"""The quality page: finds planted defects, tells the right numbers, and is one file that needs no other."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from echo_embeddings.core import manifest
from echo_embeddings.core.errors import UserError
from echo_embeddings.core.settings import Tables
from echo_embeddings.core.vectors import write_vectors
from echo_embeddings.qc import FolderFiles, Options, Training, make_index, make_model_page
from echo_embeddings.qc.base import Check
from echo_embeddings.qc.page import numbers_of
from echo_embeddings.qc.report import Report, measure
from echo_embeddings.tables import inventory

Matrix = npt.NDArray[np.float32]
DIM = 16


class Collection:
    """Two folders of converted clips with vectors in clusters; change it, then `page` it."""

    def __init__(self, root: Path, clips: int = 20, dim: int = DIM) -> None:
        self.root = root
        self.folders = {"p10": self.keys("p10", clips // 2), "p11": self.keys("p11", clips - clips // 2)}
        generator = np.random.default_rng(7)
        self.matrix: Matrix = generator.normal(1, 1, (clips, dim)).astype(np.float32)
        self.embedded = [key for keys in self.folders.values() for key in keys]
        self.failed: dict[str, dict[str, str]] = {}
        self.others: list[manifest.Row] = []
        self.runs = {folder: self.run(len(keys), dim) for folder, keys in self.folders.items()}

    @staticmethod
    def keys(folder: str, clips: int) -> list[str]:
        return [f"{folder}000001/s9{i:07}/9{i:07}_0001.mp4" for i in range(clips)]

    @staticmethod
    def run(clips: int, dim: int) -> dict[str, Any]:
        return {
            "model": "vitl",
            "embed_dim": dim,
            "num_frames": 16,
            "precision": "bf16",
            "entry": "target_encoder",
            "checkpoint_sha256": "a" * 64,
            "weights": None,
            "device": "cpu",
            "versions": {"python": "3.11", "torch": "2.8"},
            "seconds": 1.5,
            "counts": {"converted": clips, "embedded": clips, "reused": 0, "failed": 0, "short": 0},
        }

    def files(self) -> dict[str, FolderFiles]:
        found = {}
        for folder, keys in self.folders.items():
            ends = (".manifest.tsv", "", ".json", ".failed.tsv")
            files = FolderFiles(*(self.root / f"{folder}{end}" for end in ends))
            rows = [manifest.Row(key.replace(".mp4", ".dcm"), key, manifest.CONVERTED, "", 16) for key in keys]
            manifest.write(files.manifest, rows + self.others)
            if folder in self.runs:
                files.run.write_text(json.dumps(self.runs[folder]))
            if folder in self.failed:
                lines = [f"{key}\t{reason}\n" for key, reason in self.failed[folder].items()]
                files.failed.write_text("key\treason\n" + "".join(lines))
            found[folder] = files
        return found

    def report(self, prefix_folder: bool = False) -> Report:
        """What the page would show, nothing drawn."""
        write_vectors(self.root / "all.pt", self.embedded, torch.from_numpy(self.matrix))
        return measure("vitl", self.root / "all.pt", self.files(), Options(prefix_folder=prefix_folder))

    def numbers(self, **options: Any) -> dict[str, Any]:
        """The numbers of the page, as its JSON file has them; nothing drawn."""
        write_vectors(self.root / "all.pt", self.embedded, torch.from_numpy(self.matrix))
        return json.loads(
            json.dumps(numbers_of(measure("vitl", self.root / "all.pt", self.files(), Options(**options))))
        )

    def page(self, model: str = "vitl", **options: Any) -> tuple[dict[str, Any], str]:
        """The numbers and the HTML of the page."""
        write_vectors(self.root / "all.pt", self.embedded, torch.from_numpy(self.matrix))
        output = self.root / "qc" / f"{model}.html"
        make_model_page(model, self.root / "all.pt", self.files(), output, Options(**options))
        return json.loads(output.with_suffix(".json").read_text()), output.read_text()


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return Collection(tmp_path)


def levels(numbers: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["level"] for check in numbers["checks"]}


def check(report: Report, name: str) -> Check:
    return next(check for check in report.checks if check.name == name)


class Links(HTMLParser):
    """The ids of a page, and every address that it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.addresses += [values[name] or "" for name in ("src", "href", "srcset", "data") if name in values]
        self.ids += [values["id"] or ""] if "id" in values else []
        self.images += [values] if tag == "img" else []


def test_a_clean_set_of_few_patients_shows_no_defect_and_no_signal(collection: Collection) -> None:
    numbers, html = collection.page()
    found = levels(numbers)
    assert found.pop("Signal") == numbers["status"] == "warn"
    assert set(found.values()) == {"good"}
    assert "2 patients: this says nothing." in html
    assert 'class="banner bad"' not in html


def test_numbers_are_those_of_numpy(collection: Collection) -> None:
    numbers = collection.numbers()
    matrix = collection.matrix.astype(np.float64)
    norms = np.sqrt((matrix**2).sum(axis=1))
    total = numbers["statistics"]["table"][-1]
    assert total["vectors"] == numbers["vectors"] == 20
    expected = (matrix.mean(), matrix.std(), matrix.min(), np.median(matrix), matrix.max())
    assert [total[name] for name in ("mean", "std", "min", "median", "max")] == pytest.approx(expected)
    expected = (norms.mean(), norms.std(), norms.min(), np.median(norms), norms.max())
    assert [total[f"norm_{name}"] for name in ("mean", "std", "min", "median", "max")] == pytest.approx(expected)
    first = numbers["statistics"]["table"][0]
    assert first["folder"] == "p10"
    assert (first["vectors"], first["norm_mean"]) == (10, pytest.approx(norms[:10].mean()))
    assert first["median"] == np.median(collection.matrix[:10])

    assert numbers["dimensions"]["mean"] == pytest.approx(matrix.mean(axis=0))
    assert numbers["dimensions"]["variance"] == pytest.approx(matrix.var(axis=0))
    cosines = (matrix @ matrix.T / np.outer(norms, norms))[np.triu_indices(20, 1)]
    assert [numbers["similarity"][name] for name in ("mean", "min", "max")] == pytest.approx(
        [cosines.mean(), cosines.min(), cosines.max()], abs=1e-6
    )
    shares = np.linalg.svd(matrix - matrix.mean(axis=0), compute_uv=False) ** 2
    shares /= shares.sum()
    assert numbers["components"]["explained"] == pytest.approx(shares, rel=1e-6, abs=1e-12)
    rank = np.exp(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())
    assert numbers["components"]["effective_rank"] == pytest.approx(rank, rel=1e-5)
    assert numbers["components"]["needed"]["90 %"] == np.searchsorted(np.cumsum(shares), 0.9) + 1
    assert numbers["summary"]["pca_top"] == pytest.approx(shares[0], rel=1e-4)


def test_planted_vector_defects_are_found_and_named(collection: Collection) -> None:
    matrix, keys = collection.matrix, collection.embedded
    matrix[:, 3] = 0.1
    matrix[1, 5] = np.nan
    matrix[2, 6] = -np.inf
    matrix[5] = matrix[14]
    numbers, html = collection.page()
    health = numbers["health"]
    assert (health["nan"], health["inf"], health["zero"]) == ([keys[1]], [keys[2]], [])
    assert [group["clips"] for group in health["duplicates"]] == [[keys[5], keys[14]]]
    assert health["duplicates"][0]["patients"] == 2
    assert health["dead"] == [3]
    assert numbers["finite"] == numbers["statistics"]["table"][-1]["vectors"] == 18
    found = levels(numbers)
    assert [found[name] for name in ("NaN", "Inf", "Duplicates", "Dimensions")] == ["bad", "bad", "warn", "warn"]
    assert numbers["status"] == "bad"
    assert numbers["summary"]["nan"] == 1
    assert numbers["summary"]["duplicates"] == 2
    for i in (1, 2, 5, 14):
        assert keys[i] in html


def test_zero_vector_is_found_and_has_no_direction(collection: Collection) -> None:
    collection.matrix[4] = 0
    collection.matrix[4, ::2] = -0.0
    numbers = collection.numbers()
    assert numbers["health"]["zero"] == [collection.embedded[4]]
    assert levels(numbers)["Zeros"] == "bad"
    assert numbers["similarity"]["clips"] == 19


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
    numbers, html = collection.page()
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
    assert (levels(numbers)["Accounting"], levels(numbers)["Failures"]) == ("good", "warn")
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
    assert check(report, "Accounting").level == report.status == "bad"
    assert report.accounting.problems


def test_lost_and_strange_clips_are_named(collection: Collection) -> None:
    lost = collection.embedded[0]
    add_a_stranger(collection)
    numbers, html = collection.page()
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
    assert found.level == "bad"
    assert field in found.sentence


@pytest.mark.parametrize(("field", "value"), [("model", "vith"), ("embed_dim", 1024)])
def test_record_of_other_vectors_is_a_fault(collection: Collection, field: str, value: object) -> None:
    for run in collection.runs.values():
        run[field] = value
    assert check(collection.report(), "Provenance").level == "bad"


def test_absent_record_is_said(collection: Collection) -> None:
    del collection.runs["p11"]
    numbers, html = collection.page()
    assert levels(numbers)["Provenance"] == "warn"
    assert "There is no run record of: p11." in html
    collection.runs.clear()
    (collection.root / "p10.json").unlink()
    assert collection.report().provenance.missing == ["p10", "p11"]


def test_note_on_the_weights_is_a_banner_on_page_and_index(collection: Collection) -> None:
    note = "drawn at random from seed 0: the vectors mean nothing"
    collection.runs["p11"]["weights"] = note
    numbers, html = collection.page()
    body = html.split("</style>")[1]
    assert body.index('class="banner bad"') < body.index(note) < body.index('id="summary"')
    assert levels(numbers)["Weights"] == "warn"
    index = collection.root / "qc/index.html"
    make_index({"vitl": index.with_name("vitl.html")}, {"vitl": collection.root / "all.pt"}, index)
    assert note in index.read_text()


def test_prefixed_keys_belong_to_their_folder(collection: Collection) -> None:
    collection.folders["p11"] = list(collection.folders["p10"])
    collection.embedded = [f"{folder}/{key}" for folder, keys in collection.folders.items() for key in keys]
    numbers = collection.numbers(prefix_folder=True)
    assert levels(numbers)["Accounting"] == "good"
    assert [row["embedded"] for row in numbers["accounting"]["folders"]] == [10, 10, 20]
    assert check(collection.report(prefix_folder=False), "Accounting").level == "bad"


def test_key_of_two_folders_belongs_to_the_one_where_it_did_not_fail(collection: Collection) -> None:
    key = collection.folders["p11"][0]
    collection.folders["p10"].append(key)
    collection.failed["p10"] = {key: "no frame can be decoded"}
    collection.runs["p10"]["counts"] |= {"converted": 11, "failed": 1}
    report = collection.report()
    assert check(report, "Accounting").level == "good"
    assert list(report.accounting.folders["embedded"]) == [10, 10, 20]


@pytest.mark.parametrize(
    ("clips", "dim"), [(0, DIM), (1, DIM), (2, DIM), (3, DIM), (1, 1), (2, 1), (40, 1), (2, 2), (40, 3)]
)
def test_few_vectors_and_dimensions_give_a_page(tmp_path: Path, clips: int, dim: int) -> None:
    numbers, html = Collection(tmp_path, clips, dim).page()
    assert numbers["vectors"] == clips
    assert levels(numbers)["Vectors"] == ("bad" if clips == 0 else "warn" if clips < 3 else "good")
    assert (numbers["similarity"] is None) == ("It takes two vectors other than zero" in html) == (clips < 2)
    assert (numbers["components"] is None) == ("There are no principal components" in html) == (clips < 2)
    assert (numbers["health"]["dead"] is None) == (clips < 2)


@pytest.mark.parametrize("value", [0.0, 0.1, np.nan, np.inf, 1e38])
def test_constant_vectors_give_a_page(collection: Collection, value: float) -> None:
    collection.matrix[:] = value
    numbers = collection.numbers()
    assert numbers["status"] == "bad"
    assert numbers["components"] is None
    assert numbers["summary"]["duplicates"] == 20


@pytest.mark.parametrize(("scale", "shift"), [(1e30, 0), (1e-30, 0), (1e-3, 10)])
def test_values_of_any_size_are_measured_alike(collection: Collection, scale: float, shift: float) -> None:
    before = collection.report()
    collection.matrix = collection.matrix * np.float32(scale) + np.float32(shift)
    after = collection.report()
    norms = np.linalg.norm(collection.matrix.astype(np.float64), axis=1)
    assert after.statistics.table.iloc[-1]["norm_mean"] == pytest.approx(norms.mean())
    assert after.statistics.table.iloc[-1]["median"] == pytest.approx(np.median(collection.matrix.astype(np.float64)))
    assert before.components
    assert after.components
    assert after.components.explained == pytest.approx(before.components.explained, rel=1e-2)
    assert after.components.effective_rank == pytest.approx(before.components.effective_rank, rel=1e-2)


def test_nearly_equal_vectors_give_a_page(collection: Collection) -> None:
    collection.matrix[:] = 1
    collection.matrix[3, 3] = np.nextafter(np.float32(1), np.float32(2))
    numbers = collection.numbers()
    assert numbers["components"]["explained"][0] == pytest.approx(1)


@pytest.mark.parametrize("name", ["_p", "a_long_name_without_any_place_to_break_"])
def test_many_folders_give_a_page(collection: Collection, name: str) -> None:
    collection.folders = {f"{name}{i:02}": [f"p{i:02}/clip.mp4"] for i in range(35)}
    collection.runs = {}
    collection.embedded = [key for keys in collection.folders.values() for key in keys]
    collection.matrix = np.random.default_rng(0).normal(size=(35, DIM)).astype(np.float32)
    numbers = collection.numbers()
    assert len(numbers["statistics"]["table"]) == 36
    assert levels(numbers)["Accounting"] == "good"


def test_more_clips_than_the_heat_map_holds_are_sampled(tmp_path: Path) -> None:
    _, html = Collection(tmp_path, clips=250).page()
    assert "200 of 250 clips, drawn at random" in " ".join(html.split())


def test_page_is_one_file_that_asks_for_no_other(collection: Collection) -> None:
    _, html = collection.page()
    links = Links(html)
    assert links.images
    assert all(image["alt"] for image in links.images)
    assert all((image["src"] or "").startswith("data:image/") for image in links.images)
    inside = {f"#{name}" for name in links.ids}
    beside = {"index.html", "vitl.json", "../p10.manifest.tsv", "../p11.manifest.tsv"}
    assert {address for address in links.addresses if not address.startswith("data:")} <= inside | beside
    assert not {"iframe", "object", "base"} & set(links.tags)
    assert links.tags.count("script") == 1
    assert "url(" not in html
    assert "@import" not in html
    assert len(links.ids) == len(set(links.ids))
    assert links.tags.count("section") == 10


def test_same_input_gives_the_same_bytes(collection: Collection) -> None:
    assert collection.page(pictures=False) == collection.page(pictures=False)


def test_names_are_escaped(collection: Collection) -> None:
    evil = "<script>alert(1)</script>.mp4"
    collection.folders["p10"][:2] = [evil, "$\\frac$ & co.mp4"]
    collection.embedded[:2] = collection.folders["p10"][:2]
    collection.matrix[:2] = np.nan
    collection.failed["p10"] = {"<script>2": "<script>3"}
    collection.runs["p10"] |= {"device": "<script>4", "weights": "<script>5", "model": "<script>6"}
    collection.folders["<script>7"] = ["x.mp4"]
    numbers, html = collection.page(model="vitl$^$")
    assert html.count("<script") == 1
    assert evil in numbers["health"]["nan"]
    index = collection.root / "qc/index.html"
    make_index({"<script>8": index.with_name("vitl$^$.html")}, {"<script>8": collection.root / "all.pt"}, index)
    assert index.read_text().count("<script") == 1


def test_index_compares_the_models_and_links_to_their_pages(collection: Collection) -> None:
    numbers, _ = collection.page(model="vitl")
    output = collection.root / "index.html"
    make_index({"vitl": collection.root / "qc/vitl.html"}, {"vitl": collection.root / "all.pt"}, output)
    html = output.read_text()
    assert Links(html).addresses == ["data:,", "qc/vitl.html"]
    assert f"{numbers['summary']['norm_mean']:.4g}" in html
    assert f"{numbers['summary']['effective_rank']:.4g}" in html
    make_index({}, {}, output)
    assert "There is no model to show." in output.read_text()


def test_index_stops_on_a_page_without_numbers(collection: Collection) -> None:
    with pytest.raises(UserError, match=r"vitl\.json"):
        make_index({"vitl": collection.root / "vitl.html"}, {}, collection.root / "index.html")


@pytest.mark.parametrize(("name", "text"), [("p10.json", "{"), ("p10.json", "[]"), ("p10.failed.tsv", "key\nx\n")])
def test_broken_files_are_the_users_to_mend(collection: Collection, name: str, text: str) -> None:
    collection.files()
    (collection.root / name).write_text(text)
    del collection.runs["p10"]
    with pytest.raises(UserError, match=re.escape(name)):
        collection.report()


def test_training_on_the_collection_at_hand_is_a_warning(collection: Collection) -> None:
    numbers, html = collection.page(training=Training(["VideoMix22M", "MIMIC-IV-Echo"], "mimic iv echo"))
    assert levels(numbers)["Pretraining"] == "warn"
    assert "Pretrained on the collection at hand." in html
    numbers = collection.numbers(training=Training(["VideoMix22M"], "MIMIC-IV-Echo"))
    assert "Pretraining" not in levels(numbers)
    assert numbers["provenance"]["training"]["pretrained_on"] == ["VideoMix22M"]


def test_hashed_names_hide_every_file(collection: Collection) -> None:
    lost = collection.folders["p11"][-1]
    collection.embedded.pop()
    collection.matrix = collection.matrix[:-1]
    collection.matrix[5] = collection.matrix[14]
    collection.matrix[1, 2] = np.nan
    collection.others = [
        manifest.Row("p10000001/odd.dcm", "", manifest.FAILED, "empty file"),
        manifest.Row("p10000001/one.dcm", "", manifest.FAILED, "name collision with p10000001/zebra"),
    ]
    numbers, html = collection.page(hash_names=True)
    drawn = [base64.b64decode(found).decode() for found in re.findall(r"svg\+xml;base64,([^\"]+)", html)]
    assert drawn
    text = html + json.dumps(numbers) + "".join(drawn)
    names = ["p10000001", "p11000001", "/s9", "_0001", "odd.dcm", "one.dcm", "zebra"]
    assert not [name for name in [*collection.embedded, lost, *names] if name in text]
    assert "name collision" in html
    short = "#" + hashlib.sha256(collection.embedded[1].encode()).hexdigest()[:10]
    assert numbers["health"]["nan"] == [short]
    assert short in html


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
    numbers, html = collection.page(record_list=summary)
    p10, p11, other, total = numbers["accounting"]["folders"]
    assert (p10["listed"], p10["listed_unseen"], p10["seen_unlisted"]) == (10, 1, 1)
    assert (p11["listed"], p11["seen_unlisted"]) == (0, 10)
    assert (other["listed"], other["listed_unseen"]) == (1, 1)
    assert (total["listed"], total["listed_unseen"], total["seen_unlisted"], total["seen"]) == (11, 2, 11, 20)
    assert levels(numbers)["Record list"] == "warn"
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


def test_names_of_another_form_have_folders_and_no_patients(collection: Collection) -> None:
    collection.folders = {"site-a": [f"a{i}.mp4" for i in range(10)], "site-b": [f"b{i}.mp4" for i in range(10)]}
    collection.embedded = [key for keys in collection.folders.values() for key in keys]
    collection.runs = {folder: collection.run(10, DIM) for folder in collection.folders}
    numbers, html = collection.page()
    assert numbers["similarity"]["patients"] == 0
    assert numbers["similarity"]["all_devices"] is None
    assert "Patients are not known" in html
    assert [row["folder"] for row in numbers["statistics"]["table"]] == ["site-a", "site-b", "all folders"]


def test_pictures_can_be_left_out_and_say_why_there_is_none(collection: Collection) -> None:
    numbers, html = collection.page()
    reasons = {s["reason"] for g in numbers["galleries"] for row in g["rows"] for s in row["strips"]}
    assert reasons == {"no such file"}
    assert "no picture: no such file" in html
    numbers, html = collection.page(pictures=False)
    assert numbers["galleries"] == []
    assert "Pictures are left out" in html


def test_pictures_come_from_the_clips(collection: Collection, write_video: Any) -> None:
    for folder, keys in collection.folders.items():
        for i, key in enumerate(keys):
            write_video(f"{folder}/{key}", frames=16, seed=i)
    numbers, html = collection.page()
    strips = [strip for gallery in numbers["galleries"] for row in gallery["rows"] for strip in row["strips"]]
    assert {gallery["title"] for gallery in numbers["galleries"]} == {"Farthest clips", "Typical clips", "Neighbours"}
    assert not any(strip["reason"] for strip in strips)
    assert html.count("data:image/jpeg;base64,") == len(strips)
    strip = re.search(r"data:image/jpeg;base64,([^\"]+)", html)
    assert strip
    image = cv2.imdecode(np.frombuffer(base64.b64decode(strip[1]), np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (112, 4 * 112 + 3 * 2, 3)
    assert image.std() > 20
