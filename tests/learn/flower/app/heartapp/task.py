"""heartapp: model and data."""

import numpy as np


def load_data(path):
    """Last column is the outcome; the others are scaled to mean 0, variance 1."""
    table = np.genfromtxt(path, delimiter=",", skip_header=1)
    x, y = table[:, :-1], table[:, -1]
    x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-9)
    return x, y


def train(model, data, lr, epochs):
    (coef, intercept), (x, y) = model, data
    for _ in range(epochs):
        p = 1 / (1 + np.exp(-(x @ coef + intercept)))
        coef = coef - lr * x.T @ (p - y) / len(y)
        intercept = intercept - lr * np.mean(p - y)
    loss = -np.mean(y * np.log(p + 1e-9) + (1 - y) * np.log(1 - p + 1e-9))
    return coef.astype(np.float32), np.asarray(intercept, np.float32).reshape(1), float(loss)
