"""Curvature over a whole data set, against central differences of gradients and against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from environment import seed_generators
from networks import blobs, crossentropy, dense_net, stateful_net, weights

import trainloop as tl

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")

KINDS = ["hessian", "ggn", "fisher", "empirical_fisher"]
X, Y = blobs(23)


def softmax(z):
    p = np.exp(z - z.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def jacobian(model, outputs):
    """First derivatives [..., n] of outputs() by all weights."""
    with tf.GradientTape(persistent=True) as tape:
        z = outputs()
    columns = tape.jacobian(z, model.trainable_variables, experimental_use_pfor=False)
    return np.concatenate([j.numpy().reshape(*z.shape, -1) for j in columns], -1)


def by_differences(model, f, step=1e-5):
    """Second derivatives [n, n] of f(): central differences of its gradient."""
    vector = tl.VariableVector(model.trainable_variables)
    x = vector.read().numpy()

    @tf.function
    def gradient():
        with tf.GradientTape() as tape:
            value = f()
        return vector.layout.pack(tape.gradient(value, vector.variables))

    def at(point):
        vector.assign(tf.constant(point))
        return gradient().numpy()

    H = np.stack([(at(x + e) - at(x - e)) / (2 * step) for e in step * np.eye(len(x))])
    vector.assign(tf.constant(x))
    return (H + H.T) / 2


def dense(model, kind="hessian", loss=None, data=(X, Y), **options):
    return tl.curvature(model, loss or crossentropy(), data=data, kind=kind, **options).to_dense()


# --- The four matrices ------------------------------------------------------------------------------------


def test_the_hessian_is_that_of_differences():
    model = dense_net()
    loss = crossentropy()
    np.testing.assert_allclose(dense(model), by_differences(model, lambda: loss(Y, model(X))), atol=1e-9)


def test_ggn_and_fisher_are_those_of_numpy():
    model = dense_net()
    J, p = jacobian(model, lambda: model(X)), softmax(model(X).numpy())
    L = np.einsum("nc,cd->ncd", p, np.eye(3)) - np.einsum("nc,nd->ncd", p, p)
    np.testing.assert_allclose(dense(model, "ggn"), np.einsum("nci,ncd,ndj->ij", J, L, J) / 23, atol=1e-13)
    # What the Fisher matrix is by its definition: the expectation over all labels that the model may draw.
    scores = np.einsum("kc,nci->nki", np.eye(3), J) - np.einsum("nc,nci->ni", p, J)[:, None]
    expected = np.einsum("nk,nki,nkj->ij", p, scores, scores) / 23
    np.testing.assert_allclose(dense(model, "fisher"), expected, atol=1e-13)


def test_the_empirical_fisher_is_the_mean_of_outer_products():
    model = dense_net()
    J, p = jacobian(model, lambda: model(X)), softmax(model(X).numpy())
    g = np.einsum("nc,nci->ni", p - np.eye(3)[Y], J)
    np.testing.assert_allclose(dense(model, "empirical_fisher"), g.T @ g / 23, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_uneven_batches_give_what_one_batch_gives(kind):
    model, whole = dense_net(), tl.ArrayData(X, Y, batch_size=None)
    expected = dense(model, kind, data=whole)
    for data in (tl.ArrayData(X, Y, 7), tf.data.Dataset.from_tensor_slices((X, Y)).batch(10), (X, Y)):
        np.testing.assert_allclose(dense(model, kind, data=data), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.thorough_after(1)
def test_uneven_batches_of_weighted_samples_with_regularization(kind):
    model, weight = stateful_net(), np.random.default_rng(1).uniform(0, 3, 23)
    data = [tl.ArrayData(X, Y, size, sample_weight=weight) for size in (None, 9)]
    one, many = (dense(model, kind, data=d) for d in data)
    np.testing.assert_allclose(many, one, rtol=0, atol=1e-13 * np.abs(one).max())


@pytest.mark.parametrize("reduction", ["sum", "mean_with_sample_weight"])
@pytest.mark.thorough_after(1)
def test_batches_count_as_the_reduction_says(reduction):
    model, weight = dense_net(), np.random.default_rng(1).uniform(0, 3, 23)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)
    many = dense(model, "ggn", loss, tl.ArrayData(X, Y, 9, sample_weight=weight))
    J, p = jacobian(model, lambda: model(X)), softmax(model(X).numpy())
    L = np.einsum("nc,cd->ncd", p, np.eye(3)) - np.einsum("nc,nd->ncd", p, p)
    expected = np.einsum("n,nci,ncd,ndj->ij", weight, J, L, J)
    np.testing.assert_allclose(many, expected / (1 if reduction == "sum" else weight.sum()), atol=1e-12)


# --- Losses and models ------------------------------------------------------------------------------------


def test_squared_errors_of_several_entries():
    model, targets = dense_net(classes=2), np.random.default_rng(1).normal(size=(23, 2))
    weight = np.random.default_rng(2).uniform(0, 3, 23)
    data = (X, targets, weight)
    J, errors = jacobian(model, lambda: model(X)), model(X).numpy() - targets
    expected = np.einsum("n,nci,ncj->ij", weight, J, J) * 2 / (23 * 2)
    for kind in ("ggn", "fisher"):
        np.testing.assert_allclose(dense(model, kind, "mse", data), expected, atol=1e-13)
    g = np.einsum("n,nc,nci->ni", weight, errors, J)  # of the mean over two entries: 2 / 2
    np.testing.assert_allclose(dense(model, "empirical_fisher", "mse", data), g.T @ g / 23, atol=1e-12)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.thorough_after(1)
def test_probabilities_are_split_at_their_logits(activation):
    model = dense_net(classes=3 if activation == "softmax" else 1)
    model.layers[-1].activation = keras.activations.get(activation)
    loss = "sparse_categorical_crossentropy" if activation == "softmax" else "binary_crossentropy"
    targets = Y if activation == "softmax" else (Y[:, None] > 0).astype("float64")
    with_logits = dense_net(classes=model.output_shape[-1])
    with_logits.set_weights(model.get_weights())
    of_logits = {"softmax": crossentropy(), "sigmoid": keras.losses.BinaryCrossentropy(from_logits=True)}[activation]
    for kind in ("fisher", "empirical_fisher"):
        expected = dense(with_logits, kind, of_logits, (X, targets))
        np.testing.assert_allclose(dense(model, kind, loss, (X, targets)), expected, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.thorough_after(2)
def test_regularization_counts_where_it_is_said(kind):
    def net(factor):
        seed_generators()
        kernel = keras.regularizers.L2(factor) if factor else None
        return keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, kernel_regularizer=kernel)])

    curved = np.diag(np.r_[np.full(18, 2 * 0.1), np.zeros(3)])  # of 0.1 |w|^2
    added = dense(net(0.1), kind) - dense(net(0), kind)
    np.testing.assert_allclose(added, curved if kind in ("hessian", "ggn") else 0, atol=1e-13)


def test_several_outputs_with_weights():
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(4, "tanh")(inputs)
    model = keras.Model(inputs, {"a": keras.layers.Dense(3)(hidden), "b": keras.layers.Dense(1)(hidden)})
    losses, scale = {"a": crossentropy(), "b": "mse"}, {"a": 0.5, "b": 3.0}
    targets = {"a": Y, "b": X[:, :1]}
    J = jacobian(model, lambda: tf.concat([model(X)["a"], model(X)["b"]], 1))
    p = softmax(model(X)["a"].numpy())
    d = np.concatenate([0.5 * (p - np.eye(3)[Y]), 3.0 * 2 * (model(X)["b"].numpy() - X[:, :1])], 1)
    g = np.einsum("nc,nci->ni", d, J)
    found = dense(model, "empirical_fisher", losses, tl.ArrayData(X, targets, 10), loss_weights=scale)
    np.testing.assert_allclose(found, g.T @ g / 23, atol=1e-12)


def test_layers_are_in_inference_mode_and_left_alone():
    model = stateful_net()
    model.layers[1].moving_variance.assign(np.linspace(0.5, 2, 8))
    before = weights(model)
    H = dense(model, data=tl.ArrayData(X, Y, 9))
    assert np.array_equal(weights(model), before)
    loss = crossentropy()
    expected = by_differences(model, lambda: loss(Y, model(X, training=False)) + sum(model.losses))
    np.testing.assert_allclose(H, expected, atol=1e-8)


def test_the_matrix_stays_that_of_its_weights_when_the_model_is_trained():
    model, v = stateful_net(), np.random.default_rng(1).normal(size=[99, 2])
    C = tl.curvature(model, crossentropy(), data=(X, Y))
    before = C @ v
    tl.TrainLoop(model, tl.Adam(0.1), crossentropy()).run((X, Y), epochs=3)  # which moves averages too
    now = weights(model)
    assert np.array_equal(C @ v, before)
    assert np.array_equal(weights(model), now)
    assert np.abs(tl.curvature(model, crossentropy(), data=(X, Y)) @ v - before).max() > 1e-3


@pytest.mark.filterwarnings("ignore:the loss stops gradients")
def test_second_derivatives_through_normalization_are_right():
    seed_generators()
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4), keras.layers.LayerNormalization()])
    loss, target = keras.losses.MeanSquaredError(), np.tanh(X[:, :4])
    expected = by_differences(model, lambda: loss(target, model(X)))
    np.testing.assert_allclose(dense(model, loss=loss, data=tl.ArrayData(X, target, 9)), expected, atol=1e-7)


def test_residuals_of_points_are_one_batch():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)])
    a, b = np.random.default_rng(1).normal(size=(15, 2)), np.random.default_rng(2).normal(size=(6, 2))
    terms = {"pde": lambda model, p: model(p) ** 2 - 1, "bc": lambda model, p: model(p)}
    options = {"data": {"pde": a, "bc": b}, "residuals": terms, "loss_weights": {"bc": 4.0}}
    J, K = jacobian(model, lambda: model(a) ** 2)[:, 0], jacobian(model, lambda: model(b))[:, 0]
    expected = 2 * J.T @ J / 15 + 4 * 2 * K.T @ K / 6
    for kind in ("ggn", "fisher"):
        np.testing.assert_allclose(tl.curvature(model, kind=kind, **options).to_dense(), expected, atol=1e-12)
    f = lambda: tf.reduce_mean((model(a) ** 2 - 1) ** 2) + 4 * tf.reduce_mean(model(b) ** 2)  # noqa: E731
    np.testing.assert_allclose(tl.curvature(model, **options).to_dense(), by_differences(model, f), atol=1e-8)


def test_a_loss_of_model_and_batch_with_a_variable_beside_the_model():
    model, nu = dense_net(), keras.Variable(0.7, dtype="float64", name="nu")

    def loss_fn(model, batch):
        return tf.reduce_mean((model(batch[0])[:, 0] - nu.value * batch[0][:, 0]) ** 2)

    C = tl.curvature(model, loss_fn=loss_fn, data=(X, Y), extra_variables=[nu])
    assert C.shape == (54, 54)
    assert C.to_dense()[-1, -1] == pytest.approx(2 * np.mean(X[:, 0] ** 2))


# --- The operator -----------------------------------------------------------------------------------------


def test_top_and_layout_of_a_network():
    C = tl.curvature(dense_net(), crossentropy(), data=tl.ArrayData(X, Y, 10), kind="ggn")
    values, vectors = C.top(3)
    H = C.to_dense()
    np.testing.assert_allclose(values, np.linalg.eigvalsh(H)[::-1][:3], atol=1e-10)
    assert vectors[C.layout.span(C.layout.names[0])].shape == (30, 3)
    assert C.trace(53).value == pytest.approx(np.trace(H))
    assert repr(C) == "CurvatureOperator(ggn, 53 x 53, float64, 23 samples in 3 batches)"


def test_products_are_compiled_once_and_columns_share_a_pass():
    traces, reads = [], []

    def loss_fn(model, batch):
        traces.append(1)
        return tf.reduce_mean(model(batch[0]) ** 2)

    def samples():
        for begin in (0, 10, 20):
            reads.append(begin)
            yield X[begin : begin + 10], Y[begin : begin + 10]

    specs = (tf.TensorSpec([None, 6], tf.float64), tf.TensorSpec([None], tf.int32))
    C = tl.curvature(dense_net(), loss_fn=loss_fn, data=tf.data.Dataset.from_generator(samples, output_signature=specs))
    traced, read = len(traces), len(reads)
    for columns in (1, 4, 2):
        C @ np.ones([53, columns])
    assert len(traces) == traced
    assert len(reads) - read == 9


@pytest.mark.thorough
def test_float32(float32):
    model = dense_net()
    C = tl.curvature(model, crossentropy(), data=tl.ArrayData(X.astype("float32"), Y, 10))
    loss = crossentropy()
    expected = by_differences(model, lambda: loss(Y, model(X.astype("float32"))), step=1e-2)
    assert C.dtype == np.float32
    np.testing.assert_allclose(C.to_dense(), expected, atol=2e-4)


# --- What cannot be ---------------------------------------------------------------------------------------


def softmax_without_logits():
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(3), keras.layers.Lambda(lambda z: tf.exp(z))])


def errors_of_twos(model, batch):
    return model(batch[0])[:, 0]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"kind": "hessain"}, r"kind must be one of hessian.*did you mean 'hessian'"),
        ({"data": X}, "data must be an ArrayData, .* received ndarray"),
        ({"data": tf.data.Dataset.from_tensors((X, Y)).repeat()}, "received an infinite dataset"),
        ({"data": tf.data.Dataset.from_tensors((X, Y)).take(0)}, "received an empty dataset"),
        (
            {"kind": "fisher", "loss": "mae", "data": (X, X[:, :3])},
            "kind='fisher' is known for .* received the loss 'mae'",
        ),
        ({"kind": "fisher", "loss": "sparse_categorical_crossentropy"}, "needs the logits of the crossentropy"),
        ({"kind": "fisher", "loss": None, "loss_fn": lambda model, b: tf.reduce_sum(model(b[0]))}, "model's own distr"),
        (
            {"kind": "ggn", "loss": None, "loss_fn": lambda model, b: tf.reduce_sum(model(b[0]))},
            "Gauss-Newton products",
        ),
        ({"kind": "empirical_fisher", "loss": None, "residuals": errors_of_twos}, "needs the loss of each sample"),
        (
            {"kind": "empirical_fisher", "loss": keras.losses.MeanSquaredError(reduction="sum"), "data": (X, X[:, :3])},
            "needs a mean over samples, received .* reduction='sum'",
        ),
        ({"loss": None, "loss_fn": lambda model, b: tf.constant(float(tf.reduce_sum(model(b[0]))))}, "only as Python"),
        ({"loss": lambda t, p: tf.reduce_max(p), "data": tl.ArrayData(X, Y, 9)}, "one number for a whole batch"),
        (
            {
                "loss": None,
                "loss_fn": lambda model, b: tf.reduce_sum(model(b[0]) * tf.random.normal([], dtype=X.dtype)),
            },
            "draws random numbers that cannot be repeated",
        ),
    ],
)
def test_what_cannot_be_is_named(given, told):
    given = {"loss": crossentropy(), "data": (X, Y), **given}
    with pytest.raises(ValueError, match=told):
        tl.curvature(dense_net(), **given)


def test_an_error_in_a_loss_is_shown_as_it_is():
    with pytest.raises(TypeError, match=r"unsupported operand|dtype tf.string"):
        tl.curvature(dense_net(), loss_fn=lambda model, batch: tf.linalg.norm("a"), data=(X, Y))


def test_a_batch_that_fails_leaves_the_model_as_it_was():
    labels = iter([Y, Y, Y + 7])  # for what is traced, counted and multiplied

    def samples():
        yield X, next(labels)

    specs = (tf.TensorSpec([23, 6], tf.float64), tf.TensorSpec([23], tf.int32))
    data = tf.data.Dataset.from_generator(samples, output_signature=specs)
    model = stateful_net()
    C = tl.curvature(model, crossentropy(), data=data)
    model.set_weights([w + 1 for w in model.get_weights()])
    before = weights(model)
    with pytest.raises(tf.errors.InvalidArgumentError):
        C @ np.ones(C.shape[0])
    assert np.array_equal(weights(model), before)


def test_a_dataset_that_changes_is_named():
    counts = iter([23, 23, 23, 20])

    def samples():
        count = next(counts)
        yield from zip(X[:count], Y[:count], strict=True)

    specs = (tf.TensorSpec([6], tf.float64), tf.TensorSpec([], tf.int32))
    data = tf.data.Dataset.from_generator(samples, output_signature=specs).batch(10)
    C = tl.curvature(dense_net(), crossentropy(), data=data)
    C @ np.ones(53)
    with pytest.raises(ValueError, match="same samples in each pass, received 23 and then 20"):
        C @ np.ones(53)


# --- Losses at other points ------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [(X, Y), tl.ArrayData(X, Y, 10, shuffle=False)], ids=["one batch", "uneven batches"])
def test_losses_on_a_line_are_those_of_evaluate(data):
    model = stateful_net()  # with averages and dropout, which evaluate does not move
    loop = tl.TrainLoop(model, tl.SimpleGD(), crossentropy())
    C = tl.curvature(model, crossentropy(), data=data)
    d = np.random.default_rng(0).normal(size=C.shape[0])
    points = C.x.numpy() + np.array([-0.1, 0.0, 0.2])[:, None] * d
    losses = C.losses(points)
    np.testing.assert_array_equal(tl.VariableVector(model.trainable_variables).read(), C.x)
    vector = tl.VariableVector(model.trainable_variables)
    for point, loss in zip(points, losses, strict=True):
        vector.assign(tf.constant(point))
        np.testing.assert_allclose(loss, loop.evaluate((X, Y))["loss"], rtol=1e-12)
    with pytest.raises(ValueError, match=r"points must have shape \[k, "):
        C.losses(d)
