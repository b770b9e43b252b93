"""Programs as users of other packages have them, with one line changed: they reach what SciPy reaches from there."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from scipy.optimize import minimize as scipy_minimize

import trainloop as tl

pytestmark = pytest.mark.thorough


def found_by_scipy(model, loss, x, y, method, **options):
    """The least loss that SciPy finds from where the model is; the model is left as it was."""
    objective = tl.ModelObjective(model, loss, (x, y))
    start, evaluate = objective.vector.read(), tf.function(objective.value_and_grad)

    def f_and_g(w):
        f, g = evaluate(tf.constant(w))
        return float(f), g.numpy()

    return scipy_minimize(f_and_g, start.numpy(), jac=True, method=method, options=options).fun


def test_a_regularised_classifier_of_a_batch_optimizer():
    """As with kormos: one convex problem, all samples in every step, L-BFGS."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 5)), rng.integers(3, size=200)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.01))])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    expected = found_by_scipy(model, loss, x, y, "L-BFGS-B", gtol=1e-9, ftol=1e-15)
    model = tl.VectorModel(model)
    model.compile(tl.LBFGS(), loss=loss)
    model.fit(x, y, batch_size=200, epochs=60, verbose=0)
    assert model.evaluate(x, y, batch_size=200, verbose=0) == pytest.approx(expected, rel=1e-6)


def test_a_small_network_under_bfgs():
    """As with tf2-bfgs: a curve through a few points, all of them in every step."""
    x = np.linspace(-1, 1, 40)[:, None]
    y = np.sin(3 * x) + x**2
    model = keras.Sequential([keras.Input((1,)), layers.Dense(8, "tanh"), layers.Dense(1)])
    expected = found_by_scipy(model, "mse", x, y, "L-BFGS-B", maxiter=300, ftol=0, gtol=0)
    batches = tf.data.Dataset.from_tensors((x, y)).repeat()
    model = tl.VectorModel(model)
    model.compile(tl.BFGS(), loss="mse")
    model.fit(batches, steps_per_epoch=300, shuffle=False, verbose=0)
    assert model.evaluate(x, y, batch_size=40, verbose=0) <= expected


def test_a_curve_under_levenberg_marquardt():
    """As with tf-levenberg-marquardt: sin(10 x) / (10 x) at 20,000 points, in batches of 1000."""
    x = np.linspace(-1, 1, 20_000)[:, None]
    y = np.sin(10 * x) / (10 * x)
    model = tl.VectorModel(keras.Sequential([keras.Input((1,)), layers.Dense(20, "tanh"), layers.Dense(1)]))
    model.compile(tl.LevenbergMarquardt(), loss="mse")
    model.fit(x, y, batch_size=1000, epochs=15, verbose=0)
    assert model.evaluate(x, y, batch_size=20_000, verbose=0) < 1e-8
