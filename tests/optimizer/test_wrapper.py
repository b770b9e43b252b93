"""Methods around other methods: sharpness-aware steps and the best point so far, against NumPy and plain Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import blobs, crossentropy, dense_net, stateful_net

from trainloop import (
    LBFGS,
    SAM,
    Adam,
    ArrayData,
    BestSoFar,
    FunctionObjective,
    GlobalObjectiveOptimizer,
    GlobalVectorOptimizer,
    Momentum,
    SimpleGD,
    Status,
    TestGD,
    TrainLoop,
    minimize,
)

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")

A = np.array([[4.0, 1, 0.5], [1, 3, -1], [0.5, -1, 2]])
X0 = np.array([1.0, -2, 0.5])


def quadratic(x):
    return tf.tensordot(x, tf.linalg.matvec(A, x), 1) / 2


def f_numpy(x):
    return x @ A @ x / 2


def schedule():
    """A tenth of the rate after every step."""
    return keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.1, staircase=True)


def sam_numpy(x, rates, rho, clip=np.inf):
    for t in rates:
        g = A @ x
        g_there = A @ (x + rho * g / np.linalg.norm(g))
        x = x - t * g_there * min(1, clip / np.linalg.norm(g_there))
    return x


# --- SAM --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rho", [0.05, 0.7])
def test_sharpness_aware_steps_are_those_of_numpy(rho):
    trail = []
    minimize(quadratic, X0, SAM(SimpleGD(0.1), rho=rho), max_steps=3, callback=lambda step: trail.append(step.x))
    for steps, x in enumerate(trail, 1):
        np.testing.assert_allclose(x, sam_numpy(X0, [0.1] * steps, rho), rtol=1e-13)
    assert len(trail) == 3


def test_a_sharpness_aware_step_stays_where_the_gradient_is_zero():
    variable, optimizer = tf.Variable(np.zeros(3)), SAM(SimpleGD(0.1))
    optimizer.build([variable])
    objective = FunctionObjective(quadratic)
    status, *_ = optimizer.step(objective, objective.value_and_grad(variable.value()))
    assert int(status) == Status.RUNNING
    np.testing.assert_array_equal(variable, np.zeros(3))


def test_a_sharpness_aware_step_takes_two_gradients():
    result = minimize(quadratic, X0, SAM(SimpleGD(0.1)), max_steps=4)
    # One more at every new point, which minimize looks at.
    assert result.evaluations["gradient"] == 1 + 2 * 4


def test_sharpness_aware_momentum_is_momentum_on_other_gradients():
    x, velocity = X0, np.zeros(3)
    for _ in range(3):
        g = A @ x
        velocity = 0.8 * velocity - 0.1 * A @ (x + 0.2 * g / np.linalg.norm(g))
        x = x + velocity
    result = minimize(quadratic, X0, SAM(Momentum(0.1, 0.8), rho=0.2), max_steps=3)
    np.testing.assert_allclose(result.x, x, rtol=1e-12)


def test_the_inner_method_clips_the_gradient_that_it_is_given():
    result = minimize(quadratic, X0, SAM(SimpleGD(0.1, global_clipnorm=0.5), rho=0.3), max_steps=2)
    np.testing.assert_allclose(result.x, sam_numpy(X0, [0.1] * 2, 0.3, clip=0.5), rtol=1e-13)


def test_both_gradients_of_a_sharpness_aware_step_see_the_same_dropout():
    x, y = blobs(12)
    model, reference = stateful_net(), stateful_net()
    shapes = [v.shape for v in reference.trainable_variables]
    frozen = [v.numpy() for v in reference.non_trainable_variables]

    def gradient(pieces):
        pieces = [tf.constant(piece) for piece in pieces]
        with tf.GradientTape() as tape:
            tape.watch(pieces)
            predictions, *_ = reference.stateless_call(pieces, frozen, x, training=True)
            f = crossentropy()(y, predictions) + 0.01 * tf.reduce_sum(pieces[0] ** 2)
        return [g.numpy() for g in tape.gradient(f, pieces)]

    start = [v.numpy() for v in reference.trainable_variables]
    g = gradient(start)
    length = np.sqrt(sum((piece**2).sum() for piece in g))
    g_there = gradient([w + 0.1 * piece / length for w, piece in zip(start, g, strict=True)])
    TrainLoop(model, SAM(SimpleGD(0.5), rho=0.1), crossentropy()).run(ArrayData(x, y, batch_size=None), steps=1)
    for v, w, piece, shape in zip(model.trainable_variables, start, g_there, shapes, strict=True):
        assert v.shape == shape
        np.testing.assert_allclose(v.numpy(), w - 0.5 * piece, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("inner", [LBFGS, lambda: SAM(SimpleGD()), lambda: keras.optimizers.SGD(), lambda: SimpleGD])
def test_only_methods_of_one_gradient_can_be_made_sharpness_aware(inner):
    with pytest.raises(ValueError, match=r"SAM wraps a GlobalVectorOptimizer, received .*SimpleGD\(0.1\)"):
        SAM(inner())


@pytest.mark.parametrize("rho", [0, -1.0, np.inf, "0.1"])
def test_a_neighbourhood_without_a_radius_is_refused(rho):
    with pytest.raises(ValueError, match="rho must be a finite number above 0"):
        SAM(SimpleGD(), rho=rho)


@pytest.mark.parametrize("wrapper", [SAM, BestSoFar])
def test_wrappers_refuse_the_doors_they_cannot_serve(wrapper):
    with pytest.raises(ValueError, match="global_clipnorm"):
        wrapper(SimpleGD(), global_clipnorm=1.0)
    with pytest.raises(ValueError, match="TrainLoop"):
        wrapper(SimpleGD()).apply([tf.ones([2])], [tf.Variable([1.0, 2.0])])


# --- The best point so far --------------------------------------------------------------------------------


def absolute(x):
    """A kink at 0.3, over which steps of a fixed length jump to and fro."""
    return tf.reduce_sum(tf.abs(x - 0.3))


@pytest.mark.parametrize(
    ("fun", "inner", "steps"),
    [
        (quadratic, lambda: SimpleGD(0.6), 12),  # diverges
        (absolute, lambda: SimpleGD(0.17), 25),  # jumps
        (absolute, lambda: TestGD(rad=3.0), 25),
    ],
    ids=["diverging", "jumping", "ellipsoids"],
)
@pytest.mark.thorough_after(1)
def test_a_minimisation_returns_the_best_point_of_its_trail(fun, inner, steps):
    trail = [np.array(X0)]
    plain = minimize(fun, X0, inner(), max_steps=steps, callback=lambda step: trail.append(step.x) and None)
    seen = [float(fun(tf.constant(x))) for x in trail]
    result = minimize(fun, X0, BestSoFar(inner()), max_steps=steps)
    best = int(np.argmin(seen))
    assert best < len(seen) - 1  # otherwise there was nothing to remember
    np.testing.assert_allclose(result.x, trail[best], rtol=1e-12)
    assert result.f == pytest.approx(seen[best], rel=1e-12)
    assert result.f < plain.f
    with tf.GradientTape() as tape:
        x = tf.Variable(result.x)
        f = fun(x)
    assert result.grad_norm == pytest.approx(np.linalg.norm(tape.gradient(f, x)), rel=1e-12)
    best_f = np.minimum.accumulate(seen)[:-1]
    np.testing.assert_allclose(result.history["best_f"], best_f, rtol=1e-12)


def test_a_best_point_that_is_the_last_is_returned_too():
    result = minimize(quadratic, X0, BestSoFar(SimpleGD(0.1)), max_steps=3)
    expected = np.linalg.matrix_power(np.eye(3) - 0.1 * A, 3) @ X0
    np.testing.assert_allclose(result.x, expected, rtol=1e-12)


def test_a_best_point_survives_what_is_not_finite_after_it():
    def cliff(x):
        return x[0] + 0 * tf.math.log(x[0] + 2)

    result = minimize(cliff, np.array([0.0]), BestSoFar(SimpleGD(0.75)), max_steps=20)
    assert result.status.failed
    assert result.x == pytest.approx([-1.5])
    assert result.f == pytest.approx(-1.5)


class Halving(GlobalObjectiveOptimizer):
    """Half of the way to the origin, with f and g there, until it is near."""

    def init_state(self, x):
        return {"status": tf.constant(Status.RUNNING, tf.int32)}

    def update(self, x, f, g, state, objective):
        f_new, g_new = objective.value_and_grad(x / 2)
        return x / 2, {"status": tf.where(f_new < 1e-3, int(Status.STALLED), int(Status.RUNNING))}, (f_new, g_new)


def test_a_point_that_the_inner_method_has_evaluated_is_the_best_at_once():
    result = minimize(quadratic, X0, BestSoFar(Halving()), max_steps=4)
    np.testing.assert_array_equal(result.x, X0 / 16)
    np.testing.assert_array_equal(result.state["state.best_x"], X0 / 16)
    assert float(result.state["state.best_f"]) == result.f == pytest.approx(f_numpy(X0 / 16), rel=1e-14)
    assert result.evaluations["f"] == 1 + 4  # nothing is evaluated twice


def test_the_status_of_the_inner_method_ends_the_outer_one():
    result = minimize(quadratic, X0, BestSoFar(BestSoFar(Halving())), max_steps=100)
    assert result.status == Status.STALLED
    assert f_numpy(X0 / 2**result.steps) < 1e-3 <= f_numpy(X0 / 2 ** (result.steps - 1))


def jumpy_training(steps):
    """(loop, optimizer, data, weights before every step and after the last, losses)."""
    x, y = blobs(24)
    model, data = dense_net(), ArrayData(x, y, batch_size=None)
    optimizer = BestSoFar(SimpleGD(4.0))
    loop = TrainLoop(model, optimizer, crossentropy())
    trail, losses = [], []
    for _ in range(steps):
        trail.append([v.numpy() for v in model.trainable_variables])
        losses.append(loop.run(data, steps=1).history["loss"][0])
    return model, optimizer, trail, losses


def test_the_best_point_of_a_training_can_be_put_back_into_the_model():
    model, optimizer, trail, losses = jumpy_training(5)
    best = int(np.argmin(losses))
    assert best < len(losses) - 1
    assert float(optimizer.best_point()[1]) == losses[best]
    optimizer.restore_best()
    for v, w in zip(model.trainable_variables, trail[best], strict=True):
        np.testing.assert_array_equal(v.numpy(), w)


def test_only_methods_that_remember_can_restore():
    optimizer = SimpleGD(0.1)
    optimizer.build([tf.Variable([1.0])])
    assert optimizer.best_point() is None
    with pytest.raises(ValueError, match=r"BestSoFar\(SimpleGD\(\.\.\.\)\)"):
        optimizer.restore_best()
    with pytest.raises(ValueError, match="not built"):
        BestSoFar(SimpleGD()).restore_best()


# --- What all wrappers share ------------------------------------------------------------------------------


def gentle(inner):
    """Sharpness-aware within a neighbourhood that does not matter."""
    return SAM(inner, rho=1e-12)


@pytest.mark.parametrize(
    "wrap",
    [gentle, lambda inner: BestSoFar(BestSoFar(inner)), lambda inner: BestSoFar(BestSoFar(gentle(inner)))],
    ids=["one", "two", "three"],
)
def test_a_schedule_inside_counts_the_steps_of_the_outermost(wrap):
    result = minimize(quadratic, X0, wrap(SimpleGD(schedule())), max_steps=3)
    expected = X0
    for rate in (0.1, 0.01, 0.001):
        expected = expected - rate * A @ expected
    np.testing.assert_allclose(result.x, expected, rtol=1e-6)  # schedules compute in float32


def test_the_rate_of_the_inner_method_can_be_set_between_runs():
    x, y = blobs(12)
    data = ArrayData(x, y, batch_size=None)
    inner, plain = SimpleGD(0.1), SimpleGD(0.1)
    methods = {BestSoFar(gentle(inner)): dense_net(), plain: dense_net()}
    loops = [TrainLoop(model, method, crossentropy()) for method, model in methods.items()]
    for rate in (0.1, 0.7):
        inner.learning_rate = plain.learning_rate = rate
        for loop in loops:
            loop.run(data, steps=2)
    for a, b in zip(*(model.trainable_variables for model in methods.values()), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-7, atol=1e-10)


def test_the_rate_of_a_method_two_levels_down_is_saved():
    saved = {}
    optimizers = [BestSoFar(SAM(SimpleGD(rate))) for rate in (0.1, 0.5)]
    for optimizer in optimizers:
        optimizer.build([tf.Variable(X0)])
    optimizers[0].inner.inner.learning_rate = 0.25
    optimizers[0].save_own_variables(saved)
    optimizers[1].load_own_variables(saved)
    assert float(optimizers[1].inner.inner.learning_rate) == 0.25


class Drift(GlobalVectorOptimizer):
    """A method of somebody else's."""

    def __init__(self, pace, name="drift", **kwargs):
        super().__init__(name=name, **kwargs)
        self.pace = pace

    def init_state(self, x):
        return {}

    def update(self, x, g, state):
        return x - self.pace, {}

    def get_config(self):
        return {**super().get_config(), "pace": self.pace}


WRAPPED = {
    "adam": lambda: SAM(Adam(0.02, beta_1=0.7), rho=0.3, name="mine"),
    "momentum": lambda: SAM(Momentum(0.02, nesterov=True, global_clipnorm=2.0)),
    "schedule": lambda: BestSoFar(SimpleGD(schedule())),
    "lbfgs": lambda: BestSoFar(LBFGS(m=3, line_search="armijo")),
    "nested": lambda: BestSoFar(SAM(Adam(0.02), rho=0.1), name="outer"),
    "foreign": lambda: SAM(Drift(0.25)),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_wrapper_comes_back_from_its_configuration(name):
    optimizer = WRAPPED[name]()
    written = keras.optimizers.serialize(optimizer)
    copy = keras.optimizers.deserialize(written)
    assert type(copy) is type(optimizer)
    assert type(copy.inner) is type(optimizer.inner)
    assert copy.inner is not optimizer.inner
    assert copy.name == optimizer.name
    assert copy.inner.name == optimizer.inner.name
    assert keras.optimizers.serialize(copy) == keras.optimizers.serialize(optimizer) == written
    config = optimizer.get_config()
    again = type(optimizer).from_config(config)
    assert again.get_config() == config == optimizer.get_config()  # nobody wrote into it


def test_a_wrapper_that_came_back_takes_the_same_steps():
    optimizer = WRAPPED["nested"]()
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    ends = [minimize(quadratic, X0, method, max_steps=3).x for method in (optimizer, copy)]
    np.testing.assert_array_equal(*ends)


def test_a_foreign_inner_method_is_found_by_itself():
    class Mine(Drift):
        pass

    copy = SAM.from_config(SAM(Mine(0.5)).get_config())
    assert type(copy.inner) is Mine
    assert copy.inner.pace == 0.5


def test_an_inner_method_that_keras_does_not_know_is_found_among_custom_objects():
    config = SAM(Drift(0.5)).get_config()
    config["inner"] |= {"class_name": "Unknown", "registered_name": "Unknown"}
    with pytest.raises((TypeError, ValueError), match="Unknown"):
        SAM.from_config(config)
    copy = SAM.from_config(config, custom_objects={"Unknown": Drift})
    assert type(copy.inner) is Drift
    assert copy.inner.pace == 0.5


@pytest.mark.parametrize("wrap", [SAM, BestSoFar])
def test_an_inner_method_that_is_in_use_is_refused(wrap):
    inner = SimpleGD(0.1, name="busy")
    inner.build([tf.Variable([1.0])])
    with pytest.raises(ValueError, match=f"busy is in use by itself; give {wrap.__name__} a new one"):
        wrap(inner).build([tf.Variable([1.0])])


@pytest.mark.parametrize("inner", [lambda: keras.optimizers.SGD(), lambda: "adam", lambda: SimpleGD])
def test_what_is_no_method_cannot_be_wrapped(inner):
    with pytest.raises(ValueError, match="BestSoFar wraps an optimizer of this package, received"):
        BestSoFar(inner())


def test_a_used_wrapper_minimises_afresh():
    optimizer = BestSoFar(SAM(Momentum(0.1)))
    first, second = (minimize(quadratic, X0, optimizer, max_steps=3) for _ in range(2))
    np.testing.assert_array_equal(first.x, second.x)


def test_the_state_of_the_inner_method_is_a_part_of_the_state():
    optimizer, v = BestSoFar(Momentum(0.1, 0.9)), tf.Variable(X0)
    optimizer.build([v])
    f, g = FunctionObjective(quadratic).value_and_grad(tf.constant(X0))
    optimizer.step(FunctionObjective(quadratic), (f, g))
    np.testing.assert_allclose(optimizer.state["inner"]["velocity"], -0.1 * A @ X0, rtol=1e-14)
    assert set(optimizer.state) == {"inner", "best_x", "best_f"}
    plain = BestSoFar(SimpleGD())
    plain.build([tf.Variable(X0)])
    assert set(plain.state) == {"best_x", "best_f"}
