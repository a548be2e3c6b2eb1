"""The report's figures against oracles; planted defects: all are found, and none on a clean set."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import ks_2samp
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from echo_embeddings.core.errors import UserError
from echo_embeddings.core.vectors import read_vectors, write_vectors
from echo_embeddings.qc import agreement, base, components, moments, near, similarity
from echo_embeddings.qc.index import make_index
from echo_embeddings.qc.page import make_comparison, numbers_of
from echo_embeddings.qc.report import Options, Report, measure
from testing import planted
from testing.qc import FACTS

CLIPS, DIM, PAIRS = 4800, 64, 150


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[planted.Planted, Report]:
    made = planted.write(tmp_path_factory.mktemp("clean"), CLIPS, DIM)
    return made, measure("vitl", made.merged, made.folders, Options(pictures=False))


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> tuple[planted.Planted, Report]:
    made = planted.write(tmp_path_factory.mktemp("spoilt"), CLIPS, DIM, pairs=PAIRS)
    return made, measure("vitl", made.merged, made.folders, Options(pictures=False))


def test_a_clean_set_has_no_defect_and_carries_signal(clean: tuple[planted.Planted, Report]) -> None:
    found = {check.name: check.level for check in clean[1].checks}
    assert found.pop("Weights") == "check"  # the record says that they are drawn
    assert set(found.values()) == {"good"}, found


def test_every_planted_defect_is_found_and_nothing_else(spoilt: tuple[planted.Planted, Report]) -> None:
    truth, found = spoilt[0].truth, spoilt[1].health
    assert (found.nan, found.inf, found.zero) == (truth.nan, truth.inf, truth.zero)
    assert found.constant == []
    assert found.dead == truth.dead
    assert {outlier.clip for outlier in found.outliers} == set(truth.outliers)
    assert {tuple(group.clips) for group in found.duplicates} == {tuple(sorted(pair)) for pair in truth.duplicates}
    near = {tuple(group.clips) for group in found.near}
    planted_near = {tuple(sorted(pair)) for pair in truth.near}
    assert len(near & planted_near) >= 0.99 * len(planted_near)
    assert near <= planted_near
    bad = {check.name for check in spoilt[1].checks if check.level != "good"}
    assert bad == {
        *("Weights", "NaN", "Inf", "Zeros", "Duplicates", "Near duplicates", "Dimensions", "Outliers", "Drift")
    }
    drift = next(check for check in spoilt[1].checks if check.name == "Drift")
    assert re.findall(r"p\d\d", drift.sentence) == truth.drifted


def test_streamed_figures_are_those_of_scikit_learn_and_scipy(clean: tuple[planted.Planted, Report]) -> None:
    made, report = clean
    keys, tensor = read_vectors(made.merged)
    matrix = tensor.numpy().astype(np.float64)
    assert report.components is not None
    oracle = PCA(64, svd_solver="full").fit(matrix)
    assert report.components.explained == pytest.approx(oracle.explained_variance_ratio_, rel=1e-6)
    ours, theirs = report.components.scores[:, :3], oracle.transform(matrix)[:, :3]
    assert np.abs(ours) == pytest.approx(np.abs(theirs), abs=1e-4)
    folders = np.array([key[:3] for key in keys])
    norms = np.linalg.norm(matrix, axis=1)
    means = {folder: matrix[folders == folder].mean(axis=0) for folder in np.unique(folders)}
    spread = np.sqrt(np.median([matrix[folders == folder].var(axis=0).sum() for folder in means]))
    for row in report.statistics.table.iloc[:-1].to_dict("records"):
        inside = folders == row["folder"]
        assert row["median"] == np.median(tensor.numpy()[inside])
        assert row["norm_ks"] == pytest.approx(ks_2samp(norms[inside], norms[~inside]).statistic)
        others = [mean for folder, mean in means.items() if folder != row["folder"]]
        apart = means[row["folder"]] - np.median(others, axis=0)
        assert row["drift"] == pytest.approx(np.linalg.norm(apart) / spread, rel=1e-6)


def test_pairs_and_auc_are_those_of_all_pairs(clean: tuple[planted.Planted, Report]) -> None:
    made, report = clean
    keys, tensor = read_vectors(made.merged)
    centred = tensor.double() - tensor.double().mean(dim=0)
    unit = torch.nn.functional.normalize(centred).numpy()
    cosines = unit @ unit.T
    patient = pd.factorize(np.array([key.split("/")[0] for key in keys]))[0]
    study = pd.factorize(np.array([key.split("/")[1] for key in keys]))[0]
    i, j = np.triu_indices(len(keys), 1)
    values = cosines[i, j]
    same_study, same_patient = study[i] == study[j], patient[i] == patient[j]
    found = report.similarity
    assert found is not None
    compared = found.compared[similarity.ALL]
    assert list(compared.pairs.values()) == [
        *(same_study.sum(), (same_patient & ~same_study).sum(), (~same_patient).sum())
    ]
    rng = np.random.default_rng(0)
    between = rng.choice(values[~same_patient], 500_000)
    for separation, mask in zip(compared.separation, (same_study, same_patient & ~same_study), strict=True):
        truth = np.repeat([1, 0], [mask.sum(), len(between)])
        expected = roc_auc_score(truth, np.concatenate([values[mask], between]))
        assert separation.auc == pytest.approx(expected, abs=0.003)
        assert separation.low < separation.auc < separation.high
    device = patient % len(planted.DEVICES)
    same_device = device[i] == device[j]
    of_device = found.compared[similarity.DEVICE]
    assert of_device.pairs["different patients"] == (~same_patient & same_device).sum()


def test_the_interval_is_that_of_patients_and_not_of_pairs(tmp_path: Path) -> None:
    """With few patients the interval is wide, however many pairs there are."""
    widths = []
    for clips in (1200, 8000):
        made = planted.write(tmp_path / str(clips), clips, 16)
        found = measure("vitl", made.merged, made.folders, Options(pictures=False)).similarity
        assert found is not None
        separation = found.compared[similarity.ALL].separation[1]
        widths.append(separation.high - separation.low)
    assert 0.005 < widths[1] < 0.7 * widths[0]


def test_vectors_without_signal_are_a_fault(tmp_path: Path) -> None:
    made = planted.write(tmp_path, 1600, 16)
    keys, tensor = read_vectors(made.merged)
    noise = np.random.default_rng(3).normal(size=tensor.shape).astype(np.float32)
    write_vectors(made.merged, keys, torch.from_numpy(noise))
    report = measure("vitl", made.merged, made.folders, Options(pictures=False))
    assert {check.name: check.level for check in report.checks}["Patients"] == "fault"


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch, clean: tuple[planted.Planted, Report]) -> None:
    made, report = clean
    for module in (base, components, moments, similarity):
        monkeypatch.setattr(module, "BLOCK", 97)
    again = measure("vitl", made.merged, made.folders, Options(pictures=False))
    assert again.components is not None
    assert report.components is not None
    assert again.components.explained == pytest.approx(report.components.explained, rel=1e-9)
    pd.testing.assert_frame_equal(again.statistics.table, report.statistics.table, rtol=1e-9)


def test_near_duplicates_in_a_crowd_stay_bounded() -> None:
    """Thousands that are nearly the same (black screens, say) are one group, found without comparing all pairs."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(1500, 8)).astype(np.float32)
    points[:700] = points[0] + 1e-4 * rng.normal(size=(700, 8)).astype(np.float32)
    pairs = near._close_pairs(points[:256], 0.01)
    assert 0 < len(pairs) <= 256 * near.CLOSEST


# --- agreement ------------------------------------------------------------------------------------


def test_cka_and_overlap_know_the_same_space_turned_and_another() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 48)).astype(np.float32)
    turn = np.linalg.qr(rng.normal(size=(48, 48)))[0]
    turned = (3 * x @ turn).astype(np.float32)
    other = rng.normal(size=(400, 300)).astype(np.float32)
    assert agreement.cka(x, turned) == pytest.approx(1, abs=1e-5)
    assert agreement.overlap(x, turned) == pytest.approx(1, abs=0.01)
    assert agreement.cka(x, other) == pytest.approx(0, abs=0.05)
    assert agreement.overlap(x, other) == pytest.approx(10 / 399, abs=0.02)


def test_compare_finds_what_differs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 12)).astype(np.float32)
    keys = [f"p1000{i:04d}/s1/{i}.mp4" for i in range(60)]
    write_vectors(tmp_path / "a.pt", keys, torch.from_numpy(x))
    y = x.copy()
    y[7] = -x[7]
    y[8:20] *= 2
    torch.save({key: torch.from_numpy(v) for key, v in list(zip(keys, y, strict=True))[5:][::-1]}, tmp_path / "b.pt")
    found = agreement.compare(tmp_path / "a.pt", tmp_path / "b.pt")
    assert (found.matched, found.only, found.only_keys[0]) == (55, (5, 0), keys[:5])
    assert found.identical == 55 - 13
    assert found.worst[0] == (keys[7], pytest.approx(-1))
    assert {check.name: check.level for check in found.checks} == {
        "Keys": "check",
        "Agreement": "good",
        "Vectors": "check",
        "Origin": "check",
    }
    make_comparison(tmp_path / "a.pt", tmp_path / "b.pt", tmp_path / "compare.html")
    assert keys[7] in (tmp_path / "compare.html").read_text()
    y[30, 3] = np.nan
    write_vectors(tmp_path / "nan.pt", keys, torch.from_numpy(y))
    unsound = agreement.compare(tmp_path / "a.pt", tmp_path / "nan.pt")
    assert unsound.undefined == 1
    assert {check.name: check.level for check in unsound.checks}["Finite"] == "fault"
    same = agreement.compare(tmp_path / "a.pt", tmp_path / "a.pt")
    assert (same.identical, same.agreement.overlap) == (60, 1)
    assert {check.level for check in same.checks} == {"good"}
    write_vectors(tmp_path / "c.pt", ["x"], torch.ones(1, 12))
    with pytest.raises(UserError, match="share no key"):
        agreement.compare(tmp_path / "a.pt", tmp_path / "c.pt")
    write_vectors(tmp_path / "d.pt", keys, torch.from_numpy(np.concatenate([x, x], axis=1)))
    wider = agreement.compare(tmp_path / "a.pt", tmp_path / "d.pt")
    assert wider.cosines is None
    assert wider.agreement.cka == pytest.approx(1, abs=1e-5)


def test_index_sets_models_side_by_side(tmp_path: Path) -> None:
    pages, merged = {}, {}
    for name, dim in (("vitl", 24), ("vith", 32)):
        made = planted.write(tmp_path / name, 400, dim, folders=2, seed=dim)
        pages[name], merged[name] = tmp_path / f"{name}.html", made.merged
        numbers = numbers_of(measure(name, made.merged, made.folders, Options()))  # which the index reads, and no page
        pages[name].with_suffix(".json").write_text(json.dumps(numbers))
    make_index(pages, merged, tmp_path / "index.html", dict.fromkeys(pages, FACTS))
    text = (tmp_path / "index.html").read_text()
    assert "Linear CKA" in text
    assert "On 400 clips that all models have" in text
