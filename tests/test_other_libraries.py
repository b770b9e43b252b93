"""Closures over the variables of other libraries, as the docs show them, against the optimizers of those libraries."""

import contextlib
import io

import numpy as np
import pytest
import tensorflow as tf
from documentation import run_blocks
from environment import ROOT

import trainloop as tl

PAGE = ROOT / "docs" / "from-a-working-program.md"

# What other libraries warn of when they are imported, and run, is not this package's.
pytestmark = [pytest.mark.thorough, pytest.mark.filterwarnings("ignore")]


def imported(library, monkeypatch):
    """The library, if it is installed; its absence is the reason why a test is skipped."""
    monkeypatch.setenv("DDE_BACKEND", "tensorflow")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return pytest.importorskip(library, exc_type=ImportError)


def test_gpflow_ends_where_its_own_optimizer_does(monkeypatch):
    gpflow = imported("gpflow", monkeypatch)
    names = run_blocks(PAGE, needs="gpflow")
    same = gpflow.models.GPR((names["x"], names["y"]), gpflow.kernels.Matern52())
    options = {"gtol": 1e-8, "ftol": 1e-15}
    gpflow.optimizers.Scipy().minimize(same.training_loss, same.trainable_variables, options=options)
    assert names["found"].f == pytest.approx(float(same.training_loss()), rel=1e-6)
    assert float(names["model"].training_loss()) == pytest.approx(names["found"].f, rel=1e-12)


def test_deepxde_ends_no_higher_than_its_own_optimizer(monkeypatch):
    dde = imported("deepxde", monkeypatch)
    names = run_blocks(PAGE, needs="deepxde")
    model, found = names["model"], names["found"]

    def loss():
        return float(tf.reduce_sum(names["losses"]()))

    assert loss() == pytest.approx(found.f, rel=1e-9)
    for variable, value in zip(model.net.trainable_variables, names["after_adam"], strict=True):
        variable.assign(value)
    after_adam = loss()
    # Its steps are not compiled, and a hundred times as slow: it has a few of them.
    dde.optimizers.set_LBFGS_options(maxiter=15)
    model.compile("L-BFGS")
    model.train(display_every=100)
    assert found.f <= 1.01 * loss() < after_adam


def test_a_distribution_of_tensorflow_probability(monkeypatch):
    tfp = imported("tensorflow_probability", monkeypatch)
    sample = np.random.default_rng(0).normal(3.0, 2.0, 40)
    mean, deviation = (tf.Variable(v, dtype=tf.float64) for v in (0.0, 0.0))

    def negative_log_likelihood():
        return -tf.reduce_sum(tfp.distributions.Normal(mean, tf.exp(deviation)).log_prob(sample))

    tl.minimize(negative_log_likelihood, [mean, deviation], tl.LBFGS())
    np.testing.assert_allclose([mean, tf.exp(deviation)], [sample.mean(), sample.std()], rtol=1e-6)
