"""f and g of a batch, against central differences and closed forms."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import blobs, crossentropy, dense_net

from trainloop import ModelObjective, VariableVector
from trainloop.batch_loss import CustomLoss, SupervisedLoss


def embedding_net():
    """Token pairs: the gradient of the table is sparse, and rows repeat within a batch."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Input((4,), dtype="int32"), keras.layers.Embedding(6, 3), keras.layers.Flatten()]
    return keras.Sequential([*layers, keras.layers.Dense(3, kernel_regularizer="l2")])


def normalised_net():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Input((6,)), keras.layers.Dense(5), keras.layers.BatchNormalization(), keras.layers.Dense(3)]
    return keras.Sequential(layers)


def tokens():
    rng = np.random.default_rng(0)
    return rng.integers(0, 5, (10, 4)).astype("int32"), rng.integers(0, 3, 10).astype("int32")


def objective_of(model, batch, loss=None, **options):
    return ModelObjective(model, loss or crossentropy(), batch, **options)


@pytest.mark.parametrize(
    ("net", "batch"), [(dense_net, blobs(12)), (normalised_net, blobs(12)), (embedding_net, tokens())]
)
def test_the_gradient_is_that_of_central_differences(net, batch):
    objective = objective_of(net(), batch)
    vector = objective.vector
    x, (_, g) = vector.read(), objective.first_pass()
    rng, h = np.random.default_rng(1), 1e-5
    for _ in range(10):
        v = rng.normal(size=x.shape[0])
        values = []
        for sign in (1, -1):
            vector.assign(x + sign * h * v)
            values.append(float(objective.first_pass()[0]))
        assert (values[0] - values[1]) / (2 * h) == pytest.approx(float(g.numpy() @ v), rel=1e-6, abs=1e-8)


def test_a_first_pass_moves_averages_but_not_the_point():
    seen = []
    objective = objective_of(normalised_net(), blobs(12), observe=lambda _, predictions: seen.append(predictions))
    x = objective.vector.read().numpy()
    averages = [v.numpy() for v in objective.model.non_trainable_variables]
    objective.first_pass()
    np.testing.assert_array_equal(objective.vector.read(), x)
    assert any(
        np.any(v.numpy() != old) for v, old in zip(objective.model.non_trainable_variables, averages, strict=True)
    )
    assert [tuple(p.shape) for p in seen] == [(12, 3)]


@pytest.mark.parametrize("kind", ["name", "object", "function"])
def test_losses_of_every_kind_mean_the_same(kind):
    loss = {
        "name": "mse",
        "object": keras.losses.MeanSquaredError(),
        "function": lambda y, p: tf.reduce_mean((y - p) ** 2, -1),
    }[kind]
    model = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(2)])
    x, y = blobs(12)[0], np.random.default_rng(0).normal(size=(12, 2))
    f, _ = objective_of(model, (x, y), SupervisedLoss(loss)).first_pass()
    assert float(f) == pytest.approx(np.mean((model(x).numpy() - y) ** 2), rel=1e-12)


def test_own_losses_are_added():
    model = keras.Sequential(
        [keras.layers.Input((6,)), keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.5))]
    )
    batch = blobs(12)
    f, _ = objective_of(model, batch).first_pass()
    plain = float(crossentropy()(batch[1], model(batch[0])))
    assert float(f) == pytest.approx(plain + 0.5 * np.sum(model.trainable_variables[0].numpy() ** 2), rel=1e-12)


def test_a_variable_without_gradient_is_named():
    model = dense_net()
    last = model.layers[-1]
    loss = CustomLoss(lambda model, batch: tf.reduce_sum(last.kernel.value**2))
    with pytest.warns(UserWarning, match="bias"):
        _, g = objective_of(model, blobs(12), loss).first_pass()
    layout = VariableVector(model.trainable_variables).layout
    np.testing.assert_allclose(g[layout.span(last.kernel.path)], 2 * np.ravel(last.kernel.numpy()))
    assert np.count_nonzero(g) == last.kernel.numpy().size


def test_unknown_losses_are_refused():
    with pytest.raises(ValueError, match="nothing_like_it"):
        SupervisedLoss("nothing_like_it")
