"""What a look finds, where a closed form says what is there: a linear model and squared errors."""

import keras
import numpy as np
import pytest

import trainloop as tl
from trainloop.inspecting import findings

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 5)), RNG.normal(size=(40, 1))


@pytest.fixture
def seen():
    """(Findings, weights) of f(w) = |X w - y|^2 / 40, before a step of gradient descent with rate 0.1."""
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1, use_bias=False, dtype="float64")])
    loop = tl.TrainLoop(model, tl.SimpleGD(0.1), "mse")
    operator = tl.curvature(model, "mse", data=(X, Y))
    found = findings.look(operator, loop.inspect(tl.ArrayData(X, Y, None)), k=3, seed=0)
    return found, operator.x.numpy()


def test_eigenvalues_are_those_of_numpy(seen):
    found, _ = seen
    expected = np.linalg.eigvalsh(2 * X.T @ X / 40)[::-1][:3]
    np.testing.assert_allclose(found.eigenvalues, expected, rtol=1e-9)
    assert found.spectrum.nodes.max() == pytest.approx(expected[0], rel=1e-9)


def test_lines_and_plane_have_the_loss(seen):
    found, w = seen

    def f(points):
        return np.mean((points @ X.T - Y[:, 0]) ** 2, -1)

    g = 2 * X.T @ (X @ w - Y[:, 0]) / 40
    directions = {"the step": -0.1 * g, "eigenvector 1": found.eigenvectors[:, 0], "-g": -g / np.linalg.norm(g)}
    lines = {line.name: line for line in found.lines}
    for name, d in directions.items():
        np.testing.assert_allclose(lines[name].losses, f(w + lines[name].t[:, None] * d), rtol=1e-10)
        np.testing.assert_allclose(lines[name].model, lines[name].losses, rtol=1e-8)  # f is its quadratic model
    plane, v = found.plane, found.eigenvectors[:, 0]
    points = w + plane.a[None, :, None] * (-0.1 * g) + plane.b[:, None, None] * v
    np.testing.assert_allclose(plane.losses, f(points), rtol=1e-10)
