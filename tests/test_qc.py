"""The figures of the quality page, and the defects of vectors that it finds."""

import re

import numpy as np
import pytest

from echo_embeddings.core.errors import UserError
from testing.qc import DIM, Collection, check, levels


def test_a_clean_set_of_few_patients_shows_no_defect_and_no_signal(collection: Collection) -> None:
    numbers, html = collection.page(pictures=False)
    found = levels(numbers)
    untested = {found.pop(name) for name in ("Patients", "Patients by folder", "Drift")}
    assert untested == {numbers["status"]} == {"not tested"}
    assert set(found.values()) == {"good"}
    assert "2 patients: this says nothing." in html
    assert 'class="banner fault"' not in html


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
    numbers, html = collection.page(pictures=False)
    health = numbers["health"]
    assert (health["nan"], health["inf"], health["zero"]) == ([keys[1]], [keys[2]], [])
    assert [group["clips"] for group in health["duplicates"]] == [[keys[5], keys[14]]]
    assert health["duplicates"][0]["patients"] == 2
    assert health["dead"] == [3]
    assert numbers["finite"] == numbers["statistics"]["table"][-1]["vectors"] == 18
    found = levels(numbers)
    assert [found[name] for name in ("NaN", "Inf", "Duplicates", "Dimensions")] == ["fault", "fault", "check", "check"]
    assert numbers["status"] == "fault"
    assert numbers["summary"]["nan"] == 1
    assert numbers["summary"]["duplicates"] == 2
    for i in (1, 2, 5, 14):
        assert keys[i] in html


def test_zero_vector_is_found_and_has_no_direction(collection: Collection) -> None:
    collection.matrix[4] = 0
    collection.matrix[4, ::2] = -0.0
    numbers = collection.numbers()
    assert numbers["health"]["zero"] == [collection.embedded[4]]
    assert levels(numbers)["Zeros"] == "fault"
    assert numbers["similarity"]["sampled"] == 19


@pytest.mark.parametrize("value", [0.0, 0.1, np.nan, np.inf, 1e38])
def test_constant_vectors_give_a_page(collection: Collection, value: float) -> None:
    collection.matrix[:] = value
    numbers = collection.numbers()
    assert numbers["status"] == "fault"
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


def test_prefixed_keys_belong_to_their_folder(collection: Collection) -> None:
    collection.folders["p11"] = list(collection.folders["p10"])
    collection.embedded = [f"{folder}/{key}" for folder, keys in collection.folders.items() for key in keys]
    numbers = collection.numbers(prefix_folder=True)
    assert levels(numbers)["Accounting"] == "good"
    assert [row["embedded"] for row in numbers["accounting"]["folders"]] == [10, 10, 20]
    assert check(collection.report(prefix_folder=False), "Accounting").level == "fault"


def test_key_of_two_folders_belongs_to_the_one_where_it_did_not_fail(collection: Collection) -> None:
    key = collection.folders["p11"][0]
    collection.folders["p10"].append(key)
    collection.failed["p10"] = {key: "no frame can be decoded"}
    collection.runs["p10"]["counts"] |= {"converted": 11, "failed": 1}
    report = collection.report()
    assert check(report, "Accounting").level == "good"
    assert list(report.accounting.folders["embedded"]) == [10, 10, 20]


def test_names_of_another_form_have_folders_and_no_patients(collection: Collection) -> None:
    collection.folders = {"site-a": [f"a{i}.mp4" for i in range(10)], "site-b": [f"b{i}.mp4" for i in range(10)]}
    collection.embedded = [key for keys in collection.folders.values() for key in keys]
    collection.runs = {folder: collection.run(10, DIM) for folder in collection.folders}
    numbers, html = collection.page(pictures=False)
    assert numbers["similarity"]["patients"] == 0
    assert numbers["similarity"]["compared"] == {}
    assert "Patients are not known" in html
    assert [row["folder"] for row in numbers["statistics"]["table"]] == ["site-a", "site-b", "all folders"]


@pytest.mark.parametrize(("name", "text"), [("p10.json", "{"), ("p10.json", "[]"), ("p10.failed.tsv", "key\nx\n")])
def test_broken_files_are_the_users_to_mend(collection: Collection, name: str, text: str) -> None:
    collection.files()
    (collection.root / name).write_text(text)
    del collection.runs["p10"]
    with pytest.raises(UserError, match=re.escape(name)):
        collection.report()
