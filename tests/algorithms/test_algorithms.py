"""Each method against an independent implementation: Keras for the classics, naive NumPy for the ellipsoid method."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from environment import seed_generators, set_precision
from networks import blobs, crossentropy, dense_net, weights
from stepper import Stepper

from trainloop import (
    ALGORITHMS,
    BFGS,
    LBFGS,
    SR1,
    SSBFGS,
    Adam,
    ArrayData,
    FullMatrixAdaGrad,
    FunctionObjective,
    LeastSquares,
    LevenbergMarquardt,
    Momentum,
    NewtonCG,
    NonlinearCG,
    SimpleGD,
    SSBroyden,
    Status,
    StochasticShorR,
    TestGD,
    TrainLoop,
    lenet5,
    minimize,
)
from trainloop.testing import problems

# --- The classics against Keras -------------------------------------------------------------------------

PAIRS = {
    "gradient descent": (lambda: SimpleGD(0.05), lambda: keras.optimizers.SGD(0.05)),
    "heavy ball": (lambda: Momentum(0.05, 0.8), lambda: keras.optimizers.SGD(0.05, momentum=0.8)),
    "nesterov": (
        lambda: Momentum(0.05, nesterov=True),
        lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    ),
    "adam": (Adam, keras.optimizers.Adam),
    "adamw": (lambda: Adam(weight_decay=0.1), lambda: without_bias(keras.optimizers.AdamW(weight_decay=0.1))),
    "clipped": (lambda: SimpleGD(0.1, global_clipnorm=0.5), lambda: keras.optimizers.SGD(0.1, global_clipnorm=0.5)),
    "schedule": (lambda: Momentum(decay()), lambda: keras.optimizers.SGD(decay(), momentum=0.9)),
}


def decay():
    return keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.7)


def without_bias(optimizer):
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


@pytest.fixture(scope="module")
def digits():
    rng = np.random.default_rng(1)
    return rng.random((800, 28, 28, 1), dtype="float32"), rng.integers(0, 10, 800).astype("int32")


def train_keras(model, optimizer, x, y):
    model.compile(optimizer, loss=crossentropy())
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)


def train_here(model, optimizer, x, y):
    TrainLoop(model, optimizer, crossentropy()).run(ArrayData(x, y, 8, shuffle=False), epochs=1)


def trained_lenet(train, optimizer, data):
    """Weights after a training from the same start: nothing depends on which tests ran before."""
    seed_generators()
    model = lenet5()
    train(model, optimizer, *data)
    return weights(model)


@pytest.fixture(scope="module", params=PAIRS.values(), ids=PAIRS.keys())
def pair_and_keras(request, digits):
    """(our method, weights trained by that of Keras)."""
    ours, theirs = request.param
    set_precision("float32")
    return ours, trained_lenet(train_keras, theirs(), digits)


@pytest.mark.parametrize("door", [train_keras, train_here], ids=["fit", "loop"])
@pytest.mark.thorough_after(1)
def test_hundred_steps_of_lenet_are_those_of_keras(pair_and_keras, door, digits, float32):
    """In float32, because Keras rounds hyper-parameters to it in every precision."""
    ours, expected = pair_and_keras
    found = trained_lenet(door, ours(), digits)
    moved = np.abs(found - trained_lenet(lambda *_: None, None, digits)).max()
    assert moved > 1e-2
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def adam_recursion(x, gradients, m=0.0, v=0.0):
    """Kingma and Ba (2015), the order of operations in the last paragraph of section 2."""
    for k, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        x = x - 0.5 * np.sqrt(1 - 0.999**k) / (1 - 0.9**k) * m / (np.sqrt(v) + 1e-7)
    return x


def heavy_ball_recursion(x, gradients):
    """Polyak (1964): x_k+1 = x_k - 0.5 g_k + 0.75 (x_k - x_k-1)."""
    before = x
    for g in gradients:
        x, before = x - 0.5 * g + 0.75 * (x - before), x
    return x


def nesterov_recursion(x, gradients, v=0.0):
    """Sutskever et al. (2013), at the point that looks ahead."""
    for g in gradients:
        v = 0.75 * v - 0.5 * g
        x = x + 0.75 * v - 0.5 * g
    return x


RECURSIONS = {
    "adam": (lambda: Adam(0.5), adam_recursion),
    "heavy ball": (lambda: Momentum(0.5, 0.75), heavy_ball_recursion),
    "nesterov": (lambda: Momentum(0.5, 0.75, nesterov=True), nesterov_recursion),
}


@pytest.mark.parametrize(("optimizer", "recursion"), RECURSIONS.values(), ids=RECURSIONS)
def test_the_classics_are_their_recursions(optimizer, recursion):
    rng, optimizer = np.random.default_rng(0), optimizer()
    x, gradients = rng.normal(size=5), rng.normal(size=(7, 5))
    variable = tf.Variable(x)
    for g in gradients:
        optimizer.apply([tf.constant(g)], [variable])
    np.testing.assert_allclose(variable, recursion(x, gradients), rtol=1e-12)


def test_decay_leaves_biases_and_normalisation_weights_out():
    model = keras.Sequential(
        [keras.layers.Input((3,)), keras.layers.Dense(4, bias_initializer="ones"), keras.layers.BatchNormalization()]
    )
    before = [w.numpy() for w in model.trainable_variables]
    Adam(0.1, weight_decay=0.5).apply([tf.zeros(w.shape, w.dtype) for w in before], model.trainable_variables)
    kernel, *others = model.trainable_variables
    np.testing.assert_allclose(kernel, before[0] * (1 - 0.1 * 0.5), rtol=1e-7)
    for value, old in zip(others, before[1:], strict=True):
        np.testing.assert_array_equal(value, old)


# --- The ellipsoid method -------------------------------------------------------------------------------


def convex(n, seed=0):
    """A sum of absolute values with a known minimiser inside the unit ball: (subgradient, minimiser)."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(3 * n, n))
    minimiser = rng.normal(size=n)
    minimiser *= 0.7 / np.linalg.norm(minimiser)
    return lambda x: A.T @ np.sign(A @ (x - minimiser)), minimiser


def run_here(subgradient, n, steps, **options):
    """Iterates x [steps + 1, n], radii, and the dense B after each step."""
    v = tf.Variable(np.zeros(n))
    optimizer = TestGD(**options)
    optimizer.build([v])
    xs, radii, matrices = [v.numpy()], [float(optimizer.state["radius"])], [np.eye(n)]
    for _ in range(steps):
        optimizer.apply([tf.constant(subgradient(xs[-1]))], [v])
        xs.append(v.numpy())
        radii.append(float(optimizer.state["radius"]))
        matrices.append(optimizer.state["B"].to_dense().numpy())
    return np.array(xs), np.array(radii), matrices


def run_numpy(subgradient, n, steps, rad):
    """Equations 2.5 and 2.6 of Bland, Goldfarb and Todd (1981), on the ellipsoid matrix P itself."""
    x, P, xs, matrices = np.zeros(n), rad**2 * np.eye(n), [np.zeros(n)], [rad**2 * np.eye(n)]
    for _ in range(steps):
        g = subgradient(x)
        step = P @ g / np.sqrt(g @ P @ g)
        x = x - step / (n + 1)
        P = n**2 / (n**2 - 1) * (P - 2 / (n + 1) * np.outer(step, step))
        xs.append(x)
        matrices.append(P)
    return np.array(xs), matrices


@pytest.mark.parametrize("storage", ["dense", "factored"])
@pytest.mark.parametrize("n", [2, 7, 40])
@pytest.mark.thorough_after(1)
def test_iterates_are_the_textbooks(n, storage):
    subgradient, _ = convex(n)
    steps = 30
    xs, radii, matrices = run_here(subgradient, n, steps, rad=1.0, storage=storage)
    expected, ellipsoids = run_numpy(subgradient, n, steps, 1.0)
    np.testing.assert_allclose(xs, expected, rtol=0, atol=1e-7)
    for r, B, P in zip(radii, matrices, ellipsoids, strict=True):
        np.testing.assert_allclose(r**2 * B, P, rtol=0, atol=1e-7 * np.abs(P).max())


@pytest.mark.parametrize("n", [2, 3, 10])
@pytest.mark.thorough_after(1)
def test_the_minimiser_stays_inside_and_the_volume_shrinks_by_the_textbook_factor(n):
    subgradient, minimiser = convex(n, seed=n)
    xs, radii, matrices = run_here(subgradient, n, 60, rad=1.0, storage="dense")
    for x, r, B in zip(xs, radii, matrices, strict=True):
        distance = (minimiser - x) @ np.linalg.solve(r**2 * B, minimiser - x)
        assert distance <= 1 + 1e-9
    log_volumes = [n * np.log(r) + np.linalg.slogdet(B)[1] / 2 for r, B in zip(radii, matrices, strict=True)]
    factor = (n / np.sqrt(n**2 - 1)) ** n * np.sqrt((n - 1) / (n + 1))
    np.testing.assert_allclose(np.diff(log_volumes), np.log(factor), rtol=1e-8)
    assert factor < np.exp(-1 / (2 * (n + 1)))


@pytest.mark.thorough
def test_it_finds_the_minimum_of_a_nonsmooth_function():
    subgradient, minimiser = convex(2)
    xs, _, _ = run_here(subgradient, 2, 200, rad=1.0, storage="dense")
    assert np.linalg.norm(xs[-1] - minimiser) < 1e-9


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.thorough_after(1)
def test_the_length_of_the_gradient_does_not_matter(scale):
    subgradient, _ = convex(5)
    expected, _, _ = run_here(subgradient, 5, 20, rad=1.0)
    xs, _, _ = run_here(lambda x: scale * subgradient(x), 5, 20, rad=1.0)
    np.testing.assert_allclose(xs, expected, rtol=0, atol=1e-12)


def test_one_parameter_is_bisection():
    xs, radii, _ = run_here(lambda x: np.sign(x - 0.3), 1, 40, rad=1.0)
    np.testing.assert_allclose(radii, 0.5 ** np.arange(41))
    np.testing.assert_allclose(xs[:4, 0], [0, 0.5, 0.25, 0.375])
    assert abs(xs[-1, 0] - 0.3) < 1e-11


def test_a_zero_gradient_changes_nothing():
    v = tf.Variable(np.ones(3))
    optimizer = TestGD(rad=1.0)
    for g in ([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]):
        optimizer.apply([tf.constant(g, tf.float64)], [v])
    once = tf.Variable(np.ones(3))
    other = TestGD(rad=1.0)
    other.apply([tf.constant([1.0, 2.0, 3.0], tf.float64)], [once])
    np.testing.assert_array_equal(v, once)
    np.testing.assert_array_equal(optimizer.state["B"].to_dense(), other.state["B"].to_dense())
    assert float(optimizer.state["radius"]) == float(other.state["radius"])


@pytest.mark.parametrize(("rad", "first"), [(None, 0.05), (2.0, 2.0 / 8)])
def test_the_first_step_has_the_promised_length(rad, first):
    xs, _, _ = run_here(lambda x: np.arange(1.0, 8.0), 7, 1, rad=rad)
    assert np.linalg.norm(xs[1] - xs[0]) == pytest.approx(first, rel=1e-12)


def status_after(optimizer, x, subgradient, steps):
    """Codes of single steps on one vector."""
    v = tf.Variable(x)
    optimizer.build([v])

    @tf.function
    def step(g):
        return optimizer.step(type("Given", (), {"first_pass": lambda self: (tf.zeros([], g.dtype), g)})()).status

    codes = []
    for _ in range(steps):
        codes.append(int(step(tf.constant(subgradient(v.numpy()), v.dtype))))
        if codes[-1] != Status.RUNNING:
            break
    return codes


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.thorough_after(1)
def test_ten_thousand_float32_steps_end_by_themselves_or_stay_finite(n):
    subgradient, _ = convex(n)
    codes = status_after(TestGD(rad=1.0), np.zeros(n, "float32"), lambda x: subgradient(x.astype(float)), 10_000)
    assert codes[-1] in (Status.CONVERGED, Status.MATRIX_NOT_POSITIVE)
    assert set(codes[:-1]) == {Status.RUNNING}


def test_rounding_that_ruins_the_matrix_is_reported():
    g = iter(np.tile([[1.0, 1.0 + 1e-7]], (3000, 1)))
    codes = status_after(TestGD(rad=1e30, storage="factored"), np.zeros(2, "float32"), lambda x: next(g), 3000)
    assert codes[-1] == Status.MATRIX_NOT_POSITIVE


def test_dense_and_factored_train_a_network_alike(float32):
    x, y = blobs()
    runs = []
    for storage in ("dense", "factored"):
        model = dense_net()
        TrainLoop(model, TestGD(rad=10.0, storage=storage), crossentropy()).run(ArrayData(x, y, 16), epochs=10)
        runs.append(weights(model))
    np.testing.assert_allclose(runs[0], runs[1], rtol=0, atol=2e-5)


# --- All that remember ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        TestGD,
        StochasticShorR,
        FullMatrixAdaGrad,
        LBFGS,
        BFGS,
        SSBFGS,
        SSBroyden,
        SR1,
        NewtonCG,
        LevenbergMarquardt,
        lambda: LevenbergMarquardt(solver="cg"),
    ],
)
@pytest.mark.thorough_after(1)
def test_batches_without_gradient_leave_no_trace(make):
    """As if they had not been there: samples of weight zero among others."""
    batches = {weight: LeastSquares(lambda x, weight=weight: weight * (tf.exp(x) - [1.0, 2, 3])) for weight in (0, 1)}
    ends = []
    for weights_of_batches in ([1, 1, 0, 0, 0, 0, 1, 1], [1, 1, 1, 1]):
        v, optimizer = tf.Variable([1.0, -1.0, 3.0], dtype=tf.float64), make()
        optimizer.build([v])
        for weight in weights_of_batches:
            assert int(step_on(batches[weight], optimizer, v).status) == Status.RUNNING
        ends.append(v.numpy())
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-12)
    assert np.all(ends[0] != [1.0, -1.0, 3.0])


def step_on(objective, optimizer, v):
    return optimizer.step(objective, objective.value_and_grad(v.read_value()))


def test_a_step_length_is_not_taken_from_a_batch_that_is_nothing_beside_this_one():
    v, optimizer = tf.Variable([1.0, -1.0, 3.0], dtype=tf.float64), NonlinearCG()
    optimizer.build([v])
    for weight in (1.0, 1e-25, 1.0):
        objective = LeastSquares(lambda x, weight=weight: weight**0.5 * (tf.exp(x) - [1.0, 2, 3]))
        result = step_on(objective, optimizer, v)
    assert int(result.status) == Status.RUNNING
    assert float(objective.value(v.read_value())) < 0.9 * float(result.logs["loss"])


def polak_ribiere(g, g_new, d):
    return max(0, (g_new - g) @ g_new / (g @ g))


def hager_zhang(g, g_new, d):
    y = g_new - g
    beta = (y - 2 * d * (y @ y) / (d @ y)) @ g_new / (d @ y)
    return max(beta, -1 / (np.linalg.norm(d) * min(0.01, np.linalg.norm(g))))


@pytest.mark.parametrize("beta", [polak_ribiere, hager_zhang], ids=lambda beta: beta.__name__)
def test_directions_of_conjugate_gradients_are_those_of_the_papers(beta):
    problem = problems["tanh_network"]
    objective = FunctionObjective(problem.fun)
    here, x = Stepper(NonlinearCG(beta.__name__), problem.fun, problem.x0), np.array(problem.x0)
    g = objective.value_and_grad(tf.constant(x))[1].numpy()
    d = -g
    for _ in range(10):
        t = float(here.step().logs["step_length"])
        np.testing.assert_allclose(here.x, x + t * d, rtol=1e-9)
        g_new = objective.value_and_grad(tf.constant(here.x))[1].numpy()
        x, g, d = here.x, g_new, beta(g, g_new, d) * d - g_new
        assert g @ d < 0


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.thorough_after(1)
def test_conjugate_gradients_do_not_depend_on_the_unit_of_f(scale):
    """But for the first step, whose length they guess."""
    valley = problems["chained_rosenbrock"]
    counts = [
        minimize(
            lambda x, unit=unit: unit * valley.fun(x), valley.x0, NonlinearCG(), gtol=0, f_target=unit * 1e-6
        ).evaluations["f"]
        for unit in (scale, 1.0)
    ]
    assert counts[0] < 1.3 * counts[1]


# --- Constructors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Momentum(momentum=1.0), "momentum"),
        (lambda: Momentum(momentum=-0.1), "momentum"),
        (lambda: Momentum(nesterov=1), "nesterov"),
        (lambda: Adam(beta_1=1.0), "beta_1"),
        (lambda: Adam(beta_2="0.9"), "beta_2"),
        (lambda: Adam(epsilon=0), "epsilon"),
        (lambda: Adam(weight_decay=-1e-3), "weight_decay"),
        (lambda: TestGD(rad=0), "rad"),
        (lambda: TestGD(rad=float("nan")), "rad"),
        (lambda: TestGD(rad="1"), "rad"),
        (lambda: TestGD(storage="spare"), "storage"),
    ],
)
def test_bad_arguments_are_refused_by_name(make, name):
    with pytest.raises(ValueError, match=f"{name} must be .* received"):
        make()


@pytest.mark.parametrize("cls", ALGORITHMS.values(), ids=ALGORITHMS.keys())
def test_config_makes_the_same_method_again(cls):
    optimizer = cls()
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is cls
    assert again.get_config() == optimizer.get_config()


def test_pytest_does_not_take_the_ellipsoid_method_for_a_test():
    assert TestGD.__test__ is False


def misleading(x):
    """Below f = 1 the gradient points the wrong way: no search finds anything along -H g, and then along -g."""
    weights = tf.constant([1.0, 25.0], tf.float64)
    f = tf.reduce_sum(weights * x**2)
    return f, tf.where(f < 1, -weights, weights) * 2 * x


def test_a_matrix_is_the_identity_again_where_the_gradient_misleads_it():
    here, moved = Stepper(BFGS(storage="dense"), misleading, [30.0, -20.0]), []
    while len(moved) < 30 and all(moved):
        moved.append(float(here.step().logs["step_length"]) > 0)
    assert len(moved) > 2
    assert not moved[-1]
    np.testing.assert_array_equal(here.optimizer.state["H"].to_dense(), np.eye(2))


def test_lbfgs_drops_its_history_where_the_gradient_misleads_it():
    found = minimize(misleading, [30.0, -20.0], LBFGS(), max_steps=30)
    assert found.status == Status.STALLED
    assert found.history["pairs"][-3] > 0
    np.testing.assert_array_equal(found.history["pairs"][-2:], 0)
