"""What residuals and their weights may be, and what is said of those that are not."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import dense_net

import trainloop as tl
from trainloop.objectives.losses import choose
from trainloop.objectives.residuals import ResidualLoss

P = np.ones((4, 2))


@pytest.fixture
def model():
    return keras.Sequential([keras.Input((2,), dtype="float64"), keras.layers.Dense(1, dtype="float64")])


@pytest.mark.parametrize(
    ("residuals", "weights", "words"),
    [
        ({}, None, "at least one term, received an empty dict"),
        ({"a": 3}, None, r"residuals\['a'\] must be a function \(model, points\)"),
        ({1: abs}, None, "non-empty strings as names, received 1"),
        (keras.losses.MeanSquaredError, None, "must be a function"),
        ({"pde": abs}, {"pdf": 1.0}, r"loss_weights has 'pdf'.*did you mean 'pde'"),
        ({"pde": abs}, {"pde": -1.0}, r"loss_weights\['pde'\] must be a finite number at least 0"),
        ({"pde": abs}, 3.0, "loss_weights must be a dict"),
    ],
)
def test_arguments_that_are_none(residuals, weights, words):
    with pytest.raises(ValueError, match=words):
        ResidualLoss(residuals, weights)


@pytest.mark.parametrize(
    ("residual", "batch", "words"),
    [
        (lambda m, p: None, P, "received None; end it with a return"),
        (lambda m, p: tf.reduce_mean(m(p)), P, r"one row for each point, received shape \(\); do not reduce it"),
        (lambda m, p: tf.ones([4], tf.int32), P, "received int32"),
        ({"pde": lambda m, p: m(p)}, P, "need their points by name"),
        ({"pde": lambda m, p: m(p)}, {"pdf": P}, r"no points for the residual 'pde' \(did you mean 'pdf'"),
    ],
)
def test_what_a_residual_must_not_return(model, residual, batch, words):
    with pytest.raises(ValueError, match=words):
        choose(residuals=residual)(model, batch, True)


def test_f_is_the_weighted_sum_of_means_of_squares(model):
    batch = {"a": P, "b": 2 * P[:2]}
    weight = tf.Variable(3.0, dtype=tf.float64)
    loss = choose(residuals={"a": lambda m, p: m(p), "b": lambda m, p: m(p)[:, 0] - 1}, loss_weights={"b": weight})
    kernel, bias = (v.numpy() for v in model.trainable_variables)
    expected = np.mean((P @ kernel + bias) ** 2) + 3 * np.mean((2 * P[:2] @ kernel + bias - 1) ** 2)
    assert float(loss(model, batch, True)[0]) == pytest.approx(expected, rel=1e-13)
    weight.assign(0.0)
    assert float(loss(model, batch, True)[0]) == pytest.approx(np.mean((P @ kernel + bias) ** 2), rel=1e-13)


def test_a_residual_may_ask_whether_it_trains(model):
    seen = []

    def residual(model, points, training):
        seen.append(training)
        return model(points, training=training)

    loss = choose(residuals=residual)
    loss(model, P, True)
    loss(model, P, False)
    assert seen == [True, False]


def test_microbatches_of_one_length_are_exact_and_others_raise(model):
    rng = np.random.default_rng(0)
    batch = {"a": rng.normal(size=(5, 2)), "b": rng.normal(size=(5, 2))}
    residuals = {"a": lambda m, p: m(p), "b": lambda m, p: m(p) - 1}
    whole = tl.ModelObjective(model, residuals=residuals, batch=batch)
    parts = tl.ModelObjective(model, residuals=residuals, batch=batch, microbatch_size=2)
    x, v = whole.vector.read(), tf.constant(rng.normal(size=3))
    for method, arguments in (("value", (x,)), ("value_and_grad", (x,)), ("ggnvp", (x, v)), ("first_pass", ())):
        pairs = zip(*(tf.nest.flatten(getattr(o, method)(*arguments)) for o in (whole, parts)), strict=True)
        for a, b in pairs:
            np.testing.assert_allclose(a, b, rtol=1e-12)
    unequal = {**batch, "b": batch["b"][:3]}
    with pytest.raises(ValueError, match=r"different numbers \(3, 5\)"):
        tl.ModelObjective(model, residuals=residuals, batch=unequal, microbatch_size=2).value(x)


def test_a_loss_function_may_return_terms():
    model = dense_net(2)
    loss = choose(loss_fn=lambda m, b: {"a": tf.constant(2.0), "b": tf.constant(3.0)}, loss_weights={"a": 10.0})
    f, terms = loss(model, P, True)
    assert float(f) == 23.0
    assert {name: float(value) for name, value in terms.items()} == {"a": 2.0, "b": 3.0}
    assert loss.names == ("a", "b")


@pytest.mark.parametrize(
    ("returned", "weights", "words"),
    [
        ({}, None, r"a dict of scalars by name, received the keys \[\]"),
        ({"a": tf.ones([2])}, None, "must be a scalar, received shape"),
        (tf.constant(1.0), {"a": 1.0}, "loss_weights need a loss_fn that returns a dict"),
        ({"a": tf.constant(1.0)}, {"b": 1.0}, "loss_weights has 'b'"),
    ],
)
def test_terms_that_are_none(returned, weights, words):
    with pytest.raises(ValueError, match=words):
        choose(loss_fn=lambda m, b: returned, loss_weights=weights)(dense_net(2), P, True)


def test_exactly_one_of_three():
    with pytest.raises(ValueError, match="give exactly one of loss"):
        choose(loss="mse", residuals=lambda m, p: m(p))
