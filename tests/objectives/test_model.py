"""f, g, H v and G v of models on a batch, against central differences and closed forms.

Every network is small and has one thing that is hard to differentiate, to repeat or to leave alone. What its objective
gives near one point is computed once, and the tests share it.
"""

import functools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from environment import seed_generators
from keras import layers
from networks import blobs, crossentropy, dense_net, stateful_net

from trainloop import LBFGS, ArrayData, LeastSquares, ModelObjective, Momentum, Objective, TrainLoop, VariableVector
from trainloop.objectives import derivatives
from trainloop.objectives.losses import CustomLoss, SupervisedLoss

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")

STEP = 1e-5  # of central differences
NORMALISED = ("batch normalisation", "layer normalisation", "group normalisation")


def sequential(shape, *parts, dtype=None):
    seed_generators()
    return keras.Sequential([layers.Input(shape, dtype=dtype), *parts, layers.Dense(3)])


def normal(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape)


def normalised(layer):
    return sequential((4,), layers.Dense(4), layer, layers.Activation("tanh")), normal(7, 4)


def convolutional():
    first, second = layers.Conv2D(2, 3, activation="tanh"), layers.Conv2D(2, 2, padding="same", activation="softplus")
    pools = layers.MaxPooling2D(2), layers.AveragePooling2D(2)
    return sequential((6, 6, 1), first, pools[0], second, pools[1], layers.Flatten()), normal(5, 6, 6, 1)


def attentive():
    seed_generators()
    x = keras.Input((3, 2))
    attended = layers.MultiHeadAttention(2, 1, dropout=0.2, seed=4)(x, x)
    return keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling1D()(x + attended))), normal(5, 3, 2)


NETS = {
    "dense": lambda: (sequential((4,), layers.Dense(4, "tanh", kernel_regularizer="l2")), normal(7, 4)),
    "convolution": convolutional,
    "batch normalisation": lambda: normalised(layers.BatchNormalization()),
    "layer normalisation": lambda: normalised(layers.LayerNormalization()),
    "group normalisation": lambda: normalised(layers.GroupNormalization(2)),
    "dropout": lambda: (sequential((4,), layers.Dense(4, "tanh"), layers.Dropout(0.4, seed=1)), normal(7, 4)),
    "embedding": lambda: (
        sequential((3,), layers.Embedding(5, 2), layers.Flatten(), layers.Activation("tanh"), dtype="int32"),
        np.random.default_rng(0).integers(0, 4, (7, 3)).astype("int32"),
    ),
    "lstm": lambda: (sequential((3, 2), layers.LSTM(1)), normal(5, 3, 2)),
    "attention": attentive,
}
every_net = pytest.mark.parametrize("name", NETS)


class Studied:
    """An objective, what its methods warned of, and what they give at one point, twice, and on both sides of it."""

    def __init__(self, name):
        self.model, inputs = NETS[name]()
        self.batch = inputs, np.random.default_rng(2).integers(0, 3, len(inputs)).astype("int32")
        self.objective = ModelObjective(self.model, crossentropy(), self.batch)
        self.before = values(self.model)
        read = self.objective.vector.read().numpy()
        rng = np.random.default_rng(3)
        self.x, self.v = read + 0.1 * rng.normal(size=read.size), rng.normal(size=read.size)
        self._values = tf.function(lambda x: (self.objective.value(x), *self.objective.value_and_grad(x)))
        self._matrix = tf.function(self.objective.ggn, autograph=False)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            self.here, self.again = self.everything(), self.everything()
        self.warned = [str(w.message) for w in warned]
        self.ahead, self.behind = (self.values_at(self.x + h * self.v) for h in (STEP, -STEP))

    def values_at(self, x):
        return dict(zip(("value", "f", "g"), (t.numpy() for t in self._values(tf.constant(x))), strict=True))

    def everything(self):
        x, v = tf.constant(self.x), tf.constant(self.v)
        products = {"hvp": self.objective.hvp(x, v), "ggnvp": self.objective.ggnvp(x, v), "ggn": self._matrix(x)}
        return self.values_at(x) | {key: t.numpy() for key, t in products.items()}

    def along_v(self, key):
        """The derivative along v by central differences."""
        return (self.ahead[key] - self.behind[key]) / (2 * STEP)


@functools.cache
def studied(name):
    return Studied(name)


def values(model):
    return [v.numpy().copy() for v in model.variables]


def assert_same_bits(left, right):
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


def relative(a, b):
    return np.linalg.norm(np.subtract(a, b)) / np.linalg.norm(b)


def central(function, x, v, h=STEP):
    """The derivative of a function along v."""
    return (function(x + h * v) - function(x - h * v)) / (2 * h)


def jacobian_of_predictions(net):
    """(predictions [b, 3], J [b, 3, n]): Keras's own stateless call on the variables as they were at the start."""
    model, variables = net.model, net.model.trainable_variables
    is_frozen = [all(v is not t for t in variables) for v in model.variables]
    frozen = [value for value, chosen in zip(net.before, is_frozen, strict=True) if chosen]
    frozen_variables = [v for v, chosen in zip(model.variables, is_frozen, strict=True) if chosen]
    order = {id(v): value for v, value in zip(frozen_variables, frozen, strict=True)}

    @functools.partial(tf.function, autograph=False)
    def predict(x):
        ends = np.cumsum([int(np.prod(v.shape)) for v in variables])
        pieces = [tf.reshape(x[end - np.prod(v.shape) : end], v.shape) for end, v in zip(ends, variables, strict=True)]
        constants = [tf.constant(order[id(v)]) for v in model.non_trainable_variables]
        return model.stateless_call(pieces, constants, net.batch[0], training=True)[0]

    columns = [central(lambda x: predict(x).numpy(), net.x, e) for e in np.eye(len(net.x))]
    return predict(net.x).numpy(), np.stack(columns, -1)


def explicit_gauss_newton(net):
    """J' L J with L = diag(p) - p p' of the softmax, averaged over the batch; and the Hessian of the L2 regulariser."""
    z, J = jacobian_of_predictions(net)
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    L = np.stack([np.diag(row) - np.outer(row, row) for row in p]) / len(z)
    strength = [0.02 if v.regularizer is not None else 0 for v in net.model.trainable_variables]
    sizes = [int(np.prod(v.shape)) for v in net.model.trainable_variables]
    return np.einsum("bin,bij,bjm->nm", J, L, J) + np.diag(np.repeat(strength, sizes))


# --- Derivatives, layer by layer --------------------------------------------------------------------------


@every_net
@pytest.mark.thorough_after(1)
def test_gradients_are_central_differences_of_values(name):
    net = studied(name)
    assert net.here["g"] @ net.v == pytest.approx(net.along_v("value"), rel=1e-6)


@every_net
@pytest.mark.thorough_after(6)  # from the embedding on
def test_hessian_products_are_central_differences_of_gradients(name):
    net = studied(name)
    assert relative(net.here["hvp"], net.along_v("g")) < 1e-6


@every_net
def test_the_gauss_newton_matrix_is_that_of_explicit_first_derivatives(name):
    net = studied(name)
    G = explicit_gauss_newton(net)
    assert relative(net.here["ggn"], G) < 1e-7
    assert relative(net.here["ggnvp"], G @ net.v) < 1e-7


@every_net
def test_columns_of_the_gauss_newton_matrix_are_its_products_and_it_is_symmetric_and_semidefinite(name):
    net = studied(name)
    G = net.here["ggn"]
    np.testing.assert_allclose(net.here["ggnvp"], G @ net.v, rtol=1e-12, atol=1e-13 * np.abs(G).max())
    np.testing.assert_array_equal(G, G.T)
    assert np.linalg.eigvalsh(G)[0] > -1e-13 * np.abs(G).max()


@every_net
def test_the_same_x_gives_the_same_bits(name):
    net = studied(name)
    assert net.here["value"] == net.here["f"]
    assert_same_bits(net.again.values(), net.here.values())


@every_net
def test_evaluating_leaves_every_variable_as_it_was(name):
    net = studied(name)
    assert len(net.before) == len(net.model.variables)
    assert_same_bits(values(net.model), net.before)


@every_net
def test_only_normalisation_is_warned_of_and_once(name):
    net = studied(name)
    assert [message[:24] for message in net.warned] == ["the loss stops gradients"] * (name in NORMALISED)


@pytest.mark.parametrize("name", NORMALISED)
@pytest.mark.thorough_after(1)
def test_autodiff_alone_would_be_wrong_through_normalisation(name):
    net = studied(name)
    x, v = tf.constant(net.x), tf.constant(net.v)
    wrong = derivatives.hvp(net.objective.value, x, v)
    assert relative(wrong, net.along_v("g")) > 1e-3


def test_every_objective_warns_once_of_normalisation():
    model = sequential((2,), layers.LayerNormalization())
    for _ in range(2):
        objective = objective_of(model, (normal(3, 2), np.zeros(3, "int32")))
        x = objective.vector.read()
        with pytest.warns(UserWarning, match="the loss stops gradients") as caught:
            objective.hvp(x, x)
        assert len(caught) == 1
        objective.hvp(x, x)  # a second warning would be an error


def test_the_methods_give_in_compiled_functions_what_they_give_outside():
    net = studied("dropout")
    x, v, methods = tf.constant(net.x), tf.constant(net.v), net.objective
    products = tf.function(lambda x, v: (methods.hvp(x, v), methods.ggnvp(x, v)), autograph=False)
    for product, key in zip(products(x, v), ("hvp", "ggnvp"), strict=True):
        np.testing.assert_allclose(product, net.here[key], rtol=1e-12, atol=1e-14)
    f, g = methods.value_and_grad(x)
    assert float(f) == float(methods.value(x)) == pytest.approx(net.here["f"], rel=1e-14)
    np.testing.assert_allclose(g, net.here["g"], rtol=1e-12, atol=1e-15)
    assert_same_bits(values(net.model), net.before)


def own_hessian_product(layer):
    """(G v with the activity regulariser of a layer less that without, the same by central differences)."""
    inputs, targets = normal(7, 4), np.arange(7, dtype="int32") % 3
    model = sequential((4,), layers.Dense(4), layer, layers.Activation("tanh"))
    objective = objective_of(model, (inputs, targets))
    rng = np.random.default_rng(0)
    x, v = (tf.constant(rng.normal(size=objective.vector.layout.size)) for _ in range(2))

    def own(model, batch):
        model(batch[0], training=True)
        return tf.add_n(model.losses)

    own_objective = ModelObjective(model, loss_fn=own, batch=(inputs, targets))
    expected = central(lambda x: own_objective.value_and_grad(x)[1].numpy(), x, v)
    with_own = objective.ggnvp(x, v).numpy()
    layer.activity_regularizer = None
    return with_own - objective_of(model, (inputs, targets)).ggnvp(x, v).numpy(), expected


@pytest.mark.parametrize("layer", [layers.Dense, layers.BatchNormalization])
@pytest.mark.filterwarnings("ignore:the loss stops gradients")
@pytest.mark.thorough_after(1)
def test_the_gauss_newton_matrix_has_the_hessian_of_activity_regularisers(layer):
    options = {"activity_regularizer": keras.regularizers.L2(0.1)}
    product, expected = own_hessian_product(layer(4, **options) if layer is layers.Dense else layer(**options))
    assert relative(product, expected) < 1e-6


@pytest.mark.filterwarnings("ignore:the loss stops gradients")
def test_the_gauss_newton_matrix_of_a_linear_model_is_the_hessian_for_losses_that_normalise_too():
    def loss(targets, predictions):
        mean, variance = tf.nn.moments(predictions, -1, keepdims=True)
        return tf.reduce_mean(((predictions - mean) / tf.sqrt(variance + 0.1) - targets) ** 2, -1)

    objective = objective_of(sequential((4,)), (normal(7, 4), normal(7, 3)), SupervisedLoss(loss))
    rng = np.random.default_rng(0)
    x, v = (tf.constant(rng.normal(size=objective.vector.layout.size)) for _ in range(2))
    expected = central(lambda x: objective.value_and_grad(x)[1].numpy(), x, v)
    assert relative(objective.ggnvp(x, v), expected) < 1e-6


# --- Values and gradients where the variables are ----------------------------------------------------------


def embedding_net():
    """Token pairs: the gradient of the table is sparse, and rows repeat within a batch."""
    seed_generators()
    layers = [keras.layers.Input((4,), dtype="int32"), keras.layers.Embedding(6, 3), keras.layers.Flatten()]
    return keras.Sequential([*layers, keras.layers.Dense(3, kernel_regularizer="l2")])


def normalised_net():
    seed_generators()
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


# --- The first pass ---------------------------------------------------------------------------------------


def trained_by_keras(model, batches):
    """Keras's own training steps, of length zero."""
    model.compile(keras.optimizers.SGD(0.0), crossentropy(), run_eagerly=True)
    for batch in batches:
        model.train_on_batch(*batch)
    return values(model)


def averages_and_seeds(model):
    return [v.numpy() for v in model.non_trainable_variables]


@pytest.mark.parametrize("net", [stateful_net, lambda: NETS["attention"]()[0]])
@pytest.mark.thorough_after(1)
def test_a_first_pass_advances_averages_and_seeds_as_a_training_step_of_keras_does(net):
    inputs = blobs(12)[0] if net is stateful_net else normal(12, 3, 2)
    batch = inputs, blobs(12)[1]
    model = net()
    start = values(model)
    for _ in range(2):
        objective_of(model, batch).first_pass()
    ours, reference = values(model), trained_by_keras(net(), [batch, batch])
    for a, b in zip(ours, reference, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)
    assert any(np.any(a != b) for a, b in zip(ours, start, strict=True))


def test_a_first_pass_sees_what_every_further_evaluation_sees():
    objective = objective_of(stateful_net(), blobs(12))
    x = objective.vector.read()
    f, g = objective.first_pass()
    f_again, g_again = objective.value_and_grad(x)
    assert float(f) == pytest.approx(float(f_again), rel=1e-14)
    np.testing.assert_allclose(g, g_again, rtol=1e-12, atol=1e-15)


# --- Microbatches -----------------------------------------------------------------------------------------

COUNT = 6


def regression_batch(weighted):
    rng = np.random.default_rng(4)
    weight = (np.array([0.0, 0, 0, 0, 2, 0.5]),) if weighted else ()  # the first part of four counts nothing
    return normal(COUNT, 4), rng.normal(size=(COUNT, 3)), *weight


def regularised_net():
    return sequential((4,), layers.Dense(4, "tanh", kernel_regularizer="l2", activity_regularizer="l2"))


def all_of(objective, x, v, products=("hvp", "ggnvp")):
    parts = objective.value(x), *objective.value_and_grad(x), *objective.first_pass()
    return [t.numpy() for t in (*parts, *(getattr(objective, name)(x, v) for name in products))]


def whole_and_parts(model, batch, size, products=("hvp", "ggnvp"), **loss):
    results = []
    for microbatch_size in (None, size):
        objective = ModelObjective(model, batch=batch, microbatch_size=microbatch_size, **loss)
        x = objective.vector.read()
        v = tf.constant(np.random.default_rng(5).normal(size=x.shape[0]))
        results.append(all_of(objective, x, v, products))
    return results


def assert_equal_sums(whole, parts):
    for a, b in zip(whole, parts, strict=True):
        assert a.shape == b.shape
        assert np.linalg.norm(a - b) <= 1e-12 * np.linalg.norm(a)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("reduction", ["sum", "sum_over_batch_size", "mean_with_sample_weight"])
def test_microbatches_add_up_to_the_whole_for_every_reduction(reduction, weighted):
    loss = keras.losses.LogCosh(reduction=reduction)
    assert_equal_sums(*whole_and_parts(regularised_net(), regression_batch(weighted), 4, loss=loss))


@pytest.mark.parametrize("size", [2, 6, 100])
@pytest.mark.thorough_after(1)
def test_microbatches_of_any_size_add_up_to_the_whole(size):
    assert_equal_sums(*whole_and_parts(regularised_net(), regression_batch(False), size, loss="mse"))


def test_gauss_newton_matrices_of_microbatches_add_up():
    model, batch = regularised_net(), regression_batch(True)
    whole, parts = (ModelObjective(model, "log_cosh", batch, microbatch_size=size) for size in (None, 4))
    both = tf.function(lambda x: (whole.ggn(x), parts.ggn(x)), autograph=False)
    expected, G = (matrix.numpy() for matrix in both(whole.vector.read()))
    np.testing.assert_array_equal(G, G.T)
    assert relative(G, expected) < 1e-12


def test_microbatches_add_up_for_own_loss_functions():
    def loss_fn(model, batch, training):
        return tf.reduce_mean((model(batch["in"], training=training) - batch["out"]) ** 4) + tf.add_n(model.losses)

    x, y = regression_batch(False)
    batch = {"in": x, "out": y}
    assert_equal_sums(*whole_and_parts(regularised_net(), batch, 4, ("hvp",), loss_fn=loss_fn))


def test_microbatches_add_up_for_models_of_several_inputs():
    seed_generators()
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
    model = keras.Model({"a": a, "b": b}, layers.Dense(3)(layers.Concatenate()([a, b])))
    x, y = regression_batch(False)
    assert_equal_sums(*whole_and_parts(model, ({"a": x[:, :2], "b": x[:, 2:]}, y), 2, loss="mse"))


def test_weights_that_are_all_zero_give_zero_in_microbatches_as_in_the_whole():
    x, y = regression_batch(False)
    loss = keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")
    assert_equal_sums(*whole_and_parts(regularised_net(), (x, y, np.zeros(COUNT)), 3, loss=loss))


@pytest.mark.parametrize("reduction", ["sum", "sum_over_batch_size", "mean_with_sample_weight"])
def test_masked_samples_count_in_microbatches_as_in_the_whole_or_are_refused(reduction):
    """The mean over a masked sequence divides by the number of unmasked tokens, not of samples."""
    tokens = np.array([[1, 2, 3], [1, 0, 0], [2, 3, 0], [1, 0, 0], [3, 3, 3]], "int32")
    model = sequential((3,), layers.Embedding(5, 2, mask_zero=True), dtype="int32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)
    targets = np.random.default_rng(0).integers(0, 3, (5, 3)).astype("int32")
    try:
        assert_equal_sums(*whole_and_parts(model, (tokens, targets), 2, (), loss=loss))
    except ValueError as refusal:
        assert reduction != "sum"
        assert "mask" in str(refusal)  # noqa: PT017


def test_dropout_in_microbatches_is_repeatable_and_that_of_the_first_pass():
    model = sequential((4,), layers.Dense(6, "tanh"), layers.Dropout(0.5, seed=3), layers.Dropout(0.2, seed=4))
    objective = objective_of(model, (normal(COUNT, 4), np.arange(COUNT) % 3), microbatch_size=3)
    x = objective.vector.read()
    before = [objective.value(x), *objective.value_and_grad(x), objective.hvp(x, x), objective.ggnvp(x, x)]
    f, g = objective.first_pass()
    after = [objective.value(x), *objective.value_and_grad(x), objective.hvp(x, x), objective.ggnvp(x, x)]
    assert_same_bits(before, after)
    assert float(f) == pytest.approx(float(before[0]), rel=1e-14)
    np.testing.assert_allclose(g, before[2], rtol=1e-12, atol=1e-15)
    # All products must see the same masks: the gradient's derivative along v is H v.
    expected = central(lambda z: objective.value_and_grad(z)[1].numpy(), x, x)
    assert relative(before[3], expected) < 1e-6


def test_every_microbatch_has_masks_of_its_own():
    seen = []
    model = keras.Sequential([layers.Input((50,)), layers.Dropout(0.5, seed=1), layers.Dense(1, use_bias=False)])
    batch = np.ones((4, 50)), np.zeros((4, 1))
    observe = lambda part, predictions: seen.append(predictions.numpy().ravel())  # noqa: E731
    ModelObjective(model, "mse", batch, microbatch_size=1, observe=observe).first_pass()
    assert len({float(p[0]) for p in seen}) == 4


def test_averages_after_microbatches_are_those_of_training_steps_on_the_parts():
    x, y = blobs(10)
    model = stateful_net()
    objective_of(model, (x, y), microbatch_size=4).first_pass()
    reference = trained_by_keras(stateful_net(), [(x[i : i + 4], y[i : i + 4]) for i in (0, 4, 8)])
    for a, b in zip(values(model), reference, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13)


def test_microbatches_with_batch_normalisation_are_one_function_of_x_whose_derivatives_are_right():
    x, y = blobs(10)
    objective = objective_of(stateful_net(), (x, y), microbatch_size=4)
    point = objective.vector.read()
    v = tf.constant(np.random.default_rng(0).normal(size=point.shape[0]))
    f, g = objective.value_and_grad(point)
    first = objective.first_pass()
    assert float(first[0]) == pytest.approx(float(f), rel=1e-14)
    np.testing.assert_allclose(first[1], g, rtol=1e-10, atol=1e-15)
    slope = central(lambda z: float(objective.value(z)), point, v)
    assert float(tf.tensordot(g, v, 1)) == pytest.approx(slope, rel=1e-6)
    with pytest.warns(UserWarning, match="the loss stops gradients"):
        product = objective.hvp(point, v)
    assert relative(product, central(lambda z: objective.value_and_grad(z)[1].numpy(), point, v)) < 1e-6


def test_each_part_is_observed_once():
    seen = []
    x, y = blobs(10)
    objective = objective_of(dense_net(), (x, y), microbatch_size=4, observe=lambda *part: seen.append(part))
    objective.first_pass()
    objective.value(objective.vector.read())
    np.testing.assert_array_equal(np.concatenate([part[1] for part, _ in seen]), y)
    assert [tuple(predictions.shape) for _, predictions in seen] == [(4, 3), (4, 3), (2, 3)]


@pytest.mark.thorough
def test_training_in_microbatches_is_training_on_whole_batches():
    x, y = blobs(25)
    results = []
    for size in (None, 4):
        model = dense_net()
        loop = TrainLoop(model, LBFGS(m=3), crossentropy(), metrics=["accuracy"], microbatch_size=size)
        result = loop.run(ArrayData(x, y, batch_size=10, seed=0), epochs=2)
        results.append((np.concatenate([np.ravel(v) for v in values(model)]), result))
    (whole, a), (parts, b) = results
    np.testing.assert_allclose(parts, whole, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(b.history["loss"], a.history["loss"], rtol=1e-10)
    np.testing.assert_array_equal(b.history["samples"], a.history["samples"])
    np.testing.assert_array_equal(b.epochs["accuracy"], a.epochs["accuracy"])
    assert a.evaluations == b.evaluations


def test_microbatches_are_refused_under_xla():
    with pytest.raises(ValueError, match="microbatches"):
        TrainLoop(dense_net(), Momentum(), crossentropy(), microbatch_size=4, jit_compile=True)


@pytest.mark.parametrize("size", [0, -1, 2.0, True, "4"])
def test_bad_sizes_of_microbatches_are_refused(size):
    with pytest.raises(ValueError, match=f"microbatch_size.*{size!r}"):
        ModelObjective(dense_net(), crossentropy(), blobs(12), microbatch_size=size)
    with pytest.raises(ValueError, match=f"microbatch_size.*{size!r}"):
        TrainLoop(dense_net(), Momentum(), crossentropy(), microbatch_size=size)


# --- What is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["ggnvp", "ggn"])
def test_gauss_newton_products_of_own_loss_functions_are_refused(method):
    objective = ModelObjective(
        dense_net(), loss_fn=lambda model, batch: tf.reduce_mean(model(batch)), batch=blobs(4)[0]
    )
    x = objective.vector.read()
    with pytest.raises(ValueError, match="curvature='hessian'"):
        getattr(objective, method)(*(x, x) if method == "ggnvp" else (x,))


def test_a_loss_that_does_not_depend_on_the_model_is_refused():
    objective = ModelObjective(dense_net(), loss_fn=lambda model, batch: tf.reduce_mean(batch), batch=blobs(4)[0])
    with pytest.raises(ValueError, match="depend"):
        objective.value_and_grad(objective.vector.read())
    with pytest.raises(ValueError, match="depend"):
        objective.first_pass()


def test_exactly_one_loss_is_wanted():
    with pytest.raises(ValueError, match="exactly one of loss"):
        ModelObjective(dense_net(), batch=blobs(4))
    with pytest.raises(ValueError, match="exactly one of loss"):
        ModelObjective(dense_net(), "mse", blobs(4), loss_fn=lambda model, batch: 0.0)


def test_variables_that_are_not_of_keras_are_evaluated_elsewhere_too():
    class Raw:
        def __init__(self):
            self.trainable_variables = [tf.Variable([1.0, 2.0], name="raw", dtype="float64")]

    loss = lambda model, batch: tf.reduce_sum(batch * model.trainable_variables[0] ** 2)  # noqa: E731
    objective = ModelObjective(Raw(), loss_fn=loss, batch=np.array([3.0, 4.0]))
    f, g = objective.first_pass()
    assert float(f) == 19
    np.testing.assert_array_equal(g, [6, 16])
    assert float(objective.value(2 * objective.vector.read())) == 4 * 19
    np.testing.assert_array_equal(objective.hvp(objective.vector.read(), tf.constant([1.0, 1.0], tf.float64)), [6, 8])
    np.testing.assert_array_equal(objective.vector.read(), [1, 2])


class Quadratic(Objective):
    """x'x, with no more than an author must define."""

    def value(self, x):
        return tf.tensordot(x, x, 1)

    def value_and_grad(self, x):
        return self.value(x), 2 * x


@pytest.mark.parametrize("method", ["hvp", "ggnvp", "ggn"])
def test_a_product_that_an_objective_does_not_define_is_named(method):
    x = tf.ones([2], tf.float64)
    with pytest.raises(ValueError, match="Quadratic has no"):
        getattr(Quadratic(), method)(*(x,) if method == "ggn" else (x, x))


def test_products_that_an_author_defines_make_a_symmetric_matrix():
    G = np.array([[2.0, 1.0, 0.1], [1.0, 3.0, 0.3], [0.1, 0.3, 5.0]])

    class Own(Quadratic):
        def ggnvp(self, x, v):
            return tf.linalg.matvec(G + 1e-15 * np.arange(9).reshape(3, 3), v)

    product = Own().ggn(tf.zeros([3], tf.float64)).numpy()
    np.testing.assert_allclose(product, G, rtol=1e-13)
    np.testing.assert_array_equal(product, product.T)
    assert isinstance(LeastSquares(lambda x: x), Objective)


@pytest.mark.thorough
def test_microbatches_of_a_large_model_inside_of_a_loop(float32):
    """From about two million weights on TensorFlow stored their sum in place, and failed when the loop ran again."""
    model = keras.Sequential([keras.Input((1000,)), keras.layers.Dense(1000, "tanh"), keras.layers.Dense(1000)])
    x = np.random.default_rng(0).normal(size=(8, 1000)).astype("float32")
    losses = TrainLoop(model, LBFGS(), "mse", microbatch_size=4).run((x, x), steps=3).history["loss"]
    assert losses[2] < losses[0]
