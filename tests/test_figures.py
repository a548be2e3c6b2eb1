"""Figures of predictions and their intervals, against scikit-learn, scipy and truth that was drawn."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn

from echo_embeddings.evaluate import intervals, metrics


def drawn(units: int, seed: int = 0):
    """Weights of two samples: every unit once, and some often."""
    generator = np.random.default_rng(seed)
    often = generator.multinomial(units, np.full(units, 1 / units)).astype(float)
    return generator, np.stack([np.ones(units), often])


@pytest.mark.parametrize("digits", [1, 9])
def test_figures_of_numbers(digits):
    generator, weights = drawn(60)
    truth = np.round(generator.normal(size=60), digits)
    predicted = np.round(truth + generator.normal(size=60), digits)
    found = metrics.regression(truth, predicted, weights)
    assert tuple(found) == metrics.REGRESSION
    for sample, weight in enumerate(weights):
        a, b = (np.repeat(values, weight.astype(int)) for values in (truth, predicted))
        expected = {
            "r2": sklearn.r2_score(a, b),
            "mae": sklearn.mean_absolute_error(a, b),
            "rmse": sklearn.root_mean_squared_error(a, b),
            "pearson": stats.pearsonr(a, b)[0],
            "spearman": stats.spearmanr(a, b)[0],
        }
        assert {name: values[sample] for name, values in found.items()} == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_figures_of_classes(classes):
    generator, weights = drawn(80)
    truth = generator.integers(0, classes, 80)
    scores = np.round(generator.dirichlet(np.ones(classes), 80) + 0.2 * np.eye(classes)[truth], 2)
    found = metrics.classification(truth, scores, weights)
    assert tuple(found) == metrics.CLASSIFICATION
    asked = [1] if classes == 2 else range(classes)
    for sample, weight in enumerate(weights):
        a, b = (np.repeat(values, weight.astype(int), axis=0) for values in (truth, scores))
        expected = {
            "auroc": np.mean([sklearn.roc_auc_score(a == c, b[:, c]) for c in asked]),
            "average_precision": np.mean([sklearn.average_precision_score(a == c, b[:, c]) for c in asked]),
            "balanced_accuracy": sklearn.balanced_accuracy_score(a, b.argmax(axis=1)),
            "macro_f1": sklearn.f1_score(a, b.argmax(axis=1), average="macro"),
        }
        assert {name: values[sample] for name, values in found.items()} == pytest.approx(expected, abs=1e-10)


def test_what_a_sample_does_not_define_is_nan():
    ones = np.ones((1, 4))
    same = metrics.regression(np.full(4, 3.0), np.arange(4.0), ones)
    assert all(np.isnan(same[name][0]) for name in ("r2", "pearson", "spearman"))
    assert same["mae"][0] == 1.5
    alone = metrics.classification(np.ones(4, int), np.full((4, 2), 0.5), ones)
    assert all(np.isnan(values[0]) for values in alone.values())


def test_equal_seeds_draw_the_same_patients_and_units_of_one_go_together():
    patients = np.array([0, 0, 1, 2, 2, 2, 3])
    first, again = (np.concatenate(list(intervals._samples(patients, 50, 7))) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, np.concatenate(list(intervals._samples(patients, 50, 8))))
    assert (first[:, 0] == first[:, 1]).all()
    assert (first[:, 3] == first[:, 5]).all()
    assert (first[:, [0, 2, 3, 6]].sum(axis=1) == 4).all()


@pytest.mark.parametrize(
    ("patients", "rounds", "least"),
    [
        (50, 60, 0.85),
        *(pytest.param(n, rounds, 0.92, marks=pytest.mark.slow) for n, rounds in ((50, 500), (100, 500), (1000, 250))),
    ],
)
def test_an_interval_covers_the_truth_as_often_as_it_says(patients, rounds, least):
    """Studies of patients, one to three each; the truth is the figure among very many."""
    generator = np.random.default_rng(1)

    def draw(count):
        per = generator.integers(1, 4, count)
        who = np.repeat(np.arange(count), per)
        own = generator.normal(size=count)[who]
        truth = own + 0.5 * generator.normal(size=len(who))
        return who, truth, 0.6 * truth + 0.3 * own + 0.5 * generator.normal(size=len(who))

    _, truth, predicted = draw(200_000)
    wanted = metrics.regression(truth, predicted, np.ones((1, len(truth))))
    hits = dict.fromkeys(wanted, 0)
    for i in range(rounds):
        who, truth, predicted = draw(patients)
        figures = lambda weights, a=truth, b=predicted: metrics.regression(a, b, weights)  # noqa: E731
        for name, found in intervals.intervals(figures, who, 400 if rounds < 100 else 1000, i).items():
            hits[name] += found.low <= wanted[name][0] <= found.high
    assert all(least <= hit / rounds <= 0.985 or rounds < 100 for hit in hits.values()), hits
    assert all(least <= hit / rounds for hit in hits.values()), hits
