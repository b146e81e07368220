import warnings

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from paroma.learn.algorithms.query import Evaluate, Logistic, Marked, Outcome, Statistics
from paroma.learn.dp import accountants
from paroma.trust.permit.permit import Privacy

pytestmark = pytest.mark.data
HEART = ("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak")
NUM = Outcome(feature="num")
TRAIN, TEST = Marked(feature="fold", value=0.0, share=0.66), Marked(feature="fold", value=1.0)


def polished(x, y):
    """statsmodels on the pooled rows, then Newton until it stands still."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import statsmodels.api as sm

        b = np.asarray(sm.Logit(y, x).fit(method="newton", tol=1e-14, maxiter=50, disp=0).params)
    for _ in range(5):
        p = 1 / (1 + np.exp(-x @ b))
        hessian = (x * (p * (1 - p))[:, None]).T @ x
        b = b + np.linalg.solve(hessian, x.T @ (y - p))
    return b, np.sqrt(np.diag(np.linalg.inv(hessian))), -np.logaddexp(0, -(2 * y - 1) * (x @ b)).sum()


def test_federated_coefficients_and_errors_equal_the_polished_pooled_fit(heart, federate):
    fitted = federate(heart.tables).ask(Logistic(outcome=NUM, features=HEART), heart.features)
    b, errors, likelihood = polished(heart.x, heart.y)
    assert fitted.converged
    assert fitted.patients == 740
    assert fitted.steps <= 8
    assert np.abs(np.array(fitted.scaled) - b).max() < 1e-12
    assert np.abs(np.array(fitted.scaled_errors) - errors).max() < 1e-12
    assert abs(fitted.log_likelihood - likelihood) < 1e-8


def test_raw_units_give_the_same_predictions_and_the_errors_of_a_raw_fit(heart, federate):
    fitted = federate(heart.tables).ask(Logistic(outcome=NUM, features=HEART), heart.features)
    raw = [np.ones(740)]
    for name in HEART:
        value = heart.rows[name].to_numpy()
        if name in ("cp", "restecg"):
            raw += [(value == level).astype(float) for level in ((2, 3, 4) if name == "cp" else (1, 2))]
        else:
            feature = next(f for f in heart.features if f.name == name)
            raw.append(np.clip(value, feature.low, feature.high))
    raw = np.column_stack(raw)
    assert np.abs(raw @ np.array(fitted.raw) - heart.x @ np.array(fitted.scaled)).max() < 1e-11
    b, errors, _ = polished(raw, heart.y)
    assert np.allclose(fitted.raw, b, rtol=1e-8)
    assert np.allclose(fitted.raw_errors, errors, rtol=1e-8)


def accuracy(heart, b, *, by_site):
    right = (heart.x @ np.array(b) > 0) == (heart.y > 0)
    if by_site:
        return np.mean([right[heart.test & (heart.site == i)].mean() for i in range(4)])
    return right[heart.test].mean()


def test_ridge_one_on_flambys_split_reaches_the_goal(heart, federate, make_permit):
    federation = federate(heart.tables, make_permit(questions=40))
    fitted = federation.ask(Logistic(outcome=NUM, features=HEART, ridge=1.0, rows=TRAIN), heart.features)
    assert fitted.patients == 486
    assert fitted.scaled_errors is None
    judged = federation.ask(
        Evaluate(outcome=NUM, features=HEART, coefficients=fitted.scaled, rows=TEST), heart.features
    )
    truth = roc_auc_score(heart.y[heart.test], heart.x[heart.test] @ np.array(fitted.scaled))
    print(
        f"ridge 1: mean of sites {accuracy(heart, fitted.scaled, by_site=True):.3f}, AUROC {judged.auroc:.4f} ({truth:.4f})"
    )
    assert judged.patients == 254
    assert abs(judged.auroc - truth) <= judged.auroc_within < 2e-3
    assert judged.accuracy == pytest.approx(accuracy(heart, fitted.scaled, by_site=False), abs=1e-15)
    assert judged.auroc >= 0.87
    assert accuracy(heart, fitted.scaled, by_site=True) >= 0.79


@pytest.mark.parametrize("epsilon", [3.0])
def test_noisy_gradients_lose_little_at_epsilon_three(heart, federate, make_permit, epsilon):
    z = accountants.noise_multiplier(epsilon, 1e-5, 12)
    privacy = Privacy(epsilon=epsilon, delta=1e-5, noise_multiplier=z, clipping_norm=1.2, questions=12)
    figures = []
    for seed in range(6):
        federation = federate(heart.tables, make_permit(privacy=privacy, dropouts=0), seed)
        fitted = federation.ask(Logistic(outcome=NUM, features=HEART, steps=12, rows=TRAIN), heart.features)
        assert epsilon - 1e-6 <= fitted.spent.epsilon <= epsilon
        score = heart.x[heart.test] @ np.array(fitted.scaled)
        figures.append((accuracy(heart, fitted.scaled, by_site=True), roc_auc_score(heart.y[heart.test], score)))
    mean = np.mean(figures, axis=0)
    print(f"epsilon {epsilon}: mean of sites {mean[0]:.3f}, AUROC {mean[1]:.3f}, {len(figures)} seeds")
    assert mean[0] >= 0.785
    assert mean[1] >= 0.855


def test_statistics_equal_the_pooled_ones(heart, federate):
    found = federate(heart.tables).ask(Statistics(features=(*HEART, "num"), bins=10), heart.features)
    assert found.patients == 740
    for described in found.features:
        feature = next(f for f in heart.features if f.name == described.feature)
        values = heart.rows[described.feature].to_numpy()
        assert (described.count, described.missing) == (740, 0)
        assert sum(cell.count for cell in described.cells) == 740
        if feature.kind == "number":
            values = np.clip(values, feature.low, feature.high)
            assert described.mean == pytest.approx(values.mean(), rel=1e-11)
            assert described.variance == pytest.approx(values.var(ddof=1), rel=1e-10)
        else:
            for cell in described.cells:
                value = {"no": 0.0, "yes": 1.0}.get(cell.label, cell.label)
                if cell.label != "all other":
                    assert cell.count == (values == float(value)).sum()


def test_without_its_cut_a_row_reaches_further_than_the_norm(heart):
    """The planted defect of the clip: rows of the heart data are really longer than the norm."""
    p = np.full(740, 0.5)
    assert (np.linalg.norm(heart.x * (heart.y - p)[:, None], axis=1) > 1.2).all()
