"""Logistic regression against scikit-learn, which minimises the same objective with other code."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression as ReferenceRegression

from diptych.data.images.transforms import Preprocess
from diptych.evaluation.datasets.benchmark import default_root, open_benchmark
from diptych.evaluation.probes import logistic_regression
from diptych.evaluation.probes.log_losses import AnyOf, OneOf
from diptych.evaluation.probes.logistic_regression import Fit, LogisticRegression, fitting_device
from diptych.evaluation.probes.probe_data import labelled_features
from diptych.evaluation.survey import feature_rows
from diptych.models.image_model import ImageModel
from diptych.pretrained import load

FITTED = 500  # of the 1,797 digits; the others are predicted

# The promise of docs/probes.md, of the largest coefficient.
COEFFICIENTS = 1e-3

RANGE = [10.0**power for power in range(-6, 7, 2)]  # of the sweep


Values = torch.Tensor | np.ndarray


def digits(classes: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels 0..16 of 8 x 8 digits (n, 64), of which some never vary, and their classes (n,)."""
    found = load_digits()
    few = found.target < classes
    return torch.from_numpy(found.data[few]), torch.from_numpy(found.target[few]).long()


def reference(
    features: Values, target: Values, inverse_strength: float, solver: str = "newton-cholesky"
) -> ReferenceRegression:
    """scikit-learn's minimum; its Newton steps come nearer to it than its L-BFGS does in any time."""
    # Of the plain gradient, whose two parts are as small as the penalty: at 1e-10 and C = 1e6 it stops 0.3 % off.
    tolerance = min(1e-10, 1e-6 / inverse_strength)
    model = ReferenceRegression(C=inverse_strength, solver=solver, tol=tolerance, max_iter=10_000)
    return model.fit(np.asarray(features, np.float64), target)


def assert_near(found: Values, expected: np.ndarray) -> None:
    """Equal to within `COEFFICIENTS` of the largest coefficient."""
    largest = float(np.abs(expected).max())
    np.testing.assert_allclose(found, expected, atol=COEFFICIENTS * largest, rtol=0)


def centred(values: Values) -> np.ndarray:
    """Without what all classes have in common, which probabilities do not depend on."""
    rows = np.asarray(values)
    return np.asarray(rows - rows.mean(axis=0))


@pytest.mark.parametrize("inverse_strength", RANGE)
def test_a_fit_equals_scikit_learns(inverse_strength: float) -> None:
    features, target = digits()
    expected = reference(features[:FITTED], target[:FITTED], inverse_strength)
    regression = LogisticRegression(features[:FITTED], OneOf(target[:FITTED], 10))
    fit = regression.fit(inverse_strength)
    assert fit.converged
    assert_near(centred(fit.weights), centred(expected.coef_))
    # Of all digits, to which what is left of 64 weights adds up, and in which the intercepts show; some are near ties.
    said = regression.fit(inverse_strength, fit, tolerance=1e-5).logits(features).softmax(1)
    np.testing.assert_allclose(said, expected.predict_proba(features.numpy()), atol=COEFFICIENTS, rtol=0)
    assert said.argmax(1).tolist() == expected.predict(features.numpy()).tolist()


@pytest.mark.parametrize("inverse_strength", RANGE)
def test_few_examples_that_are_told_apart_equal_scikit_learns(inverse_strength: float) -> None:
    features, target = digits()
    few = torch.cat([torch.nonzero(target == label)[:3, 0] for label in range(10)])  # fewer than features
    expected = reference(features[few], target[few], inverse_strength)
    regression = LogisticRegression(features[few], OneOf(target[few], 10))
    for start in (None, regression.fit(1e-3)):
        fit = regression.fit(inverse_strength, start)
        assert fit.converged
        assert_near(centred(fit.weights), centred(expected.coef_))


@pytest.mark.parametrize("inverse_strength", [1e-4, 1e-1])
def test_two_classes_are_scikit_learns_single_weight_vector(inverse_strength: float) -> None:
    features, target = digits(classes=2)
    expected = reference(features, target, inverse_strength)
    fit = LogisticRegression(features, OneOf(target, 2)).fit(inverse_strength, tolerance=1e-7)
    difference = fit.weights[1] - fit.weights[0]
    assert_near(difference, expected.coef_[0])
    np.testing.assert_allclose(
        fit.intercept[1] - fit.intercept[0], expected.intercept_[0], atol=COEFFICIENTS, rtol=0
    )


def test_features_of_fashion_mnist_equal_scikit_learns(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess
) -> None:
    source = open_benchmark("fashion_mnist", default_root(), "train").source
    rows = feature_rows(tiny_clip, tiny_preprocess, source, range(1200), batch_size=64, progress=None)
    classes = sorted({source[row].label or "" for row in range(1200)})
    target = np.array([classes.index(source[row].label or "") for row in range(1200)])
    features = torch.from_numpy(rows.vectors)
    expected = reference(rows.vectors[:800], target[:800], 1.0)
    fit = LogisticRegression(features[:800], OneOf(torch.from_numpy(target[:800]), 10)).fit(1.0)
    assert_near(centred(fit.weights), centred(expected.coef_))
    assert fit.logits(features).argmax(1).tolist() == expected.predict(rows.vectors).tolist()


@pytest.mark.nightly
def test_features_of_a_trained_model_equal_scikit_learns() -> None:
    model, preprocess = load("diptych-mini", "cpu")
    source = open_benchmark("fashion_mnist", default_root(), "test").source
    measured = labelled_features(model, preprocess, source)
    learned, other = measured.only(np.arange(3000)), measured.only(np.arange(3000, len(measured)))
    # C = 1e-4 is about where the sweep's peak is for these features, which are long.
    expected = reference(learned.features, learned.target, 1e-4, solver="lbfgs")
    fit = learned.regression(torch.device("cpu")).fit(1e-4)
    assert_near(centred(fit.weights), centred(expected.coef_))
    assert other.logits(fit).argmax(1).tolist() == expected.predict(other.features).tolist()


def test_where_a_fit_starts_changes_nothing_but_its_time() -> None:
    features, target = digits()
    regression = LogisticRegression(features[:FITTED], OneOf(target[:FITTED], 10))
    near = regression.fit(1e-3)
    warm, cold = regression.fit(2e-3, near, tolerance=1e-7), regression.fit(2e-3, tolerance=1e-7)
    assert warm.iterations + warm.products < cold.iterations + cold.products
    # Both within the tolerance of the one minimum.
    torch.testing.assert_close(warm.weights, cold.weights, atol=1e-6, rtol=0)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    features, target = digits()

    def fit() -> Fit:
        return LogisticRegression(features[:100], OneOf(target[:100], 10)).fit(1e-3, tolerance=1e-7)

    whole = fit()
    monkeypatch.setattr(logistic_regression, "_ROWS_ON_CPU", 7)
    torch.testing.assert_close(fit().weights, whole.weights, atol=1e-9, rtol=0)


def test_features_in_float32_are_computed_with_in_float64() -> None:
    features, target = digits()
    likelihood = OneOf(target[:200], 10)
    narrow = LogisticRegression(features[:200].float(), likelihood).fit(1e-3)
    # Whole numbers up to 16 are the same in both.
    assert torch.equal(narrow.weights, LogisticRegression(features[:200], likelihood).fit(1e-3).weights)


def test_a_far_away_origin_of_the_features_moves_the_intercepts_alone() -> None:
    features, target = digits()
    likelihood = OneOf(target[:300], 10)
    here = LogisticRegression(features[:300], likelihood).fit(1e-2)
    there = LogisticRegression(features[:300] + 1000, likelihood).fit(1e-2)
    torch.testing.assert_close(there.weights, here.weights, atol=1e-6, rtol=0)
    moved = here.intercept - 1000 * here.weights.sum(dim=1)
    torch.testing.assert_close(there.intercept, moved, atol=1e-3, rtol=0)


@pytest.mark.parametrize("inverse_strength", [1e-6, 1e-3, 1.0, 1e6])
def test_any_number_of_classes_an_image_is_a_regression_for_each(inverse_strength: float) -> None:
    features, target = digits()
    numbers = target[:FITTED]
    relevant = torch.stack([numbers % 2 == 0, numbers > 6, numbers == 3], dim=1)
    regression = LogisticRegression(features[:FITTED], AnyOf(relevant, torch.ones_like(relevant)))
    fit = regression.fit(inverse_strength, tolerance=1e-5)
    for column in range(3):
        expected = reference(features[:FITTED], relevant[:, column].numpy(), inverse_strength)
        assert_near(fit.weights[column], expected.coef_[0])
        np.testing.assert_allclose(
            fit.logits(features)[:, column].sigmoid(),
            expected.predict_proba(features.numpy())[:, 1],
            atol=COEFFICIENTS,
            rtol=0,
        )


def test_examples_that_are_not_judged_do_not_matter() -> None:
    features, target = digits()
    relevant = torch.stack([target[:200] < 5, target[:200] > 7], dim=1)
    judged = torch.ones_like(relevant)
    judged[50:, 0] = False
    fit = LogisticRegression(features[:200], AnyOf(relevant, judged)).fit(1e-3)
    expected = reference(features[:50], relevant[:50, 0].numpy(), 1e-3)
    assert_near(fit.weights[0], expected.coef_[0])


def test_a_fit_that_was_stopped_says_so() -> None:
    features, target = digits()
    fit = LogisticRegression(features[:FITTED], OneOf(target[:FITTED], 10)).fit(
        1.0, max_iterations=3, max_products=4
    )
    assert not fit.converged
    assert (fit.iterations, fit.products) == (3, 4)
    assert fit.gradient > logistic_regression.TOLERANCE


def test_classes_that_never_differ_are_told_by_their_intercepts() -> None:
    fit = LogisticRegression(torch.ones(8, 3), OneOf(torch.tensor([0, 0, 0, 0, 0, 1, 1, 2]), 3)).fit(1.0)
    assert fit.converged
    np.testing.assert_allclose(
        fit.logits(torch.ones(1, 3)).softmax(1)[0], [5 / 8, 2 / 8, 1 / 8], atol=COEFFICIENTS
    )


def test_a_class_without_examples_has_no_minimum() -> None:
    features, target = digits(classes=2)
    with pytest.raises(ValueError, match="class 2: no example"):
        LogisticRegression(features, OneOf(target, 3))
    flags = torch.ones(len(target), 1, dtype=torch.bool)
    with pytest.raises(ValueError, match="class 0: no example of anything else"):
        LogisticRegression(features, AnyOf(flags, flags))


def test_a_device_without_float64_leaves_fitting_to_the_processor() -> None:
    assert fitting_device(torch.device("mps")) == torch.device("cpu")
    assert fitting_device(torch.device("cuda", 1)) == torch.device("cuda", 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_finds_the_same_minimum() -> None:
    features, target = digits()
    likelihood = OneOf(target, 10)
    there = LogisticRegression(features.cuda(), likelihood).fit(1e-2, tolerance=1e-7)
    here = LogisticRegression(features, likelihood).fit(1e-2, tolerance=1e-7)
    # Sums in another order; both are within the tolerance of the one minimum.
    torch.testing.assert_close(there.weights.cpu(), here.weights, atol=1e-5, rtol=0)
    assert torch.equal(there.logits(features.cuda()).argmax(1), here.logits(features).argmax(1))
