"""Jacobians of residuals: row by row against one backward pass for each, and what is made of them against NumPy."""

import itertools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from environment import seed_generators

import trainloop as tl
from trainloop.linesearch import damped
from trainloop.objectives import rows as rows_module

RNG = np.random.default_rng(0)
N = 7


def net(*layers, shape=(3,), dtype="float64"):
    seed_generators()
    return keras.Sequential([keras.Input(shape, dtype=dtype), *layers])


def dense(units=4, activation="tanh"):
    return keras.layers.Dense(units, activation, dtype="float64")


def attention():
    seed_generators()
    x = keras.Input((5, 4), dtype="float64")
    y = keras.layers.MultiHeadAttention(2, 2, dtype="float64")(x, x)
    return keras.Model(x, keras.layers.Dense(2, dtype="float64")(keras.layers.Flatten()(y)))


f64 = {"dtype": "float64"}
NETWORKS = {
    "dense": (lambda: net(dense(), dense(1)), (N, 3)),
    "several outputs": (lambda: net(dense(), dense(3)), (N, 3)),
    "many outputs": (lambda: net(dense(), dense(12)), (N, 3)),
    "convolution": (
        lambda: net(
            keras.layers.Conv2D(2, 3, activation="tanh", **f64),
            keras.layers.MaxPooling2D(2, **f64),
            keras.layers.Flatten(**f64),
            dense(2),
            shape=(6, 6, 1),
        ),
        (N, 6, 6, 1),
    ),
    "layer normalisation": (lambda: net(dense(), keras.layers.LayerNormalization(**f64), dense(1)), (N, 3)),
    "embedding": (
        lambda: net(
            keras.layers.Embedding(5, 3, **f64), keras.layers.Flatten(**f64), dense(1), shape=(4,), dtype="int32"
        ),
        (N, 4),
    ),
    "attention": (attention, (N, 5, 4)),
}
SLOW_NETWORKS = {
    "lstm": (lambda: net(keras.layers.LSTM(3, **f64), dense(1), shape=(4, 2)), (N, 4, 2)),
    "depthwise": (
        lambda: net(keras.layers.DepthwiseConv2D(2, **f64), keras.layers.Flatten(**f64), dense(1), shape=(4, 4, 2)),
        (N, 4, 4, 2),
    ),
}


def points(shape, model):
    if model.inputs[0].dtype == "int32":
        return tf.constant(RNG.integers(0, 5, shape), tf.int32)
    return tf.constant(RNG.normal(size=shape))


def third_order(model, p):
    u, du, d2u, d3u = tl.derivatives(model, p, 3)
    return u[:, 0] * du[:, 0, 1] + d2u[:, 0, 0, 0] * d3u[:, 0, 0, 1, 2]


def naive(model, function, batch, extra=()):
    """J by one backward pass for each entry of r, with the variables as they are."""
    variables = [v.value if hasattr(v, "path") else v for v in [*model.trainable_variables, *extra]]
    rows = []
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(variables)
        entries = tf.unstack(tf.reshape(function(model, batch), [-1]))
    for entry in entries:
        gradients = tape.gradient(entry, variables)
        dense_ones = [
            tf.zeros(v.shape, v.dtype) if g is None else tf.convert_to_tensor(g)
            for g, v in zip(gradients, variables, strict=True)
        ]
        rows.append(np.concatenate([np.ravel(g) for g in dense_ones]))
    return np.array(rows), np.array(entries)


def objective(name, residual=None, **arguments):
    make, shape = {**NETWORKS, **SLOW_NETWORKS}[name]
    model = make()
    batch = points(shape, model)
    residual = residual or (lambda model, p: model(p))
    return tl.ModelObjective(model, residuals=residual, batch=batch, **arguments), model, residual, batch


def check_jacobian(made):
    found, model, residual, batch = made
    x = found.vector.read()
    J, r = naive(model, residual, batch)
    scale = 1 / np.sqrt(r.size)
    np.testing.assert_allclose(found.jacobian(x), scale * J, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(found.residuals(x), scale * r, rtol=1e-12)
    f, g = found.value_and_grad(x)
    assert float(f) == pytest.approx(np.mean(r**2), rel=1e-12)
    np.testing.assert_allclose(g, 2 * np.mean(r[:, None] * J, 0), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_jacobian_is_that_of_single_backward_passes(name):
    check_jacobian(objective(name))


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:.*which is slow")
@pytest.mark.parametrize("name", SLOW_NETWORKS)
def test_what_tensorflow_vectorises_by_loops_is_right_too(name):
    check_jacobian(objective(name))


@pytest.mark.thorough
def test_derivatives_by_the_inputs_to_third_order():
    check_jacobian(objective("dense", third_order))


def test_at_another_point_the_variables_are_put_back():
    found, model, residual, batch = objective("dense")
    before = found.vector.read()
    x = before + 0.3
    given = found.jacobian(x)
    np.testing.assert_array_equal(found.vector.read(), before)
    found.vector.assign(x)
    J, r = naive(model, residual, batch)
    np.testing.assert_allclose(given, J / np.sqrt(r.size), rtol=1e-12, atol=1e-14)


# --- Terms, weights, extra variables ---


def two_terms(**arguments):
    model = net(dense(), dense(1), shape=(2,))
    nu = tf.Variable(0.5, dtype=tf.float64, name="nu")
    residuals = {"pde": lambda m, p: nu * m(p)[:, 0] + p[:, 0], "pairs": lambda m, ab: m(ab[0]) - m(ab[1])}
    batch = {"pde": RNG.normal(size=(5, 2)), "pairs": (RNG.normal(size=(3, 2)), RNG.normal(size=(3, 2)))}
    weights = {"pairs": 4.0}
    found = tl.ModelObjective(
        model, residuals=residuals, batch=batch, loss_weights=weights, extra_variables=[nu], **arguments
    )
    parts = [naive(model, residuals[name], batch[name], [nu]) for name in residuals]
    scales = [np.sqrt(1 / 5), np.sqrt(4 / 3)]
    J = np.concatenate([s * part[0] for s, part in zip(scales, parts, strict=True)])
    r = np.concatenate([s * part[1] for s, part in zip(scales, parts, strict=True)])
    return found, J, r


@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@pytest.mark.thorough_after(1)
def test_terms_of_unequal_length_in_chunks(chunk, jit_compile):
    found, J, r = two_terms()
    x = found.vector.read()
    if chunk:
        found.rows_bytes = chunk * 4 * 8 * x.shape[0]

    @tf.function(autograph=False, jit_compile=jit_compile)
    def everything(x, weights):
        with found.rows(x) as rows:
            return rows.gram(), rows.diagonal(), rows.kernel(weights), rows.residuals_and_jacobian()

    weights = RNG.uniform(1, 2, size=x.shape[0])
    gram, diagonal, kernel, (r_found, J_found) = everything(x, tf.constant(weights))
    np.testing.assert_allclose(J_found, J, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(r_found, r, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(gram, J.T @ J, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(diagonal, np.sum(J**2, 0), rtol=1e-11)
    np.testing.assert_allclose(kernel, (J * weights) @ J.T, rtol=1e-11, atol=1e-14)


@pytest.mark.thorough
def test_samples_are_solved_for_without_the_whole_jacobian():
    found, J, r = two_terms()
    x = found.vector.read()
    found.rows_bytes = 4 * 8 * x.shape[0]  # four rows of eight
    with found.rows(x) as rows:
        assert not rows.fits()
    M, v = RNG.uniform(0.1, 1, size=x.shape[0]), RNG.normal(size=x.shape[0])
    system = damped.system(found, x, found.value_and_grad(x)[1], "sample", 10)
    expected = -np.linalg.solve(J.T @ J + np.diag(M), J.T @ (r + J @ v))
    np.testing.assert_allclose(system.solve(tf.constant(M), tf.constant(v)), expected, rtol=1e-9, atol=1e-12)


def test_the_triangular_factor_in_chunks():
    found, J, r = two_terms()
    x = found.vector.read()
    found.rows_bytes = 2 * 4 * 8 * x.shape[0]
    with found.rows(x) as rows:
        R = rows.triangular().numpy()
    augmented = np.concatenate([J, r[:, None]], 1)
    np.testing.assert_allclose(R.T @ R, augmented.T @ augmented, rtol=1e-10, atol=1e-13)
    np.testing.assert_array_equal(np.tril(R, -1), 0)


def test_products_terms_and_the_gauss_newton_matrix():
    found, J, r = two_terms()
    x = found.vector.read()
    v, u = RNG.normal(size=x.shape[0]), RNG.normal(size=len(r))
    np.testing.assert_allclose(found.jvp(x, tf.constant(v)), J @ v, rtol=1e-10)
    np.testing.assert_allclose(found.vjp(x, tf.constant(u)), u @ J, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(found.ggnvp(x, tf.constant(v)), 2 * J.T @ (J @ v), rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(found.ggn(x), 2 * J.T @ J, rtol=1e-10, atol=1e-13)
    terms = found.terms(x)
    assert {name: tuple(term.shape) for name, term in terms.items()} == {"pde": (5,), "pairs": (3, 1)}
    np.testing.assert_allclose(terms["pde"], r[:5] * np.sqrt(5), rtol=1e-12)


def test_extra_variables_are_the_last_part_of_x():
    found, J, r = two_terms()
    x = found.vector.read()
    assert found.vector.layout.span("nu") == slice(x.shape[0] - 1, x.shape[0])
    h = 1e-6
    e = tf.one_hot(x.shape[0] - 1, x.shape[0], dtype=tf.float64)
    difference = (found.value(x + h * e) - found.value(x - h * e)) / (2 * h)
    assert float(difference) == pytest.approx(2 * J[:, -1] @ r, rel=1e-7)


@pytest.mark.parametrize(
    "loss",
    [keras.losses.MeanSquaredError(dtype="float64"), "mse", keras.losses.mean_squared_error],
    ids=["object", "name", "function"],
)
def test_a_mean_squared_error_is_a_sum_of_squares(loss):
    model = net(dense(), dense(2))
    x, y, w = RNG.normal(size=(N, 3)), RNG.normal(size=(N, 2)), RNG.uniform(size=N)
    found = tl.ModelObjective(model, loss, (x, y, w))
    at = found.vector.read()
    J, z = naive(model, lambda m, x: m(x), x)
    scale = np.repeat(np.sqrt(w / (2 * N)), 2)
    np.testing.assert_allclose(found.jacobian(at), scale[:, None] * J, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(found.residuals(at), scale * (z - y.ravel()), rtol=1e-12)
    assert float(tf.reduce_sum(found.residuals(at) ** 2)) == pytest.approx(float(found.value(at)), rel=1e-13)
    assert found.has_residuals


@pytest.mark.parametrize("shape", [(N, 4), (N, 1), (N, 4, 1)])
def test_weights_of_single_errors_count_as_keras_counts_them(shape):
    model = net(dense(2), shape=(4, 3))
    x, y, w = RNG.normal(size=(N, 4, 3)), RNG.normal(size=(N, 4, 2)), RNG.uniform(size=shape)
    found = tl.ModelObjective(model, "mse", (x, y, w))
    at = found.vector.read()
    expected = np.mean(w.reshape(N, -1)[..., None] * (model(x).numpy() - y) ** 2)
    assert float(found.value(at)) == pytest.approx(expected, rel=1e-12)
    r, g = found.residuals(at), found.value_and_grad(at)[1]
    assert float(tf.reduce_sum(r**2)) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(2 * tf.linalg.matvec(found.jacobian(at), r, transpose_a=True), g, rtol=1e-9)


def test_weights_of_one_number_for_a_batch_are_an_error():
    model = net(dense(1), keras.layers.Flatten(), keras.layers.Lambda(lambda z: z[:, 0]))
    found = tl.ModelObjective(model, "mse", (RNG.normal(size=(N, 3)), RNG.normal(size=N), RNG.uniform(size=N)))
    with pytest.raises(ValueError, match=r"end the model with predictions \[N, 1\]"):
        found.residuals(found.vector.read())


class Halved(keras.losses.MeanSquaredError):
    def call(self, y_true, y_pred):
        return super().call(y_true, y_pred) / 2


@pytest.mark.parametrize(
    "loss",
    [Halved(dtype="float64"), "mae", "msle", lambda y, z: tf.reduce_mean((y - z) ** 2, -1)],
    ids=["subclass", "mae", "msle", "function"],
)
def test_losses_of_other_code_are_taken_for_no_sum_of_squares(loss):
    found = tl.ModelObjective(net(dense(2)), loss, (RNG.normal(size=(N, 3)), RNG.uniform(size=(N, 2))))
    assert not found.has_residuals


def test_a_mask_of_keras_leaves_no_sum_of_squares_over_all_samples():
    layers = [keras.layers.Embedding(6, 3, mask_zero=True, **f64), keras.layers.TimeDistributed(keras.layers.Dense(1))]
    model = net(*layers, shape=(4,), dtype="int32")
    x, y = np.array([[1, 2, 0, 0], [3, 4, 5, 1]]), RNG.normal(size=(2, 4, 1))
    found = tl.ModelObjective(model, keras.losses.MeanSquaredError(dtype="float64"), (x, y))
    at = found.vector.read()
    errors = (model(x).numpy() - y)[x > 0]
    assert float(found.value(at)) == pytest.approx(np.mean(errors**2), rel=1e-6)
    assert not found.has_residuals
    with pytest.raises(ValueError, match="predictions without a mask"):
        found.jacobian(at)
    v = RNG.normal(size=at.shape[0])
    h = 1e-4
    z = [model(x).numpy()[x > 0] for sign in (1, -1) if found.vector.assign(at + sign * h * v) is None]
    Jv = (z[0] - z[1]) / (2 * h)
    found.vector.assign(at)
    assert float(tf.tensordot(found.ggnvp(at, tf.constant(v)), v, 1)) == pytest.approx(2 * np.mean(Jv**2), rel=1e-4)


# --- Where samples cannot be taken one by one ---

OBSTACLES = {
    "mixes samples": (lambda: net(dense(), dense(1)), lambda m, p: m(p) - tf.reduce_mean(m(p))),
    "writes variables": (
        lambda: net(dense(), keras.layers.BatchNormalization(**f64), dense(1)),
        lambda m, p: m(p, training=True),
    ),
    "writes variables or draws": (
        lambda: net(dense(), keras.layers.Dropout(0.5, seed=1, **f64), dense(1)),
        lambda m, p: m(p, training=True),
    ),
    "calls Python": (
        lambda: net(dense(), dense(1)),
        lambda m, p: m(p) + tf.ensure_shape(tf.numpy_function(np.sin, [p[:, :1]], tf.float64), [None, 1]),
    ),
}


@pytest.mark.parametrize("words", OBSTACLES)
@pytest.mark.thorough_after(1)
def test_the_whole_batch_is_taken_where_samples_cannot_be(words):
    make, residual = OBSTACLES[words]
    model = make()
    found = tl.ModelObjective(model, residuals=residual, batch=tf.constant(RNG.normal(size=(N, 3))))
    x = found.vector.read()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        J = found.jacobian(x).numpy()
    assert any(words.split()[0] in str(one.message) and "slow" in str(one.message) for one in caught)
    h = 1e-6
    for i, sign in itertools.product(range(0, x.shape[0], 5), (1,)):
        e = sign * h * tf.one_hot(i, x.shape[0], dtype=tf.float64)
        difference = (found.residuals(x + e) - found.residuals(x - e)) / (2 * h)
        np.testing.assert_allclose(J[:, i], difference, rtol=1e-5, atol=1e-8)


def test_losses_of_layers_have_no_rows():
    model = net(keras.layers.Dense(1, kernel_regularizer="l2", dtype="float64"))
    found = tl.ModelObjective(model, residuals=lambda m, p: m(p), batch=np.ones((2, 3)))
    assert not found.has_residuals
    with pytest.raises(ValueError, match="plus the losses of the model's layers"):
        found.jacobian(found.vector.read())
    v = RNG.normal(size=4)
    J = np.concatenate([np.ones((2, 3)), np.ones((2, 1))], 1) / np.sqrt(2)
    expected = 2 * J.T @ (J @ v) + 2 * float(np.float32(0.01)) * np.append(v[:3], 0.0)
    np.testing.assert_allclose(found.ggnvp(found.vector.read(), tf.constant(v)), expected, rtol=1e-10)


# --- Functions of x ---


def test_rows_of_a_function():
    A, y = RNG.normal(size=(6, 3)), RNG.normal(size=6)
    fun = tl.LeastSquares(lambda x: tf.linalg.matvec(tf.constant(A), tf.sin(x)) - y)
    x = tf.constant(RNG.normal(size=3))
    np.testing.assert_allclose(fun.jacobian(x), A * np.cos(x), rtol=1e-12)
    wide = tl.LeastSquares(lambda x: tf.linalg.matvec(tf.constant(A.T), tf.sin(x)))
    z = tf.constant(RNG.normal(size=6))
    np.testing.assert_allclose(wide.jacobian(z), A.T * np.cos(z), rtol=1e-12)


def test_an_objective_without_residuals_says_so():
    with pytest.raises(ValueError, match="FunctionObjective has no residuals"):
        tl.FunctionObjective(lambda x: x[0]).jacobian(tf.ones([1]))
    model = net(dense(1))
    found = tl.ModelObjective(model, loss_fn=lambda m, b: tf.reduce_mean(m(b)), batch=np.ones((2, 3)))
    with pytest.raises(ValueError, match="f is no sum of squares"):
        found.residuals(found.vector.read())


def test_chunks_cover_all_rows_once():
    for count, most in itertools.product(range(1, 12), range(1, 13)):
        chunks = rows_module.Chunks.of(count, most, 1)
        covered = []
        for i in range(chunks.number):
            begin, repeated = (int(k) for k in chunks.place(i))
            covered += list(range(begin + repeated, begin + chunks.size))
        assert covered == list(range(count))
        assert chunks.size <= most


@pytest.mark.parametrize("solver", ["qr", "cholesky", "sample", "cg"])
@pytest.mark.thorough_after(1)
def test_batches_whose_length_no_trace_knows(solver):
    """Linear least squares on arrays, all at once and in batches."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 3))
    y = x @ [[1.0], [2.0], [3.0]] + rng.normal(size=(30, 1))
    model = keras.Sequential([keras.Input([3]), keras.layers.Dense(1, use_bias=False)])
    loop = tl.TrainLoop(
        model, tl.LevenbergMarquardt(tau=1e-9, solver=solver), residuals=lambda model, batch: model(batch[0]) - batch[1]
    )
    result = loop.run(tl.ArrayData(x, y, None), epochs=10)
    least = np.mean((x @ np.linalg.lstsq(x, y, rcond=None)[0] - y) ** 2)
    assert result.history["loss"][-1] == pytest.approx(least, rel=1e-6)
    loop.run(tl.ArrayData(x, y, 8), epochs=1)  # with a smaller last batch
